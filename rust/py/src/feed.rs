//! What external sources supply: bytes go in, and are made into rows without the GIL.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dataflow_protocol::intake::{OnBad, Parsed, Target, csv, pgoutput};
use dataflow_worker::feed::{Bell, Feed as Queue};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;

use crate::detach::detach;
use crate::host::Host;

fn document<'a, T: serde::Deserialize<'a>>(what: &str, json: &'a str) -> PyResult<T> {
    serde_json::from_str(json).map_err(|error| PyValueError::new_err(format!("{what}: {error}")))
}

fn on_bad(skip: bool) -> OnBad {
    if skip { OnBad::Skip } else { OnBad::Stop }
}

/// The door of one source's thread to the workers.
#[pyclass(frozen, module = "dataflow_serve._core")]
pub(crate) struct Intake {
    host: Py<Host>,
    generation: u64,
    bell: Arc<Bell>,
}

impl Intake {
    pub(crate) fn new(host: Py<Host>, generation: u64) -> Self {
        Intake { host, generation, bell: Arc::default() }
    }
}

#[pymethods]
impl Intake {
    /// Opens a feed to the worker of the process whose turn it is; it has ended if the generation has.
    fn feed(&self, limit_bytes: usize) -> Feed {
        Feed { queue: self.host.get().workers.open_feed(self.generation, limit_bytes, &self.bell) }
    }

    /// Waits, without the GIL, until a feed has news or `ring` is called, at most so many seconds.
    fn wait(&self, py: Python<'_>, seconds: f64) -> PyResult<()> {
        let timeout = Duration::try_from_secs_f64(seconds)
            .map_err(|error| PyValueError::new_err(format!("seconds: {error}")))?;
        detach(py, || self.bell.wait(timeout));
        Ok(())
    }

    /// Wakes the thread that waits, from any other.
    fn ring(&self) {
        self.bell.ring();
    }
}

/// How a CSV file is to be read.
#[pyclass(frozen, module = "dataflow_serve._core")]
pub(crate) struct Csv {
    target: Target,
    format: csv::Format,
    on_bad: OnBad,
}

#[pymethods]
impl Csv {
    /// `order` says which field each column is, of `width`; `null` which unquoted text is no value, and `nulls` what
    /// stands for it, by column.
    #[new]
    #[pyo3(signature = (target, delimiter, skip, *, order=None, null=None))]
    fn new(
        target: &str,
        delimiter: char,
        skip: bool,
        order: Option<(Vec<usize>, usize)>,
        null: Option<(String, Vec<Option<String>>)>,
    ) -> PyResult<Self> {
        let target: Target = document("target", target)?;
        let delimiter = u8::try_from(delimiter)
            .map_err(|_| PyValueError::new_err("a delimiter is one character of ASCII"))?;
        if order.as_ref().is_some_and(|(order, _)| order.len() != target.columns.len()) {
            return Err(PyValueError::new_err("the order has another number of columns than the relation"));
        }
        Ok(Csv { target, format: csv::Format { delimiter, order, null }, on_bad: on_bad(skip) })
    }

    /// The first record of a file and how many bytes it takes; None if it isn't complete.
    #[staticmethod]
    fn first(data: &[u8], delimiter: char, last: bool) -> PyResult<Option<(Vec<String>, usize)>> {
        let delimiter = u8::try_from(delimiter)
            .map_err(|_| PyValueError::new_err("a delimiter is one character of ASCII"))?;
        Ok(csv::first(data, delimiter, last))
    }
}

/// How lines of JSON are to be read.
#[pyclass(frozen, module = "dataflow_serve._core")]
pub(crate) struct Ndjson {
    target: Target,
    on_bad: OnBad,
}

#[pymethods]
impl Ndjson {
    #[new]
    fn new(target: &str, skip: bool) -> PyResult<Self> {
        Ok(Ndjson { target: document("target", target)?, on_bad: on_bad(skip) })
    }
}

/// What was made of a piece of a file; `bad` has the line, counted from 0, the column and what is wrong.
#[pyclass(frozen, get_all, module = "dataflow_serve._core")]
pub(crate) struct Piece {
    consumed: usize,
    lines: u64,
    rows: u64,
    bad_rows: u64,
    bad: Vec<(u64, Option<String>, String)>,
}

impl From<Parsed> for Piece {
    fn from(parsed: Parsed) -> Self {
        let bad = parsed.bad.into_iter().map(|bad| (bad.line, bad.column, bad.message)).collect();
        Piece {
            consumed: parsed.consumed,
            lines: parsed.lines,
            rows: parsed.taken_rows,
            bad_rows: parsed.bad_rows,
            bad,
        }
    }
}

/// Follows PostgreSQL's replication.
#[pyclass(frozen, module = "dataflow_serve._core")]
pub(crate) struct PgOutput {
    decoder: Mutex<pgoutput::Decoder>,
}

#[pymethods]
impl PgOutput {
    /// `tables` as JSON; a transaction may take `limit_bytes`.
    #[new]
    fn new(tables: &str, skip: bool, limit_bytes: usize) -> PyResult<Self> {
        let decoder = pgoutput::Decoder::new(document("tables", tables)?, on_bad(skip), limit_bytes);
        Ok(PgOutput { decoder: Mutex::new(decoder) })
    }

    /// Forgets a transaction that was begun: the stream starts again behind the last that was committed.
    fn reset(&self) {
        self.decoder.lock().unwrap_or_else(PoisonError::into_inner).reset();
    }
}

/// A bounded queue to the worker that owns it.
#[pyclass(frozen, module = "dataflow_serve._core")]
pub(crate) struct Feed {
    queue: Arc<Queue>,
}

#[pymethods]
impl Feed {
    /// Its worker, counted through the cluster.
    #[getter]
    fn worker(&self) -> usize {
        self.queue.worker()
    }

    /// Whether it takes another transaction now.
    #[getter]
    fn has_room(&self) -> bool {
        self.queue.has_room()
    }

    /// Code and message of why nothing is taken any more.
    #[getter]
    fn ended(&self) -> Option<(&'static str, String)> {
        self.queue.ended().map(|reason| (reason.code.name(), reason.message))
    }

    /// How far it has come: transactions offered and applied, rows, time and position of the last, bytes held.
    #[getter]
    fn progress(&self) -> BTreeMap<&'static str, u64> {
        let progress = self.queue.progress();
        BTreeMap::from([
            ("offered", progress.offered),
            ("applied", progress.applied),
            ("rows", progress.rows),
            ("time", progress.time),
            ("position", progress.position),
            ("held_bytes", progress.held_bytes as u64),
        ])
    }

    /// Supplies rows of a CSV file; None, with nothing read, while there is no room.
    fn csv(&self, py: Python<'_>, form: &Csv, data: &[u8], last: bool) -> Option<Piece> {
        let Csv { target, format, on_bad } = form;
        detach(py, || self.queue.csv(data, target, format, *on_bad, last)).map(Piece::from)
    }

    /// The same for lines of JSON.
    fn ndjson(&self, py: Python<'_>, form: &Ndjson, data: &[u8], last: bool) -> Option<Piece> {
        detach(py, || self.queue.ndjson(data, &form.target, form.on_bad, last)).map(Piece::from)
    }

    /// Empties relations in one transaction; False if the feed has ended.
    fn clear(&self, targets: Vec<String>) -> PyResult<bool> {
        let targets = targets.iter().map(|target| {
            let target: Target = document("target", target)?;
            Ok((target.id, target.columns.len()))
        });
        Ok(self.queue.clear(&targets.collect::<PyResult<Vec<_>>>()?))
    }

    /// Supplies what messages of PostgreSQL's replication say, as far as there is room: how many were taken, the
    /// position behind the last transaction that ended in them, the number of bad rows and the first.
    fn pgoutput(
        &self,
        py: Python<'_>,
        decoder: &PgOutput,
        messages: Vec<PyBackedBytes>,
    ) -> PyResult<(usize, Option<u64>, u64, Option<String>)> {
        let followed = detach(py, || {
            let mut decoder = decoder.decoder.lock().unwrap_or_else(PoisonError::into_inner);
            self.queue.pgoutput(&mut decoder, &messages)
        });
        let followed = followed.map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok((followed.messages, followed.position, followed.bad_rows, followed.bad))
    }

    /// Ends it: what hasn't been taken never will be.
    fn close(&self) {
        use dataflow_protocol::error::{ErrorBody, ErrorCode};
        self.queue.end(ErrorBody::new(ErrorCode::Interrupted, "the source has ended"));
    }
}

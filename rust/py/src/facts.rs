//! Rows of text files on their way to a server: bytes go in as they are read, and come out as a transaction has them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use dataflow_facts::{Form, Reader};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::detach::detach;

/// The rows of one file.
#[pyclass(frozen, module = "dataflow_serve._core")]
pub(crate) struct Facts {
    /// In a box, as Python's allocator doesn't align objects as a search with wide registers wants it.
    reader: Mutex<Box<Reader>>,
}

impl Facts {
    fn reader(&self) -> MutexGuard<'_, Box<Reader>> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Facts {
    /// Nothing yet of a file whose rows have columns described in JSON; see [`Form`].
    #[new]
    fn new(
        columns: &str,
        delimiter: String,
        quoted: bool,
        header: Option<bool>,
        skip: usize,
    ) -> PyResult<Self> {
        let columns = serde_json::from_str(columns)
            .map_err(|error| PyValueError::new_err(format!("cannot read the columns of a file: {error}")))?;
        let reader = Reader::new(columns, Form { delimiter, quoted, header, skip });
        Ok(Facts { reader: Mutex::new(Box::new(reader)) })
    }

    /// Takes the next bytes of the file; with `last` nothing follows.
    fn feed(&self, py: Python<'_>, data: &[u8], last: bool) {
        detach(py, || self.reader().feed(data, last));
    }

    /// An array of the next rows in MessagePack, and how many they are; None wants more to be fed, unless all was, or
    /// something doesn't fit, as `misfit` says. `odd` gives the value in MessagePack of a text, by the column's index, or
    /// raises `ValueError`.
    fn batch<'py>(
        &self,
        py: Python<'py>,
        rows: usize,
        size: usize,
        odd: &Bound<'py, PyAny>,
    ) -> PyResult<Option<(Bound<'py, PyBytes>, usize)>> {
        let mut failure = None;
        let odd = odd.clone().unbind();
        let batch = detach(py, || {
            let mut odd = |column: usize, text: &str, out: &mut Vec<u8>| {
                Python::attach(|py| {
                    let value = odd.bind(py).call1((column, text));
                    let value = value.and_then(|value| {
                        out.extend_from_slice(value.extract()?);
                        Ok(())
                    });
                    match value {
                        Ok(()) => true,
                        Err(error) => {
                            if !error.is_instance_of::<PyValueError>(py) {
                                failure = Some(error);
                            }
                            false
                        }
                    }
                })
            };
            self.reader().batch(rows, size, &mut odd)
        });
        match failure {
            Some(error) => Err(error),
            None => Ok(batch.map(|batch| (PyBytes::new(py, &batch.rows), batch.count))),
        }
    }

    /// What doesn't fit: the line, the index of the column and the text of its value, or no column and what is wrong.
    #[getter]
    fn misfit(&self) -> Option<(u64, Option<usize>, String)> {
        self.reader().misfit().map(|misfit| (misfit.line, misfit.column, misfit.what.clone()))
    }
}

//! A relation's rows on their way to a file: bytes go in as a server sent them, and come out as text.

use std::error::Error;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dataflow_protocol::table::{Form, Table as Rows, TableError};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

use crate::detach::detach;

fn value_error(error: &TableError) -> PyErr {
    let reason = error.source().map_or_else(String::new, |source| format!(": {source}"));
    PyValueError::new_err(format!("{error}{reason}"))
}

/// The rows of one relation.
#[pyclass(frozen, module = "dataflow_serve._core")]
pub(crate) struct Table {
    rows: Mutex<Rows>,
}

impl Table {
    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Table {
    /// No rows yet, of columns described in JSON.
    #[new]
    fn new(columns: &str) -> PyResult<Self> {
        let rows = Rows::new(columns).map_err(|error| value_error(&error))?;
        Ok(Table { rows: Mutex::new(rows) })
    }

    /// Adds the `changes` of a snapshot's message, in MessagePack.
    fn add(&self, py: Python<'_>, changes: PyBackedBytes) -> PyResult<()> {
        detach(py, || self.rows().add(&changes)).map_err(|error| value_error(&error))
    }

    /// Number of rows, copies counted.
    fn __len__(&self) -> usize {
        usize::try_from(self.rows().rows()).unwrap_or(usize::MAX)
    }

    /// The line of the columns' names.
    fn header<'py>(&self, py: Python<'py>, delimiter: String, quoted: bool) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.rows().header(&Form { delimiter, quoted }).as_bytes())
    }

    /// The next lines, in the order of values; empty when there are no more.
    fn lines<'py>(&self, py: Python<'py>, delimiter: String, quoted: bool) -> Bound<'py, PyBytes> {
        let form = Form { delimiter, quoted };
        let piece = detach(py, || self.rows().lines(&form));
        PyBytes::new(py, piece.as_bytes())
    }
}

//! The one door through which calls that may block leave Python.

use pyo3::prelude::*;

/// Runs `body` without the GIL.
pub(crate) fn detach<R: Send>(py: Python<'_>, body: impl FnOnce() -> R + Send) -> R {
    py.detach(body)
}

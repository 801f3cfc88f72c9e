//! The one table from Rust's errors to Python's exceptions.

use std::error::Error;

use dataflow_protocol::error::{ErrorBody, ErrorCode};
use dataflow_worker::error::WorkerError;
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;

/// The exception for a server that can't start.
pub(crate) fn worker_error(error: &WorkerError) -> PyErr {
    match error {
        WorkerError::Config(message) => PyValueError::new_err(message.clone()),
        WorkerError::Tls(source) => PyValueError::new_err(reason(source)),
        WorkerError::Listen { source, .. }
        | WorkerError::Mesh { source, .. }
        | WorkerError::System { source, .. } => {
            let message = format!("{error}: {}", reason(source));
            match source.raw_os_error() {
                Some(number) => PyOSError::new_err((number, message)),
                None => PyOSError::new_err(message),
            }
        }
    }
}

fn reason(error: &dyn Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

/// What a client is told, from the parts that Python has.
pub(crate) fn error_body(
    code: &str,
    message: String,
    hint: Option<String>,
    position: Option<(u32, u32)>,
    retry: bool,
) -> PyResult<ErrorBody> {
    let known = ErrorCode::ALL.into_iter().find(|known| known.name() == code);
    let code = known.ok_or_else(|| PyValueError::new_err(format!("no error code {code:?}")))?;
    let mut body = ErrorBody::new(code, message).with_hint(hint).with_retry(retry);
    if let Some((line, column)) = position {
        body = body.with_position(line, column);
    }
    Ok(body)
}

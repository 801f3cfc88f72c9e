//! The handle on the workers of this process.

use std::os::fd::RawFd;
use std::time::Duration;

use dataflow_worker::access::rules::Rules;
use dataflow_worker::command::Ticket;
use dataflow_worker::config::{Config, Files};
use dataflow_worker::events::Answer;
use dataflow_worker::host::Host as Workers;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::detach::detach;
use crate::error::{error_body, worker_error};
use crate::events::{Stopped, event};
use crate::feed::Intake;

/// The workers of this process, running from the start.
///
/// Methods may be called from any thread; none blocks but `join`, and it releases the GIL.
#[pyclass(frozen, module = "dataflow_serve._core")]
pub(crate) struct Host {
    pub(crate) workers: Workers,
}

#[pymethods]
impl Host {
    /// Binds the port and starts the workers.
    #[new]
    fn new(py: Python<'_>, config: &str) -> PyResult<Self> {
        let config: Config = serde_json::from_str(config)
            .map_err(|error| PyValueError::new_err(format!("configuration: {error}")))?;
        let workers = detach(py, || Workers::start(config)).map_err(|error| worker_error(&error))?;
        Ok(Host { workers })
    }

    /// Where clients connect: host and port.
    #[getter]
    fn address(&self) -> (String, u16) {
        let address = self.workers.address();
        (address.ip().to_string(), address.port())
    }

    /// Readable while there are events.
    #[getter]
    fn event_fd(&self) -> RawFd {
        self.workers.event_fd()
    }

    /// Whether the cluster is formed.
    #[getter]
    fn formed(&self) -> bool {
        self.workers.is_formed()
    }

    /// All events since the last call, oldest first.
    fn drain(&self, py: Python<'_>) -> PyResult<Vec<Py<PyAny>>> {
        self.workers.drain().into_iter().map(|told| event(py, told)).collect()
    }

    /// Answers a `Register` with the compiled plan, JSON.
    fn respond(&self, ticket: u64, plan: String) {
        self.workers.answer(Ticket(ticket), Answer::Plan(plan));
    }

    /// Answers an `Explain` with the tree of operators, JSON.
    fn explain(&self, ticket: u64, tree: String) {
        self.workers.answer(Ticket(ticket), Answer::Explanation(tree));
    }

    /// Answers an `Attach` with the source as it will be run, JSON.
    fn accept(&self, ticket: u64, source: String) {
        self.workers.answer(Ticket(ticket), Answer::Source(source));
    }

    /// Answers a `Detach`: the time of the source's last transaction, and what it had to leave behind.
    fn detached(&self, ticket: u64, time: u64, left: Vec<String>) {
        self.workers.answer(Ticket(ticket), Answer::Detached { time, left });
    }

    /// Attaches a source of the configuration; `Attached` or `Unattached` follows.
    fn attach(&self, name: String, source: String) {
        self.workers.attach(name, source);
    }

    /// What a source says of itself in `status`, JSON; None once it has ended.
    #[pyo3(signature = (name, report))]
    fn post_source(&self, name: String, report: Option<String>) {
        self.workers.post_source(name, report);
    }

    /// What the thread of one source hands its rows to, in one generation.
    fn intake(slf: &Bound<'_, Self>, generation: u64) -> Intake {
        Intake::new(slf.clone().unbind(), generation)
    }

    /// Answers any of them with an error.
    #[pyo3(signature = (ticket, code, message, *, hint=None, position=None, retry=false))]
    fn reject(
        &self,
        ticket: u64,
        code: &str,
        message: String,
        hint: Option<String>,
        position: Option<(u32, u32)>,
        retry: bool,
    ) -> PyResult<()> {
        let body = error_body(code, message, hint, position, retry)?;
        self.workers.answer(Ticket(ticket), Answer::Rejected(body));
        Ok(())
    }

    /// Replaces the rules that say who may do what, JSON as in the configuration's `access`.
    fn set_access(&self, access: &str) -> PyResult<()> {
        let rules: Rules = serde_json::from_str(access)
            .map_err(|error| PyValueError::new_err(format!("access: {error}")))?;
        self.workers.set_access(rules);
        Ok(())
    }

    /// Shows another certificate to new connections; JSON as in the configuration's `tls`, or null.
    fn set_certificate(&self, py: Python<'_>, tls: &str) -> PyResult<()> {
        let files: Option<Files> =
            serde_json::from_str(tls).map_err(|error| PyValueError::new_err(format!("tls: {error}")))?;
        detach(py, || self.workers.set_certificate(files.as_ref())).map_err(|error| worker_error(&error))
    }

    /// Asks the whole cluster to stop; `Stopped` follows.
    fn shutdown(&self) {
        self.workers.shutdown();
    }

    /// Waits until the workers have ended, and says how; `None` if they haven't in time.
    fn join(&self, py: Python<'_>, timeout: f64) -> PyResult<Option<Stopped>> {
        let timeout = Duration::try_from_secs_f64(timeout)
            .map_err(|error| PyValueError::new_err(format!("timeout: {error}")))?;
        Ok(detach(py, || self.workers.join(timeout)).as_ref().map(Stopped::from))
    }
}

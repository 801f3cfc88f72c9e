//! Events as Python sees them: small and frozen.

use dataflow_worker::events::{Ending, Event};
use pyo3::prelude::*;

/// The cluster is formed: requests are served from now on.
#[pyclass(frozen, get_all, module = "dataflow_serve._core")]
pub(crate) struct Formed {
    generation: u64,
}

/// The generation is over, and its catalog with it; another one follows.
#[pyclass(frozen, get_all, module = "dataflow_serve._core")]
pub(crate) struct Fallen {
    generation: u64,
    why: String,
}

/// A client asks for a program; answered by `Host.respond` or `Host.reject`.
#[pyclass(frozen, get_all, module = "dataflow_serve._core")]
pub(crate) struct Register {
    ticket: u64,
    program: String,
    name: Option<String>,
    statistics: String,
}

/// A client asks how a relation is computed; answered by `Host.explain` or `Host.reject`.
#[pyclass(frozen, get_all, module = "dataflow_serve._core")]
pub(crate) struct Explain {
    ticket: u64,
    relation: String,
    plan: String,
    analysis: Option<String>,
}

/// The catalog has grown by a module, described in JSON.
#[pyclass(frozen, get_all, module = "dataflow_serve._core")]
pub(crate) struct Registered {
    version: u64,
    module: String,
}

/// Relations, and modules with them, have left the catalog.
#[pyclass(frozen, get_all, module = "dataflow_serve._core")]
pub(crate) struct Unregistered {
    version: u64,
    modules: Vec<String>,
    relations: Vec<u64>,
}

/// A client asks to attach a source; answered by `Host.accept` or `Host.reject`.
#[pyclass(frozen, get_all, module = "dataflow_serve._core")]
pub(crate) struct Attach {
    ticket: u64,
    name: String,
    source: String,
}

/// A source is attached to this process.
#[pyclass(frozen, get_all, module = "dataflow_serve._core")]
pub(crate) struct Attached {
    attachment: u64,
    name: String,
    source: String,
}

/// A source of the configuration isn't attached.
#[pyclass(frozen, get_all, module = "dataflow_serve._core")]
pub(crate) struct Unattached {
    name: String,
    reason: String,
}

/// A source is to end; answered by `Host.detached`.
#[pyclass(frozen, get_all, module = "dataflow_serve._core")]
pub(crate) struct Detach {
    ticket: u64,
    attachment: u64,
    name: String,
}

/// All workers of the process have ended: `clean` or not, `alone` or with the cluster, or with a `failure`.
#[pyclass(frozen, get_all, module = "dataflow_serve._core")]
pub(crate) struct Stopped {
    alone: bool,
    failure: Option<String>,
}

impl From<&Ending> for Stopped {
    fn from(ending: &Ending) -> Self {
        match ending {
            Ending::Clean => Stopped { alone: false, failure: None },
            Ending::Alone => Stopped { alone: true, failure: None },
            Ending::Failed(message) => Stopped { alone: false, failure: Some(message.clone()) },
        }
    }
}

/// The Python object of an event.
pub(crate) fn event(py: Python<'_>, event: Event) -> PyResult<Py<PyAny>> {
    Ok(match event {
        Event::Formed { generation } => Py::new(py, Formed { generation })?.into_any(),
        Event::Fallen { generation, why } => Py::new(py, Fallen { generation, why })?.into_any(),
        Event::Register { ticket, program, name, statistics } => {
            Py::new(py, Register { ticket: ticket.0, program, name, statistics })?.into_any()
        }
        Event::Explain { ticket, relation, plan, analysis } => {
            Py::new(py, Explain { ticket: ticket.0, relation, plan, analysis })?.into_any()
        }
        Event::Registered { version, module } => Py::new(py, Registered { version, module })?.into_any(),
        Event::Unregistered { version, modules, relations } => {
            let relations = relations.into_iter().map(|relation| relation.0).collect();
            Py::new(py, Unregistered { version, modules, relations })?.into_any()
        }
        Event::Attach { ticket, name, source } => {
            Py::new(py, Attach { ticket: ticket.0, name, source })?.into_any()
        }
        Event::Attached { attachment, name, source } => {
            Py::new(py, Attached { attachment: attachment.0, name, source })?.into_any()
        }
        Event::Unattached { name, reason } => Py::new(py, Unattached { name, reason })?.into_any(),
        Event::Detach { ticket, attachment, name } => {
            Py::new(py, Detach { ticket: ticket.0, attachment: attachment.0, name })?.into_any()
        }
        Event::Stopped(ending) => Py::new(py, Stopped::from(&ending))?.into_any(),
    })
}

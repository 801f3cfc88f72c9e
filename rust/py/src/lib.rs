//! The extension module `dataflow_serve._core`: a handle on the workers of this process, and their events.
//!
//! Thin by intent: types cross here, nothing is decided. Rows never do, but as the bytes a source read them in
//! or a server sent them in. Worker threads never take the GIL; whatever
//! blocks releases it ([`detach`]).
//!
//! * `host`: the handle; `events`: what it tells Python; `feed`: what external sources supply; `facts`: what clients load
//!   from files; `table`: what a batch run writes; `error`: the one table from Rust's errors to Python's.

// pyo3's macros expand to it.
#![allow(unsafe_op_in_unsafe_fn)]

mod detach;
mod error;
mod events;
mod facts;
mod feed;
mod host;
mod logs;
mod table;

use pyo3::prelude::*;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The limits of connections with their defaults, JSON.
fn limits() -> String {
    serde_json::to_string(&dataflow_worker::config::Limits::default()).unwrap_or_default()
}

/// Handles on worker threads; imported by `dataflow_serve.server._cluster` only.
#[pymodule]
mod _core {
    #[pymodule_export]
    use crate::events::{
        Attach, Attached, Detach, Explain, Fallen, Formed, Register, Registered, Stopped, Unattached,
        Unregistered,
    };
    #[pymodule_export]
    use crate::facts::Facts;
    #[pymodule_export]
    use crate::feed::{Csv, Feed, Intake, Ndjson, PgOutput, Piece};
    #[pymodule_export]
    use crate::host::Host;
    #[pymodule_export]
    use crate::table::Table;
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::logs::begin();
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        module.add("LIMITS", crate::limits())?;
        module.add("TUNABLES", dataflow_worker::config::Tunables::NAMES.to_vec())
    }
}

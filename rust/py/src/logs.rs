//! Where the workers' log goes: standard error, at the level that `DATAFLOW_SERVE_LOG` asks for.

use tracing_subscriber::EnvFilter;

/// Begins to log. Leaves things as they are if the process already has somebody who does.
pub(crate) fn begin() {
    let filter = EnvFilter::try_from_env("DATAFLOW_SERVE_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}

//! Where the workers' log goes: standard error, at the level that `DATAFLOW_SERVE_LOG` asks for, as lines for people
//! or, with `DATAFLOW_SERVE_LOG_FORMAT=json`, as one JSON object a line.

use tracing_subscriber::EnvFilter;

/// Begins to log. Leaves things as they are if the process already has somebody who does.
pub(crate) fn begin() {
    let filter = EnvFilter::try_from_env("DATAFLOW_SERVE_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Already begun is fine: somebody else's log is as good as ours.
    let _ = if std::env::var("DATAFLOW_SERVE_LOG_FORMAT").is_ok_and(|format| format == "json") {
        log.json().try_init()
    } else {
        log.try_init()
    };
}

//! What can keep the workers of a process from starting, or stop them.

use std::io;

use dataflow_net::tls::TlsError;

/// The server can't start, or has ended in a way it shouldn't.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A setting is wrong; the message says which.
    #[error("{0}")]
    Config(String),
    /// The certificate can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The address for clients can't be listened on.
    #[error("could not listen on {address}")]
    Listen {
        /// As configured.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The mesh of processes can't be set up.
    #[error("could not set up the mesh on {address}")]
    Mesh {
        /// As configured.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A thread or descriptor of the server's own isn't to be had.
    #[error("could not set up {what}")]
    System {
        /// What it was for.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

//! Sockets and framing: connections, not queries.
//!
//! * [`limits`]: every limit of a connection, by name, with its default.
//! * `frame`: bytes in, messages out, without sockets and without clocks.
//! * [`connection`]: one client's socket and the framing on it, driven by whoever owns it.
//! * [`http`]: what little HTTP there is: requests without a body, responses, the WebSocket upgrade.
//! * [`places`]: how many connections there are, and from where.
//! * [`tls`]: the certificate, and what is between a socket and its framing where the peer speaks TLS.
//! * [`poller`]: the thread that accepts, sniffs and deals connections, and wakes the workers that own them.
//! * [`error`]: how a peer breaks the protocol, and what it is told.
//!
//! A connection's life: the poller's thread accepts it and reads until its first bytes tell what it is; then it
//! moves, whole, to a worker, which is its owner for good. From there on the poller only tells the owner when the
//! socket is ready.

pub mod connection;
pub mod error;
mod frame;
pub mod http;
pub mod limits;
mod lobby;
pub mod places;
pub mod poller;
pub mod tls;

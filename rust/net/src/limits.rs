//! Every limit of a connection, by name, with its default.

use std::time::Duration;

/// Limits, the same for all connections of a process.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Longest message accepted, in bytes without framing. A longer one gets `too-large`, judged by its declared
    /// length before anything is allocated for it, and the connection closes.
    pub max_message_bytes: usize,
    /// Connections open at once, those not yet identified included. One more is told `busy` in its own dialect and
    /// closed.
    pub max_connections: usize,
    /// Refused connections that are still being told so. Beyond, they are closed after one `busy` line.
    pub max_refusals: usize,
    /// Bytes of outgoing messages above which nothing more is read from a connection until some are taken.
    pub outbox_high_bytes: usize,
    /// Longest head of an HTTP request. A longer one gets 431 and the connection closes.
    pub max_http_head_bytes: usize,
    /// Most header fields of an HTTP request; more get 431.
    pub max_http_headers: usize,
    /// Fragments of one WebSocket message; with more the connection closes (1008).
    pub max_fragments: usize,
    /// Pings, pongs and other control frames that a WebSocket may send in a second; with more it closes (1008).
    pub max_control_frames_per_second: u32,
    /// From accepting a connection until its first bytes (of a WebSocket: the whole upgrade) are here. Then it closes.
    pub handshake: Duration,
    /// A message that was begun must progress by [`Self::partial_progress_bytes`], or be complete, in this time. Then
    /// the connection closes.
    pub partial_message: Duration,
    /// Progress that renews [`Self::partial_message`]: a large message on a slow line is not a trickle.
    pub partial_progress_bytes: usize,
    /// How long a kept-alive plain HTTP connection may wait for its next request.
    pub http_idle: Duration,
    /// How long a socket may take no byte once its owner calls it stalled. Then the connection closes (1013).
    pub write_stall: Duration,
    /// How long a closing connection has for its last messages to be taken and its peer to close as well.
    pub close_linger: Duration,
    /// Silence after which the system asks whether the peer is still there (TCP keepalive), and how long it then
    /// asks at most before the connection is given up.
    pub keepalive: Duration,
    /// Whether a WebSocket on `/echo` echoes messages, for conformance suites.
    pub enable_echo: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_message_bytes: 16 << 20,
            max_connections: 10_000,
            max_refusals: 64,
            outbox_high_bytes: 1 << 20,
            max_http_head_bytes: 16 << 10,
            max_http_headers: 64,
            max_fragments: 1 << 17,
            max_control_frames_per_second: 1_000,
            handshake: Duration::from_secs(5),
            partial_message: Duration::from_secs(10),
            partial_progress_bytes: 64 << 10,
            http_idle: Duration::from_secs(10),
            write_stall: Duration::from_secs(10),
            close_linger: Duration::from_secs(2),
            keepalive: Duration::from_secs(30),
            enable_echo: false,
        }
    }
}

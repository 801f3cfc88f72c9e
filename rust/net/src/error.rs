//! How a peer breaks the protocol, and what it is told.

use dataflow_protocol::error::{ErrorBody, ErrorCode};

/// The peer broke the protocol; its connection closes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The first bytes are none that the server knows.
    #[error("the first bytes are neither an HTTP method, nor `{{`, nor the binary preamble")]
    UnknownProtocol,
    /// A TLS client hello where no certificate is configured.
    #[error("TLS is not configured")]
    NoTls,
    /// Broken TLS, or a client that TLS doesn't let in. The alert has said so.
    #[error("broken TLS: {0}")]
    Tls(String),
    /// A message is longer than the limit.
    #[error("a message of {bytes} bytes or more is larger than {limit} bytes")]
    TooLarge {
        /// Its declared length, or what has come of it.
        bytes: u64,
        /// [`crate::limits::Limits::max_message_bytes`].
        limit: usize,
    },
    /// Broken WebSocket framing.
    #[error("broken WebSocket framing: {0}")]
    Framing(String),
    /// Text that isn't UTF-8, on a WebSocket.
    #[error("a text message is not UTF-8")]
    InvalidUtf8,
    /// Too many fragments or control frames.
    #[error("too many {0}")]
    Flood(&'static str),
    /// The first bytes, or the upgrade, took too long.
    #[error("the connection did not say what it is in time")]
    SlowHandshake,
    /// A message took too long.
    #[error("a message was begun and not completed in time")]
    SlowMessage,
    /// The input ended inside a message.
    #[error("the input ended inside a message")]
    Truncated,
    /// The peer took no byte for too long.
    #[error("the peer takes no data")]
    Stalled,
    /// A WebSocket's peer didn't answer a ping.
    #[error("the peer gives no sign of life")]
    Silent,
    /// A kept-alive HTTP connection sent no other request, or a closing one did not close.
    #[error("the connection was idle for too long")]
    Idle,
    /// The HTTP request cannot be served; it has been answered.
    #[error("HTTP request refused with status {0}")]
    Http(u16),
}

impl Violation {
    /// What the peer is told, where it can be.
    pub fn body(&self) -> ErrorBody {
        let code = match self {
            Violation::TooLarge { .. } => ErrorCode::TooLarge,
            Violation::Flood(_) | Violation::Stalled => ErrorCode::Busy,
            _ => ErrorCode::Incorrect,
        };
        ErrorBody::new(code, self.to_string())
    }

    /// How the connection closes.
    pub fn close(&self) -> Close {
        match self {
            Violation::TooLarge { .. } => Close::TooLarge,
            Violation::InvalidUtf8 => Close::InvalidUtf8,
            Violation::Flood(_) | Violation::SlowMessage | Violation::SlowHandshake | Violation::Silent => {
                Close::Policy
            }
            Violation::Stalled => Close::TryAgain,
            Violation::Truncated | Violation::Idle => Close::Normal,
            _ => Close::Protocol,
        }
    }
}

/// Why a connection closes: a WebSocket says so by a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// 1000: done.
    Normal,
    /// 1001: the server stops.
    GoingAway,
    /// 1002: the peer broke the framing.
    Protocol,
    /// 1007: text that isn't UTF-8.
    InvalidUtf8,
    /// 1008: a flood, a trickle, a peer that isn't allowed, or silent.
    Policy,
    /// 1009: a message over the limit.
    TooLarge,
    /// 1011: the server's fault.
    Fault,
    /// 1012: the cluster restarts.
    Restart,
    /// 1013: too busy; the peer was too slow or is one too many.
    TryAgain,
}

impl Close {
    /// The code of RFC 6455 and its registry.
    pub fn code(self) -> u16 {
        match self {
            Close::Normal => 1000,
            Close::GoingAway => 1001,
            Close::Protocol => 1002,
            Close::InvalidUtf8 => 1007,
            Close::Policy => 1008,
            Close::TooLarge => 1009,
            Close::Fault => 1011,
            Close::Restart => 1012,
            Close::TryAgain => 1013,
        }
    }
}

//! What a client is told when a request, or a subscription, cannot go on.

use serde::Serialize;

use crate::ids::Time;

/// Kinds of error that a client can tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// Malformed, ill-typed, an unknown op or field, an error in a program's text.
    Incorrect,
    /// An unknown relation, module or subscription in a request's field.
    NotFound,
    /// It contradicts what is there: a taken name or key, a module that others depend on.
    Conflict,
    /// The client may not do this.
    Forbidden,
    /// A part of the protocol that this server doesn't have.
    Unsupported,
    /// A limit is in force.
    Busy,
    /// A message, or the answer to a request, is over a size limit.
    TooLarge,
    /// Ended before it was done: a limit, a cancellation, a shutdown, a restart of the cluster.
    Interrupted,
    /// The cluster is not formed.
    Unavailable,
    /// The server's own fault; logged with the reference that the message gives.
    Fault,
}

impl ErrorCode {
    /// Every code, in the order of the protocol's page.
    pub const ALL: [ErrorCode; 10] = [
        ErrorCode::Incorrect,
        ErrorCode::NotFound,
        ErrorCode::Conflict,
        ErrorCode::Forbidden,
        ErrorCode::Unsupported,
        ErrorCode::Busy,
        ErrorCode::TooLarge,
        ErrorCode::Interrupted,
        ErrorCode::Unavailable,
        ErrorCode::Fault,
    ];

    /// The word on the wire.
    pub fn name(self) -> &'static str {
        match self {
            ErrorCode::Incorrect => "incorrect",
            ErrorCode::NotFound => "not-found",
            ErrorCode::Conflict => "conflict",
            ErrorCode::Forbidden => "forbidden",
            ErrorCode::Unsupported => "unsupported",
            ErrorCode::Busy => "busy",
            ErrorCode::TooLarge => "too-large",
            ErrorCode::Interrupted => "interrupted",
            ErrorCode::Unavailable => "unavailable",
            ErrorCode::Fault => "fault",
        }
    }

    /// Whether the same request, sent again unchanged, can succeed without anybody repairing anything.
    ///
    /// True of what passes by itself: `busy` (the load falls), `interrupted` (the cluster is back) and `unavailable`
    /// (it forms). An unknown relation may be registered one day, and a conflicting program removed, but not by
    /// waiting; a fault is the server's to repair.
    pub fn retry(self) -> bool {
        matches!(self, ErrorCode::Busy | ErrorCode::Interrupted | ErrorCode::Unavailable)
    }
}

/// A position in a program's text, counted from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Position {
    /// Line.
    pub line: u32,
    /// Column, in characters.
    pub column: u32,
}

/// The `error` of a reply or of a pushed message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{}: {message}", code.name())]
pub struct ErrorBody {
    /// Which kind.
    pub code: ErrorCode,
    /// Lower case, no full stop; what was attempted on which named thing.
    pub message: String,
    /// Whether the same request can succeed later.
    pub retry: bool,
    /// A full sentence that says what to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Where in a program's text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Position>,
    /// The time up to which a subscription that ended `busy` was served; the message that ends it says so beside the
    /// error (see [`crate::response::push::ended`]), a reply doesn't.
    #[serde(skip)]
    pub time: Option<Time>,
}

impl ErrorBody {
    /// An error with the code's own [`ErrorCode::retry`], without hint and position.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        ErrorBody { code, message: message.into(), retry: code.retry(), hint: None, at: None, time: None }
    }

    /// [`ErrorCode::Incorrect`].
    pub fn incorrect(message: impl Into<String>) -> Self {
        ErrorBody::new(ErrorCode::Incorrect, message)
    }

    /// [`ErrorCode::NotFound`].
    pub fn not_found(message: impl Into<String>) -> Self {
        ErrorBody::new(ErrorCode::NotFound, message)
    }

    /// Adds a hint, if there is one.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<Option<String>>) -> Self {
        self.hint = hint.into();
        self
    }

    /// Says otherwise than the code whether a retry can help.
    #[must_use]
    pub fn with_retry(mut self, retry: bool) -> Self {
        self.retry = retry;
        self
    }

    /// Adds a position in a program's text.
    #[must_use]
    pub fn with_position(mut self, line: u32, column: u32) -> Self {
        self.at = Some(Position { line, column });
        self
    }

    /// Adds the time that a subscription reached.
    #[must_use]
    pub fn with_time(mut self, time: Time) -> Self {
        self.time = Some(time);
        self
    }
}

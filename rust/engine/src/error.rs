//! What can go wrong with a command.

/// Why a command had no effect. Nothing has changed where one of these is returned, on any worker.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The plan is not one that can be built.
    #[error("the plan is not valid: {0}")]
    Invalid(String),
    /// A name is taken, or a program that stays depends on what was to go.
    #[error("{0}")]
    Conflict(String),
    /// No such relation or module.
    #[error("{0}")]
    NotFound(String),
    /// The catalog has moved on since the program was planned: plan it again.
    #[error("the program was planned against an earlier catalog: {0}")]
    Stale(String),
}

//! Faults on purpose, for tests of what happens then.
//!
//! They come with the name of a module, and only to an engine that was told to have them: a server is told so by its
//! environment before it starts, never by a client.

use dataflow_protocol::value::Word;

/// What is to go wrong in a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The evaluation of an expression panics.
    Expression,
    /// An operator panics outside any expression, as a fault of timely or differential would.
    Operator,
}

impl Fault {
    /// The fault that a module of this name has where faults are enabled.
    pub(crate) fn of(module: &str) -> Option<Fault> {
        match module.strip_prefix("fault:")? {
            name if name.starts_with("expression") => Some(Fault::Expression),
            name if name.starts_with("operator") => Some(Fault::Operator),
            _ => None,
        }
    }

    /// Never returns.
    ///
    /// # Panics
    ///
    /// Always: that is the fault.
    pub(crate) fn strike(self) -> Option<Word> {
        panic!("a fault was asked for: {self:?}")
    }
}

//! Words on the wire and the values they carry. No sockets, no dataflow, no Python.
//!
//! * [`ids`]: newtypes for everything that is counted or named.
//! * [`value`]: column types, and the representation of a value as one 64-bit word.
//! * [`dictionary`]: what words stand for that holds more than a word.
//! * [`spelling`]: instants, uuids and bytes as text.
//! * [`shape`]: what records and algebraic types hold.
//! * [`order`]: rows in the order that a client wants.
//! * [`rows`]: a flat buffer of rows, the unit in which data moves between rooms.
//! * [`plan`]: the typed, versioned document that a compiled program is.
//! * [`encoding`], [`error`], [`request`], [`response`]: the messages between clients and the server.
//! * [`intake`]: rows of external sources, from their bytes to words.
//! * [`table`]: rows of a relation on their way to a file, from snapshots to lines.
//! * [`nearest`]: the name that was probably meant, for hints.

pub mod dictionary;
pub mod encoding;
pub mod error;
pub mod ids;
pub mod intake;
pub mod nearest;
pub mod order;
pub mod plan;
pub mod request;
pub mod response;
pub mod rows;
pub mod shape;
pub mod spelling;
pub mod table;
pub mod value;

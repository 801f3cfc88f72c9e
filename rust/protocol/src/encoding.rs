//! The two encodings of a message.

/// How a message is written. A request is answered in the encoding it came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// JSON text: a line of pure TCP, or a text frame of a WebSocket.
    Json,
    /// MessagePack: a length-prefixed message of pure TCP, or a binary frame of a WebSocket.
    MessagePack,
}

//! RFC 6455 over memory: tungstenite frames, this room feeds it.
//!
//! tungstenite wants a stream. It gets a pair of buffers that never block on writing, so that the frames it makes on
//! its own, pongs and close frames, come out whole and queue up between messages in the connection's outbox like
//! anything else; its own write buffer, which stalls when it is full, is never used for more. Outgoing messages need
//! no more than a header, so their payload is shared, not copied.
//!
//! tungstenite judges sizes a frame at a time and doesn't say whether a message is under way. [`Watch`] looks at
//! headers as they come to know both, and counts what can flood.

use std::io::{self, Cursor, Read, Write};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use dataflow_protocol::encoding::Encoding;
use tungstenite::error::Error;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, FrameHeader, Utf8Bytes};
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Message, WebSocket};

use crate::error::{Close, Violation};
use crate::limits::Limits;

/// What comes out of a WebSocket.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A whole message; a text frame is JSON, a binary one MessagePack.
    Message(Encoding, Bytes),
    /// The peer closes; the answer is in the output.
    Closed,
}

/// A WebSocket without its socket.
#[derive(Debug)]
pub(crate) struct Frames {
    socket: WebSocket<Pipe>,
    watch: Watch,
    /// Found by the watch behind what tungstenite hasn't read yet.
    found: Option<Violation>,
    closed: bool,
}

impl Frames {
    pub(crate) fn new(limits: &Limits) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(4 << 10)
            .write_buffer_size(0)
            .max_message_size(Some(limits.max_message_bytes))
            .max_frame_size(Some(limits.max_message_bytes));
        let socket = WebSocket::from_raw_socket(Pipe::default(), Role::Server, Some(config));
        Frames { socket, watch: Watch::new(limits), found: None, closed: false }
    }

    /// Adds input.
    pub(crate) fn push(&mut self, bytes: &[u8], now: Instant) {
        if self.found.is_some() || self.closed {
            return;
        }
        let sound = match self.watch.feed(bytes, now) {
            Ok(()) => bytes,
            Err((offset, violation)) => {
                self.found = Some(violation);
                &bytes[..offset]
            }
        };
        self.socket.get_mut().input.extend_from_slice(sound);
    }

    /// What comes next, if it is whole.
    ///
    /// # Errors
    ///
    /// The peer broke the framing or a limit. Nothing more comes out.
    pub(crate) fn next(&mut self) -> Result<Option<Event>, Violation> {
        while !self.closed {
            match self.socket.read() {
                Ok(Message::Text(text)) => return Ok(Some(Event::Message(Encoding::Json, text.into()))),
                Ok(Message::Binary(bytes)) => return Ok(Some(Event::Message(Encoding::MessagePack, bytes))),
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_)) => {}
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(Error::ConnectionClosed | Error::AlreadyClosed) => {
                    self.closed = true;
                    return Ok(Some(Event::Closed));
                }
                Err(error) => return Err(violation(error, &self.watch)),
            }
        }
        match self.found.take() {
            Some(violation) => Err(violation),
            None => Ok(None),
        }
    }

    /// Whether a message was begun and isn't complete, as far as the input goes.
    pub(crate) fn is_partial(&self) -> bool {
        self.found.is_none() && self.socket.get_ref().input.is_empty() && self.watch.is_partial()
    }

    /// The encoding of the message being read, or read last.
    pub(crate) fn encoding(&self) -> Encoding {
        self.watch.encoding
    }

    /// Adds a close frame to the output, unless one was sent before.
    pub(crate) fn close(&mut self, reason: Close) {
        let frame = CloseFrame { code: reason.code().into(), reason: Utf8Bytes::from_static("") };
        // Writing to memory cannot fail, and a socket closed before has nothing to add.
        let _ = self.socket.close(Some(frame));
    }

    /// Frames that tungstenite made; to be queued before anything else.
    pub(crate) fn output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.socket.get_mut().output)
    }
}

/// A ping without a payload.
pub(crate) const PING: [u8; 2] = [0x89, 0];

/// The header of an outgoing message.
pub(crate) fn header(encoding: Encoding, length: usize) -> Vec<u8> {
    let opcode = match encoding {
        Encoding::Json => OpCode::Data(Data::Text),
        Encoding::MessagePack => OpCode::Data(Data::Binary),
    };
    let mut out = Vec::with_capacity(10);
    // Writing to memory cannot fail.
    let _ = FrameHeader { opcode, ..FrameHeader::default() }.format(length as u64, &mut out);
    out
}

fn violation(error: Error, watch: &Watch) -> Violation {
    match error {
        Error::Capacity(_) => {
            Violation::TooLarge { bytes: watch.message_bytes, limit: watch.max_message_bytes }
        }
        Error::Utf8(_) => Violation::InvalidUtf8,
        error => Violation::Framing(error.to_string()),
    }
}

/// Two buffers that look like a stream.
#[derive(Debug, Default)]
struct Pipe {
    input: BytesMut,
    output: Vec<u8>,
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let length = buffer.len().min(self.input.len());
        self.input.copy_to_slice(&mut buffer[..length]);
        if self.input.is_empty() {
            // An idle connection holds no buffer.
            self.input = BytesMut::new();
        }
        Ok(length)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Longest frame header.
const MAX_HEADER: usize = 14;

/// Follows frames by their headers.
#[derive(Debug)]
struct Watch {
    max_message_bytes: usize,
    max_fragments: usize,
    max_control_frames: u32,
    header: [u8; MAX_HEADER],
    /// Bytes of a header that have come.
    filled: usize,
    /// Bytes of a payload that are still to come.
    left: u64,
    /// A message has begun whose last fragment hasn't.
    open: bool,
    encoding: Encoding,
    /// Declared so far of the message under way, or of the last one.
    message_bytes: u64,
    fragments: usize,
    /// Control frames since the beginning of a second.
    control_frames: u32,
    second: Option<Instant>,
    /// A header made no sense: tungstenite will say so.
    lost: bool,
}

impl Watch {
    fn new(limits: &Limits) -> Self {
        Watch {
            max_message_bytes: limits.max_message_bytes,
            max_fragments: limits.max_fragments,
            max_control_frames: limits.max_control_frames_per_second,
            header: [0; MAX_HEADER],
            filled: 0,
            left: 0,
            open: false,
            encoding: Encoding::Json,
            message_bytes: 0,
            fragments: 0,
            control_frames: 0,
            second: None,
            lost: false,
        }
    }

    fn is_partial(&self) -> bool {
        self.filled > 0 || self.left > 0 || self.open
    }

    /// Goes over more input; a violation comes with the number of bytes before the frame that commits it (0 if that
    /// began in earlier input: what tungstenite then holds is a part of a header, which it waits to see the rest of).
    fn feed(&mut self, bytes: &[u8], now: Instant) -> Result<(), (usize, Violation)> {
        let mut at = 0;
        while at < bytes.len() && !self.lost {
            if self.left > 0 {
                let step = self.left.min((bytes.len() - at) as u64);
                self.left -= step;
                at += step as usize;
                continue;
            }
            let known = self.filled;
            let more = (MAX_HEADER - known).min(bytes.len() - at);
            self.header[known..known + more].copy_from_slice(&bytes[at..at + more]);
            let mut cursor = Cursor::new(&self.header[..known + more]);
            match FrameHeader::parse(&mut cursor) {
                Ok(Some((header, length))) => {
                    let start = at.saturating_sub(known);
                    at += cursor.position() as usize - known;
                    self.filled = 0;
                    self.left = length;
                    self.judge(&header, length, now).map_err(|violation| (start, violation))?;
                }
                Ok(None) => {
                    self.filled += more;
                    at += more;
                }
                Err(_) => self.lost = true,
            }
        }
        Ok(())
    }

    fn judge(&mut self, header: &FrameHeader, length: u64, now: Instant) -> Result<(), Violation> {
        let data = match header.opcode {
            OpCode::Control(_) => return self.count_control(now),
            OpCode::Data(data) => data,
        };
        match data {
            Data::Text => self.encoding = Encoding::Json,
            Data::Binary => self.encoding = Encoding::MessagePack,
            Data::Continue | Data::Reserved(_) => {}
        }
        let first = data != Data::Continue;
        self.fragments = if first { 1 } else { self.fragments + 1 };
        self.message_bytes = if first { length } else { self.message_bytes.saturating_add(length) };
        self.open = !header.is_final;
        if self.message_bytes > self.max_message_bytes as u64 {
            return Err(Violation::TooLarge { bytes: self.message_bytes, limit: self.max_message_bytes });
        }
        if self.fragments > self.max_fragments {
            return Err(Violation::Flood("fragments in a message"));
        }
        Ok(())
    }

    fn count_control(&mut self, now: Instant) -> Result<(), Violation> {
        match self.second {
            Some(second) if now.duration_since(second) < Duration::from_secs(1) => self.control_frames += 1,
            _ => {
                self.second = Some(now);
                self.control_frames = 1;
            }
        }
        if self.control_frames > self.max_control_frames {
            return Err(Violation::Flood("control frames in a second"));
        }
        Ok(())
    }
}

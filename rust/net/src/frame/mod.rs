//! Bytes in, messages out: every dialect of the one port, without a socket and without a clock.
//!
//! * `sniff`: which dialect the first bytes belong to.
//! * `ndjson`, `length_prefixed`, `websocket`, `http`: the dialects.
//! * `outbox`: bytes on their way out, in order, large ones shared.
//!
//! [`Framing`] is a connection's whole conversation; the socket, and the deadlines, are `connection`'s.

mod http;
mod length_prefixed;
mod ndjson;
mod outbox;
mod sniff;
mod websocket;

use std::sync::Arc;
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};
use dataflow_protocol::encoding::Encoding;
use dataflow_protocol::error::{ErrorBody, ErrorCode};
use dataflow_protocol::request::RequestId;
use dataflow_protocol::response::reply;

pub(crate) use outbox::Outbox;

use crate::connection::{Incoming, Kind, Message};
use crate::error::{Close, Violation};
use crate::http::{Doorkeeper, HttpRequest, HttpResponse, Peer};
use crate::limits::Limits;
use http::Wish;
use sniff::Sniffed;
use websocket::Event;

/// The path on which a WebSocket echoes.
const ECHO_PATH: &str = "/echo";

/// What the connection speaks.
#[derive(Debug)]
enum Dialect {
    Unknown,
    Lines(ndjson::Lines),
    Binary,
    WebSocket { frames: Box<websocket::Frames>, echo: bool },
    Http(Http),
}

/// A plain HTTP conversation, one request at a time.
#[derive(Debug, Default)]
struct Http {
    /// Read and not handed out.
    waiting: Option<HttpRequest>,
    /// Handed out and not answered: whether it was a HEAD, whether the connection is kept.
    unanswered: Option<(bool, bool)>,
}

/// A connection's conversation.
#[derive(Debug)]
pub(crate) struct Framing {
    limits: Arc<Limits>,
    dialect: Dialect,
    /// What is in here came through TLS.
    encrypted: bool,
    input: BytesMut,
    outbox: Outbox,
    /// The request that opened a WebSocket.
    upgrade: Option<Box<HttpRequest>>,
    /// The peer sends nothing more.
    ended: bool,
    /// The peer broke the protocol, or closed by its rules: what still comes is not looked at.
    deaf: bool,
    /// Nothing more is queued.
    closed: bool,
    /// The conversation ends with what is queued; said by the dialect itself.
    over: bool,
}

impl Framing {
    pub(crate) fn new(limits: Arc<Limits>) -> Self {
        Framing {
            limits,
            dialect: Dialect::Unknown,
            encrypted: false,
            input: BytesMut::new(),
            outbox: Outbox::default(),
            upgrade: None,
            ended: false,
            deaf: false,
            closed: false,
            over: false,
        }
    }

    /// What the connection is, once that is known.
    pub(crate) fn kind(&self) -> Option<Kind> {
        match &self.dialect {
            Dialect::Unknown => None,
            Dialect::Lines(_) => Some(Kind::Lines),
            Dialect::Binary => Some(Kind::Binary),
            Dialect::WebSocket { echo: false, .. } => Some(Kind::WebSocket),
            Dialect::WebSocket { echo: true, .. } => Some(Kind::Echo),
            Dialect::Http(_) => Some(Kind::Http),
        }
    }

    pub(crate) fn take_upgrade(&mut self) -> Option<Box<HttpRequest>> {
        self.upgrade.take()
    }

    pub(crate) fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    pub(crate) fn outbox_bytes(&self) -> usize {
        self.outbox.bytes()
    }

    /// The peer sends nothing more that will be looked at.
    pub(crate) fn input_ended(&self) -> bool {
        self.ended || self.deaf
    }

    /// The peer shut down its sending side.
    pub(crate) fn at_end(&self) -> bool {
        self.ended
    }

    /// The conversation ends with what is queued.
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    /// A plain HTTP connection between two requests.
    pub(crate) fn is_idle_http(&self) -> bool {
        matches!(&self.dialect, Dialect::Http(http) if http.waiting.is_none() && http.unanswered.is_none())
    }

    /// Adds input.
    pub(crate) fn push(&mut self, bytes: &[u8], now: Instant) {
        match &mut self.dialect {
            _ if self.deaf => {}
            Dialect::WebSocket { frames, .. } => frames.push(bytes, now),
            _ => self.input.extend_from_slice(bytes),
        }
    }

    /// The peer shut down its sending side.
    pub(crate) fn end_input(&mut self) {
        self.ended = true;
        // A WebSocket has a closing handshake of its own; without one, nobody is there any more.
        self.over |= matches!(self.dialect, Dialect::WebSocket { .. });
    }

    /// Whether the connection begins with a client hello.
    pub(crate) fn opens_tls(&self) -> bool {
        let unknown = matches!(self.dialect, Dialect::Unknown) && !self.deaf;
        unknown && sniff::sniff(&self.input) == Sniffed::Tls
    }

    /// The client hello, as far as it has come; what is pushed from now on came through TLS.
    pub(crate) fn take_client_hello(&mut self) -> BytesMut {
        self.encrypted = true;
        std::mem::take(&mut self.input)
    }

    /// Finds out what the connection is, if the input tells by now.
    ///
    /// # Errors
    ///
    /// The input is nothing that is served here; the peer has been told.
    pub(crate) fn identify(
        &mut self,
        doorkeeper: &dyn Doorkeeper,
        peer: &Peer<'_>,
        now: Instant,
    ) -> Result<Option<Kind>, Violation> {
        if matches!(self.dialect, Dialect::Unknown) && !self.deaf {
            match sniff::sniff(&self.input) {
                Sniffed::Undecided => {}
                Sniffed::Lines => self.dialect = Dialect::Lines(ndjson::Lines::default()),
                Sniffed::Binary => {
                    self.input.advance(sniff::PREAMBLE.len());
                    self.dialect = Dialect::Binary;
                }
                Sniffed::Http => self.identify_http(doorkeeper, peer, now)?,
                Sniffed::Tls if !self.encrypted => return Err(self.broken(Violation::NoTls)),
                Sniffed::Tls | Sniffed::Unknown => return Err(self.broken(Violation::UnknownProtocol)),
            }
        }
        Ok(self.kind())
    }

    fn identify_http(
        &mut self,
        doorkeeper: &dyn Doorkeeper,
        peer: &Peer<'_>,
        now: Instant,
    ) -> Result<(), Violation> {
        let (request, accept) = match http::next(&mut self.input, &self.limits) {
            Ok(None) => return Ok(()),
            Ok(Some((request, Wish::Response))) => {
                self.dialect = Dialect::Http(Http { waiting: Some(request), unanswered: None });
                return Ok(());
            }
            Ok(Some((request, Wish::WebSocket(accept)))) => (request, accept),
            Err(response) => return Err(self.refuse_http(&response)),
        };
        if let Err(response) = doorkeeper.admit(&request, peer) {
            return Err(self.refuse_http(&response));
        }
        self.outbox.copy(http::switching(&accept).as_bytes());
        let mut frames = Box::new(websocket::Frames::new(&self.limits));
        frames.push(&std::mem::take(&mut self.input), now);
        let echo = self.limits.enable_echo && request.path == ECHO_PATH;
        self.upgrade = Some(Box::new(request));
        self.dialect = Dialect::WebSocket { frames, echo };
        Ok(())
    }

    fn refuse_http(&mut self, response: &HttpResponse) -> Violation {
        self.outbox.copy(http::head(response, false).as_bytes());
        self.outbox.share(response.body.clone());
        self.deaf = true;
        self.input.clear();
        Violation::Http(response.status)
    }

    /// The next message, if it is whole.
    ///
    /// # Errors
    ///
    /// The peer broke the protocol and has been told. Nothing more comes out.
    pub(crate) fn next(&mut self) -> Option<Result<Incoming, Violation>> {
        if self.deaf {
            return None;
        }
        let next = match self.dialect {
            Dialect::Unknown => Ok(None),
            Dialect::Lines(_) | Dialect::Binary => self.next_message(),
            Dialect::WebSocket { .. } => self.next_of_websocket(),
            Dialect::Http(_) => self.next_request(),
        };
        match next {
            Ok(Some(incoming)) => Some(Ok(incoming)),
            Ok(None) if self.ended && self.is_partial() => Some(Err(self.broken(Violation::Truncated))),
            Ok(None) => None,
            Err(violation) => Some(Err(self.broken(violation))),
        }
    }

    fn next_message(&mut self) -> Result<Option<Incoming>, Violation> {
        let limit = self.limits.max_message_bytes;
        let (encoding, bytes) = match &mut self.dialect {
            Dialect::Lines(lines) => (Encoding::Json, lines.next(&mut self.input, limit)?),
            _ => (Encoding::MessagePack, length_prefixed::next(&mut self.input, limit)?),
        };
        if self.input.is_empty() {
            // An idle connection holds no buffer.
            self.input = BytesMut::new();
        }
        Ok(bytes.map(|bytes| Incoming::Message(Message { encoding, bytes })))
    }

    fn next_of_websocket(&mut self) -> Result<Option<Incoming>, Violation> {
        loop {
            let Dialect::WebSocket { frames, echo } = &mut self.dialect else { return Ok(None) };
            let (echo, event) = (*echo, frames.next());
            // Pongs and close frames go out even if the same input also breaks the protocol.
            let output = frames.output();
            self.outbox.share(output.into());
            match event? {
                Some(Event::Message(encoding, bytes)) if echo => self.queue(encoding, &[], bytes),
                Some(Event::Message(encoding, bytes)) => {
                    return Ok(Some(Incoming::Message(Message { encoding, bytes })));
                }
                Some(Event::Closed) => {
                    (self.deaf, self.closed, self.over) = (true, true, true);
                    return Ok(None);
                }
                None => return Ok(None),
            }
        }
    }

    fn next_request(&mut self) -> Result<Option<Incoming>, Violation> {
        let Dialect::Http(http) = &mut self.dialect else { return Ok(None) };
        if http.unanswered.is_some() {
            return Ok(None);
        }
        let request = match http.waiting.take() {
            Some(request) => request,
            None => match http::next(&mut self.input, &self.limits) {
                Ok(None) => return Ok(None),
                // An upgrade is for the first request only: then it is judged before the connection has an owner.
                Ok(Some((request, Wish::Response))) => request,
                Ok(Some((_, Wish::WebSocket(_)))) => {
                    let response = HttpResponse::text(400, "a WebSocket needs a connection of its own\n");
                    return Err(self.refuse_http(&response));
                }
                Err(response) => return Err(self.refuse_http(&response)),
            },
        };
        http.unanswered = Some((request.head, request.keep_alive));
        Ok(Some(Incoming::Http(request)))
    }

    /// Whether the input is the beginning of a message and not all of it.
    pub(crate) fn is_partial(&self) -> bool {
        match &self.dialect {
            _ if self.deaf => false,
            Dialect::Unknown => !self.input.is_empty(),
            Dialect::Lines(lines) => lines.is_partial(&self.input),
            Dialect::Binary => length_prefixed::is_partial(&self.input),
            Dialect::WebSocket { frames, .. } => frames.is_partial(),
            Dialect::Http(_) => !self.input.is_empty() && self.is_idle_http(),
        }
    }

    /// Takes note that the peer broke the protocol, and tells it.
    pub(crate) fn broken(&mut self, violation: Violation) -> Violation {
        let too_large = matches!(violation, Violation::TooLarge { .. });
        match &self.dialect {
            _ if matches!(
                violation,
                Violation::Http(_) | Violation::Idle | Violation::Stalled | Violation::Tls(_)
            ) => {}
            Dialect::Unknown if sniff::sniff(&self.input) == Sniffed::Http => {
                self.refuse_http(&HttpResponse::text(408, format!("{violation}\n")));
            }
            // The code of the close frame says it all, but for what a client may have done unknowingly.
            Dialect::WebSocket { echo, .. } if *echo || !too_large => {}
            Dialect::WebSocket { frames, .. } => self.tell(frames.encoding(), &violation.body()),
            Dialect::Binary => self.tell(Encoding::MessagePack, &violation.body()),
            Dialect::Unknown | Dialect::Lines(_) | Dialect::Http(_) => {
                self.tell(Encoding::Json, &violation.body());
            }
        }
        self.deaf = true;
        self.input.clear();
        violation
    }

    /// Sends an error that answers no request in particular.
    pub(crate) fn tell(&mut self, encoding: Encoding, body: &ErrorBody) {
        if let Dialect::Http(_) = self.dialect {
            let status = match body.code {
                ErrorCode::Forbidden => 403,
                _ if body.retry => 503,
                _ => 400,
            };
            self.refuse_http(&HttpResponse::text(status, format!("{}\n", body.message)));
        } else {
            self.queue(encoding, &[], Bytes::from(reply::error(encoding, &RequestId::NULL, body)));
        }
    }

    /// Queues a message of two parts.
    pub(crate) fn queue(&mut self, encoding: Encoding, head: &[u8], tail: Bytes) {
        if self.closed {
            return;
        }
        let length = head.len() + tail.len();
        match &mut self.dialect {
            // Before anything is known, lines are what a person or a program can best make out.
            Dialect::Unknown | Dialect::Lines(_) => {
                self.outbox.copy(head);
                self.outbox.share(tail);
                self.outbox.copy(b"\n");
            }
            Dialect::Binary => {
                self.outbox.copy(&length_prefixed::prefix(length));
                self.outbox.copy(head);
                self.outbox.share(tail);
            }
            Dialect::WebSocket { .. } => {
                self.outbox.copy(&websocket::header(encoding, length));
                self.outbox.copy(head);
                self.outbox.share(tail);
            }
            Dialect::Http(_) => {}
        }
    }

    /// Asks a WebSocket's peer for a sign of life.
    pub(crate) fn ping(&mut self) {
        if matches!(self.dialect, Dialect::WebSocket { .. }) && !self.closed {
            self.outbox.copy(&websocket::PING);
        }
    }

    /// Queues the answer to the HTTP request handed out last.
    pub(crate) fn respond(&mut self, response: &HttpResponse) {
        let Dialect::Http(http) = &mut self.dialect else { return };
        let Some((head, keep_alive)) = http.unanswered.take() else { return };
        // Requests that came before the peer's end are answered, too.
        let keep_alive = keep_alive && !self.closed && !(self.ended && self.input.is_empty());
        self.outbox.copy(http::head(response, keep_alive).as_bytes());
        if !head {
            self.outbox.share(response.body.clone());
        }
        if !keep_alive {
            (self.deaf, self.over) = (true, true);
        }
    }

    /// Ends the conversation: nothing is queued after this.
    pub(crate) fn close(&mut self, reason: Close) {
        if let Dialect::WebSocket { frames, .. } = &mut self.dialect {
            frames.close(reason);
            let output = frames.output();
            self.outbox.share(output.into());
        }
        (self.deaf, self.closed, self.over) = (true, true, true);
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

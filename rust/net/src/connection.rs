//! One client's socket and the framing on it, driven by whoever owns it.
//!
//! Nothing here blocks and nothing reads a clock: the owner passes the time in. The owner's turn for a connection is
//!
//! 1. [`Connection::ready`] for what the poller reported;
//! 2. while [`Connection::wants_read`], [`Connection::read`] within the turn's budget: what is left over stays for the
//!    next turn, no event will come for it again;
//! 3. [`Connection::next`] until it has no more, or the owner wants no more: messages left inside stay there, and
//!    hold back reading;
//! 4. [`Connection::queue`] for replies and pushes, then [`Connection::flush`];
//! 5. drop it when [`Connection::is_finished`]; ask [`Connection::deadline`] how long it may be left alone, and call
//!    [`Connection::expire`] when that has passed.
//!
//! A peer that shut down its sending side ([`Connection::input_ended`]) still gets its replies: the owner closes such
//! a connection when nothing is left to answer.

use std::io::{self, Read};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dataflow_protocol::encoding::Encoding;
use dataflow_protocol::error::ErrorBody;
use mio::net::TcpStream;

use crate::error::{Close, Violation};
use crate::frame::Framing;
use crate::http::{Doorkeeper, HttpRequest, HttpResponse, Peer};
use crate::limits::Limits;
use crate::places::Place;
use crate::tls::{Flow, Identity, Session};

/// A connection of this process, counted from 1 in the order accepted. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// What a connection turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Pure TCP, one JSON message a line.
    Lines,
    /// Pure TCP, length-prefixed MessagePack.
    Binary,
    /// A WebSocket that speaks the protocol.
    WebSocket,
    /// A WebSocket that echoes, by itself: its owner sees no messages.
    Echo,
    /// Plain HTTP.
    Http,
}

/// A whole message of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// How it is written, and its reply will be.
    pub encoding: Encoding,
    /// Without framing.
    pub bytes: Bytes,
}

/// What a connection has for its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A message of the protocol.
    Message(Message),
    /// A plain HTTP request, to be answered with [`Connection::respond`] before the next one is handed out.
    Http(HttpRequest),
}

/// What the poller saw of a socket. Edges, not levels: each is reported once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Something to read, an end or an error included.
    pub readable: bool,
    /// Room to write.
    pub writable: bool,
}

/// How far closing has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Not closing.
    Open,
    /// What is queued goes out, until the deadline.
    Flushing { deadline: Instant },
    /// All is out and the socket shut down for sending. What still comes is read and thrown away until the peer
    /// closes too: closing at once would reset the connection, and the peer could lose what it hasn't read yet.
    Draining { deadline: Instant },
    /// Over.
    Finished,
}

/// A message under way.
#[derive(Clone, Copy, Debug)]
struct Partial {
    /// When it must have come further.
    deadline: Instant,
    /// Bytes it has come further in this time.
    progress: usize,
}

/// A client's connection. Moves between threads as a whole.
#[derive(Debug)]
pub struct Connection {
    id: ConnectionId,
    address: SocketAddr,
    stream: TcpStream,
    limits: Arc<Limits>,
    /// Between the socket and the framing, where the peer speaks TLS.
    tls: Option<Box<Session>>,
    framing: Framing,
    /// The peer broke TLS; to be handed out.
    broken: Option<Violation>,
    stage: Stage,
    /// The socket isn't known to be empty.
    readable: bool,
    /// The socket isn't known to be full.
    writable: bool,
    paused: bool,
    /// [`Self::next`] had nothing more when it was asked last.
    drained: bool,
    accepted: Instant,
    /// When a byte last came in.
    heard: Instant,
    partial: Option<Partial>,
    /// Since when the socket has taken no byte of what is queued.
    stalled: Option<Instant>,
    stall_limited: bool,
    /// The peer has yet to say who it is.
    greeting: bool,
    /// When a silent peer was asked whether it is still there.
    pinged: Option<Instant>,
    owner: usize,
    _place: Place,
}

/// Who is at the other end of a connection.
fn peer(address: SocketAddr, tls: Option<&Session>) -> Peer<'_> {
    Peer { address, encrypted: tls.is_some(), server_name: tls.and_then(Session::server_name) }
}

/// Bytes read from a socket at once.
const READ_CHUNK: usize = 64 << 10;

thread_local! {
    /// Where bytes land before the framing takes as many as came: connections hold no buffer while they are idle.
    static CHUNK: std::cell::RefCell<Vec<u8>> = std::cell::RefCell::new(vec![0; READ_CHUNK]);
}

impl Connection {
    pub(crate) fn new(
        id: ConnectionId,
        stream: TcpStream,
        address: SocketAddr,
        limits: Arc<Limits>,
        place: Place,
        now: Instant,
    ) -> Self {
        Connection {
            id,
            address,
            stream,
            framing: Framing::new(Arc::clone(&limits)),
            limits,
            tls: None,
            broken: None,
            stage: Stage::Open,
            readable: true,
            writable: true,
            paused: false,
            drained: true,
            accepted: now,
            heard: now,
            partial: None,
            stalled: None,
            stall_limited: false,
            greeting: false,
            pinged: None,
            owner: 0,
            _place: place,
        }
    }

    /// Its number.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Who is at the other end.
    pub fn peer(&self) -> Peer<'_> {
        peer(self.address, self.tls.as_deref())
    }

    /// Its owner among the process's workers, once it has been dealt.
    pub fn owner(&self) -> usize {
        self.owner
    }

    pub(crate) fn set_owner(&mut self, owner: usize) {
        self.owner = owner;
    }

    /// What it is; `None` until the first bytes tell. A connection that was dealt to a worker always has a kind.
    pub fn kind(&self) -> Option<Kind> {
        self.framing.kind()
    }

    /// The request that made it a WebSocket, for its headers; it is given away once.
    pub fn take_upgrade(&mut self) -> Option<Box<HttpRequest>> {
        self.framing.take_upgrade()
    }

    /// Whether the peer has yet to say who it is. While it has, the connection closes when [`Limits::handshake`] has
    /// passed since it was accepted.
    pub fn expect_greeting(&mut self, expected: bool) {
        self.greeting = expected;
    }

    pub(crate) fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Takes note of what the poller saw.
    pub fn ready(&mut self, readiness: Readiness) {
        self.readable |= readiness.readable;
        self.writable |= readiness.writable;
        self.drain();
    }

    /// Whether [`Self::read`] may get something: the socket isn't known to be empty, reading isn't paused, the outbox
    /// isn't too full and no message read earlier waits inside.
    pub fn wants_read(&self) -> bool {
        self.readable && self.drained && self.may_read()
    }

    fn may_read(&self) -> bool {
        let room = self.framing.outbox_bytes() < self.limits.outbox_high_bytes;
        self.stage == Stage::Open && !self.paused && room && !self.framing.input_ended()
    }

    /// Reads at most `budget` bytes, and returns how many came. An end or an error of the socket ends the input.
    pub fn read(&mut self, budget: usize, now: Instant) -> usize {
        let mut total = 0;
        while total < budget && self.readable && self.may_read() {
            total += self.receive(budget - total, |own, bytes| own.take_in(bytes, now));
        }
        if total > 0 {
            self.drained = false;
            self.heard = now;
            self.pinged = None;
        }
        if let Some(partial) = &mut self.partial {
            partial.progress += total;
            if partial.progress >= self.limits.partial_progress_bytes {
                self.partial = None;
            }
        }
        total
    }

    /// Bytes of the socket on their way to the framing.
    fn take_in(&mut self, bytes: &[u8], now: Instant) {
        let framing = &mut self.framing;
        let Some(tls) = &mut self.tls else { return framing.push(bytes, now) };
        match tls.receive(bytes, |plain| framing.push(plain, now)) {
            Ok(Flow::Open) => {}
            Ok(Flow::Ended) => framing.end_input(),
            Err(violation) => self.broken = Some(framing.broken(violation)),
        }
    }

    /// One read of the socket; updates what is known of it.
    fn receive(&mut self, budget: usize, take: impl FnOnce(&mut Self, &[u8])) -> usize {
        CHUNK.with_borrow_mut(|chunk| {
            let length = budget.min(chunk.len());
            match self.stream.read(&mut chunk[..length]) {
                Ok(0) => {
                    self.readable = false;
                    self.drained = false;
                    self.framing.end_input();
                    0
                }
                Ok(count) => {
                    take(self, &chunk[..count]);
                    count
                }
                Err(error) => {
                    self.failed(&error);
                    0
                }
            }
        })
    }

    /// Takes note of an error of the socket in reading.
    fn failed(&mut self, error: &io::Error) {
        match error.kind() {
            io::ErrorKind::WouldBlock => self.readable = false,
            io::ErrorKind::Interrupted => {}
            _ => self.give_up(),
        }
    }

    fn give_up(&mut self) {
        self.readable = false;
        self.framing.close(Close::Normal);
        self.stage = Stage::Finished;
    }

    /// Finds out what the connection is; the poller's part, before it is dealt.
    pub(crate) fn identify(
        &mut self,
        doorkeeper: &dyn Doorkeeper,
        identity: &Identity,
        now: Instant,
    ) -> Result<Option<Kind>, Violation> {
        self.drained = true;
        if self.tls.is_none()
            && self.framing.opens_tls()
            && let Some(config) = identity.current()
        {
            self.tls = Some(Box::new(Session::new(config)?));
            let hello = self.framing.take_client_hello();
            self.take_in(&hello, now);
        }
        if let Some(violation) = self.broken.take() {
            return Err(violation);
        }
        let peer = peer(self.address, self.tls.as_deref());
        let kind = self.framing.identify(doorkeeper, &peer, now)?;
        if let Some(kind) = kind {
            if let Err(body) = doorkeeper.welcome(kind, &peer) {
                self.refuse(&body, Close::Policy, now);
                return Ok(None);
            }
            // What came behind the first bytes waits inside; and of the socket nothing is known to its new owner.
            (self.drained, self.readable, self.writable) = (false, true, true);
        }
        Ok(kind)
    }

    /// Tells the peer, in its own dialect, that it is not served, and closes.
    pub(crate) fn refuse(&mut self, body: &ErrorBody, reason: Close, now: Instant) {
        let encoding = if self.kind() == Some(Kind::Binary) { Encoding::MessagePack } else { Encoding::Json };
        self.framing.tell(encoding, body);
        self.close(reason, now);
    }

    /// The next message, if a whole one is here.
    ///
    /// # Errors
    ///
    /// The peer broke the protocol: it has been told (the error message is in the outbox), and nothing more will come
    /// out of here. The owner calls [`Self::close`] with [`Violation::close`], at once or when earlier requests have
    /// been answered.
    pub fn next(&mut self, now: Instant) -> Option<Result<Incoming, Violation>> {
        let broken = self.broken.take().map(Err);
        let next = broken.or_else(|| self.framing.next());
        if next.is_none() {
            self.drained = true;
            if !self.framing.is_partial() {
                self.partial = None;
            } else if self.partial.is_none() {
                self.partial = Some(Partial { deadline: now + self.limits.partial_message, progress: 0 });
            }
        }
        next
    }

    /// Stops or goes on reading, so that a client that sends too much is held back by TCP itself.
    pub fn pause(&mut self, paused: bool) {
        self.paused = paused;
        // A peer that isn't listened to cannot be late.
        self.partial = None;
        self.pinged = None;
    }

    /// The peer sends nothing more that will be looked at; what it sent before may still wait in [`Self::next`].
    pub fn input_ended(&self) -> bool {
        self.framing.input_ended()
    }

    /// Queues a message: `head`, then `tail`, which is shared, not copied, where it is large. Ignored once closing.
    ///
    /// Does not write: [`Self::flush`] does.
    pub fn queue(&mut self, encoding: Encoding, head: &[u8], tail: Bytes) {
        if self.stage == Stage::Open {
            self.framing.queue(encoding, head, tail);
        }
    }

    /// Queues the answer to the HTTP request that [`Self::next`] handed out last.
    pub fn respond(&mut self, response: HttpResponse) {
        if self.stage == Stage::Open {
            self.framing.respond(&response);
        }
    }

    /// Bytes queued and not yet taken by the socket.
    pub fn outbox_bytes(&self) -> usize {
        self.framing.outbox_bytes()
    }

    /// Writes what the socket takes. `true` if some is left and the socket took all it could: an event will come.
    pub fn flush(&mut self, now: Instant) -> bool {
        if self.framing.is_over() && self.stage == Stage::Open {
            self.close(Close::Normal, now);
        }
        if self.writable && self.has_output() && self.stage != Stage::Finished {
            self.write(now);
        }
        if let Stage::Flushing { .. } = self.stage
            && !self.has_output()
            && self.tls.as_mut().is_some_and(|tls| tls.say_goodbye())
        {
            self.write(now);
        }
        if let Stage::Flushing { .. } = self.stage
            && !self.has_output()
        {
            let _ = self.stream.shutdown(Shutdown::Write);
            self.stage = Stage::Draining { deadline: now + self.limits.close_linger };
            self.drain();
        }
        self.has_output() && self.stage != Stage::Finished
    }

    /// Whether something waits for the socket.
    fn has_output(&self) -> bool {
        self.framing.outbox_bytes() > 0 || self.tls.as_ref().is_some_and(|tls| tls.has_output())
    }

    fn write(&mut self, now: Instant) {
        let written = match &mut self.tls {
            None => self.framing.outbox().write_to(&mut self.stream),
            Some(tls) => tls.write(self.framing.outbox(), &mut self.stream),
        };
        match written {
            Ok(written) => {
                self.writable = !self.has_output();
                if self.writable {
                    (self.stalled, self.stall_limited) = (None, false);
                } else if written > 0 || self.stalled.is_none() {
                    self.stalled = Some(now);
                    self.pinged = None;
                }
            }
            // Nobody is there any more; what is left in the socket doesn't matter either.
            Err(_) => self.give_up(),
        }
    }

    /// How long the socket has taken no byte of what is queued.
    pub fn stalled_for(&self, now: Instant) -> Duration {
        self.stalled.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// From now on the connection closes (1013) when the socket takes no byte for [`Limits::write_stall`]; until the
    /// outbox is empty once.
    pub fn limit_stall(&mut self, now: Instant) {
        if self.has_output() && !self.stall_limited {
            self.stall_limited = true;
            self.stalled = Some(now);
        }
    }

    /// Begins to close: what is queued goes out, then a WebSocket's close frame, then the socket is shut down.
    pub fn close(&mut self, reason: Close, now: Instant) {
        if self.stage != Stage::Open {
            return;
        }
        self.framing.close(reason);
        // One that took nothing for a long time already isn't given as long again.
        let patience = if self.stall_limited { self.limits.close_linger } else { self.limits.write_stall };
        self.stage = Stage::Flushing { deadline: now + patience };
    }

    /// Throws away what comes after the last word.
    fn drain(&mut self) {
        /// Bytes thrown away at once: a peer that keeps sending waits for the next event, or for the deadline.
        const AT_ONCE: usize = 1 << 20;
        let mut left = AT_ONCE;
        while matches!(self.stage, Stage::Draining { .. }) && self.readable && left > 0 {
            let mut ended = true;
            let count = self.receive(left, |_, _| ended = false);
            left -= count;
            if ended && !self.readable && self.framing.at_end() {
                self.stage = Stage::Finished;
            }
        }
    }

    /// Whether it is over and may be dropped.
    pub fn is_finished(&self) -> bool {
        self.stage == Stage::Finished
    }

    /// When [`Self::expire`] must be called if nothing happens before. In the past for a connection that is over.
    pub fn deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::Finished => Some(self.accepted),
            Stage::Flushing { deadline } | Stage::Draining { deadline } => Some(deadline),
            Stage::Open => {
                let handshake = self.is_unknown().then(|| self.accepted + self.limits.handshake);
                let partial = self.partial.filter(|_| self.may_read()).map(|partial| partial.deadline);
                let idle = self.framing.is_idle_http().then(|| self.heard + self.limits.http_idle);
                let deadlines = [handshake, partial, idle, self.stall_deadline(), self.ping_deadline()];
                deadlines.into_iter().flatten().min()
            }
        }
    }

    /// It hasn't been said what it is, or who.
    fn is_unknown(&self) -> bool {
        self.greeting || self.kind().is_none()
    }

    fn stall_deadline(&self) -> Option<Instant> {
        self.stalled.filter(|_| self.stall_limited).map(|since| since + self.limits.write_stall)
    }

    /// When to ask a silent peer for a sign of life, or to give it up that was asked. Silence of one that isn't read,
    /// or takes less than there is for it, says nothing.
    fn ping_deadline(&self) -> Option<Instant> {
        let websocket = matches!(self.kind(), Some(Kind::WebSocket | Kind::Echo));
        let listening = websocket && self.may_read() && self.stalled.is_none();
        let half = self.limits.idle_ping / 2;
        (listening && !half.is_zero()).then(|| self.pinged.unwrap_or(self.heard) + half)
    }

    /// Acts on a deadline that has passed; says which, if the peer is to blame: it has been told, and the owner closes
    /// the connection as after an error of [`Self::next`].
    pub fn expire(&mut self, now: Instant) -> Option<Violation> {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return None;
        }
        if self.stage != Stage::Open {
            self.give_up();
            return None;
        }
        let late = if self.is_unknown() {
            Violation::SlowHandshake
        } else if self.stall_deadline().is_some_and(|deadline| deadline <= now) {
            Violation::Stalled
        } else if self.framing.is_idle_http() {
            Violation::Idle
        } else if self.partial.is_some_and(|partial| partial.deadline <= now) && self.framing.is_partial() {
            Violation::SlowMessage
        } else if self.ping_deadline().is_some_and(|deadline| deadline <= now) {
            if self.pinged.is_some() {
                return Some(self.framing.broken(Violation::Silent));
            }
            self.framing.ping();
            self.pinged = Some(now);
            return None;
        } else {
            // The rest has come meanwhile and waits for the owner.
            self.partial = None;
            return None;
        };
        Some(self.framing.broken(late))
    }
}

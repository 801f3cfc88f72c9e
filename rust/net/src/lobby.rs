//! Where connections wait until it is known what they are; part of the poller's thread.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataflow_protocol::encoding::Encoding;
use dataflow_protocol::error::{ErrorBody, ErrorCode};
use dataflow_protocol::request::RequestId;
use dataflow_protocol::response::reply;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry};
use socket2::{SockRef, TcpKeepalive};

use crate::connection::{Connection, ConnectionId, Kind, Readiness};
use crate::error::{Close, Violation};
use crate::http::{Doorkeeper, TurnedAway};
use crate::limits::Limits;
use crate::poller::{LISTENER, OWN_SLOT, Shared, token};
use crate::tls::Identity;

/// Connections accepted before others get their turn.
const ACCEPTED_AT_ONCE: usize = 64;
/// Bytes read of one connection before others get their turn.
const READ_AT_ONCE: usize = 64 << 10;
/// How long to wait when the system cannot accept for reasons of its own.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);
/// What a connection is told that finds no place.
const TOO_MANY: &str = "too many connections";

/// A connection that has no owner yet.
struct Guest {
    connection: Connection,
    /// One too many: it is told so, in these words, as soon as its dialect is known.
    refused: Option<&'static str>,
}

/// The listener and the connections that have no owner yet.
pub(crate) struct Lobby {
    listener: Option<TcpListener>,
    /// The listener may have more: an edge is reported once only.
    knocking: bool,
    /// Accepting failed; not before this is it tried again.
    pause: Option<Instant>,
    registry: Registry,
    shared: Arc<Shared>,
    limits: Arc<Limits>,
    doorkeeper: Arc<dyn Doorkeeper>,
    identity: Arc<Identity>,
    guests: HashMap<ConnectionId, Guest>,
    /// No guest's deadline is before this; looking for the next one takes looking at all of them.
    alarm: Option<Instant>,
    refused: usize,
    /// A descriptor kept so that there is one to accept with, and to say `busy` on, when there are no others.
    reserve: Option<File>,
    accepted: u64,
    /// Workers are dealt connections in turn; plain HTTP has a turn of its own.
    next_worker: usize,
    next_for_http: usize,
}

impl Lobby {
    pub(crate) fn new(
        listener: std::net::TcpListener,
        registry: Registry,
        shared: Arc<Shared>,
        limits: Arc<Limits>,
        doorkeeper: Arc<dyn Doorkeeper>,
        identity: Arc<Identity>,
    ) -> io::Result<Self> {
        let mut listener = TcpListener::from_std(listener);
        registry.register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Lobby {
            listener: Some(listener),
            knocking: true,
            pause: None,
            registry,
            shared,
            limits,
            doorkeeper,
            identity,
            guests: HashMap::new(),
            alarm: None,
            refused: 0,
            reserve: Some(reserve()?),
            accepted: 0,
            next_worker: 0,
            next_for_http: 0,
        })
    }

    /// How long the thread may sleep.
    pub(crate) fn patience(&self) -> Option<Duration> {
        let knocking = self.knocking.then(|| self.pause.unwrap_or_else(Instant::now));
        let next = self.alarm.into_iter().chain(knocking).min()?;
        // Rounded up: the system counts milliseconds, and waking too early would be waking twice.
        let left = next.saturating_duration_since(Instant::now());
        Some(if left.is_zero() { left } else { left + Duration::from_millis(1) })
    }

    /// The listener has something.
    pub(crate) fn knock(&mut self) {
        self.knocking = self.listener.is_some();
    }

    /// Closes the listener.
    pub(crate) fn stop_listening(&mut self) {
        self.listener = None;
        self.knocking = false;
    }

    /// A guest became ready.
    pub(crate) fn ready(&mut self, id: ConnectionId, readiness: Readiness, now: Instant) {
        if let Some(guest) = self.guests.get_mut(&id) {
            guest.connection.ready(readiness);
            self.attend(id, now);
        }
    }

    /// Accepts, and looks after deadlines.
    pub(crate) fn turn(&mut self, now: Instant) {
        if self.pause.is_some_and(|pause| pause <= now) {
            self.pause = None;
        }
        if self.knocking && self.pause.is_none() {
            self.accept(now);
        }
        if self.alarm.is_none_or(|alarm| now < alarm) {
            return;
        }
        let late = |guest: &Guest| guest.connection.deadline().is_some_and(|deadline| deadline <= now);
        let late: Vec<ConnectionId> =
            self.guests.iter().filter(|(_, guest)| late(guest)).map(|(&id, _)| id).collect();
        for id in late {
            if let Some(guest) = self.guests.get_mut(&id) {
                if let Some(violation) = guest.connection.expire(now) {
                    self.doorkeeper.turned_away(TurnedAway::SlowHandshake);
                    guest.connection.close(violation.close(), now);
                }
                self.attend(id, now);
            }
        }
        self.alarm = self.guests.values().filter_map(|guest| guest.connection.deadline()).min();
    }

    fn accept(&mut self, now: Instant) {
        for _ in 0..ACCEPTED_AT_ONCE {
            let Some(listener) = &self.listener else { return };
            match listener.accept() {
                Ok((stream, peer)) => {
                    if let Err(error) = self.welcome(stream, peer, now) {
                        // The peer is gone already, or the system is out of something: either way nobody to serve.
                        drop(error);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.knocking = false;
                    return;
                }
                Err(error) if is_exhaustion(&error) => {
                    if !self.turn_away() {
                        self.pause = Some(now + ACCEPT_AGAIN);
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(_) => {
                    self.pause = Some(now + ACCEPT_AGAIN);
                    return;
                }
            }
        }
    }

    fn welcome(&mut self, stream: TcpStream, peer: std::net::SocketAddr, now: Instant) -> io::Result<()> {
        let full = self.shared.places.taken() - self.refused >= self.limits.max_connections;
        let (place, many) = self.shared.places.take(peer.ip(), &self.limits);
        let refused = match (full, many) {
            (true, _) => Some((TurnedAway::TooMany, TOO_MANY)),
            (false, true) => Some((TurnedAway::TooManyOfAddress, "too many connections from this address")),
            (false, false) => None,
        };
        let refused = refused.map(|(why, told)| {
            self.doorkeeper.turned_away(why);
            told
        });
        if let Some(why) = refused
            && self.refused >= self.limits.max_refusals
        {
            say_busy(stream, why);
            return Ok(());
        }
        set_up(&stream, &self.limits)?;
        self.accepted += 1;
        let id = ConnectionId(self.accepted);
        let mut connection = Connection::new(id, stream, peer, Arc::clone(&self.limits), place, now);
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.registry.register(connection.stream(), token(id, OWN_SLOT), interest)?;
        self.guests.insert(id, Guest { connection, refused });
        self.refused += usize::from(refused.is_some());
        self.attend(id, now);
        Ok(())
    }

    /// Goes as far with a guest as its input allows.
    fn attend(&mut self, id: ConnectionId, now: Instant) {
        let Some(guest) = self.guests.get_mut(&id) else { return };
        let connection = &mut guest.connection;
        let mut known = None;
        while known.is_none() && connection.wants_read() && !connection.input_ended() {
            connection.read(READ_AT_ONCE, now);
            match connection.identify(&*self.doorkeeper, &self.identity, now) {
                Ok(kind) => known = kind,
                Err(violation) => {
                    if let Some(why) = turned_away(&violation) {
                        self.doorkeeper.turned_away(why);
                    }
                    connection.close(violation.close(), now);
                }
            }
        }
        if known.is_some()
            && let Some(why) = guest.refused
        {
            let busy = ErrorBody::new(ErrorCode::Busy, why);
            connection.refuse(&busy, Close::TryAgain, now);
            known = None;
        }
        if known.is_none() && connection.input_ended() {
            connection.close(Close::Normal, now);
        }
        connection.flush(now);
        if connection.is_finished() {
            self.take(id);
        } else if let Some(kind) = known
            && let Some(guest) = self.take(id)
        {
            self.deal(guest.connection, kind);
        } else if let Some(guest) = self.guests.get(&id) {
            self.alarm = self.alarm.into_iter().chain(guest.connection.deadline()).min();
        }
    }

    fn take(&mut self, id: ConnectionId) -> Option<Guest> {
        let guest = self.guests.remove(&id)?;
        self.refused -= usize::from(guest.refused.is_some());
        Some(guest)
    }

    fn deal(&mut self, mut connection: Connection, kind: Kind) {
        let turn = if kind == Kind::Http { &mut self.next_for_http } else { &mut self.next_worker };
        let owner = *turn;
        *turn = (owner + 1) % self.shared.workers();
        connection.set_owner(owner);
        let id = connection.id();
        let slot = self.shared.slot(id, owner);
        let interest = Interest::READABLE | Interest::WRITABLE;
        // The first thread has the token's slot after the poller's own. Without a registration nobody would ever hear of the
        // connection again, so it is dropped; the system has no such error for a socket that is open.
        if self.registry.reregister(connection.stream(), token(id, slot + 1), interest).is_ok() {
            self.shared.deal(slot, connection);
        }
    }

    /// Takes a connection with the reserved descriptor, to tell it that there are no others.
    fn turn_away(&mut self) -> bool {
        let Some(listener) = &self.listener else { return false };
        if self.reserve.take().is_none() {
            self.reserve = reserve().ok();
            return false;
        }
        let accepted = listener.accept();
        let done = accepted.is_ok();
        if let Ok((stream, _)) = accepted {
            self.doorkeeper.turned_away(TurnedAway::NoDescriptors);
            say_busy(stream, TOO_MANY);
        }
        self.reserve = reserve().ok();
        done
    }
}

/// What a violation by somebody who isn't served yet is counted as.
fn turned_away(violation: &Violation) -> Option<TurnedAway> {
    match violation {
        Violation::NoTls | Violation::Tls(_) => Some(TurnedAway::Tls),
        // The doorkeeper's own judgement.
        Violation::Http(401 | 403 | 429) => None,
        _ => Some(TurnedAway::Protocol),
    }
}

/// Small messages leave at once, and the system notices a peer that is gone.
fn set_up(stream: &TcpStream, limits: &Limits) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    if !limits.idle_ping.is_zero() {
        // Half of the silence, then three questions in the other half; the system counts whole seconds.
        let second = Duration::from_secs(1);
        let keepalive = TcpKeepalive::new()
            .with_time((limits.idle_ping / 2).max(second))
            .with_interval((limits.idle_ping / 6).max(second))
            .with_retries(3);
        socket.set_tcp_keepalive(&keepalive)?;
    }
    socket.set_tcp_user_timeout(Some(limits.unacknowledged))
}

fn reserve() -> io::Result<File> {
    File::open("/dev/null")
}

/// The process, or the system, has no descriptors or no memory left.
fn is_exhaustion(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

/// Says `busy` on a socket whose dialect nobody waits to learn, and closes it.
fn say_busy(mut stream: TcpStream, why: &str) {
    let busy = ErrorBody::new(ErrorCode::Busy, why);
    let mut line = reply::error(Encoding::Json, &RequestId::NULL, &busy);
    line.push(b'\n');
    // A socket just accepted has room for a line, or its peer is gone.
    let _ = stream.write(&line);
}

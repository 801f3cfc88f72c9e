//! The port on which processes reach each other: open for as long as the process lives, whoever knocks.
//!
//! Each conversation has a thread of its own, which ends by its deadline. When there are too many, the oldest is
//! ended: processes of the cluster are done within a moment, those who only hold a place are not.

use std::collections::VecDeque;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use socket2::SockRef;

use crate::config::Config;
use crate::mesh::handshake::{Purpose, Refusal, receive};
use crate::mesh::{PATIENCE, RETRY, chain, prepare, settle};

/// Conversations at once.
const MAX_GUESTS: usize = 64;
/// Refusals are logged no more often than this; the rest is counted.
const LOGGED: Duration = Duration::from_secs(1);

/// What is done with a process that has proved who it is: its index, what for, the socket.
pub(crate) type Arrived = Arc<dyn Fn(usize, Purpose, TcpStream) + Send + Sync>;

/// The open port. Dropping it closes it.
pub(crate) struct Entrance {
    inside: Arc<Inside>,
    listener: TcpListener,
}

struct Inside {
    config: Config,
    arrived: Arrived,
    refused: Counter,
    closed: AtomicBool,
    /// Sockets of the conversations under way, oldest first, by number.
    guests: Mutex<VecDeque<(u64, TcpStream)>>,
    /// When a refusal was logged, and how many were not since.
    logged: Mutex<(Option<Instant>, u64)>,
}

impl Entrance {
    /// # Errors
    ///
    /// The system has no threads or descriptors left.
    pub(crate) fn open(
        listener: TcpListener,
        config: Config,
        refused: Counter,
        arrived: Arrived,
    ) -> io::Result<Entrance> {
        let inside = Arc::new(Inside {
            config,
            arrived,
            refused,
            closed: AtomicBool::new(false),
            guests: Mutex::default(),
            logged: Mutex::new((None, 0)),
        });
        let (accepting, inner) = (listener.try_clone()?, Arc::clone(&inside));
        std::thread::Builder::new()
            .name("dataflow:mesh-entrance".into())
            .spawn(move || accept(&accepting, &inner))?;
        Ok(Entrance { inside, listener })
    }
}

impl Drop for Entrance {
    fn drop(&mut self) {
        self.inside.closed.store(true, Ordering::SeqCst);
        // Ends the accept that is under way.
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both);
    }
}

fn accept(listener: &TcpListener, inside: &Arc<Inside>) {
    let mut number = 0;
    while !inside.closed.load(Ordering::SeqCst) {
        let met = listener.accept().and_then(|(socket, peer)| {
            number += 1;
            inside.enter(number, &socket)?;
            let inner = Arc::clone(inside);
            std::thread::Builder::new()
                .name("dataflow:mesh-guest".into())
                .spawn(move || inner.talk(number, socket, peer))
                .map(drop)
        });
        if let Err(error) = met
            && !inside.closed.load(Ordering::SeqCst)
            && error.kind() != io::ErrorKind::ConnectionAborted
        {
            // The system is out of something, and may have it again.
            tracing::warn!(%error, "could not accept on the mesh port");
            std::thread::park_timeout(RETRY);
        }
    }
}

impl Inside {
    /// Takes note of a conversation, and ends the oldest if it is one too many.
    fn enter(&self, number: u64, socket: &TcpStream) -> io::Result<()> {
        let socket = socket.try_clone()?;
        let mut guests = self.guests.lock().unwrap_or_else(PoisonError::into_inner);
        if guests.len() >= MAX_GUESTS
            && let Some((_, oldest)) = guests.pop_front()
        {
            let _ = oldest.shutdown(Shutdown::Both);
        }
        guests.push_back((number, socket));
        Ok(())
    }

    fn talk(&self, number: u64, socket: TcpStream, peer: SocketAddr) {
        let met = prepare(&socket, &self.config)
            .map_err(Refusal::from)
            .and_then(|()| receive(&socket, &self.config, Instant::now() + PATIENCE))
            .and_then(|met| Ok(settle(&socket).map(|()| met)?));
        self.guests.lock().unwrap_or_else(PoisonError::into_inner).retain(|(each, _)| *each != number);
        match met {
            Ok((from, purpose)) => (self.arrived)(from, purpose, socket),
            Err(refusal) => self.refuse(&refusal, peer),
        }
    }

    fn refuse(&self, refusal: &Refusal, peer: SocketAddr) {
        self.refused.inc();
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.0.is_some_and(|last| last.elapsed() < LOGGED) {
            logged.1 += 1;
            return;
        }
        let others = std::mem::replace(&mut *logged, (Some(Instant::now()), 0)).1;
        tracing::warn!(%peer, why = %chain(refusal), others, "refused a mesh connection");
    }
}

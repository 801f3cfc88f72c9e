//! Reaching one process with a smaller index, for as long as it takes.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::config::Config;
use crate::mesh::agreement::Attempt;
use crate::mesh::entrance::Arrived;
use crate::mesh::handshake::{Purpose, Refusal, introduce};
use crate::mesh::{PATIENCE, RETRY, chain, prepare, settle};

/// Told why an attempt to reach the process was in vain.
pub(crate) type Complain = Arc<dyn Fn(usize, String) + Send + Sync>;

/// A thread that makes the links that are wished for. Dropping it ends the thread, after the present attempt.
pub(crate) struct Dialer {
    wishes: Arc<Wishes>,
}

#[derive(Default)]
struct Wishes {
    wish: Mutex<Wish>,
    changed: Condvar,
}

#[derive(Default)]
struct Wish {
    control: bool,
    data: Option<Attempt>,
    over: bool,
}

impl Dialer {
    /// # Errors
    ///
    /// The system has no threads left.
    pub(crate) fn start(
        config: Config,
        to: usize,
        arrived: Arrived,
        complain: Complain,
    ) -> io::Result<Dialer> {
        let wishes = Arc::new(Wishes::default());
        let inner = Arc::clone(&wishes);
        std::thread::Builder::new().name("dataflow:mesh-dialer".into()).spawn(move || {
            while let Some(purpose) = inner.next() {
                match reach(&config, to, purpose) {
                    Ok(socket) => {
                        inner.fulfil(purpose);
                        arrived(to, purpose, socket);
                    }
                    Err(refusal) => {
                        complain(to, chain(&refusal));
                        inner.pause();
                    }
                }
            }
        })?;
        Ok(Dialer { wishes })
    }

    /// A control link is wanted.
    pub(crate) fn want_control(&self) {
        self.wishes.lock().control = true;
        self.wishes.changed.notify_all();
    }

    /// A data link is wanted for this attempt, and for no other; for none, if there is none.
    pub(crate) fn want_data(&self, attempt: Option<Attempt>) {
        self.wishes.lock().data = attempt;
        self.wishes.changed.notify_all();
    }
}

impl Drop for Dialer {
    fn drop(&mut self) {
        self.wishes.lock().over = true;
        self.wishes.changed.notify_all();
    }
}

impl Wishes {
    fn lock(&self) -> MutexGuard<'_, Wish> {
        self.wish.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next link to make; `None` at the end.
    fn next(&self) -> Option<Purpose> {
        let nothing = |wish: &mut Wish| !wish.over && !wish.control && wish.data.is_none();
        let wish = self.changed.wait_while(self.lock(), nothing).unwrap_or_else(PoisonError::into_inner);
        match &*wish {
            Wish { over: true, .. } => None,
            Wish { control: true, .. } => Some(Purpose::Control),
            wish => wish.data.map(Purpose::Data),
        }
    }

    fn fulfil(&self, purpose: Purpose) {
        let mut wish = self.lock();
        match purpose {
            Purpose::Control => wish.control = false,
            Purpose::Data(attempt) if wish.data == Some(attempt) => wish.data = None,
            Purpose::Data(_) => {}
        }
    }

    fn pause(&self) {
        drop(self.changed.wait_timeout_while(self.lock(), RETRY, |wish| !wish.over));
    }
}

fn reach(config: &Config, to: usize, purpose: Purpose) -> Result<TcpStream, Refusal> {
    let socket = TcpStream::connect_timeout(&resolve(&config.mesh[to])?, PATIENCE)?;
    prepare(&socket, config)?;
    introduce(&socket, config, to, purpose, Instant::now() + PATIENCE)?;
    settle(&socket)?;
    Ok(socket)
}

fn resolve(address: &str) -> io::Result<SocketAddr> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    address.to_socket_addrs()?.next().ok_or_else(missing)
}

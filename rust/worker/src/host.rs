//! The handle on a process's workers: starts them, carries events and answers, stops them.

use std::any::Any;
use std::mem::ManuallyDrop;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use dataflow_net::http::Doorkeeper;
use dataflow_net::limits::Limits;
use dataflow_net::poller::{Mailbox, Poller};
use dataflow_net::tls::{self, Identity};
use timely::communication::Hooks;
use timely::communication::allocator::ProcessBuilder;
use timely::communication::allocator::zero_copy::initialize::initialize_networking_from_sockets;

use crate::access::Gate;
use crate::access::rules::Rules;
use crate::command::Ticket;
use crate::config::Config;
use crate::connections::Connections;
use crate::error::WorkerError;
use crate::feed::{Bell, Feed};
use crate::formation::{Place, Seat};
use crate::io::{Hub, IoThread};
use crate::mesh::{self, Links};
use crate::panics;
use crate::process::{Answer, Ending, Event, Process};
use crate::run::Loop;
use crate::sockets::Sockets;

/// How long timely's own threads have to send what is queued, once the workers have ended.
const DRAIN: Duration = Duration::from_secs(2);

/// A time that nobody is idle for; still an integer in every encoding.
const FOREVER_MICROS: u64 = i64::MAX as u64;

/// What timely's network threads are known by; dropped when the workers have ended.
type MeshGuard = Arc<Mutex<Option<Box<dyn Any + Send>>>>;

/// The workers of this process. Dropping it stops them without waiting.
pub struct Host {
    process: Arc<Process>,
    identity: Arc<Identity>,
    poller: Mutex<Option<Poller>>,
    address: SocketAddr,
    mesh: MeshGuard,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Host {
    /// Binds the port and starts the workers, which answer `unavailable` until the cluster is formed.
    ///
    /// # Errors
    ///
    /// A setting is wrong, an address is taken, the system has no threads or descriptors left. Nothing runs then.
    pub fn start(mut config: Config) -> Result<Host, WorkerError> {
        check(&config)?;
        if config.spin {
            config.tunables.spin_micros = FOREVER_MICROS;
        }
        panics::install_hook();
        let mesh_listener = match config.mesh.get(config.process).filter(|_| config.processes > 1) {
            Some(address) => Some(bind_mesh(address)?),
            None => None,
        };
        let listener = TcpListener::bind(&config.listen)
            .map_err(|source| WorkerError::Listen { address: config.listen.clone(), source })?;
        let identity = Arc::new(Identity::default());
        identity.replace(config.tls.as_ref())?;
        let limits = Limits { enable_echo: config.enable_echo, ..config.limits.clone() };
        let max_message_bytes = limits.max_message_bytes;
        let system = |what| move |source| WorkerError::System { what, source };
        let process = Arc::new(Process::new(config).map_err(system("the event descriptor"))?);
        let door: Arc<dyn Doorkeeper> = Arc::<Gate>::clone(&process.gate);
        let (poller, mailboxes) = Poller::start(
            listener,
            process.config.threads,
            process.config.io_threads,
            Arc::new(limits),
            door,
            Arc::clone(&identity),
        )
        .map_err(system("the poller"))?;
        let address = poller.local_addr();
        process.set_wakers((0..mailboxes.len()).map(|thread| poller.waker(thread)).collect());
        let host = Host {
            process,
            identity,
            poller: Mutex::new(Some(poller)),
            address,
            mesh: Arc::default(),
            threads: Mutex::default(),
        };
        let places: Vec<Place> = (0..host.process.config.threads).map(Place::new).collect();
        host.start_threads(mailboxes, &places, max_message_bytes)?;
        match mesh_listener {
            Some(listener) => {
                let (process, guard) = (Arc::clone(&host.process), Arc::clone(&host.mesh));
                host.spawn("dataflow:mesh".into(), move || form(&listener, &process, &places, &guard))?;
            }
            None => seat_alone(&host.process, &places).map_err(system("random numbers"))?,
        }
        Ok(host)
    }

    /// Starts the workers and the I/O threads, each on its mailbox.
    fn start_threads(
        &self,
        mailboxes: Vec<Mailbox>,
        places: &[Place],
        max_message_bytes: usize,
    ) -> Result<(), WorkerError> {
        let Config { threads, io_threads, .. } = self.process.config;
        let hub = Arc::new(Hub::new(threads, io_threads));
        let mut mailboxes = mailboxes.into_iter();
        // The places come first: a mailbox taken for a place that isn't there would be lost.
        for (place, mailbox) in places.iter().cloned().zip(mailboxes.by_ref()) {
            let (process, local) = (Arc::clone(&self.process), place.local());
            let net = if io_threads == 0 {
                Connections::here(mailbox, &process, local)
            } else {
                Connections::there(mailbox, &process, Arc::clone(&hub), local)
            };
            self.spawn(format!("dataflow:worker-{local}"), move || {
                Loop::new(process, net, place, max_message_bytes).run();
            })?;
        }
        for (index, mailbox) in mailboxes.enumerate() {
            let sockets = Sockets::new(mailbox, &self.process);
            let thread = IoThread::new(Arc::clone(&self.process), Arc::clone(&hub), index, sockets);
            self.spawn(format!("dataflow:io-{index}"), move || thread.run())?;
        }
        Ok(())
    }

    fn spawn(&self, name: String, body: impl FnOnce() + Send + 'static) -> Result<(), WorkerError> {
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(body)
            .map_err(|source| WorkerError::System { what: "a thread", source })?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether the cluster is formed, so that requests are served.
    pub fn is_formed(&self) -> bool {
        self.process.formed.load(Ordering::SeqCst)
    }

    /// A descriptor that is readable while there are events.
    pub fn event_fd(&self) -> RawFd {
        self.process.event_fd()
    }

    /// All events since the last call, oldest first.
    pub fn drain(&self) -> Vec<Event> {
        self.process.drain()
    }

    /// Answers an event that asked.
    pub fn answer(&self, ticket: Ticket, answer: Answer) {
        self.process.answer(ticket, answer);
    }

    /// From now on other rules say who may do what in this process. Connections that they wouldn't let in are closed
    /// within a moment.
    pub fn set_access(&self, rules: Rules) {
        self.process.gate.replace(rules);
    }

    /// Shows another certificate to new connections of this process, or none.
    ///
    /// # Errors
    ///
    /// It can't be used; the one before stays in force.
    pub fn set_certificate(&self, files: Option<&tls::Files>) -> Result<(), WorkerError> {
        Ok(self.identity.replace(files)?)
    }

    /// Attaches a source of the configuration; [`Event::Attached`] or [`Event::Unattached`] follows.
    pub fn attach(&self, name: String, source: String) {
        // No request has this ticket; a worker proposes it as its own.
        self.process.answer(Ticket(0), Answer::Attach { name, source });
    }

    /// Opens a feed to the worker of the process whose turn it is; `bell` rings when it has room again.
    pub fn open_feed(&self, limit_bytes: usize, bell: &Arc<Bell>) -> Arc<Feed> {
        let config = &self.process.config;
        let local = self.process.feeds_opened.fetch_add(1, Ordering::Relaxed) % config.threads;
        let process = Arc::clone(&self.process);
        let wake = Box::new(move || process.wake(local));
        let worker = config.process * config.threads + local;
        let feed = Arc::new(Feed::new(worker, limit_bytes, Arc::clone(bell), wake));
        self.process.open_feed(local, Arc::clone(&feed));
        feed
    }

    /// What a source of this process says of itself in `status`, JSON; nothing once it has ended.
    pub fn post_source(&self, name: String, report: Option<String>) {
        self.process.post_source(name, report);
    }

    /// Asks the cluster to stop: all processes of it, in sequenced order. Returns at once; the last event follows.
    pub fn shutdown(&self) {
        self.process.request_shutdown();
    }

    /// Waits until all workers have ended, and says how; `None` if they haven't in time.
    pub fn join(&self, timeout: Duration) -> Option<Ending> {
        self.process.wait_ended(timeout)?;
        if let Some(poller) = self.poller.lock().unwrap_or_else(PoisonError::into_inner).take() {
            poller.stop();
        }
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        // They are past their last statement, or nearly; panics were caught inside.
        threads.into_iter().for_each(|thread| drop(thread.join()));
        let ending = self.process.ending();
        self.release_mesh(ending == Ending::Clean);
        Some(ending)
    }

    /// Lets go of timely's threads. They send what is queued and wait for the other processes to do the same: those
    /// may be gone or stand still, and the guard panics where they are. So not on this thread, not for long, and not
    /// at all where the cluster didn't end in step.
    fn release_mesh(&self, drain: bool) {
        let Some(guard) = self.mesh.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let guard = ManuallyDrop::new(guard);
        if !drain {
            return;
        }
        let (done, drained) = mpsc::channel();
        let drain = move || {
            let _ = catch_unwind(AssertUnwindSafe(|| drop(ManuallyDrop::into_inner(guard))));
            let _ = done.send(());
        };
        if std::thread::Builder::new().name("dataflow:mesh-drain".into()).spawn(drain).is_ok() {
            let _ = drained.recv_timeout(DRAIN);
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.process.abandon();
        self.release_mesh(false);
    }
}

fn check(config: &Config) -> Result<(), WorkerError> {
    let wrong = |message: String| Err(WorkerError::Config(message));
    if config.threads == 0 || config.processes == 0 {
        return wrong("a cluster needs at least one process with one worker".into());
    }
    if config.process >= config.processes {
        return wrong(format!("process {} of {} does not exist", config.process, config.processes));
    }
    if config.processes > 1 && config.mesh.len() != config.processes {
        let count = config.mesh.len();
        return wrong(format!("{} processes need as many mesh addresses, not {count}", config.processes));
    }
    config.tunables.check().map_err(WorkerError::Config)
}

fn bind_mesh(address: &str) -> Result<TcpListener, WorkerError> {
    TcpListener::bind(address).map_err(|source| WorkerError::Mesh { address: address.into(), source })
}

/// The cluster is this process: it is formed at once.
fn seat_alone(process: &Process, places: &[Place]) -> std::io::Result<()> {
    let history = mesh::new_history()?;
    if let [place] = places {
        place.offer(Seat::Alone, history);
    } else {
        let builders = ProcessBuilder::new_typed_vector(places.len(), Hooks::default().refill, None);
        for (place, builder) in places.iter().zip(builders) {
            place.offer(Seat::Shared(builder), history);
        }
    }
    process.wake_all();
    Ok(())
}

/// Connects the processes and hands the workers their seats.
fn form(listener: &TcpListener, process: &Process, places: &[Place], guard: &MeshGuard) {
    let links = match mesh::connect(listener, process) {
        Ok(Some(links)) => links,
        Ok(None) => return,
        Err(error) => return mesh_failed(process, &error),
    };
    let Links { sockets, history } = links;
    let (own, threads) = (process.config.process, process.config.threads);
    let local = ProcessBuilder::new_typed_vector(threads, Hooks::default().refill, None);
    match initialize_networking_from_sockets(local, sockets, own, threads, Hooks::default()) {
        Ok((builders, threads)) => {
            *guard.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(threads));
            for (place, builder) in places.iter().zip(builders) {
                place.offer(Seat::Meshed(builder), history);
            }
            process.wake_all();
        }
        Err(error) => mesh_failed(process, &error),
    }
}

fn mesh_failed(process: &Process, error: &std::io::Error) {
    process.fail(format!("the mesh failed: {error}"));
}

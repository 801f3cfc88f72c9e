//! The handle on a process's workers: starts them, carries events and answers, stops them.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::RawFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use dataflow_net::http::Doorkeeper;
use dataflow_net::limits::Limits;
use dataflow_net::poller::{Mailbox, Poller};
use dataflow_net::tls::{self, Identity};

use crate::access::Gate;
use crate::access::rules::Rules;
use crate::command::Ticket;
use crate::config::Config;
use crate::connections::Connections;
use crate::error::WorkerError;
use crate::events::{Answer, Ending, Event};
use crate::feed::{Bell, Feed};
use crate::formation::Place;
use crate::generations::Coordinator;
use crate::io::{Hub, IoThread};
use crate::panics;
use crate::process::Process;
use crate::run::Loop;
use crate::sockets::Sockets;

/// A time that nobody is idle for; still an integer in every encoding.
const FOREVER_MICROS: u64 = i64::MAX as u64;

/// The workers of this process. Dropping it stops them without waiting.
pub struct Host {
    process: Arc<Process>,
    identity: Arc<Identity>,
    poller: Mutex<Option<Poller>>,
    address: SocketAddr,
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
        let host =
            Host { process, identity, poller: Mutex::new(Some(poller)), address, threads: Mutex::default() };
        let places: Vec<Place> = (0..host.process.config.threads).map(Place::new).collect();
        let coordinator = Coordinator::new(Arc::clone(&host.process), places.clone(), mesh_listener)
            .map_err(system("the mesh"))?;
        host.start_threads(mailboxes, &places, max_message_bytes)?;
        host.spawn(Builder::new(), "dataflow:coordinator".into(), move || coordinator.run())?;
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
            let stack = Builder::new().stack_size(dataflow_engine::STACK_BYTES);
            self.spawn(stack, format!("dataflow:worker-{local}"), move || {
                Loop::new(process, net, place, max_message_bytes).run();
            })?;
        }
        for (index, mailbox) in mailboxes.enumerate() {
            let sockets = Sockets::new(mailbox, &self.process);
            let thread = IoThread::new(Arc::clone(&self.process), Arc::clone(&hub), index, sockets);
            self.spawn(Builder::new(), format!("dataflow:io-{index}"), move || thread.run())?;
        }
        Ok(())
    }

    fn spawn(
        &self,
        thread: Builder,
        name: String,
        body: impl FnOnce() + Send + 'static,
    ) -> Result<(), WorkerError> {
        let thread = thread
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
        self.process.is_formed()
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

    /// Opens a feed to the worker of the process whose turn it is, for one generation; `bell` rings when it has room
    /// again, or has ended, as it has at once if that generation is over.
    pub fn open_feed(&self, generation: u64, limit_bytes: usize, bell: &Arc<Bell>) -> Arc<Feed> {
        let config = &self.process.config;
        let local = self.process.feeds_opened.fetch_add(1, Ordering::Relaxed) % config.threads;
        let process = Arc::clone(&self.process);
        let wake = Box::new(move || process.wake(local));
        let worker = config.process * config.threads + local;
        let feed = Arc::new(Feed::new(worker, limit_bytes, Arc::clone(bell), wake));
        self.process.open_feed(local, generation, Arc::clone(&feed));
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

    /// Stops the workers of this process without a word to the rest of the cluster.
    pub fn abandon(&self) {
        self.process.quit();
    }

    /// Lets one of the workers panic in the middle of a step, at the next command: for tests of what follows.
    #[doc(hidden)]
    pub fn sabotage(&self) {
        self.process.sabotage();
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
        Some(self.process.ending())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.process.quit();
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
    if config.heartbeat_millis == 0 || config.suspect_millis <= config.heartbeat_millis {
        let (beat, suspect) = (config.heartbeat_millis, config.suspect_millis);
        return wrong(format!(
            "suspect_millis={suspect} must be greater than heartbeat_millis={beat}, and that greater than 0"
        ));
    }
    config.tunables.check().map_err(WorkerError::Config)
}

fn bind_mesh(address: &str) -> Result<TcpListener, WorkerError> {
    TcpListener::bind(address).map_err(|source| WorkerError::Mesh { address: address.into(), source })
}

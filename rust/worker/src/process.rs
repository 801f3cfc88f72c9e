//! What the workers of a process share with each other and with Python: two queues, two wake-ups, a few flags.
//!
//! Up go small events, in batches that Python drains when a descriptor becomes readable. Down go answers to the
//! events that asked for one, each to the worker that asked, which is then unparked. No worker ever waits for
//! Python, and none touches anything of Python's.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use dataflow_net::poller::WorkerWaker;
use dataflow_protocol::error::{ErrorBody, ErrorCode};
use dataflow_protocol::ids::{RelationId, Time};
use dataflow_protocol::value::{Column, Type};

use crate::access::Gate;
use crate::command::Ticket;
use crate::config::Config;
use crate::feed::Feed;
use crate::metrics::Metrics;
use crate::quarantine::Quarantine;

/// Something that Python is to know, or to answer with [`crate::host::Host::answer`].
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The cluster is formed: requests are served from now on.
    Formed,
    /// A client asks for a program; to be answered with a plan.
    Register {
        /// Of the request.
        ticket: Ticket,
        /// Its text.
        program: String,
        /// The module's name, where the client gave one.
        name: Option<String>,
    },
    /// A client asks how a relation is computed; to be answered with a tree of operators.
    Explain {
        /// Of the request.
        ticket: Ticket,
        /// The relation's name.
        relation: String,
        /// The plan of its module, JSON.
        plan: String,
    },
    /// The catalog has grown by a module. Version by version, the changes come in sequenced order.
    Registered {
        /// Counted from 1; equal on all processes.
        version: u64,
        /// The module as JSON: name, digest and relations.
        module: String,
    },
    /// Relations have left the catalog.
    Unregistered {
        /// Counted from 1; equal on all processes.
        version: u64,
        /// Modules that are gone.
        modules: Vec<String>,
        /// Relations that are gone.
        relations: Vec<RelationId>,
    },
    /// A client asks to attach a source; to be answered with the source as it will be run.
    Attach {
        /// Of the request.
        ticket: Ticket,
        /// Of the source.
        name: String,
        /// What it is, JSON.
        source: String,
    },
    /// A source is attached to this process, which begins to run it.
    Attached {
        /// Of the source.
        name: String,
        /// What it is, JSON.
        source: String,
    },
    /// A source of this process's configuration isn't attached: its name is taken.
    Unattached {
        /// Of the source.
        name: String,
        /// Why.
        reason: String,
    },
    /// A source of this process is to end; to be answered once it has.
    Detach {
        /// Of the answer.
        ticket: Ticket,
        /// Of the source.
        name: String,
    },
    /// All workers of the process have ended. The last event.
    Stopped(Ending),
}

/// How the workers of a process have ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// As they were told to, the whole cluster in step.
    Clean,
    /// As they were told to, but the rest of the cluster wasn't to be reached.
    Alone,
    /// A worker panicked, here or in a process this one was connected to; the message of the first panic.
    Failed(String),
}

/// Python's answer to an event.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The compiled plan, JSON, to [`Event::Register`].
    Plan(String),
    /// The tree of operators, JSON, to [`Event::Explain`].
    Explanation(String),
    /// The source, JSON, to [`Event::Attach`].
    Source(String),
    /// To [`Event::Detach`]: it has ended.
    Detached {
        /// Of its last transaction.
        time: Time,
        /// What it had to leave behind, in words.
        left: Vec<String>,
    },
    /// To no event: a source of the configuration is to be attached.
    Attach {
        /// Of the source.
        name: String,
        /// What it is, JSON.
        source: String,
    },
    /// Why not, to any that asks.
    Rejected(ErrorBody),
}

/// Shared by the workers of a process and whoever started them.
pub(crate) struct Process {
    pub(crate) config: Config,
    pub(crate) metrics: Metrics,
    /// Who may do what.
    pub(crate) gate: Arc<Gate>,
    /// Requests are served.
    pub(crate) formed: AtomicBool,
    /// Somebody asked for the cluster to stop; a worker sees to it.
    shutdown: AtomicBool,
    /// All workers leave their loops, without ceremony.
    abandon: AtomicBool,
    /// The rest of the cluster didn't answer the wish to stop.
    pub(crate) alone: AtomicBool,
    failure: Mutex<Option<String>>,
    pub(crate) quarantine: Quarantine,
    /// Workers that have become members.
    pub(crate) seated: AtomicUsize,
    running: Mutex<usize>,
    all_ended: Condvar,
    events: Mutex<Events>,
    notify: UnixStream,
    notified: Mutex<UnixStream>,
    answers: Vec<Mutex<Vec<(Ticket, Answer)>>>,
    /// Feeds that were opened and that their workers haven't seen; written by the threads of sources.
    feeds: Vec<Mutex<Vec<Arc<Feed>>>>,
    /// How many there have been.
    pub(crate) feeds_opened: AtomicUsize,
    /// What sources say of themselves, JSON by name; written by Python.
    sources: Mutex<BTreeMap<String, String>>,
    wakers: OnceLock<Vec<WorkerWaker>>,
}

#[derive(Default)]
struct Events {
    queue: VecDeque<Event>,
    /// How many of them ask for an answer.
    questions: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Process {
    pub(crate) fn new(config: Config) -> std::io::Result<Self> {
        let (notify, notified) = UnixStream::pair()?;
        notify.set_nonblocking(true)?;
        notified.set_nonblocking(true)?;
        Ok(Process {
            metrics: Metrics::new(config.threads, config.io_threads),
            gate: Arc::new(Gate::new(config.access.clone())),
            formed: AtomicBool::new(false),
            shutdown: AtomicBool::new(false),
            abandon: AtomicBool::new(false),
            alone: AtomicBool::new(false),
            failure: Mutex::new(None),
            quarantine: Quarantine::default(),
            seated: AtomicUsize::new(0),
            running: Mutex::new(config.threads),
            all_ended: Condvar::new(),
            events: Mutex::default(),
            notify,
            notified: Mutex::new(notified),
            answers: (0..config.threads).map(|_| Mutex::default()).collect(),
            feeds: (0..config.threads).map(|_| Mutex::default()).collect(),
            feeds_opened: AtomicUsize::new(0),
            sources: Mutex::default(),
            wakers: OnceLock::new(),
            config,
        })
    }

    /// Set once, before the workers start: theirs, then those of I/O threads.
    pub(crate) fn set_wakers(&self, wakers: Vec<WorkerWaker>) {
        let _ = self.wakers.set(wakers);
    }

    pub(crate) fn wake(&self, local: usize) {
        if let Some(waker) = self.wakers.get().and_then(|wakers| wakers.get(local)) {
            waker.wake();
        }
    }

    /// Wakes an I/O thread.
    pub(crate) fn wake_io(&self, thread: usize) {
        self.wake(self.config.threads + thread);
    }

    /// Wakes all workers and I/O threads.
    pub(crate) fn wake_all(&self) {
        (0..self.config.threads + self.config.io_threads).for_each(|thread| self.wake(thread));
    }

    /// The descriptor that is readable while there are events.
    pub(crate) fn event_fd(&self) -> RawFd {
        lock(&self.notified).as_raw_fd()
    }

    /// Tells Python something. Not bounded by itself: as many as the cluster's sequenced changes of the catalog.
    pub(crate) fn tell(&self, event: Event) {
        lock(&self.events).queue.push_back(event);
        // A full pipe means that Python has been notified long ago.
        let _ = (&self.notify).write(&[1]);
    }

    /// Asks Python something; `false` if as many questions wait as may.
    pub(crate) fn ask(&self, event: Event) -> bool {
        let mut events = lock(&self.events);
        if events.questions >= self.config.control_queue {
            return false;
        }
        events.questions += 1;
        drop(events);
        self.tell(event);
        true
    }

    /// All events since the last call.
    pub(crate) fn drain(&self) -> Vec<Event> {
        let mut scratch = [0; 256];
        while matches!(lock(&self.notified).read(&mut scratch), Ok(count) if count == scratch.len()) {}
        let mut events = lock(&self.events);
        events.questions = 0;
        events.queue.drain(..).collect()
    }

    /// The worker of this process that gave out a ticket: they take turns in the numbers.
    pub(crate) fn answer(&self, ticket: Ticket, answer: Answer) {
        let local = ticket.0 as usize % self.config.threads;
        lock(&self.answers[local]).push((ticket, answer));
        self.wake(local);
    }

    pub(crate) fn take_answers(&self, local: usize) -> Vec<(Ticket, Answer)> {
        std::mem::take(&mut *lock(&self.answers[local]))
    }

    /// Hands a new feed to its worker. One that comes too late ends at once.
    pub(crate) fn open_feed(&self, local: usize, feed: Arc<Feed>) {
        if self.abandoned() || *lock(&self.running) == 0 {
            return feed.end(ErrorBody::new(ErrorCode::Interrupted, "the server is shutting down"));
        }
        if let Some(feeds) = self.feeds.get(local) {
            lock(feeds).push(feed);
            self.wake(local);
        }
    }

    pub(crate) fn take_feeds(&self, local: usize) -> Vec<Arc<Feed>> {
        std::mem::take(&mut *lock(&self.feeds[local]))
    }

    /// What a source says of itself, for `status`; nothing once it has ended.
    pub(crate) fn post_source(&self, name: String, report: Option<String>) {
        let mut sources = lock(&self.sources);
        match report {
            Some(report) => drop(sources.insert(name, report)),
            None => drop(sources.remove(&name)),
        }
    }

    pub(crate) fn sources(&self) -> Vec<String> {
        lock(&self.sources).values().cloned().collect()
    }

    pub(crate) fn request_shutdown(&self) {
        self.shutdown.store(true, Ordering::SeqCst);
        self.wake_all();
    }

    pub(crate) fn shutdown_requested(&self) -> bool {
        self.shutdown.load(Ordering::SeqCst)
    }

    /// Every worker of the process leaves its loop at the next turn.
    pub(crate) fn abandon(&self) {
        self.abandon.store(true, Ordering::SeqCst);
        self.wake_all();
    }

    pub(crate) fn abandoned(&self) -> bool {
        self.abandon.load(Ordering::SeqCst)
    }

    /// A worker's thread is at its end.
    pub(crate) fn worker_ended(&self) {
        let mut running = lock(&self.running);
        *running -= 1;
        if *running == 0 {
            self.tell(Event::Stopped(self.ending()));
            self.all_ended.notify_all();
        }
        drop(running);
        self.wake_all();
    }

    /// Whether no worker is left.
    pub(crate) fn all_ended(&self) -> bool {
        *lock(&self.running) == 0
    }

    /// The generation has ended: all workers of the process stop. The first reason given is the one that is reported,
    /// the others are often its consequences.
    pub(crate) fn fail(&self, message: String) {
        lock(&self.failure).get_or_insert(message);
        self.abandon();
    }

    /// Whether a worker has panicked.
    pub(crate) fn failed(&self) -> bool {
        lock(&self.failure).is_some()
    }

    /// Waits until all workers have ended; `None` if they haven't in time.
    pub(crate) fn wait_ended(&self, timeout: Duration) -> Option<()> {
        let wait = self.all_ended.wait_timeout_while(lock(&self.running), timeout, |running| *running > 0);
        let (running, _) = wait.unwrap_or_else(PoisonError::into_inner);
        (*running == 0).then_some(())
    }

    pub(crate) fn ending(&self) -> Ending {
        match &*lock(&self.failure) {
            Some(message) => Ending::Failed(message.clone()),
            None if self.alone.load(Ordering::SeqCst) => Ending::Alone,
            None => Ending::Clean,
        }
    }
}

/// A module as Python's mirror of the catalog wants it.
#[derive(serde::Serialize)]
pub(crate) struct ModuleView<'a> {
    pub(crate) name: &'a str,
    pub(crate) digest: &'a str,
    pub(crate) time: Time,
    pub(crate) types: &'a [dataflow_protocol::shape::Composite],
    pub(crate) relations: Vec<RelationView<'a>>,
}

/// A relation in a [`ModuleView`].
#[derive(serde::Serialize)]
pub(crate) struct RelationView<'a> {
    pub(crate) id: RelationId,
    pub(crate) name: &'a str,
    pub(crate) columns: Vec<ColumnView<'a>>,
    pub(crate) input: &'a Option<dataflow_protocol::plan::InputMode>,
    pub(crate) output: bool,
}

/// A column in a [`RelationView`]; its type goes by what plans call it.
#[derive(serde::Serialize)]
pub(crate) struct ColumnView<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    ty: Type,
}

impl<'a> ColumnView<'a> {
    pub(crate) fn new(column: &'a Column) -> Self {
        ColumnView { name: &column.name, ty: column.ty }
    }
}

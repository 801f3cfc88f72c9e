//! What the workers of a process share with each other and with Python: two queues, two wake-ups, a few flags, and
//! the life of the present generation. All of it lives as long as the process does, through all generations.
//!
//! Up go small events, in batches that Python drains when a descriptor becomes readable. Down go answers to the
//! events that asked for one, each to the worker that asked, which is then unparked. No worker ever waits for
//! Python, and none touches anything of Python's.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, mpsc};
use std::time::Duration;

use dataflow_net::poller::WorkerWaker;
use dataflow_protocol::error::{ErrorBody, ErrorCode};

use crate::access::Gate;
use crate::command::Ticket;
use crate::config::Config;
use crate::events::{Answer, Ending, Event};
use crate::feed::Feed;
use crate::forget::Sweeps;
use crate::generations::News;
use crate::metrics::Metrics;
use crate::quarantine::Quarantine;

/// Shared by the workers of a process and whoever started them.
pub(crate) struct Process {
    pub(crate) config: Config,
    pub(crate) metrics: Metrics,
    /// Who may do what.
    pub(crate) gate: Arc<Gate>,
    /// Requests are served. Written under the lock of `life`.
    formed: AtomicBool,
    /// The present generation is over: its members leave it. Written under the lock of `life`.
    fallen: AtomicBool,
    /// Somebody asked for the cluster to stop; a worker sees to it. Written under the lock of `life`.
    shutdown: AtomicBool,
    /// All workers leave their loops, without ceremony.
    quit: AtomicBool,
    /// The rest of the cluster didn't answer the wish to stop.
    alone: AtomicBool,
    failure: Mutex<Option<String>>,
    pub(crate) quarantine: Quarantine,
    pub(crate) sweeps: Sweeps,
    life: Mutex<Life>,
    /// A test wants a worker to panic in the middle of a step.
    sabotaged: AtomicBool,
    /// Why requests aren't served, as the coordinator has it.
    obstacle: Mutex<String>,
    coordinator: OnceLock<mpsc::Sender<News>>,
    running: Mutex<usize>,
    all_ended: Condvar,
    events: Mutex<Events>,
    notify: UnixStream,
    notified: Mutex<UnixStream>,
    answers: Vec<Mutex<Vec<(Ticket, Answer)>>>,
    /// Feeds that were opened and that their workers haven't seen; written by the threads of sources. `None` once the
    /// worker has left the generation: nobody would see them any more.
    feeds: Vec<Mutex<Option<Vec<Arc<Feed>>>>>,
    /// How many there have been.
    pub(crate) feeds_opened: AtomicUsize,
    /// What sources say of themselves, JSON by name; written by Python.
    sources: Mutex<BTreeMap<String, String>>,
    wakers: OnceLock<Vec<WorkerWaker>>,
}

/// The present generation in this process.
#[derive(Default)]
struct Life {
    /// Its number, while the workers have seats in it.
    generation: Option<u64>,
    seated: usize,
    left: usize,
    /// Why it is over.
    why: Option<String>,
    /// A worker of this process panicked in it, and what it had is never dropped.
    panicked: bool,
}

/// How a generation ended in this process.
pub(crate) struct Ended {
    pub(crate) generation: u64,
    /// `None` if its workers left as they were told to.
    pub(crate) why: Option<String>,
    /// A worker of this process panicked in it.
    pub(crate) panicked: bool,
    /// All its workers were members before.
    pub(crate) formed: bool,
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
        let metrics = Metrics::new(config.threads, config.io_threads);
        Ok(Process {
            gate: Arc::new(Gate::new(config.access.clone(), metrics.process.refusals.clone())),
            metrics,
            formed: AtomicBool::new(false),
            fallen: AtomicBool::new(false),
            shutdown: AtomicBool::new(false),
            quit: AtomicBool::new(false),
            alone: AtomicBool::new(false),
            failure: Mutex::new(None),
            quarantine: Quarantine::default(),
            sweeps: Sweeps::default(),
            life: Mutex::default(),
            sabotaged: AtomicBool::new(false),
            obstacle: Mutex::default(),
            coordinator: OnceLock::new(),
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

    /// Set once, before the workers start: who is told of what becomes of the generation.
    pub(crate) fn set_coordinator(&self, post: mpsc::Sender<News>) {
        let _ = self.coordinator.set(post);
    }

    fn report(&self, news: News) {
        if let Some(coordinator) = self.coordinator.get() {
            // It is gone only after the workers are.
            let _ = coordinator.send(news);
        }
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

    /// Hands a new feed to its worker. One that is for another generation than the present one ends at once: relations
    /// have other numbers there.
    pub(crate) fn open_feed(&self, local: usize, generation: u64, feed: Arc<Feed>) {
        let life = lock(&self.life);
        if life.generation != Some(generation) || life.why.is_some() {
            drop(life);
            return feed.end(ErrorBody::new(ErrorCode::Interrupted, "the cluster has to begin anew"));
        }
        match &mut *lock(&self.feeds[local]) {
            Some(feeds) => feeds.push(feed),
            None => feed.end(ErrorBody::new(ErrorCode::Interrupted, "the server is shutting down")),
        }
        self.wake(local);
    }

    /// For a worker: the feeds that were opened to it since the last call.
    pub(crate) fn take_feeds(&self, local: usize) -> Vec<Arc<Feed>> {
        lock(&self.feeds[local]).as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// For a worker that leaves the generation: the same. Feeds that are opened from now on end at once.
    pub(crate) fn take_last_feeds(&self, local: usize) -> Vec<Arc<Feed>> {
        lock(&self.feeds[local]).take().unwrap_or_default()
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
        let life = lock(&self.life);
        self.shutdown.store(true, Ordering::SeqCst);
        drop(life);
        self.wake_all();
    }

    pub(crate) fn shutdown_requested(&self) -> bool {
        self.shutdown.load(Ordering::SeqCst)
    }

    /// Every worker of the process leaves its loop for good at the next turn.
    pub(crate) fn quit(&self) {
        self.quit.store(true, Ordering::SeqCst);
        self.wake_all();
    }

    pub(crate) fn quitting(&self) -> bool {
        self.quit.load(Ordering::SeqCst)
    }

    /// The workers leave for good, without the rest of the cluster.
    pub(crate) fn quit_alone(&self) {
        self.alone.store(true, Ordering::SeqCst);
        self.quit();
    }

    /// No generation can be formed here any more. The first reason given is the one that is reported.
    pub(crate) fn give_up(&self, message: String) {
        lock(&self.failure).get_or_insert(message);
        self.quit();
    }

    /// A generation begins: each worker is about to find a seat. `false` if the process is to stop, and none may.
    pub(crate) fn open(&self, generation: u64) -> bool {
        let mut life = lock(&self.life);
        if self.shutdown_requested() || self.quitting() {
            return false;
        }
        self.answers.iter().for_each(|answers| lock(answers).clear());
        self.feeds.iter().for_each(|feeds| *lock(feeds) = Some(Vec::new()));
        self.sweeps.reset();
        *life = Life { generation: Some(generation), ..Life::default() };
        true
    }

    /// The generation in which there are seats, taken or not.
    pub(crate) fn generation(&self) -> Option<u64> {
        lock(&self.life).generation
    }

    /// Whether there are seats, taken or not.
    pub(crate) fn is_open(&self) -> bool {
        self.generation().is_some()
    }

    /// A worker has become a member. When all have, requests are served.
    pub(crate) fn seated(&self) {
        let mut life = lock(&self.life);
        life.seated += 1;
        if life.seated == self.config.threads
            && let Some(generation) = life.generation
        {
            self.formed.store(life.why.is_none(), Ordering::SeqCst);
            self.tell(Event::Formed { generation });
        }
    }

    /// Whether requests are served.
    pub(crate) fn is_formed(&self) -> bool {
        self.formed.load(Ordering::SeqCst)
    }

    /// A generation is over: its members leave it at their next turn. The first reason given is the one that counts,
    /// the others are often its consequences. Nothing happens if it isn't the present one.
    pub(crate) fn fall(&self, generation: u64, why: String) {
        let mut life = lock(&self.life);
        if life.generation != Some(generation) || life.why.is_some() {
            return;
        }
        life.why = Some(why.clone());
        self.fallen.store(true, Ordering::SeqCst);
        self.formed.store(false, Ordering::SeqCst);
        drop(life);
        self.report(News::Fallen { generation, why });
        self.wake_all();
    }

    /// Whether members are to leave.
    pub(crate) fn has_fallen(&self) -> bool {
        self.fallen.load(Ordering::SeqCst)
    }

    /// Why the present generation is over.
    pub(crate) fn why_fallen(&self) -> Option<String> {
        lock(&self.life).why.clone()
    }

    /// A member has panicked: the generation is over, and what the member had is left as it is.
    pub(crate) fn panicked(&self) {
        self.quarantine.crashed();
        self.metrics.process.quarantined.set(self.quarantine.all().len() as i64);
        let mut life = lock(&self.life);
        life.panicked = true;
        let generation = life.generation;
        drop(life);
        if let Some(generation) = generation {
            let process = self.config.process;
            self.fall(generation, format!("a worker of process {process} failed; its log says why"));
        }
    }

    /// For tests: the next worker to receive an element panics.
    pub(crate) fn sabotage(&self) {
        self.sabotaged.store(true, Ordering::SeqCst);
    }

    /// # Panics
    ///
    /// If that was asked for.
    pub(crate) fn suffer(&self) {
        if self.sabotaged.load(Ordering::Relaxed) && self.sabotaged.swap(false, Ordering::SeqCst) {
            panic!("sabotage");
        }
    }

    /// A worker isn't a member any more. When none is, the coordinator goes on.
    pub(crate) fn left(&self) {
        let mut life = lock(&self.life);
        life.left += 1;
        if life.why.is_some() && self.shutdown_requested() {
            self.alone.store(true, Ordering::SeqCst);
        }
        if life.left == self.config.threads {
            drop(life);
            self.report(News::Vacated);
        }
    }

    /// All workers have left: what there is to know of the generation, which isn't any more.
    pub(crate) fn close(&self) -> Option<Ended> {
        let life = std::mem::take(&mut *lock(&self.life));
        self.fallen.store(false, Ordering::SeqCst);
        self.formed.store(false, Ordering::SeqCst);
        Some(Ended {
            generation: life.generation?,
            formed: life.seated == self.config.threads,
            why: life.why,
            panicked: life.panicked,
        })
    }

    /// What is in the way of serving requests; empty if nothing is known to be.
    pub(crate) fn obstacle(&self) -> String {
        lock(&self.obstacle).clone()
    }

    pub(crate) fn set_obstacle(&self, text: String) {
        *lock(&self.obstacle) = text;
    }

    /// A worker's thread is at its end.
    pub(crate) fn worker_ended(&self) {
        let mut running = lock(&self.running);
        *running -= 1;
        if *running == 0 {
            self.report(News::Over);
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

    /// Waits until all workers have ended; `None` if they haven't in time.
    pub(crate) fn wait_ended(&self, timeout: Duration) -> Option<()> {
        let wait = self.all_ended.wait_timeout_while(lock(&self.running), timeout, |running| *running > 0);
        let (running, _) = wait.unwrap_or_else(PoisonError::into_inner);
        (*running == 0).then_some(())
    }

    /// Whether the workers have left as they were told to, with the rest of the cluster.
    pub(crate) fn ended_in_step(&self) -> bool {
        !self.quitting() && self.ending() == Ending::Clean
    }

    pub(crate) fn ending(&self) -> Ending {
        match &*lock(&self.failure) {
            Some(message) => Ending::Failed(message.clone()),
            None if self.alone.load(Ordering::SeqCst) => Ending::Alone,
            None => Ending::Clean,
        }
    }
}

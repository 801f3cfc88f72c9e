//! The coordinator: a thread that lets the workers of this process live through one generation after another.
//!
//! It holds the links with other processes, carries out what the [`Agreement`] says, and never waits for a worker nor
//! for Python: heartbeats go out whatever else the process is busy with. A process on its own goes the same way, with
//! nobody to agree with.

use std::any::Any;
use std::mem::ManuallyDrop;
use std::net::{TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use dataflow_protocol::dictionary;
use timely::communication::Hooks;
use timely::communication::allocator::ProcessBuilder;
use timely::communication::allocator::zero_copy::initialize::initialize_networking_from_sockets;

use crate::events::Event;
use crate::formation::{Place, Seat};
use crate::mesh::agreement::{Action, Agreement, Attempt, Message, Phase};
use crate::mesh::control::Control;
use crate::mesh::dialer::{Complain, Dialer};
use crate::mesh::entrance::{Arrived, Entrance};
use crate::mesh::handshake::Purpose;
use crate::mesh::link::{Broken, Link, LinkHandle};
use crate::process::{Ended, Process};

/// How often the log says what the cluster waits for.
const REMINDER: Duration = Duration::from_secs(5);
/// How long timely's own threads have to send what is queued, once the workers have ended in step.
const DRAIN: Duration = Duration::from_secs(2);
/// How long to wait before another generation after a worker of this process has panicked; doubled for each more.
const PENALTY: Duration = Duration::from_millis(100);
/// Panics in a row that lengthen the wait.
const MAX_DOUBLINGS: u32 = 7;
/// A generation that has lasted so long has nothing to do with the one before.
const CALM: Duration = Duration::from_secs(60);
/// How long the links of an attempt may take; then there is another attempt.
const FORMING: Duration = Duration::from_secs(10);

/// What the coordinator is told.
pub(crate) enum News {
    /// A process has proved who it is.
    Met { peer: usize, purpose: Purpose, socket: TcpStream },
    /// A process could not be reached.
    Unreachable { peer: usize, why: String },
    /// On a control link.
    Heard { peer: usize, serial: u64, message: Message },
    /// A control link is gone.
    Lost { peer: usize, serial: u64, why: String },
    /// Something of this process's has ended the generation.
    Fallen { generation: u64, why: String },
    /// All workers have left their generation.
    Vacated,
    /// All workers have ended.
    Over,
}

/// The links of the present generation, and what timely's network threads are known by.
#[derive(Default)]
struct Network {
    links: Vec<LinkHandle>,
    guard: Option<Box<dyn Any + Send>>,
}

/// See the module.
pub(crate) struct Coordinator {
    process: Arc<Process>,
    places: Vec<Place>,
    agreement: Agreement,
    post: mpsc::Sender<News>,
    news: mpsc::Receiver<News>,
    entrance: Option<Entrance>,
    /// To the processes with smaller indices.
    dialers: Vec<Dialer>,
    controls: Vec<Option<Control>>,
    /// Data links for an attempt: perhaps one that this process has yet to hear of.
    data: Vec<Option<(Attempt, TcpStream)>>,
    network: Network,
    /// Why a process could not be reached the last time.
    complaints: Vec<String>,
    serial: u64,
    beaten: Instant,
    reminded: Instant,
    /// The present attempt, or the generation that came of it.
    started: Instant,
    panics: u32,
    /// When the process, vacated, takes part in a generation again.
    ready_at: Option<Instant>,
}

impl Coordinator {
    /// Opens the mesh port, if there is one, and begins to reach the others.
    ///
    /// # Errors
    ///
    /// The system has no threads or descriptors left.
    pub(crate) fn new(
        process: Arc<Process>,
        places: Vec<Place>,
        mesh: Option<TcpListener>,
    ) -> std::io::Result<Self> {
        let (post, news) = mpsc::channel();
        process.set_coordinator(post.clone());
        let config = &process.config;
        let told = post.clone();
        let arrived: Arrived =
            Arc::new(move |peer, purpose, socket| drop(told.send(News::Met { peer, purpose, socket })));
        let told = post.clone();
        let complain: Complain = Arc::new(move |peer, why| drop(told.send(News::Unreachable { peer, why })));
        let refused = process.metrics.process.refused.clone();
        let entrance = mesh
            .map(|listener| Entrance::open(listener, config.clone(), refused, Arc::clone(&arrived)))
            .transpose()?;
        let dialers = (0..config.process)
            .map(|to| Dialer::start(config.clone(), to, Arc::clone(&arrived), Arc::clone(&complain)))
            .collect::<std::io::Result<Vec<_>>>()?;
        dialers.iter().for_each(Dialer::want_control);
        let (count, now) = (config.processes, Instant::now());
        Ok(Coordinator {
            agreement: Agreement::new(config.process, count, Box::new(draw)),
            places,
            post,
            news,
            entrance,
            dialers,
            controls: (0..count).map(|_| None).collect(),
            data: (0..count).map(|_| None).collect(),
            network: Network::default(),
            complaints: vec![String::new(); count],
            serial: 0,
            beaten: now,
            reminded: now,
            started: now,
            panics: 0,
            ready_at: None,
            process,
        })
    }

    /// Runs until all workers of the process have ended for good.
    pub(crate) fn run(mut self) {
        let actions = self.agreement.begin();
        self.act(actions);
        loop {
            self.describe();
            match self.next_news() {
                Some(News::Over) => break,
                Some(news) => self.take(news),
                None => {}
            }
            self.beat();
            self.resume();
        }
        let clean = self.gone_in_step();
        self.finish(clean);
    }

    fn next_news(&self) -> Option<News> {
        let alone = self.process.config.processes == 1;
        let beat = (!alone).then(|| self.beaten + self.process.config.heartbeat());
        let reminder = (self.agreement.phase() != Phase::Running).then(|| self.reminded + REMINDER);
        let next = [beat, reminder, self.ready_at].into_iter().flatten().min();
        match next {
            Some(next) => self.news.recv_timeout(next.saturating_duration_since(Instant::now())).ok(),
            None => self.news.recv().ok(),
        }
    }

    fn take(&mut self, news: News) {
        let actions = match news {
            News::Met { peer, purpose: Purpose::Control, socket } => self.control(peer, socket),
            News::Met { peer, purpose: Purpose::Data(attempt), socket } => {
                let newer = |(made_for, _): &(Attempt, _)| made_for.generation > attempt.generation;
                if !self.data[peer].as_ref().is_some_and(newer) {
                    self.data[peer] = Some((attempt, socket));
                }
                self.count_data()
            }
            News::Unreachable { peer, why } => {
                self.complaints[peer] = why;
                Vec::new()
            }
            News::Heard { peer, serial, message } if self.is_current(peer, serial) => {
                self.agreement.heard(peer, message)
            }
            News::Lost { peer, serial, why } if self.is_current(peer, serial) => self.lose(peer, &why),
            News::Fallen { generation, why }
                if self.agreement.current().is_some_and(|current| current.generation == generation) =>
            {
                self.agreement.failed(why)
            }
            News::Vacated => self.vacate(),
            News::Heard { .. } | News::Lost { .. } | News::Fallen { .. } | News::Over => Vec::new(),
        };
        self.act(actions);
    }

    fn is_current(&self, peer: usize, serial: u64) -> bool {
        self.controls[peer].as_ref().is_some_and(|control| control.serial == serial)
    }

    /// A control link is made.
    fn control(&mut self, peer: usize, socket: TcpStream) -> Vec<Action> {
        self.serial += 1;
        let serial = self.serial;
        let (heard, lost) = (self.post.clone(), self.post.clone());
        let heard = move |message| heard.send(News::Heard { peer, serial, message }).is_ok();
        let lost = move |why| drop(lost.send(News::Lost { peer, serial, why }));
        match Control::start(socket, serial, self.process.config.suspect(), heard, lost) {
            Ok(control) => {
                self.controls[peer] = Some(control);
                self.complaints[peer].clear();
                self.agreement.linked(peer)
            }
            Err(error) => {
                self.process.give_up(format!("could not set up a link with process {peer}: {error}"));
                Vec::new()
            }
        }
    }

    fn lose(&mut self, peer: usize, why: &str) -> Vec<Action> {
        self.controls[peer] = None;
        self.complaints[peer] = format!("it {why}");
        if let Some(dialer) = self.dialers.get(peer) {
            dialer.want_control();
        }
        tracing::warn!(process = peer, address = %self.process.config.mesh[peer], why, "lost a process");
        let address = &self.process.config.mesh[peer];
        self.agreement.lost(peer, &format!("at {address} {why}"))
    }

    /// Tells the agreement once all data links of the present attempt are there.
    fn count_data(&mut self) -> Vec<Action> {
        let Some(attempt) = self.agreement.current() else { return Vec::new() };
        let own = self.process.config.process;
        let here =
            |each: &Option<(Attempt, _)>| each.as_ref().is_some_and(|(made_for, _)| *made_for == attempt);
        if self.data.iter().enumerate().all(|(index, each)| index == own || here(each)) {
            return self.agreement.connected(attempt);
        }
        Vec::new()
    }

    fn act(&mut self, actions: Vec<Action>) {
        let mut actions = std::collections::VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            let more = match action {
                Action::Send(peer, message) => {
                    self.send(peer, &message);
                    Vec::new()
                }
                Action::Connect(attempt) => {
                    self.started = Instant::now();
                    self.dialers.iter().for_each(|dialer| dialer.want_data(Some(attempt)));
                    self.count_data()
                }
                Action::Start(attempt) => self.start(attempt),
                Action::End(why) => self.end(&why),
                Action::Stop => {
                    self.process.request_shutdown();
                    Vec::new()
                }
            };
            actions.extend(more);
        }
    }

    fn send(&mut self, peer: usize, message: &Message) {
        let Some(control) = &mut self.controls[peer] else { return };
        if let Err(error) = control.send(message) {
            let (serial, why) = (control.serial, format!("is gone: {error}"));
            // Told like any other loss, after what is being done now.
            let _ = self.post.send(News::Lost { peer, serial, why });
        }
    }

    fn beat(&mut self) {
        if self.beaten.elapsed() >= self.process.config.heartbeat() {
            self.beaten = Instant::now();
            for peer in 0..self.controls.len() {
                self.send(peer, &Message::Beat);
            }
        }
    }

    /// Gives the workers their seats.
    fn start(&mut self, attempt: Attempt) -> Vec<Action> {
        let Attempt { generation, history } = attempt;
        if !self.process.open(generation) {
            return self
                .agreement
                .failed(format!("process {} is shutting down", self.process.config.process));
        }
        self.started = Instant::now();
        match self.seats(generation) {
            Ok(seats) => {
                for (place, seat) in self.places.iter().zip(seats) {
                    place.offer(seat, history);
                }
                self.process.metrics.process.generation.set(generation as i64);
                self.process.wake_all();
            }
            // Nobody has a seat, so nobody would ever leave one.
            Err(error) => self.process.give_up(format!("could not set up the links for timely: {error}")),
        }
        Vec::new()
    }

    fn seats(&mut self, generation: u64) -> std::io::Result<Vec<Seat>> {
        let (own, threads) = (self.process.config.process, self.process.config.threads);
        if self.process.config.processes == 1 && threads == 1 {
            return Ok(vec![Seat::Alone]);
        }
        let local = ProcessBuilder::new_typed_vector(threads, Hooks::default().refill, None);
        if self.process.config.processes == 1 {
            return Ok(local.into_iter().map(Seat::Shared).collect());
        }
        let mut sockets = Vec::new();
        for (peer, data) in self.data.iter_mut().enumerate() {
            let Some((_, socket)) = data.take() else {
                sockets.push(None);
                continue;
            };
            let (link, handle) = Link::new(socket, broken(&self.process, generation, peer))?;
            sockets.push(Some(link));
            self.network.links.push(handle);
        }
        let (builders, guard) =
            initialize_networking_from_sockets(local, sockets, own, threads, Hooks::default())?;
        self.network.guard = Some(Box::new(guard));
        Ok(builders.into_iter().map(Seat::Meshed).collect())
    }

    /// The attempt or the generation is over.
    fn end(&mut self, why: &str) -> Vec<Action> {
        self.dialers.iter().for_each(|dialer| dialer.want_data(None));
        self.data.iter_mut().for_each(|data| *data = None);
        self.network.links.iter().for_each(LinkHandle::cut);
        if self.process.is_open() {
            if let Some(generation) = self.process.generation() {
                self.process.fall(generation, why.to_owned());
            }
            return Vec::new();
        }
        self.agreement.vacated()
    }

    /// All workers have left the generation.
    fn vacate(&mut self) -> Vec<Action> {
        let Some(ended) = self.process.close() else { return Vec::new() };
        self.process.metrics.process.generation.set(0);
        let Ended { generation, why, panicked, formed } = ended;
        let Some(why) = why else {
            if self.process.ended_in_step() {
                (0..self.controls.len()).for_each(|peer| self.send(peer, &Message::Leaving));
            }
            return Vec::new();
        };
        tracing::warn!(generation, %why, "a generation of the cluster has ended");
        self.process.metrics.process.fallen.inc();
        self.network.abandon(panicked);
        if self.process.config.processes > 1 {
            dictionary::sweep::new_generation();
        }
        if formed {
            self.process.tell(Event::Fallen { generation, why: why.clone() });
        }
        self.reminded = Instant::now();
        let mut actions = Vec::new();
        if self.agreement.current().is_some() {
            // Its own news of it is still on the way.
            actions = self.agreement.failed(why);
            actions.retain(|action| !matches!(action, Action::End(_)));
        }
        self.ready_at = Some(Instant::now() + self.penalty(panicked));
        actions
    }

    /// How long this process stays out of the next generation: not to begin again at full speed what fails each time.
    fn penalty(&mut self, panicked: bool) -> Duration {
        if self.started.elapsed() > CALM || !panicked {
            self.panics = 0;
        }
        if !panicked {
            return Duration::ZERO;
        }
        self.panics += 1;
        PENALTY * (1 << (self.panics - 1).min(MAX_DOUBLINGS))
    }

    fn resume(&mut self) {
        if self.agreement.phase() == Phase::Forming && self.started.elapsed() > FORMING {
            let own = self.process.config.process;
            let actions = self.agreement.failed(format!("process {own} could not make its links in time"));
            self.act(actions);
        }
        if self.ready_at.is_some_and(|at| at <= Instant::now()) {
            self.ready_at = None;
            let actions = self.agreement.vacated();
            self.act(actions);
        }
    }

    /// Keeps what is said of the cluster up to date: to those who ask, and in the log every few seconds.
    fn describe(&mut self) {
        let missing = self.agreement.missing();
        self.process.metrics.process.missing.set(missing.len() as i64);
        if self.agreement.phase() == Phase::Running {
            self.reminded = Instant::now();
            return self.process.set_obstacle(String::new());
        }
        let mut obstacles: Vec<String> =
            missing.into_iter().map(|peer| self.describe_missing(peer)).collect();
        if obstacles.is_empty() {
            obstacles = self.agreement.obstacles();
        }
        if self.process.is_open() {
            obstacles.push("workers of this process have yet to leave the last generation".to_owned());
        }
        let text = match obstacles.is_empty() {
            true => "links are being made".to_owned(),
            false => format!("waiting for {}", obstacles.join("; ")),
        };
        if self.reminded.elapsed() >= REMINDER {
            self.reminded = Instant::now();
            tracing::warn!("the cluster is not formed yet: {text}");
        }
        self.process.set_obstacle(text);
    }

    fn describe_missing(&self, peer: usize) -> String {
        let why = match self.complaints[peer].as_str() {
            "" if peer > self.process.config.process => ": it has not connected".to_owned(),
            "" => String::new(),
            complaint => format!(": {complaint}"),
        };
        format!("process {peer} at {}{why}", self.process.config.mesh[peer])
    }

    /// Whether the workers have ended as they were told to, the cluster in step.
    fn gone_in_step(&self) -> bool {
        self.agreement.phase() == Phase::Running && self.process.ended_in_step()
    }

    /// Lets go of everything. Where the cluster ended in step, timely's threads send what is queued and wait for the
    /// other processes to do the same: those may be gone or stand still, and the guard panics where they are. So not
    /// on this thread, and not for long.
    fn finish(mut self, clean: bool) {
        drop(self.entrance.take());
        self.dialers.clear();
        if clean && let Some(guard) = self.network.guard.take().map(ManuallyDrop::new) {
            let (done, drained) = mpsc::channel();
            let drain = move || {
                let _ = catch_unwind(AssertUnwindSafe(|| drop(ManuallyDrop::into_inner(guard))));
                let _ = done.send(());
            };
            if std::thread::Builder::new().name("dataflow:mesh-drain".into()).spawn(drain).is_ok() {
                let _ = drained.recv_timeout(DRAIN);
            }
        }
        self.network.abandon(true);
    }
}

impl Network {
    /// Lets timely's threads end, and waits for them unless a worker that panicked holds on to what they wait for.
    fn abandon(&mut self, held: bool) {
        self.links.drain(..).for_each(|link| link.release());
        let Some(guard) = self.guard.take().map(ManuallyDrop::new) else { return };
        if !held {
            // They end without fail; if they don't, that is in the log.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(ManuallyDrop::into_inner(guard))));
        }
    }
}

/// What a broken data link does.
fn broken(process: &Arc<Process>, generation: u64, peer: usize) -> Broken {
    let process = Arc::clone(process);
    Arc::new(move |why| {
        let address = &process.config.mesh[peer];
        process.fall(generation, format!("the link with process {peer} at {address} broke: {why}"));
    })
}

/// A number that no other start of a cluster has.
fn draw() -> u64 {
    let mut bytes = [0; 8];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u64::from_ne_bytes(bytes),
        // The standard library has its own ways to the system's randomness, and doesn't fail.
        Err(_) => std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), Instant::now()),
    }
}

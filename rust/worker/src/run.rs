//! The loop of a worker.

use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataflow_net::connection::ConnectionId;
use dataflow_net::error::Close;
use dataflow_protocol::error::{ErrorBody, ErrorCode};

use crate::catalog::Catalog;
use crate::config::Tunables;
use crate::connections::{Caller, Connections, Next};
use crate::formation::Place;
use crate::http;
use crate::member::Member;
use crate::metrics::{Phase, Published, WorkerMetrics};
use crate::process::Process;

/// How long the other processes have to agree to a shutdown.
const SHUTDOWN_PATIENCE: Duration = Duration::from_millis(3500);

/// How long clients have to take their last messages when the server stops.
const FAREWELL: Duration = Duration::from_millis(300);

/// A worker: its connections and, once the cluster is formed, its part in it.
pub(crate) struct Loop {
    process: Arc<Process>,
    net: Connections,
    member: Option<Member>,
    /// Where the member comes from.
    place: Place,
    metrics: WorkerMetrics,
    max_message_bytes: usize,
    /// Since when no turn has found anything to do.
    idle_since: Option<Instant>,
    shutdown_since: Option<Instant>,
    /// The number of the last request, for the next member to go on from.
    tickets: u64,
}

impl Loop {
    pub(crate) fn new(
        process: Arc<Process>,
        net: Connections,
        place: Place,
        max_message_bytes: usize,
    ) -> Self {
        let metrics = process.metrics.worker(place.local());
        Loop {
            process,
            net,
            member: None,
            place,
            metrics,
            max_message_bytes,
            idle_since: None,
            shutdown_since: None,
            tickets: 0,
        }
    }

    /// Lives a worker's life on the calling thread, one generation after another, and reports its end to the process.
    /// Does not panic.
    pub(crate) fn run(mut self) {
        let process = Arc::clone(&self.process);
        self.net.attach();
        while self.live() {}
        guard(&process, || self.farewell());
        guard(&process, move || drop(self));
        process.worker_ended();
    }

    /// Waits for a generation and lives through it; whether there may be another one.
    fn live(&mut self) -> bool {
        let process = Arc::clone(&self.process);
        let mut panicked = guard(&process, || self.turns());
        // What was unwound is not used again, but the clients' side is whole: they are told.
        panicked |= guard(&process, || self.interrupt());
        if let Some(member) = self.member.take() {
            self.tickets = member.tickets;
            if member.stopping {
                // Whoever asked for it: no worker of the process waits for another generation.
                process.request_shutdown();
            }
            if panicked {
                // Dataflows that were left in the middle of a step may panic again when dropped, and a second panic
                // at the wrong moment aborts the process.
                let _ = ManuallyDrop::new(member);
            } else {
                guard(&process, move || drop(member));
            }
            process.left();
        } else if panicked {
            // Whatever it was, it isn't to be repeated without a breath.
            std::thread::park_timeout(FAREWELL);
        }
        !process.shutdown_requested() && !process.quitting()
    }

    /// Runs until the generation is over, the cluster stops, or this process has to without it.
    ///
    /// A phase does a bounded amount of work and says whether some remains. Only when no phase has any left does the
    /// worker park; sockets, other workers and Python unpark it.
    fn turns(&mut self) {
        let mut clock = Instant::now();
        while !self.over() {
            let mut more = self.timed(&mut clock, Phase::Accept, Self::accept);
            more |= self.timed(&mut clock, Phase::Read, Self::read);
            more |= self.timed(&mut clock, Phase::Sequence, Self::sequence);
            more |= self.timed(&mut clock, Phase::Step, Self::step);
            more |= self.timed(&mut clock, Phase::Apply, Self::apply);
            more |= self.timed(&mut clock, Phase::Emit, Self::emit);
            more |= self.timed(&mut clock, Phase::Flush, Self::flush);
            self.timed(&mut clock, Phase::Park, |this| this.park(more));
        }
    }

    /// A part of the turn, its time counted.
    fn timed<R>(&mut self, clock: &mut Instant, phase: Phase, part: impl FnOnce(&mut Self) -> R) -> R {
        let result = part(self);
        self.metrics.spent(phase, clock);
        result
    }

    /// New connections, what became of the others, answers from Python, the forming of the cluster.
    fn accept(&mut self) -> bool {
        self.metrics.turns.inc();
        let mut any = self.net.accept();
        if self.member.is_none() {
            self.member = self.place.take_member(&self.process, self.tickets);
            if let Some(member) = &self.member {
                any = true;
                tracing::info!(
                    worker = member.index().0,
                    workers = member.peers(),
                    "the worker is part of a cluster"
                );
            }
        }
        let Some(member) = &mut self.member else { return any };
        let Tunables { inbox_bytes, transaction_rows, .. } = member.tunables;
        self.net.limit(inbox_bytes as usize, transaction_rows as usize);
        for (ticket, answer) in self.process.take_answers(self.place.local()) {
            member.answer(ticket, answer, &mut self.net);
            any = true;
        }
        member.drop_orphans(&mut self.net);
        member.refresh();
        member.publish(&self.net);
        any
    }

    /// What external sources supply, then requests, from one connection after the other, up to the turn's budgets.
    fn read(&mut self) -> bool {
        let tunables = self.member.as_ref().map_or_else(Tunables::default, |member| member.tunables.clone());
        let mut bytes = tunables.bytes_per_turn as usize;
        let mut requests = tunables.commands_per_turn;
        let fed = self.member.as_mut().is_some_and(Member::feed);
        let mut turn = self.net.turn();
        while let Some(id) = turn.pop_front() {
            let mut visit = tunables.requests_per_visit.min(requests);
            requests -= visit;
            while visit > 0 && self.visit(id, &mut bytes) {
                visit -= 1;
            }
            requests += visit;
            if visit == 0 || requests == 0 || bytes == 0 {
                self.net.schedule(id);
            }
            if requests == 0 || bytes == 0 {
                break;
            }
        }
        turn.into_iter().for_each(|id| self.net.schedule(id));
        fed || self.net.waiting()
    }

    /// One request of a connection; whether to ask it for another.
    fn visit(&mut self, id: ConnectionId, bytes: &mut usize) -> bool {
        let unformed = Catalog::default();
        let catalog = self.member.as_ref().map_or(&unformed, |member| &member.catalog);
        match (self.net.next(id, bytes, catalog), &mut self.member) {
            (Next::Nothing, _) | (Next::Held(..), None) => return false,
            (Next::Held(encoding, held), Some(member)) => member.request(id, encoding, held, &mut self.net),
            (Next::Request(encoding, requested), Some(member)) => {
                member.requested(id, encoding, requested, &mut self.net);
            }
            (Next::Http(request), member) => {
                if let Some(peer) = self.net.peer(id) {
                    let response = http::respond(&request, &peer, &self.process, member.as_ref());
                    self.net.respond(id, response);
                }
            }
            (Next::Request(encoding, requested), None) => {
                // Decoded for its id only: whatever it asks, nobody can serve it yet.
                let reply_to = requested.map_or_else(|rejected| rejected.id, |decoded| decoded.id);
                let caller = Caller { connection: id, id: reply_to, encoding };
                let error = ErrorBody::new(ErrorCode::Unavailable, http::unformed(&self.process));
                self.net.error(&caller, &error);
            }
        }
        self.net.go_on(id)
    }

    /// What the turn has collected goes out as one element.
    fn sequence(&mut self) -> bool {
        self.member.as_mut().is_some_and(Member::sequence)
    }

    fn step(&mut self) -> bool {
        self.member.as_mut().is_some_and(Member::step)
    }

    /// What has its place in the order takes effect, one time a turn.
    fn apply(&mut self) -> bool {
        let net = &mut self.net;
        self.member.as_mut().is_some_and(|member| member.apply(net))
    }

    fn emit(&mut self) -> bool {
        let (net, max_message_bytes) = (&mut self.net, self.max_message_bytes);
        self.member.as_mut().is_some_and(|member| member.emit(net, max_message_bytes) || member.has_work())
    }

    /// What clients take of what they were sent.
    fn flush(&mut self) -> bool {
        self.net.flush() || self.net.any_relieved()
    }

    /// The one place to sleep.
    fn park(&mut self, more: bool) {
        if more {
            self.idle_since = None;
            return;
        }
        let unformed = Tunables::default();
        let tunables = self.member.as_ref().map_or(&unformed, |member| &member.tunables);
        let park = Duration::from_micros(tunables.park_micros);
        if tunables.spin_micros > 0 {
            let spin = Duration::from_micros(tunables.spin_micros);
            if self.idle_since.get_or_insert_with(Instant::now).elapsed() < spin {
                // Whoever has something to do may share this core.
                return std::thread::yield_now();
            }
        }
        match &mut self.member {
            // Parks only if timely has nothing to do either; else it is a step.
            Some(member) => member.park(park),
            None => std::thread::park_timeout(park),
        }
    }

    /// Whether to leave: the generation is over, the cluster stops, or this process gives up on it.
    fn over(&mut self) -> bool {
        if self.process.quitting() {
            return true;
        }
        let Some(member) = &self.member else {
            // Where there is a seat, it is taken first: the others can't begin without this worker.
            return self.process.shutdown_requested() && !self.process.is_open();
        };
        if member.stopping || self.process.has_fallen() {
            return true;
        }
        if !self.process.shutdown_requested() {
            return false;
        }
        let late = self.shutdown_since.get_or_insert_with(Instant::now).elapsed() > SHUTDOWN_PATIENCE;
        if late {
            self.process.quit_alone();
        }
        late
    }

    /// Tells clients that the generation is over, and closes their connections.
    fn interrupt(&mut self) {
        if let Some(member) = &mut self.member {
            member.interrupt(&mut self.net);
        }
        let restart = self.process.has_fallen() && !self.process.shutdown_requested();
        self.net.close_all(self.place.local(), if restart { Close::Restart } else { Close::GoingAway });
        self.metrics.subscriptions.set(0);
        self.metrics.publish(Published::default());
        self.net.flush();
    }

    /// Gives clients a moment to hear the last word.
    fn farewell(&mut self) {
        let until = Instant::now() + FAREWELL;
        while self.net.len() > 0 && Instant::now() < until {
            std::thread::park_timeout(Duration::from_millis(10));
            self.net.accept();
            self.net.flush();
        }
    }
}

/// Runs a part of a worker's life; whether it panicked, which then ends the generation for all.
fn guard(process: &Process, part: impl FnOnce()) -> bool {
    let panicked = catch_unwind(AssertUnwindSafe(part)).is_err();
    if panicked {
        process.panicked();
    }
    panicked
}

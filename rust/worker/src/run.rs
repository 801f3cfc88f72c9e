//! The loop of a worker.

use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dataflow_net::connection::{ConnectionId, Incoming};
use dataflow_net::error::Close;
use dataflow_protocol::error::{ErrorBody, ErrorCode};
use dataflow_protocol::request::{self, Schemas};

use crate::catalog::Catalog;
use crate::config::Tunables;
use crate::connections::{Caller, Connections, Next};
use crate::formation::Place;
use crate::http;
use crate::member::Member;
use crate::metrics::WorkerMetrics;
use crate::panics;
use crate::process::Process;

/// Requests taken from one connection before it is the next one's turn.
const REQUESTS_A_VISIT: u64 = 64;

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
    shutdown_since: Option<Instant>,
}

impl Loop {
    pub(crate) fn new(
        process: Arc<Process>,
        net: Connections,
        place: Place,
        max_message_bytes: usize,
    ) -> Self {
        let metrics = process.metrics.worker(place.local());
        Loop { process, net, member: None, place, metrics, max_message_bytes, shutdown_since: None }
    }

    /// Lives a worker's life on the calling thread, and reports its end to the process. Does not panic.
    pub(crate) fn run(mut self) {
        let process = Arc::clone(&self.process);
        let failed = guard(&process, || self.turns());
        // What was unwound is not used again, but the clients' side is whole: they are told.
        if guard(&process, || self.farewell()) || failed {
            // Dataflows that were left in the middle of a step may panic again when dropped, and a second panic at
            // the wrong moment aborts the process. This generation is over in any case.
            let _ = ManuallyDrop::new(self);
        } else {
            guard(&process, move || drop(self));
        }
        process.worker_ended();
    }

    /// Runs until the cluster stops, or this process has to without it.
    ///
    /// A phase does a bounded amount of work and says whether some remains. Only when no phase has any left does the
    /// worker park; sockets, other workers and Python unpark it.
    fn turns(&mut self) {
        self.net.attach();
        while !self.over() {
            let mut more = self.accept();
            more |= self.read();
            more |= self.sequence();
            more |= self.step();
            more |= self.apply();
            more |= self.emit();
            more |= self.flush();
            self.park(more);
        }
    }

    /// New connections, what became of the others, answers from Python, the forming of the cluster.
    fn accept(&mut self) -> bool {
        self.metrics.turns.inc();
        let mut any = self.net.accept();
        if self.member.is_none() {
            self.member = self.place.take_member(&self.process);
            any |= self.member.is_some();
        }
        let Some(member) = &mut self.member else { return any };
        self.net.inbox_bytes = member.tunables.inbox_bytes as usize;
        for (ticket, answer) in self.process.take_answers(self.place.local()) {
            member.answer(ticket, answer, &mut self.net);
            any = true;
        }
        member.drop_orphans(&mut self.net);
        member.refresh();
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
            let mut visit = REQUESTS_A_VISIT.min(requests);
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
        let member = &mut self.member;
        match (self.net.next(id, bytes), member) {
            (Next::Nothing, _) => false,
            (Next::Held(encoding, held), Some(member)) => {
                member.request(id, encoding, held, &mut self.net);
                self.net.session(id).is_some_and(|session| session.held.is_none())
            }
            (Next::Incoming(Incoming::Message(message)), Some(member)) => {
                member.message(id, &message, &mut self.net);
                self.net.session(id).is_some_and(|session| session.held.is_none())
            }
            (Next::Incoming(Incoming::Http(request)), member) => {
                if let Some(peer) = self.net.peer(id) {
                    let response = http::respond(&request, &peer, &self.process, member.as_ref());
                    self.net.respond(id, response);
                }
                true
            }
            (Next::Incoming(Incoming::Message(message)), None) => {
                // Decoded for its id only: whatever it asks, nobody can serve it yet.
                let nothing: &dyn Schemas = &Catalog::default();
                let reply_to = match request::decode(&message.bytes, message.encoding, nothing) {
                    Ok(decoded) => decoded.id,
                    Err(rejected) => rejected.id,
                };
                let caller = Caller { connection: id, id: reply_to, encoding: message.encoding };
                let error = ErrorBody::new(ErrorCode::Unavailable, "the cluster is not formed yet");
                self.net.error(&caller, &error);
                true
            }
            (Next::Held(..), None) => false,
        }
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
        let more = self.net.flush();
        more || self.member.as_ref().is_some_and(|member| member.may_catch_up(&self.net))
    }

    /// The one place to sleep.
    fn park(&mut self, more: bool) {
        if more || self.process.config.spin {
            return;
        }
        let started = Instant::now();
        match &mut self.member {
            // Parks only if timely has nothing to do either; else it is a step.
            Some(member) => member.park(),
            None => std::thread::park_timeout(Duration::from_micros(Tunables::default().park_micros)),
        }
        self.metrics.parked_seconds.inc_by(started.elapsed().as_secs_f64());
    }

    /// Whether to leave: the cluster stops, this process gives up on it, or another worker of the process is gone.
    fn over(&mut self) -> bool {
        if self.process.abandoned() {
            return true;
        }
        if self.member.as_ref().is_some_and(|member| member.stopping) {
            return true;
        }
        if !self.process.shutdown_requested() {
            return false;
        }
        if self.member.is_none() {
            return true;
        }
        let late = self.shutdown_since.get_or_insert_with(Instant::now).elapsed() > SHUTDOWN_PATIENCE;
        if late {
            self.process.alone.store(true, Ordering::SeqCst);
            self.process.abandon();
        }
        late
    }

    /// Tells clients that it is over and gives them a moment to hear it.
    fn farewell(&mut self) {
        let until = Instant::now() + FAREWELL;
        if let Some(member) = &mut self.member {
            member.interrupt(&mut self.net);
        }
        let reason = if self.process.failed() { Close::Restart } else { Close::GoingAway };
        self.net.close_all(reason);
        self.net.flush();
        while self.net.len() > 0 && Instant::now() < until {
            std::thread::park_timeout(Duration::from_millis(10));
            self.net.accept();
            self.net.flush();
        }
    }
}

/// Runs a part of a worker's life; whether it panicked, which then ends the process's other workers as well.
fn guard(process: &Process, part: impl FnOnce()) -> bool {
    let panic = catch_unwind(AssertUnwindSafe(part)).err();
    if let Some(panic) = &panic {
        process.fail(panics::message(&**panic));
    }
    panic.is_some()
}

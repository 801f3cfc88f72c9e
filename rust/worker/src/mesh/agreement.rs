//! How processes agree on the next generation. No sockets, no threads, no clock: what happened goes in, what is to be
//! done comes out.
//!
//! Every two processes have a control link, on which each tells the other its [`State`] whenever it changes. Process
//! 0 alone begins generations: once every process is idle and has all its links, it gives out a number greater than
//! any that a process has ever taken part in, and a history that nobody has had. Each process then makes its data
//! links, which count for this [`Attempt`] only, and says `Ready`; when all have, process 0 says `Start`.
//!
//! Whatever goes wrong at any point, the loss of a control link included, ends the attempt or the generation at the
//! process that notices. It says so to all, who end theirs; when their workers have left they are idle again, and it
//! all begins anew. So a process that was restarted, or has slept through it, learns of the newest number from the
//! others and never meets links of an older attempt. As every process takes part in every generation there can't be
//! two at a time, and a part of the cluster that is cut off forms none.

use serde::{Deserialize, Serialize};

/// One try to form a generation; unlike any other there has been.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attempt {
    /// Greater than that of any other attempt that its processes have seen.
    pub(crate) generation: u64,
    /// Drawn at random.
    pub(crate) history: u64,
}

/// What a process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    /// Takes part in nothing.
    Idle,
    /// Connects for an attempt.
    Forming,
    /// Takes part in a generation.
    Running,
    /// The generation is over, its workers have yet to leave.
    Ending,
}

/// What a process tells all others of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// The greatest generation that it has taken part in.
    pub(crate) newest: u64,
    pub(crate) phase: Phase,
    /// Processes that it has no control link with.
    pub(crate) missing: Vec<u32>,
    /// Why its last generation ended.
    pub(crate) why: String,
}

/// What goes over a control link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Message {
    /// The sender lives.
    Beat,
    State(State),
    /// From process 0: make the links of this attempt.
    Form(Attempt),
    /// To process 0: they are made.
    Ready(Attempt),
    /// From process 0: all are made everywhere.
    Start(Attempt),
    /// The cluster was told to stop, and the sender's part of it has.
    Leaving,
}

/// What the process is to do, one after the other; what follows from one comes after all the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Send(usize, Message),
    /// Make all data links of an attempt, then call [`Agreement::connected`].
    Connect(Attempt),
    /// Let the workers begin.
    Start(Attempt),
    /// Drop all data links and make the workers leave, then call [`Agreement::vacated`].
    End(String),
    /// The rest of the cluster stops as it was told to: so should this process.
    Stop,
}

/// What a process knows of one that it has a control link with.
#[derive(Clone, Debug, Default)]
struct Peer {
    state: Option<State>,
    /// The last generation that it was asked to form.
    asked: u64,
    ready: Option<Attempt>,
}

/// One process's part in the agreement.
pub(crate) struct Agreement {
    process: usize,
    newest: u64,
    phase: Phase,
    current: Option<Attempt>,
    why: String,
    /// By index; `None` without a link, and for the process itself.
    peers: Vec<Option<Peer>>,
    /// Those who have left for good.
    leaving: Vec<bool>,
    connected: bool,
    draw: Box<dyn FnMut() -> u64 + Send>,
}

impl Agreement {
    /// The part of `process` of `processes`; `draw` gives numbers that nobody else is given.
    pub(crate) fn new(process: usize, processes: usize, draw: Box<dyn FnMut() -> u64 + Send>) -> Self {
        Agreement {
            process,
            newest: 0,
            phase: Phase::Idle,
            current: None,
            why: String::new(),
            peers: vec![None; processes],
            leaving: vec![false; processes],
            connected: false,
            draw,
        }
    }

    /// Once, before anything else.
    pub(crate) fn begin(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        self.consider(&mut actions);
        actions
    }

    /// There is a control link with `peer`; one that there was before counts as lost.
    pub(crate) fn linked(&mut self, peer: usize) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.peers[peer].is_some() {
            self.unlink(peer, "was started again", &mut actions);
        }
        self.peers[peer] = Some(Peer::default());
        self.leaving[peer] = false;
        self.tell(&mut actions);
        self.consider(&mut actions);
        actions
    }

    /// The control link with `peer` is gone.
    pub(crate) fn lost(&mut self, peer: usize, why: &str) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.peers[peer].is_some() {
            self.unlink(peer, why, &mut actions);
            self.tell(&mut actions);
        }
        actions
    }

    fn unlink(&mut self, peer: usize, why: &str, actions: &mut Vec<Action>) {
        self.peers[peer] = None;
        if !self.leaving[peer] {
            self.end(format!("process {peer} {why}"), actions);
        }
    }

    pub(crate) fn heard(&mut self, from: usize, message: Message) -> Vec<Action> {
        let mut actions = Vec::new();
        let Some(peer) = &mut self.peers[from] else { return actions };
        match message {
            Message::Beat => {}
            Message::State(state) => {
                peer.state = Some(state.clone());
                self.follow(from, &state, &mut actions);
                self.consider(&mut actions);
            }
            Message::Form(attempt) => {
                let timely = from == 0 && self.phase == Phase::Idle && attempt.generation > self.newest;
                if timely {
                    self.form(attempt, &mut actions);
                }
            }
            Message::Ready(attempt) => {
                peer.ready = Some(attempt);
                self.consider(&mut actions);
            }
            Message::Start(attempt) => {
                if from == 0 && self.phase == Phase::Forming && self.current == Some(attempt) {
                    self.start(attempt, &mut actions);
                }
            }
            Message::Leaving => {
                self.leaving[from] = true;
                actions.push(Action::Stop);
            }
        }
        actions
    }

    /// All data links of the attempt are made.
    pub(crate) fn connected(&mut self, attempt: Attempt) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.current == Some(attempt) && self.phase == Phase::Forming && !self.connected {
            self.connected = true;
            if self.process == 0 {
                self.consider(&mut actions);
            } else {
                actions.push(Action::Send(0, Message::Ready(attempt)));
            }
        }
        actions
    }

    /// Something of this process's own has failed: the attempt or the generation is over.
    pub(crate) fn failed(&mut self, why: String) -> Vec<Action> {
        let mut actions = Vec::new();
        self.end(why, &mut actions);
        actions
    }

    /// The workers have left, the data links are dropped.
    pub(crate) fn vacated(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.phase == Phase::Ending {
            self.phase = Phase::Idle;
            self.tell(&mut actions);
            self.consider(&mut actions);
        }
        actions
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    pub(crate) fn current(&self) -> Option<Attempt> {
        self.current
    }

    /// Processes without a control link.
    pub(crate) fn missing(&self) -> Vec<usize> {
        (0..self.peers.len()).filter(|peer| *peer != self.process && self.peers[*peer].is_none()).collect()
    }

    /// What the others say of themselves, where it keeps a generation from being formed.
    pub(crate) fn obstacles(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (index, state) in
            self.peers.iter().enumerate().filter_map(|(i, p)| Some((i, p.as_ref()?.state.as_ref()?)))
        {
            if !state.missing.is_empty() {
                let missing: Vec<String> = state.missing.iter().map(ToString::to_string).collect();
                found.push(format!("process {index} has no link with process {}", missing.join(", ")));
            } else if state.phase == Phase::Ending {
                found.push(format!("workers of process {index} have yet to leave the last generation"));
            }
        }
        found
    }

    /// Tells all others how things are.
    fn tell(&self, actions: &mut Vec<Action>) {
        let state = State {
            newest: self.newest,
            phase: self.phase,
            missing: self.missing().into_iter().map(|peer| peer as u32).collect(),
            why: self.why.clone(),
        };
        self.broadcast(&Message::State(state), actions);
    }

    fn broadcast(&self, message: &Message, actions: &mut Vec<Action>) {
        let linked = (0..self.peers.len()).filter(|peer| self.peers[*peer].is_some());
        actions.extend(linked.map(|peer| Action::Send(peer, message.clone())));
    }

    /// Ends what this process takes part in if another has ended it, or is ahead.
    fn follow(&mut self, from: usize, state: &State, actions: &mut Vec<Action>) {
        let Some(current) = self.current else { return };
        let gone = matches!(state.phase, Phase::Ending | Phase::Idle);
        if state.newest > current.generation || (state.newest == current.generation && gone) {
            let why =
                if state.why.is_empty() { format!("process {from} has left") } else { state.why.clone() };
            self.end(why, actions);
        }
    }

    fn end(&mut self, why: String, actions: &mut Vec<Action>) {
        if self.current.take().is_some() {
            self.phase = Phase::Ending;
            self.why = why.clone();
            actions.push(Action::End(why));
            self.tell(actions);
        }
    }

    fn form(&mut self, attempt: Attempt, actions: &mut Vec<Action>) {
        self.newest = attempt.generation;
        self.phase = Phase::Forming;
        self.current = Some(attempt);
        self.connected = false;
        self.tell(actions);
        actions.push(Action::Connect(attempt));
    }

    fn start(&mut self, attempt: Attempt, actions: &mut Vec<Action>) {
        self.phase = Phase::Running;
        actions.push(Action::Start(attempt));
        self.tell(actions);
    }

    fn all_connected(&self, attempt: Attempt) -> bool {
        let ready = self.peers.iter().flatten().all(|peer| peer.ready == Some(attempt));
        self.phase == Phase::Forming && self.connected && ready
    }

    /// What process 0 does when something has changed.
    fn consider(&mut self, actions: &mut Vec<Action>) {
        if self.process != 0 || !self.missing().is_empty() {
            return;
        }
        match self.current {
            None if self.phase == Phase::Idle && self.peers.iter().flatten().all(Peer::is_idle) => {
                let theirs = self.peers.iter().flatten().filter_map(|peer| peer.state.as_ref());
                let newest = theirs.map(|state| state.newest).max().unwrap_or(0).max(self.newest);
                let attempt = Attempt { generation: newest + 1, history: (self.draw)() };
                for peer in self.peers.iter_mut().flatten() {
                    peer.asked = attempt.generation;
                    peer.ready = None;
                }
                self.broadcast(&Message::Form(attempt), actions);
                self.form(attempt, actions);
            }
            Some(attempt) if self.all_connected(attempt) => {
                self.broadcast(&Message::Start(attempt), actions);
                self.start(attempt, actions);
            }
            _ => {}
        }
    }
}

impl Peer {
    /// Whether it waits for a generation, and not because it hasn't heard of the last one yet.
    fn is_idle(&self) -> bool {
        self.state.as_ref().is_some_and(|state| {
            state.phase == Phase::Idle && state.missing.is_empty() && state.newest >= self.asked
        })
    }
}

#[cfg(test)]
mod tests;

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
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// A generator of choices: small, and the same everywhere.
    struct Choices(u64);

    impl Choices {
        fn below(&mut self, bound: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((self.0 >> 33) % bound as u64) as usize
        }
    }

    /// Something that may happen next.
    type Happening = Box<dyn FnOnce(&mut World)>;

    /// What arrives at a process over its link with another one, in order.
    #[derive(Debug)]
    enum Arrival {
        Linked,
        Message(Message),
        Lost,
    }

    /// Processes, and all that is under way between them.
    struct World {
        choices: Choices,
        members: Vec<Agreement>,
        /// By sender, then receiver.
        queues: Vec<Vec<VecDeque<Arrival>>>,
        linked: Vec<Vec<bool>>,
        /// By process: the attempt that it connects for.
        connecting: Vec<Option<Attempt>>,
        running: Vec<Option<Attempt>>,
        leaving: Vec<bool>,
        started: Vec<Attempt>,
    }

    impl World {
        fn new(processes: usize, seed: u64) -> Self {
            let mut world = World {
                choices: Choices(seed),
                members: (0..processes).map(|process| member(process, processes, seed)).collect(),
                queues: (0..processes).map(|_| (0..processes).map(|_| VecDeque::new()).collect()).collect(),
                linked: vec![vec![false; processes]; processes],
                connecting: vec![None; processes],
                running: vec![None; processes],
                leaving: vec![false; processes],
                started: Vec::new(),
            };
            for process in 0..processes {
                let actions = world.members[process].begin();
                world.act(process, actions);
            }
            world
        }

        fn pairs(&self) -> Vec<(usize, usize)> {
            let count = self.members.len();
            (0..count).flat_map(|one| (0..one).map(move |two| (one, two))).collect()
        }

        fn act(&mut self, process: usize, actions: Vec<Action>) {
            let mut actions = VecDeque::from(actions);
            while let Some(action) = actions.pop_front() {
                match action {
                    Action::Send(to, message) if self.linked[process][to] => {
                        self.queues[process][to].push_back(Arrival::Message(message));
                    }
                    Action::Send(..) | Action::Stop => {}
                    Action::Connect(attempt) => self.connecting[process] = Some(attempt),
                    Action::Start(attempt) => {
                        let all =
                            self.members.iter().all(|m| m.newest >= attempt.generation || m.newest == 0);
                        assert!(all, "somebody has never heard of {attempt:?}");
                        self.running[process] = Some(attempt);
                        self.started.push(attempt);
                    }
                    Action::End(_) => {
                        self.connecting[process] = None;
                        if self.running[process].take().is_some() {
                            self.leaving[process] = true;
                        } else {
                            actions.extend(self.members[process].vacated());
                        }
                    }
                }
            }
        }

        /// Something that is due happens; `false` if nothing is.
        fn step(&mut self) -> bool {
            let mut due: Vec<Happening> = Vec::new();
            for (one, two) in self.pairs() {
                for (from, to) in [(one, two), (two, one)] {
                    if !self.queues[from][to].is_empty() {
                        due.push(Box::new(move |world| world.deliver(from, to)));
                    }
                }
                if !self.linked[one][two]
                    && self.queues[one][two].is_empty()
                    && self.queues[two][one].is_empty()
                {
                    due.push(Box::new(move |world| world.link(one, two)));
                }
            }
            for process in 0..self.members.len() {
                if let Some(attempt) = self.connecting[process]
                    && self.connecting.iter().all(|other| *other == Some(attempt))
                {
                    due.push(Box::new(move |world| {
                        let actions = world.members[process].connected(attempt);
                        world.act(process, actions);
                    }));
                }
                if self.leaving[process] {
                    due.push(Box::new(move |world| {
                        world.leaving[process] = false;
                        let actions = world.members[process].vacated();
                        world.act(process, actions);
                    }));
                }
            }
            let settled = self.running.iter().all(|running| running.is_some() && *running == self.running[0]);
            if due.is_empty() || (settled && self.queues.iter().flatten().all(VecDeque::is_empty)) {
                return false;
            }
            let chosen = self.choices.below(due.len());
            due.swap_remove(chosen)(self);
            true
        }

        fn deliver(&mut self, from: usize, to: usize) {
            let Some(arrival) = self.queues[from][to].pop_front() else { return };
            let actions = match arrival {
                Arrival::Linked => self.members[to].linked(from),
                Arrival::Message(message) => self.members[to].heard(from, message),
                Arrival::Lost => self.members[to].lost(from, "is gone"),
            };
            self.act(to, actions);
        }

        fn link(&mut self, one: usize, two: usize) {
            for (from, to) in [(one, two), (two, one)] {
                self.linked[from][to] = true;
                self.queues[from][to].push_back(Arrival::Linked);
            }
        }

        /// A link breaks; each end notices when it has taken what was sent before, some of which may never come.
        fn cut(&mut self, one: usize, two: usize) {
            for (from, to) in [(one, two), (two, one)] {
                if std::mem::take(&mut self.linked[from][to]) {
                    let kept = self.choices.below(self.queues[from][to].len() + 1);
                    self.queues[from][to].truncate(kept);
                    self.queues[from][to].push_back(Arrival::Lost);
                }
            }
        }

        fn restart(&mut self, process: usize) {
            let count = self.members.len();
            for other in (0..count).filter(|other| *other != process) {
                self.cut(process, other);
                self.queues[other][process].clear();
            }
            let seed = self.choices.0;
            self.members[process] = member(process, count, seed);
            (self.connecting[process], self.running[process], self.leaving[process]) = (None, None, false);
            let actions = self.members[process].begin();
            self.act(process, actions);
        }

        fn fail(&mut self, process: usize) {
            let actions = self.members[process].failed("it failed".into());
            self.act(process, actions);
        }
    }

    fn member(process: usize, processes: usize, seed: u64) -> Agreement {
        let mut choices = Choices(seed ^ process as u64);
        Agreement::new(process, processes, Box::new(move || choices.below(usize::MAX) as u64))
    }

    fn settle(world: &mut World, seed: u64) {
        for _ in 0..100_000 {
            if !world.step() {
                let first = world.running[0];
                let phases: Vec<Phase> = world.members.iter().map(Agreement::phase).collect();
                assert!(first.is_some(), "seed {seed}: nothing is formed, {phases:?}");
                assert!(world.running.iter().all(|running| *running == first), "seed {seed}: {phases:?}");
                return;
            }
        }
        panic!("seed {seed}: it goes in circles");
    }

    #[test]
    fn a_process_on_its_own_forms_generation_after_generation() {
        let mut alone = Agreement::new(0, 1, Box::new(|| 7));
        for generation in 1..4 {
            let attempt = Attempt { generation, history: 7 };
            let connect = if generation == 1 { alone.begin() } else { alone.vacated() };
            assert_eq!(connect, [Action::Connect(attempt)]);
            assert_eq!(alone.connected(attempt), [Action::Start(attempt)]);
            assert_eq!(alone.failed("so".into()), [Action::End("so".into())]);
            assert!(alone.failed("again".into()).is_empty());
        }
    }

    #[test]
    fn nothing_is_formed_while_a_process_is_missing() {
        let mut zero = Agreement::new(0, 3, Box::new(|| 7));
        let idle = |missing: Vec<u32>| {
            Message::State(State { newest: 4, phase: Phase::Idle, missing, why: String::new() })
        };
        assert!(zero.begin().is_empty());
        zero.linked(1);
        assert!(zero.heard(1, idle(vec![2])).is_empty());
        assert_eq!(zero.missing(), [2]);
        zero.linked(2);
        assert!(zero.heard(2, idle(vec![1])).is_empty(), "1 and 2 have no link with each other");
        assert_eq!(zero.obstacles().len(), 2);
        assert!(zero.heard(1, idle(vec![])).is_empty());
        let form = Message::Form(Attempt { generation: 5, history: 7 });
        let actions = zero.heard(2, idle(vec![]));
        assert!(actions.contains(&Action::Send(1, form.clone())) && actions.contains(&Action::Send(2, form)));
    }

    #[test]
    fn whatever_fails_in_whatever_order_one_generation_comes_of_it() {
        for seed in 0..400 {
            let processes = 2 + seed as usize % 4;
            let mut world = World::new(processes, seed);
            for _ in 0..12 {
                for _ in 0..world.choices.below(60) {
                    world.step();
                }
                let (one, two) = {
                    let pairs = world.pairs();
                    pairs[world.choices.below(pairs.len())]
                };
                match world.choices.below(4) {
                    0 => world.cut(one, two),
                    1 => world.restart(one),
                    2 => world.restart(two),
                    _ => world.fail(one),
                }
            }
            settle(&mut world, seed);
            // And once more, from a generation that runs everywhere.
            let before = world.running[0];
            world.restart(processes - 1);
            settle(&mut world, seed);
            assert!(world.running[0].map(|a| a.generation) > before.map(|a| a.generation), "seed {seed}");
            let mut histories: Vec<u64> = world.started.iter().map(|attempt| attempt.history).collect();
            histories.sort_unstable();
            histories.dedup();
            let mut numbers: Vec<Attempt> = world.started.clone();
            numbers.sort_unstable_by_key(|attempt| attempt.history);
            numbers.dedup();
            assert_eq!(histories.len(), numbers.len(), "seed {seed}: a history was given out twice");
        }
    }
}

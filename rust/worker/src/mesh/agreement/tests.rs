//! Processes in memory: whatever is lost or late, in any order, one generation comes of it.

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
                    let all = self.members.iter().all(|m| m.newest >= attempt.generation || m.newest == 0);
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
            if !self.linked[one][two] && self.queues[one][two].is_empty() && self.queues[two][one].is_empty()
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

//! Runs scripts on clusters of engines and compares every relation after every time with a naive evaluation.

pub mod choices;
pub mod oracle;
pub mod plans;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dataflow_engine::{EmitBudget, Engine};
use dataflow_protocol::ids::{RelationId, Time, WorkerIndex};
use dataflow_protocol::order::{Ranking, Sorter};
use dataflow_protocol::plan::Plan;
use dataflow_protocol::rows::RowBuf;
use dataflow_protocol::value::from_number;

/// A row of words.
pub type Row = Vec<u64>;
/// A relation's rows and their copies.
pub type Contents = BTreeMap<Row, i64>;

/// A sequenced command.
#[derive(Clone, Debug)]
pub enum Command {
    Register(Plan),
    Unregister(String),
    /// The clock shows so many µs.
    Tick(i64),
    /// Worker 0 wants the first rows of a relation; such a wish is told apart by its number.
    Rank(u64, String, Ranking),
    /// It no longer does.
    Unrank(u64),
    /// By an owner, into a relation: deletes, then inserts.
    Transact {
        owner: usize,
        relation: String,
        delete: Vec<Row>,
        insert: Vec<Row>,
    },
}

/// Applies a time's commands to the naive state; the contents of all relations after it.
#[derive(Default)]
pub struct Model {
    plans: Vec<Plan>,
    inputs: BTreeMap<String, Contents>,
    rankings: BTreeMap<u64, (String, Ranking)>,
    /// What the relations of frozen programs hold, by name.
    frozen: BTreeMap<String, Contents>,
    now: Option<i64>,
}

impl Model {
    pub fn apply(&mut self, command: &Command) {
        match command {
            Command::Register(plan) => {
                for relation in plan.relations.iter().filter(|relation| relation.input.is_some()) {
                    self.inputs.entry(relation.name.clone()).or_default();
                }
                self.plans.push(plan.clone());
                if plan.frozen {
                    let all = self.contents();
                    let known = plan.relations.iter().map(|relation| &relation.name);
                    self.frozen.extend(known.map(|name| (name.clone(), all[name].clone())));
                }
            }
            Command::Unregister(name) => {
                let at = self.plans.iter().position(|plan| plan.name == *name).expect("a known module");
                for relation in self.plans.remove(at).relations {
                    self.inputs.remove(&relation.name);
                    self.rankings.retain(|_, (of, _)| *of != relation.name);
                }
            }
            Command::Tick(now) => self.now = Some(*now),
            Command::Rank(wish, relation, ranking) => {
                self.rankings.insert(*wish, (relation.clone(), ranking.clone()));
            }
            Command::Unrank(wish) => {
                self.rankings.remove(wish);
            }
            Command::Transact { relation, delete, insert, .. } => {
                let declared =
                    self.plans.iter().flat_map(|plan| &plan.relations).find(|r| r.name == *relation);
                let mode = declared.and_then(|relation| relation.input.clone()).expect("an input");
                let contents = self.inputs.get_mut(relation).expect("an input");
                oracle::transact(contents, &mode, delete, insert);
            }
        }
    }

    pub fn contents(&self) -> BTreeMap<String, Contents> {
        let mut all = self.inputs.clone();
        all.insert("now".into(), self.now.iter().map(|&now| (vec![from_number(now)], 1)).collect());
        all.extend(self.frozen.clone());
        for plan in &self.plans {
            if !plan.relations.iter().any(|relation| self.frozen.contains_key(&relation.name)) {
                oracle::evaluate(plan, &mut all);
            }
        }
        for (wish, (relation, ranking)) in &self.rankings {
            let first = self.first(&all[relation], relation, ranking);
            all.insert(wish_name(*wish), first);
        }
        all
    }

    /// The first rows, by sorting all.
    fn first(&self, contents: &Contents, relation: &str, ranking: &Ranking) -> Contents {
        let declared = self.plans.iter().flat_map(|plan| &plan.relations).find(|r| r.name == relation);
        let types: Vec<_> = declared.expect("known").columns.iter().map(|column| column.ty).collect();
        let sorter = Sorter::new(&types, &ranking.order);
        let key = |row: &Row| {
            let mut key = Vec::new();
            sorter.write(row, &mut key);
            key
        };
        let passes = |row: &Row| ranking.filter.iter().all(|&(column, word)| row[column] == word);
        let mut rows: Vec<(&Row, i64)> =
            contents.iter().filter(|(row, _)| passes(row)).map(|(row, copies)| (row, *copies)).collect();
        rows.sort_by_key(|(row, _)| key(row));
        let mut left = ranking.limit as i64;
        let mut first = Contents::new();
        for (row, copies) in rows {
            let taken = copies.clamp(0, left);
            left -= taken;
            if taken > 0 {
                first.insert(row.clone(), taken);
            }
        }
        first
    }
}

/// What the contents of a wish for first rows go by, beside relations.
pub fn wish_name(wish: u64) -> String {
    format!("wish {wish}")
}

fn buffer(width: usize, rows: &[Row]) -> RowBuf {
    let mut buffer = RowBuf::new(width);
    rows.iter().for_each(|row| buffer.push(row));
    buffer
}

/// Within a time transactions take effect by origin, then the other commands, as the sequencer hands them out.
pub fn rank(command: &Command, workers: usize) -> usize {
    match command {
        Command::Transact { owner, .. } => owner % workers,
        Command::Register(_) | Command::Tick(_) => workers,
        Command::Rank(..) | Command::Unrank(_) => workers + 1,
        Command::Unregister(_) => usize::MAX,
    }
}

/// Runs `script`, a list of times' commands, on so many workers; checks what a subscriber of worker 0 sees after each
/// time, and a snapshot for the last worker. On several workers operators pause as often as they can.
pub fn check(workers: usize, mut script: Vec<Vec<Command>>) {
    script.iter_mut().for_each(|commands| commands.sort_by_key(|command| rank(command, workers)));
    let mut model = Model::default();
    let mut expected = Vec::new();
    for commands in &script {
        commands.iter().for_each(|command| model.apply(command));
        expected.push(model.contents());
    }
    let (script, expected) = (Arc::new(script), Arc::new(expected));
    let failure = Arc::new(Mutex::new(None::<String>));
    let failed = Arc::clone(&failure);
    let guards = timely::execute(timely::Config::process(workers), move |worker| {
        let mut replica = Replica::new(worker);
        for (at, commands) in script.iter().enumerate() {
            // Gaps between times are ordinary.
            let time = 3 * at as Time + 1;
            if let Err(error) = replica.turn(worker, time, commands, &expected[at]) {
                failed.lock().expect("not poisoned").get_or_insert(format!("time {time} ({at}): {error}"));
            }
        }
    });
    drop(guards.expect("a cluster"));
    if let Some(error) = failure.lock().expect("not poisoned").take() {
        panic!("{error}");
    }
}

struct Replica {
    engine: Engine,
    /// Whether operators that can pause do so at every opportunity.
    pause: bool,
    seen: BTreeMap<String, Contents>,
    /// Wishes for first rows: of which relation, and the relation that they are.
    wishes: BTreeMap<u64, (RelationId, Ranking, RelationId)>,
    /// By token: end marks, and what has arrived.
    snapshots: BTreeMap<u64, (usize, Contents)>,
}

impl Replica {
    fn new(worker: &mut timely::worker::Worker) -> Self {
        let pause = worker.peers() != 1;
        Replica {
            engine: Engine::new(worker),
            pause,
            seen: BTreeMap::new(),
            wishes: BTreeMap::new(),
            snapshots: BTreeMap::new(),
        }
    }

    fn turn(
        &mut self,
        worker: &mut timely::worker::Worker,
        time: Time,
        commands: &[Command],
        expected: &BTreeMap<String, Contents>,
    ) -> Result<(), String> {
        for command in commands {
            self.apply(worker, time, command);
        }
        // A snapshot of every relation goes to the last worker; worker 0 has subscribed.
        let owner = WorkerIndex(worker.peers() - 1);
        let mut relations: Vec<(String, RelationId)> =
            self.engine.relations().iter().map(|info| (info.name.clone(), info.id)).collect();
        relations.extend(self.wishes.iter().map(|(wish, (.., target))| (wish_name(*wish), *target)));
        let token = |index: usize| time << 16 | index as u64;
        for (index, (_, relation)) in relations.iter().enumerate() {
            self.engine.snapshot(*relation, time, owner, token(index), Vec::new(), None);
        }
        self.engine.advance(time);
        let wanted = if worker.index() == owner.0 { worker.peers() } else { 0 };
        let mut more = false;
        loop {
            if self.pause {
                self.engine.begin_step(Duration::ZERO);
            }
            // Another worker may be ahead, with slices of its next snapshots.
            worker.step_or_park(Some(if more { Duration::ZERO } else { Duration::from_millis(1) }));
            more = self.engine.work(&EmitBudget { rows: 50, slice_rows: 7 });
            for slice in self.engine.take_slices() {
                let (ends, contents) = self.snapshots.entry(slice.token).or_default();
                *ends += usize::from(slice.end);
                merge(contents, &slice.changes);
            }
            let finished = |id| self.engine.finished(id).is_some_and(|finished| finished >= time);
            let ends = |index| self.snapshots.get(&token(index)).map_or(0, |(ends, _)| *ends);
            let complete = (0..relations.len()).all(|index| ends(index) == wanted);
            if !more && complete && relations.iter().all(|(_, relation)| finished(*relation)) {
                break;
            }
        }
        if worker.index() == 0 {
            for step in self.engine.take_steps() {
                for (name, _) in relations.iter().filter(|(_, id)| *id == step.relation) {
                    merge(self.seen.entry(name.clone()).or_default(), &step.changes);
                }
            }
            for (name, _) in &relations {
                compare(name, "subscriber", self.seen.get(name), expected)?;
            }
        }
        if worker.index() == owner.0 {
            for (index, (name, _)) in relations.iter().enumerate() {
                let snapshot = self.snapshots.remove(&token(index)).map(|(_, contents)| contents);
                compare(name, "snapshot", snapshot.as_ref(), expected)?;
            }
        }
        Ok(())
    }

    fn apply(&mut self, worker: &mut timely::worker::Worker, time: Time, command: &Command) {
        match command {
            Command::Register(plan) => {
                let registered = self.engine.register(worker, time, plan).expect("a valid plan");
                for relation in registered.relations {
                    // What is there at `time` comes as a change too, by subscribing before it.
                    self.engine.interest(relation.id, WorkerIndex(0), time - 1);
                    self.seen.insert(relation.name.clone(), Contents::new());
                }
            }
            Command::Unregister(name) => {
                let gone = self.engine.unregister(worker, time, name).expect("a known module");
                self.wishes.retain(|_, (relation, ..)| !gone.contains(relation));
            }
            Command::Tick(now) => {
                self.engine.tick(worker, time, *now).expect("a later time");
            }
            Command::Rank(wish, relation, ranking) => {
                let relation = self.engine.relation(relation).expect("a known relation").id;
                let target = self.engine.rank(worker, time, relation, ranking).expect("a known relation");
                let known = self.wishes.values().find(|(.., other)| *other == target);
                assert!(known.is_none_or(|(of, like, _)| *of == relation && like == ranking));
                // Who comes late has seen what others have: the harness keeps no snapshots.
                let seen = self.wishes.iter().find(|(_, (.., other))| *other == target);
                let seen = seen.and_then(|(other, _)| self.seen.get(&wish_name(*other)).cloned());
                self.engine.interest(target, WorkerIndex(0), time - 1);
                self.seen.insert(wish_name(*wish), seen.unwrap_or_default());
                self.wishes.insert(*wish, (relation, ranking.clone(), target));
            }
            Command::Unrank(wish) => {
                let (relation, ranking, target) = self.wishes.remove(wish).expect("a known wish");
                self.engine.disinterest(target, WorkerIndex(0));
                assert_eq!(self.engine.unrank(worker, relation, &ranking), Some(target));
            }
            Command::Transact { owner, relation, delete, insert } => {
                let relation = self.engine.relation(relation).expect("a known relation");
                self.engine.touch(relation.id, time);
                if worker.index() == owner % worker.peers() {
                    let width = relation.columns.len();
                    self.engine.introduce(relation.id, time, &buffer(width, delete), &buffer(width, insert));
                }
            }
        }
    }
}

fn merge(contents: &mut Contents, changes: &dataflow_engine::Changes) {
    for (row, diff) in changes.rows.iter().zip(&changes.diffs) {
        let copies = contents.entry(row.to_vec()).or_default();
        *copies += diff;
        if *copies == 0 {
            contents.remove(row);
        }
    }
}

fn compare(
    name: &str,
    who: &str,
    seen: Option<&Contents>,
    expected: &BTreeMap<String, Contents>,
) -> Result<(), String> {
    let empty = Contents::new();
    let (seen, expected) = (seen.unwrap_or(&empty), expected.get(name).unwrap_or(&empty));
    if seen == expected { Ok(()) } else { Err(format!("{who} of {name}: {seen:?} instead of {expected:?}")) }
}

/// A small deterministic generator of numbers; tests print its seed.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

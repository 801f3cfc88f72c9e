//! Sweeps of the dictionary while texts come and go: after each time that is waited for every relation, as texts, equal to
//! evaluation from scratch, on one, two and three workers; and in the end little is left.

#![allow(clippy::print_stdout, reason = "seeds are printed")]

#[allow(dead_code, unreachable_pub, reason = "shared by tests, not a crate")]
mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use common::Random;
use common::plans::{N, PlanBuilder, call, cols, number};
use dataflow_engine::{Changes, EmitBudget, Engine};
use dataflow_protocol::dictionary;
use dataflow_protocol::dictionary::sweep::{self, Grace, Pin};
use dataflow_protocol::ids::{RelationId, Time, WorkerIndex};
use dataflow_protocol::order::{By, Ranking};
use dataflow_protocol::plan::{AggregateFunc, Expr, Func, InputMode, Node, Plan, Value};
use dataflow_protocol::rows::RowBuf;
use dataflow_protocol::value::{Type, Word, from_number, to_number};
use timely::worker::Worker;

const S: Type = Type::Symbol;
const ADDED: &str = ", a text that every row of it has";
const LATELY: &str = ", lately";

/// Sweeps are the whole process's: tests take turns.
static TURN: Mutex<()> = Mutex::new(());

/// `note` and `link`, inputs; `loud`, notes with a longer text; `recent`, the loud ones for five ticks, longer still; `last`, the greatest text;
/// `path`, the closure of `link`.
fn plan() -> Plan {
    let mut plan = PlanBuilder::new("texts");
    plan.import(0, "now", &[Type::Instant]);
    let note = plan.relation("note", &[N, S], Some(InputMode::Set));
    let link = plan.relation("link", &[S, S], Some(InputMode::Raw));
    let loud = plan.relation("loud", &[N, S], None);
    let recent = plan.relation("recent", &[N, S], None);
    let last = plan.relation("last", &[S], None);
    let path = plan.relation("path", &[S, S], None);
    let [notes, links, louds, paths] = [note, link, loud, path].map(|relation| plan.get(relation));
    let longer = vec![Expr::Col(1), Expr::Const(Value::Symbol(ADDED.into()))];
    let longer = Expr::Call { func: Func::Cat, over: S, args: longer };
    let made = plan.map(notes, Vec::new(), vec![Expr::Col(0), longer]);
    plan.stratum(false, &[(loud, made)]);
    let until = call(Func::Add, vec![Expr::Col(0), number(5)]);
    // What hasn't come yet is nowhere else.
    let later = vec![Expr::Col(1), Expr::Const(Value::Symbol(LATELY.into()))];
    let later = Expr::Call { func: Func::Cat, over: S, args: later };
    let later = plan.map(louds, Vec::new(), vec![Expr::Col(0), later]);
    let window = plan.node(Node::Window { input: later, since: cols(&[0]), until: vec![until] });
    plan.stratum(false, &[(recent, window)]);
    let greatest = plan.reduce(notes, &[], &[(AggregateFunc::Max, Some(1))]);
    plan.stratum(false, &[(last, greatest)]);
    let further = plan.join((paths, &[1]), (links, &[0]), &[0, 3]);
    let all = plan.union(&[links, further]);
    plan.stratum(true, &[(path, all)]);
    plan.0
}

type Texts = Vec<String>;
type Contents = BTreeMap<Texts, i64>;

/// The inputs, and what follows from them.
#[derive(Clone, Default)]
struct Model {
    notes: BTreeSet<(i64, String)>,
    links: BTreeSet<(String, String)>,
    now: i64,
}

impl Model {
    fn contents(&self) -> BTreeMap<&'static str, Contents> {
        let rows = |rows: BTreeSet<Texts>| rows.into_iter().map(|row| (row, 1)).collect::<Contents>();
        let loud: BTreeSet<Texts> =
            self.notes.iter().map(|(k, text)| vec![k.to_string(), format!("{text}{ADDED}")]).collect();
        let recent =
            self.notes.iter().filter(|(k, _)| *k <= self.now && self.now < k + 5).collect::<Vec<_>>();
        let mut path = self.links.clone();
        loop {
            let further: Vec<_> = path
                .iter()
                .flat_map(|(a, b)| {
                    self.links.iter().filter(move |(c, _)| c == b).map(move |(_, d)| (a.clone(), d.clone()))
                })
                .collect();
            let before = path.len();
            path.extend(further);
            if path.len() == before {
                break;
            }
        }
        let pair = |(a, b): &(String, String)| vec![a.clone(), b.clone()];
        let mut by_text: Vec<&Texts> = loud.iter().collect();
        by_text.sort_by_key(|row| (std::cmp::Reverse(row[1].clone()), row[0].parse::<i64>().unwrap()));
        BTreeMap::from([
            ("first", rows(by_text.into_iter().take(3).cloned().collect())),
            ("note", rows(self.notes.iter().map(|(k, text)| vec![k.to_string(), text.clone()]).collect())),
            ("link", rows(self.links.iter().map(pair).collect())),
            (
                "recent",
                rows(
                    recent
                        .into_iter()
                        .map(|(k, t)| vec![k.to_string(), format!("{t}{ADDED}{LATELY}")])
                        .collect(),
                ),
            ),
            ("last", rows(self.notes.iter().map(|(_, text)| vec![text.clone()]).max().into_iter().collect())),
            ("path", rows(path.iter().map(pair).collect())),
            ("loud", rows(loud)),
        ])
    }
}

/// What happens at a time, alike on all workers.
#[derive(Clone, Default)]
struct Turn {
    insert: Model,
    delete: Model,
    /// Whether a sweep begins.
    begin: bool,
    /// Whether that sweep goes on to its end.
    end: bool,
    /// What is there then, if it is waited for.
    expected: Option<BTreeMap<&'static str, Contents>>,
}

/// Texts of which any is in use for some times, then no more.
fn script(random: &mut Random, times: usize) -> Vec<Turn> {
    let mut model = Model::default();
    let mut turns = Vec::new();
    let mut begun = None;
    for time in 0..times {
        let mut turn = Turn::default();
        let text =
            |random: &mut Random| format!("a text of long, number {}", 2 * time as u64 + random.below(12));
        for _ in 0..random.below(5) {
            turn.insert.notes.insert((time as i64 + random.below(4) as i64, text(random)));
        }
        for _ in 0..random.below(3) {
            turn.insert.links.insert((text(random), text(random)));
        }
        let clear = time + 1 == times;
        turn.delete.notes = model.notes.iter().filter(|_| clear || random.below(4) == 0).cloned().collect();
        turn.delete.links = model.links.iter().filter(|_| clear || random.below(3) == 0).cloned().collect();
        if clear {
            turn.insert = Model::default();
        }
        // A `raw` relation counts; this keeps it a set.
        turn.insert.links.retain(|link| turn.delete.links.contains(link) || !model.links.contains(link));
        model.notes.retain(|note| !turn.delete.notes.contains(note));
        model.links.retain(|link| !turn.delete.links.contains(link));
        model.notes.extend(turn.insert.notes.iter().cloned());
        model.links.extend(turn.insert.links.iter().cloned());
        model.now = time as i64;
        turn.expected = (clear || random.below(3) == 0).then(|| model.contents());
        turn.begin = begun.is_none() && random.below(2) == 0;
        turn.end = begun.is_some() && random.below(2) == 0;
        begun = if turn.begin { Some(time) } else { begun.filter(|_| !turn.end) };
        turns.push(turn);
    }
    turns
}

/// What workers know of each other: how many have joined, and have got so far in a sweep, all sweeps counted.
#[derive(Default)]
struct Together {
    joined: AtomicUsize,
    marked: AtomicUsize,
    settled: AtomicUsize,
    dropped: AtomicUsize,
}

struct Replica {
    engine: Engine,
    together: Arc<Together>,
    sweeps: usize,
    /// Worker 0 is to drop what isn't marked.
    dropping: Option<Option<Grace>>,
    /// What the next turn introduces, as if it had been waiting for its place in the order.
    prepared: Option<([RowBuf; 4], Pin)>,
    relations: BTreeMap<&'static str, (RelationId, Vec<Type>)>,
    seen: BTreeMap<&'static str, Contents>,
    snapshots: BTreeMap<u64, (usize, Contents)>,
}

fn texts(row: &[Word], types: &[Type]) -> Texts {
    let text = |(word, ty): (&Word, &Type)| match ty {
        Type::Symbol => {
            dictionary::with_text(*word, str::to_owned).expect("the dictionary knows what a row holds")
        }
        _ => to_number(*word).to_string(),
    };
    row.iter().zip(types).map(text).collect()
}

fn merge(contents: &mut Contents, changes: &Changes, types: &[Type]) {
    for (row, diff) in changes.rows.iter().zip(&changes.diffs) {
        let row = texts(row, types);
        let copies = contents.entry(row.clone()).or_default();
        *copies += diff;
        if *copies == 0 {
            contents.remove(&row);
        }
    }
}

fn notes(of: &Model) -> RowBuf {
    let mut rows = RowBuf::new(2);
    for (k, text) in &of.notes {
        rows.push(&[from_number(*k), dictionary::announced(text.as_str()).unwrap()]);
    }
    rows
}

fn links(of: &Model) -> RowBuf {
    let mut rows = RowBuf::new(2);
    for (from, to) in &of.links {
        rows.push(&[from, to].map(|text| dictionary::announced(text.as_str()).unwrap()));
    }
    rows
}

impl Replica {
    fn new(worker: &mut Worker, together: Arc<Together>) -> Self {
        // A worker that joined when another has begun a sweep already would be an epoch ahead of it for good.
        sweep::join();
        together.joined.fetch_add(1, Ordering::SeqCst);
        while together.joined.load(Ordering::SeqCst) < worker.peers() {
            std::thread::yield_now();
        }
        let mut engine = Engine::new(worker);
        engine.tick(worker, 1, 0).expect("the first");
        let registered = engine.register(worker, 1, &plan()).expect("a valid plan");
        let mut relations = BTreeMap::new();
        for info in registered.relations {
            engine.interest(info.id, WorkerIndex(0), 0);
            let name = ["note", "link", "loud", "recent", "last", "path"]
                .into_iter()
                .find(|name| *name == info.name);
            relations.insert(
                name.expect("known"),
                (info.id, info.columns.iter().map(|column| column.ty).collect()),
            );
        }
        let order = vec![By { column: 1, descending: true }];
        let ranking = Ranking { filter: Vec::new(), order, limit: 3 };
        let first = engine.rank(worker, 1, relations["loud"].0, &ranking).expect("known");
        engine.interest(first, WorkerIndex(0), 0);
        relations.insert("first", (first, vec![N, S]));
        engine.advance(1);
        let (seen, snapshots) = (BTreeMap::new(), BTreeMap::new());
        Replica { engine, together, sweeps: 0, dropping: None, prepared: None, relations, seen, snapshots }
    }

    /// A step, and what goes on besides.
    fn go_on(&mut self, worker: &mut Worker) {
        self.engine.begin_step(Duration::ZERO);
        worker.step_or_park(Some(Duration::from_micros(50)));
        self.engine.work(&EmitBudget { rows: 50, slice_rows: 7 });
        self.engine.mark(3);
        let types = |id| &self.relations.values().find(|(other, _)| *other == id).expect("known").1;
        for step in self.engine.take_steps() {
            let name = self.relations.iter().find(|(_, (id, _))| *id == step.relation).expect("known").0;
            merge(self.seen.entry(name).or_default(), &step.changes, types(step.relation));
        }
        for slice in self.engine.take_slices() {
            let (ends, contents) = self.snapshots.entry(slice.token).or_default();
            *ends += usize::from(slice.end);
            let types = &self.relations.values().nth(slice.token as usize & 0xff).expect("known").1;
            merge(contents, &slice.changes, types);
        }
        let settled = self.together.settled.load(Ordering::SeqCst) == self.sweeps * worker.peers();
        if self.dropping.is_some() && settled {
            let grace = self.dropping.take().flatten().unwrap_or_else(Grace::begin);
            if !grace.is_over() {
                self.dropping = Some(Some(grace));
                return;
            }
            sweep::shards().for_each(|shard| {
                sweep::drop_unmarked(shard, true);
            });
            self.together.dropped.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn wait(&mut self, worker: &mut Worker, until: impl Fn(&Self) -> bool) {
        while !until(self) {
            self.go_on(worker);
        }
    }

    /// Takes in what the turn of `time` introduces, if this worker owns it.
    fn prepare(&mut self, worker: &Worker, time: Time, turn: Option<&Turn>) {
        let owned = turn.filter(|_| worker.index() == time as usize % worker.peers());
        self.prepared = owned.map(|Turn { delete, insert, .. }| {
            let pin = Pin::new();
            ([notes(delete), notes(insert), links(delete), links(insert)], pin)
        });
    }

    fn turn(&mut self, worker: &mut Worker, time: Time, turn: &Turn) {
        let [note, link] = ["note", "link"].map(|name| self.relations[name].0);
        if let Some((rows, _pin)) = self.prepared.take() {
            self.engine.introduce(note, time, &rows[0], &rows[1]);
            self.engine.introduce(link, time, &rows[2], &rows[3]);
        }
        [note, link].into_iter().for_each(|relation| self.engine.touch(relation, time));
        self.engine.tick(worker, time, time as i64 - 2).expect("later");
        if turn.begin {
            let sweeps = self.sweeps;
            self.wait(worker, |this| this.together.dropped.load(Ordering::SeqCst) == sweeps);
            self.engine.end_sweep();
            self.engine.begin_sweep();
            self.sweeps += 1;
        }
        let last = WorkerIndex(worker.peers() - 1);
        let ids: Vec<RelationId> = self.relations.values().map(|(id, _)| *id).collect();
        if turn.expected.is_some() {
            for (index, id) in ids.iter().enumerate() {
                self.engine.snapshot(*id, time, last, time << 8 | index as u64, Vec::new(), None);
            }
        }
        self.engine.advance(time);
        if turn.end {
            while !self.engine.mark(3) {
                self.go_on(worker);
            }
            self.together.marked.fetch_add(1, Ordering::SeqCst);
            let all = self.sweeps * worker.peers();
            self.wait(worker, |this| this.together.marked.load(Ordering::SeqCst) == all);
            self.wait(worker, |this| this.engine.has_settled(time));
            self.engine.end_marking();
            self.together.settled.fetch_add(1, Ordering::SeqCst);
            self.dropping = (worker.index() == 0).then_some(None);
        }
        if let Some(expected) = &turn.expected {
            self.compare(worker, time, &ids, expected);
        }
        self.go_on(worker);
    }

    fn compare(
        &mut self,
        worker: &mut Worker,
        time: Time,
        ids: &[RelationId],
        expected: &BTreeMap<&'static str, Contents>,
    ) {
        let wanted = if worker.index() + 1 == worker.peers() { worker.peers() } else { 0 };
        self.wait(worker, |this| {
            let ends = |index| this.snapshots.get(&(time << 8 | index)).map_or(0, |(ends, _)| *ends);
            let finished =
                |id: &RelationId| this.engine.finished(*id).is_some_and(|finished| finished >= time);
            ids.iter().all(finished) && (0..ids.len() as u64).all(|index| ends(index) == wanted)
        });
        self.go_on(worker);
        for (index, name) in self.relations.keys().enumerate() {
            if worker.index() == 0 {
                let seen = self.seen.get(name).cloned().unwrap_or_default();
                assert_eq!(seen, expected[name], "subscriber of {name} at time {time}");
            }
            if wanted > 0 {
                let (_, seen) = self.snapshots.remove(&(time << 8 | index as u64)).expect("it has arrived");
                assert_eq!(seen, expected[name], "snapshot of {name} at time {time}");
            }
        }
    }
}

fn run(workers: usize, seed: u64) {
    println!("workers {workers}, seed {seed:#x}");
    sweep::new_generation();
    let turns = Arc::new(script(&mut Random(seed), 120));
    let together = Arc::new(Together::default());
    let guards = timely::execute(timely::Config::process(workers), move |worker| {
        let mut replica = Replica::new(worker, Arc::clone(&together));
        replica.prepare(worker, 2, turns.first());
        for (at, turn) in turns.iter().enumerate() {
            replica.turn(worker, at as Time + 2, turn);
            replica.prepare(worker, at as Time + 3, turns.get(at + 1));
        }
        // A last sweep of what is empty.
        let turn =
            |begin, end| Turn { begin, end, expected: Some(Model::default().contents()), ..Turn::default() };
        let (mut time, open) = (turns.len() as Time + 2, turns.iter().filter(|turn| turn.begin).count());
        if turns.iter().filter(|turn| turn.end).count() < open {
            replica.turn(worker, time, &turn(false, true));
            time += 1;
        }
        for (begin, end) in [(true, false), (false, true)] {
            replica.turn(worker, time, &turn(begin, end));
            time += 1;
        }
        let sweeps = replica.sweeps;
        replica.wait(worker, |this| this.together.dropped.load(Ordering::SeqCst) == sweeps);
        sweeps
    });
    let sweeps =
        guards.expect("a cluster").join().into_iter().map(|sweeps| sweeps.expect("no worker panics"));
    assert!(sweeps.min().is_some_and(|sweeps| sweeps > 10), "too few to tell anything");
    // Of some 250 texts, each also in a longer one. What came and went last isn't compacted before something else comes.
    assert!((2..60).contains(&dictionary::len()), "{} are left", dictionary::len());
}

#[test]
fn results_are_as_texts_what_they_should_be_while_what_nothing_holds_is_dropped() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    for workers in [1, 2, 3] {
        for seed in [0x51f1_5ee1_u64, 0x0bad_cafe_1234, 0x7e57_0f0f, 0x1234_5678_9abc] {
            run(workers, seed);
        }
    }
}

/// What is under way when a sweep ends was met before it began: here a transaction that waited, and is introduced late.
#[test]
fn what_is_introduced_in_a_sweep_is_kept_though_it_was_met_before() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    sweep::new_generation();
    let known = timely::execute_directly(|worker| {
        let together = Arc::new(Together::default());
        let mut replica = Replica::new(worker, together);
        let (note, delete) = (replica.relations["note"].0, RowBuf::new(2));
        let mut waiting = RowBuf::new(2);
        waiting.push(&[from_number(1), dictionary::announced("a text that waits for its place").unwrap()]);
        replica.engine.begin_sweep();
        while !replica.engine.mark(3) {}
        replica.engine.advance(2);
        replica.wait(worker, |this| this.engine.has_settled(2));
        // Of a later time than those that are waited for, and not stepped any more before the end.
        replica.engine.touch(note, 3);
        replica.engine.introduce(note, 3, &delete, &waiting);
        replica.engine.advance(3);
        replica.engine.end_marking();
        sweep::shards().for_each(|shard| {
            sweep::drop_unmarked(shard, true);
        });
        replica.wait(worker, |this| this.engine.finished(note).is_some_and(|finished| finished >= 3));
        replica.go_on(worker);
        replica.seen.remove("loud").unwrap_or_default()
    });
    let text = format!("a text that waits for its place{ADDED}");
    assert_eq!(known, Contents::from([(vec!["1".to_owned(), text], 1)]));
}

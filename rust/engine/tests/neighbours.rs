//! A program that works long, never ends or fails, and its neighbours: they go on, and its end leaves nothing behind.
//!
//! Steps are counted, not time: with no time at all an operator does one piece of work a step, and workers step together.

#[allow(dead_code, unreachable_pub, reason = "shared by tests, not a crate")]
mod common;

use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use common::plans::{N, PlanBuilder, call, cols, edges, number};
use dataflow_engine::{EmitBudget, Engine, Failure};
use dataflow_protocol::ids::{RelationId, Time};
use dataflow_protocol::plan::{Func, InputMode, Node, Plan, Value};
use dataflow_protocol::rows::RowBuf;
use timely::worker::Worker;

/// `left` and `right`, inputs, and `none`: all pairs of their rows, each of which is rejected.
fn rejecting() -> Plan {
    let mut plan = PlanBuilder::new("rejecting");
    let left = plan.relation("left", &[N], Some(InputMode::Set));
    let right = plan.relation("right", &[N], Some(InputMode::Set));
    let none = plan.relation("none", &[N, N], None);
    let (lefts, rights) = (plan.get(left), plan.get(right));
    let pairs = plan.node(Node::Join {
        left: lefts,
        right: rights,
        left_key: Vec::new(),
        right_key: Vec::new(),
        filter: vec![call(Func::Ne, cols(&[0, 0]))],
        project: cols(&[0, 1]),
    });
    plan.stratum(false, &[(none, pairs)]);
    plan.0
}

/// Runs `body` on so many workers, which step together by way of `Together::step`.
fn together(workers: usize, body: impl Fn(&mut Worker, &mut Together) + Send + Sync + 'static) {
    let barrier = Arc::new(Barrier::new(workers));
    let guards = timely::execute(timely::Config::process(workers), move |worker| {
        let engine = Engine::new(worker);
        body(worker, &mut Together { engine, barrier: Arc::clone(&barrier) });
    });
    for result in guards.expect("a cluster").join() {
        result.expect("no worker panics");
    }
}

struct Together {
    engine: Engine,
    barrier: Arc<Barrier>,
}

impl Together {
    /// One step of every worker.
    fn step(&mut self, worker: &mut Worker, time: Duration) {
        self.barrier.wait();
        self.engine.begin_step(time);
        worker.step();
        self.engine.work(&EmitBudget::default());
    }

    fn transact(&mut self, worker: &Worker, time: Time, relation: &str, rows: &[&[u64]]) -> RelationId {
        let relation = self.engine.relation(relation).expect("a known relation");
        self.engine.touch(relation.id, time);
        if worker.index() == 0 {
            let (mut insert, delete) =
                (RowBuf::new(relation.columns.len()), RowBuf::new(relation.columns.len()));
            rows.iter().for_each(|row| insert.push(row));
            self.engine.introduce(relation.id, time, &delete, &insert);
        }
        relation.id
    }

    /// A row of `edge` takes effect, whatever else is going on.
    fn others_go_on(&mut self, worker: &mut Worker, time: Time) {
        let edge = self.transact(worker, time, "edge", &[&[time, time]]);
        self.engine.advance(time);
        for _ in 0..100 {
            self.step(worker, Duration::ZERO);
        }
        assert!(self.finished(edge, time), "another program's relation waits");
    }

    fn finished(&self, relation: RelationId, time: Time) -> bool {
        self.engine.finished(relation).is_some_and(|finished| finished >= time)
    }
}

#[test]
fn join_that_finds_nothing_leaves_its_worker_to_others() {
    const ROWS: u64 = 300;
    for workers in [1, 2] {
        together(workers, |worker, all| {
            all.engine.register(worker, 1, &rejecting()).expect("a valid plan");
            all.engine.register(worker, 1, &edges(InputMode::Set)).expect("a valid plan");
            all.engine.advance(1);
            let rows: Vec<[u64; 1]> = (0..ROWS).map(|row| [row]).collect();
            let rows: Vec<&[u64]> = rows.iter().map(|row| &row[..]).collect();
            all.transact(worker, 2, "left", &rows);
            all.transact(worker, 2, "right", &rows);
            all.engine.advance(2);
            let none = all.engine.relation("none").expect("registered").id;
            let mut time = 2;
            for _ in 0..20 {
                time += 1;
                all.others_go_on(worker, time);
                assert!(!all.finished(none, 2), "{ROWS} squared pairs in so few steps");
            }
            assert!(worker.index() != 0 || worker.peers() != 1 || all.engine.pauses() >= 1000);
            // Given time, it gets through.
            for _ in 0..100 {
                all.step(worker, Duration::from_secs(10));
            }
            assert!(all.finished(none, time));
        });
    }
}

/// `many`: each row of the input `few` with the values before a thousand.
fn ranging() -> Plan {
    let mut plan = PlanBuilder::new("ranging");
    let few = plan.relation("few", &[N], Some(InputMode::Set));
    let many = plan.relation("many", &[N, N], None);
    let rows = plan.get(few);
    let range = Node::Range { input: rows, over: N, start: number(0), stop: number(1000), step: None };
    let ranges = plan.node(range);
    plan.stratum(false, &[(many, ranges)]);
    plan.0
}

#[test]
fn ranges_of_many_values_leave_their_worker_to_others() {
    const ROWS: u64 = 40;
    for workers in [1, 2] {
        together(workers, |worker, all| {
            all.engine.register(worker, 1, &ranging()).expect("a valid plan");
            all.engine.register(worker, 1, &edges(InputMode::Set)).expect("a valid plan");
            all.engine.advance(1);
            let rows: Vec<[u64; 1]> = (0..ROWS).map(|row| [row]).collect();
            all.transact(worker, 2, "few", &rows.iter().map(|row| &row[..]).collect::<Vec<_>>());
            all.engine.advance(2);
            let many = all.engine.relation("many").expect("registered").id;
            let mut time = 2;
            for _ in 0..20 {
                time += 1;
                all.others_go_on(worker, time);
                assert!(!all.finished(many, 2), "{ROWS} thousand values in so few steps");
            }
            // Given time, it gets through.
            for _ in 0..1000 {
                all.step(worker, Duration::from_secs(10));
            }
            assert!(all.finished(many, time));
        });
    }
}

/// `triangle`, all found at once from an `edge` of its own.
fn triangles() -> Plan {
    let mut plan = PlanBuilder::new("triangles");
    let edge = plan.relation("edge", &[N, N], Some(InputMode::Set));
    let triangle = plan.relation("triangle", &[N, N, N], None);
    let edges = plan.get(edge);
    let found = plan.multijoin(
        &[(edges, &[0, 1]), (edges, &[1, 2]), (edges, &[0, 2])],
        &[&[&[1, 2]], &[&[0, 2]], &[&[0, 1]]],
        Vec::new(),
        &[0, 1, 2],
    );
    plan.stratum(false, &[(triangle, found)]);
    plan.0
}

#[test]
fn a_multijoin_does_not_hold_what_it_proposes() {
    // Every edge has a hundred candidates for the third corner, of which none is one: a million in all.
    const SIDE: u64 = 100;
    const AT_ONCE: u64 = 1 << 16;
    together(1, |worker, all| {
        all.engine.register(worker, 1, &triangles()).expect("a valid plan");
        all.engine.advance(1);
        let rows: Vec<[u64; 2]> = (0..SIDE * SIDE).map(|at| [at / SIDE, SIDE + at % SIDE]).collect();
        let rows: Vec<&[u64]> = rows.iter().map(|row| &row[..]).collect();
        all.transact(worker, 2, "edge", &rows);
        all.engine.advance(2);
        let triangle = all.engine.relation("triangle").expect("registered").id;
        // There is time enough for all to be proposed in one step. It isn't, since nobody could confirm it before.
        let mut steps = 0;
        while !all.finished(triangle, 2) {
            all.step(worker, Duration::from_secs(3600));
            steps += 1;
            assert!(steps < 10_000, "it gets on");
        }
        let least = SIDE * SIDE * SIDE / AT_ONCE;
        assert!(all.engine.pauses() >= least, "{} pauses in {steps} steps", all.engine.pauses());
    });
}

/// `n`: 0, and with every number the next one.
fn runaway() -> Plan {
    let mut plan = PlanBuilder::new("runaway");
    let n = plan.relation("n", &[N], None);
    let zero = plan.node(Node::Rows { types: vec![N], rows: vec![vec![Value::Number(0)]] });
    let ns = plan.get(n);
    let next = plan.map(ns, Vec::new(), vec![call(Func::Add, [cols(&[0]), vec![number(1)]].concat())]);
    let all = plan.union(&[zero, next]);
    plan.stratum(true, &[(n, all)]);
    plan.0
}

/// `copy`, which reads relation `id`.
fn reader(id: u64, name: &str) -> Plan {
    let mut plan = PlanBuilder::new("reader");
    let read = plan.import(id, name, &[N]);
    let copy = plan.relation("copy", &[N], None);
    let rows = plan.get(read);
    plan.stratum(false, &[(copy, rows)]);
    plan.0
}

#[test]
fn runaway_recursion_tells_where_it_is_and_leaves_with_its_readers() {
    for workers in [1, 2] {
        together(workers, |worker, all| {
            all.engine.register(worker, 1, &edges(InputMode::Set)).expect("a valid plan");
            let before = worker.installed_dataflows().len();
            all.engine.register(worker, 1, &runaway()).expect("a valid plan");
            all.engine.advance(1);
            let n = all.engine.relation("n").expect("registered").id;
            all.engine.register(worker, 2, &reader(n.0, "n")).expect("a valid plan");
            all.engine.advance(2);
            let mut last = 0;
            for time in 3..6 {
                all.others_go_on(worker, time);
                let figures = all.engine.figures("runaway").expect("it is there");
                assert!(figures.iteration > last, "iteration {} after {last}", figures.iteration);
                assert_eq!(figures.relation.as_deref(), Some("n"));
                last = figures.iteration;
            }
            assert_eq!(all.engine.unfinished("runaway").as_deref(), Some("n"));
            assert!(all.engine.module_finished("runaway") < all.engine.module_touched("runaway"));
            assert!(all.engine.figures("runaway").is_some_and(|figures| figures.bytes > 0));

            assert!(all.engine.interrupt(worker, "runaway", 0).is_empty(), "another one of that name");
            let gone = all.engine.interrupt(worker, "runaway", 1);
            assert_eq!(gone.iter().map(|info| &info.name[..]).collect::<Vec<_>>(), ["reader", "runaway"]);
            assert!(all.engine.interrupt(worker, "runaway", 1).is_empty(), "it is gone");
            assert!(all.engine.relation("n").is_none() && all.engine.figures("reader").is_none());
            assert_eq!(worker.installed_dataflows().len(), before);
            all.engine.advance(6);
            (7..10).for_each(|time| all.others_go_on(worker, time));
            // The name is free again.
            all.engine.register(worker, 10, &runaway()).expect("a valid plan");
            all.engine.advance(10);
            all.others_go_on(worker, 11);
            assert_eq!(all.engine.interrupt(worker, "runaway", 10).len(), 1);
        });
    }
}

#[test]
fn rows_that_wait_to_be_arranged_are_counted() {
    together(1, |worker, all| {
        let mut plan = rejecting();
        let Some(Node::Join { filter, .. }) = plan.nodes.last_mut() else { unreachable!("it is the last") };
        filter.clear();
        all.engine.register(worker, 1, &plan).expect("a valid plan");
        let rows: Vec<[u64; 1]> = (0..100).map(|row| [row]).collect();
        let rows: Vec<&[u64]> = rows.iter().map(|row| &row[..]).collect();
        all.engine.advance(1);
        all.transact(worker, 2, "left", &rows);
        all.transact(worker, 2, "right", &rows);
        all.engine.advance(2);
        for _ in 0..3000 {
            all.step(worker, Duration::ZERO);
        }
        let figures = all.engine.figures("rejecting").expect("it is there");
        assert!((500..10_000).contains(&figures.rows), "{figures:?}");
        assert!(figures.bytes >= 16 * figures.rows, "{figures:?}");
        assert_eq!(figures.iteration, 0);
        for _ in 0..100 {
            all.step(worker, Duration::from_secs(10));
        }
        let figures = all.engine.figures("rejecting").expect("it is there");
        assert!(figures.rows >= 10_000, "{figures:?}");
    });
}

/// `bad`, derived from the input `seed` by a projection or a join; what is evaluated there panics.
fn failing(joins: bool) -> Plan {
    let mut plan = PlanBuilder::new("fault:expression");
    let seed = plan.relation("seed", &[N], Some(InputMode::Set));
    let bad = plan.relation("bad", &[N], None);
    let seeds = plan.get(seed);
    let rows = if joins {
        plan.join((seeds, &[0]), (seeds, &[0]), &[0])
    } else {
        plan.map(seeds, vec![call(Func::Ne, vec![cols(&[0])[0].clone(), number(7)])], cols(&[0]))
    };
    plan.stratum(false, &[(bad, rows)]);
    plan.0
}

#[test]
fn panic_in_an_expression_stays_in_its_program() {
    for (workers, joins) in [(1, false), (2, false), (1, true), (2, true)] {
        let failures = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&failures);
        together(workers, move |worker, all| {
            all.engine.enable_faults();
            all.engine.register(worker, 1, &edges(InputMode::Set)).expect("a valid plan");
            let before = worker.installed_dataflows().len();
            all.engine.register(worker, 1, &failing(joins)).expect("a valid plan");
            all.engine.advance(1);
            let rows: Vec<[u64; 1]> = (0..40).map(|row| [row]).collect();
            all.transact(worker, 2, "seed", &rows.iter().map(|row| &row[..]).collect::<Vec<_>>());
            all.engine.advance(2);
            (3..6).for_each(|time| all.others_go_on(worker, time));
            let bad = all.engine.relation("bad").expect("registered").id;
            assert!(!all.finished(bad, 2), "half of a result would be seen");
            let failure = all.engine.figures("fault:expression").and_then(|figures| figures.failure);
            noted.lock().expect("not poisoned").extend(failure);
            assert_eq!(all.engine.interrupt(worker, "fault:expression", 1).len(), 1);
            assert_eq!(worker.installed_dataflows().len(), before);
            all.engine.advance(6);
            (7..10).for_each(|time| all.others_go_on(worker, time));
        });
        let failures = failures.lock().expect("not poisoned");
        assert!(!failures.is_empty());
        let operator = if joins { "a join" } else { "Rows" };
        let expected = Failure::Panicked(format!("{operator} panicked: a fault was asked for: Expression"));
        assert!(failures.iter().all(|failure| *failure == expected), "{failures:?}");
    }
}

#[test]
fn faults_are_for_those_who_enabled_them() {
    together(1, |worker, all| {
        all.engine.register(worker, 1, &failing(false)).expect("a valid plan");
        all.engine.advance(1);
        all.transact(worker, 2, "seed", &[&[1]]);
        all.engine.advance(2);
        for _ in 0..100 {
            all.step(worker, Duration::ZERO);
        }
        let bad = all.engine.relation("bad").expect("registered").id;
        assert!(all.finished(bad, 2));
    });
}

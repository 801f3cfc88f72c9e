//! Rows that come and go by the clock, after each time equal to evaluation from scratch: on one, two and three workers, with
//! inserts and deletes, ticks of their own times and in the middle of transactions', programs that come late and go; and
//! that a tick looks at what is due alone.

#![allow(clippy::print_stdout, reason = "seeds are printed")]

#[allow(dead_code, unreachable_pub, reason = "shared by tests, not a crate")]
mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::plans::{N, PlanBuilder, call, cols, edges, number};
use common::{Command, Random, check};
use dataflow_engine::{Earlier, EmitBudget, Engine};
use dataflow_protocol::plan::{AggregateFunc, Expr, Func, InputMode, Node, Plan};
use dataflow_protocol::rows::RowBuf;
use dataflow_protocol::value::{Type, from_number};

fn micros(column: usize) -> Expr {
    Expr::Call { func: Func::ToNumber, over: Type::Instant, args: vec![Expr::Col(column)] }
}

/// Of `edge(x, y)`: rows since x until x + y; rows until y / x, which can fail; and how many rows there are by the
/// clock's own relation, joined.
fn windows() -> Plan {
    let mut plan = PlanBuilder::new("windows");
    let edge = plan.import(1, "edge", &[N, N]);
    let now = plan.import(0, "now", &[Type::Instant]);
    let during = plan.relation("during", &[N, N], None);
    let before = plan.relation("before", &[N, N], None);
    let joined = plan.relation("joined", &[N, N], None);
    let count = plan.relation("count", &[N], None);
    let (edges, clock) = (plan.get(edge), plan.get(now));
    let sum = call(Func::Add, cols(&[0, 1]));
    let while_ = plan.node(Node::Window { input: edges, since: cols(&[0]), until: vec![sum] });
    plan.stratum(false, &[(during, while_)]);
    let quotient = call(Func::Div, vec![Expr::Col(1), Expr::Col(0)]);
    let until = plan.node(Node::Window { input: edges, since: vec![], until: vec![quotient] });
    plan.stratum(false, &[(before, until)]);
    let pairs = plan.node(Node::Join {
        left: edges,
        right: clock,
        left_key: vec![],
        right_key: vec![],
        filter: vec![call(Func::Le, vec![Expr::Col(0), micros(2)])],
        project: cols(&[0, 1]),
    });
    plan.stratum(false, &[(joined, pairs)]);
    let reduced = plan.reduce(while_, &[], &[(AggregateFunc::Count, None)]);
    plan.stratum(false, &[(count, reduced)]);
    plan.0
}

#[test]
fn rows_come_and_go_by_the_clock() {
    for mode in [InputMode::Set, InputMode::Raw] {
        for workers in [1, 2, 3] {
            for seed in [0x7157_0c1c_u64, 0x00dd_ba11] {
                println!("workers {workers}, seed {seed:#x}");
                let mut random = Random(seed);
                let mut script = vec![vec![Command::Register(edges(mode.clone()))]];
                let mut now = 0;
                let mut there: Vec<Vec<u64>> = Vec::new();
                for at in 1..40 {
                    let mut commands = Vec::new();
                    if random.below(3) > 0 {
                        let pair = |random: &mut Random| {
                            let from = random.below(20) as i64 - 2;
                            vec![from_number(from), from_number(random.below(12) as i64 - 1)]
                        };
                        let insert: Vec<_> = (0..random.below(5)).map(|_| pair(&mut random)).collect();
                        let gone = random.below(4).min(there.len() as u64);
                        let delete: Vec<_> = (0..gone)
                            .map(|_| there.swap_remove(random.below(there.len() as u64) as usize))
                            .collect();
                        there.extend(insert.iter().cloned());
                        let owner = random.below(3) as usize;
                        commands.push(Command::Transact { owner, relation: "edge".into(), delete, insert });
                    }
                    if at > 2 && random.below(2) == 0 {
                        now += random.below(4) as i64;
                        commands.push(Command::Tick(now));
                    }
                    match at {
                        6 | 24 => commands.push(Command::Register(windows())),
                        18 => commands.push(Command::Unregister("windows".into())),
                        _ => {}
                    }
                    script.push(commands);
                }
                check(workers, script);
            }
        }
    }
}

#[test]
fn a_tick_looks_at_what_is_due_alone_and_the_clock_goes_with_its_last_reader() {
    const ROWS: u64 = 10_000;
    for workers in [1, 2] {
        let failure = Arc::new(Mutex::new(None));
        let (failed, looked_at) = (Arc::clone(&failure), Arc::new(Mutex::new([0; 4])));
        let sums = Arc::clone(&looked_at);
        let guards = timely::execute(timely::Config::process(workers), move |worker| {
            let mut engine = Engine::new(worker);
            let base = engine.register(worker, 0, &edges(InputMode::Set)).expect("a valid plan");
            let edge = base.relations[0].id;
            let counts = |worker: &timely::worker::Worker, engine: &Engine| {
                (worker.installed_dataflows().len(), engine.stats().arrangements, engine.has_clock())
            };
            let before = counts(worker, &engine);
            let settle = |worker: &mut timely::worker::Worker, engine: &mut Engine, time| {
                engine.advance(time);
                let relations = engine.relations();
                while relations.iter().any(|r| engine.finished(r.id).is_none_or(|finished| finished < time)) {
                    worker.step_or_park(Some(Duration::from_millis(1)));
                    engine.work(&EmitBudget::default());
                }
            };
            engine.touch(edge, 1);
            if worker.index() == 0 {
                let mut rows = RowBuf::new(2);
                (0..ROWS).for_each(|n| rows.push(&[from_number(1000 + n as i64), from_number(1_000_000)]));
                engine.introduce(edge, 1, &RowBuf::new(2), &rows);
            }
            engine.tick(worker, 1, 0).expect("the first");
            settle(worker, &mut engine, 1);
            let mut plan = PlanBuilder::new("due");
            let edge_ = plan.import(edge.0, "edge", &[N, N]);
            plan.import(0, "now", &[Type::Instant]);
            let due = plan.relation("due", &[N, N], None);
            let rows = plan.get(edge_);
            let sum = call(Func::Add, cols(&[0, 1]));
            let window =
                plan.node(Node::Window { input: rows, since: cols(&[0]), until: vec![sum, number(1 << 60)] });
            plan.stratum(false, &[(due, window)]);
            engine.register(worker, 2, &plan.0).expect("a valid plan");
            settle(worker, &mut engine, 2);
            let mut found = vec![engine.window_rows()];
            for (time, now) in [(3, 999), (4, 1002), (5, 1002 + 1_000_000)] {
                let moved = engine.tick(worker, time, now);
                settle(worker, &mut engine, time);
                found.push(engine.window_rows() - found.iter().sum::<u64>());
                if moved != Ok(true) || engine.tick(worker, time, now) != Ok(false) {
                    *failed.lock().expect("not poisoned") = Some(format!("tick {now}: {moved:?}"));
                }
            }
            let back = engine.tick(worker, 6, 5);
            for (sum, found) in sums.lock().expect("not poisoned").iter_mut().zip(&found) {
                *sum += found;
            }
            engine.unregister(worker, 7, "due").expect("known");
            settle(worker, &mut engine, 7);
            let after = counts(worker, &engine);
            if after != before || back != Err(Earlier { now: 1_001_002 }) {
                *failed.lock().expect("not poisoned") = Some(format!("{before:?} {after:?} {back:?}"));
            }
        });
        drop(guards.expect("a cluster"));
        assert_eq!(failure.lock().expect("not poisoned").take(), None);
        // All rows once; none; those of 1000 to 1002; these again as they go, and all others as they come.
        assert_eq!(*looked_at.lock().expect("not poisoned"), [ROWS, 0, 3, ROWS]);
    }
}

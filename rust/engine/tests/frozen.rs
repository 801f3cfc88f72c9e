//! Frozen programs: worked out once, from what their imports hold when they are registered, and as they were ever after,
//! on one worker and on several; programs that read them stay as they are, too.

#![allow(clippy::print_stdout, reason = "seeds are printed")]

#[allow(dead_code, unreachable_pub, reason = "shared by tests, not a crate")]
mod common;

use std::collections::BTreeSet;

use common::plans::{N, PlanBuilder, aggregated, call, cols, edges, lengths, number, shortest, square};
use common::{Command, Random, check};
use dataflow_engine::{EmitBudget, Engine, EngineError};
use dataflow_protocol::ids::WorkerIndex;
use dataflow_protocol::plan::{AggregateFunc, CLOCK, Expr, Func, Import, InputMode, Node, Plan};
use dataflow_protocol::rows::RowBuf;
use dataflow_protocol::value::{Type, from_number};

/// Registers frozen programs in the middle of random changes to `edge` that go on afterwards.
fn sweep(mode: InputMode, plans: &[(usize, Plan)]) {
    for workers in [1, 2, 3] {
        for seed in [0x51ed_270b_u64, 0x2545_f491_4f6c] {
            println!("workers {workers}, seed {seed:#x}");
            let mut random = Random(seed);
            let mut script: Vec<Vec<Command>> = vec![vec![Command::Register(edges(mode.clone()))]];
            script.resize_with(20, Vec::new);
            for commands in &mut script[1..] {
                let mut rows = |below: u64| -> Vec<Vec<u64>> {
                    let mut value = || from_number(random.below(8) as i64);
                    (0..below).map(|_| vec![value(), value()]).collect()
                };
                let (delete, insert) = (rows(1), rows(3));
                // What isn't there can't be taken out of a `raw` relation without leaving less than nothing.
                let delete = if mode == InputMode::Raw { Vec::new() } else { delete };
                commands.push(Command::Transact { owner: 1, relation: "edge".into(), delete, insert });
            }
            // For a while nothing is written: the input stands still at an earlier time than that of registering.
            script[7].clear();
            script[8].clear();
            for (at, plan) in plans {
                script[*at].push(Command::Register(plan.clone()));
            }
            check(workers, script);
        }
    }
}

fn freeze(mut plan: PlanBuilder) -> Plan {
    plan.0.frozen = true;
    plan.0
}

/// `path`, the closure of the imported `edge`, linear or not, and what follows from it: pairs without a path, how many there
/// are from a node.
fn closure(linear: bool) -> Plan {
    let mut plan = PlanBuilder::new("frozen");
    let edge = plan.import(1, "edge", &[N, N]);
    let path = plan.relation("path", &[N, N], None);
    let apart = plan.relation("apart", &[N, N], None);
    let degree = plan.relation("degree", &[N, N], None);
    let (edges_, paths) = (plan.get(edge), plan.get(path));
    let longer = plan.join((paths, &[1]), (if linear { edges_ } else { paths }, &[0]), &[0, 3]);
    let all = plan.union(&[edges_, longer]);
    plan.stratum(true, &[(path, all)]);
    let pairs = plan.join((edges_, &[]), (edges_, &[]), &[0, 3]);
    let none = plan.antijoin((pairs, &[0, 1]), (paths, &[0, 1]));
    plan.stratum(false, &[(apart, none)]);
    let counted = plan.reduce(paths, &[0], &[(AggregateFunc::Count, None)]);
    plan.stratum(false, &[(degree, counted)]);
    freeze(plan)
}

#[test]
fn recursion_over_what_is_there_stays_as_it_is() {
    for mode in [InputMode::Set, InputMode::Raw, InputMode::Upsert(vec![0])] {
        sweep(mode, &[(8, closure(true))]);
    }
    sweep(InputMode::Set, &[(8, closure(false))]);
    sweep(InputMode::Set, &[(12, closure(false))]);
}

/// A negation within the recursion, below it and of part of the columns; `Distinct` in the middle of one.
#[test]
fn negation_of_what_does_not_iterate() {
    let mut plan = PlanBuilder::new("open");
    let edge = plan.import(1, "edge", &[N, N]);
    let (even, odd) = (plan.relation("even", &[N], None), plan.relation("odd", &[N], None));
    let edges_ = plan.get(edge);
    let origin = plan.map(edges_, vec![call(Func::Lt, vec![Expr::Col(0), number(2)])], cols(&[0]));
    let (evens, odds) = (plan.get(even), plan.get(odd));
    let loops = plan.map(edges_, vec![call(Func::Lt, cols(&[1, 0]))], cols(&[0, 1]));
    let to_odd = plan.join((evens, &[0]), (edges_, &[0]), &[2]);
    let to_odd = plan.node(Node::Distinct { input: to_odd });
    let open = plan.antijoin((to_odd, &[0]), (loops, &[1]));
    let to_even = plan.join((odds, &[0]), (edges_, &[0]), &[2]);
    let all_even = plan.union(&[origin, to_even]);
    plan.stratum(true, &[(even, all_even), (odd, open)]);
    sweep(InputMode::Set, &[(9, freeze(plan))]);
}

/// Lengths of paths, of which each round keeps the least: rounds take back what earlier ones found.
#[test]
fn recursion_that_takes_rows_away() {
    let mut plan = PlanBuilder::new("shortest");
    let edge = plan.import(1, "edge", &[N, N]);
    let path = plan.relation("path", &[N, N, N], None);
    let (edges_, paths) = (plan.get(edge), plan.get(path));
    let all = lengths(&mut plan, edges_, paths, square);
    let least = shortest(&mut plan, all);
    plan.stratum(true, &[(path, least)]);
    sweep(InputMode::Set, &[(8, freeze(plan))]);
}

#[test]
fn recursion_that_aggregates_its_own_rows() {
    let mut plan = PlanBuilder::new("aggregated");
    let edge = plan.import(1, "edge", &[N, N]);
    aggregated(&mut plan, edge);
    sweep(InputMode::Set, &[(8, freeze(plan))]);
}

#[test]
fn triangles_at_once_and_a_program_that_reads_them() {
    let mut plan = PlanBuilder::new("triangles");
    let edge = plan.import(1, "edge", &[N, N]);
    let triangle = plan.relation("triangle", &[N, N, N], None);
    let edges_ = plan.get(edge);
    let inputs: [(usize, &[usize]); 3] = [(edges_, &[0, 1]), (edges_, &[1, 2]), (edges_, &[0, 2])];
    let paths: [&[&[usize]]; 3] = [&[&[1, 2]], &[&[0, 2]], &[&[0, 1]]];
    let found = plan.multijoin(&inputs, &paths, Vec::new(), &[0, 1, 2]);
    plan.stratum(false, &[(triangle, found)]);
    // This one isn't frozen: it follows the edges, and joins them with triangles that stand still.
    let mut reader = PlanBuilder::new("reader");
    let edge = reader.import(1, "edge", &[N, N]);
    let triangle = reader.import(2, "triangle", &[N, N, N]);
    let beyond = reader.relation("beyond", &[N, N], None);
    let (edges_, triangles) = (reader.get(edge), reader.get(triangle));
    let joined = reader.join((triangles, &[2]), (edges_, &[0]), &[0, 4]);
    reader.stratum(false, &[(beyond, joined)]);
    sweep(InputMode::Set, &[(6, freeze(plan)), (12, reader.0)]);
}

/// Rows of later times are left out although one batch has them together with the others.
#[test]
fn what_comes_later_is_not_seen_even_before_anything_is_computed() {
    let contents = timely::execute_directly(|worker| {
        let mut engine = Engine::new(worker);
        let edge = engine.register(worker, 1, &edges(InputMode::Set)).expect("a plan").relations[0].id;
        engine.advance(1);
        let pair = |a: i64, b: i64| {
            let mut rows = RowBuf::new(2);
            rows.push(&[from_number(a), from_number(b)]);
            rows
        };
        let none = RowBuf::new(2);
        let write = |engine: &mut Engine, time, delete: &RowBuf, insert: &RowBuf| {
            engine.touch(edge, time);
            engine.introduce(edge, time, delete, insert);
            engine.advance(time);
        };
        write(&mut engine, 2, &none, &pair(1, 2));
        let registered = engine.register(worker, 3, &closure(true)).expect("a plan");
        let path =
            registered.relations.iter().find(|relation| relation.name == "path").expect("a relation").id;
        engine.interest(path, WorkerIndex(0), 0);
        engine.advance(3);
        // No step has been made: all of this comes to the input's arrangement at once.
        write(&mut engine, 4, &pair(1, 2), &pair(2, 3));
        write(&mut engine, 5, &none, &pair(3, 4));
        let mut contents = BTreeSet::new();
        while engine.finished(path) != Some(5) {
            worker.step();
            engine.work(&EmitBudget::default());
            for step in engine.take_steps() {
                contents.extend(
                    step.changes.rows.iter().zip(step.changes.diffs).map(|(row, diff)| (row.to_vec(), diff)),
                );
            }
        }
        contents
    });
    assert_eq!(contents, BTreeSet::from([(vec![from_number(1), from_number(2)], 1)]));
}

#[test]
fn frozen_programs_have_neither_inputs_nor_the_clock() {
    timely::execute_directly(|worker| {
        let mut engine = Engine::new(worker);
        let mut plan = edges(InputMode::Set);
        plan.frozen = true;
        assert!(matches!(engine.register(worker, 1, &plan), Err(EngineError::Invalid(_))));
        let mut plan = closure(true);
        plan.imports = vec![Import { relation: CLOCK, name: "now".into(), types: vec![Type::Instant] }];
        assert!(matches!(engine.register(worker, 1, &plan), Err(EngineError::Invalid(_))));
    });
}

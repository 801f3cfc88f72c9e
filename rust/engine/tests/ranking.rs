//! First rows in an order, after each time equal to those of the sorted relation: on one, two and three workers, of sets
//! and multisets, of inputs and derived relations, wished for early, late, twice, and no longer.

#![allow(clippy::print_stdout, reason = "seeds are printed")]

#[allow(dead_code, unreachable_pub, reason = "shared by tests, not a crate")]
mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::plans::{closure, edges};
use common::{Command, Random, check, rank};
use dataflow_engine::{EmitBudget, Engine};
use dataflow_protocol::ids::WorkerIndex;
use dataflow_protocol::order::{By, Ranking};
use dataflow_protocol::plan::InputMode;
use dataflow_protocol::rows::RowBuf;
use dataflow_protocol::value::from_number;

fn by(column: usize, descending: bool) -> By {
    By { column, descending }
}

fn ranking(order: &[By], limit: u64) -> Ranking {
    Ranking { filter: Vec::new(), order: order.to_vec(), limit }
}

fn churn(random: &mut Random, times: usize, bound: u64) -> Vec<Vec<Command>> {
    let pair = |random: &mut Random| {
        vec![from_number(random.below(bound) as i64), from_number(random.below(bound) as i64)]
    };
    let transaction = |random: &mut Random| Command::Transact {
        owner: random.below(3) as usize,
        relation: "edge".into(),
        delete: (0..random.below(6)).map(|_| pair(random)).collect(),
        insert: (0..random.below(6)).map(|_| pair(random)).collect(),
    };
    (0..times).map(|_| (0..random.below(4)).map(|_| transaction(random)).collect()).collect()
}

/// Wishes come and go amid churn, equal ones among them.
fn sweep(plan: &dataflow_protocol::plan::Plan, relation: &str, bound: u64) {
    for workers in [1, 2, 3] {
        for seed in [0x51f1_5ee1_u64, 0x0bad_cafe_1234] {
            println!("workers {workers}, seed {seed:#x}");
            let mut random = Random(seed);
            let mut script = churn(&mut random, 30, bound);
            script[0] = vec![Command::Register(plan.clone())];
            let rank = |wish, ranking| Command::Rank(wish, relation.to_owned(), ranking);
            let filtered = Ranking { filter: vec![(0, from_number(1))], order: vec![by(1, true)], limit: 2 };
            script[1].push(rank(1, ranking(&[by(1, true)], 3)));
            script[4].push(rank(2, ranking(&[by(1, false), by(0, true)], 1)));
            script[6].push(rank(3, filtered));
            script[9].push(rank(4, ranking(&[by(1, true)], 3)));
            script[12].extend([Command::Unrank(1), rank(5, ranking(&[], 7))]);
            script[16].push(rank(6, ranking(&[by(0, true)], 1000)));
            script[20].extend([Command::Unrank(4), Command::Unrank(2), rank(7, ranking(&[by(1, true)], 3))]);
            script[24].extend([Command::Unrank(7), rank(8, ranking(&[by(1, true)], 0))]);
            check(workers, script);
        }
    }
}

#[test]
fn the_first_rows_of_inputs_follow_inserts_and_deletes() {
    sweep(&edges(InputMode::Set), "edge", 5);
    sweep(&edges(InputMode::Upsert(vec![0])), "edge", 6);
}

#[test]
fn copies_count_and_fewer_than_none_dont() {
    sweep(&edges(InputMode::Raw), "edge", 3);
}

#[test]
fn the_first_rows_of_derived_relations_follow() {
    sweep(&closure(true), "path", 7);
}

#[test]
fn they_go_with_their_relation() {
    for workers in [1, 2] {
        let mut script = churn(&mut Random(7), 8, 4);
        script[0] = vec![Command::Register(edges(InputMode::Set))];
        script[3].push(Command::Rank(1, "edge".into(), ranking(&[by(0, true)], 2)));
        script.push(vec![Command::Unregister("edges".into())]);
        script.push(vec![Command::Register(edges(InputMode::Set))]);
        script.push(vec![Command::Rank(1, "edge".into(), ranking(&[by(0, true)], 2))]);
        script.extend(churn(&mut Random(8), 4, 4));
        script.iter_mut().for_each(|commands| commands.sort_by_key(|command| rank(command, workers)));
        check(workers, script);
    }
}

/// On every worker: what is installed before, during and after two equal wishes and one other.
#[test]
fn equal_wishes_share_and_the_last_one_leaves_nothing() {
    for workers in [1, 2] {
        let failure = Arc::new(Mutex::new(None));
        let failed = Arc::clone(&failure);
        let guards = timely::execute(timely::Config::process(workers), move |worker| {
            let mut engine = Engine::new(worker);
            let registered = engine.register(worker, 0, &edges(InputMode::Set)).expect("a valid plan");
            let edge = registered.relations[0].id;
            engine.touch(edge, 1);
            if worker.index() == 0 {
                let mut rows = RowBuf::new(2);
                (0..1000).for_each(|n| rows.push(&[n, n * 7 % 1000]));
                engine.introduce(edge, 1, &RowBuf::new(2), &rows);
            }
            engine.advance(1);
            let installed = |worker: &timely::worker::Worker, engine: &Engine| {
                (worker.installed_dataflows().len(), engine.stats().arrangements, engine.rankings())
            };
            let (dataflows, arrangements, _) = installed(worker, &engine);
            let (one, other) = (ranking(&[by(1, true)], 3), ranking(&[by(1, true)], 4));
            let mut found = Vec::new();
            let settle = |worker: &mut timely::worker::Worker, engine: &mut Engine, time| {
                engine.advance(time);
                while engine.finished(edge).is_none_or(|finished| finished < time) {
                    worker.step_or_park(Some(Duration::from_millis(1)));
                    engine.work(&EmitBudget::default());
                }
            };
            for (time, wish) in [(2, &one), (3, &one), (4, &other)] {
                let target = engine.rank(worker, time, edge, wish).expect("known");
                engine.interest(target, WorkerIndex(0), time);
                settle(worker, &mut engine, time);
                found.push((target, installed(worker, &engine)));
            }
            let shared = found[0].0 == found[1].0 && found[1].0 != found[2].0;
            let grown =
                found.iter().map(|(_, counts)| (counts.0 - dataflows, counts.1 - arrangements, counts.2));
            let grown: Vec<_> = grown.collect();
            for (time, wish) in [(5, &one), (6, &other), (7, &one)] {
                engine.unrank(worker, edge, wish);
                settle(worker, &mut engine, time);
            }
            let left = installed(worker, &engine);
            let stats = engine.relation_stats();
            if !shared
                || grown != [(1, 1, 1), (1, 1, 1), (2, 2, 2)]
                || left != (dataflows, arrangements, 0)
                || stats.len() != 1
            {
                *failed.lock().expect("not poisoned") =
                    Some(format!("{shared} {grown:?} {left:?} {stats:?}"));
            }
        });
        drop(guards.expect("a cluster"));
        assert_eq!(failure.lock().expect("not poisoned").take(), None);
    }
}

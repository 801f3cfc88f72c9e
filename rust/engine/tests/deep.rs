//! Plans of many operators in a row: the longest that are valid can be built on the stack that is asked for, and longer ones are
//! refused.

#[allow(dead_code, unreachable_pub, reason = "shared by tests, not a crate")]
mod common;

use common::plans::{N, PlanBuilder, call, cols, edges};
use dataflow_engine::{EmitBudget, Engine, EngineError, STACK_BYTES};
use dataflow_protocol::ids::WorkerIndex;
use dataflow_protocol::plan::{Func, InputMode, Node, Plan};
use dataflow_protocol::rows::RowBuf;

/// Operators that may stand in a row.
const MOST: usize = STACK_BYTES >> 15;

/// `same`, which is what `edge` is where that has only loops: after so many operators.
fn chain(operators: usize, recursive: bool, frozen: bool) -> Plan {
    let mut plan = PlanBuilder::new("chain");
    let edge = plan.import(1, "edge", &[N, N]);
    let same = plan.relation("same", &[N, N], None);
    let edges = plan.get(edge);
    let none = plan.node(Node::Rows { types: vec![N, N], rows: Vec::new() });
    let mut last = edges;
    if recursive {
        let sames = plan.get(same);
        last = plan.union(&[edges, sames]);
    }
    let before = 1 + usize::from(recursive);
    for at in before..operators {
        last = match at % 5 {
            0 => plan.map(last, vec![call(Func::Le, cols(&[0, 1]))], cols(&[1, 0])),
            1 => plan.join((last, &[1]), (edges, &[0]), &[0, 3]),
            2 => plan.antijoin((last, &[1]), (none, &[0])),
            3 => plan.union(&[last]),
            _ => plan.node(Node::Distinct { input: last }),
        };
    }
    plan.stratum(recursive, &[(same, last)]);
    plan.0.frozen = frozen;
    plan.0
}

fn on_a_worker<R: Send + 'static>(
    body: impl FnOnce(&mut timely::worker::Worker) -> R + Send + Sync + 'static,
) -> R {
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
    let worker = thread.spawn(|| timely::execute_directly(body)).expect("a thread");
    worker.join().expect("it does not panic")
}

#[test]
fn the_longest_chains_can_be_built_and_work() {
    for (recursive, frozen) in [(false, false), (true, false), (true, true)] {
        let rows = on_a_worker(move |worker| {
            let mut engine = Engine::new(worker);
            let edge = engine.register(worker, 1, &edges(InputMode::Set)).expect("a plan").relations[0].id;
            engine.advance(1);
            let mut loops = RowBuf::new(2);
            loops.push(&[7, 7]);
            engine.touch(edge, 2);
            engine.introduce(edge, 2, &RowBuf::new(2), &loops);
            engine.advance(2);
            let plan = chain(MOST, recursive, frozen);
            let same = engine.register(worker, 3, &plan).expect("a valid plan").relations[0].id;
            engine.interest(same, WorkerIndex(0), 2);
            engine.advance(3);
            let mut rows = Vec::new();
            while engine.finished(same).is_none_or(|finished| finished < 3) {
                worker.step();
                engine.work(&EmitBudget::default());
                let steps = engine.take_steps();
                rows.extend(steps.iter().flat_map(|step| step.changes.rows.iter().map(<[u64]>::to_vec)));
            }
            engine.unregister(worker, 4, "chain").expect("it is there");
            engine.unregister(worker, 4, "edges").expect("it is there");
            rows
        });
        assert_eq!(rows, [[7, 7]], "recursive {recursive}, frozen {frozen}");
    }
}

#[test]
fn longer_ones_are_refused() {
    let refused = on_a_worker(|worker| {
        let mut engine = Engine::new(worker);
        engine.register(worker, 1, &edges(InputMode::Set)).expect("a plan");
        let refused = engine.register(worker, 2, &chain(MOST + 1, false, false)).unwrap_err();
        engine.unregister(worker, 3, "edges").expect("it is there");
        refused
    });
    let EngineError::Invalid(message) = refused else { panic!("{refused:?}") };
    assert_eq!(message, "more than 4096 operators in a row; divide a long rule among several");
}

//! What every plan must satisfy: after each time, contents equal to evaluation from scratch.
//!
//! Each case runs on one, two and three workers with random inserts and deletes of several owners. Covered: input
//! modes, joins on imported, local and recursive relations, negation, aggregates, recursion (linear, non-linear,
//! mutual, over an input with rules), programs registered late and unregistered.

#![allow(clippy::print_stdout, reason = "seeds are printed")]

#[allow(dead_code, unreachable_pub, reason = "shared by tests, not a crate")]
mod common;

use std::collections::BTreeMap;

use common::plans::{
    N, PlanBuilder, aggregated, call, closure, cols, edges, lengths, number, shortest, square,
};
use common::{Command, Random, check};
use dataflow_engine::{EmitBudget, Engine, Part};
use dataflow_protocol::plan::{AggregateFunc, Expr, Func, InputMode, Node, Plan, RelationRef, Value};
use dataflow_protocol::rows::RowBuf;
use dataflow_protocol::value::from_number;

/// So many transactions of random pairs of numbers below `bound`.
fn churn(random: &mut Random, relations: &[&str], times: usize, bound: u64) -> Vec<Vec<Command>> {
    let pair = |random: &mut Random| {
        vec![from_number(random.below(bound) as i64), from_number(random.below(bound) as i64)]
    };
    (0..times)
        .map(|_| {
            let transactions = random.below(4);
            (0..transactions)
                .map(|_| Command::Transact {
                    owner: random.below(3) as usize,
                    relation: relations[random.below(relations.len() as u64) as usize].into(),
                    delete: (0..random.below(5)).map(|_| pair(random)).collect(),
                    insert: (0..random.below(5)).map(|_| pair(random)).collect(),
                })
                .collect()
        })
        .collect()
}

/// Leaves out deletes of rows that aren't there: what rules make of fewer than no copies is not promised.
fn never_below_nothing(script: &mut [Vec<Command>], workers: usize) {
    let mut there: BTreeMap<Vec<u64>, i64> = BTreeMap::new();
    for commands in script {
        commands.sort_by_key(|command| common::rank(command, workers));
        for command in commands {
            let Command::Transact { delete, insert, .. } = command else { continue };
            delete.retain(|row| {
                there.get_mut(row).filter(|copies| **copies > 0).map(|copies| *copies -= 1).is_some()
            });
            insert.iter().for_each(|row| *there.entry(row.clone()).or_default() += 1);
        }
    }
}

/// Registers the plans at the times given, amid churn of `relations`.
fn sweep(plans: &[(usize, Plan)], relations: &[&str], bound: u64) {
    for workers in [1, 2, 3] {
        for seed in [0x9e37_79b9_u64, 0x1234_5678_9abc] {
            println!("workers {workers}, seed {seed:#x}");
            let mut random = Random(seed);
            let mut script = churn(&mut random, relations, 24, bound);
            for (at, plan) in plans {
                script[*at].push(Command::Register(plan.clone()));
            }
            script[0].retain(|command| matches!(command, Command::Register(_)));
            if plans.len() > 1 {
                never_below_nothing(&mut script, workers);
            }
            check(workers, script);
        }
    }
}

#[test]
fn input_modes_keep_their_meaning() {
    for mode in [InputMode::Set, InputMode::Raw, InputMode::Upsert(vec![0]), InputMode::Upsert(vec![1])] {
        sweep(&[(0, edges(mode))], &["edge"], 4);
    }
}

#[test]
fn closure_follows_inserts_and_deletes() {
    sweep(&[(0, closure(true))], &["edge"], 9);
    sweep(&[(0, closure(false))], &["edge"], 9);
}

/// `edge`, an input, and `two`, where it meets itself.
fn met(mode: InputMode, left: &[usize], right: &[usize]) -> Plan {
    let mut plan = PlanBuilder::new("met");
    let edge = plan.relation("edge", &[N, N], Some(mode));
    let two = plan.relation("two", &[N, N, N, N], None);
    let edges = plan.get(edge);
    let joined = plan.join((edges, left), (edges, right), &[0, 1, 2, 3]);
    plan.stratum(false, &[(two, joined)]);
    plan.0
}

const KEYS: [(&[usize], &[usize]); 5] =
    [(&[0], &[0]), (&[1], &[1]), (&[0], &[1]), (&[0, 1], &[0, 1]), (&[1, 0], &[0, 1])];

#[test]
fn inputs_are_read_by_whatever_they_are_kept_by() {
    for mode in [InputMode::Set, InputMode::Raw, InputMode::Upsert(vec![0]), InputMode::Upsert(vec![1])] {
        for (left, right) in KEYS {
            let mut late = PlanBuilder::new("late");
            let edge = late.import(1, "edge", &[N, N]);
            let turned = late.relation("turned", &[N, N], None);
            let edges = late.get(edge);
            let back = late.antijoin((edges, &[0, 1]), (edges, &[1, 0]));
            let joined = late.join((back, &[1]), (edges, &[0]), &[0, 3]);
            late.stratum(false, &[(turned, joined)]);
            sweep(&[(0, met(mode.clone(), left, right)), (9, late.0)], &["edge"], 5);
        }
    }
}

#[test]
fn rows_are_held_once_where_they_are_kept_by_what_they_are_joined_by() {
    let arrangements = |mode: InputMode| {
        KEYS.map(|(left, right)| {
            let plan = met(mode.clone(), left, right);
            timely::execute_directly(move |worker| {
                let mut engine = Engine::new(worker);
                engine.register(worker, 1, &plan).expect("a valid plan");
                engine.stats().arrangements
            })
        })
    };
    // One is `two`.
    assert_eq!(arrangements(InputMode::Set), [2, 2, 3, 2, 3]);
    assert_eq!(arrangements(InputMode::Raw), [2, 2, 3, 2, 3]);
    assert_eq!(arrangements(InputMode::Upsert(vec![1])), [3, 2, 3, 3, 4]);
}

/// `edge`, an input; `walk`, which goes on from itself to edges by these keys; and what meets `walk` once it is complete.
fn walks(by: (&[usize], &[usize]), then: &[usize]) -> Plan {
    let mut plan = PlanBuilder::new("walks");
    let edge = plan.relation("edge", &[N, N], Some(InputMode::Set));
    let walk = plan.relation("walk", &[N, N], None);
    let met = plan.relation("met", &[N, N], None);
    let (edges, walks) = (plan.get(edge), plan.get(walk));
    let further = plan.join((walks, by.0), (edges, by.1), &[0, 3]);
    let all = plan.union(&[edges, further]);
    plan.stratum(true, &[(walk, all)]);
    let back = plan.join((walks, then), (edges, then), &[0, 3]);
    plan.stratum(false, &[(met, back)]);
    plan.0
}

#[test]
fn recursive_relations_are_read_by_whatever_they_are_kept_by() {
    for (at, (left, right)) in KEYS.into_iter().enumerate() {
        let then = KEYS[(at + 1) % KEYS.len()].0;
        let mut late = PlanBuilder::new("late");
        let walk = late.import(2, "walk", &[N, N]);
        let turned = late.relation("turned", &[N, N], None);
        let walks_ = late.get(walk);
        let back = late.antijoin((walks_, &[0, 1]), (walks_, &[1, 0]));
        let joined = late.join((back, &[1]), (walks_, &[0]), &[0, 3]);
        late.stratum(false, &[(turned, joined)]);
        sweep(&[(0, walks((left, right), then)), (9, late.0)], &["edge"], 5);
    }
}

/// How many rows the closure of a path of 9 nodes holds, by part of the plan; `walk`, relation 1, is read as node 1.
fn held_of_a_path(by: (&[usize], &[usize])) -> BTreeMap<Part, u64> {
    let plan = walks(by, &[0]);
    timely::execute_directly(move |worker| {
        let mut engine = Engine::new(worker);
        let relations = engine.register(worker, 0, &plan).expect("a valid plan").relations;
        let mut rows = RowBuf::new(2);
        (0..8).for_each(|at| rows.push(&[from_number(at), from_number(at + 1)]));
        engine.touch(relations[0].id, 1);
        engine.introduce(relations[0].id, 1, &RowBuf::new(2), &rows);
        engine.advance(1);
        while relations.iter().any(|info| engine.finished(info.id).is_none_or(|time| time < 1)) {
            worker.step();
            engine.work(&EmitBudget::default());
        }
        let analysis = engine.analysis(relations[1].id).expect("it is registered");
        analysis.operators.into_iter().map(|figures| (figures.part, figures.rows)).collect()
    })
}

#[test]
fn what_a_recursion_finds_is_held_by_what_its_rules_join_it_by() {
    // Of 36 rows, how often each is derived, that it is there, and that it is there when all is complete; the rules hold nothing more.
    let held = held_of_a_path((&[1], &[0]));
    assert_eq!((held[&Part::Relation(1)], held.get(&Part::Node(1)).copied().unwrap_or(0)), (108, 0));
    // By a key that can't be what it is kept by they do.
    let held = held_of_a_path((&[1, 1], &[0, 0]));
    assert_eq!((held[&Part::Relation(1)], held[&Part::Node(1)]), (108, 36));
}

#[test]
fn late_program_sees_what_is_there() {
    let mut plan = PlanBuilder::new("late");
    let edge = plan.import(1, "edge", &[N, N]);
    let two = plan.relation("two", &[N, N, N], None);
    let far = plan.relation("far", &[N], None);
    let edges_ = plan.get(edge);
    let joined = plan.join((edges_, &[1]), (edges_, &[0]), &[0, 1, 3]);
    plan.stratum(false, &[(two, joined)]);
    let twos = plan.get(two);
    let unlike = plan.map(twos, vec![call(Func::Ne, cols(&[0, 2]))], cols(&[2]));
    let none = plan.antijoin((unlike, &[0]), (edges_, &[1]));
    plan.stratum(false, &[(far, none)]);
    sweep(&[(0, edges(InputMode::Set)), (7, plan.0.clone())], &["edge"], 6);
    sweep(&[(0, edges(InputMode::Raw)), (7, plan.0)], &["edge"], 5);
}

#[test]
fn aggregates_follow_their_groups() {
    use AggregateFunc::{Count, Max, Mean, Min, Sum};
    let mut plan = PlanBuilder::new("aggregates");
    let edge = plan.import(1, "edge", &[N, N]);
    let edges_ = plan.get(edge);
    type Case<'a> = (&'a str, &'a [usize], &'a [(AggregateFunc, Option<usize>)]);
    let cases: [Case<'_>; 8] = [
        ("count", &[0], &[(Count, None)]),
        ("sum", &[0], &[(Sum, Some(1))]),
        ("mean", &[1], &[(Mean, Some(0)), (Count, None)]),
        ("least", &[0], &[(Min, Some(1))]),
        ("greatest", &[0], &[(Max, Some(1))]),
        ("all", &[0], &[(Min, Some(1)), (Sum, Some(1)), (Count, None), (Max, Some(1))]),
        ("total", &[], &[(Count, None), (Sum, Some(0))]),
        ("extreme", &[], &[(Max, Some(1))]),
    ];
    for (name, key, aggregates) in cases {
        let types: Vec<_> = std::iter::repeat_n(N, key.len())
            .chain(
                aggregates
                    .iter()
                    .map(|(func, _)| if *func == Mean { dataflow_protocol::value::Type::Float } else { N }),
            )
            .collect();
        let relation = plan.relation(name, &types, None);
        let reduced = plan.reduce(edges_, key, aggregates);
        plan.stratum(false, &[(relation, reduced)]);
    }
    sweep(&[(0, edges(InputMode::Set)), (5, plan.0.clone())], &["edge"], 5);
    sweep(&[(0, edges(InputMode::Upsert(vec![0]))), (5, plan.0)], &["edge"], 5);
}

/// Even and odd distances from node 0 over an input that has facts and rules itself, less what is blocked.
fn mutual() -> Plan {
    let mut plan = PlanBuilder::new("mutual");
    let edge = plan.relation("edge", &[N, N], Some(InputMode::Set));
    let block = plan.relation("block", &[N, N], Some(InputMode::Upsert(vec![0])));
    let even = plan.relation("even", &[N], None);
    let odd = plan.relation("odd", &[N], None);
    let fact =
        plan.node(Node::Rows { types: vec![N, N], rows: vec![vec![Value::Number(0), Value::Number(1)]] });
    let edges_ = plan.get(edge);
    let back = plan.map(edges_, vec![call(Func::Lt, vec![number(2), number(0)])], cols(&[1, 0]));
    let edge_rows = plan.union(&[fact, back]);
    plan.stratum(true, &[(edge, edge_rows)]);
    let blocks = plan.get(block);
    let origin = plan.node(Node::Rows { types: vec![N], rows: vec![vec![Value::Number(0)]] });
    let (evens, odds) = (plan.get(even), plan.get(odd));
    let to_odd = plan.join((evens, &[0]), (edges_, &[0]), &[2]);
    let open = plan.antijoin((to_odd, &[0]), (blocks, &[1]));
    let to_even = plan.join((odds, &[0]), (edges_, &[0]), &[2]);
    let all_even = plan.union(&[origin, to_even]);
    plan.stratum(true, &[(even, all_even), (odd, open)]);
    plan.0
}

#[test]
fn mutual_recursion_with_negation_below_and_an_input_with_rules() {
    sweep(&[(0, mutual())], &["edge", "edge", "block"], 7);
}

#[test]
fn failing_expressions_drop_their_rows() {
    let mut plan = PlanBuilder::new("quotients");
    let edge = plan.import(1, "edge", &[N, N]);
    let quotient = plan.relation("quotient", &[N], None);
    let edges_ = plan.get(edge);
    let divided = plan.map(edges_, Vec::new(), vec![call(Func::Div, cols(&[0, 1]))]);
    plan.stratum(false, &[(quotient, divided)]);
    sweep(&[(0, edges(InputMode::Set)), (3, plan.0)], &["edge"], 4);
}

#[test]
fn ranges_follow_their_rows() {
    let mut plan = PlanBuilder::new("ranges");
    let edge = plan.import(1, "edge", &[N, N]);
    let between = plan.relation("between", &[N, N, N], None);
    let down = plan.relation("down", &[N], None);
    let edges_ = plan.get(edge);
    let mut range = |step: Option<i64>| {
        let [start, stop] = [Expr::Col(0), Expr::Col(1)];
        plan.node(Node::Range { input: edges_, over: N, start, stop, step: step.map(number) })
    };
    let (all, some) = (range(None), range(Some(-2)));
    let some = plan.map(some, Vec::new(), cols(&[2]));
    plan.stratum(false, &[(between, all)]);
    plan.stratum(false, &[(down, some)]);
    sweep(&[(0, edges(InputMode::Set)), (4, plan.0)], &["edge"], 6);
}

/// Lengths of paths, of which each round keeps the least for every pair: what a round takes away may come back, and what
/// it led to has to go.
#[test]
fn recursion_that_takes_rows_away_settles_where_the_rounds_do() {
    let mut plan = PlanBuilder::new("shortest");
    let edge = plan.relation("edge", &[N, N], Some(InputMode::Set));
    let path = plan.relation("path", &[N, N, N], None);
    let (edges_, paths) = (plan.get(edge), plan.get(path));
    let all = lengths(&mut plan, edges_, paths, square);
    let least = shortest(&mut plan, all);
    plan.stratum(true, &[(path, least)]);
    sweep(&[(0, plan.0)], &["edge"], 7);
}

/// The same by an aggregate, and others that follow it round by round.
#[test]
fn aggregates_in_a_recursion_follow_its_rounds() {
    let mut plan = PlanBuilder::new("aggregated");
    let edge = plan.relation("edge", &[N, N], Some(InputMode::Set));
    aggregated(&mut plan, edge);
    sweep(&[(0, plan.0)], &["edge"], 7);
}

#[test]
fn cross_products_and_nullary_relations() {
    let mut plan = PlanBuilder::new("nullary");
    let edge = plan.import(1, "edge", &[N, N]);
    let some = plan.relation("some", &[], None);
    let none = plan.relation("none", &[], None);
    let pairs = plan.relation("pairs", &[N, N], None);
    let edges_ = plan.get(edge);
    let exists = plan.map(edges_, vec![call(Func::Lt, cols(&[0, 1]))], Vec::new());
    plan.stratum(false, &[(some, exists)]);
    let unit = plan.node(Node::Rows { types: Vec::new(), rows: vec![Vec::new()] });
    let somes = plan.get(some);
    let not = plan.antijoin((unit, &[]), (somes, &[]));
    plan.stratum(false, &[(none, not)]);
    let crossed = plan.join((edges_, &[]), (edges_, &[]), &[0, 3]);
    plan.stratum(false, &[(pairs, crossed)]);
    sweep(&[(0, edges(InputMode::Set)), (4, plan.0)], &["edge"], 4);
}

/// The inputs that a program brings together advance together from then on, also if one of them was written to at the
/// very time of registering.
#[test]
fn program_over_two_inputs_joins_their_groups() {
    let mut other = PlanBuilder::new("other");
    other.relation("block", &[N, N], Some(InputMode::Set));
    let mut plan = PlanBuilder::new("both");
    let edge = plan.import(1, "edge", &[N, N]);
    let block = plan.import(2, "block", &[N, N]);
    let open = plan.relation("open", &[N, N], None);
    let (edges_, blocks) = (plan.get(edge), plan.get(block));
    let left = plan.antijoin((edges_, &[0, 1]), (blocks, &[0, 1]));
    plan.stratum(false, &[(open, left)]);
    let transact = |relation: &str, row: [i64; 2]| Command::Transact {
        owner: 1,
        relation: relation.into(),
        delete: Vec::new(),
        insert: vec![row.map(from_number).to_vec()],
    };
    for workers in [1, 2, 3] {
        let script = vec![
            vec![Command::Register(edges(InputMode::Set)), Command::Register(other.0.clone())],
            vec![transact("block", [1, 2])],
            vec![transact("edge", [1, 2]), transact("edge", [3, 4]), Command::Register(plan.0.clone())],
            vec![transact("edge", [5, 6])],
            vec![transact("block", [5, 6])],
        ];
        check(workers, script);
    }
}

#[test]
fn unregistered_programs_leave_and_come_back() {
    let mut plan = PlanBuilder::new("late");
    let edge = plan.import(1, "edge", &[N, N]);
    let reversed = plan.relation("reversed", &[N, N], None);
    let meets = plan.relation("meets", &[N, N], None);
    let edges_ = plan.get(edge);
    let back = plan.map(edges_, Vec::new(), cols(&[1, 0]));
    plan.stratum(false, &[(reversed, back)]);
    let joined = plan.join((edges_, &[0]), (edges_, &[1]), &[1, 2]);
    plan.stratum(false, &[(meets, joined)]);
    for workers in [1, 2, 3] {
        let mut random = Random(0xfeed);
        println!("workers {workers}, seed 0xfeed");
        let mut script = churn(&mut random, &["edge"], 30, 5);
        script[0] = vec![Command::Register(edges(InputMode::Set))];
        for at in [3, 12, 21] {
            script[at].push(Command::Register(plan.0.clone()));
            script[at + 6].push(Command::Unregister("late".into()));
        }
        check(workers, script);
    }
}

/// What follows from `edge` by multijoins: triangles, squares, and a cycle through a ternary relation.
fn cycles(plan: &mut PlanBuilder, edge: usize) {
    let triangle = plan.relation("triangle", &[N, N, N], None);
    let square = plan.relation("square", &[N, N, N, N], None);
    let corner = plan.relation("corner", &[N], None);
    let loops = plan.relation("loops", &[N, N], None);
    // Whichever edge changes, the third corner is found by both others.
    let found = plan.multijoin(
        &[(edge, &[0, 1]), (edge, &[1, 2]), (edge, &[0, 2])],
        &[&[&[1, 2]], &[&[0, 2]], &[&[0, 1]]],
        Vec::new(),
        &[0, 1, 2],
    );
    plan.stratum(false, &[(triangle, found)]);
    // Two corners, one after the other; not all of the same two edges first.
    let found = plan.multijoin(
        &[(edge, &[0, 1]), (edge, &[1, 2]), (edge, &[2, 3]), (edge, &[3, 0])],
        &[&[&[1], &[2, 3]], &[&[0], &[2, 3]], &[&[1], &[0, 3]], &[&[2], &[0, 1]]],
        vec![call(Func::Lt, cols(&[0, 2]))],
        &[0, 1, 2, 3],
    );
    plan.stratum(false, &[(square, found)]);
    // Nodes of the program itself: one is filtered, one has a column, one has three, of which two are new at once.
    let small = plan.map(edge, vec![call(Func::Lt, vec![Expr::Col(0), number(3)])], cols(&[1, 0]));
    let ends = plan.map(edge, Vec::new(), cols(&[1]));
    let wide = plan.map(edge, Vec::new(), cols(&[0, 1, 0]));
    let found = plan.multijoin(
        &[(small, &[0, 1]), (ends, &[0]), (wide, &[1, 2, 3])],
        &[&[&[1], &[2]], &[&[0], &[2]], &[&[0], &[1]]],
        Vec::new(),
        &[3],
    );
    plan.stratum(false, &[(corner, found)]);
    // Three that propose the same variable.
    let found = plan.multijoin(
        &[(ends, &[0]), (edge, &[0, 1]), (small, &[0, 1]), (edge, &[0, 1])],
        &[&[&[1, 2, 3]], &[&[0, 2, 3]], &[&[0], &[1, 3]], &[&[2], &[0, 1]]],
        Vec::new(),
        &[0, 1],
    );
    plan.stratum(false, &[(loops, found)]);
}

#[test]
fn multijoins_follow_every_change_of_every_input() {
    let mut plan = PlanBuilder::new("cycles");
    let edge = plan.relation("edge", &[N, N], Some(InputMode::Set));
    let edges_ = plan.get(edge);
    cycles(&mut plan, edges_);
    sweep(&[(0, plan.0)], &["edge"], 5);
}

#[test]
fn multijoins_that_come_late_see_what_is_there() {
    for mode in [InputMode::Set, InputMode::Raw] {
        let mut plan = PlanBuilder::new("late");
        let edge = plan.import(1, "edge", &[N, N]);
        let edges_ = plan.get(edge);
        cycles(&mut plan, edges_);
        sweep(&[(0, edges(mode)), (9, plan.0)], &["edge"], 4);
    }
}

#[test]
fn multijoins_of_what_a_recursion_gives() {
    let mut plan = PlanBuilder(closure(true));
    let path = plan.get(RelationRef::Local(1));
    let mutual = plan.relation("mutual", &[N, N, N], None);
    let found = plan.multijoin(
        &[(path, &[0, 1]), (path, &[1, 2]), (path, &[2, 0])],
        &[&[&[1, 2]], &[&[0, 2]], &[&[0, 1]]],
        Vec::new(),
        &[0, 1, 2],
    );
    plan.stratum(false, &[(mutual, found)]);
    sweep(&[(0, plan.0)], &["edge"], 5);
}

#[test]
fn a_multijoin_goes_on_in_the_middle_of_its_values() {
    // On two workers operators do one piece of work a step: a row with many values is gone through step by step.
    let mut plan = PlanBuilder::new("star");
    let edge = plan.relation("edge", &[N, N], Some(InputMode::Set));
    let triangle = plan.relation("triangle", &[N, N, N], None);
    let edges_ = plan.get(edge);
    let found = plan.multijoin(
        &[(edges_, &[0, 1]), (edges_, &[1, 2]), (edges_, &[0, 2])],
        &[&[&[1, 2]], &[&[0, 2]], &[&[0, 1]]],
        Vec::new(),
        &[0, 1, 2],
    );
    plan.stratum(false, &[(triangle, found)]);
    let pair = |a: i64, b: i64| vec![from_number(a), from_number(b)];
    let spokes: Vec<_> = (2..40).flat_map(|at| [pair(0, at), pair(1, at)]).collect();
    for workers in [1, 2] {
        let transact = |delete: &[Vec<u64>], insert: &[Vec<u64>]| {
            let (delete, insert) = (delete.to_vec(), insert.to_vec());
            Command::Transact { owner: 0, relation: "edge".into(), delete, insert }
        };
        let script = vec![
            vec![Command::Register(plan.0.clone())],
            vec![transact(&[], &spokes)],
            vec![transact(&[], &[pair(0, 1)])],
            vec![transact(&[], &[pair(2, 3), pair(3, 4), pair(2, 4)])],
            vec![transact(&spokes[..20], &[])],
            vec![transact(&[pair(0, 1)], &spokes[..10])],
        ];
        check(workers, script);
    }
}

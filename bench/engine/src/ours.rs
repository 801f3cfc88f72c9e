//! The same computations as plans on the engine.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use dataflow_engine::{EmitBudget, Engine};
use dataflow_protocol::ids::{RelationId, Time, WorkerIndex};
use dataflow_protocol::plan::{
    Aggregate, AggregateFunc, Definition, Expr, InputMode, Node, Plan, Relation, RelationRef, Stratum,
    VERSION,
};
use dataflow_protocol::rows::RowBuf;
use dataflow_protocol::value::{Column, Type, from_number};
use timely::worker::Worker;

use crate::graph::Edge;
use crate::{CHANGES, Measured};

fn get(local: usize) -> Node {
    Node::Get { relation: RelationRef::Local(local) }
}

fn join(left: (usize, &[usize]), right: (usize, &[usize]), project: &[usize]) -> Node {
    Node::Join {
        left: left.0,
        right: right.0,
        left_key: left.1.to_vec(),
        right_key: right.1.to_vec(),
        filter: Vec::new(),
        project: project.iter().map(|&column| Expr::Col(column)).collect(),
    }
}

/// The plan of `work`: relation 0 is the input, relation 1 the result. With `pairs` all joins are of two.
fn plan(work: &str, pairs: bool) -> Plan {
    let (columns, recursive, nodes) = match work {
        "closure" => {
            let longer = join((1, &[1]), (0, &[0]), &[0, 3]);
            (2, true, vec![get(0), get(1), longer, Node::Union { inputs: vec![0, 2] }])
        }
        "triangles" if !pairs => {
            let others = |places: [usize; 2]| vec![places.to_vec()];
            let found = Node::Multijoin {
                inputs: vec![0; 3],
                variables: vec![vec![0, 1], vec![1, 2], vec![0, 2]],
                paths: vec![others([1, 2]), others([0, 2]), others([0, 1])],
                filter: Vec::new(),
                project: (0..3).map(Expr::Col).collect(),
            };
            (3, false, vec![get(0), found])
        }
        "triangles" => {
            let wedges = join((0, &[1]), (0, &[0]), &[0, 1, 3]);
            (3, false, vec![get(0), wedges, join((1, &[0, 2]), (0, &[0, 1]), &[0, 1, 2])])
        }
        _ => {
            let count = Aggregate { func: AggregateFunc::Count, column: None };
            (2, false, vec![get(0), Node::Reduce { input: 0, key: vec![0], aggregates: vec![count] }])
        }
    };
    let relation = |name: &str, width: usize, input: Option<InputMode>| Relation {
        name: name.into(),
        columns: (0..width).map(|at| Column::new(format!("c{at}"), Type::Number)).collect(),
        input,
        output: true,
    };
    let definition = Definition { relation: 1, node: nodes.len() - 1 };
    Plan {
        version: VERSION,
        name: work.into(),
        types: Vec::new(),
        digest: work.into(),
        imports: Vec::new(),
        relations: vec![relation("edge", 2, Some(InputMode::Set)), relation("result", columns, None)],
        nodes,
        strata: vec![Stratum { recursive, relations: vec![definition] }],
        rules: Vec::new(),
        causes: Vec::new(),
    }
}

/// Runs and measures `work`, with `pairs` by joins of two.
pub fn run(work: &str, pairs: bool, workers: usize, edges: Vec<Edge>) -> Measured {
    let (plan, edges) = (plan(work, pairs), Arc::new(edges));
    let result = Arc::new(Mutex::new(Measured::default()));
    let shared = Arc::clone(&result);
    let guards = timely::execute(timely::Config::process(workers), move |worker| {
        let mut engine = Engine::new(worker);
        let registered = engine.register(worker, 1, &plan).expect("a valid plan");
        let (edge, path) = (registered.relations[0].id, registered.relations[1].id);
        engine.interest(path, WorkerIndex(0), 0);
        engine.advance(1);
        let mut replica = Replica { engine, edge, path, rows: 0 };
        let (index, peers) = (worker.index(), worker.peers());
        let mut measured = Measured::default();
        let start = Instant::now();
        let own: Vec<Edge> = edges.iter().copied().skip(index).step_by(peers).collect();
        replica.transact(worker, 2, &[], &own);
        measured.load_s = start.elapsed().as_secs_f64();
        measured.rows = replica.rows;
        for change in 0..CHANGES {
            let start = Instant::now();
            let edge = [edges[change / 2 * 37 % edges.len()]];
            let (delete, insert): (&[Edge], &[Edge]) = match (index, change % 2) {
                (0, 0) => (&edge, &[]),
                (0, _) => (&[], &edge),
                _ => (&[], &[]),
            };
            replica.transact(worker, change as Time + 3, delete, insert);
            measured.changes_s.push(start.elapsed().as_secs_f64());
        }
        if index == 0 {
            *shared.lock().expect("not poisoned") = measured;
        }
    });
    drop(guards.expect("a cluster"));
    Arc::into_inner(result).expect("workers have ended").into_inner().expect("not poisoned")
}

struct Replica {
    engine: Engine,
    edge: RelationId,
    path: RelationId,
    rows: i64,
}

impl Replica {
    fn transact(&mut self, worker: &mut Worker, time: Time, delete: &[Edge], insert: &[Edge]) {
        let rows = |edges: &[Edge]| {
            let mut rows = RowBuf::new(2);
            edges.iter().for_each(|&(a, b)| rows.push(&[from_number(a.into()), from_number(b.into())]));
            rows
        };
        self.engine.touch(self.edge, time);
        self.engine.introduce(self.edge, time, &rows(delete), &rows(insert));
        self.engine.advance(time);
        while self.engine.finished(self.path) != Some(time) {
            worker.step();
            self.engine.work(&EmitBudget::default());
            for step in self.engine.take_steps() {
                self.rows += step.changes.diffs.iter().sum::<i64>();
            }
        }
    }
}

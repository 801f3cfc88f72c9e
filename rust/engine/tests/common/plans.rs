//! Plans as the planner would write them.

use dataflow_protocol::ids::RelationId;
use dataflow_protocol::plan::*;
use dataflow_protocol::value::{Column, Type};

/// Builds a plan bit by bit.
pub struct PlanBuilder(pub Plan);

impl PlanBuilder {
    pub fn new(name: &str) -> Self {
        PlanBuilder(Plan {
            version: VERSION,
            name: name.into(),
            digest: name.into(),
            types: Vec::new(),
            imports: Vec::new(),
            relations: Vec::new(),
            nodes: Vec::new(),
            strata: Vec::new(),
            rules: Vec::new(),
            causes: Vec::new(),
            frozen: false,
        })
    }

    pub fn relation(&mut self, name: &str, types: &[Type], input: Option<InputMode>) -> RelationRef {
        let columns = types.iter().enumerate().map(|(at, &ty)| Column::new(format!("c{at}"), ty)).collect();
        self.0.relations.push(Relation { name: name.into(), columns, input, output: true });
        RelationRef::Local(self.0.relations.len() - 1)
    }

    pub fn import(&mut self, id: u64, name: &str, types: &[Type]) -> RelationRef {
        self.0.imports.push(Import { relation: RelationId(id), name: name.into(), types: types.to_vec() });
        RelationRef::Import(self.0.imports.len() - 1)
    }

    pub fn node(&mut self, node: Node) -> usize {
        self.0.nodes.push(node);
        self.0.nodes.len() - 1
    }

    pub fn get(&mut self, relation: RelationRef) -> usize {
        self.node(Node::Get { relation })
    }

    pub fn join(&mut self, left: (usize, &[usize]), right: (usize, &[usize]), project: &[usize]) -> usize {
        self.node(Node::Join {
            left: left.0,
            right: right.0,
            left_key: left.1.to_vec(),
            right_key: right.1.to_vec(),
            filter: Vec::new(),
            project: cols(project),
        })
    }

    /// `inputs` with the variable of each column; `paths` as the planner would have them.
    pub fn multijoin(
        &mut self,
        inputs: &[(usize, &[usize])],
        paths: &[&[&[usize]]],
        filter: Vec<Expr>,
        project: &[usize],
    ) -> usize {
        self.node(Node::Multijoin {
            inputs: inputs.iter().map(|(node, _)| *node).collect(),
            variables: inputs.iter().map(|(_, variables)| variables.to_vec()).collect(),
            paths: paths.iter().map(|path| path.iter().map(|group| group.to_vec()).collect()).collect(),
            filter,
            project: cols(project),
        })
    }

    pub fn map(&mut self, input: usize, filter: Vec<Expr>, project: Vec<Expr>) -> usize {
        self.node(Node::Map { input, filter, project })
    }

    pub fn antijoin(&mut self, left: (usize, &[usize]), right: (usize, &[usize])) -> usize {
        self.node(Node::Antijoin {
            left: left.0,
            right: right.0,
            left_key: left.1.to_vec(),
            right_key: right.1.to_vec(),
        })
    }

    pub fn union(&mut self, inputs: &[usize]) -> usize {
        self.node(Node::Union { inputs: inputs.to_vec() })
    }

    pub fn reduce(
        &mut self,
        input: usize,
        key: &[usize],
        aggregates: &[(AggregateFunc, Option<usize>)],
    ) -> usize {
        let aggregates = aggregates.iter().map(|&(func, column)| Aggregate { func, column }).collect();
        self.node(Node::Reduce { input, key: key.to_vec(), aggregates })
    }

    pub fn stratum(&mut self, recursive: bool, relations: &[(RelationRef, usize)]) {
        let relations = relations
            .iter()
            .map(|&(relation, node)| match relation {
                RelationRef::Local(relation) => Definition { relation, node },
                RelationRef::Import(_) => unreachable!("tests define their own relations"),
            })
            .collect();
        self.0.strata.push(Stratum { recursive, relations });
    }
}

pub fn cols(columns: &[usize]) -> Vec<Expr> {
    columns.iter().map(|&column| Expr::Col(column)).collect()
}

pub fn number(value: i64) -> Expr {
    Expr::Const(Value::Number(value))
}

pub fn call(func: Func, args: Vec<Expr>) -> Expr {
    Expr::Call { func, over: Type::Number, args }
}

pub const N: Type = Type::Number;

/// `edge`, an input of pairs, in the mode given.
pub fn edges(mode: InputMode) -> Plan {
    let mut plan = PlanBuilder::new("edges");
    plan.relation("edge", &[N, N], Some(mode));
    plan.0
}

/// `path`, the transitive closure of an `edge` of its own: linear, or by joining it with itself.
pub fn closure(linear: bool) -> Plan {
    let mut plan = PlanBuilder::new("closure");
    let edge = plan.relation("edge", &[N, N], Some(InputMode::Set));
    let path = plan.relation("path", &[N, N], None);
    let (edges, paths) = (plan.get(edge), plan.get(path));
    let longer = plan.join((paths, &[1]), (if linear { edges } else { paths }, &[0]), &[0, 3]);
    let all = plan.union(&[edges, longer]);
    plan.stratum(true, &[(path, all)]);
    plan.0
}

/// Lengths of paths: an edge is one of the length that its ends have, by their columns, and `paths` go on by an edge. A row is
/// from, to and length.
pub fn lengths(
    plan: &mut PlanBuilder,
    edges: usize,
    paths: usize,
    length: fn(usize, usize) -> Expr,
) -> usize {
    let one = plan.map(edges, Vec::new(), vec![Expr::Col(0), Expr::Col(1), length(0, 1)]);
    let on = plan.join((paths, &[1]), (edges, &[0]), &[0, 4, 2, 3]);
    let longer = vec![Expr::Col(0), Expr::Col(1), call(Func::Add, vec![Expr::Col(2), length(3, 1)])];
    let on = plan.map(on, Vec::new(), longer);
    plan.union(&[one, on])
}

/// `path`, of [`lengths`] the least by an aggregate, and `from`, others of these that follow round by round.
pub fn aggregated(plan: &mut PlanBuilder, edge: RelationRef) {
    let path = plan.relation("path", &[N, N, N], None);
    let from = plan.relation("from", &[N, N, N, N], None);
    let (edges, paths) = (plan.get(edge), plan.get(path));
    let all = lengths(plan, edges, paths, one);
    let least = plan.reduce(all, &[0, 1], &[(AggregateFunc::Min, Some(2))]);
    let of_each =
        [(AggregateFunc::Count, None), (AggregateFunc::Sum, Some(2)), (AggregateFunc::Max, Some(1))];
    let totals = plan.reduce(paths, &[0], &of_each);
    plan.stratum(true, &[(path, least), (from, totals)]);
}

/// Each edge has the same length: what is found first is the least.
pub fn one(_: usize, _: usize) -> Expr {
    number(1)
}

/// The square of how far apart the ends are: a path of several edges may be shorter than one that was found before.
pub fn square(from: usize, to: usize) -> Expr {
    let apart = || call(Func::Sub, cols(&[from, to]));
    call(Func::Mul, vec![apart(), apart()])
}

/// Of [`lengths`] the least from one to the other, without a reduction: those than which none is less.
pub fn shortest(plan: &mut PlanBuilder, lengths: usize) -> usize {
    let all = plan.node(Node::Distinct { input: lengths });
    let pairs = plan.join((all, &[0, 1]), (all, &[0, 1]), &[0, 1, 2, 5]);
    let worse = plan.map(pairs, vec![call(Func::Lt, cols(&[3, 2]))], cols(&[0, 1, 2]));
    plan.antijoin((all, &[0, 1, 2]), (worse, &[0, 1, 2]))
}

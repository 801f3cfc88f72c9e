//! Complete validation of a plan: what passes can be built, and building it can't panic.

use dataflow_protocol::plan::{
    Aggregate, AggregateFunc, Expr, InputMode, Node, Plan, RelationRef, Stratum, VERSION, Value,
};
use dataflow_protocol::shape::Shapes;
use dataflow_protocol::value::Type;

use crate::error::EngineError;
use crate::expr::types::type_of;
use crate::multijoin;

/// Columns a relation or node may have.
const MAX_COLUMNS: usize = 256;
/// Nodes a plan may have.
const MAX_NODES: usize = 1 << 20;
/// Nodes that may read one another in a row.
const MAX_DEPTH: usize = 1 << 12;

/// Stack of a thread that registers plans: building goes from a node to those it reads, which takes some KiB each.
pub const STACK_BYTES: usize = MAX_DEPTH << 15;

/// A plan that can be built, with what building needs to know.
#[derive(Debug)]
pub(crate) struct Valid<'a> {
    pub(crate) plan: &'a Plan,
    /// What the plan's composite types are.
    shapes: Shapes,
    /// Columns' types of every node.
    pub(crate) types: Vec<Vec<Type>>,
    /// For every node the local relations it reads, directly or through other nodes, in order.
    pub(crate) reads: Vec<Vec<usize>>,
    /// For every node by how many nodes and definitions it is read.
    pub(crate) uses: Vec<usize>,
}

/// Checks everything.
///
/// # Errors
///
/// [`EngineError::Invalid`] with the first thing found.
pub(crate) fn validate(plan: &Plan) -> Result<Valid<'_>, EngineError> {
    check(plan).map_err(EngineError::Invalid)
}

fn check(plan: &Plan) -> Result<Valid<'_>, String> {
    require(plan.version == VERSION, || format!("version {} instead of {VERSION}", plan.version))?;
    require(plan.nodes.len() <= MAX_NODES, || format!("{} nodes, at most {MAX_NODES}", plan.nodes.len()))?;
    let caused = plan.causes.is_empty() || plan.causes.len() == plan.nodes.len();
    require(caused, || format!("causes of {} of {} nodes", plan.causes.len(), plan.nodes.len()))?;
    let known = plan.causes.iter().flatten().all(|&rule| rule < plan.rules.len());
    require(known, || "a cause that is none of the rules".to_owned())?;
    let alone = plan.relations.iter().all(|relation| relation.input.is_none()) && !plan.reads_clock();
    require(!plan.frozen || alone, || "a frozen program that has inputs or reads the clock".to_owned())?;
    relations(plan)?;
    let shapes = shapes(plan)?;
    let mut valid =
        Valid { plan, shapes, types: Vec::new(), reads: Vec::new(), uses: vec![0; plan.nodes.len()] };
    let mut depths: Vec<usize> = Vec::new();
    for (index, node) in plan.nodes.iter().enumerate() {
        let types = valid.node(index, node).map_err(|error| format!("node {index}: {error}"))?;
        require(types.len() <= MAX_COLUMNS, || format!("node {index}: {} columns", types.len()))?;
        depths.push(1 + inputs(node).into_iter().map(|input| depths[input]).max().unwrap_or(0));
        require(depths[index] <= MAX_DEPTH, || {
            format!("more than {MAX_DEPTH} operators in a row; divide a long rule among several")
        })?;
        valid.types.push(types);
        let reads = valid.reads_of(node);
        valid.reads.push(reads);
        inputs(node).into_iter().for_each(|input| valid.uses[input] += 1);
    }
    let mut settled: Vec<bool> = plan.relations.iter().map(|relation| relation.input.is_some()).collect();
    let defined: Vec<usize> =
        plan.strata.iter().flat_map(|s| &s.relations).map(|definition| definition.relation).collect();
    for (index, relation) in plan.relations.iter().enumerate() {
        let times = defined.iter().filter(|&&defined| defined == index).count();
        require(times <= 1, || format!("relation {:?} is defined {times} times", relation.name))?;
        require(times == 1 || relation.input.is_some(), || {
            format!("relation {:?} is not defined", relation.name)
        })?;
        if times == 1 {
            settled[index] = false;
        }
    }
    for (index, stratum) in plan.strata.iter().enumerate() {
        valid.stratum(stratum, &mut settled).map_err(|error| format!("stratum {index}: {error}"))?;
        stratum.relations.iter().for_each(|definition| valid.uses[definition.node] += 1);
    }
    Ok(valid)
}

pub(crate) fn require(condition: bool, message: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(message()) }
}

/// What the plan's types are; all that it names must be there.
fn shapes(plan: &Plan) -> Result<Shapes, String> {
    let shapes = Shapes::new(&plan.types);
    for composite in &plan.types {
        let name = &composite.name;
        require(shapes.get(composite.id) == Some(composite), || format!("type {name:?} is defined twice"))?;
        let named = composite.branches.iter().filter(|branch| branch.name.is_some()).count();
        require(composite.record().is_some() || (named > 0 && named == composite.branches.len()), || {
            format!("type {name:?} is neither a record nor has branches")
        })?;
        for branch in &composite.branches {
            require(branch.fields.len() <= MAX_COLUMNS, || format!("type {name:?} has too many fields"))?;
        }
    }
    let fields = plan.types.iter().flat_map(|t| &t.branches).flat_map(|b| &b.fields).map(|field| field.ty);
    let columns = plan.relations.iter().flat_map(|relation| &relation.columns).map(|column| column.ty);
    for ty in fields.chain(columns) {
        if let Type::Composite(id) = ty {
            require(shapes.get(id).is_some(), || format!("no type {} is defined", ty.plan_name()))?;
        }
    }
    Ok(shapes)
}

fn relations(plan: &Plan) -> Result<(), String> {
    for (index, relation) in plan.relations.iter().enumerate() {
        let name = &relation.name;
        require(relation.columns.len() <= MAX_COLUMNS, || format!("relation {name:?} has too many columns"))?;
        require(plan.relations[..index].iter().all(|other| other.name != *name), || {
            format!("relation {name:?} is declared twice")
        })?;
        if let Some(InputMode::Upsert(key)) = &relation.input {
            let known = key.iter().all(|&column| column < relation.columns.len());
            let once = key.iter().enumerate().all(|(at, column)| !key[..at].contains(column));
            require(known && once, || format!("relation {name:?} has an impossible key"))?;
        }
    }
    Ok(())
}

impl Valid<'_> {
    /// The columns' types of a node that refers to those before it.
    fn node(&self, index: usize, node: &Node) -> Result<Vec<Type>, String> {
        let input = |input: usize| {
            require(input < index, || format!("refers to node {input}, which is not an earlier one"))?;
            Ok::<_, String>(&self.types[input])
        };
        match node {
            Node::Get { relation } => self.relation_types(*relation),
            Node::Rows { types, rows } => {
                let fits = |row: &Vec<Value>| row.iter().map(Value::ty).eq(types.iter().copied());
                require(rows.iter().all(fits), || "a row that is not of the node's types".to_owned())?;
                Ok(types.clone())
            }
            Node::Map { input: from, filter, project } => {
                projected(input(*from)?, filter, project, &self.shapes)
            }
            Node::Range { input: from, over, start, stop, step } => {
                let columns = input(*from)?;
                require(matches!(over, Type::Number | Type::Unsigned | Type::Float), || {
                    format!("a range over {}", over.name())
                })?;
                for bound in [start, stop].into_iter().chain(step) {
                    require(type_of(bound, columns, &self.shapes)? == *over, || {
                        format!("a bound that is not a {}", over.name())
                    })?;
                }
                Ok(columns.iter().copied().chain([*over]).collect())
            }
            Node::Window { input: from, since, until } => {
                let columns = input(*from)?;
                require(self.plan.reads_clock(), || "a window without the clock".to_owned())?;
                require(since.len() + until.len() > 0, || "a window without bounds".to_owned())?;
                for bound in since.iter().chain(until) {
                    require(type_of(bound, columns, &self.shapes)? == Type::Number, || {
                        "a bound that is not a number".to_owned()
                    })?;
                }
                Ok(columns.clone())
            }
            Node::Join { left, right, left_key, right_key, filter, project } => {
                let (left, right) = (input(*left)?, input(*right)?);
                keys(left, left_key, right, right_key)?;
                projected(&[&left[..], right].concat(), filter, project, &self.shapes)
            }
            Node::Multijoin { inputs, variables, paths, filter, project } => {
                let inputs = inputs.iter().map(|&from| input(from)).collect::<Result<Vec<_>, _>>()?;
                let types = multijoin::types(&inputs, variables)?;
                multijoin::paths(variables, paths)?;
                projected(&types, filter, project, &self.shapes)
            }
            Node::Antijoin { left, right, left_key, right_key } => {
                keys(input(*left)?, left_key, input(*right)?, right_key)?;
                Ok(input(*left)?.clone())
            }
            Node::Union { inputs } => {
                let first = inputs.first().ok_or("a union of nothing")?;
                let types = input(*first)?.clone();
                for other in inputs {
                    require(*input(*other)? == types, || "a union of nodes of different types".to_owned())?;
                }
                Ok(types)
            }
            Node::Distinct { input: from } => input(*from).cloned(),
            Node::Reduce { input: from, key, aggregates } => reduced(input(*from)?, key, aggregates),
        }
    }

    fn relation_types(&self, relation: RelationRef) -> Result<Vec<Type>, String> {
        match relation {
            RelationRef::Local(local) => {
                let relation = self.plan.relations.get(local).ok_or(format!("no local relation {local}"))?;
                Ok(relation.columns.iter().map(|column| column.ty).collect())
            }
            RelationRef::Import(import) => {
                Ok(self.plan.imports.get(import).ok_or(format!("no import {import}"))?.types.clone())
            }
        }
    }

    fn reads_of(&self, node: &Node) -> Vec<usize> {
        let mut reads: Vec<usize> = match node {
            Node::Get { relation: RelationRef::Local(local) } => vec![*local],
            Node::Get { .. } | Node::Rows { .. } => Vec::new(),
            _ => inputs(node).into_iter().flat_map(|input| self.reads[input].clone()).collect(),
        };
        reads.sort_unstable();
        reads.dedup();
        reads
    }

    fn stratum(&self, stratum: &Stratum, settled: &mut [bool]) -> Result<(), String> {
        let own: Vec<usize> = stratum.relations.iter().map(|definition| definition.relation).collect();
        for definition in &stratum.relations {
            let relation = self
                .plan
                .relations
                .get(definition.relation)
                .ok_or(format!("no relation {}", definition.relation))?;
            let name = &relation.name;
            require(definition.node < self.types.len(), || {
                format!("no node {} for {name:?}", definition.node)
            })?;
            let types = relation.columns.iter().map(|column| column.ty);
            require(self.types[definition.node].iter().copied().eq(types), || {
                format!("node {} has not the types of relation {name:?}", definition.node)
            })?;
            require(matches!(relation.input, None | Some(InputMode::Set)), || {
                format!("relation {name:?} has rules, so it can't be raw or upsert")
            })?;
            for &read in &self.reads[definition.node] {
                let allowed = settled[read] || (stratum.recursive && own.contains(&read));
                require(allowed, || {
                    format!(
                        "relation {name:?} reads {:?} before it is defined",
                        self.plan.relations[read].name
                    )
                })?;
            }
            if stratum.recursive {
                self.can_be_iterated(definition.node, &own)?;
            }
        }
        own.iter().for_each(|&relation| settled[relation] = true);
        Ok(())
    }

    /// Checks that what depends on the stratum's own relations can stand inside a recursion.
    ///
    /// A negation and an aggregate can, if they make sense is the planner's to know: rounds follow one another as the plan
    /// says, and each starts from what the one before has.
    fn can_be_iterated(&self, root: usize, own: &[usize]) -> Result<(), String> {
        let recursive = |node: usize| self.reads[node].iter().any(|read| own.contains(read));
        let (mut pending, mut seen) = (vec![root], vec![false; root + 1]);
        while let Some(index) = pending.pop() {
            if seen[index] || !recursive(index) {
                continue;
            }
            seen[index] = true;
            match &self.plan.nodes[index] {
                Node::Multijoin { .. } => {
                    return Err(format!("node {index} is a multijoin inside a recursion"));
                }
                Node::Window { .. } => return Err(format!("node {index} is a window inside a recursion")),
                node => pending.extend(inputs(node)),
            }
        }
        Ok(())
    }
}

/// The nodes that a node reads.
pub(crate) fn inputs(node: &Node) -> Vec<usize> {
    match node {
        Node::Get { .. } | Node::Rows { .. } => Vec::new(),
        Node::Map { input, .. }
        | Node::Range { input, .. }
        | Node::Window { input, .. }
        | Node::Distinct { input }
        | Node::Reduce { input, .. } => vec![*input],
        Node::Join { left, right, .. } | Node::Antijoin { left, right, .. } => vec![*left, *right],
        Node::Union { inputs } | Node::Multijoin { inputs, .. } => inputs.clone(),
    }
}

fn keys(left: &[Type], left_key: &[usize], right: &[Type], right_key: &[usize]) -> Result<(), String> {
    require(left_key.len() == right_key.len(), || "keys of different lengths".to_owned())?;
    for (&l, &r) in left_key.iter().zip(right_key) {
        let (l_type, r_type) = (left.get(l), right.get(r));
        require(l_type.is_some() && l_type == r_type, || format!("key columns {l} and {r} don't match"))?;
    }
    Ok(())
}

fn projected(
    columns: &[Type],
    filter: &[Expr],
    project: &[Expr],
    shapes: &Shapes,
) -> Result<Vec<Type>, String> {
    for expr in filter {
        require(type_of(expr, columns, shapes)? == Type::Bool, || "a filter that is not a bool".to_owned())?;
    }
    project.iter().map(|expr| type_of(expr, columns, shapes)).collect()
}

fn reduced(columns: &[Type], key: &[usize], aggregates: &[Aggregate]) -> Result<Vec<Type>, String> {
    let of = |column: usize| columns.get(column).copied().ok_or_else(|| format!("no column {column}"));
    let mut types = key.iter().map(|&column| of(column)).collect::<Result<Vec<_>, _>>()?;
    require(!aggregates.is_empty(), || "a reduction without aggregates".to_owned())?;
    for aggregate in aggregates {
        types.push(match (aggregate.func, aggregate.column.map(of).transpose()?) {
            (AggregateFunc::Count, None) => Type::Number,
            (AggregateFunc::Count, Some(_)) => return Err("a count of a column".to_owned()),
            (AggregateFunc::Min | AggregateFunc::Max, Some(ty)) if !matches!(ty, Type::Composite(_)) => ty,
            (func, Some(ty @ (Type::Number | Type::Unsigned | Type::Float))) => {
                if func == AggregateFunc::Mean { Type::Float } else { ty }
            }
            (func, ty) => return Err(format!("{func:?} of {}", ty.map_or("nothing", Type::name))),
        });
    }
    Ok(types)
}

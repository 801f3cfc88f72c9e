//! A naive evaluator of plans: everything from scratch, by nested loops.

use std::collections::{BTreeMap, BTreeSet};

use dataflow_protocol::plan::{
    Aggregate, AggregateFunc, Expr, Func, InputMode, Node, Plan, RelationRef, Value,
};
use dataflow_protocol::value::{Type, from_bool, from_float, from_number, to_float, to_number};

use super::{Contents, Row};

/// Applies a transaction's operations, deletes first.
pub fn transact(contents: &mut Contents, mode: &InputMode, delete: &[Row], insert: &[Row]) {
    let mut add = |row: &Row, copies: i64| {
        let count = contents.entry(row.clone()).or_default();
        *count += copies;
        if *count == 0 {
            contents.remove(row);
        }
    };
    if *mode == InputMode::Raw {
        delete.iter().for_each(|row| add(row, -1));
        insert.iter().for_each(|row| add(row, 1));
        return;
    }
    for row in delete {
        contents.remove(row);
    }
    for row in insert {
        if let InputMode::Upsert(key) = mode {
            contents.retain(|other, _| !key.iter().all(|&column| other[column] == row[column]));
        }
        contents.insert(row.clone(), 1);
    }
}

/// Computes the relations that a plan defines, from those in `all`.
pub fn evaluate(plan: &Plan, all: &mut BTreeMap<String, Contents>) {
    let transacted = all.clone();
    for relation in &plan.relations {
        all.entry(relation.name.clone()).or_default();
    }
    for stratum in &plan.strata {
        loop {
            let before = all.clone();
            for definition in &stratum.relations {
                let relation = &plan.relations[definition.relation];
                let mut rows: BTreeSet<Row> = node(plan, definition.node, all)
                    .into_iter()
                    .filter(|(_, copies)| *copies > 0)
                    .map(|(r, _)| r)
                    .collect();
                if relation.input.is_some() {
                    rows.extend(transacted[&relation.name].keys().cloned());
                }
                all.insert(relation.name.clone(), rows.into_iter().map(|row| (row, 1)).collect());
            }
            if *all == before {
                break;
            }
        }
    }
}

fn node(plan: &Plan, index: usize, all: &BTreeMap<String, Contents>) -> Contents {
    let input = |index: usize| node(plan, index, all);
    let mut result = Contents::new();
    let mut add = |row: Row, copies: i64| *result.entry(row).or_default() += copies;
    match &plan.nodes[index] {
        Node::Get { relation } => {
            let name = match relation {
                RelationRef::Local(local) => &plan.relations[*local].name,
                RelationRef::Import(import) => &plan.imports[*import].name,
            };
            return all[name].clone();
        }
        Node::Rows { rows, .. } => rows.iter().for_each(|row| add(row.iter().map(constant).collect(), 1)),
        Node::Map { input: from, filter, project } => {
            for (row, copies) in input(*from) {
                if let Some(row) = projected(filter, project, &row) {
                    add(row, copies);
                }
            }
        }
        Node::Range { input: from, start, stop, step, .. } => {
            for (row, copies) in input(*from) {
                let bound = |expr: &Expr| eval(expr, &row).map(to_number);
                let (Some(start), Some(stop)) = (bound(start), bound(stop)) else { continue };
                let step = step.as_ref().map_or(Some(if start <= stop { 1 } else { -1 }), bound);
                let Some(step) = step.filter(|&step| step != 0) else { unimplemented!("a step of 0") };
                let mut value = start;
                while if step > 0 { value < stop } else { value > stop } {
                    add([&row[..], &[from_number(value)]].concat(), copies);
                    value += step;
                }
            }
        }
        Node::Window { input: from, since, until } => {
            let now = all["now"].keys().next().map(|row| row[0]);
            for (row, copies) in input(*from) {
                let since: Option<Vec<u64>> = since.iter().map(|expr| eval(expr, &row)).collect();
                let until: Option<Vec<u64>> = until.iter().map(|expr| eval(expr, &row)).collect();
                if let (Some(now), Some(since), Some(until)) = (now, since, until)
                    && since.iter().all(|since| *since <= now)
                    && until.iter().all(|until| now < *until)
                {
                    add(row, copies);
                }
            }
        }
        Node::Join { left, right, left_key, right_key, filter, project } => {
            let right = input(*right);
            for (l, l_copies) in input(*left) {
                for (r, r_copies) in &right {
                    if left_key.iter().zip(right_key).all(|(&lk, &rk)| l[lk] == r[rk])
                        && let Some(row) = projected(filter, project, &[&l[..], r].concat())
                    {
                        add(row, l_copies * r_copies);
                    }
                }
            }
        }
        Node::Multijoin { inputs, variables, filter, project, .. } => {
            let count = variables.iter().flatten().max().map_or(0, |most| most + 1);
            let mut found: Vec<(Vec<Option<u64>>, i64)> = vec![(vec![None; count], 1)];
            for (&from, variables) in inputs.iter().zip(variables) {
                let rows = input(from);
                let mut longer = Vec::new();
                for (known, copies) in &found {
                    for (row, more) in &rows {
                        let mut known = known.clone();
                        let agrees = variables
                            .iter()
                            .zip(row)
                            .all(|(&variable, &word)| *known[variable].get_or_insert(word) == word);
                        if agrees {
                            longer.push((known, copies * more));
                        }
                    }
                }
                found = longer;
            }
            for (known, copies) in found {
                let row: Row =
                    known.into_iter().map(|word| word.expect("every variable is a column")).collect();
                if let Some(row) = projected(filter, project, &row) {
                    add(row, copies);
                }
            }
        }
        Node::Antijoin { left, right, left_key, right_key } => {
            let right = input(*right);
            for (l, copies) in input(*left) {
                let meets = |r: &Row| left_key.iter().zip(right_key).all(|(&lk, &rk)| l[lk] == r[rk]);
                if !right.iter().any(|(r, &copies)| copies > 0 && meets(r)) {
                    add(l, copies);
                }
            }
        }
        Node::Union { inputs } => {
            inputs.iter().flat_map(|&from| input(from)).for_each(|(row, copies)| add(row, copies));
        }
        Node::Distinct { input: from } => {
            input(*from).into_iter().filter(|(_, copies)| *copies > 0).for_each(|(row, _)| add(row, 1));
        }
        Node::Reduce { input: from, key, aggregates } => {
            let mut groups: BTreeMap<Row, Vec<(Row, i64)>> = BTreeMap::new();
            for (row, copies) in input(*from).into_iter().filter(|(_, copies)| *copies != 0) {
                groups
                    .entry(key.iter().map(|&column| row[column]).collect())
                    .or_default()
                    .push((row, copies));
            }
            for (mut row, group) in groups {
                row.extend(aggregates.iter().map(|aggregate| aggregated(plan, *from, aggregate, &group)));
                add(row, 1);
            }
        }
    }
    result.retain(|_, copies| *copies != 0);
    result
}

fn type_of(plan: &Plan, index: usize, column: usize) -> Type {
    match &plan.nodes[index] {
        Node::Get { relation: RelationRef::Local(local) } => plan.relations[*local].columns[column].ty,
        Node::Get { relation: RelationRef::Import(import) } => plan.imports[*import].types[column],
        Node::Rows { types, .. } => types[column],
        Node::Distinct { input } => type_of(plan, *input, column),
        Node::Union { inputs } => type_of(plan, inputs[0], column),
        // The tests' aggregates are of numbers otherwise.
        _ => Type::Number,
    }
}

fn aggregated(plan: &Plan, from: usize, aggregate: &Aggregate, group: &[(Row, i64)]) -> u64 {
    let rows: i64 = group.iter().map(|(_, copies)| copies).sum();
    let Some(column) = aggregate.column else { return from_number(rows) };
    let words = || group.iter().map(|(row, _)| row[column]);
    let float = type_of(plan, from, column) == Type::Float;
    let integers: i128 =
        group.iter().map(|(row, copies)| i128::from(to_number(row[column])) * i128::from(*copies)).sum();
    let mut sorted = group.to_vec();
    sorted.sort_by_key(|(row, _)| row[column]);
    let floats: f64 = sorted.iter().map(|(row, copies)| to_float(row[column]) * *copies as f64).sum();
    match aggregate.func {
        AggregateFunc::Count => from_number(rows),
        AggregateFunc::Min => words().min().expect("not empty"),
        AggregateFunc::Max => words().max().expect("not empty"),
        AggregateFunc::Sum if float => from_float(floats),
        AggregateFunc::Sum => from_number(integers as i64),
        AggregateFunc::Mean if float => from_float(floats / rows as f64),
        AggregateFunc::Mean => from_float(integers as f64 / rows as f64),
    }
}

fn projected(filter: &[Expr], project: &[Expr], row: &[u64]) -> Option<Row> {
    for expr in filter {
        if eval(expr, row)? == 0 {
            return None;
        }
    }
    project.iter().map(|expr| eval(expr, row)).collect()
}

fn constant(value: &Value) -> u64 {
    match value {
        Value::Number(number) => from_number(*number),
        Value::Unsigned(number) => *number,
        Value::Float(bits) => from_float(f64::from_bits(*bits)),
        Value::Symbol(_) => unimplemented!("the engine's tests use numbers"),
        Value::Bool(truth) => from_bool(*truth),
    }
}

fn eval(expr: &Expr, row: &[u64]) -> Option<u64> {
    match expr {
        Expr::Col(index) => Some(row[*index]),
        Expr::Const(value) => Some(constant(value)),
        Expr::Call { func, args, .. } => {
            let args = args.iter().map(|arg| eval(arg, row).map(to_number)).collect::<Option<Vec<_>>>()?;
            match func {
                Func::Add => Some(from_number(args[0] + args[1])),
                Func::Sub => Some(from_number(args[0] - args[1])),
                Func::Mul => Some(from_number(args[0] * args[1])),
                Func::Div if args[1] == 0 => None,
                Func::Div => Some(from_number(args[0] / args[1])),
                Func::Lt => Some(from_bool(args[0] < args[1])),
                Func::Le => Some(from_bool(args[0] <= args[1])),
                // Of an instant: both are as many µs.
                Func::ToNumber => Some(from_number(args[0])),
                Func::Ne => Some(from_bool(args[0] != args[1])),
                _ => unimplemented!("{func:?} in the engine's tests"),
            }
        }
    }
}

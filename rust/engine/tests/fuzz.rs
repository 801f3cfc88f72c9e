//! Nothing that passes validation panics: random plans are built, fed and stepped, then dropped.
//!
//! Plans are made from a list of random choices, mostly of matching types and now and then not, so that most pass
//! validation and all its refusals are met. `FUZZ_SECONDS` is how long it goes on. What plans mean is compared in
//! `engine.rs`; here recursions may run for ever and products grow, within a bounded number of steps.

#[allow(dead_code, unreachable_pub, reason = "shared by tests, not a crate")]
mod common;
#[path = "../../protocol/tests/common/fuzzing.rs"]
mod fuzzing;

use std::collections::BTreeSet;

use common::choices::Choices;
use common::plans::PlanBuilder;
use dataflow_engine::{EmitBudget, Engine, EngineError};
use dataflow_protocol::dictionary;
use dataflow_protocol::ids::WorkerIndex;
use dataflow_protocol::plan::*;
use dataflow_protocol::rows::RowBuf;
use dataflow_protocol::value::{Column, Type, from_bool, from_float, from_number};
use proptest::collection::vec;
use proptest::prelude::*;
use timely::worker::Worker;

const TYPES: [Type; 5] = [Type::Number, Type::Unsigned, Type::Float, Type::Symbol, Type::Bool];
const TEXTS: &[&str] = &[
    "",
    "a",
    "7",
    "-5",
    "2.5",
    "seven b",
    "eight by",
    "longer than one word",
    "ünïcödé",
    "[",
    "(a|b)*",
    ".{2,}",
    "99999999999999999999",
];
const NUMBERS: &[i64] = &[0, 1, -1, 2, 3, 64, 65, i64::MIN, i64::MAX];
const FLOATS: &[f64] = &[0.0, -0.0, 1.5, -2.0, 1e300, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 5e-324];
/// Steps after each time; a diverging recursion is not waited for.
const STEPS: usize = 40;

fn types(choices: &mut Choices<'_>, most: usize) -> Vec<Type> {
    // Numbers are frequent, so that columns meet.
    (0..choices.below(most + 1))
        .map(|_| if choices.one_in(3) { choices.of(&TYPES) } else { Type::Number })
        .collect()
}

fn value(choices: &mut Choices<'_>, ty: Type) -> Value {
    match ty {
        Type::Number => Value::Number(choices.of(NUMBERS)),
        Type::Unsigned => Value::Unsigned(choices.of(NUMBERS) as u64),
        Type::Float => Value::Float(choices.of(FLOATS).to_bits()),
        Type::Bool => Value::Bool(choices.one_in(2)),
        _ => Value::Symbol(choices.of(TEXTS).to_owned()),
    }
}

fn rows(choices: &mut Choices<'_>, columns: &[Column]) -> RowBuf {
    let mut rows = RowBuf::new(columns.len());
    for _ in 0..choices.below(4) {
        let row: Vec<u64> = columns.iter().map(|column| word(&value(choices, column.ty))).collect();
        rows.push(&row);
    }
    rows
}

fn word(value: &Value) -> u64 {
    match value {
        Value::Number(number) => from_number(*number),
        Value::Unsigned(number) => *number,
        Value::Float(bits) => from_float(f64::from_bits(*bits)),
        Value::Bool(truth) => from_bool(*truth),
        Value::Symbol(text) => dictionary::announced(text.as_str()).expect("no two of these collide"),
    }
}

/// A plan in the making.
struct Maker<'a> {
    choices: Choices<'a>,
    plan: PlanBuilder,
    types: Vec<Vec<Type>>,
}

impl Maker<'_> {
    fn node(&mut self, node: Node, types: Vec<Type>) -> usize {
        self.types.push(types);
        self.plan.node(node)
    }

    /// A node, mostly one that exists.
    fn any(&mut self) -> usize {
        if self.choices.one_in(150) { self.choices.below(40) } else { self.choices.below(self.types.len()) }
    }

    fn types_of(&self, node: usize) -> Vec<Type> {
        self.types.get(node).cloned().unwrap_or_default()
    }

    /// A column of `columns`, mostly one of type `ty`.
    fn column(&mut self, columns: &[Type], ty: Option<Type>) -> Option<usize> {
        if self.choices.one_in(200) {
            return Some(self.choices.below(5));
        }
        let fitting: Vec<usize> =
            (0..columns.len()).filter(|&at| ty.is_none_or(|ty| columns[at] == ty)).collect();
        (!fitting.is_empty()).then(|| self.choices.of(&fitting))
    }

    /// An expression of type `ty`.
    fn expr(&mut self, columns: &[Type], ty: Type, depth: usize) -> Expr {
        if self.choices.below(3) > 0
            && let Some(column) = self.column(columns, Some(ty))
        {
            return Expr::Col(column);
        }
        if depth == 0 || self.choices.one_in(3) {
            return Expr::Const(value(&mut self.choices, ty));
        }
        use Func::*;
        let over = |maker: &mut Self| maker.choices.of(&TYPES);
        let (func, over, arguments) = match ty {
            Type::Bool => match self.choices.below(4) {
                0 => {
                    let over = over(self);
                    (self.choices.of(&[Eq, Ne, Lt, Le, Gt, Ge]), over, vec![over; 2])
                }
                1 => (self.choices.of(&[And, Or]), Type::Bool, vec![Type::Bool; 2]),
                2 => (Not, Type::Bool, vec![Type::Bool]),
                _ => (self.choices.of(&[Contains, Match]), Type::Symbol, vec![Type::Symbol; 2]),
            },
            Type::Symbol => match self.choices.below(3) {
                0 => (Cat, ty, vec![ty; 2 + self.choices.below(2)]),
                1 => (Substr, ty, vec![ty, Type::Number, Type::Number]),
                _ => {
                    let over = over(self);
                    (ToSymbol, over, vec![over])
                }
            },
            Type::Float => match self.choices.below(3) {
                0 => (self.choices.of(&[Add, Sub, Mul, Div, Pow, Min, Max]), ty, vec![ty; 2]),
                1 => (Neg, ty, vec![ty]),
                _ => {
                    let over = over(self);
                    (ToFloat, over, vec![over])
                }
            },
            _ => match self.choices.below(5) {
                0 => (self.choices.of(&[Add, Sub, Mul, Div, Mod, Pow, Min, Max]), ty, vec![ty; 2]),
                1 => {
                    (self.choices.of(&[Band, Bor, Bxor, Bshl, Bshr, Bshru, Land, Lor, Lxor]), ty, vec![ty; 2])
                }
                2 => (self.choices.of(&[Bnot, Lnot]), ty, vec![ty]),
                3 if ty == Type::Number => {
                    let (func, over) = self.choices.of(&[(Neg, Type::Number), (Strlen, Type::Symbol)]);
                    (func, over, vec![over])
                }
                _ => {
                    let over = over(self);
                    (if ty == Type::Number { ToNumber } else { ToUnsigned }, over, vec![over])
                }
            },
        };
        let over = if self.choices.one_in(150) { self.choices.of(&TYPES) } else { over };
        let mut args: Vec<Expr> = arguments.into_iter().map(|ty| self.expr(columns, ty, depth - 1)).collect();
        if self.choices.one_in(150) {
            args.pop();
        }
        Expr::Call { func, over, args }
    }

    fn filter(&mut self, columns: &[Type]) -> Vec<Expr> {
        (0..self.choices.below(5).saturating_sub(3)).map(|_| self.expr(columns, Type::Bool, 2)).collect()
    }

    fn project(&mut self, columns: &[Type], types: &[Type]) -> Vec<Expr> {
        types.iter().map(|&ty| self.expr(columns, ty, 2)).collect()
    }

    /// Key columns of two nodes, as many, mostly of equal types.
    fn keys(&mut self, left: usize, right: usize) -> (Vec<usize>, Vec<usize>) {
        let (left, right) = (self.types_of(left), self.types_of(right));
        let (mut left_key, mut right_key) = (Vec::new(), Vec::new());
        for _ in 0..self.choices.below(3) {
            if let Some(l) = self.column(&left, None)
                && let Some(r) = self.column(&right, left.get(l).copied())
            {
                left_key.push(l);
                right_key.push(r);
            }
        }
        (left_key, right_key)
    }

    /// Any operator over the nodes there are.
    fn operator(&mut self) -> usize {
        let input = self.any();
        let columns = self.types_of(input);
        match self.choices.below(8) {
            0 => {
                let types = types(&mut self.choices, 3);
                let filter = self.filter(&columns);
                let project = self.project(&columns, &types);
                self.node(Node::Map { input, filter, project }, types)
            }
            1 | 2 => {
                let right = self.any();
                let (left_key, right_key) = self.keys(input, right);
                let all = [columns, self.types_of(right)].concat();
                let types = types(&mut self.choices, 3);
                let filter = self.filter(&all);
                let project = self.project(&all, &types);
                self.node(Node::Join { left: input, right, left_key, right_key, filter, project }, types)
            }
            3 => {
                let right = self.any();
                let (left_key, right_key) = self.keys(input, right);
                self.node(Node::Antijoin { left: input, right, left_key, right_key }, columns)
            }
            4 => {
                let mut inputs = vec![input];
                for _ in 0..self.choices.below(3) {
                    let other = self.any();
                    if self.types_of(other) == columns || self.choices.one_in(20) {
                        inputs.push(other);
                    }
                }
                self.node(Node::Union { inputs }, columns)
            }
            5 => self.node(Node::Distinct { input }, columns),
            6 => self.multijoin(input),
            _ => {
                let key: Vec<usize> =
                    (0..self.choices.below(3)).filter_map(|_| self.column(&columns, None)).collect();
                let mut types: Vec<Type> =
                    key.iter().map(|&at| columns.get(at).copied().unwrap_or(Type::Number)).collect();
                let mut aggregates = Vec::new();
                for _ in 0..1 + self.choices.below(3) {
                    use AggregateFunc::*;
                    let func = self.choices.of(&[Count, Sum, Min, Max, Mean]);
                    let over = self.choices.of(&TYPES[..3]);
                    let column = if func == Count { None } else { self.column(&columns, Some(over)) };
                    if column.is_none() && func != Count && !self.choices.one_in(20) {
                        continue;
                    }
                    let of = column.and_then(|at| columns.get(at)).copied().unwrap_or(Type::Number);
                    types.push(if func == Mean { Type::Float } else { of });
                    aggregates.push(Aggregate { func, column });
                }
                self.node(Node::Reduce { input, key, aggregates }, types)
            }
        }
    }

    /// Several nodes whose columns are variables that they partly share, in paths that are mostly possible.
    fn multijoin(&mut self, first: usize) -> usize {
        let mut inputs = vec![first];
        inputs.extend((0..1 + self.choices.below(3)).map(|_| self.any()));
        let mut kinds: Vec<Type> = Vec::new();
        let mut variables: Vec<Vec<usize>> = Vec::new();
        for &input in &inputs {
            let mut own: Vec<usize> = Vec::new();
            for ty in self.types_of(input) {
                let known = (0..kinds.len()).find(|at| kinds[*at] == ty && !own.contains(at));
                own.push(match known {
                    Some(known) if !self.choices.one_in(3) => known,
                    _ => {
                        kinds.push(ty);
                        kinds.len() - 1
                    }
                });
            }
            variables.push(own);
        }
        let mut paths: Vec<Vec<Vec<usize>>> = Vec::new();
        for start in 0..inputs.len() {
            let mut path: Vec<Vec<usize>> =
                (0..inputs.len()).filter(|&at| at != start).map(|at| vec![at]).collect();
            if path.len() > 1 && self.choices.one_in(3) {
                // Possible if they lack the same.
                let last = path.pop().unwrap_or_default();
                path[0].extend(last);
            }
            paths.push(path);
        }
        if self.choices.one_in(30) {
            paths.pop();
        }
        let types = types(&mut self.choices, 3);
        let filter = self.filter(&kinds);
        let project = self.project(&kinds, &types);
        self.node(Node::Multijoin { inputs, variables, paths, filter, project }, types)
    }

    fn relation(&mut self, types: &[Type], input: Option<InputMode>) -> usize {
        let local = self.plan.0.relations.len();
        self.plan.relation(&format!("r{local}"), types, input);
        local
    }

    /// Relations in strata, over whatever nodes come about.
    fn strata(&mut self) {
        for _ in 0..1 + self.choices.below(3) {
            let recursive = self.choices.one_in(2);
            let mut relations: Vec<usize> = Vec::new();
            for _ in 0..1 + self.choices.below(2) {
                let inputs = self.plan.0.relations.iter().filter(|relation| relation.input.is_some()).count();
                // Now and then an input has rules as well.
                relations.push(if inputs > 0 && self.choices.one_in(6) {
                    self.choices.below(inputs)
                } else {
                    let types = types(&mut self.choices, 3);
                    self.relation(&types, None)
                });
            }
            let types = |maker: &Self, relation: usize| -> Vec<Type> {
                maker.plan.0.relations[relation].columns.iter().map(|column| column.ty).collect()
            };
            if recursive {
                for &relation in &relations {
                    let types = types(self, relation);
                    self.node(Node::Get { relation: RelationRef::Local(relation) }, types);
                }
            }
            for _ in 0..self.choices.below(4) {
                self.operator();
            }
            let mut definitions = Vec::new();
            for &relation in &relations {
                let types = types(self, relation);
                let input = self.any();
                let columns = self.types_of(input);
                let filter = self.filter(&columns);
                let project = self.project(&columns, &types);
                let node = self.node(Node::Map { input, filter, project }, types);
                definitions.push((RelationRef::Local(relation), node));
            }
            self.plan.stratum(recursive, &definitions);
            for relation in relations {
                let types = types(self, relation);
                self.node(Node::Get { relation: RelationRef::Local(relation) }, types);
            }
        }
    }
}

/// A plan by so many choices, which may import `base`. A frozen one has nothing else to read, but for a mistake.
fn make(choices: Choices<'_>, base: &Import) -> Plan {
    let mut maker = Maker { choices, plan: PlanBuilder::new("fuzz"), types: Vec::new() };
    maker.plan.0.frozen = maker.choices.one_in(3);
    let alone = maker.plan.0.frozen && !maker.choices.one_in(50);
    for _ in 0..if alone { 0 } else { 1 + maker.choices.below(3) } {
        let types = types(&mut maker.choices, 4);
        let mode = match maker.choices.below(4) {
            0 | 1 => InputMode::Set,
            2 => InputMode::Raw,
            _ => InputMode::Upsert(
                (0..maker.choices.below(3)).map(|_| maker.choices.below(types.len())).collect(),
            ),
        };
        let relation = maker.relation(&types, Some(mode));
        maker.node(Node::Get { relation: RelationRef::Local(relation) }, types);
    }
    if alone || maker.choices.one_in(2) {
        let relation = maker.plan.import(base.relation.0, &base.name, &base.types);
        maker.node(Node::Get { relation }, base.types.clone());
    }
    if maker.choices.one_in(3) {
        let types = types(&mut maker.choices, 3);
        let rows = (0..maker.choices.below(3))
            .map(|_| types.iter().map(|&ty| value(&mut maker.choices, ty)).collect())
            .collect();
        maker.node(Node::Rows { types: types.clone(), rows }, types);
    }
    if !maker.choices.one_in(8) {
        maker.strata();
    }
    maker.plan.0
}

/// Registers the plan and puts it to work; whether it passed validation.
fn exercise(worker: &mut Worker, choices: &[u32]) -> Result<bool, EngineError> {
    let (plan_choices, row_choices) = choices.split_at(choices.len() * 3 / 4);
    let mut rows = Choices::new(row_choices);
    let mut engine = Engine::new(worker);
    let mut base = PlanBuilder::new("base");
    let types = [Type::Number, Type::Symbol, Type::Number];
    base.relation("base", &types, Some(InputMode::Set));
    let imported = engine.register(worker, 1, &base.0)?.relations[0].id;
    let import = Import { relation: imported, name: "base".into(), types: types.to_vec() };
    let plan = make(Choices::new(plan_choices), &import);
    let text = serde_json::to_string(&plan).expect("a plan is JSON");
    assert_eq!(serde_json::from_str::<Plan>(&text).expect("what was written"), plan);
    let mut time = 2;
    turn(worker, &mut engine, &mut rows, time, &[]);
    time += 1;
    let registered = match engine.register(worker, time, &plan) {
        Ok(registered) => registered,
        Err(EngineError::Invalid(message)) => {
            assert!(!message.is_empty());
            assert!(engine.unregister(worker, time, "fuzz").is_err(), "nothing of it is there");
            turn(worker, &mut engine, &mut rows, time, &[]);
            engine.unregister(worker, time + 1, "base")?;
            return Ok(false);
        }
        Err(error) => return Err(error),
    };
    let ids: Vec<_> = registered.relations.iter().map(|relation| relation.id).collect();
    for &id in &ids {
        engine.interest(id, WorkerIndex(0), time - 1);
    }
    for _ in 0..3 {
        // At the time itself transactions came first, which these relations weren't there for.
        turn(worker, &mut engine, &mut rows, time + 1, &ids);
        time += 2;
    }
    engine.unregister(worker, time, "fuzz")?;
    turn(worker, &mut engine, &mut rows, time, &[]);
    engine.unregister(worker, time + 1, "base")?;
    Ok(true)
}

/// One time: rows for every input, a snapshot of every relation of `watched`, and a number of steps.
fn turn(
    worker: &mut Worker,
    engine: &mut Engine,
    rows: &mut Choices<'_>,
    time: u64,
    watched: &[dataflow_protocol::ids::RelationId],
) {
    for relation in engine.relations().iter().filter(|relation| relation.input.is_some()) {
        let (delete, insert) = (self::rows(rows, &relation.columns), self::rows(rows, &relation.columns));
        engine.touch(relation.id, time);
        engine.introduce(relation.id, time, &delete, &insert);
    }
    for (token, &relation) in watched.iter().enumerate() {
        engine.snapshot(relation, time, WorkerIndex(0), token as u64, Vec::new(), None);
    }
    engine.advance(time);
    for _ in 0..STEPS {
        worker.step();
        engine.work(&EmitBudget { rows: 50, slice_rows: 7 });
        for step in engine.take_steps() {
            let distinct: BTreeSet<_> = step.changes.rows.iter().collect();
            assert_eq!(distinct.len(), step.changes.diffs.len(), "each row stands once");
            assert!(step.changes.diffs.iter().all(|&diff| diff != 0));
        }
        drop(engine.take_slices());
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "how many plans pass says what this test is worth")]
fn what_passes_validation_does_not_panic() {
    let (passed, all) = (std::cell::Cell::new(0_u64), std::cell::Cell::new(0_u64));
    fuzzing::fuzz(env!("CARGO_MANIFEST_DIR"), "plans", &vec(any::<u32>(), 0..240), |choices| {
        let valid = timely::execute_directly(move |worker| exercise(worker, &choices));
        let valid = valid.map_err(|error| TestCaseError::fail(error.to_string()))?;
        passed.set(passed.get() + u64::from(valid));
        all.set(all.get() + 1);
        Ok(())
    });
    eprintln!("plans: {} of {} passed validation", passed.get(), all.get());
    assert!(passed.get() * 4 > all.get(), "most plans are to be built: {} of {}", passed.get(), all.get());
}

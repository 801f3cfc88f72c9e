//! Random plans mean what evaluation from scratch says: each is registered twice, to follow its imports and frozen, while these
//! change at random, on one worker and on several.
//!
//! Values are of a small domain, which a recursion doesn't leave, and what it negates or aggregates doesn't iterate: so all
//! come to an end. `FUZZ_SECONDS` is how long this goes on.

#[allow(dead_code, unreachable_pub, reason = "shared by tests, not a crate")]
mod common;
#[path = "../../protocol/tests/common/fuzzing.rs"]
mod fuzzing;

use std::panic::{AssertUnwindSafe, catch_unwind};

use common::choices::Choices;
use common::plans::{N, PlanBuilder, call, number};
use common::{Command, Row, check};
use dataflow_protocol::plan::*;
use dataflow_protocol::value::from_number;
use proptest::collection::vec;
use proptest::prelude::*;

/// Values are below this.
const DOMAIN: usize = 4;
/// Times of a script.
const TIMES: usize = 12;
/// More copies of a row than this would be too many in what they are multiplied with.
const COPIES: f64 = 1e6;

/// What is known of a node.
#[derive(Clone, Copy)]
struct Known {
    width: usize,
    /// At most so many copies of a row.
    copies: f64,
    /// Whether it depends on the relations of the recursion in which it stands.
    iterates: bool,
    /// Whether all values are of the domain.
    small: bool,
}

/// A plan in the making.
struct Maker<'a, 'c> {
    choices: &'a mut Choices<'c>,
    plan: PlanBuilder,
    nodes: Vec<Known>,
    /// Nodes before this one don't belong to the stratum.
    recursive: bool,
}

impl Maker<'_, '_> {
    fn add(&mut self, node: Node, known: Known) -> usize {
        self.nodes.push(known);
        self.plan.node(node)
    }

    /// A node that `fits`, as one without many copies of a row.
    fn input(&mut self, fits: impl Fn(&Known) -> bool) -> Option<usize> {
        let fitting: Vec<usize> = (0..self.nodes.len()).filter(|&at| fits(&self.nodes[at])).collect();
        let node = *fitting.get(self.choices.below(fitting.len()))?;
        let known = self.nodes[node];
        let many = known.copies > COPIES;
        Some(if many {
            self.add(Node::Distinct { input: node }, Known { copies: 1.0, ..known })
        } else {
            node
        })
    }

    /// Inside a recursion only what stays in the domain: else there could always be more of it.
    fn any(&mut self) -> usize {
        let recursive = self.recursive;
        self.input(|known| known.small || !recursive).expect("there are imports")
    }

    fn settled(&mut self) -> usize {
        let recursive = self.recursive;
        self.input(|known| !known.iterates && (known.small || !recursive)).expect("there are imports")
    }

    fn value(&mut self, width: usize) -> Expr {
        if width > 0 && !self.choices.one_in(4) {
            Expr::Col(self.choices.below(width))
        } else {
            number(self.choices.below(DOMAIN) as i64)
        }
    }

    fn filter(&mut self, width: usize) -> Vec<Expr> {
        let mut filter = Vec::new();
        while self.choices.one_in(4) {
            let func = self.choices.of(&[Func::Lt, Func::Le, Func::Ne]);
            filter.push(call(func, vec![self.value(width), self.value(width)]));
        }
        filter
    }

    fn project(&mut self, from: usize, width: usize) -> Vec<Expr> {
        (0..width).map(|_| self.value(from)).collect()
    }

    /// Key columns of two nodes, as many.
    fn keys(&mut self, left: usize, right: usize) -> (Vec<usize>, Vec<usize>) {
        let (left, right) = (self.nodes[left].width, self.nodes[right].width);
        let most = left.min(right);
        let key = |choices: &mut Choices<'_>, width: usize, length: usize| {
            let mut columns: Vec<usize> = (0..width).collect();
            (0..length).map(|_| columns.remove(choices.below(columns.len()))).collect::<Vec<_>>()
        };
        let length = self.choices.below(most + 1);
        (key(self.choices, left, length), key(self.choices, right, length))
    }

    fn operator(&mut self) -> usize {
        let rows = |width: usize| (DOMAIN as f64).powi(width as i32);
        let (input, width) = (self.any(), self.choices.below(4));
        let known = self.nodes[input];
        match self.choices.below(9) {
            0 => {
                let (filter, project) = (self.filter(known.width), self.project(known.width, width));
                let copies = known.copies * rows(known.width);
                self.add(Node::Map { input, filter, project }, Known { width, copies, ..known })
            }
            1..=3 => {
                let right = self.any();
                let other = self.nodes[right];
                let (left_key, right_key) = self.keys(input, right);
                let all = known.width + other.width;
                let (filter, project) = (self.filter(all), self.project(all, width));
                let made = Known {
                    width,
                    copies: known.copies * other.copies * rows(all),
                    iterates: known.iterates || other.iterates,
                    small: known.small && other.small,
                };
                self.add(Node::Join { left: input, right, left_key, right_key, filter, project }, made)
            }
            4 => {
                let right = self.settled();
                let (left_key, right_key) = self.keys(input, right);
                self.add(Node::Antijoin { left: input, right, left_key, right_key }, known)
            }
            5 => {
                let mut made = known;
                let mut inputs = vec![input];
                let recursive = self.recursive;
                let alike = |other: &Known| other.width == known.width && (other.small || !recursive);
                for _ in 0..self.choices.below(3) {
                    let other = self.input(alike).expect("the first is");
                    inputs.push(other);
                    let other = self.nodes[other];
                    made.copies += other.copies;
                    made.iterates |= other.iterates;
                    made.small &= other.small;
                }
                self.add(Node::Union { inputs }, made)
            }
            6 => self.add(Node::Distinct { input }, Known { copies: 1.0, ..known }),
            7 => self.reduce(),
            _ => self.multijoin(),
        }
    }

    fn reduce(&mut self) -> usize {
        let input = self.settled();
        let known = self.nodes[input];
        let key: Vec<usize> = (0..known.width).filter(|_| self.choices.one_in(2)).collect();
        use AggregateFunc::*;
        let func = if known.width == 0 { Count } else { self.choices.of(&[Count, Min, Max, Sum]) };
        let column = (func != Count).then(|| self.choices.below(known.width));
        let small = known.small && matches!(func, Min | Max);
        let made = Known { width: key.len() + 1, copies: 1.0, small, ..known };
        self.add(Node::Reduce { input, key, aggregates: vec![Aggregate { func, column }] }, made)
    }

    /// Two or three nodes that share variables, each met by itself.
    fn multijoin(&mut self) -> usize {
        let inputs: Vec<usize> = (0..2 + self.choices.below(2)).map(|_| self.settled()).collect();
        let (mut variables, mut count) = (Vec::new(), 0);
        for &input in &inputs {
            let mut own: Vec<usize> = Vec::new();
            for _ in 0..self.nodes[input].width {
                let variable = self.choices.below(count + 1);
                let variable = if own.contains(&variable) { count } else { variable };
                count = count.max(variable + 1);
                own.push(variable);
            }
            variables.push(own);
        }
        let others = |start: usize| (0..inputs.len()).filter(move |&at| at != start).map(|at| vec![at]);
        let paths = (0..inputs.len()).map(|start| others(start).collect()).collect();
        let width = self.choices.below(4);
        let (filter, project) = (self.filter(count), self.project(count, width));
        let known = inputs.iter().map(|&input| self.nodes[input]);
        let copies = known.clone().map(|known| known.copies).product::<f64>() * 4f64.powi(count as i32);
        let small = known.clone().all(|known| known.small);
        let made = Known { width, copies, iterates: false, small };
        self.add(Node::Multijoin { inputs, variables, paths, filter, project }, made)
    }

    /// One or two relations that depend on themselves and one another, or do not.
    fn stratum(&mut self) {
        self.recursive = !self.choices.one_in(3);
        let mut relations = Vec::new();
        for _ in 0..1 + self.choices.below(2) {
            let width = self.choices.below(4);
            let name = format!("r{}", self.plan.0.relations.len());
            relations.push((self.plan.relation(&name, &vec![N; width], None), width));
        }
        let first = self.nodes.len();
        if self.recursive {
            for &(relation, width) in &relations {
                self.add(Node::Get { relation }, Known { width, copies: 1.0, iterates: true, small: true });
            }
        }
        for _ in 0..1 + self.choices.below(5) {
            self.operator();
        }
        let mut definitions = Vec::new();
        for &(relation, width) in &relations {
            let parts = 1 + self.choices.below(2);
            let mut inputs = Vec::new();
            let mut small = true;
            for _ in 0..parts {
                let input = self.any();
                let known = self.nodes[input];
                small &= known.small;
                let (filter, project) = (self.filter(known.width), self.project(known.width, width));
                inputs.push(self.add(Node::Map { input, filter, project }, Known { width, ..known }));
            }
            let known = Known { width, copies: COPIES, iterates: self.recursive, small };
            definitions.push((relation, self.add(Node::Union { inputs }, known)));
        }
        self.plan.stratum(self.recursive, &definitions);
        // What iterated is no longer to be read but as what it came to.
        for known in &mut self.nodes[first..] {
            known.iterates = false;
            known.small = false;
        }
        for (&(relation, width), (_, node)) in relations.iter().zip(definitions) {
            let small = self.recursive || self.nodes[node].small;
            self.add(Node::Get { relation }, Known { width, copies: 1.0, iterates: false, small });
        }
    }
}

/// `pair` and `one`, which the plans import.
fn inputs(mode: InputMode) -> Plan {
    let mut plan = PlanBuilder::new("inputs");
    plan.relation("pair", &[N, N], Some(mode));
    plan.relation("one", &[N], Some(InputMode::Set));
    plan.0
}

fn plan(choices: &mut Choices<'_>) -> Plan {
    let mut plan = PlanBuilder::new("live");
    let imports = [(plan.import(1, "pair", &[N, N]), 2, 30.0), (plan.import(2, "one", &[N]), 1, 1.0)];
    let mut maker = Maker { choices, plan, nodes: Vec::new(), recursive: false };
    for (relation, width, copies) in imports {
        maker.add(Node::Get { relation }, Known { width, copies, iterates: false, small: true });
    }
    for _ in 0..1 + maker.choices.below(3) {
        maker.stratum();
    }
    maker.plan.0
}

/// The same under another name, frozen.
fn frozen(live: &Plan) -> Plan {
    let mut plan = Plan { name: "frozen".into(), digest: "frozen".into(), frozen: true, ..live.clone() };
    plan.relations.iter_mut().for_each(|relation| relation.name = format!("frozen {}", relation.name));
    plan
}

/// A plan, and what comes before and after it is registered.
fn script(choices: &[u32]) -> Vec<Vec<Command>> {
    let (plan_choices, row_choices) = choices.split_at(choices.len() / 2);
    let (mut choices, mut random) = (Choices::new(plan_choices), Choices::new(row_choices));
    let mode = match choices.below(3) {
        0 => InputMode::Set,
        1 => InputMode::Raw,
        _ => InputMode::Upsert(vec![0]),
    };
    let live = plan(&mut choices);
    let mut script = vec![vec![Command::Register(inputs(mode.clone()))]];
    script.resize_with(TIMES, Vec::new);
    script[1 + random.below(TIMES - 2)].push(Command::Register(frozen(&live)));
    script[1 + random.below(TIMES - 2)].push(Command::Register(live));
    // Copies of pairs that are there, so that none is taken away that isn't.
    let mut there: Vec<Row> = Vec::new();
    for commands in &mut script[1..] {
        for (relation, width) in [("pair", 2), ("one", 1)] {
            let mut row =
                || -> Row { (0..width).map(|_| from_number(random.below(DOMAIN) as i64)).collect() };
            let (mut delete, insert) = (vec![row()], vec![row(), row()]);
            if relation == "pair" && mode == InputMode::Raw {
                delete =
                    if there.is_empty() { Vec::new() } else { vec![there.remove(random.below(there.len()))] };
                there.extend(insert.iter().cloned());
            }
            if !random.one_in(4) {
                let owner = random.below(3);
                commands.push(Command::Transact { owner, relation: relation.into(), delete, insert });
            } else if relation == "pair" && mode == InputMode::Raw {
                there.truncate(there.len() - insert.len());
                there.extend(delete);
            }
        }
    }
    script
}

#[test]
fn frozen_or_not_a_plan_means_what_it_says() {
    fuzzing::fuzz(env!("CARGO_MANIFEST_DIR"), "meaning", &vec(any::<u32>(), 0..400), |choices| {
        let script = script(&choices);
        for workers in [1, 2] {
            let outcome = catch_unwind(AssertUnwindSafe(|| check(workers, script.clone())));
            outcome.map_err(|panic| {
                let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                TestCaseError::fail(format!("{workers} workers: {text}\n{script:?}"))
            })?;
        }
        Ok(())
    });
}

//! The scope of a recursive stratum: one level of iteration to a fixed point.

use std::collections::{BTreeMap, BTreeSet};

use dataflow_protocol::plan::{Node, RelationRef, Stratum};
use differential_dataflow::operators::iterate::Variable;
use timely::dataflow::Scope;

use super::context::{Context, Memo};
use super::nodes;
use super::outer::Outer;
use crate::analysis::Part;
use crate::container::updates::next_iteration;
use crate::container::{Inner, Updates};
use crate::expr::Project;
use crate::meter::Meter;
use crate::operators::aggregate_in_loop::reduce_in_loop;
use crate::operators::arrange::{arrange, readable};
use crate::operators::distinct::{distinct_in_loop, first_times};
use crate::operators::growing::{Grown, begun, grow};
use crate::operators::import::enter;
use crate::operators::linear::flatten;
use crate::operators::{ArrangedRows, Rows};
use crate::validate::{Valid, inputs};

/// What a recursive relation comes to.
pub(super) enum Outcome<'scope> {
    /// Its rows, each once.
    Rows(Rows<'scope, u64>),
    /// That it has begun, and what has come together when it has ended.
    Grown(Rows<'scope, u64>, Grown),
}

/// How the rows of a stratum come together.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Growth {
    /// They are counted, since they may go again: in a program that follows its imports, and where an iteration takes back
    /// what an earlier one has found (ADR 0005).
    None,
    /// What an iteration has found stays, but within one it takes all that is derived to tell what that is.
    Sorted,
    /// Whatever is derived stays.
    Plain,
}

/// Builds a recursive stratum; the rows of its relations, each once.
pub(super) fn render<'scope>(
    outer: &mut Outer<'scope, '_>,
    stratum: &Stratum,
) -> Vec<(usize, Outcome<'scope>)> {
    let scope = outer.scope;
    scope.iterative::<u32, _, _>(|inner| {
        let mut variables = Vec::new();
        let mut recursion = Recursion {
            scope: inner,
            outer,
            memo: Memo::default(),
            growth: Growth::None,
            variables: BTreeMap::new(),
        };
        for definition in &stratum.relations {
            let (variable, rows) = Variable::<Inner, Updates<Inner>>::new(inner, next_iteration());
            variables.push(variable);
            recursion.variables.insert(definition.relation, rows);
        }
        if recursion.outer.grows() {
            recursion.growth = recursion.growth_of(stratum);
        }
        let mut results = Vec::new();
        for (definition, variable) in stratum.relations.iter().zip(variables) {
            let relation = definition.relation;
            let mut rows = recursion.rows(definition.node);
            if let Some(transacted) = recursion.outer.transacted(relation) {
                rows = rows.concat(transacted.enter(inner));
            }
            let width = recursion.outer.valid.plan.relations[relation].columns.len();
            let meter = recursion.meter().of(Part::Relation(relation));
            let name = &recursion.outer.valid.plan.relations[relation].name;
            if recursion.growth == Growth::Plain {
                let (fresh, grown) = grow(rows, name, width, &meter);
                variable.set(fresh.clone());
                results.push((relation, Outcome::Grown(begun(fresh).leave(scope), grown)));
                continue;
            }
            let distinct = readable(if recursion.growth == Growth::Sorted {
                first_times(rows, "FirstInLoop", width, Some(name), &meter)
            } else {
                distinct_in_loop(arrange(rows, "CountInLoop", width, &meter), name, &meter)
            });
            let columns = Project::columns((0..width).collect());
            let result = flatten(&distinct, "RowsInLoop", columns, &meter.preparing());
            variable.set(result.clone());
            results.push((relation, Outcome::Rows(result.leave(scope))));
        }
        results
    })
}

struct Recursion<'inner, 'outer, 'scope, 'a> {
    scope: Scope<'inner, Inner>,
    outer: &'outer mut Outer<'scope, 'a>,
    memo: Memo<'inner, Inner>,
    growth: Growth,
    /// The stratum's relations, as of the iteration before.
    variables: BTreeMap<usize, Rows<'inner, Inner>>,
}

impl Recursion<'_, '_, '_, '_> {
    /// Whether a node changes with the iteration.
    fn iterates(&self, node: usize) -> bool {
        self.outer.valid.reads[node].iter().any(|relation| self.variables.contains_key(relation))
    }

    /// What follows from aggregates and negations in a stratum, those of its own rows and the others.
    fn growth_of(&self, stratum: &Stratum) -> Growth {
        let mut growth = Growth::Plain;
        let mut pending: Vec<usize> = stratum.relations.iter().map(|definition| definition.node).collect();
        let mut seen = BTreeSet::new();
        while let Some(node) = pending.pop() {
            let node = &self.outer.valid.plan.nodes[node];
            match node {
                Node::Antijoin { right, .. } if self.iterates(*right) => return Growth::None,
                Node::Reduce { .. } => return Growth::None,
                Node::Antijoin { .. } => growth = Growth::Sorted,
                _ => {}
            }
            let inputs = inputs(node).into_iter();
            pending.extend(inputs.filter(|&input| self.iterates(input) && seen.insert(input)));
        }
        growth
    }
}

impl<'inner> Context<'inner, Inner> for Recursion<'inner, '_, '_, '_> {
    fn valid(&self) -> &Valid<'_> {
        self.outer.valid
    }

    fn meter(&self) -> Meter {
        self.outer.meter()
    }

    fn memo(&mut self) -> &mut Memo<'inner, Inner> {
        &mut self.memo
    }

    fn build_rows(&mut self, node: usize) -> Rows<'inner, Inner> {
        if !self.iterates(node) {
            if self.growth == Growth::Plain {
                // As they come, rows may be taken away again that were there at an earlier time.
                let columns: Vec<usize> = (0..self.width(node)).collect();
                let (settled, meter) = (self.outer.arranged(node, &columns), self.meter_of(node).preparing());
                return flatten(&settled, "Settled", Project::columns(columns), &meter).enter(self.scope);
            }
            return self.outer.rows(node).enter(self.scope);
        }
        match &self.outer.valid.plan.nodes[node] {
            Node::Get { relation: RelationRef::Local(local) } => self.variables[local].clone(),
            Node::Reduce { input, key, aggregates } => {
                let rows = self.rows(*input);
                reduce_in_loop(rows, &self.outer.valid.types[*input], key, aggregates, &self.meter_of(node))
            }
            _ => nodes::build(self, node),
        }
    }

    fn grows(&self) -> bool {
        self.growth != Growth::None
    }

    fn find_arranged(&mut self, node: usize, key: &[usize]) -> Option<ArrangedRows<'inner, Inner>> {
        (!self.iterates(node)).then(|| enter(self.outer.arranged(node, key), self.scope))
    }

    fn find_keys(&mut self, node: usize, key: &[usize]) -> Option<ArrangedRows<'inner, Inner>> {
        (!self.iterates(node)).then(|| enter(self.outer.keys(node, key), self.scope))
    }
}

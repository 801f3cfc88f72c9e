//! The scope of a recursive stratum: one level of iteration to a fixed point.

use std::collections::BTreeMap;

use dataflow_protocol::plan::{Expr, Node, RelationRef, Stratum};
use differential_dataflow::operators::iterate::Variable;
use timely::dataflow::Scope;

use super::context::{Context, Memo, put_in_order};
use super::nodes::{self, concatenate};
use super::outer::{Outcome, Outer};
use super::rules::{Growth, Rules, Source};
use crate::analysis::Part;
use crate::container::updates::next_iteration;
use crate::container::{Inner, Updates};
use crate::expr::Project;
use crate::layout::Layout;
use crate::meter::Meter;
use crate::operators::aggregate_in_loop::reduce_in_loop;
use crate::operators::arrange::{arrange, readable};
use crate::operators::distinct::{distinct_in_loop, first_times};
use crate::operators::growing::{begun, grow};
use crate::operators::import::enter;
use crate::operators::linear::flatten;
use crate::operators::{ArrangedRows, Rows};
use crate::validate::Valid;

/// Builds a recursive stratum; the rows of its relations, each once.
///
/// What an iteration derives is fed back before it is told what of it is new: so what there is of a relation stands in one
/// arrangement, which is also what its rules join it by (ADR 0026).
pub(super) fn render<'scope, 'a>(
    outer: &mut Outer<'scope, 'a>,
    stratum: &'a Stratum,
) -> Vec<(usize, Outcome<'scope>)> {
    let scope = outer.scope;
    let rules = Rules::new(outer.valid, stratum);
    let by_rules = rules.growth();
    let growth = if outer.grows() { by_rules } else { Growth::None };
    let defined = rules.parts(by_rules, growth != Growth::Plain);
    scope.iterative::<u32, _, _>(|inner| {
        let mut recursion =
            Recursion { scope: inner, outer, rules, memo: Memo::default(), growth, found: BTreeMap::new() };
        let (mut results, mut variables) = (Vec::new(), Vec::new());
        for parts in defined {
            let (variable, derived) = Variable::<Inner, Updates<Inner>>::new(inner, next_iteration());
            let mut rows = recursion.all(&parts.entering, &parts.layout);
            rows.push(derived);
            let outcome = recursion.settle(parts.relation, concatenate(rows), &parts.layout);
            results.push((parts.relation, outcome));
            variables.push((variable, parts));
        }
        for (variable, parts) in variables {
            let rows = recursion.all(&parts.iterating, &parts.layout);
            variable.set(concatenate(rows));
        }
        results
    })
}

struct Recursion<'inner, 'outer, 'scope, 'a> {
    scope: Scope<'inner, Inner>,
    outer: &'outer mut Outer<'scope, 'a>,
    rules: Rules<'a>,
    memo: Memo<'inner, Inner>,
    growth: Growth,
    /// The stratum's relations that are built, as of an iteration.
    found: BTreeMap<usize, Found<'inner>>,
}

/// What there is of a relation.
enum Found<'inner> {
    /// Its rows as they come.
    Grown(Rows<'inner, Inner>),
    Settled(Layout, Box<ArrangedRows<'inner, Inner>>),
}

impl<'inner, 'scope> Recursion<'inner, '_, 'scope, '_> {
    /// The rows that there are of these, laid out so.
    fn all(&mut self, sources: &[Source], layout: &Layout) -> Vec<Rows<'inner, Inner>> {
        let order = layout.order();
        let rows = |source: &Source| match *source {
            Source::Node(node) => Some(nodes::in_order(self, node, &order)),
            Source::Transacted(relation) => {
                let rows = self.outer.transacted(relation)?.enter(self.scope);
                let meter = self.meter().of(Part::Relation(relation)).preparing();
                Some(put_in_order(rows, &order, layout.width(), &meter))
            }
        };
        sources.iter().filter_map(rows).collect()
    }

    /// Each row once of what has been derived of a relation, for the rules in this layout, and as the result.
    fn settle(&mut self, relation: usize, rows: Rows<'inner, Inner>, layout: &Layout) -> Outcome<'scope> {
        let declared = &self.outer.valid.plan.relations[relation];
        let (name, width) = (&declared.name, declared.columns.len());
        let meter = self.meter().of(Part::Relation(relation));
        if self.growth == Growth::Plain {
            let (rows, grown) = grow(rows, name, width, &meter);
            self.found.insert(relation, Found::Grown(rows.clone()));
            return Outcome::Grown(begun(rows).leave(self.outer.scope), grown);
        }
        let settled = readable(if self.growth == Growth::Sorted {
            first_times(rows, "FirstInLoop", layout, Some(name), &meter)
        } else {
            distinct_in_loop(arrange(rows, "CountInLoop", layout.key().len(), &meter), name, &meter)
        });
        let kept = self.outer.kept_by.get(&relation).map_or(layout.clone(), |key| Layout::by(key, width));
        let columns = Project::columns(kept.within(layout));
        let rows = flatten(&settled, "RowsInLoop", columns, &meter.preparing());
        self.found.insert(relation, Found::Settled(layout.clone(), Box::new(settled)));
        Outcome::Rows { rows: rows.leave(self.outer.scope), layout: kept, set: true }
    }

    fn found(&self, relation: usize) -> &Found<'inner> {
        let Some(found) = self.found.get(&relation) else {
            unreachable!("what iterates is built when all of the stratum's relations are there")
        };
        found
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
        if !self.rules.iterates(node) {
            if self.growth == Growth::Plain {
                // As they come, rows may be taken away again that were there at an earlier time.
                let columns: Vec<usize> = (0..self.width(node)).collect();
                let (settled, meter) = (self.outer.arranged(node, &columns), self.meter_of(node).preparing());
                return flatten(&settled, "Settled", Project::columns(columns), &meter).enter(self.scope);
            }
            return self.outer.rows(node).enter(self.scope);
        }
        match &self.outer.valid.plan.nodes[node] {
            Node::Get { relation: RelationRef::Local(local) } => match self.found(*local) {
                Found::Grown(rows) => rows.clone(),
                Found::Settled(layout, settled) => {
                    let columns = Project::columns(layout.positions());
                    flatten(settled, "RowsInLoop", columns, &self.meter_of(node).preparing())
                }
            },
            Node::Reduce { input, key, aggregates } => {
                let rows = self.rows(*input);
                reduce_in_loop(rows, &self.outer.valid.types[*input], key, aggregates, &self.meter_of(node))
            }
            _ => nodes::build(self, node),
        }
    }

    fn build_map(
        &mut self,
        node: usize,
        input: usize,
        filter: &[Expr],
        project: &[Expr],
    ) -> Rows<'inner, Inner> {
        nodes::mapped(self, node, input, (filter, project))
    }

    fn is_built_here(&self, node: usize) -> bool {
        self.rules.iterates(node)
    }

    fn grows(&self) -> bool {
        self.growth != Growth::None
    }

    fn find_arranged(&mut self, node: usize, key: &[usize]) -> Option<ArrangedRows<'inner, Inner>> {
        if !self.rules.iterates(node) {
            return Some(enter(self.outer.arranged(node, key), self.scope));
        }
        let Node::Get { relation: RelationRef::Local(local) } = self.outer.valid.plan.nodes[node] else {
            return None;
        };
        match self.found(local) {
            Found::Settled(layout, settled) if layout.key() == key => Some((**settled).clone()),
            _ => None,
        }
    }

    fn find_keys(&mut self, node: usize, key: &[usize]) -> Option<ArrangedRows<'inner, Inner>> {
        (!self.rules.iterates(node)).then(|| enter(self.outer.keys(node, key), self.scope))
    }
}

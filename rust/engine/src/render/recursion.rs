//! The scope of a recursive stratum: one level of iteration to a fixed point.

use std::collections::{BTreeMap, BTreeSet};

use dataflow_protocol::plan::{Definition, Expr, Node, RelationRef, Stratum};
use differential_dataflow::operators::iterate::Variable;
use timely::dataflow::Scope;

use super::context::{Context, Memo, put_in_order};
use super::keys::{first_by_relation, joined, made_of};
use super::nodes::{self, concatenate};
use super::outer::{Outcome, Outer};
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
///
/// What an iteration derives is fed back before it is told what of it is new: so what there is of a relation stands in one
/// arrangement, which is also what its rules join it by (ADR 0026).
pub(super) fn render<'scope>(
    outer: &mut Outer<'scope, '_>,
    stratum: &Stratum,
) -> Vec<(usize, Outcome<'scope>)> {
    let scope = outer.scope;
    scope.iterative::<u32, _, _>(|inner| {
        let mut recursion = Recursion {
            scope: inner,
            outer,
            memo: Memo::default(),
            growth: Growth::None,
            relations: stratum.relations.iter().map(|definition| (definition.relation, None)).collect(),
        };
        let growth = recursion.growth_of(stratum);
        if recursion.outer.grows() {
            recursion.growth = growth;
        }
        let keys = recursion.keys(stratum);
        let (mut results, mut variables) = (Vec::new(), Vec::new());
        for definition in &stratum.relations {
            let (variable, derived) = Variable::<Inner, Updates<Inner>>::new(inner, next_iteration());
            let parts = recursion.parts(definition, growth, &keys);
            let mut rows = recursion.all(&parts.entering, &parts.layout);
            rows.push(derived);
            let outcome = recursion.settle(definition.relation, concatenate(rows), &parts.layout);
            results.push((definition.relation, outcome));
            variables.push((variable, parts));
        }
        for (variable, parts) in variables {
            let rows = recursion.all(&parts.iterating, &parts.layout);
            variable.set(concatenate(rows));
        }
        results
    })
}

/// What defines a relation.
struct Parts {
    layout: Layout,
    /// What is there from the beginning.
    entering: Vec<Source>,
    /// What each iteration derives of the one before.
    iterating: Vec<Source>,
}

/// Where rows of a relation come from.
#[derive(Clone, Copy)]
enum Source {
    Node(usize),
    Transacted(usize),
}

struct Recursion<'inner, 'outer, 'scope, 'a> {
    scope: Scope<'inner, Inner>,
    outer: &'outer mut Outer<'scope, 'a>,
    memo: Memo<'inner, Inner>,
    growth: Growth,
    /// The stratum's relations, as of an iteration; none where that isn't built yet.
    relations: BTreeMap<usize, Option<Found<'inner>>>,
}

/// What there is of a relation.
enum Found<'inner> {
    /// Its rows as they come.
    Grown(Rows<'inner, Inner>),
    Settled(Layout, Box<ArrangedRows<'inner, Inner>>),
}

impl<'inner, 'scope> Recursion<'inner, '_, 'scope, '_> {
    /// Whether a node changes with the iteration.
    fn iterates(&self, node: usize) -> bool {
        self.outer.valid.reads[node].iter().any(|relation| self.relations.contains_key(relation))
    }

    /// What the rules of a stratum join its relations by.
    fn keys(&self, stratum: &Stratum) -> BTreeMap<usize, Vec<usize>> {
        if self.growth == Growth::Plain {
            return BTreeMap::new();
        }
        let iterating =
            |read| matches!(read, RelationRef::Local(local) if self.relations.contains_key(&local));
        first_by_relation(&joined(self.outer.valid, self.iterating(stratum), iterating))
    }

    /// Divides what defines a relation. Where an iteration takes back what an earlier one has found, all comes with the same one,
    /// the first: what is found depends on it.
    fn parts(&self, definition: &Definition, growth: Growth, keys: &BTreeMap<usize, Vec<usize>>) -> Parts {
        let width = self.width(definition.node);
        let valid = self.outer.valid;
        let (mut entering, mut iterating) = (Vec::new(), vec![definition.node]);
        if let Node::Union { inputs } = &valid.plan.nodes[definition.node]
            && growth != Growth::None
            && valid.uses[definition.node] == 1
            // A plan may say of a relation that it is recursive, though nothing of it is.
            && inputs.iter().any(|&input| self.iterates(input))
        {
            (iterating, entering) = inputs.iter().partition(|&&input| self.iterates(input));
        }
        let sources = |nodes: Vec<usize>| nodes.into_iter().map(Source::Node).collect();
        let mut parts = Parts {
            layout: Layout::by_or_whole(keys.get(&definition.relation), width),
            entering: sources(entering),
            iterating: sources(iterating),
        };
        let transacted = if growth == Growth::None { &mut parts.iterating } else { &mut parts.entering };
        transacted.push(Source::Transacted(definition.relation));
        parts
    }

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
            self.relations.insert(relation, Some(Found::Grown(rows.clone())));
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
        self.relations.insert(relation, Some(Found::Settled(layout.clone(), Box::new(settled))));
        Outcome::Rows { rows: rows.leave(self.outer.scope), layout: kept, set: true }
    }

    /// The nodes that a stratum's relations are made of and that change with the iteration, and what defines its relations.
    fn iterating(&self, stratum: &Stratum) -> BTreeSet<usize> {
        made_of(self.outer.valid, stratum, |node| self.iterates(node))
    }

    /// What follows from aggregates and negations in a stratum, those of its own rows and the others.
    fn growth_of(&self, stratum: &Stratum) -> Growth {
        let mut growth = Growth::Plain;
        for node in self.iterating(stratum) {
            match &self.outer.valid.plan.nodes[node] {
                Node::Antijoin { right, .. } if self.iterates(*right) => return Growth::None,
                Node::Reduce { .. } => return Growth::None,
                Node::Antijoin { .. } => growth = Growth::Sorted,
                _ => {}
            }
        }
        growth
    }

    fn found(&self, relation: usize) -> &Found<'inner> {
        let Some(Some(found)) = self.relations.get(&relation) else {
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
        self.iterates(node)
    }

    fn grows(&self) -> bool {
        self.growth != Growth::None
    }

    fn find_arranged(&mut self, node: usize, key: &[usize]) -> Option<ArrangedRows<'inner, Inner>> {
        if !self.iterates(node) {
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
        (!self.iterates(node)).then(|| enter(self.outer.keys(node, key), self.scope))
    }
}

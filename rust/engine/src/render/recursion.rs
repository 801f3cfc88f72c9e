//! The scope of a recursive stratum: one level of iteration to a fixed point.

use std::collections::BTreeMap;

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
use crate::operators::distinct::distinct_in_loop;
use crate::operators::import::enter;
use crate::operators::linear::flatten;
use crate::operators::{ArrangedRows, Rows};
use crate::validate::Valid;

/// Builds a recursive stratum; the rows of its relations, each once.
pub(super) fn render<'scope>(
    outer: &mut Outer<'scope, '_>,
    stratum: &Stratum,
) -> Vec<(usize, Rows<'scope, u64>)> {
    let scope = outer.scope;
    scope.iterative::<u32, _, _>(|inner| {
        let mut variables = Vec::new();
        let mut recursion =
            Recursion { scope: inner, outer, memo: Memo::default(), variables: BTreeMap::new() };
        for definition in &stratum.relations {
            let (variable, rows) = Variable::<Inner, Updates<Inner>>::new(inner, next_iteration());
            variables.push(variable);
            recursion.variables.insert(definition.relation, rows);
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
            let counted = arrange(rows, "CountInLoop", width, &meter);
            let columns = Project::columns((0..width).collect());
            let distinct = readable(distinct_in_loop(counted, name, &meter));
            let result = flatten(&distinct, "RowsInLoop", columns, &meter.preparing());
            variable.set(result.clone());
            results.push((relation, result.leave(scope)));
        }
        results
    })
}

struct Recursion<'inner, 'outer, 'scope, 'a> {
    scope: Scope<'inner, Inner>,
    outer: &'outer mut Outer<'scope, 'a>,
    memo: Memo<'inner, Inner>,
    /// The stratum's relations, as of the iteration before.
    variables: BTreeMap<usize, Rows<'inner, Inner>>,
}

impl Recursion<'_, '_, '_, '_> {
    /// Whether a node changes with the iteration.
    fn iterates(&self, node: usize) -> bool {
        self.outer.valid.reads[node].iter().any(|relation| self.variables.contains_key(relation))
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

    fn find_arranged(&mut self, node: usize, key: &[usize]) -> Option<ArrangedRows<'inner, Inner>> {
        (!self.iterates(node)).then(|| enter(self.outer.arranged(node, key), self.scope))
    }

    fn find_keys(&mut self, node: usize, key: &[usize]) -> Option<ArrangedRows<'inner, Inner>> {
        (!self.iterates(node)).then(|| enter(self.outer.keys(node, key), self.scope))
    }
}

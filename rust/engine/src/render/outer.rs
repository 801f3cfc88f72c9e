//! The scope of the cluster's times.

use std::collections::BTreeMap;
use std::rc::Rc;

use dataflow_protocol::ids::RelationId;
use dataflow_protocol::plan::{Definition, Expr, InputMode, Node, RelationRef};
use differential_dataflow::operators::arrange::Arranged;
use timely::dataflow::Scope;

use super::context::{Context, Memo, each_once, put_in_order};
use super::facts::facts;
use super::keys::kept_by;
use super::multijoin;
use super::nodes;
use super::recursion;
use crate::analysis::Part;
use crate::expr::Project;
use crate::expr::eval::constant;
use crate::faults::Fault;
use crate::layout::{Kept, Layout};
use crate::meter::Meter;
use crate::operators::aggregate::reduce;
use crate::operators::arrange::{arrange, readable};
use crate::operators::deliver::{Delivery, Finished, deliver};
use crate::operators::growing::{Grown, arrange_grown};
use crate::operators::import::{Button, import, import_frozen};
use crate::operators::linear::{fail, flatten};
use crate::operators::window::{Clock, window};
use crate::operators::{ArrangedRows, Rows};
use crate::trace::Agent;
use crate::validate::Valid;

/// A relation maintained by another dataflow, with the arrangements of it that the program may read.
pub(crate) struct External {
    pub(crate) base: Kept,
    /// Whether each row stands once.
    pub(crate) set: bool,
    /// By key columns that `base` isn't arranged by.
    pub(crate) arrangements: BTreeMap<Vec<usize>, Agent<u64>>,
}

/// What a program's dataflow reads of others.
pub(crate) struct Elsewhere<'scope> {
    /// An entry for every import, and for every local input relation (its transacted rows).
    pub(crate) relations: BTreeMap<RelationRef, External>,
    /// If the program imports the clock's relation.
    pub(crate) clock: Option<Clock<'scope>>,
}

/// A relation that a program's dataflow maintains.
pub(crate) struct Derived {
    /// Its local index.
    pub(crate) relation: usize,
    /// Its rows, each once.
    pub(crate) base: Kept,
    /// The way out.
    pub(crate) delivery: Delivery,
}

/// What a program's dataflow leaves behind.
pub(crate) struct Built {
    pub(crate) relations: Vec<Derived>,
    /// To be pressed before the dataflow is dropped.
    pub(crate) buttons: Vec<Button>,
}

/// Builds the dataflow of a program at `time`.
pub(crate) fn render<'scope>(
    scope: Scope<'scope, u64>,
    valid: &Valid<'_>,
    time: u64,
    ids: &[RelationId],
    elsewhere: Elsewhere<'scope>,
    finished: &Finished,
    meter: &Meter,
) -> Built {
    let mut outer = Outer {
        scope,
        valid,
        time,
        externals: elsewhere.relations,
        clock: elsewhere.clock,
        meter: meter.clone(),
        memo: Memo::default(),
        imported: BTreeMap::new(),
        kept_by: kept_by(valid),
        derived: BTreeMap::new(),
        buttons: Vec::new(),
    };
    let mut relations = Vec::new();
    for stratum in &valid.plan.strata {
        let results = if stratum.recursive {
            recursion::render(&mut outer, stratum)
        } else {
            stratum
                .relations
                .iter()
                .map(|definition| (definition.relation, outer.define(definition)))
                .collect()
        };
        for (relation, outcome) in results {
            let meter = meter.of(Part::Relation(relation));
            let (arranged, layout) = outer.keep(relation, outcome, &meter);
            let base = Kept { agent: arranged.trace.clone(), layout: layout.clone() };
            let arranged = readable(arranged);
            let (columns, finished) = (layout.positions(), Rc::clone(finished));
            let delivery = deliver(&arranged, ids[relation], columns, finished, &meter.preparing());
            relations.push(Derived { relation, base, delivery });
            outer.derived.insert(relation, (layout, arranged));
        }
    }
    Built { relations, buttons: outer.buttons }
}

/// What a relation comes to.
pub(super) enum Outcome<'scope> {
    /// Rows, laid out as the relation is to be kept.
    Rows {
        rows: Rows<'scope, u64>,
        layout: Layout,
        /// Whether each is known to stand once.
        set: bool,
    },
    /// That it has begun, and what has come together when it has ended.
    Grown(Rows<'scope, u64>, Grown),
}

pub(super) struct Outer<'scope, 'a> {
    pub(super) scope: Scope<'scope, u64>,
    pub(super) valid: &'a Valid<'a>,
    time: u64,
    externals: BTreeMap<RelationRef, External>,
    clock: Option<Clock<'scope>>,
    meter: Meter,
    memo: Memo<'scope, u64>,
    /// Imported arrangements; the key is absent for a relation as it is kept.
    imported: BTreeMap<(RelationRef, Option<Vec<usize>>), ArrangedRows<'scope, u64>>,
    /// What relations of this dataflow are joined by, and so kept by.
    pub(super) kept_by: BTreeMap<usize, Vec<usize>>,
    /// Relations of this dataflow as they are kept.
    derived: BTreeMap<usize, (Layout, ArrangedRows<'scope, u64>)>,
    buttons: Vec<Button>,
}

impl<'scope> Outer<'scope, '_> {
    /// What defines a relation.
    fn define(&mut self, definition: &Definition) -> Outcome<'scope> {
        let width = self.width(definition.node);
        let layout = Layout::by_or_whole(self.kept_by.get(&definition.relation), width);
        let order = layout.order();
        let rows = nodes::in_order(self, definition.node, &order);
        let Some(transacted) = self.transacted(definition.relation) else {
            return Outcome::Rows { rows, layout, set: self.is_set(definition.node) };
        };
        let meter = self.meter.of(Part::Relation(definition.relation)).preparing();
        let rows = rows.concat(put_in_order(transacted, &order, width, &meter));
        Outcome::Rows { rows, layout, set: false }
    }

    /// Arranges a relation, each row once, in the layout given back.
    fn keep(
        &self,
        relation: usize,
        outcome: Outcome<'scope>,
        meter: &Meter,
    ) -> (Arranged<'scope, Agent<u64>>, Layout) {
        let declared = &self.valid.plan.relations[relation];
        let (name, width) = (&declared.name, declared.columns.len());
        let failing = |rows| if meter.fault() == Some(Fault::Operator) { fail(rows) } else { rows };
        match outcome {
            Outcome::Grown(begun, grown) => {
                (arrange_grown(failing(begun), grown, name, meter), Layout::whole(width))
            }
            Outcome::Rows { rows, layout, set: true } => {
                (arrange(failing(rows), name, layout.key().len(), meter), layout)
            }
            Outcome::Rows { rows, layout, set: false } => {
                (each_once(failing(rows), name, &layout, self.grows(), meter), layout)
            }
        }
    }

    /// The transacted rows of a local relation, if it is an input.
    pub(super) fn transacted(&mut self, relation: usize) -> Option<Rows<'scope, u64>> {
        let reference = RelationRef::Local(relation);
        self.externals
            .contains_key(&reference)
            .then(|| self.external_rows(reference, None, &self.meter.aside(Part::Relation(relation))))
    }

    /// Whether a node's rows stand once each by what it is.
    fn is_set(&self, node: usize) -> bool {
        match &self.valid.plan.nodes[node] {
            Node::Distinct { .. } | Node::Reduce { .. } => true,
            Node::Get { relation } => self.is_set_relation(*relation),
            Node::Antijoin { left: input, .. } | Node::Range { input, .. } | Node::Window { input, .. } => {
                self.is_set(*input)
            }
            Node::Union { inputs } => matches!(inputs[..], [only] if self.is_set(only)),
            Node::Rows { .. } | Node::Map { .. } | Node::Join { .. } | Node::Multijoin { .. } => false,
        }
    }

    fn is_set_relation(&self, relation: RelationRef) -> bool {
        match relation {
            RelationRef::Local(local) => self.valid.plan.relations[local].input != Some(InputMode::Raw),
            RelationRef::Import(_) => self.externals.get(&relation).is_some_and(|external| external.set),
        }
    }

    /// The relation that a node is, if it is maintained elsewhere and nothing is added to it here.
    fn external(&self, node: usize) -> Option<RelationRef> {
        let Node::Get { relation } = self.valid.plan.nodes[node] else { return None };
        let derived_here = matches!(relation, RelationRef::Local(local) if self.derived.contains_key(&local));
        (!derived_here && self.externals.contains_key(&relation)).then_some(relation)
    }

    fn import(&mut self, relation: RelationRef, key: Option<&[usize]>) -> ArrangedRows<'scope, u64> {
        let kept_by = self.externals[&relation].base.layout.key();
        let index = (relation, key.filter(|key| *key != kept_by).map(<[_]>::to_vec));
        if let Some(arranged) = self.imported.get(&index) {
            return arranged.clone();
        }
        let Some(external) = self.externals.get_mut(&relation) else {
            unreachable!("asked for by `external`")
        };
        let agent = match &index.1 {
            Some(key) => external.arrangements.get_mut(key),
            None => Some(&mut external.base.agent),
        };
        let Some(agent) = agent else { unreachable!("the catalog built what the plan joins") };
        let (arranged, button) = if self.valid.plan.frozen {
            import_frozen(agent, self.scope, self.time)
        } else {
            import(agent, self.scope, "Import", self.time)
        };
        self.buttons.push(button);
        self.imported.insert(index, arranged.clone());
        arranged
    }

    /// The rows of an external relation, put through `project` (over its columns) if there is one.
    fn external_rows(
        &mut self,
        relation: RelationRef,
        project: Option<(&[Expr], &[Expr])>,
        meter: &Meter,
    ) -> Rows<'scope, u64> {
        let arranged = self.import(relation, None);
        let at = self.externals[&relation].base.layout.positions();
        let project = match project {
            Some((filter, project)) => nodes::compile::<u64, _>(self, filter, project, |column| at[column]),
            None => Project::columns(at),
        };
        flatten(&arranged, "Rows", project, meter)
    }
}

impl<'scope> Context<'scope, u64> for Outer<'scope, '_> {
    fn valid(&self) -> &Valid<'_> {
        self.valid
    }

    fn meter(&self) -> Meter {
        self.meter.clone()
    }

    fn memo(&mut self) -> &mut Memo<'scope, u64> {
        &mut self.memo
    }

    fn build_rows(&mut self, node: usize) -> Rows<'scope, u64> {
        match &self.valid.plan.nodes[node] {
            Node::Get { relation } => match (self.external(node), relation) {
                (Some(relation), _) => self.external_rows(relation, None, &self.meter_of(node)),
                (None, RelationRef::Local(local)) => {
                    let Some((layout, derived)) = self.derived.get(local) else {
                        unreachable!("strata are in order")
                    };
                    let columns = Project::columns(layout.positions());
                    flatten(derived, "Rows", columns, &self.meter_of(node))
                }
                (None, RelationRef::Import(_)) => unreachable!("every import is external"),
            },
            Node::Rows { types, rows } => {
                let word =
                    |value| constant(value).unwrap_or_else(|error| unreachable!("interned before: {error}"));
                let rows = rows.iter().map(|row| row.iter().map(word).collect()).collect();
                facts(self.scope, types.len(), rows, self.time)
            }
            Node::Reduce { input, key, aggregates } => {
                let rows = self.rows(*input);
                reduce(rows, &self.valid.types[*input], key, aggregates, &self.meter_of(node))
            }
            Node::Multijoin { .. } => multijoin::build(self, node),
            Node::Window { input, since, until } => {
                let bounds: Vec<Expr> = since.iter().chain(until).cloned().collect();
                let bounds = nodes::compile::<u64, _>(self, &[], &bounds, |column| column);
                let (rows, width) = (self.rows(*input), self.width(node));
                let Some(clock) = self.clock.clone() else {
                    unreachable!("a window's plan imports the clock")
                };
                window(rows, clock, width, bounds, since.len(), &self.meter_of(node))
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
    ) -> Rows<'scope, u64> {
        match self.external(input) {
            // Fused into reading what is maintained elsewhere.
            Some(relation) => self.external_rows(relation, Some((filter, project)), &self.meter_of(node)),
            None => nodes::mapped(self, node, input, (filter, project)),
        }
    }

    fn is_built_here(&self, _: usize) -> bool {
        true
    }

    fn grows(&self) -> bool {
        // All that there is comes at one time.
        self.valid.plan.frozen
    }

    fn find_arranged(&mut self, node: usize, key: &[usize]) -> Option<ArrangedRows<'scope, u64>> {
        if let Some(relation) = self.external(node)
            && !self.valid.plan.frozen
        {
            return Some(self.import(relation, Some(key)));
        }
        let Node::Get { relation: RelationRef::Local(local) } = self.valid.plan.nodes[node] else {
            return None;
        };
        self.derived.get(&local).filter(|(layout, _)| layout.key() == key).map(|(_, derived)| derived.clone())
    }

    fn find_keys(&mut self, node: usize, key: &[usize]) -> Option<ArrangedRows<'scope, u64>> {
        let Node::Get { relation } = self.valid.plan.nodes[node] else { return None };
        let whole = key.len() == self.width(node) && (0..key.len()).all(|column| key.contains(&column));
        (whole && self.is_set_relation(relation)).then(|| self.arranged(node, key))
    }
}

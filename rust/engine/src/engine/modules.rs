//! Programs come and go: what they define becomes relations and dataflows, and is dropped with them.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use dataflow_protocol::ids::{RelationId, Time};
use dataflow_protocol::plan::{CLOCK, InputMode, Node, Plan, RelationRef};
use dataflow_protocol::value::{Type, Word};
use timely::worker::Worker;

use super::Engine;
use crate::analysis::Part;
use crate::catalog::{Module, ModuleInfo, RelationInfo, Shared, Stored};
use crate::error::EngineError;
use crate::expr::{Project, constants};
use crate::faults::Fault;
use crate::input::{self, BuiltInput, Declared};
use crate::layout::Layout;
use crate::operators::arrange::arrange;
use crate::operators::import::{Button, import};
use crate::operators::linear::flatten;
use crate::render::{Built, Derived, Elsewhere, External, first_by_relation, joined, render};
use crate::validate::{Valid, inputs, validate};

/// What registering a program came to.
#[derive(Clone, Debug)]
pub struct Registered {
    /// False if the identical module was there already.
    pub fresh: bool,
    /// The module.
    pub name: String,
    /// Its relations as declared.
    pub relations: Vec<Arc<RelationInfo>>,
}

impl Engine {
    /// Registers a program: its dataflows start from the contents of what it imports as of `time`.
    ///
    /// # Errors
    ///
    /// [`EngineError::Conflict`] if the module's name or one of its relations' is another program's;
    /// [`EngineError::Stale`] if an import is gone or another; [`EngineError::Invalid`] if the plan can't be built.
    pub fn register(
        &mut self,
        worker: &mut Worker,
        time: Time,
        plan: &Plan,
    ) -> Result<Registered, EngineError> {
        if let Some(module) = self.catalog.modules.get(&plan.name) {
            if module.info.digest != plan.digest {
                return Err(EngineError::Conflict(format!("module {:?} is another program", plan.name)));
            }
            let relations = module.info.relations.iter().filter_map(|id| self.relation_by_id(*id)).collect();
            return Ok(Registered { fresh: false, name: plan.name.clone(), relations });
        }
        for relation in &plan.relations {
            if let Some(other) = self.catalog.by_name(&relation.name) {
                return Err(EngineError::Conflict(format!(
                    "relation {:?} is registered by module {:?}",
                    relation.name, other.info.module
                )));
            }
        }
        let clock = [Type::Instant];
        for import in &plan.imports {
            if import.relation == CLOCK && import.types == clock {
                continue;
            }
            let known = self.catalog.relations.get(&import.relation);
            let types =
                known.map(|stored| stored.info.columns.iter().map(|column| column.ty).collect::<Vec<_>>());
            if types.as_ref() != Some(&import.types) {
                return Err(EngineError::Stale(format!("relation {:?} is gone", import.name)));
            }
        }
        let valid = validate(plan)?;
        let constants = constants::of(plan).map_err(|error| EngineError::Invalid(error.to_string()))?;
        Ok(self.build(worker, time, &valid, constants))
    }

    fn build(
        &mut self,
        worker: &mut Worker,
        time: Time,
        valid: &Valid<'_>,
        constants: Vec<Word>,
    ) -> Registered {
        let plan = valid.plan;
        self.start_clock(worker, time, plan);
        let first_dataflow = worker.next_dataflow_index();
        let ids: Vec<RelationId> = plan.relations.iter().map(|_| self.catalog.next_id()).collect();
        let resolve = |relation: RelationRef| match relation {
            RelationRef::Local(local) => ids[local],
            RelationRef::Import(import) => plan.imports[import].relation,
        };
        let defined: Vec<usize> = plan.strata.iter().flat_map(|s| &s.relations).map(|d| d.relation).collect();
        // What is only transacted is maintained by its own dataflow, like an import.
        let external = |relation: RelationRef| !matches!(relation, RelationRef::Local(local) if defined.contains(&local));
        // What doesn't follow the imports' changes can't share their arrangements, which do.
        let wanted = if plan.frozen { Vec::new() } else { joined(valid, 0..plan.nodes.len(), external) };
        // Arranged by what they are joined by, inputs' rows needn't be held once more.
        let kept_by = first_by_relation(&wanted);
        let mut inputs = Vec::new();
        for (local, relation) in plan.relations.iter().enumerate() {
            let Some(mode) = &relation.input else { continue };
            let deliver_as = (!defined.contains(&local)).then_some((ids[local], &self.finished));
            let width = relation.columns.len();
            let key = kept_by.get(&local);
            let meter = self.meter(None).of(Part::Input(local));
            let declared = Declared { name: &relation.name, mode, width, key };
            let built = input::build(worker, &declared, time + 1, deliver_as, &meter);
            inputs.push(meter);
            self.store_input(plan, local, ids[local], built);
        }
        let mut dataflows: Vec<usize> = (first_dataflow..worker.next_dataflow_index()).collect();

        let mut uses = Vec::new();
        for (relation, key) in wanted {
            if self.share(worker, time, resolve(relation), &key) {
                uses.push((resolve(relation), key));
            }
        }
        let mut buttons = Vec::new();
        let fault = self.faults.then(|| Fault::of(&plan.name)).flatten();
        let meter = self.meter(fault);
        if !defined.is_empty() {
            let externals = self.externals(plan, &ids);
            dataflows.push(worker.next_dataflow_index());
            let finished = Rc::clone(&self.finished);
            let (built, ticks) = worker.dataflow_named(&format!("Program {}", plan.name), |scope| {
                let (ticks, clock) = plan.reads_clock().then(|| self.hear_ticks(scope, time)).unzip();
                let elsewhere = Elsewhere { relations: externals, clock };
                (render(scope, valid, time, &ids, elsewhere, &finished, &meter), ticks)
            });
            ticks.into_iter().for_each(|ticks| self.keep_ticks(&plan.name, ticks));
            buttons = self.store_derived(valid, &ids, built);
        }
        let info = Arc::new(ModuleInfo {
            name: plan.name.clone(),
            digest: plan.digest.clone(),
            relations: ids.clone(),
            since: time,
        });
        let (name, plan) = (plan.name.clone(), Arc::new(plan.clone()));
        let module = Module { info, meter, inputs, plan, constants, dataflows, buttons, uses };
        self.catalog.modules.insert(name.clone(), module);
        self.catalog.regroup();
        self.touch_new(&ids, time);
        if valid.plan.frozen {
            // What it reads may stand still at an earlier time, and is to come to this one.
            valid.plan.imports.iter().for_each(|import| self.touch_group(import.relation, time, false));
        }
        let relations = ids.iter().filter_map(|&id| self.relation_by_id(id)).collect();
        Registered { fresh: true, name, relations }
    }

    /// Files an input relation. One that has rules too gets its real base with [`Self::store_derived`].
    fn store_input(&mut self, plan: &Plan, local: usize, id: RelationId, built: BuiltInput) {
        let info = info(plan, local, id);
        let stored = Stored {
            set: info.input != Some(InputMode::Raw),
            input: Some(built.input),
            transacted: built.delivery.is_none().then(|| built.base.clone()),
            ..Stored::new(info, built.base, built.delivery.unwrap_or_default())
        };
        self.catalog.names.insert(stored.info.name.clone(), id);
        self.catalog.relations.insert(id, stored);
    }

    fn store_derived(&mut self, valid: &Valid<'_>, ids: &[RelationId], built: Built) -> Vec<Button> {
        for Derived { relation: local, base, delivery } in built.relations {
            let info = info(valid.plan, local, ids[local]);
            let previous = self.catalog.relations.remove(&ids[local]);
            let (input, transacted) =
                previous.map_or((None, None), |stored| (stored.input, stored.transacted));
            // Changes of what is read by a frozen program don't touch it.
            let reads = if valid.plan.frozen { Vec::new() } else { reads(valid, local, ids) };
            self.catalog.names.insert(info.name.clone(), ids[local]);
            let stored = Stored { input, transacted, reads, ..Stored::new(info, base, delivery) };
            self.catalog.relations.insert(ids[local], stored);
        }
        built.buttons
    }

    /// What a program's dataflow reads of other dataflows.
    fn externals(&self, plan: &Plan, ids: &[RelationId]) -> BTreeMap<RelationRef, External> {
        let imports = plan.imports.iter().enumerate().map(|(at, i)| (RelationRef::Import(at), i.relation));
        let locals = ids.iter().enumerate().map(|(at, &id)| (RelationRef::Local(at), id));
        let external = |id: RelationId| {
            let stored = self.catalog.relations.get(&id)?;
            let shared = self.catalog.shared.iter().filter(|((relation, _), _)| *relation == id);
            // An import is the whole relation, a relation of this program only what is transacted into it.
            let transacted = stored.transacted.as_ref().filter(|_| ids.contains(&id));
            Some(External {
                base: transacted.unwrap_or(&stored.base).clone(),
                set: stored.set,
                arrangements: shared.map(|((_, key), shared)| (key.clone(), shared.agent.clone())).collect(),
            })
        };
        imports.chain(locals).filter_map(|(reference, id)| Some((reference, external(id)?))).collect()
    }

    /// Builds the arrangement of a relation by a key, or adds a user to the one there is. `false` if the relation itself is
    /// arranged so.
    fn share(&mut self, worker: &mut Worker, time: Time, relation: RelationId, key: &[usize]) -> bool {
        let index = (relation, key.to_vec());
        if let Some(shared) = self.catalog.shared.get_mut(&index) {
            shared.users += 1;
            return true;
        }
        let Some(stored) = self.catalog.relations.get(&relation) else { return false };
        let kept = &stored.base.layout;
        if kept.key() == key {
            return false;
        }
        let columns = Layout::by(key, kept.width()).within(kept);
        let dataflow = worker.next_dataflow_index();
        let name = format!("Arrangement {} by {key:?}", stored.info.name);
        let meter = self.meter(None);
        let Some(stored) = self.catalog.relations.get_mut(&relation) else { return false };
        let base = &mut stored.base.agent;
        let (agent, button) = worker.dataflow_named(&name, |scope| {
            let (arranged, button) = import(base, scope, "Import", time);
            let rows = flatten(&arranged, "Permute", Project::columns(columns), &meter);
            (arrange(rows, "Arrange", key.len(), &meter).trace, button)
        });
        self.catalog.shared.insert(index, Shared { agent, button, dataflow, meter, users: 1 });
        true
    }

    /// Removes a module, or the module of a relation that is its only one; returns the relations that are gone.
    ///
    /// # Errors
    ///
    /// [`EngineError::NotFound`]; [`EngineError::Conflict`] if a program that stays depends on it.
    pub fn unregister(
        &mut self,
        worker: &mut Worker,
        _time: Time,
        name: &str,
    ) -> Result<Vec<RelationId>, EngineError> {
        let name = self.module_named(name)?;
        let Some(module) = self.catalog.modules.get(&name) else {
            return Err(EngineError::NotFound(format!("no module {name:?}")));
        };
        let gone = module.info.relations.clone();
        let reader = self.catalog.modules.values().find(|other| {
            other.info.name != name && other.plan.imports.iter().any(|import| gone.contains(&import.relation))
        });
        if let Some(reader) = reader {
            return Err(EngineError::Conflict(format!("module {:?} depends on {name:?}", reader.info.name)));
        }
        if let Some(module) = self.catalog.modules.remove(&name) {
            self.drop_module(worker, module);
        }
        Ok(gone)
    }

    fn module_named(&self, name: &str) -> Result<String, EngineError> {
        if self.catalog.modules.contains_key(name) {
            return Ok(name.to_owned());
        }
        let Some(stored) = self.catalog.by_name(name) else {
            return Err(EngineError::NotFound(format!("no relation or module {name:?}")));
        };
        let module = stored.info.module.clone();
        match self.catalog.modules.get(&module) {
            Some(found) if found.info.relations.len() > 1 => Err(EngineError::Conflict(format!(
                "relation {name:?} belongs to module {module:?} with others; unregister the module"
            ))),
            _ => Ok(module),
        }
    }

    /// Removes a module and all that depend on it, readers before what they read; those removed, in that order. None if
    /// the module that came at `since` isn't there any more, which is as well.
    pub fn interrupt(&mut self, worker: &mut Worker, name: &str, since: Time) -> Vec<Arc<ModuleInfo>> {
        if self.catalog.modules.get(name).is_none_or(|module| module.info.since != since) {
            return Vec::new();
        }
        let mut gone = Vec::new();
        for name in self.catalog.readers(name) {
            if let Some(module) = self.catalog.modules.remove(&name) {
                gone.push(Arc::clone(&module.info));
                self.drop_module(worker, module);
            }
        }
        gone
    }

    /// Drops what a module holds: readers before what they read, handles before dataflows.
    fn drop_module(&mut self, worker: &mut Worker, mut module: Module) {
        self.forget_ticks(&module.info.name);
        module.buttons.iter_mut().for_each(|button| button.press());
        for id in &module.info.relations {
            self.drop_rankings(worker, *id);
            if let Some(info) = self.forget(*id) {
                self.catalog.names.remove(&info.name);
            }
        }
        let mut dataflows = Vec::new();
        for index in &module.uses {
            let unused = self.catalog.shared.get_mut(index).is_some_and(|shared| {
                shared.users -= 1;
                shared.users == 0
            });
            if unused && let Some(mut shared) = self.catalog.shared.remove(index) {
                shared.button.press();
                dataflows.push(shared.dataflow);
            }
        }
        // The program's own dataflow was built last, on top of its inputs.
        module.dataflows.iter().rev().chain(&dataflows).for_each(|&dataflow| worker.drop_dataflow(dataflow));
        self.stop_clock(worker);
        self.catalog.regroup();
    }
}

fn info(plan: &Plan, local: usize, id: RelationId) -> Arc<RelationInfo> {
    let relation = &plan.relations[local];
    Arc::new(RelationInfo {
        id,
        name: relation.name.clone(),
        columns: plan.shaped(&relation.columns),
        input: relation.input.clone(),
        output: relation.output,
        module: plan.name.clone(),
    })
}

/// The relations that define `local`, directly.
fn reads(valid: &Valid<'_>, local: usize, ids: &[RelationId]) -> Vec<RelationId> {
    let mut found = Vec::new();
    let definitions = valid.plan.strata.iter().flat_map(|stratum| &stratum.relations);
    let mut pending: Vec<usize> = definitions.filter(|d| d.relation == local).map(|d| d.node).collect();
    while let Some(node) = pending.pop() {
        match &valid.plan.nodes[node] {
            Node::Get { relation: RelationRef::Local(other) } => found.push(ids[*other]),
            Node::Get { relation: RelationRef::Import(import) } => {
                found.push(valid.plan.imports[*import].relation)
            }
            node => {
                found.extend(matches!(node, Node::Window { .. }).then_some(CLOCK));
                pending.extend(inputs(node));
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

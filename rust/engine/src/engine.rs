//! The commands, and what a turn does; [`rankings`], the [`clock`] and what [`forget`]s have files of their own.

mod clock;
mod forget;
mod rankings;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use dataflow_protocol::ids::{RelationId, Time, WorkerIndex};
use dataflow_protocol::order::{First, Ranking, Sorter};
use dataflow_protocol::plan::{CLOCK, InputMode, Node, Plan, RelationRef};
use dataflow_protocol::rows::RowBuf;
use dataflow_protocol::value::{Type, Word};
use differential_dataflow::trace::TraceReader;
use timely::progress::Antichain;
use timely::worker::Worker;

use crate::analysis::{Analysis, ArrangementFigures, Part};
use crate::budget::Budget;
use crate::catalog::{Catalog, Module, ModuleInfo, RelationInfo, Shared, Stored};
use crate::error::EngineError;
use crate::expr::eval::Dropped;
use crate::expr::{Project, constants};
use crate::faults::Fault;
use crate::input::{self, BuiltInput, Declared};
use crate::meter::Meter;
use crate::operators::arrange::arrange;
use crate::operators::deliver::{Finished, Interest};
use crate::operators::import::import;
use crate::operators::linear::flatten;
use crate::render::{Built, Derived, Elsewhere, External, first_spread, joined, order, positions, render};
use crate::snapshot::{Request, Snapshots};
use crate::trace::{Agent, View, registry};
use crate::validate::{Valid, inputs, validate};
use crate::{EmitBudget, Figures, Slice, Stats, Step};

pub use clock::Earlier;

/// A worker's engine.
///
/// The methods that take a `time` are commands: every worker calls them in the same order with the same arguments
/// ([`Self::introduce`] excepted, which the owner of the rows calls), then [`Self::advance`].
pub struct Engine {
    catalog: Catalog,
    snapshots: Snapshots,
    clock: clock::State,
    finished: Finished,
    dropped: Dropped,
    budget: Budget,
    /// See [`Self::enable_faults`].
    faults: bool,
    /// The last time whose commands have all been applied.
    applied: Time,
    /// Relations of the groups touched since the last advance.
    advancing: Vec<RelationId>,
    /// Relations with traces to be compacted further.
    active: BTreeMap<RelationId, Time>,
    /// Bytes introduced here, by relation and time, until all workers have them in the base arrangement.
    introduced: VecDeque<(RelationId, Time, usize)>,
    /// The dictionary is being swept: words that come in are marked.
    sweeping: bool,
}

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
    /// Builds the standing dataflows. The first thing done with the timely worker, alike on all of them.
    pub fn new(worker: &mut Worker) -> Engine {
        registry::clear();
        Engine {
            catalog: Catalog::default(),
            snapshots: Snapshots::new(worker),
            clock: clock::State::default(),
            finished: Rc::new(RefCell::new(Vec::new())),
            dropped: Rc::new(Cell::new(0)),
            budget: Budget::default(),
            faults: false,
            applied: 0,
            advancing: Vec::new(),
            active: BTreeMap::new(),
            introduced: VecDeque::new(),
            sweeping: false,
        }
    }

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
        let mut inputs = Vec::new();
        for (local, relation) in plan.relations.iter().enumerate() {
            let Some(mode) = &relation.input else { continue };
            let deliver_as = (!defined.contains(&local)).then_some((ids[local], &self.finished));
            let width = relation.columns.len();
            // Arranged by what it is joined by, its rows needn't be held once more.
            let keys = wanted.iter().filter(|(of, _)| *of == RelationRef::Local(local));
            let key = first_spread(keys.map(|(_, key)| &key[..]));
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

    /// For operators of their own program.
    fn meter(&self, fault: Option<Fault>) -> Meter {
        Meter::new(self.budget.clone(), Rc::clone(&self.dropped), fault)
    }

    /// Files an input relation. One that has rules too gets its real base with [`Self::store_derived`].
    fn store_input(&mut self, plan: &Plan, local: usize, id: RelationId, built: BuiltInput) {
        let info = info(plan, local, id);
        let transacted = built.delivery.is_none().then(|| built.agent.clone());
        let stored = Stored {
            set: info.input != Some(InputMode::Raw),
            info,
            base: built.agent,
            order: built.order,
            key_width: built.key_width,
            delivery: built.delivery.unwrap_or_default(),
            input: Some(built.input),
            transacted,
            written: false,
            reads: Vec::new(),
            group: usize::MAX,
        };
        self.catalog.names.insert(stored.info.name.clone(), id);
        self.catalog.relations.insert(id, stored);
    }

    fn store_derived(
        &mut self,
        valid: &Valid<'_>,
        ids: &[RelationId],
        built: Built,
    ) -> Vec<crate::operators::import::Button> {
        for Derived { relation: local, base, order, key_width, delivery } in built.relations {
            let info = info(valid.plan, local, ids[local]);
            let previous = self.catalog.relations.remove(&ids[local]);
            let (input, transacted) =
                previous.map_or((None, None), |stored| (stored.input, stored.transacted));
            // Changes of what is read by a frozen program don't touch it.
            let reads = if valid.plan.frozen { Vec::new() } else { reads(valid, local, ids) };
            self.catalog.names.insert(info.name.clone(), ids[local]);
            let stored = Stored {
                info,
                base,
                order,
                key_width,
                set: true,
                delivery,
                input,
                transacted,
                written: false,
                reads,
                group: usize::MAX,
            };
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
                order: stored.order.clone(),
                key_width: stored.key_width,
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
        if stored.key() == key {
            return false;
        }
        let width = stored.order.len();
        let at = positions(&stored.order, width);
        let columns: Vec<usize> = order(key, width).into_iter().map(|column| at[column]).collect();
        let dataflow = worker.next_dataflow_index();
        let name = format!("Arrangement {} by {key:?}", stored.info.name);
        let meter = self.meter(None);
        let Some(stored) = self.catalog.relations.get_mut(&relation) else { return false };
        let base: &mut Agent<u64> = &mut stored.base;
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

    /// This worker's share of a module.
    pub fn figures(&self, module: &str) -> Option<Figures> {
        self.catalog.modules.get(module).map(|module| module.meter.figures())
    }

    /// A time that every worker has finished for all relations of a module.
    pub fn module_finished(&self, module: &str) -> Option<Time> {
        let module = self.catalog.modules.get(module)?;
        module.info.relations.iter().filter_map(|relation| self.finished(*relation)).min()
    }

    /// The last time at which a module had something to do.
    pub fn module_touched(&self, module: &str) -> Option<Time> {
        let stored = |relation: &RelationId| self.catalog.relations.get(relation);
        let relations = &self.catalog.modules.get(module)?.info.relations;
        Some(
            relations.iter().filter_map(stored).map(|stored| self.catalog.touched(stored)).max().unwrap_or(0),
        )
    }

    /// The first relation of a module that has something to do.
    pub fn unfinished(&self, module: &str) -> Option<String> {
        let relations = &self.catalog.modules.get(module)?.info.relations;
        let mut stored = relations.iter().filter_map(|relation| self.catalog.relations.get(relation));
        let unfinished =
            stored.find(|s| self.finished(s.info.id).is_some_and(|time| time < self.catalog.touched(s)));
        unfinished.map(|stored| stored.info.name.clone())
    }

    /// From now on a module may ask by its name for something to go wrong in it: `fault:expression…` for a panic in an
    /// expression, `fault:operator…` for one outside. For tests.
    pub fn enable_faults(&mut self) {
        self.faults = true;
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

    /// Lets go of a relation and of what is under way of it.
    fn forget(&mut self, relation: RelationId) -> Option<Arc<RelationInfo>> {
        self.snapshots.forget(relation);
        self.active.remove(&relation);
        self.introduced.retain(|(of, ..)| *of != relation);
        self.finished.borrow_mut().retain(|step| step.relation != relation);
        self.catalog.relations.remove(&relation).map(|stored| stored.info)
    }

    /// Counts an interest of `owner` in `relation`: its changes after `time` are forwarded to the owner.
    pub fn interest(&mut self, relation: RelationId, owner: WorkerIndex, time: Time) {
        if let Some(stored) = self.catalog.relations.get(&relation) {
            let mut interests = stored.delivery.interests.borrow_mut();
            interests.entry(owner).or_insert(Interest { count: 0, after: time }).count += 1;
        }
    }

    /// Takes back one interest.
    pub fn disinterest(&mut self, relation: RelationId, owner: WorkerIndex) {
        if let Some(stored) = self.catalog.relations.get(&relation) {
            let mut interests = stored.delivery.interests.borrow_mut();
            if let Some(interest) = interests.get_mut(&owner) {
                interest.count -= 1;
                if interest.count == 0 {
                    interests.remove(&owner);
                }
            }
        }
    }

    /// Sends `owner` this worker's rows of `relation` as of `time` that have the filter's words in its columns. With a
    /// `ranking`: of these the first, among which the owner is to find the first of all.
    pub fn snapshot(
        &mut self,
        relation: RelationId,
        time: Time,
        owner: WorkerIndex,
        token: u64,
        filter: Vec<(usize, Word)>,
        ranking: Option<&Ranking>,
    ) {
        if let Some(stored) = self.catalog.relations.get(&relation) {
            let columns = positions(&stored.order, stored.order.len());
            let agent = stored.base.clone();
            let types: Vec<Type> = stored.info.columns.iter().map(|column| column.ty).collect();
            let first = ranking.map(|r| First::new(Sorter::new(&types, &r.order), Some(r.limit)));
            self.snapshots.request(Request { relation, agent, columns, time, owner, token, filter, first });
        }
    }

    /// Notes, on every worker, that a transaction at `time` changes `relation`.
    pub fn touch(&mut self, relation: RelationId, time: Time) {
        if let Some(stored) = self.catalog.relations.get_mut(&relation) {
            stored.written = true;
        }
        self.touch_group(relation, time, false);
    }

    /// Touches the groups of relations that have just come; each once, as one may hold many of them.
    fn touch_new(&mut self, relations: &[RelationId], time: Time) {
        let mut touched: BTreeSet<RelationId> = BTreeSet::new();
        for &relation in relations {
            if !touched.contains(&relation) {
                self.touch_group(relation, time, true);
                touched.extend(self.catalog.group_of(relation));
            }
        }
    }

    fn touch_group(&mut self, relation: RelationId, time: Time, new: bool) {
        for &member in self.catalog.touch(relation, time, new) {
            self.active.insert(member, time);
            self.advancing.push(member);
        }
    }

    /// Introduces a transaction's rows at `time`, at their owner: a time after the one at which the relation was registered. The
    /// order of calls is the order of effect; deletes come before inserts. Rows have the relation's columns, encoded.
    pub fn introduce(&mut self, relation: RelationId, time: Time, delete: &RowBuf, insert: &RowBuf) {
        self.mark_incoming(&[delete, insert]);
        let stored = self.catalog.relations.get_mut(&relation);
        if let Some(input) = stored.and_then(|stored| stored.input.as_mut()) {
            let bytes = input.introduce(time, delete, insert);
            self.introduced.push_back((relation, time, bytes));
        }
    }

    /// Removes rows of an `upsert` relation by their key at `time`, at their owner; other columns of `keys` mean nothing.
    /// In the order of effect, like [`Self::introduce`].
    pub fn erase(&mut self, relation: RelationId, time: Time, keys: &RowBuf) {
        self.mark_incoming(&[keys]);
        let stored = self.catalog.relations.get_mut(&relation);
        if let Some(input) = stored.and_then(|stored| stored.input.as_mut()).filter(|_| !keys.is_empty()) {
            let bytes = input.erase(time, keys);
            self.introduced.push_back((relation, time, bytes));
        }
    }

    /// All commands at `time` have been applied: the inputs concerned move past it.
    pub fn advance(&mut self, time: Time) {
        self.applied = self.applied.max(time);
        for relation in std::mem::take(&mut self.advancing) {
            self.advance_ticks(relation, time);
            let stored = self.catalog.relations.get_mut(&relation);
            if let Some(input) = stored.and_then(|stored| stored.input.as_mut()) {
                input.advance(time);
            }
        }
    }

    /// A step of the dataflows comes next, in which operators that can pause shall take `time` together. Not a command:
    /// workers may differ.
    pub fn begin_step(&mut self, time: Duration) {
        self.budget.begin(time);
    }

    /// How often operators have paused in the middle of their work.
    pub fn pauses(&self) -> u64 {
        self.budget.pauses()
    }

    /// The longest piece of work without a pause, by kind of operator.
    pub fn longest_work(&self) -> impl IntoIterator<Item = (&'static str, Duration)> + use<> {
        self.budget.longest()
    }

    /// Work that belongs to no dataflow: compaction, snapshots. `true` if there is more within reach.
    pub fn work(&mut self, budget: &EmitBudget) -> bool {
        self.compact();
        while let Some(&(relation, time, _)) = self.introduced.front()
            && self.finished(relation).is_none_or(|finished| finished >= time)
        {
            self.introduced.pop_front();
        }
        let catalog = &self.catalog;
        // Untouched relations stand still at an earlier time and are as they were.
        self.snapshots.work(budget, |relation, time, reached| {
            let touched = catalog.relations.get(&relation).map_or(0, |stored| catalog.touched(stored));
            reached > time.min(touched)
        })
    }

    /// Lets traces forget history before the last applied time, which no later read can ask for.
    fn compact(&mut self) {
        let mut upper = Antichain::new();
        let logical = Antichain::from_elem(self.applied);
        let mut settle = |agent: &mut Agent<u64>| {
            agent.read_upper(&mut upper);
            agent.set_logical_compaction(logical.borrow());
            agent.set_physical_compaction(upper.borrow());
            upper.first().copied().unwrap_or(Time::MAX)
        };
        let Catalog { relations, shared, .. } = &mut self.catalog;
        self.active.retain(|id, touched| {
            let Some(stored) = relations.get_mut(id) else { return false };
            let mut reached = settle(&mut stored.base);
            if let Some(transacted) = &mut stored.transacted {
                reached = reached.min(settle(transacted));
            }
            for ((_, _), shared) in shared.range_mut(arranged(*id)) {
                reached = reached.min(settle(&mut shared.agent));
            }
            reached <= *touched
        });
    }

    /// Finished steps of relations in which this owner has an interest.
    pub fn take_steps(&mut self) -> Vec<Step> {
        std::mem::take(&mut self.finished.borrow_mut())
    }

    /// Slices of snapshots that this owner asked for.
    pub fn take_slices(&mut self) -> Vec<Slice> {
        self.snapshots.take_arrived()
    }

    /// A time such that every worker has finished it and all before it, for this relation.
    pub fn finished(&self, relation: RelationId) -> Option<Time> {
        let stored = self.catalog.relations.get(&relation)?;
        let frontier = stored.delivery.frontier.get().unwrap_or(Time::MAX);
        if frontier > self.catalog.touched(stored) {
            return Some(self.applied);
        }
        Some(frontier.saturating_sub(1))
    }

    /// Bytes introduced here that some worker has not arranged yet.
    pub fn unfinished_bytes(&self) -> usize {
        self.introduced.iter().map(|(_, _, bytes)| bytes).sum()
    }

    /// A relation by name.
    pub fn relation(&self, name: &str) -> Option<Arc<RelationInfo>> {
        self.catalog.by_name(name).map(|stored| Arc::clone(&stored.info))
    }

    /// A relation by id.
    pub fn relation_by_id(&self, id: RelationId) -> Option<Arc<RelationInfo>> {
        self.catalog.relations.get(&id).map(|stored| Arc::clone(&stored.info))
    }

    /// All relations, by name.
    pub fn relations(&self) -> Vec<Arc<RelationInfo>> {
        self.catalog.names.values().filter_map(|&id| self.relation_by_id(id)).collect()
    }

    /// All modules, by name.
    pub fn modules(&self) -> Vec<Arc<ModuleInfo>> {
        self.catalog.modules.values().map(|module| Arc::clone(&module.info)).collect()
    }

    /// The relation and all derived from it.
    pub fn dependents(&self, relation: RelationId) -> Vec<RelationId> {
        self.catalog.dependents(relation)
    }

    /// The plan that a relation was registered with.
    pub fn plan_of(&self, relation: RelationId) -> Option<Arc<Plan>> {
        let module = &self.catalog.relations.get(&relation)?.info.module;
        self.catalog.modules.get(module).map(|module| Arc::clone(&module.plan))
    }

    /// A hash of the catalog, equal on all workers at the same command.
    pub fn digest(&self) -> u64 {
        self.catalog.digest() ^ self.now().unwrap_or_default() as u64
    }

    /// What this worker holds.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        for stored in self.catalog.relations.values() {
            stats.add(&stored.base);
            stored.transacted.iter().for_each(|agent| stats.add(agent));
        }
        self.catalog.shared.values().for_each(|shared| stats.add(&shared.agent));
        self.catalog.rankings.values().for_each(|ranked| stats.sum(ranked.stats()));
        stats
    }

    /// A relation as it is kept.
    pub(crate) fn stored(&self, relation: RelationId) -> Option<&Stored> {
        self.catalog.relations.get(&relation)
    }

    /// Whether anything has ever been transacted into a relation.
    pub(crate) fn is_written(&self, relation: RelationId) -> bool {
        self.catalog.relations.get(&relation).is_some_and(|stored| stored.written)
    }

    /// The arrangements of a relation that programs share, by their keys.
    pub(crate) fn arrangements(&self, relation: RelationId) -> impl Iterator<Item = (&[usize], &Agent<u64>)> {
        let shared = self.catalog.shared.range(arranged(relation));
        shared.map(|((_, key), shared)| (&key[..], &shared.agent))
    }

    /// What this worker holds of each relation: its rows once, and the bytes of all its arrangements, those of its first
    /// rows in some order included.
    pub fn relation_stats(&self) -> Vec<(Arc<RelationInfo>, Stats)> {
        let stats = |(id, stored): (&RelationId, &Stored)| {
            let mut stats = Stats::default();
            stats.add(&stored.base);
            let rows = stats.updates;
            stored.transacted.iter().for_each(|agent| stats.add(agent));
            self.arrangements(*id).for_each(|(_, agent)| stats.add(agent));
            (*id, (Arc::clone(&stored.info), Stats { updates: rows, ..stats }))
        };
        let mut all: BTreeMap<_, _> = self.catalog.relations.iter().map(stats).collect();
        for ((relation, _), ranked) in &self.catalog.rankings {
            let first = all.remove(&ranked.id).map_or(0, |(_, stats)| stats.bytes);
            if let Some((_, stats)) = all.get_mut(relation) {
                stats.bytes += first + ranked.stats().bytes;
            }
        }
        all.into_values().collect()
    }

    /// This worker's share of what the operators of a relation's module hold and have done.
    pub fn analysis(&self, relation: RelationId) -> Option<Analysis> {
        let module = self.catalog.modules.get(&self.catalog.relations.get(&relation)?.info.module)?;
        let mut operators = module.meter.operators();
        operators.extend(module.inputs.iter().flat_map(Meter::operators));
        operators.retain(|figures| figures.part != Part::Other);
        let kept = module.info.relations.iter().map(|id| (*id, None));
        let read = module.uses.iter().map(|(id, key)| (*id, Some(key.clone())));
        let arrangements = kept.chain(read).filter_map(|(id, key)| self.arrangement(id, key)).collect();
        Some(Analysis { operators, arrangements })
    }

    /// This worker's share of an arrangement; without a key, of the relation as it is kept.
    fn arrangement(&self, relation: RelationId, key: Option<Vec<usize>>) -> Option<ArrangementFigures> {
        let stored = self.catalog.relations.get(&relation)?;
        let (mut stats, mut keys, mut micros) = (Stats::default(), 0, 0);
        let agent = match &key {
            None => &stored.base,
            Some(key) => {
                let shared = self.catalog.shared.get(&(relation, key.clone()))?;
                micros = shared.meter.operators().iter().map(|figures| figures.micros).sum();
                &shared.agent
            }
        };
        stats.add(agent);
        agent.map_spans(|span| keys += span.inner.as_ref().map_or(0, |batch| batch.trie().keys() as u64));
        let (rows, bytes) = (stats.updates as u64, stats.bytes as u64);
        Some(ArrangementFigures { relation: stored.info.name.clone(), key, rows, keys, bytes, micros })
    }

    /// Rows dropped on this worker because an expression failed.
    pub fn dropped_rows(&self) -> u64 {
        self.dropped.get()
    }
}

impl Stats {
    fn sum(&mut self, other: Stats) {
        self.arrangements += other.arrangements;
        self.updates += other.updates;
        self.bytes += other.bytes;
    }

    fn add(&mut self, agent: &Agent<u64>) {
        self.arrangements += 1;
        agent.map_spans(|span| {
            let batch = span.inner.as_ref();
            self.updates += batch.map_or(0, View::len);
            self.bytes += batch.map_or(0, View::heap_bytes);
        });
    }
}

/// Where the shared arrangements of a relation are among all.
fn arranged(relation: RelationId) -> Range<(RelationId, Vec<usize>)> {
    (relation, Vec::new())..(RelationId(relation.0 + 1), Vec::new())
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

//! The commands on relations, and what a turn does. How [`modules`] come and go, [`rankings`], the [`clock`], what
//! [`forget`]s and what [`report`]s have files of their own.

mod clock;
mod forget;
mod modules;
mod rankings;
mod report;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use dataflow_protocol::ids::{RelationId, Time, WorkerIndex};
use dataflow_protocol::order::{First, Ranking, Sorter};
use dataflow_protocol::rows::RowBuf;
use dataflow_protocol::value::{Type, Word};
use differential_dataflow::trace::TraceReader;
use timely::progress::Antichain;
use timely::worker::Worker;

use crate::budget::Budget;
use crate::catalog::{Catalog, RelationInfo};
use crate::expr::eval::Dropped;
use crate::faults::Fault;
use crate::layout::Kept;
use crate::meter::Meter;
use crate::operators::deliver::{Finished, Interest};
use crate::snapshot::{Request, Snapshots};
use crate::trace::{Agent, registry};
use crate::{EmitBudget, Slice, Step};

pub use clock::Earlier;
pub use modules::Registered;

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

    /// For operators of their own program.
    fn meter(&self, fault: Option<Fault>) -> Meter {
        Meter::new(self.budget.clone(), Rc::clone(&self.dropped), fault)
    }

    /// From now on a module may ask by its name for something to go wrong in it: `fault:expression…` for a panic in an
    /// expression, `fault:operator…` for one outside. For tests.
    pub fn enable_faults(&mut self) {
        self.faults = true;
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
            let Kept { agent, layout } = &stored.base;
            let (agent, columns) = (agent.clone(), layout.positions());
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
            let mut reached = settle(&mut stored.base.agent);
            if let Some(transacted) = &mut stored.transacted {
                reached = reached.min(settle(&mut transacted.agent));
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
}

/// Where the shared arrangements of a relation are among all.
fn arranged(relation: RelationId) -> Range<(RelationId, Vec<usize>)> {
    (relation, Vec::new())..(RelationId(relation.0 + 1), Vec::new())
}

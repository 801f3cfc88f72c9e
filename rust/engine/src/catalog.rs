//! The catalog that every worker replicates: relations, modules, shared arrangements.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use dataflow_protocol::ids::{RelationId, Time};
use dataflow_protocol::order::Ranking;
use dataflow_protocol::plan::{Import, InputMode, Plan};
use dataflow_protocol::value::{Column, Word};

use crate::input::Input;
use crate::layout::Kept;
use crate::meter::{Held, Meter};
use crate::operators::deliver::Delivery;
use crate::operators::import::Button;
use crate::trace::Agent;

/// A relation, as everybody may know it.
#[derive(Clone, Debug, PartialEq)]
pub struct RelationInfo {
    /// Never given out again.
    pub id: RelationId,
    /// As declared.
    pub name: String,
    /// As declared.
    pub columns: Vec<Column>,
    /// Present iff clients may transact into it.
    pub input: Option<InputMode>,
    /// Marked `.output`.
    pub output: bool,
    /// The module that declares it.
    pub module: String,
}

/// A registered program, as everybody may know it.
#[derive(Clone, Debug, PartialEq)]
pub struct ModuleInfo {
    /// Its name.
    pub name: String,
    /// Digest of the canonical program.
    pub digest: String,
    /// Relations it declares.
    pub relations: Vec<RelationId>,
    /// When it was registered: a module of the same name that comes later is another one.
    pub since: Time,
}

/// A relation's place in the engine.
pub(crate) struct Stored {
    pub(crate) info: Arc<RelationInfo>,
    pub(crate) base: Kept,
    /// Whether each row stands once.
    pub(crate) set: bool,
    pub(crate) delivery: Delivery,
    pub(crate) input: Option<Input>,
    /// The transacted rows, where the relation is more than those.
    pub(crate) transacted: Option<Kept>,
    /// Whether anything has ever been transacted into it. Equal on all workers.
    pub(crate) written: bool,
    /// Relations that this one reads directly.
    pub(crate) reads: Vec<RelationId>,
    /// Which relations are advanced together; see [`Catalog::regroup`].
    pub(crate) group: usize,
}

impl Stored {
    /// A set that reads no other relation and that nobody may transact into.
    pub(crate) fn new(info: Arc<RelationInfo>, base: Kept, delivery: Delivery) -> Self {
        Stored {
            info,
            base,
            set: true,
            delivery,
            input: None,
            transacted: None,
            written: false,
            reads: Vec::new(),
            group: usize::MAX,
        }
    }
}

/// A module's place in the engine.
pub(crate) struct Module {
    pub(crate) info: Arc<ModuleInfo>,
    pub(crate) plan: Arc<Plan>,
    /// Words that its operators have of the plan.
    pub(crate) constants: Vec<Word>,
    pub(crate) meter: Meter,
    /// Those of the dataflows of its inputs.
    pub(crate) inputs: Vec<Meter>,
    /// Dataflows to be dropped with it.
    pub(crate) dataflows: Vec<usize>,
    pub(crate) buttons: Vec<Button>,
    /// Shared arrangements that it reads.
    pub(crate) uses: Vec<(RelationId, Vec<usize>)>,
}

/// An arrangement of a relation by a key, a dataflow of its own.
pub(crate) struct Shared {
    pub(crate) agent: Agent<u64>,
    pub(crate) button: Button,
    pub(crate) dataflow: usize,
    pub(crate) meter: Meter,
    /// Modules that read it.
    pub(crate) users: usize,
}

/// First rows of a relation, a relation and a dataflow of their own.
pub(crate) struct Ranked {
    /// Among the relations, but without a name there.
    pub(crate) id: RelationId,
    /// Interests in it.
    pub(crate) users: usize,
    pub(crate) dataflow: usize,
    pub(crate) button: Button,
    /// What its operators hold.
    pub(crate) held: Vec<Held>,
}

/// Everything registered.
#[derive(Default)]
pub(crate) struct Catalog {
    pub(crate) relations: BTreeMap<RelationId, Stored>,
    pub(crate) names: BTreeMap<String, RelationId>,
    pub(crate) modules: BTreeMap<String, Module>,
    pub(crate) shared: BTreeMap<(RelationId, Vec<usize>), Shared>,
    pub(crate) rankings: BTreeMap<(RelationId, Ranking), Ranked>,
    /// For each group its relations.
    pub(crate) members: Vec<Vec<RelationId>>,
    /// For each group the last time at which one of its inputs changed, or something was built on it.
    pub(crate) touched: Vec<Time>,
    next: u64,
}

impl Catalog {
    /// A relation id not given out before.
    pub(crate) fn next_id(&mut self) -> RelationId {
        self.next += 1;
        RelationId(self.next)
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<&Stored> {
        self.relations.get(self.names.get(name)?)
    }

    /// Divides relations into groups such that whatever is derived from several inputs is in their group: the inputs
    /// of a group advance together, and a group that nobody writes to costs nothing.
    pub(crate) fn regroup(&mut self) {
        let ids: Vec<RelationId> = self.relations.keys().copied().collect();
        let index: BTreeMap<RelationId, usize> = ids.iter().copied().zip(0..).collect();
        let mut parent: Vec<usize> = (0..ids.len()).collect();
        fn root(parent: &mut [usize], mut at: usize) -> usize {
            while parent[at] != at {
                parent[at] = parent[parent[at]];
                at = parent[at];
            }
            at
        }
        for (id, stored) in &self.relations {
            for read in stored.reads.iter().filter_map(|read| index.get(read)) {
                let (a, b) = (root(&mut parent, index[id]), root(&mut parent, *read));
                parent[a.max(b)] = a.min(b);
            }
        }
        let mut touched = vec![0; ids.len()];
        self.members = vec![Vec::new(); ids.len()];
        for (at, stored) in self.relations.values_mut().enumerate() {
            let group = root(&mut parent, at);
            self.members[group].push(stored.info.id);
            touched[group] = touched[group].max(self.touched.get(stored.group).copied().unwrap_or(0));
            stored.group = group;
        }
        self.touched = touched;
    }

    /// Notes that `relation`'s group has something to do at `time`; the group's relations. None if that was known, unless
    /// the group is `new`: then some of it may have been in other groups when it became known.
    pub(crate) fn touch(&mut self, relation: RelationId, time: Time, new: bool) -> &[RelationId] {
        let Some(group) = self.relations.get(&relation).map(|stored| stored.group) else { return &[] };
        match self.touched.get_mut(group) {
            Some(touched) if new || *touched < time => *touched = time,
            _ => return &[],
        }
        &self.members[group]
    }

    /// The relations of the group that `relation` is in, itself included.
    pub(crate) fn group_of(&self, relation: RelationId) -> &[RelationId] {
        let group = self.relations.get(&relation).map(|stored| stored.group);
        group.and_then(|group| self.members.get(group)).map_or(&[], Vec::as_slice)
    }

    /// The last time at which the relation's group had something to do.
    pub(crate) fn touched(&self, stored: &Stored) -> Time {
        self.touched.get(stored.group).copied().unwrap_or(0)
    }

    /// The relation and all that are derived from it.
    pub(crate) fn dependents(&self, relation: RelationId) -> Vec<RelationId> {
        let mut found = vec![relation];
        let mut next = 0;
        while next < found.len() {
            let of = found[next];
            next += 1;
            let reading = self.relations.values().filter(|stored| stored.reads.contains(&of));
            for id in reading.map(|stored| stored.info.id).collect::<Vec<_>>() {
                if !found.contains(&id) {
                    found.push(id);
                }
            }
        }
        found
    }

    /// The modules that read a module, directly or not, and itself; each after those that read it.
    pub(crate) fn readers(&self, module: &str) -> Vec<String> {
        let mut found: Vec<&Module> = self.modules.get(module).into_iter().collect();
        let mut next = 0;
        while let Some(read) = found.get(next).map(|module| &module.info) {
            next += 1;
            for other in self.modules.values() {
                let reads = |import: &Import| read.relations.contains(&import.relation);
                let new = found.iter().all(|known| known.info.name != other.info.name);
                if new && other.plan.imports.iter().any(reads) {
                    found.push(other);
                }
            }
        }
        // A program is planned when what it reads is there, so it comes later.
        found.sort_by_key(|module| std::cmp::Reverse(module.info.since));
        found.into_iter().map(|module| module.info.name.clone()).collect()
    }

    /// A hash of what all workers must agree on.
    pub(crate) fn digest(&self) -> u64 {
        let mut hasher = foldhash::fast::FixedState::with_seed(0).build_hasher();
        self.next.hash(&mut hasher);
        for (name, module) in &self.modules {
            (name, &module.info.digest, &module.info.relations, &module.uses).hash(&mut hasher);
        }
        for (key, shared) in &self.shared {
            (key, shared.users).hash(&mut hasher);
        }
        for (key, ranked) in &self.rankings {
            (key, ranked.id, ranked.users).hash(&mut hasher);
        }
        hasher.finish()
    }
}

//! What is registered, how far it is, what it holds and what it has done. Nothing here changes anything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dataflow_protocol::ids::{RelationId, Time};
use dataflow_protocol::plan::Plan;
use differential_dataflow::trace::TraceReader;

use super::{Engine, arranged};
use crate::analysis::{Analysis, ArrangementFigures, Part};
use crate::catalog::{ModuleInfo, RelationInfo, Stored};
use crate::meter::Meter;
use crate::trace::{Agent, View};
use crate::{Figures, Stats};

impl Engine {
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

    /// What this worker holds.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        for stored in self.catalog.relations.values() {
            stats.add(&stored.base.agent);
            stored.transacted.iter().for_each(|kept| stats.add(&kept.agent));
        }
        self.catalog.shared.values().for_each(|shared| stats.add(&shared.agent));
        self.catalog.rankings.values().for_each(|ranked| stats.sum(ranked.stats()));
        stats
    }

    /// What this worker holds of each relation: its rows once, and the bytes of all its arrangements, those of its first
    /// rows in some order included.
    pub fn relation_stats(&self) -> Vec<(Arc<RelationInfo>, Stats)> {
        let stats = |(id, stored): (&RelationId, &Stored)| {
            let mut stats = Stats::default();
            stats.add(&stored.base.agent);
            let rows = stats.updates;
            stored.transacted.iter().for_each(|kept| stats.add(&kept.agent));
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
            None => &stored.base.agent,
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

    /// How often operators have paused in the middle of their work.
    pub fn pauses(&self) -> u64 {
        self.budget.pauses()
    }

    /// The longest piece of work without a pause, by kind of operator.
    pub fn longest_work(&self) -> impl IntoIterator<Item = (&'static str, Duration)> + use<> {
        self.budget.longest()
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

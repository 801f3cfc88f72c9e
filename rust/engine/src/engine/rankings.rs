//! First rows in an order, for those who subscribe to them.
//!
//! A ranking is a relation that isn't in any program: a dataflow of its own on a relation's rows, with an id, a trace, a
//! way out and a place in the relation's group. So interests, snapshots and progress need to know nothing of it. Equal
//! ones are one, counted by those who want it.

use std::rc::Rc;
use std::sync::Arc;

use dataflow_protocol::ids::{RelationId, Time};
use dataflow_protocol::order::Ranking;
use dataflow_protocol::value::Type;
use timely::worker::Worker;

use super::Engine;
use crate::Stats;
use crate::catalog::{Ranked, RelationInfo, Stored};
use crate::expr::Project;
use crate::layout::{Kept, Layout};
use crate::operators::arrange::{arrange, readable};
use crate::operators::deliver::deliver;
use crate::operators::import::import;
use crate::operators::linear::flatten;
use crate::operators::top::top;

impl Engine {
    /// Counts a wish for the first rows of a relation as of `time` and from then on, and keeps them if nobody did yet.
    /// The relation that they are, until the last wish is taken back ([`Self::unrank`]) or the relation goes.
    pub fn rank(
        &mut self,
        worker: &mut Worker,
        time: Time,
        relation: RelationId,
        ranking: &Ranking,
    ) -> Option<RelationId> {
        let index = (relation, ranking.clone());
        if let Some(ranked) = self.catalog.rankings.get_mut(&index) {
            ranked.users += 1;
            return Some(ranked.id);
        }
        let id = self.catalog.next_id();
        let meter = self.meter(None);
        let stored = self.catalog.relations.get_mut(&relation)?;
        let (info, set) = (Arc::new(RelationInfo { id, ..(*stored.info).clone() }), stored.set);
        let types: Vec<Type> = info.columns.iter().map(|column| column.ty).collect();
        let width = types.len();
        let columns = stored.base.layout.positions();
        let finished = Rc::clone(&self.finished);
        let dataflow = worker.next_dataflow_index();
        let name = format!("First {} of {}", ranking.limit, info.name);
        let (agent, delivery, button, held) = worker.dataflow_named(&name, |scope| {
            let (arranged, button) = import(&mut stored.base.agent, scope, "Import", time);
            let rows = flatten(&arranged, "Rows", Project::columns(columns), &meter);
            let (rows, held) = top(rows, &types, ranking, time, id.0 as usize, &meter);
            let arranged = arrange(rows, "Arrange", width, &meter);
            let agent = arranged.trace.clone();
            let delivery = deliver(&readable(arranged), id, (0..width).collect(), finished, &meter);
            (agent, delivery, button, held)
        });
        let base = Kept { agent, layout: Layout::whole(width) };
        let stored = Stored { set, reads: vec![relation], ..Stored::new(info, base, delivery) };
        self.catalog.relations.insert(id, stored);
        self.catalog.rankings.insert(index, Ranked { id, users: 1, dataflow, button, held });
        self.catalog.regroup();
        self.touch_group(id, time, true);
        Some(id)
    }

    /// Takes back a wish for first rows: with the last one they are no longer kept. Which they were.
    pub fn unrank(
        &mut self,
        worker: &mut Worker,
        relation: RelationId,
        ranking: &Ranking,
    ) -> Option<RelationId> {
        let index = (relation, ranking.clone());
        let ranked = self.catalog.rankings.get_mut(&index)?;
        ranked.users -= 1;
        let id = ranked.id;
        if ranked.users == 0
            && let Some(ranked) = self.catalog.rankings.remove(&index)
        {
            self.drop_ranking(worker, ranked);
            self.catalog.regroup();
        }
        Some(id)
    }

    /// How many different first rows are kept.
    pub fn rankings(&self) -> usize {
        self.catalog.rankings.len()
    }

    /// The first rows of a relation, if they are kept.
    pub fn ranked(&self, relation: RelationId, ranking: &Ranking) -> Option<RelationId> {
        self.catalog.rankings.get(&(relation, ranking.clone())).map(|ranked| ranked.id)
    }

    /// Drops what is kept of a relation that goes.
    pub(super) fn drop_rankings(&mut self, worker: &mut Worker, relation: RelationId) {
        let of = |(other, _): &(RelationId, Ranking)| *other == relation;
        let keys: Vec<_> = self.catalog.rankings.keys().filter(|key| of(key)).cloned().collect();
        for key in keys {
            if let Some(ranked) = self.catalog.rankings.remove(&key) {
                self.drop_ranking(worker, ranked);
            }
        }
    }

    fn drop_ranking(&mut self, worker: &mut Worker, mut ranked: Ranked) {
        ranked.button.press();
        self.forget(ranked.id);
        worker.drop_dataflow(ranked.dataflow);
    }
}

impl Ranked {
    /// What the operators hold; the arrangement of the first rows is counted as any.
    pub(crate) fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        for (rows, bytes) in self.held.iter().map(|held| held.get()) {
            stats.updates += rows;
            stats.bytes += bytes;
        }
        stats
    }
}

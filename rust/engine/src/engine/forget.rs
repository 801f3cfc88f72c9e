//! A worker's part in a sweep of the dictionary (ADR 0008): marking the words that its dataflows hold.

use dataflow_protocol::dictionary::sweep;
use dataflow_protocol::ids::Time;
use dataflow_protocol::rows::RowBuf;

use super::Engine;
use crate::trace::registry;

impl Engine {
    /// A sweep begins. A command.
    pub fn begin_sweep(&mut self) {
        sweep::begin();
        registry::begin();
        self.snapshots.lap();
        self.sweeping = true;
    }

    /// Whether a sweep has begun and isn't over in every process. Equal on all workers.
    pub fn is_sweeping(&self) -> bool {
        self.sweeping
    }

    /// Marks on: about `words` words, and more while batches are built, so that it comes to an end whatever is going on.
    /// Whether everything is marked that was there when the sweep began, and that was built since.
    pub fn mark(&mut self, words: usize) -> bool {
        registry::mark(words)
    }

    /// Whether all workers have finished all times up to `time`, which has been applied, and nothing is on its way any more
    /// that was sent before the sweep began.
    pub fn has_settled(&self, time: Time) -> bool {
        let mut relations = self.catalog.relations.keys();
        self.snapshots.has_lapped()
            && relations.all(|&relation| self.finished(relation).is_none_or(|finished| finished >= time))
    }

    /// Marks the rest: what was built last, and what programs have of their plans.
    pub fn end_marking(&mut self) {
        registry::finish();
        self.catalog.modules.values().for_each(|module| sweep::mark(&module.constants));
    }

    /// The sweep is over, in all processes. A command.
    pub fn end_sweep(&mut self) {
        self.sweeping = false;
    }

    /// Rows come in, of which nobody else may hold anything.
    pub(super) fn mark_incoming(&self, rows: &[&RowBuf]) {
        if self.sweeping {
            rows.iter().for_each(|rows| sweep::mark(rows.words()));
        }
    }
}

//! The cluster's clock: what `now` is.
//!
//! It moves by sequenced commands alone, and only forward, so it shows the same everywhere at a time. Programs that
//! read it import [`CLOCK`], a relation of one row that is there as long as there is such a program; windows
//! ([`crate::operators::window`]) see each tick by itself, on every worker, and needn't be sent it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use dataflow_protocol::ids::{RelationId, Time};
use dataflow_protocol::plan::{CLOCK, InputMode, Plan};
use dataflow_protocol::rows::RowBuf;
use dataflow_protocol::value::{Column, Type, Word, from_number};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::Scope;
use timely::dataflow::operators::Input as _;
use timely::dataflow::operators::core::input::Handle;
use timely::worker::Worker;

use super::Engine;
use crate::catalog::{RelationInfo, Stored};
use crate::input::{self, Declared};
use crate::operators::window::Clock;

/// The name of the clock's relation.
const NAME: &str = "now";

/// Where a program's dataflow hears of ticks.
pub(super) type Ticks = Handle<u64, CapacityContainerBuilder<Vec<Word>>>;

/// What the clock shows, and who wants to know.
#[derive(Default)]
pub(super) struct State {
    now: Option<i64>,
    /// The dataflow of its relation, while some program reads it.
    dataflow: Option<usize>,
    /// By module.
    ticks: BTreeMap<String, Ticks>,
    looked_at: Rc<Cell<u64>>,
}

/// The clock would have to go back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Earlier {
    /// What it shows, in µs since 1970.
    pub now: i64,
}

impl Engine {
    /// What the clock shows, in µs since 1970, if it has ever been told.
    pub fn now(&self) -> Option<i64> {
        self.clock.now
    }

    /// Whether some program reads the clock.
    pub fn has_clock(&self) -> bool {
        self.clock.dataflow.is_some()
    }

    /// Rows on this worker that windows have looked at: those that came in, and those that were due.
    pub fn window_rows(&self) -> u64 {
        self.clock.looked_at.get()
    }

    /// From `time` on the clock shows `now`; whether it didn't already.
    ///
    /// # Errors
    ///
    /// [`Earlier`] if it shows a later time. Nothing changes then.
    pub fn tick(&mut self, worker: &Worker, time: Time, now: i64) -> Result<bool, Earlier> {
        match self.clock.now.replace(now) {
            Some(before) if before > now => {
                self.clock.now = Some(before);
                Err(Earlier { now: before })
            }
            Some(before) if before == now => Ok(false),
            before => {
                if self.has_clock() {
                    self.touch_group(CLOCK, time, false);
                    self.show(worker, time, before);
                    for ticks in self.clock.ticks.values_mut() {
                        if *ticks.time() < time {
                            ticks.advance_to(time);
                        }
                        ticks.send(from_number(now));
                    }
                }
                Ok(true)
            }
        }
    }

    /// The one row of the clock's relation becomes what it shows.
    fn show(&mut self, worker: &Worker, time: Time, before: Option<i64>) {
        let rows = |shown: Option<i64>| {
            let mut rows = RowBuf::new(1);
            shown.iter().for_each(|&now| rows.push(&[from_number(now)]));
            rows
        };
        let (delete, insert) = (rows(before), rows(self.clock.now));
        let stored = self.catalog.relations.get_mut(&CLOCK).filter(|_| worker.index() == 0);
        if let Some(input) = stored.and_then(|stored| stored.input.as_mut()) {
            input.introduce(time, &delete, &insert);
        }
    }

    /// Sees to it that the clock's relation is there for a program that reads it.
    pub(super) fn start_clock(&mut self, worker: &mut Worker, time: Time, plan: &Plan) {
        if !plan.reads_clock() || self.has_clock() {
            return;
        }
        self.clock.dataflow = Some(worker.next_dataflow_index());
        let meter = self.meter(None);
        let deliver_as = Some((CLOCK, &self.finished));
        let declared = Declared { name: NAME, mode: &InputMode::Set, width: 1, key: None };
        let built = input::build(worker, &declared, time, deliver_as, &meter);
        let info = Arc::new(RelationInfo {
            id: CLOCK,
            name: NAME.to_owned(),
            columns: vec![Column::new("t".to_owned(), Type::Instant)],
            input: None,
            output: false,
            module: String::new(),
        });
        let delivery = built.delivery.unwrap_or_default();
        let stored = Stored { input: Some(built.input), ..Stored::new(info, built.base, delivery) };
        self.catalog.relations.insert(CLOCK, stored);
        self.show(worker, time, None);
    }

    /// Lets a module's dataflow, which begins at `time`, hear of ticks.
    pub(super) fn hear_ticks<'scope>(&self, scope: Scope<'scope, u64>, time: Time) -> (Ticks, Clock<'scope>) {
        let (mut handle, ticks) = scope.new_input::<Vec<Word>>();
        handle.advance_to(time);
        self.clock.now.iter().for_each(|&now| handle.send(from_number(now)));
        (handle, Clock { ticks, looked_at: Rc::clone(&self.clock.looked_at) })
    }

    pub(super) fn keep_ticks(&mut self, module: &str, ticks: Ticks) {
        self.clock.ticks.insert(module.to_owned(), ticks);
    }

    /// No tick comes at or before `time` any more.
    pub(super) fn advance_ticks(&mut self, relation: RelationId, time: Time) {
        if relation == CLOCK {
            let behind = self.clock.ticks.values_mut().filter(|ticks| *ticks.time() <= time);
            behind.for_each(|ticks| ticks.advance_to(time + 1));
        }
    }

    /// A module that goes hears of no more ticks.
    pub(super) fn forget_ticks(&mut self, module: &str) {
        self.clock.ticks.remove(module);
    }

    /// Drops the clock's relation if no program that is left reads it.
    pub(super) fn stop_clock(&mut self, worker: &mut Worker) {
        if self.catalog.modules.values().any(|module| module.plan.reads_clock()) {
            return;
        }
        if let Some(dataflow) = self.clock.dataflow.take() {
            self.forget(CLOCK);
            worker.drop_dataflow(dataflow);
        }
    }
}

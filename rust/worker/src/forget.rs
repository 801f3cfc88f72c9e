//! Sweeps of the dictionary (ADR 0008): when one begins, and a worker's part in it.
//!
//! Commands take a sweep through the cluster: it begins; every worker says that it has marked what it held; every process says
//! that it has dropped what wasn't. Between the last two each worker waits until what was under way when the last one said that it
//! had marked is where it goes to: in batches, or in its own hands. Nothing else waits meanwhile.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use dataflow_protocol::dictionary::{self, sweep};
use dataflow_protocol::ids::Time;
use dataflow_protocol::value::Word;
use serde::{Deserialize, Serialize};

use crate::command::{Command, Ticket};
use crate::member::Member;

/// Words marked in a turn, besides those of batches that are being built.
const MARKED_A_TURN: usize = 1 << 13;

/// Words that a process says in one command that it keeps.
const TOLD_AT_ONCE: usize = 1 << 12;

/// A step of a sweep, told to all workers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Sweep {
    /// One begins, unless one is under way.
    Begin,
    /// The origin's process keeps these words, which all processes knew when the sweep began: they are kept everywhere.
    Keep(Vec<Word>),
    /// The origin has marked what it held when the sweep began.
    Marked,
    /// The origin's process has dropped what isn't marked.
    Dropped,
}

/// What the workers of a process share of sweeps.
#[derive(Debug, Default)]
pub(crate) struct Sweeps {
    /// Workers that have marked what they held when the sweep began.
    marked: AtomicUsize,
    /// Workers that have marked all.
    settled: AtomicUsize,
    /// Bytes of the dictionary after the last sweep.
    kept_bytes: AtomicUsize,
}

impl Sweeps {
    /// A generation begins: a sweep of the last one was given up.
    pub(crate) fn reset(&self) {
        self.marked.store(0, Ordering::SeqCst);
        self.settled.store(0, Ordering::SeqCst);
    }

    /// Whether the dictionary has grown so much that a sweep costs little for each byte that came.
    fn is_due(&self, least_bytes: u64) -> bool {
        let bytes = dictionary::bytes();
        bytes as u64 >= least_bytes && bytes >= 2 * self.kept_bytes.load(Ordering::Relaxed)
    }
}

/// Counts one more of `all`; whether it is the last one, with which counting begins anew.
fn last(count: &AtomicUsize, all: usize) -> bool {
    let last = count.fetch_add(1, Ordering::SeqCst) + 1 == all;
    if last {
        count.store(0, Ordering::SeqCst);
    }
    last
}

/// A worker's part in sweeps.
#[derive(Debug, Default)]
pub(crate) struct Sweeping {
    /// Workers that have marked what they held. This and the next two are equal on all workers.
    marked: usize,
    /// Processes that have dropped what wasn't marked.
    dropped: usize,
    /// When the last worker said that it had marked: what is later than this comes of what is marked.
    settles_at: Option<Time>,
    /// This worker has asked for one.
    proposed: bool,
    stage: Stage,
}

/// What a worker has to do next.
#[derive(Debug, Default)]
enum Stage {
    /// Nothing.
    #[default]
    Idle,
    /// To mark what it held when the sweep began.
    Marking,
    /// To tell the other processes what this one keeps: the words of some shards, and those at hand.
    Telling(Range<usize>, Vec<Word>),
    /// To wait until earlier times have finished, and mark the rest of the dataflows.
    Settling,
    /// To mark what waits for these readers, which are slow.
    Readers(Vec<Ticket>),
    /// To wait for what is pinned in this process.
    Waiting(sweep::Grace),
    /// To drop what isn't marked, in these shards.
    Dropping(Range<usize>),
}

impl Member {
    /// Asks for a sweep once it is time for one.
    pub(crate) fn sweep_if_due(&mut self) {
        let idle = !self.engine.is_sweeping() && !self.sweeping.proposed;
        if self.local == 0 && idle && self.process.sweeps.is_due(self.tunables.dictionary_bytes) {
            self.sweeping.proposed = true;
            self.send(Command::Sweep(Sweep::Begin));
        }
    }

    /// A step of a sweep is in the order.
    pub(crate) fn sweep(&mut self, time: Time, step: &Sweep) {
        match step {
            Sweep::Begin => {
                self.sweeping.proposed = false;
                if !self.engine.is_sweeping() {
                    self.engine.begin_sweep();
                    self.sweeping = Sweeping { stage: Stage::Marking, ..Sweeping::default() };
                }
            }
            // Once in a process: it must be before the process drops anything, and all its workers settle before.
            Sweep::Keep(words) if self.local == 0 => sweep::keep(words),
            Sweep::Keep(_) => {}
            Sweep::Marked => {
                self.sweeping.marked += 1;
                if self.sweeping.marked == self.peers() {
                    self.sweeping.settles_at = Some(time);
                }
            }
            Sweep::Dropped => {
                self.sweeping.dropped += 1;
                if self.sweeping.dropped == self.process.config.processes {
                    self.engine.end_sweep();
                    self.sweeping = Sweeping::default();
                }
            }
        }
    }

    /// Goes on with a sweep; whether there is more to do at once. What the engine has finished must have been taken before.
    pub(crate) fn sweep_on(&mut self) -> bool {
        let (threads, alone) = (self.process.config.threads, self.process.config.processes == 1);
        self.sweeping.stage = match std::mem::take(&mut self.sweeping.stage) {
            Stage::Idle => return false,
            Stage::Marking if !self.engine.mark(MARKED_A_TURN) => Stage::Marking,
            Stage::Marking if last(&self.process.sweeps.marked, threads) && !alone => {
                Stage::Telling(sweep::shards(), Vec::new())
            }
            Stage::Marking => self.marked(),
            Stage::Telling(mut shards, mut words) => {
                if words.is_empty() {
                    words = shards.next().map(sweep::kept).unwrap_or_default();
                }
                let told = words.split_off(words.len().saturating_sub(TOLD_AT_ONCE));
                let done = shards.is_empty() && words.is_empty();
                if !told.is_empty() {
                    self.send(Command::Sweep(Sweep::Keep(told)));
                }
                if done { self.marked() } else { Stage::Telling(shards, words) }
            }
            Stage::Settling if self.sweeping.settles_at.is_some_and(|time| self.engine.has_settled(time)) => {
                self.engine.end_marking();
                Stage::Readers(self.subscriptions.tickets())
            }
            Stage::Readers(mut readers) => {
                let mut words = 0;
                while words < MARKED_A_TURN
                    && let Some(reader) = readers.pop()
                {
                    words += self.subscriptions.mark(reader);
                }
                match readers.is_empty() {
                    false => Stage::Readers(readers),
                    true if last(&self.process.sweeps.settled, threads) => {
                        Stage::Waiting(sweep::Grace::begin())
                    }
                    true => Stage::Idle,
                }
            }
            Stage::Waiting(grace) if grace.is_over() => Stage::Dropping(sweep::shards()),
            Stage::Dropping(mut shards) => match shards.next() {
                Some(shard) => {
                    let dropped = sweep::drop_unmarked(shard, alone);
                    self.process.metrics.process.dictionary_dropped.inc_by(dropped as u64);
                    Stage::Dropping(shards)
                }
                None => {
                    self.process.sweeps.kept_bytes.store(dictionary::bytes(), Ordering::Relaxed);
                    self.process.metrics.process.dictionary_sweeps.inc();
                    self.send(Command::Sweep(Sweep::Dropped));
                    Stage::Idle
                }
            },
            waiting => {
                self.sweeping.stage = waiting;
                return false;
            }
        };
        true
    }

    fn marked(&mut self) -> Stage {
        self.send(Command::Sweep(Sweep::Marked));
        Stage::Settling
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_all_is_told_and_counting_begins_anew() {
        let count = AtomicUsize::new(0);
        let told: Vec<bool> = (0..6).map(|_| last(&count, 3)).collect();
        assert_eq!(told, [false, false, true, false, false, true]);
    }
}

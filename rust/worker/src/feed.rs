//! Feeds: bounded queues of transactions, from the thread that reads an external source to the worker that owns it.
//!
//! The thread turns what it reads into words and offers it here; it never waits for a turn of the worker's, only for
//! room. The worker takes transactions within a turn's budgets, as it takes requests. What was offered counts against
//! the feed's bound until it has taken effect: a source that is faster than the dataflows stops reading.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use dataflow_protocol::error::ErrorBody;
use dataflow_protocol::ids::{RelationId, Time};
use dataflow_protocol::intake::{Change, OnBad, Parsed, Target, Transaction, csv, ndjson, pgoutput};
use dataflow_protocol::rows::RowBuf;

/// Wakes the thread of a source: shared by all its feeds, since it waits for whichever has room first.
#[derive(Debug, Default)]
pub struct Bell {
    rung: Mutex<bool>,
    ringing: Condvar,
}

impl Bell {
    /// Wakes whoever waits, or the next to wait.
    pub fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.ringing.notify_all();
    }

    /// Waits until it rings, or has rung since the last call; at most so long.
    pub fn wait(&self, timeout: Duration) {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.ringing.wait_timeout_while(rung, timeout, |rung| !*rung);
        *waited.unwrap_or_else(PoisonError::into_inner).0 = false;
    }
}

/// How far a feed has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Transactions that were offered.
    pub offered: u64,
    /// Transactions that have taken effect.
    pub applied: u64,
    /// Rows of these.
    pub rows: u64,
    /// The time of the last of them.
    pub time: Time,
    /// The source's position behind the last of them.
    pub position: u64,
    /// Bytes that were offered and haven't taken effect.
    pub held_bytes: usize,
}

/// A transaction on its way.
#[derive(Debug)]
pub(crate) struct Supply {
    pub(crate) transaction: Transaction,
    pub(crate) position: u64,
    pub(crate) bytes: usize,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Supply>,
    progress: Progress,
    ended: Option<ErrorBody>,
}

/// A queue from the thread of a source to one worker.
pub struct Feed {
    worker: usize,
    limit_bytes: usize,
    state: Mutex<State>,
    bell: Arc<Bell>,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Feed").field("worker", &self.worker).finish_non_exhaustive()
    }
}

impl Feed {
    pub(crate) fn new(
        worker: usize,
        limit_bytes: usize,
        bell: Arc<Bell>,
        wake: Box<dyn Fn() + Send + Sync>,
    ) -> Self {
        Feed { worker, limit_bytes, state: Mutex::default(), bell, wake }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The worker that owns it, counted through the cluster.
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// How far it has come.
    pub fn progress(&self) -> Progress {
        self.state().progress
    }

    /// Why nothing more is taken from it, if that is so.
    pub fn ended(&self) -> Option<ErrorBody> {
        self.state().ended.clone()
    }

    /// Whether there is room for another transaction: nothing is under way, or less than the bound. A transaction may
    /// exceed it by itself, or it could never go.
    pub fn has_room(&self) -> bool {
        let state = self.state();
        state.ended.is_none() && state.progress.held_bytes < self.limit_bytes
    }

    /// Hands over a transaction, whether or not there is room. `false` if the feed has ended; nothing is kept then.
    pub fn offer(&self, transaction: Transaction, position: u64) -> bool {
        let bytes = transaction.bytes();
        let mut state = self.state();
        if state.ended.is_some() {
            return false;
        }
        state.progress.offered += 1;
        state.progress.held_bytes += bytes;
        state.queue.push_back(Supply { transaction, position, bytes });
        drop(state);
        (self.wake)();
        true
    }

    /// Ends it: what hasn't been taken never will be, what has is still held until it has taken effect. The first
    /// reason counts.
    pub fn end(&self, reason: ErrorBody) {
        let mut state = self.state();
        state.ended.get_or_insert(reason);
        let dropped: usize = state.queue.drain(..).map(|supply| supply.bytes).sum();
        state.progress.held_bytes = state.progress.held_bytes.saturating_sub(dropped);
        drop(state);
        self.bell.ring();
        (self.wake)();
    }

    /// For its worker, which ends: nothing that was offered will take effect any more.
    pub(crate) fn abandon(&self, reason: &ErrorBody) {
        self.end(reason.clone());
        self.state().progress.held_bytes = 0;
        self.bell.ring();
    }

    /// For its worker: the next transaction.
    pub(crate) fn take(&self) -> Option<Supply> {
        self.state().queue.pop_front()
    }

    /// For its worker: a transaction that was taken won't take effect. Ends the feed, unless it has ended already:
    /// whoever waits for what is under way must not wait for this one.
    pub(crate) fn lost(&self, bytes: usize, reason: ErrorBody) {
        let mut state = self.state();
        state.progress.held_bytes = state.progress.held_bytes.saturating_sub(bytes);
        drop(state);
        self.end(reason);
    }

    /// For its worker: a transaction has taken effect.
    pub(crate) fn settled(&self, time: Time, rows: u64, position: u64, bytes: usize) {
        let progress = &mut self.state().progress;
        progress.applied += 1;
        progress.rows += rows;
        (progress.time, progress.position) = (time, position);
        progress.held_bytes = progress.held_bytes.saturating_sub(bytes);
        self.bell.ring();
    }

    /// Reads a piece of a CSV file and hands its rows over as one transaction; none, and nothing is read, while there is
    /// no room.
    pub fn csv(
        &self,
        bytes: &[u8],
        target: &Target,
        format: &csv::Format,
        on_bad: OnBad,
        last: bool,
    ) -> Option<Parsed> {
        self.has_room().then(|| self.insert(target, csv::parse(bytes, target, format, on_bad, last)))?
    }

    /// The same for lines of JSON.
    pub fn ndjson(&self, bytes: &[u8], target: &Target, on_bad: OnBad, last: bool) -> Option<Parsed> {
        self.has_room().then(|| self.insert(target, ndjson::parse(bytes, target, on_bad, last)))?
    }

    fn insert(&self, target: &Target, mut parsed: Parsed) -> Option<Parsed> {
        let width = target.columns.len();
        let rows = std::mem::replace(&mut parsed.rows, RowBuf::new(width));
        let contents = std::mem::take(&mut parsed.contents);
        let pin = parsed.pin.clone();
        let (count, mut transaction) = (rows.len(), Transaction { contents, changes: Vec::new(), pin });
        if count > 0 {
            transaction.changes.push(Change { insert: rows, ..Change::new(target.id, width) });
        }
        // Texts of bad rows must be announced as well.
        let anything = count > 0 || !transaction.contents.is_empty();
        parsed.taken_rows = count as u64;
        (!anything || self.offer(transaction, 0)).then_some(parsed)
    }

    /// Empties relations in one transaction.
    pub fn clear(&self, targets: &[(RelationId, usize)]) -> bool {
        let clear = |&(id, width): &(RelationId, usize)| Change { clear: true, ..Change::new(id, width) };
        let changes = targets.iter().map(clear).collect();
        self.offer(Transaction { changes, ..Transaction::default() }, 0)
    }

    /// Follows messages of PostgreSQL's replication, as many as there is room for, each transaction of the server's
    /// being one here; how many were taken, and what was left out of them.
    ///
    /// # Errors
    ///
    /// As [`pgoutput::Decoder::message`].
    pub fn pgoutput(
        &self,
        decoder: &mut pgoutput::Decoder,
        messages: &[impl AsRef<[u8]>],
    ) -> Result<Followed, pgoutput::StreamError> {
        let mut followed = Followed::default();
        for message in messages {
            if !self.has_room() {
                break;
            }
            followed.messages += 1;
            if let Some(commit) = decoder.message(message.as_ref())? {
                followed.bad_rows += commit.bad_rows;
                followed.bad = followed.bad.or(commit.bad);
                followed.position = Some(commit.position);
                let empty = commit.transaction.changes.is_empty() && commit.transaction.contents.is_empty();
                if !empty && !self.offer(commit.transaction, commit.position) {
                    break;
                }
            }
        }
        Ok(followed)
    }
}

/// What was made of messages of PostgreSQL's replication.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Followed {
    /// How many were taken.
    pub messages: usize,
    /// The position behind the last transaction that ended in them.
    pub position: Option<u64>,
    /// Rows that didn't fit.
    pub bad_rows: u64,
    /// The first of them.
    pub bad: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataflow_protocol::error::ErrorCode;

    fn feed(limit_bytes: usize) -> Feed {
        Feed::new(0, limit_bytes, Arc::default(), Box::new(|| {}))
    }

    fn transaction(rows: usize) -> Transaction {
        let mut change = Change::new(RelationId(1), 1);
        (0..rows as u64).for_each(|row| change.insert.push(&[row]));
        Transaction { changes: vec![change], ..Transaction::default() }
    }

    #[test]
    fn there_is_room_until_the_bound_and_again_once_transactions_have_taken_effect() {
        let feed = feed(100);
        assert!(feed.has_room() && feed.offer(transaction(100), 7));
        assert!(!feed.has_room());
        let supply = feed.take().expect("it was offered");
        assert!(!feed.has_room(), "taken isn't settled");
        feed.settled(3, 100, supply.position, supply.bytes);
        assert!(feed.has_room());
        let progress = Progress { offered: 1, applied: 1, rows: 100, time: 3, position: 7, held_bytes: 0 };
        assert_eq!(feed.progress(), progress);
    }

    #[test]
    fn the_end_of_a_feed_drops_what_waits_and_refuses_the_rest() {
        let feed = feed(100);
        feed.offer(transaction(1), 0);
        feed.end(ErrorBody::new(ErrorCode::Interrupted, "the first reason"));
        feed.end(ErrorBody::new(ErrorCode::Interrupted, "another"));
        assert!(feed.take().is_none() && !feed.has_room() && !feed.offer(transaction(1), 0));
        assert_eq!(feed.progress().held_bytes, 0);
        assert_eq!(feed.ended().map(|reason| reason.message).as_deref(), Some("the first reason"));
    }

    #[test]
    fn nothing_is_held_of_a_transaction_that_was_lost_after_the_feed_ended() {
        let feed = feed(100);
        feed.offer(transaction(1), 0);
        let supply = feed.take().expect("it was offered");
        feed.end(ErrorBody::new(ErrorCode::Interrupted, "the source has ended"));
        assert!(feed.progress().held_bytes > 0, "it may still take effect");
        feed.lost(supply.bytes, ErrorBody::not_found("the relation is gone"));
        assert_eq!(feed.progress().held_bytes, 0);
        assert_eq!(feed.ended().map(|reason| reason.message).as_deref(), Some("the source has ended"));
    }

    #[test]
    fn a_bell_that_has_rung_is_not_waited_for() {
        let bell = Bell::default();
        bell.ring();
        bell.wait(Duration::from_secs(3600));
    }
}

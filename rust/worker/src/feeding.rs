//! The owner's side of external sources: takes transactions from feeds, as it takes requests from connections.

use std::collections::HashMap;
use std::sync::Arc;

use dataflow_engine::Slice;
use dataflow_protocol::error::ErrorBody;
use dataflow_protocol::ids::{RelationId, Time};
use dataflow_protocol::intake::Change;

use crate::command::{Command, Part, Ticket, Transaction};
use crate::feed::{Feed, Supply};
use crate::member::{Member, Own};

/// A source's transaction on its way through the sequencer.
pub(crate) struct Fed {
    feed: Arc<Feed>,
    supply: Supply,
}

impl Fed {
    /// It won't take effect: the worker ends.
    pub(crate) fn abandon(&self, reason: &ErrorBody) {
        self.feed.abandon(reason);
    }
}

/// The feeds that a worker owns.
#[derive(Default)]
pub(crate) struct Feeds {
    all: Vec<Arc<Feed>>,
    /// The one to begin with in the next turn.
    next: usize,
    /// Transactions that empty relations, and wait to know what is in them. Their feeds wait with them.
    clearing: Vec<Clearing>,
}

struct Clearing {
    feed: Arc<Feed>,
    supply: Supply,
    /// For each relation that is emptied: the change, and how many workers haven't told all.
    missing: HashMap<Ticket, (usize, usize)>,
}

impl Feeds {
    pub(crate) fn add(&mut self, feeds: Vec<Arc<Feed>>) {
        self.all.extend(feeds);
    }

    /// Nothing more is taken from any.
    pub(crate) fn end(&mut self, reason: &ErrorBody) {
        self.clearing.drain(..).for_each(|clearing| clearing.feed.abandon(reason));
        self.all.drain(..).for_each(|feed| feed.abandon(reason));
    }

    /// A relation is gone: nobody tells what was in it any more, so what waits for that is lost.
    pub(crate) fn end_relation(&mut self, relation: RelationId) {
        self.lose(|clearing| {
            clearing.supply.transaction.changes.iter().any(|change| change.relation == relation)
        });
    }

    /// Gives up transactions that wait to know what is in relations that are gone.
    fn lose(&mut self, lost: impl Fn(&Clearing) -> bool) {
        for Clearing { feed, supply, .. } in self.clearing.extract_if(.., |clearing| lost(clearing)) {
            feed.lost(supply.bytes, gone());
        }
    }

    fn is_clearing(&self, feed: &Arc<Feed>) -> bool {
        self.clearing.iter().any(|clearing| Arc::ptr_eq(&clearing.feed, feed))
    }

    /// Takes in a part of what is in a relation that is to be emptied; whether it was one.
    fn slice(&mut self, slice: &Slice) -> bool {
        let asked = |clearing: &&mut Clearing| clearing.missing.contains_key(&Ticket(slice.token));
        let Some(clearing) = self.clearing.iter_mut().find(asked) else { return false };
        let Some((change, workers)) = clearing.missing.get_mut(&Ticket(slice.token)) else { return false };
        *workers -= usize::from(slice.end && *workers > 0);
        if let Some(change) = clearing.supply.transaction.changes.get_mut(*change) {
            for (row, copies) in slice.changes.rows.iter().zip(&slice.changes.diffs) {
                (0..(*copies).max(0)).for_each(|_| change.delete.push(row));
            }
        }
        true
    }

    /// A transaction whose relations' contents are all known.
    fn cleared(&mut self) -> Option<Clearing> {
        let whole = |clearing: &Clearing| clearing.missing.values().all(|(_, workers)| *workers == 0);
        self.clearing.iter().position(whole).map(|index| self.clearing.swap_remove(index))
    }
}

impl Member {
    /// Takes transactions from the feeds in turn, up to a turn's budgets; whether more is at hand.
    pub(crate) fn feed(&mut self) -> bool {
        self.feeds.add(self.process.take_feeds(self.local));
        if self.feeds.all.is_empty() || self.overloaded {
            return false;
        }
        self.feeds.all.retain(|feed| feed.ended().is_none());
        let mut transactions = self.tunables.commands_per_turn;
        let mut bytes = self.tunables.bytes_per_turn as usize;
        let feeds = self.feeds.all.clone();
        let (mut waiting, mut idle) = (self.feeds.next, 0);
        while idle < feeds.len() && transactions > 0 && bytes > 0 {
            let feed = &feeds[waiting % feeds.len()];
            waiting += 1;
            let supply = if self.feeds.is_clearing(feed) { None } else { feed.take() };
            let Some(supply) = supply else {
                idle += 1;
                continue;
            };
            (idle, transactions) = (0, transactions - 1);
            bytes = bytes.saturating_sub(supply.bytes);
            self.take_supply(Arc::clone(feed), supply);
        }
        self.feeds.next = waiting;
        idle < feeds.len()
    }

    fn take_supply(&mut self, feed: Arc<Feed>, mut supply: Supply) {
        self.announce(&mut supply.transaction.contents);
        let mut missing = HashMap::new();
        for (index, change) in
            supply.transaction.changes.iter().enumerate().filter(|(_, change)| change.clear)
        {
            let ticket = self.ticket();
            self.element.commands.push(Command::Contents {
                ticket,
                relation: change.relation,
                part: Part::Rows(Vec::new()),
            });
            missing.insert(ticket, (index, self.peers()));
        }
        if missing.is_empty() {
            self.supply(Fed { feed, supply });
        } else {
            self.feeds.clearing.push(Clearing { feed, supply, missing });
        }
    }

    fn supply(&mut self, fed: Fed) {
        let relations = fed.supply.transaction.changes.iter().map(|change| change.relation).collect();
        self.element.transactions.push(Transaction { relations, key: None });
        self.transactions.push_back(Own::Fed(fed));
    }

    /// A part of a relation's contents, if a feed has asked for it; whether one has.
    pub(crate) fn fed_slice(&mut self, slice: &Slice) -> bool {
        let asked = self.feeds.slice(slice);
        while let Some(Clearing { feed, supply, .. }) = self.feeds.cleared() {
            self.supply(Fed { feed, supply });
        }
        asked
    }

    /// The contents that a feed has asked for won't come: the relation is gone.
    pub(crate) fn fed_gone(&mut self, ticket: Ticket) {
        self.feeds.lose(|clearing| clearing.missing.contains_key(&ticket));
    }

    /// Introduces a transaction of a source's, unless a relation that it changes is gone: then the feed ends.
    pub(crate) fn settle_fed(&mut self, time: Time, fed: Fed, effective: bool) {
        let Fed { feed, supply } = fed;
        if !effective {
            return feed.lost(supply.bytes, gone());
        }
        let rows = supply.transaction.rows() as u64;
        for Change { relation, erase, delete, insert, .. } in &supply.transaction.changes {
            self.engine.erase(*relation, time, erase);
            self.engine.introduce(*relation, time, delete, insert);
        }
        self.metrics.rows.inc_by(rows);
        feed.settled(time, rows, supply.position, supply.bytes);
    }
}

fn gone() -> ErrorBody {
    ErrorBody::not_found("a relation that the source feeds was unregistered")
}

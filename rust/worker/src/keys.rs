//! The table of idempotency keys, replicated: equal on all workers, since all change it in sequenced order only.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use dataflow_protocol::ids::Time;
use serde::{Deserialize, Serialize};
use siphasher::sip128::{Hasher128, SipHasher13};

/// A client's `key` and the content sent with it, as digests: the table's size doesn't depend on what clients send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// Of the key's text.
    pub name: u128,
    /// Of the transaction's changes.
    pub content: u128,
}

/// A digest that is the same on every host and in every encoding of the same content.
pub fn digest(content: &impl Hash) -> u128 {
    let mut hasher = SipHasher13::new_with_keys(0x6b65_7973, 0x6466_7372);
    content.hash(&mut hasher);
    hasher.finish128().as_u128()
}

/// What a key means for the transaction that bears it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Never seen, or forgotten: the transaction takes effect, and its key is remembered.
    Fresh,
    /// The same content had effect at this time.
    Repeated(Time),
    /// Another content had effect under this key.
    Conflict,
}

/// Keys of the transactions that had effect, oldest forgotten first.
#[derive(Debug)]
pub struct KeyTable {
    known: HashMap<u128, (u128, Time)>,
    order: VecDeque<u128>,
    retain: usize,
}

impl KeyTable {
    /// A table that remembers `retain` keys.
    pub fn new(retain: usize) -> Self {
        KeyTable { known: HashMap::new(), order: VecDeque::new(), retain }
    }

    /// Judges a transaction that takes effect at `time` unless its key says otherwise, and remembers the key.
    ///
    /// To be called in sequenced order on every worker, and only for transactions that have an effect otherwise: a
    /// rejected one doesn't use up its key.
    pub fn admit(&mut self, key: Key, time: Time) -> Verdict {
        match self.known.get(&key.name) {
            Some((content, first)) if *content == key.content => Verdict::Repeated(*first),
            Some(_) => Verdict::Conflict,
            None => {
                self.known.insert(key.name, (key.content, time));
                self.order.push_back(key.name);
                self.forget();
                Verdict::Fresh
            }
        }
    }

    /// Changes how many keys are remembered.
    pub fn set_retain(&mut self, retain: usize) {
        self.retain = retain;
        self.forget();
    }

    fn forget(&mut self) {
        while self.order.len() > self.retain {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }

    /// Keys remembered.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether no key is remembered.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, content: &str) -> Key {
        Key { name: digest(&name), content: digest(&content) }
    }

    #[test]
    fn same_content_repeats_and_other_content_conflicts() {
        let mut table = KeyTable::new(10);
        assert_eq!(table.admit(key("a", "x"), 3), Verdict::Fresh);
        assert_eq!(table.admit(key("a", "x"), 4), Verdict::Repeated(3));
        assert_eq!(table.admit(key("a", "y"), 5), Verdict::Conflict);
        assert_eq!(table.admit(key("b", "x"), 5), Verdict::Fresh);
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn the_oldest_key_is_forgotten_first() {
        let mut table = KeyTable::new(2);
        for (time, name) in [(1, "a"), (2, "b"), (3, "c")] {
            assert_eq!(table.admit(key(name, "x"), time), Verdict::Fresh);
        }
        assert_eq!(table.admit(key("b", "x"), 4), Verdict::Repeated(2));
        assert_eq!(table.admit(key("a", "x"), 5), Verdict::Fresh);
        table.set_retain(0);
        assert!(table.is_empty());
    }
}

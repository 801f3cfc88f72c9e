//! What a source's transaction comes to in one relation, when it touches the same rows more than once.

use std::collections::HashMap;

use super::{Change, Target};
use crate::plan::InputMode;
use crate::rows::RowBuf;
use crate::value::Word;

type Map<V> = HashMap<Vec<Word>, V, foldhash::fast::FixedState>;

/// The net effect of inserts and deletes in the order they were made. A relation's own transactions apply all deletes
/// before all inserts; a source's rows may come, go and come again within one.
#[derive(Debug)]
pub(super) struct Ledger {
    relation: Target,
    clear: bool,
    net: Net,
}

#[derive(Debug)]
enum Net {
    /// By row: whether it is there in the end.
    Set(Map<bool>),
    /// By key: the row that is there in the end, if any.
    Upsert(Vec<usize>, Map<Option<Vec<Word>>>),
    /// By row: copies added.
    Raw(Map<i64>),
}

impl Ledger {
    pub(super) fn new(relation: Target) -> Self {
        let net = match &relation.input {
            InputMode::Set => Net::Set(Map::default()),
            InputMode::Upsert(key) => Net::Upsert(key.clone(), Map::default()),
            InputMode::Raw => Net::Raw(Map::default()),
        };
        Ledger { relation, clear: false, net }
    }

    pub(super) fn target(&self) -> &Target {
        &self.relation
    }

    pub(super) fn insert(&mut self, row: Vec<Word>) {
        match &mut self.net {
            Net::Set(rows) => drop(rows.insert(row, true)),
            Net::Upsert(key, rows) => drop(rows.insert(key_of(key, &row), Some(row))),
            Net::Raw(rows) => *rows.entry(row).or_default() += 1,
        }
    }

    /// Removes a row; of an `upsert` relation whatever has its key, so that its other columns don't matter.
    pub(super) fn delete(&mut self, row: Vec<Word>) {
        match &mut self.net {
            Net::Set(rows) => drop(rows.insert(row, false)),
            Net::Upsert(key, rows) => drop(rows.insert(key_of(key, &row), None)),
            Net::Raw(rows) => *rows.entry(row).or_default() -= 1,
        }
    }

    /// Everything goes, also what was inserted before.
    pub(super) fn clear(&mut self) {
        *self = Ledger::new(self.relation.clone());
        self.clear = true;
    }

    /// The change, and an empty ledger; none if there is nothing to change.
    pub(super) fn take(&mut self) -> Option<Change> {
        let width = self.relation.columns.len();
        let mut change = Change::new(self.relation.id, width);
        change.clear = std::mem::take(&mut self.clear);
        match &mut self.net {
            Net::Set(rows) => {
                for (row, there) in rows.drain() {
                    if there { change.insert.push(&row) } else { change.delete.push(&row) }
                }
            }
            Net::Upsert(key, rows) => {
                let mut erased = vec![0; width];
                for (words, row) in rows.drain() {
                    match row {
                        Some(row) => change.insert.push(&row),
                        None => {
                            key.iter().zip(words).for_each(|(&column, word)| erased[column] = word);
                            change.erase.push(&erased);
                        }
                    }
                }
            }
            Net::Raw(rows) => {
                for (row, copies) in rows.drain() {
                    let list: &mut RowBuf = if copies > 0 { &mut change.insert } else { &mut change.delete };
                    (0..copies.unsigned_abs()).for_each(|_| list.push(&row));
                }
            }
        }
        (change.clear || change.rows() > 0).then_some(change)
    }
}

fn key_of(key: &[usize], row: &[Word]) -> Vec<Word> {
    key.iter().map(|&column| row[column]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::RelationId;
    use crate::value::{Column, Type};

    fn ledger(input: InputMode) -> Ledger {
        let columns = ["k", "v"].map(|name| Column::new(name, Type::Unsigned)).to_vec();
        Ledger::new(Target { id: RelationId(1), name: "r".into(), columns, input })
    }

    fn rows(buffer: &RowBuf) -> Vec<Vec<Word>> {
        let mut rows: Vec<_> = buffer.iter().map(<[Word]>::to_vec).collect();
        rows.sort();
        rows
    }

    #[test]
    fn the_last_word_on_a_row_counts() {
        let mut ledger = ledger(InputMode::Set);
        ledger.insert(vec![1, 1]);
        ledger.delete(vec![1, 1]);
        ledger.delete(vec![2, 2]);
        ledger.insert(vec![2, 2]);
        let change = ledger.take().unwrap();
        assert_eq!((rows(&change.insert), rows(&change.delete)), (vec![vec![2, 2]], vec![vec![1, 1]]));
        assert_eq!(ledger.take(), None);
    }

    #[test]
    fn an_upsert_relation_is_changed_by_key() {
        let mut ledger = ledger(InputMode::Upsert(vec![0]));
        ledger.insert(vec![1, 1]);
        ledger.insert(vec![1, 2]);
        ledger.insert(vec![2, 1]);
        ledger.delete(vec![2, 0]);
        let change = ledger.take().unwrap();
        assert_eq!((rows(&change.insert), rows(&change.erase)), (vec![vec![1, 2]], vec![vec![2, 0]]));
        assert!(change.delete.is_empty());
    }

    #[test]
    fn copies_add_up() {
        let mut ledger = ledger(InputMode::Raw);
        (0..3).for_each(|_| ledger.insert(vec![1, 1]));
        ledger.delete(vec![1, 1]);
        ledger.delete(vec![2, 2]);
        ledger.insert(vec![3, 3]);
        ledger.delete(vec![3, 3]);
        let change = ledger.take().unwrap();
        assert_eq!((rows(&change.insert), rows(&change.delete)), (vec![vec![1, 1]; 2], vec![vec![2, 2]]));
    }

    #[test]
    fn clearing_forgets_what_came_before() {
        let mut ledger = ledger(InputMode::Set);
        ledger.insert(vec![1, 1]);
        ledger.clear();
        ledger.insert(vec![2, 2]);
        let change = ledger.take().unwrap();
        assert!(change.clear);
        assert_eq!((rows(&change.insert), rows(&change.delete)), (vec![vec![2, 2]], vec![]));
    }
}

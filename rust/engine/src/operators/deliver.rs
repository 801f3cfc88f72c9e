//! Finished changes of a relation to the owners that want them.
//!
//! Every worker forwards its share of a relation's changes to the workers that own an interest in it, and only to
//! those; the owner hands a time's changes out once the frontier of that exchange has passed it, which is when every
//! worker has finished it. The frontier reaches all owners, interested or not: it is also what `finished` means.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use dataflow_protocol::ids::{RelationId, Time, WorkerIndex};
use dataflow_protocol::rows::RowBuf;
use dataflow_protocol::value::Word;
use timely::container::NoopBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

use super::ArrangedRows;
use crate::container::Updates;
use crate::container::exchange::{Route, exchange, rows_per_container};
use crate::{Changes, Step};

/// Who wants a relation's changes: for each owner how many interests, and the time after which the first begins.
pub(crate) type Interests = Rc<RefCell<BTreeMap<WorkerIndex, Interest>>>;

/// An owner's interest in a relation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interest {
    /// Number of subscriptions behind it.
    pub(crate) count: usize,
    /// Changes at later times are forwarded.
    pub(crate) after: Time,
}

/// Steps that are finished and wait for their owner, of all relations.
pub(crate) type Finished = Rc<RefCell<Vec<Step>>>;

/// How a relation's changes leave its dataflow.
#[derive(Default)]
pub(crate) struct Delivery {
    /// Filled in by commands.
    pub(crate) interests: Interests,
    /// All workers have finished all times before this one; `None` once no more can come.
    pub(crate) frontier: Rc<Cell<Option<Time>>>,
}

/// Delivers the changes of `relation`, whose rows are the arrangement's put in the order `columns`.
pub(crate) fn deliver(
    arranged: &ArrangedRows<'_, u64>,
    relation: RelationId,
    columns: Vec<usize>,
    finished: Finished,
) -> Delivery {
    let interests = Interests::default();
    let frontier = Rc::new(Cell::new(Some(0)));
    let (wanted, reached) = (Rc::clone(&interests), Rc::clone(&frontier));
    let width = columns.len();
    arranged
        .stream
        .clone()
        .unary::<NoopBuilder<Updates<u64>>, _, _, _>(Pipeline, "Forward", move |_, _| {
            move |input, output| {
                input.for_each(|time, spans| {
                    for view in spans.drain(..).filter_map(|span| span.inner) {
                        for (&owner, interest) in wanted.borrow().iter() {
                            forward(&view, owner, interest.after, &columns, |parcel| {
                                output.session_with_builder(&time).give_container(parcel);
                            });
                        }
                    }
                });
            }
        })
        .unary_frontier::<NoopBuilder<Vec<()>>, _, _, _>(exchange(Route::First), "Collect", move |_, _| {
            let mut collected: BTreeMap<Time, Changes> = BTreeMap::new();
            move |(input, frontier), _output| {
                input.for_each(|_, parcel| {
                    for index in 0..parcel.len() {
                        let changes =
                            collected.entry(parcel.time(index)).or_insert_with(|| Changes::new(width));
                        changes.push(&parcel.row(index)[1..], parcel.diff(index));
                    }
                    parcel.clear();
                });
                let upper = frontier.frontier().first().copied();
                reached.set(upper);
                let open = upper.map_or_else(BTreeMap::new, |upper| collected.split_off(&upper));
                let done = std::mem::replace(&mut collected, open);
                finished.borrow_mut().extend(done.into_iter().map(|(time, changes)| Step {
                    relation,
                    time,
                    changes,
                }));
            }
        });
    Delivery { interests, frontier }
}

/// Cuts the changes of a batch after `after` into containers, each row led by its owner.
fn forward(
    view: &crate::trace::View<u64>,
    owner: WorkerIndex,
    after: Time,
    columns: &[usize],
    mut give: impl FnMut(&mut Updates<u64>),
) {
    let trie = view.trie();
    let width = columns.len() + 1;
    let full = rows_per_container(width);
    let mut parcel = Updates::new(width);
    let mut row: Vec<Word> = Vec::new();
    for key in 0..trie.keys() {
        for val in trie.values(key) {
            row.clear();
            row.extend_from_slice(trie.key(key));
            row.extend_from_slice(trie.value(val));
            for update in trie.updates(val).filter(|&update| view.time(update) > after) {
                let words = parcel.row_words();
                words.push(owner.0 as Word);
                words.extend(columns.iter().map(|&column| row[column]));
                parcel.end_row(view.time(update), view.diff(update));
                if parcel.len() >= full {
                    give(&mut parcel);
                    parcel = Updates::new(width);
                }
            }
        }
    }
    if !parcel.is_empty() {
        give(&mut parcel);
    }
}

impl Changes {
    /// None, of rows of `width` words.
    pub fn new(width: usize) -> Self {
        Changes { rows: RowBuf::new(width), diffs: Vec::new() }
    }

    /// Adds a change.
    pub fn push(&mut self, row: &[Word], diff: i64) {
        self.rows.push(row);
        self.diffs.push(diff);
    }
}

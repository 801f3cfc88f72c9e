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
use differential_dataflow::trace::Span;
use timely::container::NoopBuilder;
use timely::dataflow::operators::generic::Operator;

use super::ArrangedRows;
use super::linear::{Reading, paced};
use crate::container::Updates;
use crate::container::exchange::{Route, exchange, rows_per_container};
use crate::meter::Meter;
use crate::trace::View;
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
    meter: &Meter,
) -> Delivery {
    let interests = Interests::default();
    let frontier = Rc::new(Cell::new(Some(0)));
    let (wanted, reached) = (Rc::clone(&interests), Rc::clone(&frontier));
    let width = columns.len();
    let begin = move |spans: &mut Vec<Span<u64, View<u64>>>, pieces: &mut Vec<Forwarding>| {
        for view in spans.drain(..).filter_map(|span| span.inner) {
            // Interests that come later begin at later times than a batch that is here has.
            let owners = wanted.borrow();
            pieces.extend(owners.iter().map(|(&owner, interest)| Forwarding {
                reading: Reading::new(view.clone()),
                owner,
                after: interest.after,
            }));
        }
    };
    paced(arranged.stream.clone(), "Forward", meter, begin, move |piece, effort, emit| {
        piece.forward(&columns, effort, emit)
    })
    .unary_frontier::<NoopBuilder<Vec<()>>, _, _, _>(exchange(Route::First), "Collect", move |_, _| {
        let mut collected: BTreeMap<Time, Changes> = BTreeMap::new();
        move |(input, frontier), _output| {
            input.for_each(|_, parcel| {
                for index in 0..parcel.len() {
                    let changes = collected.entry(parcel.time(index)).or_insert_with(|| Changes::new(width));
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

/// A batch on its way to one owner.
struct Forwarding {
    reading: Reading<u64>,
    owner: WorkerIndex,
    after: Time,
}

impl Forwarding {
    /// Cuts changes after the interest began into containers, each row led by its owner; whether that was all.
    fn forward(
        &mut self,
        columns: &[usize],
        effort: &mut usize,
        give: &mut dyn FnMut(&mut Updates<u64>),
    ) -> bool {
        let (owner, after) = (self.owner.0 as Word, self.after);
        let width = columns.len() + 1;
        let full = rows_per_container(width);
        let mut parcel = Updates::new(width);
        let done = self.reading.read(effort, |view, row, val| {
            for update in view.trie().updates(val).filter(|&update| view.time(update) > after) {
                let words = parcel.row_words();
                words.push(owner);
                words.extend(columns.iter().map(|&column| row[column]));
                parcel.end_row(view.time(update), view.diff(update));
                if parcel.len() >= full {
                    give(&mut parcel);
                    parcel = Updates::new(width);
                }
            }
        });
        if !parcel.is_empty() {
            give(&mut parcel);
        }
        done
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

//! Rows looked up in an arrangement that is not arranged again for them: the steps of a multiway join.
//!
//! A row that changes at time `t` meets what the arrangement holds at `t`, or, where `strict`, just before it. So it waits
//! until the arrangement is finished at `t`, and nothing else is kept: neither the rows, nor what they have met.
//! Times are totally ordered here.
//!
//! Nothing in timely slows down who produces too fast. So a path counts the rows that wait on it, and who would add to them
//! pauses while they are many: what is proposed isn't held in bulk until it is confirmed.
//!
//! Where several arrangements could give the values of the same new variables, each first says how many it has
//! ([`Role::Count`]); the one with the fewest proposes them, and the others confirm what is proposed ([`Role::Settle`]).
//! Meanwhile a row has one more word, its state: how many values at least, and whose; then just whose, and whether the
//! values stand in the row already.

use std::cell::Cell;
use std::cmp::Ordering;
use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

use dataflow_protocol::value::Word;
use differential_dataflow::AsCollection;
use differential_dataflow::trace::TraceReader;
use timely::container::NoopBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::CapabilitySet;
use timely::dataflow::operators::generic::Operator;
use timely::progress::Antichain;

use super::{ArrangedRows, Rows};
use crate::budget::Kind;
use crate::container::exchange::{Route, exchange, hash, rows_per_container};
use crate::container::{Diff, Updates};
use crate::meter::{Held, Meter};
use crate::trace::{Reader, View};

/// In the state of a row: its new values stand in it.
const EXTENDED: Word = 0x80;
/// The part of the state that says whose turn it is.
const WHOSE: Word = 0x7f;
/// By how much a number of values is shifted in the state.
const COUNT: u32 = 8;

/// Rows that may wait further on before an operator pauses.
const MOST_AHEAD: usize = 1 << 16;

/// Arrangements that can propose values for the same variables.
pub(crate) const MAX_MEMBERS: usize = WHOSE as usize;

/// What is done with a row.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Role {
    /// Kept if the arrangement has it.
    Confirm,
    /// Given the arrangement's values.
    Propose,
    /// Given the number of values of member `index`, if it is less than that of those before it. The last one proposes
    /// its values if they are the fewest.
    Count {
        /// Which member counts.
        index: usize,
        /// Whether it is the last of them.
        last: bool,
    },
    /// Given the values of member `index`, if its are the fewest; kept if others' are and it has them, too.
    Settle {
        /// Which member settles.
        index: usize,
        /// Those before it are asked for confirmation; else those after it.
        rising: bool,
        /// Whether it is the last one to be asked: the row has no state any more.
        last: bool,
    },
}

/// How rows are looked up.
#[derive(Clone, Debug)]
pub(crate) struct Lookup {
    /// Columns of a row that are the key, in the arrangement's order.
    pub(crate) key: Vec<usize>,
    /// Columns of a row that are, or will be, the value, in the arrangement's order.
    pub(crate) value: Vec<usize>,
    /// Width of a row without new values and state.
    pub(crate) prefix: usize,
    /// New values a row gets.
    pub(crate) fresh: usize,
    /// What is done.
    pub(crate) role: Role,
    /// Whether changes at the row's own time don't count.
    pub(crate) strict: bool,
}

/// Rows that wait to be looked up by the operators of one path on this worker.
pub(crate) type Backlog = Rc<Cell<usize>>;

/// What becomes of one row.
enum Action {
    Pass,
    Confirm,
    Count,
    Propose,
}

impl Lookup {
    fn action(&self, row: &[Word]) -> Action {
        match self.role {
            Role::Confirm => Action::Confirm,
            Role::Propose => Action::Propose,
            Role::Count { .. } => Action::Count,
            Role::Settle { index, rising, .. } => {
                let state = row.last().copied().unwrap_or(0);
                let (whose, index) = (state & WHOSE, index as Word);
                match state & EXTENDED != 0 {
                    false if whose == index => Action::Propose,
                    true if (rising && whose < index) || (!rising && whose > index) => Action::Confirm,
                    _ => Action::Pass,
                }
            }
        }
    }

    /// Width of the rows that come out.
    fn width(&self) -> usize {
        let extended = self.prefix + self.fresh;
        match self.role {
            Role::Confirm => self.prefix,
            Role::Propose | Role::Settle { last: true, .. } => extended,
            Role::Count { last: false, .. } => self.prefix + 1,
            Role::Count { last: true, .. } | Role::Settle { .. } => extended + 1,
        }
    }
}

/// Looks `rows` up in `arranged`.
pub(crate) fn lookup<'scope>(
    rows: Rows<'scope, u64>,
    arranged: ArrangedRows<'scope, u64>,
    name: &str,
    lookup: Lookup,
    backlog: &Backlog,
    meter: &Meter,
) -> Rows<'scope, u64> {
    let (backlog, held) = (Rc::clone(backlog), Held::default());
    meter.hold_waiting(&held);
    let (scope, meter, mut trace) = (rows.inner.scope(), meter.clone(), arranged.trace);
    let (routed, own) = (lookup.clone(), scope.index());
    let mut key = Vec::new();
    let route = Route::Chosen(Box::new(move |row, peers| match routed.action(row) {
        Action::Pass => own,
        _ => {
            key.clear();
            key.extend(routed.key.iter().map(|&column| row[column]));
            hash(&key) as usize % peers
        }
    }));
    let arrived = arranged.stream;
    rows.inner
        .binary_frontier::<_, NoopBuilder<Updates<u64>>, _, _, _, _>(
            arrived,
            exchange(route),
            Pipeline,
            name,
            move |_, info| {
                let activator = scope.activator_for(info.address);
                let mut share = meter.budget().share();
                let mut waiting: VecDeque<(CapabilitySet<u64>, Piece)> = VecDeque::new();
                let mut work = Work::new(lookup);
                move |(input, frontier), (spans, settled), output| {
                    let _timed = meter.timed(Kind::Join);
                    spans.for_each(|_, _| {});
                    input.for_each(|time, rows| {
                        if !rows.is_empty() {
                            let piece = Piece::new(std::mem::take(rows));
                            piece.comes(&backlog, &held);
                            waiting.push_back((time.retain_stamp(0), piece));
                        }
                    });
                    let settled = settled.frontier();
                    let ready = |piece: &Piece| !settled.less_equal(&piece.latest);
                    let mut effort = share.quantum();
                    let (mut fresh, mut passed) = (false, 0);
                    // What has begun comes first, since it goes on in the batches that have been read for it.
                    let next = |waiting: &VecDeque<(CapabilitySet<u64>, Piece)>| {
                        let begun = waiting.iter().position(|(_, piece)| piece.begun);
                        begun.or_else(|| waiting.iter().position(|(_, piece)| ready(piece)))
                    };
                    'pieces: while let Some(at) = next(&waiting) {
                        let (capability, piece) = &mut waiting[at];
                        if !fresh && !piece.begun {
                            work.read(&trace);
                            fresh = true;
                        }
                        piece.begun = true;
                        let given = Cell::new(0);
                        let mut emit = |rows: &mut Updates<u64>| {
                            meter.emitted(rows.len());
                            given.set(given.get() + rows.len());
                            output.session_with_builder(&*capability).give_container(rows);
                        };
                        // What has just been given counts, though nobody has taken it yet.
                        let ahead = || backlog.get() - held.get().0 + passed + given.get() > MOST_AHEAD;
                        while !work.go_on(piece, &mut effort, &mut emit) {
                            let far = ahead();
                            if far {
                                meter.budget().paused();
                            }
                            if far || share.spent() {
                                activator.activate();
                                break 'pieces;
                            }
                            effort = share.quantum();
                        }
                        passed += given.get();
                        piece.goes(&backlog, &held);
                        waiting.remove(at);
                    }
                    let pending = waiting.iter().flat_map(|(capability, _)| capability.iter());
                    let pending = pending.map(|capability| *capability.time());
                    let least = frontier.frontier().iter().copied().chain(pending).min();
                    compact(&mut trace, least);
                    if !waiting.iter().any(|(_, piece)| piece.begun) {
                        work.forget();
                    }
                }
            },
        )
        .as_collection()
}

/// Lets the trace forget what no row at or after `least` can tell apart: it may ask for what is before its time.
fn compact(trace: &mut Reader<u64>, least: Option<u64>) {
    let logical: Antichain<u64> = least.map(|time| time.saturating_sub(1)).into_iter().collect();
    trace.set_logical_compaction(logical.borrow());
    // Batches may be merged as they like: times say what counts.
    trace.set_physical_compaction(Antichain::new().borrow());
}

/// A container, and how far it has been looked up.
struct Piece {
    rows: Updates<u64>,
    /// The latest time in it.
    latest: u64,
    begun: bool,
    row: usize,
    /// Where to go on with the values of a row: which of the batches that have its key, and which value there.
    found: usize,
    value: Option<usize>,
}

impl Piece {
    fn new(rows: Updates<u64>) -> Self {
        let latest = (0..rows.len()).map(|index| rows.time(index)).max().unwrap_or(0);
        Piece { rows, latest, begun: false, row: 0, found: 0, value: None }
    }

    /// It is one of those that wait.
    fn comes(&self, backlog: &Backlog, held: &Held) {
        let (rows, bytes) = held.get();
        held.set((rows + self.rows.len(), bytes + self.rows.heap_bytes()));
        backlog.set(backlog.get() + self.rows.len());
    }

    /// It isn't any more.
    fn goes(&self, backlog: &Backlog, held: &Held) {
        let (rows, bytes) = held.get();
        held.set((rows - self.rows.len(), bytes - self.rows.heap_bytes()));
        backlog.set(backlog.get() - self.rows.len());
    }
}

/// The batches of the arrangement, and the key that was asked for last.
#[derive(Default)]
struct Sought {
    views: Vec<Batch>,
    key: Vec<Word>,
    /// When it was asked for, if any was.
    moment: Option<Moment>,
    /// Where it is, in batches that have something at that moment.
    found: Vec<Found>,
}

/// A batch, and how far it has been searched.
struct Batch {
    view: View<u64>,
    /// The one time of all its updates, where that is known.
    only: Option<u64>,
    at: usize,
}

/// Where a batch has the key, and how far its values have been searched.
struct Found {
    batch: usize,
    values: Range<usize>,
    at: usize,
}

impl Sought {
    fn read(&mut self, trace: &Reader<u64>) {
        self.forget();
        trace.map_spans(|span| {
            if let Some(view) = &span.inner {
                let only = view.only_time(span.upper());
                self.views.push(Batch { view: view.clone(), only, at: 0 });
            }
        });
    }

    fn forget(&mut self) {
        self.moment = None;
        self.views.clear();
        self.found.clear();
    }

    /// Finds the key that stands in these columns of a row, at this moment.
    fn find(&mut self, row: &[Word], columns: &[usize], moment: Moment) {
        let words = || columns.iter().map(|&column| row[column]);
        let order = self.moment.map(|_| words().cmp(self.key.iter().copied()));
        if self.moment == Some(moment) && order == Some(Ordering::Equal) {
            return;
        }
        if order != Some(Ordering::Greater) {
            self.views.iter_mut().for_each(|batch| batch.at = 0);
        }
        self.key.clear();
        self.key.extend(words());
        self.moment = Some(moment);
        self.found.clear();
        for (index, batch) in self.views.iter_mut().enumerate() {
            if moment.excludes(batch.only) {
                continue;
            }
            let trie = batch.view.trie();
            batch.at = trie.seek(batch.at, &self.key);
            if batch.at < trie.keys() && trie.is_key(batch.at, &self.key) {
                let values = trie.values(batch.at);
                self.found.push(Found { batch: index, at: values.start, values });
            }
        }
    }

    /// No less than the number of the key's values.
    fn count(&self) -> usize {
        self.found.iter().map(|found| found.values.len()).sum()
    }

    /// Copies of a value of the key.
    fn copies(&mut self, value: &[Word], moment: Moment) -> Diff {
        let mut copies = 0;
        for found in &mut self.found {
            let batch = &self.views[found.batch];
            let (trie, end) = (batch.view.trie(), found.values.end);
            // Values mostly come in order.
            if found.at >= end || trie.cmp_value(found.at, value).is_gt() {
                found.at = found.values.start;
            }
            found.at = trie.seek_value(found.at, end, value);
            if found.at < end && trie.cmp_value(found.at, value).is_eq() {
                copies += moment.copies(batch, found.at);
            }
        }
        copies
    }
}

/// A point in an arrangement's history.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Moment {
    time: u64,
    strict: bool,
}

impl Moment {
    #[inline]
    fn includes(self, time: u64) -> bool {
        time < self.time || (!self.strict && time == self.time)
    }

    #[inline]
    fn excludes(self, only: Option<u64>) -> bool {
        only.is_some_and(|only| !self.includes(only))
    }

    #[inline]
    fn copies(self, batch: &Batch, value: usize) -> Diff {
        match batch.only {
            // Included, else the batch would have been passed over.
            Some(_) => batch.view.trie().updates(value).map(|update| batch.view.diff(update)).sum(),
            None => batch.view.count(value, |&time| self.includes(time)),
        }
    }
}

/// Emits a container, and puts an empty one in its place.
fn hand_on(output: &mut Updates<u64>, full: usize, emit: &mut dyn FnMut(&mut Updates<u64>)) {
    let empty = Updates::with_capacity(output.width(), full);
    emit(&mut std::mem::replace(output, empty));
}

struct Work {
    lookup: Rc<Lookup>,
    sought: Sought,
    value: Vec<Word>,
    output: Updates<u64>,
}

impl Work {
    fn new(lookup: Lookup) -> Self {
        let output = Updates::new(lookup.width());
        Work { lookup: Rc::new(lookup), sought: Sought::default(), value: Vec::new(), output }
    }

    fn read(&mut self, trace: &Reader<u64>) {
        self.sought.read(trace);
    }

    fn forget(&mut self) {
        self.sought.forget();
    }

    /// Goes on with a piece while there is effort; whether that was all of it. What comes out is all emitted.
    fn go_on(
        &mut self,
        piece: &mut Piece,
        effort: &mut usize,
        emit: &mut dyn FnMut(&mut Updates<u64>),
    ) -> bool {
        let lookup = Rc::clone(&self.lookup);
        let full = rows_per_container(lookup.width());
        while piece.row < piece.rows.len() {
            if *effort == 0 {
                break;
            }
            // Going on in the middle of a row's values is paid for by these.
            if piece.value.is_none() {
                *effort -= 1;
            }
            let row = piece.rows.row(piece.row);
            let (time, diff) = (piece.rows.time(piece.row), piece.rows.diff(piece.row));
            let moment = Moment { time, strict: lookup.strict };
            let done = match lookup.action(row) {
                Action::Pass => self.pass(&lookup, row, time, diff),
                Action::Confirm => {
                    self.sought.find(row, &lookup.key, moment);
                    self.value.clear();
                    self.value.extend(lookup.value.iter().map(|&column| row[column]));
                    match self.sought.copies(&self.value, moment) {
                        0 => true,
                        copies => self.pass(&lookup, row, time, diff * copies),
                    }
                }
                Action::Count => {
                    self.sought.find(row, &lookup.key, moment);
                    match (self.sought.count(), piece.value) {
                        (0, None) => true,
                        // In the middle of its own values.
                        (_, Some(_)) => self.propose(&lookup, piece, moment, effort, full, emit),
                        (count, None) => match self.counted(&lookup, row, count) {
                            Some(state) => self.keep_count(&lookup, row, state, time, diff),
                            None => self.propose(&lookup, piece, moment, effort, full, emit),
                        },
                    }
                }
                Action::Propose => {
                    self.sought.find(row, &lookup.key, moment);
                    self.propose(&lookup, piece, moment, effort, full, emit)
                }
            };
            if done {
                piece.row += 1;
                (piece.found, piece.value) = (0, None);
            }
            if self.output.len() >= full {
                hand_on(&mut self.output, full, emit);
            }
        }
        if !self.output.is_empty() {
            hand_on(&mut self.output, full, emit);
        }
        piece.row == piece.rows.len()
    }

    /// The row as it is, without its state where nobody needs it any more.
    fn pass(&mut self, lookup: &Lookup, row: &[Word], time: u64, diff: Diff) -> bool {
        self.output.push(&row[..lookup.width()], time, diff);
        true
    }

    /// The row's state after this member has counted; none if it is the last one and its values are the fewest.
    fn counted(&self, lookup: &Lookup, row: &[Word], count: usize) -> Option<Word> {
        let Role::Count { index, last } = lookup.role else { return None };
        let own = (count as Word) << COUNT | index as Word;
        if index == 0 {
            return Some(own);
        }
        let least = row.last().copied().unwrap_or(Word::MAX).min(own);
        (!last || least != own).then_some(least)
    }

    /// The row with its state; after the last count with room for new values, too.
    fn keep_count(&mut self, lookup: &Lookup, row: &[Word], state: Word, time: u64, diff: Diff) -> bool {
        let words = self.output.row_words();
        words.extend_from_slice(&row[..lookup.prefix]);
        if matches!(lookup.role, Role::Count { last: true, .. }) {
            words.extend(std::iter::repeat_n(0, lookup.fresh));
            words.push(state & WHOSE);
        } else {
            words.push(state);
        }
        self.output.end_row(time, diff);
        true
    }

    /// The row with each of the values in turn; whether that were all.
    fn propose(
        &mut self,
        lookup: &Lookup,
        piece: &mut Piece,
        moment: Moment,
        effort: &mut usize,
        full: usize,
        emit: &mut dyn FnMut(&mut Updates<u64>),
    ) -> bool {
        let state = match lookup.role {
            Role::Count { index, .. } | Role::Settle { index, last: false, .. } => {
                Some(EXTENDED | index as Word)
            }
            _ => None,
        };
        let prefix = piece.rows.row(piece.row)[..lookup.prefix].to_vec();
        let diff = piece.rows.diff(piece.row);
        while let Some(found) = self.sought.found.get(piece.found) {
            let (values, batch) = (found.values.clone(), &self.sought.views[found.batch]);
            for value in piece.value.unwrap_or(values.start)..values.end {
                if *effort == 0 {
                    piece.value = Some(value);
                    return false;
                }
                *effort -= 1;
                let copies = moment.copies(batch, value);
                if copies == 0 {
                    continue;
                }
                let words = self.output.row_words();
                let begin = words.len();
                words.extend_from_slice(&prefix);
                words.extend(std::iter::repeat_n(0, lookup.fresh));
                words.extend(state);
                for (&column, &word) in lookup.value.iter().zip(batch.view.trie().value(value)) {
                    words[begin + column] = word;
                }
                self.output.end_row(moment.time, diff * copies);
                if self.output.len() >= full {
                    hand_on(&mut self.output, full, emit);
                }
            }
            piece.found += 1;
            piece.value = None;
        }
        true
    }
}

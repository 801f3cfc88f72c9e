//! Operators that work row by row; and from arrangements back to rows. They pause between rows.

use std::collections::VecDeque;

use dataflow_protocol::value::Word;
use differential_dataflow::AsCollection;
use differential_dataflow::trace::Span;
use timely::Container;
use timely::container::NoopBuilder;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::CapabilitySet;
use timely::dataflow::operators::generic::Operator;

use super::{ArrangedRows, Rows};
use crate::budget::Kind;
use crate::container::exchange::rows_per_container;
use crate::container::{EngineTime, Updates, append};
use crate::expr::Project;
use crate::faults::Fault;
use crate::meter::Meter;
use crate::trace::View;

/// Filters and projects.
pub(crate) fn map<'scope, T: EngineTime>(
    rows: Rows<'scope, T>,
    name: &str,
    project: Project,
    meter: &Meter,
) -> Rows<'scope, T> {
    let begin = |rows: &mut Updates<T>, pieces: &mut Vec<(Updates<T>, usize)>| {
        pieces.push((std::mem::take(rows), 0));
    };
    paced(rows.inner, name, meter, begin, move |(rows, next), effort, emit| {
        let until = rows.len().min(*next + *effort);
        let mut mapped = Updates::with_capacity(project.width(), until - *next);
        *effort -= until - *next;
        for index in std::mem::replace(next, until)..until {
            if project.apply(rows.row(index), mapped.row_words()) {
                mapped.end_row(rows.time(index), rows.diff(index));
            } else {
                mapped.abandon_row();
            }
        }
        if !mapped.is_empty() {
            emit(&mut mapped);
        }
        until == rows.len()
    })
    .as_collection()
}

/// The updates of an arrangement, each row its key and value put through `project`.
pub(crate) fn flatten<'scope, T: EngineTime>(
    arranged: &ArrangedRows<'scope, T>,
    name: &str,
    project: Project,
    meter: &Meter,
) -> Rows<'scope, T> {
    let begin = |spans: &mut Vec<Span<T, View<T>>>, pieces: &mut Vec<Reading<T>>| {
        pieces.extend(spans.drain(..).filter_map(|span| span.inner).map(Reading::new));
    };
    let width = project.width();
    let full = rows_per_container(width);
    paced(arranged.stream.clone(), name, meter, begin, move |reading, effort, emit| {
        let mut chunk = Updates::with_capacity(width, full.min(*effort));
        let done = reading.read(effort, |view, row, val| {
            for update in view.trie().updates(val) {
                if project.apply(row, chunk.row_words()) {
                    chunk.end_row(view.time(update), view.diff(update));
                } else {
                    chunk.abandon_row();
                }
            }
            if chunk.len() >= full {
                emit(&mut chunk);
                chunk = Updates::with_capacity(width, full);
            }
        });
        if !chunk.is_empty() {
            emit(&mut chunk);
        }
        done
    })
    .as_collection()
}

/// A batch read row by row, and how far.
pub(super) struct Reading<T: EngineTime> {
    view: View<T>,
    key: usize,
    val: usize,
    row: Vec<Word>,
}

impl<T: EngineTime> Reading<T> {
    pub(super) fn new(view: View<T>) -> Self {
        Reading { view, key: 0, val: 0, row: Vec::new() }
    }

    /// Calls `logic` with the view, key and value as one row, and the value's index, for as many rows as there is
    /// `effort`; whether those were the last ones.
    pub(super) fn read(
        &mut self,
        effort: &mut usize,
        mut logic: impl FnMut(&View<T>, &[Word], usize),
    ) -> bool {
        let trie = self.view.trie();
        while self.key < trie.keys() {
            if *effort == 0 {
                return false;
            }
            *effort -= 1;
            self.row.clear();
            append(&mut self.row, trie.key(self.key));
            append(&mut self.row, trie.value(self.val));
            logic(&self.view, &self.row, self.val);
            self.val += 1;
            if self.val >= trie.values(self.key).end {
                self.key += 1;
            }
        }
        true
    }
}

/// An operator of one input that works piece by piece, and pauses when its share of the step's time is spent. `begin`
/// makes pieces of a container; `work` goes on with one while there is effort, and says whether it is done.
pub(super) fn paced<'scope, T: EngineTime, C: Container, W: 'static>(
    stream: Stream<'scope, T, C>,
    name: &str,
    meter: &Meter,
    mut begin: impl FnMut(&mut C, &mut Vec<W>) + 'static,
    mut work: impl FnMut(&mut W, &mut usize, &mut dyn FnMut(&mut Updates<T>)) -> bool + 'static,
) -> Stream<'scope, T, Updates<T>> {
    let (scope, meter, label) = (stream.scope(), meter.clone(), name.to_owned());
    stream.unary::<NoopBuilder<Updates<T>>, _, _, _>(Pipeline, name, move |_, info| {
        let activator = scope.activator_for(info.address);
        let mut share = meter.budget().share();
        let mut waiting: VecDeque<(CapabilitySet<T>, W)> = VecDeque::new();
        let mut pieces = Vec::new();
        move |input, output| {
            let _timed = meter.timed(Kind::Rows);
            let mut effort = share.quantum();
            // Whether a piece was finished, and the next one may begin.
            let mut go_on = |piece: &mut W, emit: &mut dyn FnMut(&mut Updates<T>)| loop {
                match meter.guard(&label, || work(piece, &mut effort, emit)) {
                    Some(true) if effort > 0 => return (true, true),
                    Some(done) => {
                        effort = share.quantum();
                        if share.spent() || done {
                            return (done, !share.spent());
                        }
                    }
                    // What has failed is kept, and with it the time.
                    None => return (false, false),
                }
            };
            let mut more = true;
            while more && let Some((capability, piece)) = waiting.front_mut() {
                let (done, next) = go_on(piece, &mut |rows| {
                    meter.emitted(rows.len());
                    output.session_with_builder(&*capability).give_container(rows);
                });
                more = next;
                if done {
                    waiting.pop_front();
                }
            }
            input.for_each(|time, container| {
                begin(container, &mut pieces);
                for mut piece in pieces.drain(..) {
                    let done = more && {
                        let (done, next) = go_on(&mut piece, &mut |rows| {
                            meter.emitted(rows.len());
                            output.session_with_builder(&time).give_container(rows)
                        });
                        more = next;
                        done
                    };
                    if !done {
                        waiting.push_back((time.retain_stamp(0), piece));
                    }
                }
            });
            if !waiting.is_empty() && !meter.failed() {
                activator.activate();
            }
        }
    })
}

/// Passes rows on, and panics at the first.
pub(crate) fn fail<T: EngineTime>(rows: Rows<'_, T>) -> Rows<'_, T> {
    rows.inner
        .unary::<NoopBuilder<Updates<T>>, _, _, _>(Pipeline, "Fail", move |_, _| {
            |input, _| {
                input.for_each(|_, _| {
                    Fault::Operator.strike();
                })
            }
        })
        .as_collection()
}

//! A recursive relation that only grows: what its rules give is compared with what is there at once, in any order.
//!
//! Where nothing is ever taken back it doesn't matter in which iteration a row is found, nor how often. So no history is
//! kept, rows aren't sorted before it is known that they are new, and all are arranged once, when the recursion has ended.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use differential_dataflow::AsCollection;
use differential_dataflow::batcher::{Batcher, Extract};
use differential_dataflow::operators::arrange::Arranged;
use differential_dataflow::operators::arrange::arrangement::arrange_core;
use timely::container::NoopBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;
use timely::progress::Antichain;
use timely::progress::frontier::AntichainRef;

use super::Rows;
use crate::budget::Kind;
use crate::container::exchange::{Route, exchange};
use crate::container::{EngineTime, Updates};
use crate::limits::Failure;
use crate::meter::{Held, Meter};
use crate::trace::seen::{Full, Seen};
use crate::trace::{Agent, RowBatch, RowSpine, registry};

/// What is there of a relation that grows.
pub(crate) type Grown = Rc<RefCell<Seen>>;

/// Rows of `width` that weren't there yet, on the worker that their hash says; none may be taken away. Reports the iteration
/// of the relation. Gives up when there are more than have a place.
pub(crate) fn grow<'scope, T: EngineTime>(
    rows: Rows<'scope, T>,
    relation: &str,
    width: usize,
    meter: &Meter,
) -> (Rows<'scope, T>, Grown) {
    grow_in(Seen::new(width), rows, relation, width, meter)
}

fn grow_in<'scope, T: EngineTime>(
    seen: Seen,
    rows: Rows<'scope, T>,
    relation: &str,
    width: usize,
    meter: &Meter,
) -> (Rows<'scope, T>, Grown) {
    let grown: Grown = Rc::new(RefCell::new(seen));
    registry::state(&grown);
    let held: Held = Rc::new(Cell::new((0, 0)));
    meter.hold_waiting(&held);
    let (seen, meter, relation) = (Rc::clone(&grown), meter.clone(), Rc::from(relation));
    let fresh = rows.inner.unary::<NoopBuilder<Updates<T>>, _, _, _>(
        exchange(Route::Hash(width)),
        "Grow",
        move |_, _| {
            // The time at which there was no place for a row.
            let mut stuck = None;
            move |input, output| {
                let _timed = meter.timed(Kind::Distinct);
                let mut seen = seen.borrow_mut();
                input.for_each(|time, rows| {
                    let mut fresh = Updates::new(width);
                    if stuck.is_none() {
                        let new = |index| fresh.push(rows.row(index), rows.time(index), 1);
                        if let Err(Full(most)) = seen.insert(rows, new) {
                            meter.fail(Failure::Full(most as u64));
                            stuck = Some(time.retain_stamp(0));
                            fresh.clear();
                        }
                    }
                    rows.clear();
                    if !fresh.is_empty() {
                        meter.iterated(&relation, fresh.time(0).iteration());
                        meter.emitted(fresh.len());
                        registry::moves(fresh.words());
                        output.session_with_builder(&time).give_container(&mut fresh);
                    }
                });
                held.set(seen.held());
            }
        },
    );
    (fresh.as_collection(), grown)
}

/// A row without columns once the first of `rows` comes here.
pub(crate) fn begun<'scope, T: EngineTime>(rows: Rows<'scope, T>) -> Rows<'scope, T> {
    rows.inner
        .unary::<NoopBuilder<Updates<T>>, _, _, _>(Pipeline, "Begun", move |_, _| {
            let mut begun = false;
            move |input, output| {
                input.for_each(|time, rows| {
                    if !rows.is_empty() && !std::mem::replace(&mut begun, true) {
                        let mut mark = Updates::new(0);
                        mark.push(&[], rows.time(0), 1);
                        output.session_with_builder(&time).give_container(&mut mark);
                    }
                });
            }
        })
        .as_collection()
}

/// Arranges what has grown when it has ended, at the time at which it has `begun`.
pub(crate) fn arrange_grown<'scope>(
    begun: Rows<'scope, u64>,
    grown: Grown,
    name: &str,
    meter: &Meter,
) -> Arranged<'scope, Agent<u64>> {
    let batcher = Harvest { grown, time: None, retained: Antichain::new(), meter: meter.clone() };
    let arranged = arrange_core::<_, _, _, RowSpine<u64>>(begun.inner, Pipeline, name, |_, _| batcher);
    meter.hold(&arranged.trace);
    arranged
}

/// Makes one batch of all rows.
struct Harvest {
    grown: Grown,
    time: Option<u64>,
    retained: Antichain<u64>,
    meter: Meter,
}

impl Batcher<Updates<u64>> for Harvest {
    fn insert(&mut self, container: &mut Updates<u64>) {
        self.time = self.time.or(container.times().uniform());
        container.clear();
    }
}

impl Extract for Harvest {
    type Time = u64;
    type Output = RowBatch<u64>;

    fn extract<'a>(
        &'a mut self,
        upper: AntichainRef<'_, u64>,
    ) -> (Option<RowBatch<u64>>, AntichainRef<'a, u64>) {
        self.retained.clear();
        if let Some(time) = self.time.filter(|time| upper.less_equal(time)) {
            // What has begun came with an earlier time's message; it isn't over.
            self.retained.insert(time);
            return (None, self.retained.borrow());
        }
        let _timed = self.meter.timed(Kind::Seal);
        let batch = self.time.take().map(|time| self.grown.borrow_mut().take(time));
        (batch.filter(|batch| batch.len() > 0), self.retained.borrow())
    }
}

#[cfg(test)]
mod tests {
    use differential_dataflow::trace::TraceReader;
    use timely::dataflow::operators::Input as _;

    use super::*;

    /// Sends containers of rows at time 1, of which three have a place; what was passed on, and the end of the times that are
    /// over.
    fn run(containers: &'static [&'static [u64]]) -> (usize, Option<u64>, Option<Failure>) {
        timely::execute_directly(move |worker| {
            let meter = Meter::default();
            let passed = Rc::new(Cell::new(0));
            let dataflow = worker.next_dataflow_index();
            let (mut handle, mut trace) = worker.dataflow_named("Test", |scope| {
                let (handle, stream) = scope.new_input::<Updates<u64>>();
                let (fresh, grown) = grow_in(Seen::with_most(1, 3), stream.as_collection(), "n", 1, &meter);
                let count = Rc::clone(&passed);
                let noted =
                    fresh.inner.unary::<NoopBuilder<Updates<u64>>, _, _, _>(Pipeline, "Count", |_, _| {
                        move |input, output| {
                            input.for_each(|time, rows| {
                                count.set(count.get() + rows.len());
                                output.session_with_builder(&time).give_container(rows);
                            });
                        }
                    });
                (handle, arrange_grown(begun(noted.as_collection()), grown, "n", &meter).trace)
            });
            handle.advance_to(1);
            for rows in containers {
                let mut updates = Updates::new(1);
                rows.iter().for_each(|&row| updates.push(&[row], 1, 1));
                handle.send_batch(&mut updates);
            }
            handle.close();
            for _ in 0..100 {
                worker.step();
            }
            let mut upper = Antichain::new();
            trace.read_upper(&mut upper);
            // It wouldn't end by itself.
            worker.drop_dataflow(dataflow);
            (passed.get(), upper.first().copied(), meter.figures().failure)
        })
    }

    #[test]
    fn rows_without_a_place_end_the_program_and_its_time_never_comes() {
        assert_eq!(run(&[&[4, 5, 4], &[6, 5]]), (3, None, None));
        let full = Some(Failure::Full(3));
        assert_eq!(run(&[&[4, 5], &[6, 7, 5], &[8]]), (2, Some(1), full.clone()));
        assert_eq!(run(&[&[4, 5, 6, 7]]), (0, Some(1), full));
    }
}

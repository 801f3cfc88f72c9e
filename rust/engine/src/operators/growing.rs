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
use crate::meter::{Held, Meter};
use crate::trace::seen::Seen;
use crate::trace::{Agent, RowBatch, RowSpine, registry};

/// What is there of a relation that grows.
pub(crate) type Grown = Rc<RefCell<Seen>>;

/// Rows of `width` that weren't there yet, on the worker that their hash says; none may be taken away. Reports the iteration
/// of the relation.
pub(crate) fn grow<'scope, T: EngineTime>(
    rows: Rows<'scope, T>,
    relation: &str,
    width: usize,
    meter: &Meter,
) -> (Rows<'scope, T>, Grown) {
    let grown: Grown = Rc::new(RefCell::new(Seen::new(width)));
    registry::state(&grown);
    let held: Held = Rc::new(Cell::new((0, 0)));
    meter.hold_waiting(&held);
    let (seen, meter, relation) = (Rc::clone(&grown), meter.clone(), Rc::from(relation));
    let fresh = rows.inner.unary::<NoopBuilder<Updates<T>>, _, _, _>(
        exchange(Route::Hash(width)),
        "Grow",
        move |_, _| {
            move |input, output| {
                let _timed = meter.timed(Kind::Distinct);
                let mut seen = seen.borrow_mut();
                input.for_each(|time, rows| {
                    let mut fresh = Updates::new(width);
                    seen.insert(rows, |index| fresh.push(rows.row(index), rows.time(index), 1));
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

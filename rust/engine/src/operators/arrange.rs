//! From rows to arrangements, exchanged by key.

use differential_dataflow::batcher::Batcher;
use differential_dataflow::operators::arrange::Arranged;
use differential_dataflow::operators::arrange::arrangement::arrange_core;

use super::{ArrangedRows, Rows};
use crate::container::exchange::{Route, exchange};
use crate::container::{EngineTime, Updates};
use crate::meter::Meter;
use crate::trace::batcher::RowBatcher;
use crate::trace::fold::Prior;
use crate::trace::{Agent, Reader, RowBatch, RowSpine};

/// Arranges rows by their first `key_width` words, which also decide the worker.
pub(crate) fn arrange<'scope, T: EngineTime>(
    rows: Rows<'scope, T>,
    name: &str,
    key_width: usize,
    meter: &Meter,
) -> Arranged<'scope, Agent<T>> {
    let batcher = RowBatcher::new(key_width, meter);
    meter.hold_waiting(batcher.held());
    arrange_with(rows, name, key_width, batcher, meter)
}

/// [`arrange`] with a batcher whose output depends on what is there: it is made of a handle on the arrangement.
pub(crate) fn arrange_folded<'scope, T: EngineTime, B>(
    rows: Rows<'scope, T>,
    name: &str,
    key_width: usize,
    meter: &Meter,
    batcher: impl FnOnce(Prior<T>) -> B,
) -> Arranged<'scope, Agent<T>>
where
    B: Batcher<Updates<T>, Time = T, Output = RowBatch<T>> + 'static,
{
    let prior = Prior::default();
    let arranged = arrange_with(rows, name, key_width, batcher(prior.clone()), meter);
    prior.set(arranged.trace.clone());
    arranged
}

/// [`arrange`] with a batcher that decides what becomes of the rows; `route_width` leading words decide the worker.
fn arrange_with<'scope, T: EngineTime>(
    rows: Rows<'scope, T>,
    name: &str,
    route_width: usize,
    batcher: impl Batcher<Updates<T>, Time = T, Output = RowBatch<T>> + 'static,
    meter: &Meter,
) -> Arranged<'scope, Agent<T>> {
    let route = exchange(Route::Hash(route_width));
    let arranged = arrange_core::<_, _, _, RowSpine<T>>(rows.inner, route, name, |_, _| batcher);
    meter.hold(&arranged.trace);
    arranged
}

/// The arrangement as joins take it.
pub(crate) fn readable<'scope, T: EngineTime>(
    arranged: Arranged<'scope, Agent<T>>,
) -> ArrangedRows<'scope, T> {
    Arranged { stream: arranged.stream, trace: Reader::Local(arranged.trace) }
}

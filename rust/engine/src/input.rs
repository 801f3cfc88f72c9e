//! Inputs: how transacted rows enter, and the dataflow that keeps a relation's transacted rows.

use std::rc::Rc;

use dataflow_protocol::ids::{RelationId, Time};
use dataflow_protocol::plan::InputMode;
use dataflow_protocol::rows::RowBuf;
use differential_dataflow::AsCollection;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::operators::Input as _;
use timely::dataflow::operators::core::input::Handle;
use timely::worker::Worker;

use crate::container::Updates;
use crate::layout::{Kept, Layout};
use crate::meter::Meter;
use crate::operators::arrange::{arrange, arrange_folded, readable};
use crate::operators::deliver::{Delivery, Finished, deliver};
use crate::trace::fold::{LastWrite, Shape, operation};
use crate::trace::ladder::RUN_ROWS;

/// Rows handed to the dataflow at once: what follows sorts them in one go.
const CHUNK_ROWS: usize = RUN_ROWS;

/// The end of an input that a worker holds.
pub(crate) struct Input {
    handle: Handle<u64, CapacityContainerBuilder<Updates<u64>>>,
    mode: InputMode,
    /// Columns in the order of the arrangement; the last write of so many of them wins.
    order: Vec<usize>,
    written: usize,
    /// The worker, and how many operations it has introduced: the order within a time.
    origin: u64,
    position: u64,
}

/// What keeping the transacted rows of a relation leaves behind.
pub(crate) struct BuiltInput {
    pub(crate) input: Input,
    pub(crate) base: Kept,
    pub(crate) delivery: Option<Delivery>,
}

/// An input relation, as it is to be built.
pub(crate) struct Declared<'a> {
    pub(crate) name: &'a str,
    pub(crate) mode: &'a InputMode,
    /// Columns.
    pub(crate) width: usize,
    /// Those by which it is arranged: by whole rows if nothing is told, by its own key if it has one.
    pub(crate) key: Option<&'a Vec<usize>>,
}

/// Builds the dataflow of an input relation; inputs start at `time`. With `deliver_as` its rows are the relation's, otherwise
/// another dataflow adds to them.
pub(crate) fn build(
    worker: &mut Worker,
    declared: &Declared<'_>,
    time: Time,
    deliver_as: Option<(RelationId, &Finished)>,
    meter: &Meter,
) -> BuiltInput {
    let &Declared { name, mode, width, key } = declared;
    let (layout, written) = match mode {
        InputMode::Upsert(key) => (Layout::by(key, width), key.len()),
        InputMode::Set | InputMode::Raw => (Layout::by_or_whole(key, width), width),
    };
    let (key_width, columns) = (layout.key().len(), layout.positions());
    let (handle, agent, delivery) = worker.dataflow_named(&format!("Input {name}"), |scope| {
        let (mut handle, stream) = scope.new_input::<Updates<u64>>();
        handle.advance_to(time);
        let rows = stream.as_collection();
        let arranged = match mode {
            InputMode::Raw => arrange(rows, name, key_width, meter),
            InputMode::Set | InputMode::Upsert(_) => {
                let shape = Shape { width, written, arranged: key_width };
                arrange_folded(rows, name, key_width, meter, |prior| LastWrite::new(shape, prior, meter))
            }
        };
        let agent = arranged.trace.clone();
        let delivery = deliver_as
            .map(|(id, finished)| deliver(&readable(arranged), id, columns, Rc::clone(finished), meter));
        (handle, agent, delivery)
    });
    let (order, origin) = (layout.order(), worker.index() as u64);
    let input = Input { handle, mode: mode.clone(), order, written, origin, position: 0 };
    BuiltInput { input, base: Kept { agent, layout }, delivery }
}

impl Input {
    /// Introduces the rows of one transaction at `time`, deletes first; returns their bytes.
    pub(crate) fn introduce(&mut self, time: Time, delete: &RowBuf, insert: &RowBuf) -> usize {
        self.operations(time, delete, operation::DELETE);
        self.operations(time, insert, operation::INSERT);
        delete.bytes() + insert.bytes()
    }

    /// Removes rows of an `upsert` relation at `time` by their key, whatever their other columns; returns their bytes.
    pub(crate) fn erase(&mut self, time: Time, keys: &RowBuf) -> usize {
        self.operations(time, keys, operation::ERASE);
        keys.bytes()
    }

    fn operations(&mut self, time: Time, rows: &RowBuf, operation: u64) {
        debug_assert!(
            *self.handle.time() <= time,
            "the input has promised that nothing comes at {time} any more"
        );
        for start in (0..rows.len()).step_by(CHUNK_ROWS) {
            let chunk = start..rows.len().min(start + CHUNK_ROWS);
            let mut updates = Updates::with_capacity(self.width(), chunk.len());
            chunk.for_each(|index| self.operation(&mut updates, rows.row(index), operation, time));
            self.handle.send_batch(&mut updates);
        }
    }

    fn width(&self) -> usize {
        self.order.len() + if self.mode == InputMode::Raw { 0 } else { 1 }
    }

    /// Operations are laid out as [`LastWrite`] reads them; copies of a `raw` relation simply count.
    fn operation(&mut self, updates: &mut Updates<u64>, row: &[u64], operation: u64, time: Time) {
        if self.mode == InputMode::Raw {
            updates.row_words().extend(self.order.iter().map(|&column| row[column]));
            return updates.end_row(time, if operation == operation::INSERT { 1 } else { -1 });
        }
        let sequence = self.origin << 44 | self.position << operation::BITS | operation;
        self.position += 1;
        let words = updates.row_words();
        words.extend(self.order[..self.written].iter().map(|&column| row[column]));
        words.push(sequence);
        words.extend(self.order[self.written..].iter().map(|&column| row[column]));
        updates.end_row(time, 1);
    }

    /// Promises that nothing will be introduced at or before `time`.
    pub(crate) fn advance(&mut self, time: Time) {
        if *self.handle.time() <= time {
            self.handle.advance_to(time + 1);
            self.position = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use differential_dataflow::trace::TraceReader;
    use timely::progress::Antichain;

    use super::*;

    #[test]
    fn a_relation_that_nobody_writes_to_holds_no_batch_for_each_time() {
        for mode in [InputMode::Set, InputMode::Upsert(vec![0]), InputMode::Raw] {
            let held = timely::execute_directly(move |worker| {
                let declared = Declared { name: "quiet", mode: &mode, width: 2, key: None };
                let mut built = build(worker, &declared, 0, None, &Meter::default());
                let mut upper = Antichain::new();
                for time in 1..500 {
                    built.input.advance(time);
                    worker.step();
                    built.base.agent.read_upper(&mut upper);
                    built.base.agent.set_logical_compaction(upper.borrow());
                    built.base.agent.set_physical_compaction(upper.borrow());
                }
                let mut held = 0;
                built.base.agent.map_spans(|_| held += 1);
                held
            });
            assert!(held < 20, "{held} batches of nothing");
        }
    }
}

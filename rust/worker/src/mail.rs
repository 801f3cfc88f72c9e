//! Messages from worker to worker that need no order: acknowledgements and reports for the owner of a request.
//!
//! A dataflow of its own in which nobody looks at the frontier, so that nobody waits for anybody: a message is
//! delivered when the receiver is scheduled.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use dataflow_protocol::ids::{Time, WorkerIndex};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::InputHandle;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::Operator;
use timely::worker::Worker;

use crate::sequencer::Sequenced;

/// Destination, origin, message.
type Letter<M> = (u64, u64, M);

/// A worker's letter box. All workers make theirs at the same place in their order of dataflows.
pub struct Mail<M: Sequenced + Clone> {
    input: InputHandle<Time, CapacityContainerBuilder<Vec<Letter<M>>>>,
    arrived: Rc<RefCell<VecDeque<(WorkerIndex, M)>>>,
    index: u64,
}

impl<M: Sequenced + Clone> Mail<M> {
    /// Builds the dataflow.
    pub fn new(worker: &mut Worker) -> Self {
        let arrived = Rc::new(RefCell::new(VecDeque::new()));
        let shared = Rc::clone(&arrived);
        let mut input = InputHandle::new();
        worker.dataflow_named::<Time, _, _>("Mail", |scope| {
            input.to_stream(scope).sink(
                Exchange::new(|letter: &Letter<M>| letter.0),
                "MailOutput",
                move |(received, _frontier)| {
                    let mut arrived = shared.borrow_mut();
                    received.for_each(|_, batch| {
                        arrived.extend(
                            batch
                                .drain(..)
                                .map(|(_, origin, message)| (WorkerIndex(origin as usize), message)),
                        );
                    });
                },
            );
        });
        Mail { input, arrived, index: worker.index() as u64 }
    }

    /// Sends `message` to one worker, which may be this one.
    pub fn send(&mut self, to: WorkerIndex, message: M) {
        self.input.send((to.0 as u64, self.index, message));
        // Only a move in time activates the input operator, which then accounts for what was sent.
        self.input.advance_to(self.input.time() + 1);
    }

    /// The next message for this worker and who sent it.
    pub fn receive(&mut self) -> Option<(WorkerIndex, M)> {
        self.arrived.borrow_mut().pop_front()
    }

    /// Whether [`Self::receive`] would give something.
    pub fn is_empty(&self) -> bool {
        self.arrived.borrow().is_empty()
    }
}

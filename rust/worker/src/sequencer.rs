//! One order for the whole cluster: a small dataflow of its own under a Lamport counter.
//!
//! The counter is the dataflow's timestamp and the cluster's logical time. A worker's turn sends what it collected
//! as one element at the worker's counter c to all workers, itself included, and moves to c + 1; a worker that
//! receives an element at c moves past c. Once the dataflow's frontier has passed c nobody can send at c any more,
//! and everything at c is released in the order of the origins. No clock takes part: a worker that starts late, or
//! that never has anything to say, costs nothing but its turn.
//!
//! [`Sequencer::next`] returning a time means that every worker has moved past it, so whatever any worker accepts
//! from then on gets a greater one. That is what an acknowledged time promises to clients.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use dataflow_protocol::ids::{Time, WorkerIndex};
use serde::Serialize;
use serde::de::DeserializeOwned;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::InputHandle;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::Operator;
use timely::worker::Worker;

/// What the sequencer carries. The bounds are timely's, for data that changes threads and processes.
pub trait Sequenced: Serialize + DeserializeOwned + Send + Sync + 'static {}
impl<E: Serialize + DeserializeOwned + Send + Sync + 'static> Sequenced for E {}

/// Destination, origin, element. The element is shared by the workers of a process.
type Parcel<E> = (u64, u64, Arc<E>);

/// All elements of one time, by origin.
pub type Released<E> = (Time, Vec<(WorkerIndex, Arc<E>)>);

/// What the receiving operator leaves for its worker. Both run on one thread.
struct Receipts<E> {
    /// Elements not released yet, in the order in which they will be.
    waiting: BTreeMap<(Time, u64), Arc<E>>,
    /// Every time below has passed on every worker.
    frontier: Time,
    /// The greatest time at which an element was received.
    seen: Option<Time>,
}

/// A worker's end of the sequencer. All workers make theirs at the same place in their order of dataflows.
pub struct Sequencer<E: Sequenced> {
    input: InputHandle<Time, CapacityContainerBuilder<Vec<Parcel<E>>>>,
    receipts: Rc<RefCell<Receipts<E>>>,
    index: u64,
    peers: u64,
    released: Option<Time>,
}

impl<E: Sequenced> Sequencer<E> {
    /// Builds the dataflow. `on_receipt` sees each element as soon as it is here, in no particular order and before
    /// it is released: the place for what must be known before dependent rows arrive by other channels.
    pub fn new(worker: &mut Worker, mut on_receipt: impl FnMut(WorkerIndex, &E) + 'static) -> Self {
        let receipts = Rc::new(RefCell::new(Receipts { waiting: BTreeMap::new(), frontier: 0, seen: None }));
        let shared = Rc::clone(&receipts);
        let mut input = InputHandle::new();
        worker.dataflow_named::<Time, _, _>("Sequencer", |scope| {
            input.to_stream(scope).sink(
                Exchange::new(|parcel: &Parcel<E>| parcel.0),
                "SequencerOutput",
                move |(received, frontier)| {
                    let mut receipts = shared.borrow_mut();
                    received.for_each_stamp(|stamp, batches| {
                        let Some(&time) = stamp.least() else { return };
                        receipts.seen = receipts.seen.max(Some(time));
                        for (_, origin, element) in batches.flat_map(|batch| batch.drain(..)) {
                            on_receipt(WorkerIndex(origin as usize), &element);
                            let earlier = receipts.waiting.insert((time, origin), element);
                            assert!(earlier.is_none(), "worker {origin} sent two elements at time {time}");
                        }
                    });
                    receipts.frontier = frontier.frontier().first().copied().unwrap_or(Time::MAX);
                },
            );
        });
        let (index, peers) = (worker.index() as u64, worker.peers() as u64);
        Sequencer { input, receipts, index, peers, released: None }
    }

    /// The time that the next [`Self::push`] would get.
    pub fn counter(&self) -> Time {
        *self.input.time()
    }

    /// Sends `element` to all workers and returns its time.
    pub fn push(&mut self, element: E) -> Time {
        let (time, element) = (self.counter(), Arc::new(element));
        for destination in 0..self.peers {
            self.input.send((destination, self.index, Arc::clone(&element)));
        }
        self.input.advance_to(time + 1);
        time
    }

    /// Moves past everything received so far; to be called between steps. Whether the worker has moved, in which
    /// case another step must follow for the others to learn of it.
    pub fn catch_up(&mut self) -> bool {
        let behind = self.receipts.borrow().seen.filter(|seen| *seen >= self.counter());
        if let Some(seen) = behind {
            self.input.advance_to(seen + 1);
        }
        behind.is_some()
    }

    /// Whether [`Self::next`] would give something.
    pub fn ready(&self) -> bool {
        let receipts = self.receipts.borrow();
        receipts.waiting.first_key_value().is_some_and(|((time, _), _)| *time < receipts.frontier)
    }

    /// The elements of the next time that has passed everywhere, by origin; `None` if there is none yet.
    ///
    /// # Panics
    ///
    /// If times would not increase, which would be a fault of the sequencer.
    #[expect(clippy::should_implement_trait, reason = "an iterator that says None may not go on")]
    pub fn next(&mut self) -> Option<Released<E>> {
        if !self.ready() {
            return None;
        }
        let mut receipts = self.receipts.borrow_mut();
        let time = receipts.waiting.first_key_value().map(|((time, _), _)| *time)?;
        assert!(self.released < Some(time), "time {time} follows {:?} in the sequence", self.released);
        self.released = Some(time);
        let later = receipts.waiting.split_off(&(time + 1, 0));
        let elements = std::mem::replace(&mut receipts.waiting, later);
        Some((time, elements.into_iter().map(|((_, origin), e)| (WorkerIndex(origin as usize), e)).collect()))
    }
}

//! Snapshots: a relation's contents as of a time, from every worker to the owner that asked.
//!
//! A worker waits until it has finished the time, takes the batches that are there, and then reads them in slices
//! within the emit budget. Slices travel in a dataflow of their own, whose times only tell laps apart: all that was sent in
//! earlier laps has arrived once its frontier is past them. Each worker ends its part with a mark.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use dataflow_protocol::dictionary::{self, Content};
use dataflow_protocol::ids::{RelationId, Time, WorkerIndex};
use dataflow_protocol::order::First;
use dataflow_protocol::value::Word;
use differential_dataflow::trace::TraceReader;
use serde::{Deserialize, Serialize};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::Input;
use timely::dataflow::operators::core::input::Handle;
use timely::dataflow::operators::generic::Operator;
use timely::progress::Antichain;
use timely::worker::Worker;

use crate::trace::Agent;
use crate::trace::scan::Scan;
use crate::{Changes, EmitBudget, Slice};

/// A lap has so many times; a worker moves on by one with each slice that it sends.
const LAP_BITS: u32 = 40;

/// A slice on its way, with the contents of words that its owner's process may not know.
#[derive(Clone, Serialize, Deserialize)]
struct Parcel {
    owner: usize,
    slice: Slice,
    contents: Vec<Content>,
}

/// A snapshot asked for.
pub(crate) struct Request {
    pub(crate) relation: RelationId,
    /// Holds back the compaction of the relation's trace until the batches are taken.
    pub(crate) agent: Agent<u64>,
    /// For each column its position in the arrangement.
    pub(crate) columns: Vec<usize>,
    pub(crate) time: Time,
    pub(crate) owner: WorkerIndex,
    pub(crate) token: u64,
    pub(crate) filter: Vec<(usize, Word)>,
    /// Only the first of these: they are sent when all have been seen.
    pub(crate) first: Option<First>,
}

/// All snapshots that this worker has a part in, and the slices that arrived for it.
pub(crate) struct Snapshots {
    handle: Handle<u64, CapacityContainerBuilder<Vec<Parcel>>>,
    arrived: Rc<RefCell<Vec<Slice>>>,
    /// Of the dataflow.
    frontier: Rc<Cell<u64>>,
    lap: u64,
    me: WorkerIndex,
    waiting: Vec<Request>,
    reading: VecDeque<(Request, Scan)>,
}

impl Snapshots {
    /// Builds the dataflow that slices travel in.
    pub(crate) fn new(worker: &mut Worker) -> Self {
        let arrived = Rc::new(RefCell::new(Vec::new()));
        let inbox = Rc::clone(&arrived);
        let frontier = Rc::new(Cell::new(0));
        let reached = Rc::clone(&frontier);
        let handle = worker.dataflow_named("Slices", |scope| {
            let (handle, stream) = scope.new_input::<Vec<Parcel>>();
            let by_owner = Exchange::new(|parcel: &Parcel| parcel.owner as u64);
            stream.unary_frontier::<CapacityContainerBuilder<Vec<()>>, _, _, _>(
                by_owner,
                "Arrive",
                move |_, _| {
                    move |(input, frontier), _output| {
                        reached.set(frontier.frontier().first().copied().unwrap_or(u64::MAX));
                        input.for_each(|_, parcels| {
                            for parcel in parcels.drain(..) {
                                // A collision would have been met where the content was made.
                                parcel.contents.iter().for_each(|content| {
                                    let _ = dictionary::intern(content);
                                });
                                inbox.borrow_mut().push(parcel.slice);
                            }
                        });
                    }
                },
            );
            handle
        });
        let me = WorkerIndex(worker.index());
        Snapshots { handle, arrived, frontier, lap: 0, me, waiting: Vec::new(), reading: VecDeque::new() }
    }

    pub(crate) fn request(&mut self, request: Request) {
        self.waiting.push(request);
    }

    /// Forgets what was asked of a relation that is gone; its owner gets no end mark.
    pub(crate) fn forget(&mut self, relation: RelationId) {
        self.waiting.retain(|request| request.relation != relation);
        self.reading.retain(|(request, _)| request.relation != relation);
    }

    /// Begins the next lap, as all workers do at the same command.
    pub(crate) fn lap(&mut self) {
        self.lap += 1;
        let least = self.lap << LAP_BITS;
        if *self.handle.time() < least {
            self.handle.advance_to(least);
        }
    }

    /// Whether all that any worker sent before this lap has arrived.
    pub(crate) fn has_lapped(&self) -> bool {
        self.frontier.get() >= self.lap << LAP_BITS
    }

    pub(crate) fn take_arrived(&mut self) -> Vec<Slice> {
        std::mem::take(&mut self.arrived.borrow_mut())
    }

    /// Starts what `ready` says this worker has finished, and reads on within the budget; `true` if more is to be read.
    pub(crate) fn work(
        &mut self,
        budget: &EmitBudget,
        ready: impl Fn(RelationId, Time, Time) -> bool,
    ) -> bool {
        let mut upper = Antichain::new();
        let mut waiting = Vec::new();
        for mut request in self.waiting.drain(..) {
            request.agent.read_upper(&mut upper);
            let reached = upper.first().copied().unwrap_or(Time::MAX);
            if !ready(request.relation, request.time, reached) {
                waiting.push(request);
                continue;
            }
            let views = request.agent.batches_through(upper.borrow()).unwrap_or_default();
            let scan = Scan::new(views, request.time);
            self.reading.push_back((request, scan));
        }
        self.waiting = waiting;
        let mut left = budget.rows;
        while left > 0
            && let Some((mut request, mut scan)) = self.reading.pop_front()
        {
            let effort = left.min(budget.slice_rows);
            left -= effort;
            let done = self.read(&mut request, &mut scan, effort);
            if !done {
                // Others get their turn before this one goes on.
                self.reading.push_back((request, scan));
            }
        }
        !self.reading.is_empty()
    }

    /// Reads a slice and sends it; `true` if it was the last one.
    fn read(&mut self, request: &mut Request, scan: &mut Scan, effort: usize) -> bool {
        let width = request.columns.len();
        let mut changes = Changes::new(width);
        let mut row: Vec<Word> = Vec::new();
        let Request { columns, filter, first, .. } = request;
        let end = scan.work(effort, |key, val, count| {
            let at = |column: usize| match columns[column].checked_sub(key.len()) {
                None => key[columns[column]],
                Some(position) => val[position],
            };
            if filter.iter().all(|&(column, word)| at(column) == word) {
                row.clear();
                row.extend((0..width).map(at));
                match first {
                    Some(first) => first.add(&row, count),
                    None => changes.push(&row, count),
                }
            }
        });
        if let Some(first) = first.as_mut().filter(|_| end) {
            let (rows, diffs) = first.take();
            changes = Changes { rows, diffs };
        }
        if end || !changes.diffs.is_empty() {
            self.send(request.owner, Slice { token: request.token, changes, end });
        }
        end
    }

    fn send(&mut self, owner: WorkerIndex, slice: Slice) {
        if owner == self.me {
            self.arrived.borrow_mut().push(slice);
            return;
        }
        let contents = dictionary::foreign(slice.changes.rows.words().iter().copied());
        self.handle.send(Parcel { owner: owner.0, slice, contents });
        // The exchange passes a container on when it is full, or when its time ends.
        let next = self.handle.time() + 1;
        self.handle.advance_to(next);
    }
}

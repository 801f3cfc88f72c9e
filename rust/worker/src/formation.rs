//! How a worker's thread, already serving its port, gets its place in the formed cluster.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use timely::WorkerConfig;
use timely::communication::allocator::thread::Thread;
use timely::communication::allocator::zero_copy::allocator::TcpBuilder;
use timely::communication::allocator::{Allocator, ProcessBuilder};
use timely::worker::Worker;

use crate::member::Member;
use crate::process::Process;

/// What a worker needs of the others to become a member.
pub(crate) enum Seat {
    /// The only worker of the cluster.
    Alone,
    /// One of several in the only process.
    Shared(ProcessBuilder),
    /// One of several processes.
    Meshed(TcpBuilder),
}

/// A seat, and the history that the cluster agreed on.
type Offer = (Seat, u64);

/// Where a worker waits for its seat; clones are the same place.
#[derive(Clone)]
pub(crate) struct Place {
    local: usize,
    offer: Arc<Mutex<Option<Offer>>>,
}

impl Place {
    pub(crate) fn new(local: usize) -> Self {
        Place { local, offer: Arc::default() }
    }

    /// The worker's index within its process.
    pub(crate) fn local(&self) -> usize {
        self.local
    }

    /// Hands the worker its seat; it is to be woken afterwards.
    pub(crate) fn offer(&self, seat: Seat, history: u64) {
        *self.offer.lock().unwrap_or_else(PoisonError::into_inner) = Some((seat, history));
    }

    /// The member, once there is a seat for it; its requests are numbered from `tickets` on. Waits for the process's
    /// other workers to take theirs, which they do at their next turn.
    pub(crate) fn take_member(&self, process: &Arc<Process>, tickets: u64) -> Option<Member> {
        let (seat, history) = self.offer.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let allocator = match seat {
            Seat::Alone => Allocator::Thread(Thread::default()),
            Seat::Shared(builder) => Allocator::Process(builder.build()),
            Seat::Meshed(builder) => Allocator::Tcp(builder.build()),
        };
        let worker = Worker::new(WorkerConfig::default(), allocator, Some(Instant::now()));
        let member = Member::new(worker, Arc::clone(process), self.local, history, tickets);
        process.seated();
        Some(member)
    }
}

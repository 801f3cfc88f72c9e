//! Distribution of updates over workers.

use std::hash::{BuildHasher, Hasher};

use dataflow_protocol::value::Word;
use foldhash::fast::FixedState;
use timely::communication::Push;
use timely::dataflow::channels::Message;
use timely::dataflow::channels::pact::DistributorPact;
use timely::dataflow::channels::pushers::exchange::Distributor;
use timely::progress::Stamp;

use super::column::EngineTime;
use super::updates::Updates;

/// Words a container is filled to before it is sent on.
const CONTAINER_WORDS: usize = 1 << 12;

/// How many rows of `width` words make a container of a good size.
pub(crate) fn rows_per_container(width: usize) -> usize {
    CONTAINER_WORDS / (width + 2)
}

/// Which worker, of so many, gets a row.
pub(crate) type Choice = Box<dyn FnMut(&[Word], usize) -> usize>;

/// Where a row goes.
pub(crate) enum Route {
    /// By a hash of so many leading words; equal on all hosts.
    Hash(usize),
    /// To the worker that the first word names.
    First,
    /// As this says.
    Chosen(Choice),
}

impl Route {
    fn target(&mut self, row: &[Word], peers: usize) -> usize {
        match self {
            Route::Hash(words) => hash(&row[..*words]) as usize % peers,
            Route::First => row.first().map_or(0, |&word| word as usize) % peers,
            Route::Chosen(choice) => choice(row, peers),
        }
    }
}

/// A hash of words with a fixed seed.
#[inline]
pub(crate) fn hash(words: &[Word]) -> u64 {
    let mut hasher = FixedState::with_seed(0x0da7_af10).build_hasher();
    words.iter().for_each(|&word| hasher.write_u64(word));
    let hash = hasher.finish();
    hash ^ (hash >> 32)
}

/// The pact that distributes updates by `route`.
pub(crate) fn exchange<T: EngineTime>(
    route: Route,
) -> DistributorPact<impl FnOnce(usize) -> RowDistributor<T>> {
    DistributorPact(move |peers| RowDistributor { route, pending: vec![Updates::default(); peers] })
}

/// Partitions containers row by row.
pub(crate) struct RowDistributor<T: EngineTime> {
    route: Route,
    pending: Vec<Updates<T>>,
}

impl<T: EngineTime> Distributor<Updates<T>> for RowDistributor<T> {
    fn partition<S: Clone, P: Push<Message<S, Updates<T>>>>(
        &mut self,
        container: &mut Updates<T>,
        stamp: &Stamp<S>,
        pushers: &mut [P],
    ) {
        let full = rows_per_container(container.width());
        for index in 0..container.len() {
            let target = self.route.target(container.row(index), pushers.len());
            let pending = &mut self.pending[target];
            if pending.is_empty() {
                *pending = Updates::with_capacity(container.width(), full.min(container.len()));
            }
            pending.push(container.row(index), container.time(index), container.diff(index));
            if pending.len() >= full {
                Message::push_at(pending, stamp.clone(), &mut pushers[target]);
                pending.clear();
            }
        }
        container.clear();
    }

    fn flush<S: Clone, P: Push<Message<S, Updates<T>>>>(&mut self, stamp: &Stamp<S>, pushers: &mut [P]) {
        for (pending, pusher) in self.pending.iter_mut().zip(pushers) {
            if !pending.is_empty() {
                Message::push_at(pending, stamp.clone(), pusher);
                *pending = Updates::default();
            }
        }
    }
}

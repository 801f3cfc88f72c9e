//! Whose turn it is.

use std::collections::{HashSet, VecDeque};

use dataflow_net::connection::ConnectionId;

/// Connections that wait for their turn, each at most once.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    queue: VecDeque<ConnectionId>,
    queued: HashSet<ConnectionId>,
}

impl Turns {
    /// Puts a connection at the end, unless it waits already.
    pub(crate) fn schedule(&mut self, id: ConnectionId) {
        if self.queued.insert(id) {
            self.queue.push_back(id);
        }
    }

    /// Whether this one waits.
    pub(crate) fn waits(&self, id: ConnectionId) -> bool {
        self.queued.contains(&id)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Those that wait now, in order; from here on they may be scheduled again.
    pub(crate) fn take(&mut self) -> VecDeque<ConnectionId> {
        self.queued.clear();
        std::mem::take(&mut self.queue)
    }
}

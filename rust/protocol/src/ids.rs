//! Newtypes for everything that is counted or named.

use serde::{Deserialize, Serialize};

/// A relation of the cluster's catalog. Given out in sequenced order, equal on all workers, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RelationId(pub u64);

/// A worker, counted through the whole cluster from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkerIndex(pub usize);

/// Logical time of the cluster: the sequencer's Lamport counter.
pub type Time = u64;

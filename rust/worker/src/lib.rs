//! The loop of a worker, its sequencer, sessions and mailboxes: the only room that sees both sockets and engine.
//!
//! * `run`: the loop, phase by phase; [`config`]: every number that can be set.
//! * `connections`: what a worker owns; `sockets`: their sockets, here or on the threads of `io`, which are told by
//!   `dispatch` what to do; `turns`: whose turn it is.
//! * `requests`, `apply`, `emit`: what clients ask, from the message
//!   to its place in the order, its effect, its results; `subscriptions`, `reads`, `backlog`: who waits for them;
//!   `explain`: how a relation is computed; `statistics`: what a planner is told.
//! * [`feed`]: queues from the threads of external sources; `feeding`, `sources`: taking from them, what is attached.
//! * [`sequencer`]: one order for the whole cluster; [`command`]: what goes through it; [`mail`]: what needs no order;
//!   [`keys`]: the replicated table of idempotency keys.
//! * [`access`]: who may do what. `clock`: where ticks of `now` come from.
//! * [`host`]: starts and stops a process's workers; `process`: what they share; [`events`]: what they tell Python.
//!   `mesh`, `formation`: how processes become a cluster; `generations`: again and again.
//! * [`limits`]: what a query may use, and its end; `quarantine`: programs that the cluster fell over.
//! * `http`, [`metrics`]: what browsers, probes and Prometheus find; `timeline`: when times were applied.

pub mod access;
mod apply;
mod backlog;
mod catalog;
mod clock;
pub mod command;
pub mod config;
mod connections;
mod dispatch;
mod emit;
pub mod error;
pub mod events;
mod explain;
pub mod feed;
mod feeding;
mod flow;
mod forget;
mod formation;
mod generations;
pub mod host;
mod http;
mod io;
pub mod keys;
pub mod limits;
pub mod mail;
mod member;
mod mesh;
pub mod metrics;
mod panics;
mod process;
mod quarantine;
mod reads;
mod requests;
mod run;
pub mod sequencer;
mod sockets;
mod sources;
mod statistics;
mod subscriptions;
mod timeline;
mod turns;

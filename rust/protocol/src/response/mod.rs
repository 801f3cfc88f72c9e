//! Replies and pushed messages, from typed parts to bytes.
//!
//! * [`reply`]: the one reply of a request.
//! * [`read`]: the reply of a `read`, with its rows.
//! * [`push`]: messages of a subscription: a small head for each subscriber, a tail that all of them share.
//! * `write`: values and rows in either encoding.

pub mod push;
pub mod read;
pub mod reply;
mod write;

//! External sources by name: which process runs which, in sequenced order. What reads them is Python's.

use dataflow_protocol::error::{ErrorBody, ErrorCode};
use dataflow_protocol::ids::{Time, WorkerIndex};
use serde::Serialize;

use crate::command::{Command, Ticket};
use crate::connections::{Caller, Connections};
use crate::events::Event;
use crate::member::{Member, Pending};
use crate::requests::MAX_NAME;

/// Who has attached a source: that worker tells its process of it, and of its end, so that they come in this order.
#[derive(Clone, Copy)]
pub(crate) struct Attachment {
    worker: WorkerIndex,
    ticket: Ticket,
}

#[derive(Serialize)]
struct Detached<'a> {
    time: Time,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    left: &'a [String],
}

impl Member {
    /// Asks Python whether a source can be run here.
    pub(crate) fn attach(&mut self, caller: Caller, name: String, source: String, net: &mut Connections) {
        if name.is_empty() || name.len() > MAX_NAME {
            let message = format!("a source's name must have 1 to {MAX_NAME} bytes");
            return net.error(&caller, &ErrorBody::incorrect(message));
        }
        let ticket = self.ticket();
        if self.process.ask(Event::Attach { ticket, name: name.clone(), source: source.clone() }) {
            net.suspend(caller.connection, ticket);
            self.pending.insert(ticket, Pending::Attach { caller: Some(caller), name, source });
        } else {
            net.error(&caller, &ErrorBody::new(ErrorCode::Busy, "too many requests wait to be checked"));
        }
    }

    /// Claims a source's name for this process.
    pub(crate) fn propose(&mut self, ticket: Ticket, caller: Option<Caller>, name: String, source: String) {
        self.send(Command::Attach { ticket, name: name.clone() });
        self.pending.insert(ticket, Pending::Attach { caller, name, source });
    }

    /// A source is attached, or its name is taken: on every worker alike.
    pub(crate) fn attached(
        &mut self,
        time: Time,
        origin: WorkerIndex,
        ticket: Ticket,
        name: &str,
        net: &mut Connections,
    ) {
        let threads = self.process.config.threads;
        let taken = self.sources.get(name).map(|attachment| attachment.worker.0 / threads);
        if taken.is_none() {
            self.sources.insert(name.to_owned(), Attachment { worker: origin, ticket });
        }
        if origin != self.index() {
            return;
        }
        let Some(Pending::Attach { caller, name, source }) = self.pending.remove(&ticket) else { return };
        let error = taken.map(|process| {
            let message = format!("cannot attach source {name:?}: process {process} has one of that name");
            let hint = "Detach it first, or choose another name.".to_owned();
            ErrorBody::new(ErrorCode::Conflict, message).with_hint(hint)
        });
        match (&error, &caller) {
            (None, _) => self.process.tell(Event::Attached { attachment: ticket, name, source }),
            // Python asks at the beginning of each generation, and may have been late for the last one.
            (Some(_), None) if taken == Some(self.process.config.process) => {}
            (Some(error), None) => {
                self.process.tell(Event::Unattached { name, reason: error.message.clone() })
            }
            (Some(_), Some(_)) => {}
        }
        if let Some(caller) = caller {
            match error {
                None => net.ok(&caller, &serde_json::json!({ "time": time })),
                Some(error) => net.error(&caller, &error),
            }
            net.resume(caller.connection, ticket);
        }
    }

    pub(crate) fn detach(&mut self, caller: Caller, name: String) {
        let ticket = self.ticket();
        self.send(Command::Detach { ticket, name });
        self.pending.insert(ticket, Pending::Detach { caller });
    }

    /// A source is to end: on every worker alike, but for the one that told the Python that runs it of its beginning.
    pub(crate) fn detached(
        &mut self,
        origin: WorkerIndex,
        ticket: Ticket,
        name: &str,
        net: &mut Connections,
    ) {
        match self.sources.remove(name) {
            Some(attachment) if attachment.worker == self.index() => {
                let own = self.ticket();
                self.pending.insert(own, Pending::Detaching { origin, ticket });
                let (attachment, name) = (attachment.ticket, name.to_owned());
                self.process.tell(Event::Detach { ticket: own, attachment, name });
            }
            Some(_) => {}
            None if origin == self.index() => {
                if let Some(Pending::Detach { caller }) = self.pending.remove(&ticket) {
                    net.error(&caller, &ErrorBody::not_found(format!("no source {name:?} is attached")));
                }
            }
            None => {}
        }
    }

    /// The source of an own request has ended: nothing of it takes effect any more.
    pub(crate) fn detach_done(&mut self, ticket: Ticket, time: Time, left: &[String], net: &mut Connections) {
        if let Some(Pending::Detach { caller }) = self.pending.remove(&ticket) {
            net.ok(&caller, &Detached { time: time.max(self.applied), left });
        }
    }
}

//! How a relation is computed, and what its operators hold and have done: the worker's part in telling it. The words are
//! Python's.

use dataflow_engine::Analysis;
use dataflow_protocol::error::{ErrorBody, ErrorCode};
use dataflow_protocol::ids::WorkerIndex;
use dataflow_protocol::request;

use crate::command::{Command, Ticket};
use crate::connections::{Caller, Connections};
use crate::events::Event;
use crate::member::{Member, Pending};

impl Member {
    /// Acts on a client's `explain`.
    pub(crate) fn explain(
        &mut self,
        caller: Caller,
        relation: &request::Schema,
        analyze: bool,
        net: &mut Connections,
    ) {
        let plan = self.engine.plan_of(relation.id).and_then(|plan| serde_json::to_string(&*plan).ok());
        let Some(plan) = plan else { return net.error(&caller, &no_plan(&relation.name)) };
        let (ticket, name) = (self.ticket(), relation.name.clone());
        if analyze {
            self.send(Command::Analyze { ticket, relation: relation.id });
            let shares = vec![None; self.peers()];
            self.pending.insert(ticket, Pending::Analyze { caller, relation: name, plan, shares });
        } else {
            self.describe(ticket, caller, name, plan, None, net);
        }
    }

    /// A worker's share of what is asked for has come; once all have, Python puts them into words.
    pub(crate) fn analyzed(
        &mut self,
        ticket: Ticket,
        from: WorkerIndex,
        analysis: Option<Analysis>,
        net: &mut Connections,
    ) {
        let Some(Pending::Analyze { shares, .. }) = self.pending.get_mut(&ticket) else { return };
        let gone = analysis.is_none();
        shares[from.0] = analysis;
        if !gone && shares.iter().any(Option::is_none) {
            return;
        }
        let Some(Pending::Analyze { caller, relation, plan, shares }) = self.pending.remove(&ticket) else {
            return;
        };
        // The command came to all workers at the same place in the order: who has it gone, has all.
        if gone {
            return net.error(&caller, &no_plan(&relation));
        }
        let analysis = serde_json::to_string(&shares).ok();
        self.describe(ticket, caller, relation, plan, analysis, net);
    }

    fn describe(
        &mut self,
        ticket: Ticket,
        caller: Caller,
        relation: String,
        plan: String,
        analysis: Option<String>,
        net: &mut Connections,
    ) {
        if self.process.ask(Event::Explain { ticket, relation, plan, analysis }) {
            self.pending.insert(ticket, Pending::Explain { caller });
        } else {
            net.error(&caller, &ErrorBody::new(ErrorCode::Busy, "too many requests wait to be explained"));
        }
    }
}

fn no_plan(relation: &str) -> ErrorBody {
    ErrorBody::not_found(format!("no plan of relation {relation:?}"))
}

//! A multijoin: for each input a path on which its changes are looked up in the others.
//!
//! Of the changes at one time, those of an input meet the inputs before it as they are at that time, and those after it as
//! they were before: so each combination of changes is found once, on the path of the last of them.

use dataflow_protocol::plan::{Expr, Node};
use differential_dataflow::AsCollection;
use timely::dataflow::operators::Concatenate;

use super::context::Context;
use super::nodes::compile;
use super::outer::Outer;
use crate::analysis::Part;
use crate::meter::Meter;
use crate::multijoin::{Group, Member, path};
use crate::operators::Rows;
use crate::operators::linear::map;
use crate::operators::lookup::{Backlog, Lookup, Role, lookup};

/// Builds a multijoin, which `node` is.
pub(super) fn build<'scope>(outer: &mut Outer<'scope, '_>, node: usize) -> Rows<'scope, u64> {
    let Node::Multijoin { inputs, variables, paths, filter, project } = outer.valid.plan.nodes[node].clone()
    else {
        unreachable!("asked for by the node's kind")
    };
    let mut found = Vec::new();
    for start in 0..inputs.len() {
        let (groups, known) = path(&variables, &paths[start], start);
        let backlog = Backlog::default();
        let mut walk = Walk { outer, inputs: &inputs, variables: &variables, start, node, backlog };
        let mut rows = walk.outer.rows(inputs[start]);
        let mut width = variables[start].len();
        for group in &groups {
            rows = walk.meet(rows, &known[..width], group);
            width += group.fresh.len();
        }
        found.push(finish(outer, node, rows, &known, &filter, &project).inner);
    }
    outer.scope.concatenate(found).as_collection()
}

fn finish<'scope>(
    outer: &Outer<'scope, '_>,
    node: usize,
    rows: Rows<'scope, u64>,
    known: &[usize],
    filter: &[Expr],
    project: &[Expr],
) -> Rows<'scope, u64> {
    let at = |variable: usize| known.iter().position(|&known| known == variable).unwrap_or(0);
    let project = compile::<u64, _>(outer, filter, project, at);
    map(rows, "Found", project, &outer.meter_of(node))
}

/// One path.
struct Walk<'w, 'scope, 'a> {
    outer: &'w mut Outer<'scope, 'a>,
    inputs: &'w [usize],
    variables: &'w [Vec<usize>],
    start: usize,
    node: usize,
    backlog: Backlog,
}

impl<'scope> Walk<'_, 'scope, '_> {
    /// The rows of `known` variables, and those with the new variables of the group that it has.
    fn meet(&mut self, mut rows: Rows<'scope, u64>, known: &[usize], group: &Group) -> Rows<'scope, u64> {
        let members = &group.members;
        let roles: Vec<(usize, Role)> = match members.len() {
            _ if group.fresh.is_empty() => (0..members.len()).map(|at| (at, Role::Confirm)).collect(),
            1 => vec![(0, Role::Propose)],
            count => {
                let counts = (0..count).map(|index| (index, Role::Count { index, last: index == count - 1 }));
                let falling = (0..count - 1).rev().map(|index| (index, false));
                let rising = (1..count).map(|index| (index, true));
                let settle = |(index, rising)| {
                    (index, Role::Settle { index, rising, last: rising && index == count - 1 })
                };
                counts.chain(falling.chain(rising).map(settle)).collect()
            }
        };
        for (at, role) in roles {
            rows = self.look(rows, known, &group.fresh, &members[at], role);
        }
        rows
    }

    fn look(
        &mut self,
        rows: Rows<'scope, u64>,
        known: &[usize],
        fresh: &[usize],
        member: &Member,
        role: Role,
    ) -> Rows<'scope, u64> {
        let columns = &self.variables[member.input];
        let at = |&column: &usize| {
            let mut all = known.iter().chain(fresh);
            all.position(|&variable| variable == columns[column]).unwrap_or(0)
        };
        let lookup_ = Lookup {
            key: member.key.iter().map(at).collect(),
            value: member.value.iter().map(at).collect(),
            prefix: known.len(),
            fresh: fresh.len(),
            role,
            strict: member.input > self.start,
        };
        let name = match role {
            Role::Confirm => "Confirm",
            Role::Propose => "Propose",
            Role::Count { .. } => "CountValues",
            Role::Settle { .. } => "Settle",
        };
        let meter: Meter = self.outer.meter().aside(Part::Node(self.node));
        let arranged = self.outer.arranged(self.inputs[member.input], &member.key);
        lookup(rows, arranged, name, lookup_, &self.backlog, &meter)
    }
}

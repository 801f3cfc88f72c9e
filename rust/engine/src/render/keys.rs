//! What relations are joined by.

use std::collections::{BTreeMap, BTreeSet};

use dataflow_protocol::plan::{Node, RelationRef, Stratum};

use crate::multijoin::path;
use crate::validate::{Valid, inputs};

/// What each relation of a program is kept by, where it is joined by something once it is complete.
pub(super) fn kept_by(valid: &Valid<'_>) -> BTreeMap<usize, Vec<usize>> {
    let mut found = Vec::new();
    for stratum in &valid.plan.strata {
        let complete = |relation: usize| stratum.relations.iter().all(|defined| defined.relation != relation);
        let nodes = made_of(valid, stratum, |_| true);
        found.extend(joined(
            valid,
            nodes,
            |read| matches!(read, RelationRef::Local(local) if complete(local)),
        ));
    }
    first_by_relation(&found)
}

/// For local relations the first key that they may be kept by: rows are spread over workers by its columns, each of which is
/// there once.
pub(crate) fn first_by_relation(joined: &[(RelationRef, Vec<usize>)]) -> BTreeMap<usize, Vec<usize>> {
    let spread = |key: &[usize]| !key.is_empty() && (1..key.len()).all(|at| !key[..at].contains(&key[at]));
    let mut found = BTreeMap::new();
    for (relation, key) in joined {
        if let RelationRef::Local(local) = relation
            && spread(key)
        {
            found.entry(*local).or_insert_with(|| key.clone());
        }
    }
    found
}

/// The nodes that define a stratum's relations, and all that those are made of, as far as `follow` says.
pub(super) fn made_of(
    valid: &Valid<'_>,
    stratum: &Stratum,
    follow: impl Fn(usize) -> bool,
) -> BTreeSet<usize> {
    let mut pending: Vec<usize> = stratum.relations.iter().map(|definition| definition.node).collect();
    let mut found: BTreeSet<usize> = pending.iter().copied().collect();
    while let Some(node) = pending.pop() {
        let inputs = inputs(&valid.plan.nodes[node]).into_iter();
        pending.extend(inputs.filter(|&input| follow(input) && found.insert(input)));
    }
    found
}

/// The arrangements of relations that these `nodes` read, as `(relation, key)`; `wanted` says of which relations.
pub(crate) fn joined(
    valid: &Valid<'_>,
    nodes: impl IntoIterator<Item = usize>,
    wanted: impl Fn(RelationRef) -> bool,
) -> Vec<(RelationRef, Vec<usize>)> {
    let mut found = Vec::new();
    let mut note = |node: usize, key: &[usize]| {
        if let Node::Get { relation } = valid.plan.nodes[node]
            && wanted(relation)
        {
            found.push((relation, key.to_vec()));
        }
    };
    for node in nodes {
        match &valid.plan.nodes[node] {
            Node::Join { left, right, left_key, right_key, .. } => {
                note(*left, left_key);
                note(*right, right_key);
            }
            Node::Multijoin { inputs, variables, paths, .. } => {
                for (start, groups) in paths.iter().enumerate() {
                    for member in path(variables, groups, start).0.iter().flat_map(|group| &group.members) {
                        note(inputs[member.input], &member.key);
                    }
                }
            }
            Node::Antijoin { left, right, left_key, right_key } => {
                note(*left, left_key);
                // Of part of the columns distinct keys are made instead.
                if right_key.len() == valid.types[*right].len() {
                    note(*right, right_key);
                }
            }
            _ => {}
        }
    }
    found.sort();
    found.dedup();
    found
}

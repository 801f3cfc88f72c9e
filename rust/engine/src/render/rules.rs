//! What a recursive stratum is made of, before any of it is built.

use std::collections::{BTreeMap, BTreeSet};

use dataflow_protocol::plan::{Definition, Node, RelationRef, Stratum};

use super::keys::{first_by_relation, joined, made_of};
use crate::layout::Layout;
use crate::validate::Valid;

/// How the rows of a stratum come together.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Growth {
    /// They are counted, since they may go again: in a program that follows its imports, and where an iteration takes back
    /// what an earlier one has found (ADR 0005).
    None,
    /// What an iteration has found stays, but within one it takes all that is derived to tell what that is.
    Sorted,
    /// Whatever is derived stays.
    Plain,
}

/// What defines a relation.
pub(super) struct Parts {
    pub(super) relation: usize,
    pub(super) layout: Layout,
    /// What is there from the beginning.
    pub(super) entering: Vec<Source>,
    /// What each iteration derives of the one before.
    pub(super) iterating: Vec<Source>,
}

/// Where rows of a relation come from.
#[derive(Clone, Copy)]
pub(super) enum Source {
    Node(usize),
    Transacted(usize),
}

/// The rules of a stratum.
pub(super) struct Rules<'a> {
    valid: &'a Valid<'a>,
    stratum: &'a Stratum,
    relations: BTreeSet<usize>,
}

impl<'a> Rules<'a> {
    pub(super) fn new(valid: &'a Valid<'a>, stratum: &'a Stratum) -> Self {
        let relations = stratum.relations.iter().map(|definition| definition.relation).collect();
        Rules { valid, stratum, relations }
    }

    /// Whether a node changes with the iteration.
    pub(super) fn iterates(&self, node: usize) -> bool {
        self.valid.reads[node].iter().any(|relation| self.relations.contains(relation))
    }

    /// The nodes that the relations are made of and that change with the iteration, and what defines the relations.
    fn iterating(&self) -> BTreeSet<usize> {
        made_of(self.valid, self.stratum, |node| self.iterates(node))
    }

    /// What follows from aggregates and negations, those of the stratum's own rows and the others.
    pub(super) fn growth(&self) -> Growth {
        let mut growth = Growth::Plain;
        for node in self.iterating() {
            match &self.valid.plan.nodes[node] {
                Node::Antijoin { right, .. } if self.iterates(*right) => return Growth::None,
                Node::Reduce { .. } => return Growth::None,
                Node::Antijoin { .. } => growth = Growth::Sorted,
                _ => {}
            }
        }
        growth
    }

    /// What defines each relation, of which [`Self::growth`] is known; if they are to be `arranged`, by what the rules join
    /// them by.
    pub(super) fn parts(&self, growth: Growth, arranged: bool) -> Vec<Parts> {
        let keys = if arranged { self.keys() } else { BTreeMap::new() };
        self.stratum.relations.iter().map(|definition| self.divided(definition, growth, &keys)).collect()
    }

    /// What the rules join the relations by.
    fn keys(&self) -> BTreeMap<usize, Vec<usize>> {
        let own = |read| matches!(read, RelationRef::Local(local) if self.relations.contains(&local));
        first_by_relation(&joined(self.valid, self.iterating(), own))
    }

    /// Divides what defines a relation. Where an iteration takes back what an earlier one has found, all comes with the same one,
    /// the first: what is found depends on it.
    fn divided(&self, definition: &Definition, growth: Growth, keys: &BTreeMap<usize, Vec<usize>>) -> Parts {
        let (mut entering, mut iterating) = (Vec::new(), vec![definition.node]);
        if let Node::Union { inputs } = &self.valid.plan.nodes[definition.node]
            && growth != Growth::None
            && self.valid.uses[definition.node] == 1
            // A plan may say of a relation that it is recursive, though nothing of it is.
            && inputs.iter().any(|&input| self.iterates(input))
        {
            (iterating, entering) = inputs.iter().partition(|&&input| self.iterates(input));
        }
        let sources = |nodes: Vec<usize>| nodes.into_iter().map(Source::Node).collect();
        let width = self.valid.types[definition.node].len();
        let mut parts = Parts {
            relation: definition.relation,
            layout: Layout::by_or_whole(keys.get(&definition.relation), width),
            entering: sources(entering),
            iterating: sources(iterating),
        };
        let transacted = if growth == Growth::None { &mut parts.iterating } else { &mut parts.entering };
        transacted.push(Source::Transacted(definition.relation));
        parts
    }
}

//! Graphs.

use std::collections::BTreeSet;

use super::{Random, Table};

/// Every pair of `nodes` with this probability.
pub fn random(nodes: u32, probability: f64) -> Table {
    let mut random = Random::default();
    let pairs = (0..nodes).flat_map(|a| (0..nodes).map(move |b| [a, b]));
    Table::new("edge", pairs.filter(|[a, b]| a != b && random.unit() < probability))
}

/// So many distinct edges among a tenth as many nodes, a few of them in most edges.
pub fn skewed(edges: u32) -> Table {
    let mut random = Random::default();
    let nodes = f64::from(edges / 10);
    let mut node = || (nodes * random.unit().powi(3)) as u32;
    let mut seen = BTreeSet::new();
    while seen.len() < edges as usize {
        let (a, b) = (node(), node());
        if a != b {
            seen.insert([a.min(b), a.max(b)]);
        }
    }
    Table::new("edge", seen)
}

/// So many rows, with a thousandth as many keys.
pub fn keyed(rows: u32) -> Table {
    let mut random = Random::default();
    let keys = (rows / 1000).max(1);
    Table::new("edge", (0..rows).map(|row| [random.below(keys), row]))
}

/// So many distinct edges among half as many nodes.
pub fn sparse(edges: u32) -> Table {
    let mut random = Random::default();
    let nodes = edges / 2;
    let mut seen = BTreeSet::new();
    while seen.len() < edges as usize {
        seen.insert([random.below(nodes), random.below(nodes)]);
    }
    Table::new("edge", seen)
}

/// The first nodes, ten of them.
pub fn roots() -> Table {
    Table::new("root", (0..10).map(|node| [node]))
}

/// A parent for each node but the first, among the nodes before it and not far from half of its number, which makes a
/// tree about as deep as a binary one.
pub fn family(nodes: u32) -> Table {
    let mut random = Random::default();
    let parent = |node: u32, random: &mut Random| (node / 2).saturating_sub(random.below(1 + node / 64));
    Table::new("parent", (1..nodes).map(|node| [parent(node, &mut random), node]))
}

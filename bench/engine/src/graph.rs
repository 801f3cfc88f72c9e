//! Graphs, equal for every engine: a fixed seed.

/// An edge.
pub type Edge = (u32, u32);

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }

    fn unit(&mut self) -> f64 {
        self.next() as f64 / (1u64 << 53) as f64
    }
}

fn random_source() -> Random {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    (0..16).for_each(|_| {
        let _ = random.next();
    });
    random
}

/// Every pair of `nodes` with this probability.
pub fn random(nodes: u32, probability: f64) -> Vec<Edge> {
    let mut random = random_source();
    let pairs = (0..nodes).flat_map(|a| (0..nodes).map(move |b| (a, b)));
    pairs.filter(|(a, b)| a != b && random.unit() < probability).collect()
}

/// So many distinct edges among a tenth as many nodes, a few of them in most edges.
pub fn skewed(edges: u32) -> Vec<Edge> {
    let mut random = random_source();
    let nodes = f64::from(edges / 10);
    let mut node = || (nodes * random.unit().powi(3)) as u32;
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < edges as usize {
        let (a, b) = (node(), node());
        if a != b {
            seen.insert((a.min(b), a.max(b)));
        }
    }
    seen.into_iter().collect()
}

/// So many rows, with a thousandth as many keys.
pub fn keyed(rows: u32) -> Vec<Edge> {
    let mut random = random_source();
    let keys = u64::from((rows / 1000).max(1));
    (0..rows).map(|row| ((random.next() % keys) as u32, row)).collect()
}

//! What is measured.

use std::time::Instant;

/// How many rows there are, and the sum of their hashes: equal for equal contents, whatever way they came about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Rows.
    pub rows: i64,
    /// Sum of hashes.
    pub sum: u64,
}

impl Contents {
    /// Takes note of a change.
    pub fn update(&mut self, row: impl IntoIterator<Item = i64>, diff: i64) {
        let mix =
            |hash: u64, word: i64| (hash ^ word as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        self.rows += diff;
        self.sum = self.sum.wrapping_add(row.into_iter().fold(0, mix).wrapping_mul(diff as u64));
    }

    /// Adds another worker's part.
    pub fn add(&mut self, other: Contents) {
        self.rows += other.rows;
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

/// What a run took.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// The result after loading.
    pub loaded: Contents,
    /// The result in the end.
    pub changed: Contents,
    /// Seconds from the first row introduced to all finished.
    pub load_s: f64,
    /// Seconds of each transaction after that, in the order made.
    pub changes_s: Vec<f64>,
    /// Changes made in them.
    pub changes: usize,
}

impl Measured {
    /// Takes the time of a transaction.
    pub fn change(&mut self, changes: usize, make: impl FnOnce()) {
        let start = Instant::now();
        make();
        self.changes_s.push(start.elapsed().as_secs_f64());
        self.changes += changes;
    }

    /// For the script that compares.
    pub fn to_json(&self) -> serde_json::Value {
        let mut sorted = self.changes_s.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |share: f64| sorted.get((sorted.len() as f64 * share) as usize).map_or(0.0, |s| s * 1e6);
        let total: f64 = sorted.iter().sum();
        serde_json::json!({
            "rows": self.loaded.rows,
            "sums": [self.loaded.sum, self.changed.rows, self.changed.sum],
            "load_s": self.load_s,
            "change_p50_us": at(0.5),
            "change_p99_us": at(0.99),
            "changes_per_s": if total > 0.0 { self.changes as f64 / total } else { 0.0 },
            "peak_mb": peak_mb(),
        })
    }
}

/// The greatest resident memory so far.
fn peak_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0");
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) / 1024.0
}

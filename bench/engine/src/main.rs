//! Runs one computation on one engine and prints what it took, for `bench/engine/run.py` to compare.
//!
//!     dataflow-bench plain|ours|pairs|edges closure|triangles|counts WORKERS SIZE
//!
//! `plain` is the computation written by hand on differential dataflow with `u32` tuples, `isize` differences and
//! `u64` times; `ours` the same as a plan on the engine, `pairs` one that joins
//! two at a time whatever the shape; `edges` prints the input as a file of facts. Prints JSON: rows of the result, seconds to load everything at
//! once, microseconds for one changed edge (median of 100), peak memory in MB.

mod graph;
mod ours;
mod plain;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What worker 0 measured.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Rows of the result after loading.
    pub rows: i64,
    /// Seconds from the first row introduced to all finished.
    pub load_s: f64,
    /// Seconds of each single change, in the order made.
    pub changes_s: Vec<f64>,
}

/// Single changes made after loading.
pub const CHANGES: usize = 100;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let usage = "usage: dataflow-bench plain|ours|pairs|edges closure|triangles|counts WORKERS SIZE";
    let [engine, work, workers, size] = &args[..] else { panic!("{usage}") };
    let (workers, size): (usize, u32) = (workers.parse().expect(usage), size.parse().expect(usage));
    let edges = match work.as_str() {
        "closure" => graph::random(size, 0.002),
        "triangles" => graph::skewed(size),
        "counts" => graph::keyed(size),
        _ => panic!("{usage}"),
    };
    if engine == "edges" {
        let facts: String = edges.iter().map(|(a, b)| format!("{a}\t{b}\n")).collect();
        return print!("{facts}");
    }
    let mut measured = match engine.as_str() {
        "plain" => plain::run(work, workers, edges),
        "ours" | "pairs" => ours::run(work, engine == "pairs", workers, edges),
        _ => panic!("{usage}"),
    };
    measured.changes_s.sort_by(f64::total_cmp);
    let at = |share: f64| measured.changes_s.get((CHANGES as f64 * share) as usize).map_or(0.0, |s| s * 1e6);
    println!(
        "{{\"rows\": {}, \"load_s\": {:.3}, \"change_p50_us\": {:.1}, \"change_p99_us\": {:.1}, \"peak_mb\": {:.1}}}",
        measured.rows,
        measured.load_s,
        at(0.5),
        at(0.99),
        peak_mb()
    );
}

/// The greatest resident memory so far.
fn peak_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0");
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) / 1024.0
}

//! Computes a relation by FlowLog: `dataflow-bench-flowlog batch|live WORK WORKERS DIRECTORY`.
//!
//! Reads `<relation>.facts` in the directory. `batch` writes `result.csv` there, and prints the seconds that computing alone
//! took. `live` then makes the transactions of `changes` there, a line each: places in the file of facts of rows that leave
//! (`-7`) and come back (`+7`). It prints JSON: rows in the end, seconds to load, microseconds of a transaction.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

macro_rules! compiled {
    ($($module:ident $file:literal)*) => {
        $(#[allow(dead_code)]
        mod $module {
            include!(concat!(env!("OUT_DIR"), $file));
        })*
    };
}
compiled! {
    closure "/closure.rs" live_closure "/live_closure.rs"
    triangles "/triangles.rs" live_triangles "/live_triangles.rs"
    same_generation "/same_generation.rs" live_same_generation "/live_same_generation.rs"
}

fn facts(directory: &Path, name: &str) -> Vec<(i32, i32)> {
    let text = std::fs::read_to_string(directory.join(format!("{name}.facts"))).expect("a file of facts");
    let row = |line: &str| {
        let (a, b) = line.split_once('\t')?;
        Some((a.parse().ok()?, b.parse().ok()?))
    };
    text.lines().map(|line| row(line).expect("two numbers a line")).collect()
}

/// Transactions: the places of rows that leave, and of those that come back.
fn changes(directory: &Path) -> Vec<(Vec<usize>, Vec<usize>)> {
    let text = std::fs::read_to_string(directory.join("changes")).expect("a file of changes");
    let places = |line: &str, sign| {
        let changes = line.split(' ').filter_map(|change| change.strip_prefix(sign));
        changes.map(|place| place.parse().expect("a place")).collect()
    };
    text.lines().map(|line| (places(line, '-'), places(line, '+'))).collect()
}

/// Computes once; the seconds it took.
fn batch(work: &str, workers: usize, directory: &Path) -> f64 {
    let mut text = String::new();
    let seconds;
    macro_rules! run {
        ($program:ident, $input:ident, $insert:ident, $output:ident, $($column:tt)*) => {{
            let mut engine = $program::BatchEngine::new(workers);
            engine.$insert(facts(directory, stringify!($input)));
            let start = Instant::now();
            let results = engine.run();
            seconds = start.elapsed().as_secs_f64();
            for row in &results.$output {
                $(let _ = write!(text, "{}\t", row.$column);)*
                text.pop();
                text.push('\n');
            }
        }};
    }
    match work {
        "closure" => run!(closure, edge, insert_edge, path, 0 1),
        "triangles" => run!(triangles, edge, insert_edge, triangle, 0 1 2),
        "same-generation" => run!(same_generation, parent, insert_parent, same, 0 1),
        _ => panic!("no such work: {work}"),
    }
    std::fs::write(directory.join("result.csv"), text).expect("a directory to write to");
    seconds
}

/// Loads and changes; what it took, as JSON.
fn live(work: &str, workers: usize, directory: &Path) -> String {
    macro_rules! run {
        ($program:ident, $input:ident, $insert:ident, $remove:ident, $output:ident) => {{
            let rows = facts(directory, stringify!($input));
            let mut engine = $program::IncrementalEngine::new(workers);
            let start = Instant::now();
            engine.$insert(rows.clone());
            let mut count: i64 = engine.commit().$output.iter().map(|(_, diff)| i64::from(*diff)).sum();
            let load = start.elapsed().as_secs_f64();
            let mut micros = Vec::new();
            for (leaving, coming) in changes(directory) {
                let start = Instant::now();
                engine.$remove(leaving.iter().map(|&place| rows[place]).collect());
                engine.$insert(coming.iter().map(|&place| rows[place]).collect());
                count += engine.commit().$output.iter().map(|(_, diff)| i64::from(*diff)).sum::<i64>();
                micros.push(start.elapsed().as_secs_f64() * 1e6);
            }
            micros.sort_by(f64::total_cmp);
            let middle = micros.get(micros.len() / 2).copied().unwrap_or_default();
            format!(r#"{{"rows": {count}, "load_s": {load}, "change_p50_us": {middle}}}"#)
        }};
    }
    match work {
        "closure" => run!(live_closure, edge, insert_edge, remove_edge, path),
        "triangles" => run!(live_triangles, edge, insert_edge, remove_edge, triangle),
        "same-generation" => run!(live_same_generation, parent, insert_parent, remove_parent, same),
        _ => panic!("no such work: {work}"),
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [mode, work, workers, directory] = &args[..] else {
        panic!("usage: dataflow-bench-flowlog batch|live WORK WORKERS DIRECTORY")
    };
    let (directory, workers) = (Path::new(directory), workers.parse().expect("a number of workers"));
    match mode.as_str() {
        "batch" => println!("{}", batch(work, workers, directory)),
        "live" => println!("{}", live(work, workers, directory)),
        _ => panic!("no such mode: {mode}"),
    }
}

//! Computes a relation by FlowLog: `dataflow-bench-flowlog WORK WORKERS DIRECTORY`.
//!
//! Reads `<relation>.facts` in the directory, writes `result.csv` there, and prints the seconds that computing alone took.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod closure {
    include!(concat!(env!("OUT_DIR"), "/closure.rs"));
}
mod triangles {
    include!(concat!(env!("OUT_DIR"), "/triangles.rs"));
}
mod same_generation {
    include!(concat!(env!("OUT_DIR"), "/same_generation.rs"));
}

fn facts(directory: &Path, name: &str) -> Vec<(i32, i32)> {
    let text = std::fs::read_to_string(directory.join(format!("{name}.facts"))).expect("a file of facts");
    let row = |line: &str| {
        let (a, b) = line.split_once('\t')?;
        Some((a.parse().ok()?, b.parse().ok()?))
    };
    text.lines().map(|line| row(line).expect("two numbers a line")).collect()
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [work, workers, directory] = &args[..] else {
        panic!("usage: dataflow-bench-flowlog WORK WORKERS DIRECTORY")
    };
    let (directory, workers) = (Path::new(directory), workers.parse().expect("a number of workers"));
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
    match work.as_str() {
        "closure" => run!(closure, edge, insert_edge, path, 0 1),
        "triangles" => run!(triangles, edge, insert_edge, triangle, 0 1 2),
        "same-generation" => run!(same_generation, parent, insert_parent, same, 0 1),
        _ => panic!("no such work: {work}"),
    }
    std::fs::write(directory.join("result.csv"), text).expect("a directory to write to");
    println!("{seconds}");
}

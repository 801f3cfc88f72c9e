//! Runs one computation on one engine and prints what it took, for `bench/engine/run.py` to compare.
//!
//!     dataflow-bench plain|sets|PLAN WORK WORKERS SIZE [--batch ROWS] [--batches COUNT] [--tables DIRECTORY]
//!     dataflow-bench facts WORK DIRECTORY SIZE [--batch ROWS] [--batches COUNT]
//!
//! `plain` is the computation written by hand on differential dataflow with `u32` tuples, `isize` differences and
//! `u64` times, `sets` the same with inputs that are sets. `PLAN` is the file of a plan to be run on the engine: it has the tables as inputs and one `.output`.
//! `facts` writes the tables as files, and the transactions that follow as `changes`. Tables are made from a fixed seed, those of TPC-H are read from a directory.
//!
//! Prints JSON: rows of the result and a sum of their hashes (after loading, and in the end), seconds to load everything
//! at once, microseconds of the transactions that follow, peak memory in MB.
//!
//! * [`data`]: what is computed on. [`work`]: which computations there are. [`outcome`]: what is measured.
//! * [`plain`], [`ours`]: the two engines.

mod data;
mod ours;
mod outcome;
mod plain;
mod work;

use std::path::{Path, PathBuf};

use work::{Run, Work};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "usage: dataflow-bench plain|sets|PLAN WORK WORKERS SIZE [--batch ROWS] [--batches COUNT] \
                     [--tables DIRECTORY], or: dataflow-bench facts WORK DIRECTORY SIZE [--batch ROWS] [--batches COUNT]";

fn main() {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let mut option = |name: &str| {
        let at = args.iter().position(|arg| arg == name)?;
        (at + 1 < args.len()).then(|| args.drain(at..at + 2).nth(1)).flatten()
    };
    let number = |text: &str| text.parse::<usize>().expect(USAGE);
    let batch = option("--batch").map_or(1, |text| number(&text));
    let batches = option("--batches").map_or(100, |text| number(&text));
    let directory = option("--tables").map_or_else(PathBuf::new, PathBuf::from);
    let [engine, work, workers, size] = &args[..] else { panic!("{USAGE}") };
    let work = Work::named(work).expect(USAGE);
    let tables = work.tables(number(size) as u32, &directory);
    if engine == "facts" {
        let changes = data::batches(tables[0].len(), batch, batches);
        data::write(&tables, &changes, Path::new(workers)).expect("a directory to write to");
        return;
    }
    let batches = data::batches(tables[0].len(), batch, batches);
    let run = Run { work, workers: number(workers), tables, batches };
    let measured = match engine.as_str() {
        "plain" | "sets" => plain::run(run, engine == "sets"),
        _ => {
            let plan = std::fs::read(engine).expect("a file with a plan");
            ours::run(&serde_json::from_slice(&plan).expect("a plan"), run)
        }
    };
    println!("{}", measured.to_json());
}

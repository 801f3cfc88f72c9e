//! Computes a relation by ascent: `dataflow-bench-ascent WORK THREADS DIRECTORY`.
//!
//! Reads `<relation>.facts` in the directory, writes `result.csv` there, and prints the seconds that computing alone took.
//! With one thread it is the macro `ascent!`, with more `ascent_par!`, which are different programs.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

use ascent::{ascent, ascent_par};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

macro_rules! programs {
    ($make:ident, $closure:ident, $triangles:ident, $same:ident) => {
        $make! {
            struct $closure;
            relation edge(u32, u32);
            relation path(u32, u32);
            path(x, y) <-- edge(x, y);
            path(x, z) <-- path(x, y), edge(y, z);
        }
        $make! {
            struct $triangles;
            relation edge(u32, u32);
            relation triangle(u32, u32, u32);
            triangle(a, b, c) <-- edge(a, b), edge(b, c), edge(a, c);
        }
        $make! {
            struct $same;
            relation parent(u32, u32);
            relation same(u32, u32);
            same(x, y) <-- parent(p, x), parent(p, y), if x != y;
            same(x, y) <-- same(a, b), parent(a, x), parent(b, y);
        }
    };
}

programs!(ascent, Closure, Triangles, SameGeneration);
programs!(ascent_par, ParallelClosure, ParallelTriangles, ParallelSameGeneration);

fn facts(directory: &Path, name: &str) -> Vec<(u32, u32)> {
    let text = std::fs::read_to_string(directory.join(format!("{name}.facts"))).expect("a file of facts");
    let row = |line: &str| {
        let (a, b) = line.split_once('\t')?;
        Some((a.parse().ok()?, b.parse().ok()?))
    };
    text.lines().map(|line| row(line).expect("two numbers a line")).collect()
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [work, threads, directory] = &args[..] else {
        panic!("usage: dataflow-bench-ascent WORK THREADS DIRECTORY")
    };
    let directory = Path::new(directory);
    let parallel = threads != "1";
    ascent::rayon::ThreadPoolBuilder::new()
        .num_threads(threads.parse().expect("a number of threads"))
        .build_global()
        .expect("threads");
    let mut text = String::new();
    let seconds;
    macro_rules! run {
        ($program:ty, $input:ident, $output:ident, $($column:tt)*) => {{
            let mut program = <$program>::default();
            program.$input = facts(directory, stringify!($input)).into_iter().collect();
            let start = Instant::now();
            program.run();
            seconds = start.elapsed().as_secs_f64();
            for row in program.$output.iter() {
                $(let _ = write!(text, "{}\t", row.$column);)*
                text.pop();
                text.push('\n');
            }
        }};
    }
    match (work.as_str(), parallel) {
        ("closure", false) => run!(Closure, edge, path, 0 1),
        ("closure", true) => run!(ParallelClosure, edge, path, 0 1),
        ("triangles", false) => run!(Triangles, edge, triangle, 0 1 2),
        ("triangles", true) => run!(ParallelTriangles, edge, triangle, 0 1 2),
        ("same-generation", false) => run!(SameGeneration, parent, same, 0 1),
        ("same-generation", true) => run!(ParallelSameGeneration, parent, same, 0 1),
        _ => panic!("no such work: {work}"),
    }
    std::fs::write(directory.join("result.csv"), text).expect("a directory to write to");
    println!("{seconds}");
}

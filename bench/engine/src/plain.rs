//! The computations written by hand on differential dataflow, as its own examples do.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use differential_dataflow::input::Input;
use differential_dataflow::operators::iterate::Iterate;
use timely::dataflow::operators::probe::{Handle, Probe};

use crate::graph::Edge;
use crate::{CHANGES, Measured};

/// Runs and measures `work`.
pub fn run(work: &str, workers: usize, edges: Vec<Edge>) -> Measured {
    let (work, edges) = (work.to_owned(), Arc::new(edges));
    let result = Arc::new(Mutex::new(Measured::default()));
    let shared = Arc::clone(&result);
    let guards = timely::execute(timely::Config::process(workers), move |worker| {
        let rows = Arc::new(Mutex::new(0i64));
        let counted = Arc::clone(&rows);
        let probe = Handle::new();
        let mut input = worker.dataflow::<u64, _, _>(|scope| {
            let (input, edges) = scope.new_collection::<Edge, isize>();
            let count = move |diff: isize| *counted.lock().expect("not poisoned") += diff as i64;
            match work.as_str() {
                "closure" => {
                    let by_source = edges.clone().arrange_by_key();
                    let path = edges.clone().iterate(move |scope, path| {
                        let (edges, by_source) = (edges.enter(scope), by_source.enter(scope));
                        let by_end = path.map(|(x, y)| (y, x)).arrange_by_key();
                        by_end.join_core(by_source, |_, &x, &z| Some((x, z))).concat(edges).distinct()
                    });
                    path.inspect(move |(_, _, diff)| count(*diff)).inner.probe_with(&probe);
                }
                "triangles" => {
                    let by_source = edges.clone().arrange_by_key();
                    let wedges = edges
                        .clone()
                        .map(|(a, b)| (b, a))
                        .arrange_by_key()
                        .join_core(by_source, |&b, &a, &c| Some(((a, c), b)));
                    let whole = edges.arrange_by_self();
                    let triangles = wedges
                        .arrange_by_key()
                        .join_core(whole, |&(a, c), &b, &()| Some((a, b, c)))
                        .arrange_by_self();
                    triangles
                        .as_collection(|row, &()| *row)
                        .inspect(move |(_, _, diff)| count(*diff))
                        .inner
                        .probe_with(&probe);
                }
                _ => {
                    use differential_dataflow::operators::CountTotal;
                    let counts = edges.map(|(key, _)| key).count_total();
                    counts.inspect(move |(_, _, diff)| count(*diff)).inner.probe_with(&probe);
                }
            }
            input
        });
        let step = |time: u64, worker: &mut timely::worker::Worker| {
            while probe.less_than(&time) {
                worker.step();
            }
        };
        let (index, peers) = (worker.index(), worker.peers());
        let mut measured = Measured::default();
        let start = Instant::now();
        for &edge in edges.iter().skip(index).step_by(peers) {
            input.insert(edge);
        }
        input.advance_to(1);
        input.flush();
        step(1, worker);
        measured.load_s = start.elapsed().as_secs_f64();
        measured.rows = *rows.lock().expect("not poisoned");
        for change in 0..CHANGES {
            let start = Instant::now();
            if index == 0 {
                let edge = edges[change / 2 * 37 % edges.len()];
                if change % 2 == 0 { input.remove(edge) } else { input.insert(edge) }
            }
            let next = change as u64 + 2;
            input.advance_to(next);
            input.flush();
            step(next, worker);
            measured.changes_s.push(start.elapsed().as_secs_f64());
        }
        let mut shared = shared.lock().expect("not poisoned");
        shared.rows += measured.rows;
        if index == 0 {
            (shared.load_s, shared.changes_s) = (measured.load_s, measured.changes_s);
        }
    });
    drop(guards.expect("a cluster"));
    Arc::into_inner(result).expect("workers have ended").into_inner().expect("not poisoned")
}

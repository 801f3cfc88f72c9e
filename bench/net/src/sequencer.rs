//! A command's way through a bare sequencer: from pushing it on worker 0 until worker 0 has it back in order.

use std::time::{Duration, Instant, SystemTime};

use dataflow_worker::sequencer::Sequencer;
use timely::synchronization::Sequencer as Timely;
use timely::worker::Worker;
use timely::{CommunicationConfig, Config, WorkerConfig};

use crate::percentile;

/// An idle worker sleeps, as the server's do: they share cores.
const PARK: Option<Duration> = Some(Duration::from_millis(10));

/// On threads of this process.
pub(crate) fn measure(whose: &str, workers: usize, commands: usize) {
    run(Config::process(workers), whose, commands, Instant::now());
}

/// On several processes, each of which runs this with its own number. Timely's sequencer orders by the time since a
/// moment that all should agree on; `epoch` is one, in seconds of the system's clock.
pub(crate) fn measure_cluster(
    whose: &str,
    workers: usize,
    commands: usize,
    epoch: f64,
    process: usize,
    addresses: &[&str],
) {
    let addresses = addresses.iter().map(|address| (*address).to_owned()).collect();
    let communication =
        CommunicationConfig::Cluster { threads: workers, process, addresses, report: false, zerocopy: false };
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64() - epoch;
    let timer = Instant::now() - Duration::from_secs_f64(since.max(0.0));
    run(Config { communication, worker: WorkerConfig::default() }, whose, commands, timer);
}

fn run(config: Config, whose: &str, commands: usize, timer: Instant) {
    let ours = whose == "ours";
    let guards = timely::execute(config, move |worker| {
        let mut taken = if ours { ours_on(worker, commands) } else { timelys_on(worker, commands, timer) };
        if worker.index() == 0 {
            let taken = &mut taken[commands / 10..];
            println!("{{\"p50\": {}, \"p99\": {}}}", percentile(taken, 0.5), percentile(taken, 0.99));
        }
    });
    guards.unwrap().join().into_iter().for_each(|worker| worker.unwrap());
}

/// Seconds of each command, on worker 0; the others take part until all have passed.
fn ours_on(worker: &mut Worker, commands: usize) -> Vec<f64> {
    let mut sequencer: Sequencer<u64> = Sequencer::new(worker, |_, _| {});
    let mut taken = Vec::new();
    for command in 0..commands as u64 {
        let started = Instant::now();
        if worker.index() == 0 {
            sequencer.push(command);
            worker.step();
        }
        while sequencer.next().is_none() {
            if sequencer.catch_up() {
                worker.step()
            } else {
                worker.step_or_park(PARK)
            };
        }
        taken.push(started.elapsed().as_secs_f64());
    }
    taken
}

fn timelys_on(worker: &mut Worker, commands: usize, timer: Instant) -> Vec<f64> {
    let mut sequencer: Timely<u64> = Timely::new(worker, timer);
    let mut taken = Vec::new();
    for command in 0..commands as u64 {
        let started = Instant::now();
        if worker.index() == 0 {
            sequencer.push(command);
            worker.step();
        }
        while sequencer.next().is_none() {
            worker.step_or_park(PARK);
        }
        taken.push(started.elapsed().as_secs_f64());
    }
    taken
}

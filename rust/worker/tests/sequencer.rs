//! The sequencer's promises, on clusters of one to three workers that share memory or only bytes.
//!
//! What is released is the same sequence on every worker; it doesn't depend on which workers have clients, nor on
//! when they start; a time given out is never followed by a smaller one anywhere.

use std::sync::mpsc;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use dataflow_protocol::ids::{Time, WorkerIndex};
use dataflow_worker::mail::Mail;
use dataflow_worker::sequencer::Sequencer;
use timely::communication::Config as Communication;
use timely::worker::Worker;
use timely::{Config, WorkerConfig};

type Log = Vec<(Time, usize, String)>;

fn clusters() -> Vec<Config> {
    let with = |communication| Config { communication, worker: WorkerConfig::default() };
    (1..=3).map(Config::process).chain((2..=3).map(|n| with(Communication::ProcessBinary(n)))).collect()
}

/// Runs `script` on every worker of every kind of cluster and returns what it gave, by worker.
fn everywhere<R: Send + 'static>(
    script: impl Fn(&mut Worker, &mut Sequencer<String>) -> R + Send + Sync + 'static,
) -> Vec<Vec<R>> {
    let script = Arc::new(script);
    clusters()
        .into_iter()
        .map(|config| {
            let script = Arc::clone(&script);
            let guards = timely::execute(config, move |worker| {
                let mut sequencer = Sequencer::new(worker, |_, _| {});
                script(worker, &mut sequencer)
            });
            guards.expect("cluster starts").join().into_iter().map(|r| r.expect("worker ends")).collect()
        })
        .collect()
}

/// Steps until `count` elements were released, and returns them.
fn collect(worker: &mut Worker, sequencer: &mut Sequencer<String>, count: usize) -> Log {
    let mut log = Log::new();
    while log.len() < count {
        worker.step_or_park(Some(Duration::from_millis(10)));
        sequencer.catch_up();
        while let Some((time, elements)) = sequencer.next() {
            log.extend(elements.into_iter().map(|(origin, e)| (time, origin.0, (*e).clone())));
        }
    }
    log
}

fn assert_one_order(logs: &[Log]) {
    assert!(logs.windows(2).all(|pair| pair[0] == pair[1]), "workers saw different orders: {logs:?}");
    assert!(logs[0].is_sorted_by_key(|(time, origin, _)| (*time, *origin)));
}

#[test]
fn equal_times_of_several_origins_have_one_order_everywhere() {
    for logs in everywhere(|worker, sequencer| {
        let own = worker.index();
        let times: Vec<Time> = (0..50).map(|i| sequencer.push(format!("{own}:{i}"))).collect();
        let log = collect(worker, sequencer, 50 * worker.peers());
        let released: Vec<Time> = log.iter().filter(|entry| entry.1 == own).map(|entry| entry.0).collect();
        assert_eq!(times, released, "an element has the time that push returned");
        log
    }) {
        assert_one_order(&logs);
        assert!(logs.len() == 1 || logs[0].windows(2).any(|pair| pair[0].0 == pair[1].0), "times are shared");
    }
}

#[test]
fn a_worker_without_clients_holds_nobody_up() {
    for logs in everywhere(|worker, sequencer| {
        if worker.index() == 0 {
            for i in 0..20 {
                sequencer.push(i.to_string());
            }
        }
        collect(worker, sequencer, 20)
    }) {
        assert_one_order(&logs);
    }
}

#[test]
fn what_is_pushed_after_a_release_anywhere_gets_a_greater_time() {
    // Worker 0 hands each released time to another worker, outside of timely, which then must push a greater one.
    for config in clusters().into_iter().skip(1) {
        let (tell, told) = mpsc::channel::<Time>();
        let ends = Arc::new(std::sync::Mutex::new((Some(tell), Some(told))));
        timely::execute(config, move |worker| {
            let mut sequencer: Sequencer<String> = Sequencer::new(worker, |_, _| {});
            let tell = if worker.index() == 0 { ends.lock().unwrap().0.take() } else { None };
            let told = if worker.index() == 1 { ends.lock().unwrap().1.take() } else { None };
            if worker.index() == 0 {
                sequencer.push("first".into());
            }
            let (mut seen, mut pushed) = (0, 0);
            while seen < 40 {
                worker.step_or_park(Some(Duration::from_millis(1)));
                sequencer.catch_up();
                while let Some((time, elements)) = sequencer.next() {
                    seen += elements.len();
                    if let Some(tell) = &tell {
                        let _ = tell.send(time);
                    }
                }
                for time in told.iter().flat_map(mpsc::Receiver::try_iter) {
                    if pushed < 39 {
                        pushed += 1;
                        assert!(sequencer.push("next".into()) > time);
                    }
                }
            }
        })
        .expect("cluster starts");
    }
}

#[test]
fn a_late_worker_costs_nothing_once_it_is_there() {
    // The last worker builds its dataflow only after the first has long pushed. From then on all are equal: the
    // counter, not a clock, is what they agree on, so the latest start leaves no trace in the times.
    let gate = Arc::new(Barrier::new(2));
    let logs = timely::execute(Config::process(3), move |worker| {
        if worker.index() == 2 {
            gate.wait();
        }
        let mut sequencer: Sequencer<String> = Sequencer::new(worker, |_, _| {});
        if worker.index() == 0 {
            for i in 0..1000 {
                sequencer.push(format!("early {i}"));
            }
            for _ in 0..10 {
                worker.step();
            }
            assert!(!sequencer.ready(), "nothing is released before all workers are there");
            gate.wait();
        }
        let early = collect(worker, &mut sequencer, 1000);
        // Worker 2 takes part at the common time at once.
        if worker.index() == 2 {
            assert_eq!(sequencer.push("late".into()), 1000);
        }
        let late = collect(worker, &mut sequencer, 1);
        assert_eq!(late, [(1000, 2, "late".to_string())]);
        early
    })
    .expect("cluster starts")
    .join()
    .into_iter()
    .map(|log| log.expect("worker ends"))
    .collect::<Vec<_>>();
    assert_one_order(&logs);
}

#[test]
fn elements_are_seen_on_receipt_before_they_are_released() {
    timely::execute(Config::process(2), |worker| {
        let seen = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        let sight = std::rc::Rc::clone(&seen);
        let mut sequencer: Sequencer<String> =
            Sequencer::new(worker, move |origin, e: &String| sight.borrow_mut().push((origin, e.clone())));
        let own = worker.index();
        sequencer.push(format!("from {own}"));
        for (_, origin, element) in collect(worker, &mut sequencer, 2) {
            assert!(seen.borrow().contains(&(WorkerIndex(origin), element)));
        }
    })
    .expect("cluster starts");
}

#[test]
fn many_elements_pass() {
    const EACH: usize = 20_000;
    let logs = timely::execute(Config::process(2), |worker| {
        let mut sequencer: Sequencer<String> = Sequencer::new(worker, |_, _| {});
        let (mut released, mut pushed, mut last) = (0, 0, None);
        while released < EACH * 2 {
            if pushed < EACH {
                pushed += 1;
                sequencer.push(String::new());
            }
            worker.step();
            sequencer.catch_up();
            while let Some((time, elements)) = sequencer.next() {
                assert!(last < Some(time));
                (last, released) = (Some(time), released + elements.len());
            }
        }
        last
    })
    .expect("cluster starts")
    .join();
    assert_eq!(logs.len(), 2);
    assert_eq!(logs[0], logs[1]);
}

#[test]
fn mail_reaches_its_addressee_without_any_order() {
    timely::execute(Config::process(3), |worker| {
        let mut mail: Mail<String> = Mail::new(worker);
        let own = worker.index();
        for to in 0..worker.peers() {
            mail.send(WorkerIndex(to), format!("{own} to {to}"));
        }
        let mut letters = Vec::new();
        while letters.len() < worker.peers() {
            worker.step_or_park(Some(Duration::from_millis(10)));
            letters.extend(std::iter::from_fn(|| mail.receive()));
        }
        letters.sort();
        let expected: Vec<_> =
            (0..worker.peers()).map(|from| (WorkerIndex(from), format!("{from} to {own}"))).collect();
        assert_eq!(letters, expected);
    })
    .expect("cluster starts");
}

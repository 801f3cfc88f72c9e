//! Figures of a process, each counted by the worker that has them, read by whoever asks `/metrics` or `status`.

use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WorkerLabel {
    worker: u64,
}

/// One worker's figures. Cheap to clone; clones count the same.
#[derive(Clone, Debug)]
pub struct WorkerMetrics {
    /// Turns of the loop.
    pub turns: Counter,
    /// Commands and transactions applied.
    pub commands: Counter,
    /// Steps of the dataflows.
    pub steps: Counter,
    /// Connections owned.
    pub connections: Gauge,
    /// Subscriptions owned.
    pub subscriptions: Gauge,
    /// Rows that the worker's clients have transacted.
    pub rows: Counter,
    /// Bytes read from clients.
    pub read_bytes: Counter,
    /// Messages queued for clients.
    pub messages: Counter,
    /// Time spent parked.
    pub parked_seconds: Counter<f64, AtomicU64>,
    /// From sending an element until it is applied.
    pub sequencing_seconds: Histogram,
    /// The longest turn's stepping so far.
    pub longest_step_seconds: Gauge<f64, AtomicU64>,
}

/// The registry of a process.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    workers: Vec<WorkerMetrics>,
}

macro_rules! family {
    ($registry:ident, $name:literal, $help:literal, $metric:ty) => {{
        let family = Family::<WorkerLabel, $metric>::default();
        $registry.register($name, $help, family.clone());
        move |worker: &WorkerLabel| family.get_or_create(worker).clone()
    }};
}

impl Metrics {
    /// Figures for as many workers.
    pub fn new(threads: usize) -> Self {
        let mut registry = Registry::with_prefix("dataflow");
        let turns = family!(registry, "turns", "Turns of the worker's loop", Counter);
        let commands = family!(registry, "commands", "Sequenced commands and transactions applied", Counter);
        let steps = family!(registry, "steps", "Steps of the dataflows", Counter);
        let connections = family!(registry, "connections", "Connections owned by the worker", Gauge);
        let subscriptions = family!(registry, "subscriptions", "Subscriptions owned by the worker", Gauge);
        let rows = family!(registry, "rows", "Rows transacted by the worker's clients", Counter);
        let read = family!(registry, "read_bytes", "Bytes read from clients", Counter);
        let messages = family!(registry, "messages", "Messages queued for clients", Counter);
        let parked = family!(registry, "parked_seconds", "Time spent parked", Counter<f64, AtomicU64>);
        let longest =
            family!(registry, "longest_step_seconds", "Longest stepping of a turn", Gauge<f64, AtomicU64>);
        let latency = Family::<WorkerLabel, Histogram>::new_with_constructor(|| {
            Histogram::new(exponential_buckets(1e-5, 4.0, 12))
        });
        let help = "From sending an element to the sequencer until it is applied";
        registry.register("sequencing_seconds", help, latency.clone());
        let workers = (0..threads as u64)
            .map(|worker| WorkerLabel { worker })
            .map(|label| WorkerMetrics {
                turns: turns(&label),
                commands: commands(&label),
                steps: steps(&label),
                connections: connections(&label),
                subscriptions: subscriptions(&label),
                rows: rows(&label),
                read_bytes: read(&label),
                messages: messages(&label),
                parked_seconds: parked(&label),
                sequencing_seconds: latency.get_or_create(&label).clone(),
                longest_step_seconds: longest(&label),
            })
            .collect();
        Metrics { registry: Mutex::new(registry), workers }
    }

    /// The figures of one of the process's workers.
    pub fn worker(&self, local: usize) -> WorkerMetrics {
        self.workers[local].clone()
    }

    /// All figures as Prometheus reads them.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // Writing to a string cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_every_worker_are_encoded() {
        let metrics = Metrics::new(2);
        metrics.worker(1).turns.inc();
        let text = metrics.encode();
        assert!(text.contains("dataflow_turns_total{worker=\"1\"} 1"), "{text}");
        assert!(text.contains("dataflow_turns_total{worker=\"0\"} 0"), "{text}");
    }
}

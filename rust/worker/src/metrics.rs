//! Figures of a process, each counted by the worker that has them, read by whoever asks `/metrics` or `status`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Registry;

use crate::access::refusals::Refusals;
use crate::config::Tunables;

/// Connections with the longest queues that a worker names one by one.
pub const NAMED_CLIENTS: usize = 100;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WorkerLabel {
    worker: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabel {
    worker: u64,
    phase: &'static str,
}

/// The parts of a worker's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as in the loop")]
pub enum Phase {
    Accept,
    Read,
    Sequence,
    Step,
    Apply,
    Emit,
    Flush,
    Park,
}

const PHASES: [&str; 8] = ["accept", "read", "sequence", "step", "apply", "emit", "flush", "park"];

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
    /// Bytes that clients' sockets have taken.
    pub written_bytes: Counter,
    /// Messages queued for clients.
    pub messages: Counter,
    /// Steps encoded: once for each encoding and filter among a relation's subscribers.
    pub encoded_steps: Counter,
    /// Turns in which transactions had to wait because the relations were too far behind.
    pub throttled_turns: Counter,
    /// Steps that were merged with others because their subscriber was behind.
    pub coalesced_steps: Counter,
    /// Subscriptions that were ended because their subscriber was too far behind.
    pub dropped_subscriptions: Counter,
    /// Time spent in each part of the turn, by [`Phase`].
    phase_seconds: [Counter<f64, AtomicU64>; PHASES.len()],
    /// From sending an element until it is applied.
    pub sequencing_seconds: Histogram,
    /// From applying a time until a finished step of it goes to its subscribers.
    pub step_latency_seconds: Histogram,
    /// The longest turn's stepping so far.
    pub longest_step_seconds: Gauge<f64, AtomicU64>,
    /// The longest work of an operator without a pause, by kind.
    longest_work_seconds: Family<WorkLabel, Gauge<f64, AtomicU64>>,
    tunables: Family<TunableLabel, Gauge>,
    label: WorkerLabel,
    published: Arc<Mutex<Published>>,
}

/// Figures that are looked up now and then instead of being counted as things happen.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// For every relation what this worker has of it.
    pub relations: Vec<RelationFigures>,
    /// The clients with something to read, at most [`NAMED_CLIENTS`] of them, those with the most.
    pub clients: Vec<ClientFigures>,
}

/// A relation's figures on one worker.
#[derive(Clone, Debug)]
pub struct RelationFigures {
    /// Its name.
    pub relation: String,
    /// Its module's name.
    pub module: String,
    /// Rows held by this worker.
    pub rows: u64,
    /// Bytes of its arrangements on this worker.
    pub bytes: u64,
    /// How long ago the first time was applied that it hasn't finished.
    pub lag_seconds: f64,
}

/// A client's figures.
#[derive(Clone, Debug)]
pub struct ClientFigures {
    /// Its connection's number, counted through the process.
    pub client: u64,
    /// Bytes that it hasn't taken.
    pub queue_bytes: u64,
    /// Steps merged for its subscriptions that live.
    pub coalesced_steps: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WorkLabel {
    worker: u64,
    operator: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TunableLabel {
    worker: u64,
    tunable: &'static str,
}

impl WorkerMetrics {
    /// Shows which tunables the worker has in force.
    pub(crate) fn in_force(&self, tunables: &Tunables) {
        for (tunable, value) in tunables.all() {
            let label = TunableLabel { worker: self.label.worker, tunable };
            self.tunables.get_or_create(&label).set(i64::try_from(value).unwrap_or(i64::MAX));
        }
    }

    /// Notes the longest step, and what of it operators of each kind did without a pause.
    pub(crate) fn longest(&self, step: Duration, work: impl IntoIterator<Item = (&'static str, Duration)>) {
        self.longest_step_seconds.set(step.as_secs_f64());
        for (operator, time) in work {
            let label = WorkLabel { worker: self.label.worker, operator };
            self.longest_work_seconds.get_or_create(&label).set(time.as_secs_f64());
        }
    }

    /// Counts the time since `*since` for a part of the turn, and moves `*since` to now.
    pub fn spent(&self, phase: Phase, since: &mut Instant) {
        let now = Instant::now();
        self.phase_seconds[phase as usize].inc_by(now.duration_since(*since).as_secs_f64());
        *since = now;
    }

    /// Seconds spent in a part of the turn.
    pub fn seconds(&self, phase: Phase) -> f64 {
        self.phase_seconds[phase as usize].get()
    }

    /// Replaces what was published before.
    pub fn publish(&self, published: Published) {
        *lock(&self.published) = published;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Figures of the process as a part of its cluster.
#[derive(Clone, Debug, Default)]
pub struct ProcessMetrics {
    /// The generation that serves requests; 0 while none does.
    pub generation: Gauge,
    /// Generations that have ended.
    pub fallen: Counter,
    /// Connections to the mesh port that came to nothing.
    pub refused: Counter,
    /// Processes that this one has no link with.
    pub missing: Gauge,
    /// Programs that it wants nobody to build.
    pub quarantined: Gauge,
    /// Contents in the dictionary.
    dictionary_entries: Gauge,
    /// Bytes that they take, about.
    dictionary_bytes: Gauge,
    /// Contents that were dropped, since nothing held them.
    pub dictionary_dropped: Counter,
    /// How often it was looked for such.
    pub dictionary_sweeps: Counter,
    /// Clients that were turned away.
    pub refusals: Refusals,
}

impl ProcessMetrics {
    /// Shows what the dictionary holds.
    pub fn dictionary(&self, entries: usize, bytes: usize) {
        self.dictionary_entries.set(i64::try_from(entries).unwrap_or(i64::MAX));
        self.dictionary_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    fn register(&self, registry: &mut Registry) {
        let help = "The generation that serves requests, 0 while none does";
        registry.register("generation", help, self.generation.clone());
        registry.register("generations_fallen", "Generations that have ended", self.fallen.clone());
        registry.register("mesh_refused", "Connections to the mesh port refused", self.refused.clone());
        registry.register("mesh_missing", "Processes without a link to this one", self.missing.clone());
        let help = "Programs over which the cluster fell so often that they aren't built again";
        registry.register("quarantined_programs", help, self.quarantined.clone());
        let help = "Texts and other long values in the dictionary";
        registry.register("dictionary_entries", help, self.dictionary_entries.clone());
        let help = "Bytes that the entries of the dictionary take, about";
        registry.register("dictionary_bytes", help, self.dictionary_bytes.clone());
        let help = "Entries of the dictionary dropped because nothing held them";
        registry.register("dictionary_dropped", help, self.dictionary_dropped.clone());
        registry.register("dictionary_sweeps", "Sweeps of the dictionary", self.dictionary_sweeps.clone());
        let help = "Connections, and requests by HTTP, that weren't served, by reason";
        registry.register("turned_away", help, self.refusals.family());
    }
}

/// The registry of a process.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    /// The process's own.
    pub process: ProcessMetrics,
    workers: Vec<WorkerMetrics>,
    io_threads: Vec<IoMetrics>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ThreadLabel {
    thread: u64,
}

/// An I/O thread's figures.
#[derive(Clone, Debug)]
pub struct IoMetrics {
    turns: Counter,
    busy_seconds: Counter<f64, AtomicU64>,
    parked_seconds: Counter<f64, AtomicU64>,
}

impl IoMetrics {
    /// Counts a turn, and the time since `*since`, which is moved to now.
    pub fn worked(&self, since: &mut Instant) {
        self.turns.inc();
        Self::spent(&self.busy_seconds, since);
    }

    /// Counts the time since `*since` as slept.
    pub fn parked(&self, since: &mut Instant) {
        Self::spent(&self.parked_seconds, since);
    }

    fn spent(on: &Counter<f64, AtomicU64>, since: &mut Instant) {
        let now = Instant::now();
        on.inc_by(now.duration_since(*since).as_secs_f64());
        *since = now;
    }
}

macro_rules! family {
    ($registry:ident, $name:literal, $help:literal, $metric:ty) => {{
        let family = Family::<WorkerLabel, $metric>::default();
        $registry.register($name, $help, family.clone());
        move |worker: &WorkerLabel| family.get_or_create(worker).clone()
    }};
}

/// A family of histograms from ten microseconds to forty seconds.
fn latencies(
    registry: &mut Registry,
    name: &str,
    help: &str,
) -> Family<WorkerLabel, Histogram, fn() -> Histogram> {
    let family = Family::new_with_constructor(
        (|| Histogram::new(exponential_buckets(1e-5, 4.0, 12))) as fn() -> Histogram,
    );
    registry.register(name, help, family.clone());
    family
}

impl Metrics {
    /// Figures for as many workers and I/O threads.
    pub fn new(threads: usize, io_threads: usize) -> Self {
        let mut registry = Registry::with_prefix("dataflow");
        let process = ProcessMetrics::default();
        process.register(&mut registry);
        let turns = family!(registry, "turns", "Turns of the worker's loop", Counter);
        let commands = family!(registry, "commands", "Sequenced commands and transactions applied", Counter);
        let steps = family!(registry, "steps", "Steps of the dataflows", Counter);
        let connections = family!(registry, "connections", "Connections owned by the worker", Gauge);
        let subscriptions = family!(registry, "subscriptions", "Subscriptions owned by the worker", Gauge);
        let rows = family!(registry, "rows", "Rows transacted by the worker's clients", Counter);
        let read = family!(registry, "read_bytes", "Bytes read from clients", Counter);
        let written = family!(registry, "written_bytes", "Bytes taken by clients' sockets", Counter);
        let messages = family!(registry, "messages", "Messages queued for clients", Counter);
        let encoded =
            family!(registry, "encoded_steps", "Steps encoded, once for each encoding and filter", Counter);
        let throttled = family!(
            registry,
            "throttled_turns",
            "Turns in which transactions waited because the relations were too far behind",
            Counter
        );
        let coalesced =
            family!(registry, "coalesced_steps", "Steps merged because their subscriber was behind", Counter);
        let dropped = family!(
            registry,
            "dropped_subscriptions",
            "Subscriptions ended because their subscriber was too far behind",
            Counter
        );
        let phases = Family::<PhaseLabel, Counter<f64, AtomicU64>>::default();
        registry.register("phase_seconds", "Time spent in each part of the worker's turn", phases.clone());
        let longest =
            family!(registry, "longest_step_seconds", "Longest stepping of a turn", Gauge<f64, AtomicU64>);
        let sequencing = latencies(
            &mut registry,
            "sequencing_seconds",
            "From sending an element to the sequencer until it is applied",
        );
        let step_latency = latencies(
            &mut registry,
            "step_latency_seconds",
            "From applying a time until its finished step goes to subscribers",
        );
        let work = Family::<WorkLabel, Gauge<f64, AtomicU64>>::default();
        let help = "Longest work of an operator without a pause, by kind";
        registry.register("longest_work_seconds", help, work.clone());
        let tunables = Family::<TunableLabel, Gauge>::default();
        registry.register("tunable", "The tunables that the worker has in force", tunables.clone());
        let workers: Vec<WorkerMetrics> = (0..threads as u64)
            .map(|worker| WorkerLabel { worker })
            .map(|label| WorkerMetrics {
                turns: turns(&label),
                commands: commands(&label),
                steps: steps(&label),
                connections: connections(&label),
                subscriptions: subscriptions(&label),
                rows: rows(&label),
                read_bytes: read(&label),
                written_bytes: written(&label),
                messages: messages(&label),
                encoded_steps: encoded(&label),
                throttled_turns: throttled(&label),
                coalesced_steps: coalesced(&label),
                dropped_subscriptions: dropped(&label),
                phase_seconds: PHASES
                    .map(|phase| phases.get_or_create(&PhaseLabel { worker: label.worker, phase }).clone()),
                sequencing_seconds: sequencing.get_or_create(&label).clone(),
                step_latency_seconds: step_latency.get_or_create(&label).clone(),
                longest_step_seconds: longest(&label),
                published: Arc::default(),
                longest_work_seconds: work.clone(),
                tunables: tunables.clone(),
                label,
            })
            .collect();
        let published = workers.iter().map(|worker| Arc::clone(&worker.published)).collect();
        registry.register_collector(Box::new(Lookup { published }));
        let io_threads = Self::io_threads(&mut registry, io_threads);
        Metrics { registry: Mutex::new(registry), process, workers, io_threads }
    }

    fn io_threads(registry: &mut Registry, threads: usize) -> Vec<IoMetrics> {
        if threads == 0 {
            return Vec::new();
        }
        let turns = Family::<ThreadLabel, Counter>::default();
        registry.register("io_turns", "Turns of the I/O thread's loop", turns.clone());
        let busy = Family::<ThreadLabel, Counter<f64, AtomicU64>>::default();
        registry.register("io_busy_seconds", "Time the I/O thread has worked", busy.clone());
        let parked = Family::<ThreadLabel, Counter<f64, AtomicU64>>::default();
        registry.register("io_parked_seconds", "Time the I/O thread has slept", parked.clone());
        let label = |thread| ThreadLabel { thread };
        let metrics = |thread: ThreadLabel| IoMetrics {
            turns: turns.get_or_create(&thread).clone(),
            busy_seconds: busy.get_or_create(&thread).clone(),
            parked_seconds: parked.get_or_create(&thread).clone(),
        };
        (0..threads as u64).map(label).map(metrics).collect()
    }

    /// The figures of one of the process's I/O threads.
    pub fn io_thread(&self, index: usize) -> IoMetrics {
        self.io_threads[index].clone()
    }

    /// The figures of one of the process's workers.
    pub fn worker(&self, local: usize) -> WorkerMetrics {
        self.workers[local].clone()
    }

    /// All figures as Prometheus reads them.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &lock(&self.registry));
        text
    }
}

/// Encodes what the workers have published.
#[derive(Debug)]
struct Lookup {
    published: Vec<Arc<Mutex<Published>>>,
}

type Labels = Vec<(&'static str, String)>;

impl Lookup {
    /// The sum of a figure over the workers, for each relation.
    fn relations<N: Copy>(&self, figure: fn(&RelationFigures) -> N, add: fn(N, N) -> N) -> Vec<(Labels, N)> {
        let mut sums: BTreeMap<(String, String), N> = BTreeMap::new();
        for published in &self.published {
            for relation in &lock(published).relations {
                let key = (escaped(&relation.relation), escaped(&relation.module));
                let value = figure(relation);
                sums.entry(key).and_modify(|sum| *sum = add(*sum, value)).or_insert(value);
            }
        }
        let labels = |((relation, module), sum)| (vec![("relation", relation), ("module", module)], sum);
        sums.into_iter().map(labels).collect()
    }

    fn clients(&self, figure: fn(&ClientFigures) -> u64) -> Vec<(Labels, u64)> {
        let mut found = Vec::new();
        for (worker, published) in self.published.iter().enumerate() {
            for client in &lock(published).clients {
                let labels = vec![("worker", worker.to_string()), ("client", client.client.to_string())];
                found.push((labels, figure(client)));
            }
        }
        found
    }
}

/// A label's value as the text format wants it; the library leaves that to us, and a module's name is any text.
fn escaped(text: &str) -> String {
    text.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n")
}

fn gauges<N: EncodeGaugeValue + Copy>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    samples: Vec<(Labels, N)>,
) -> fmt::Result
where
    ConstGauge<N>: EncodeMetric + TypedMetric,
{
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in samples {
        ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

impl Collector for Lookup {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let to = &mut encoder;
        let rows = self.relations(|relation| relation.rows, |one, other| one + other);
        gauges(to, "relation_rows", "Rows of the relation in the process", rows)?;
        let bytes = self.relations(|relation| relation.bytes, |one, other| one + other);
        gauges(to, "relation_bytes", "Bytes of the relation's arrangements in the process", bytes)?;
        let lag = self.relations(|relation| relation.lag_seconds, f64::max);
        gauges(to, "relation_lag_seconds", "Age of the first time the relation hasn't finished", lag)?;
        let queues = self.clients(|client| client.queue_bytes);
        gauges(to, "client_queue_bytes", "Bytes that the client hasn't taken", queues)?;
        let coalesced = self.clients(|client| client.coalesced_steps);
        gauges(to, "client_coalesced_steps", "Steps merged for the client's subscriptions", coalesced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_every_worker_are_encoded() {
        let metrics = Metrics::new(2, 0);
        metrics.worker(1).turns.inc();
        metrics.worker(1).longest(Duration::from_millis(500), [("seal", Duration::from_millis(250))]);
        let text = metrics.encode();
        assert!(text.contains("dataflow_turns_total{worker=\"1\"} 1"), "{text}");
        assert!(text.contains("dataflow_turns_total{worker=\"0\"} 0"), "{text}");
        assert!(text.contains("dataflow_longest_step_seconds{worker=\"1\"} 0.5"), "{text}");
        let work = "dataflow_longest_work_seconds{worker=\"1\",operator=\"seal\"} 0.25";
        assert!(text.contains(work), "{text}");
    }

    #[test]
    fn what_workers_publish_is_added_up_by_relation() {
        let metrics = Metrics::new(2, 0);
        for (worker, rows) in [(0, 3), (1, 4)] {
            let relation = RelationFigures {
                relation: "path".into(),
                module: "a \"module\"\n".into(),
                rows,
                bytes: 10,
                lag_seconds: rows as f64 / 2.0,
            };
            let client = ClientFigures { client: 7, queue_bytes: rows, coalesced_steps: 1 };
            metrics.worker(worker).publish(Published { relations: vec![relation], clients: vec![client] });
        }
        let text = metrics.encode();
        for line in [
            r#"dataflow_relation_rows{relation="path",module="a \"module\"\n"} 7"#,
            r#"dataflow_relation_bytes{relation="path",module="a \"module\"\n"} 20"#,
            r#"dataflow_relation_lag_seconds{relation="path",module="a \"module\"\n"} 2.0"#,
            r#"dataflow_client_queue_bytes{worker="1",client="7"} 4"#,
        ] {
            assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
        }
    }

    #[test]
    fn every_part_of_a_turn_has_its_time() {
        let metrics = Metrics::new(1, 0);
        let mut since = Instant::now() - std::time::Duration::from_secs(2);
        metrics.worker(0).spent(Phase::Park, &mut since);
        assert!(metrics.worker(0).seconds(Phase::Park) >= 2.0);
        let text = metrics.encode();
        for phase in PHASES {
            let sample = format!("dataflow_phase_seconds_total{{worker=\"0\",phase=\"{phase}\"}}");
            assert!(text.contains(&sample), "{text}");
        }
    }
}

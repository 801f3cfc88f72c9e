//! The computations written by hand on differential dataflow, as its own examples do.
//!
//! * [`graphs`], [`points_to`], [`tpch`]: the dataflows. Here: how they are fed and watched.

mod graphs;
mod points_to;
mod tpch;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use differential_dataflow::hashable::Hashable;
use differential_dataflow::input::{Input, InputSession};
use differential_dataflow::operators::ThresholdTotal;
use differential_dataflow::{Data, ExchangeData};
use timely::dataflow::Scope;
use timely::dataflow::operators::probe::{Handle, Probe};
use timely::worker::Worker;

use crate::data::Table;
use crate::outcome::{Contents, Measured};
use crate::work::{Run, Work};

/// A collection outside of loops.
type Rows<'scope, D, R = isize> = differential_dataflow::VecCollection<'scope, u64, D, R>;

/// Runs and measures a computation. With `sets` its inputs are sets, as the engine's are: a row that is there already
/// is no change.
pub fn run(run: Run, sets: bool) -> Measured {
    let shared = Arc::new(Mutex::new(Measured::default()));
    let result = Arc::clone(&shared);
    let guards = timely::execute(timely::Config::process(run.workers), move |worker| {
        let (index, peers) = (worker.index(), worker.peers());
        let output = Output::default();
        let mut feeds = Feeds { inputs: Vec::new(), sets };
        worker.dataflow::<u64, _, _>(|scope| build(run.work, scope, &mut feeds, &output));
        let mut measured = Measured::default();
        let start = Instant::now();
        for (feed, table) in feeds.inputs.iter_mut().zip(&run.tables) {
            feed.update(table, &mut (index..table.len()).step_by(peers), 1);
        }
        feeds.finish(1, &output.probe, worker);
        measured.load_s = start.elapsed().as_secs_f64();
        measured.loaded = output.contents.get();
        for (batch, time) in run.batches.iter().zip(2..) {
            measured.change(batch.delete.len() + batch.insert.len(), || {
                let mut own = |rows: &[usize], diff| {
                    let mut rows = rows.iter().copied().skip(index).step_by(peers);
                    feeds.inputs[0].update(&run.tables[0], &mut rows, diff);
                };
                own(&batch.delete, -1);
                own(&batch.insert, 1);
                feeds.finish(time, &output.probe, worker);
            });
        }
        let mut shared = shared.lock().expect("not poisoned");
        shared.loaded.add(measured.loaded);
        shared.changed.add(output.contents.get());
        if index == 0 {
            let (loaded, changed) = (shared.loaded, shared.changed);
            *shared = Measured { loaded, changed, ..measured };
        }
    });
    drop(guards.expect("a cluster"));
    Arc::into_inner(result).expect("workers have ended").into_inner().expect("not poisoned")
}

fn build(work: Work, scope: Scope<'_, u64>, feeds: &mut Feeds, output: &Output) {
    match work {
        Work::Closure => graphs::closure(feeds.table(scope), output),
        Work::Triangles => graphs::triangles(feeds.table(scope), output),
        Work::Counts => graphs::counts(feeds.table(scope), output),
        Work::SameGeneration => graphs::same_generation(feeds.table(scope), output),
        Work::Reach => graphs::reach(feeds.table(scope), feeds.table(scope), output),
        Work::PointsTo => points_to::points_to(std::array::from_fn(|_| feeds.table(scope)), output),
        Work::Q1 => tpch::q1(feeds.table(scope), output),
        Work::Q3 => tpch::q3(feeds.table(scope), feeds.table(scope), feeds.table(scope), output),
        Work::Q5 => tpch::q5(
            feeds.table(scope),
            feeds.table(scope),
            feeds.table(scope),
            feeds.table(scope),
            feeds.table(scope),
            output,
        ),
        Work::Q9 => tpch::q9(
            feeds.table(scope),
            feeds.table(scope),
            feeds.table(scope),
            feeds.table(scope),
            feeds.table(scope),
            output,
        ),
    }
}

/// The result: what it holds on this worker, and how far it is.
#[derive(Clone, Default)]
struct Output {
    contents: Rc<Cell<Contents>>,
    probe: Handle<u64>,
}

impl Output {
    /// Takes note of all changes, each row as the numbers that `words` makes of it.
    fn take<D: Data, const N: usize>(&self, rows: Rows<'_, D>, words: impl Fn(&D) -> [i64; N] + 'static) {
        let contents = Rc::clone(&self.contents);
        let watched = rows.inspect(move |(row, _, diff)| {
            let mut changed = contents.get();
            changed.update(words(row), *diff as i64);
            contents.set(changed);
        });
        watched.inner.probe_with(&self.probe);
    }
}

/// The inputs, in the order of the tables.
struct Feeds {
    inputs: Vec<Box<dyn Feed>>,
    sets: bool,
}

impl Feeds {
    /// One more.
    fn table<'scope, R: Row>(&mut self, scope: Scope<'scope, u64>) -> Rows<'scope, R> {
        let (input, rows) = scope.new_collection::<R, isize>();
        self.inputs.push(Box::new(input));
        if self.sets { rows.distinct_total() } else { rows }
    }

    /// Until everything before `time` has come.
    fn finish(&mut self, time: u64, probe: &Handle<u64>, worker: &mut Worker) {
        self.inputs.iter_mut().for_each(|feed| feed.advance(time));
        while probe.less_than(&time) {
            worker.step();
        }
    }
}

trait Feed {
    fn update(&mut self, table: &Table, rows: &mut dyn Iterator<Item = usize>, diff: isize);
    fn advance(&mut self, time: u64);
}

impl<R: Row> Feed for InputSession<u64, R, isize> {
    fn update(&mut self, table: &Table, rows: &mut dyn Iterator<Item = usize>, diff: isize) {
        for index in rows {
            InputSession::update(self, R::from_words(table.row(index)), diff);
        }
    }

    fn advance(&mut self, time: u64) {
        self.advance_to(time);
        self.flush();
    }
}

/// A row as a tuple.
trait Row: ExchangeData + Hashable {
    fn from_words(words: &[u32]) -> Self;
}

macro_rules! rows {
    ($($word:ident)*) => {
        impl Row for ($(rows!(@type $word),)*) {
            #[inline]
            fn from_words(words: &[u32]) -> Self {
                let [$($word),*] = words else { panic!("{} columns", words.len()) };
                ($(*$word,)*)
            }
        }
    };
    (@type $word:ident) => { u32 };
}

rows!(a);
rows!(a b);
rows!(a b c);
rows!(a b c d);
rows!(a b c d e f g h i j k);

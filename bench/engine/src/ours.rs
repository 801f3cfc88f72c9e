//! A plan on the engine.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use dataflow_engine::{EmitBudget, Engine};
use dataflow_protocol::ids::{RelationId, Time, WorkerIndex};
use dataflow_protocol::plan::Plan;
use dataflow_protocol::rows::RowBuf;
use dataflow_protocol::value::{from_number, to_number};
use timely::worker::Worker;

use crate::data::Table;
use crate::outcome::{Contents, Measured};
use crate::work::Run;

/// Runs and measures a plan that has the tables' relations as inputs and one output, which worker 0 gets.
pub fn run(plan: &Plan, run: Run) -> Measured {
    let (plan, shared) = (plan.clone(), Arc::new(Mutex::new(Measured::default())));
    let result = Arc::clone(&shared);
    let guards = timely::execute(timely::Config::process(run.workers), move |worker| {
        let (index, peers) = (worker.index(), worker.peers());
        let mut replica = Replica::new(worker, &plan, &run.tables);
        let mut measured = Measured::default();
        let start = Instant::now();
        let nothing = (0..0).step_by(1);
        replica.touch(0..run.tables.len());
        for table in &run.tables {
            replica.introduce(table, nothing.clone(), (index..table.len()).step_by(peers));
        }
        replica.finish(worker);
        measured.load_s = start.elapsed().as_secs_f64();
        measured.loaded = replica.contents;
        for batch in &run.batches {
            measured.change(batch.delete.len() + batch.insert.len(), || {
                let own =
                    |rows: &[usize]| rows.iter().copied().skip(index).step_by(peers).collect::<Vec<_>>();
                replica.touch(0..1);
                replica.introduce(&run.tables[0], own(&batch.delete), own(&batch.insert));
                replica.finish(worker);
            });
        }
        measured.changed = replica.contents;
        if index == 0 {
            *shared.lock().expect("not poisoned") = measured;
        }
    });
    drop(guards.expect("a cluster"));
    Arc::into_inner(result).expect("workers have ended").into_inner().expect("not poisoned")
}

struct Replica {
    engine: Engine,
    inputs: Vec<(String, RelationId)>,
    output: RelationId,
    time: Time,
    contents: Contents,
}

impl Replica {
    fn new(worker: &mut Worker, plan: &Plan, tables: &[Table]) -> Replica {
        let mut engine = Engine::new(worker);
        let registered = engine.register(worker, 1, plan).expect("a valid plan");
        let id = |name: &str| {
            let found = registered.relations.iter().find(|relation| relation.name == name);
            found.map(|relation| relation.id).unwrap_or_else(|| panic!("no relation {name}"))
        };
        let result = plan.relations.iter().find(|relation| relation.output).expect("an output");
        let output = id(&result.name);
        let inputs = tables.iter().map(|table| (table.name.clone(), id(&table.name))).collect();
        engine.interest(output, WorkerIndex(0), 0);
        engine.advance(1);
        Replica { engine, inputs, output, time: 2, contents: Contents::default() }
    }

    /// Some inputs change now; alike on all workers.
    fn touch(&mut self, tables: std::ops::Range<usize>) {
        for (_, input) in &self.inputs[tables] {
            self.engine.touch(*input, self.time);
        }
    }

    /// This worker's part of the changes.
    fn introduce(
        &mut self,
        table: &Table,
        delete: impl IntoIterator<Item = usize>,
        insert: impl IntoIterator<Item = usize>,
    ) {
        let rows = |indices: &mut dyn Iterator<Item = usize>| {
            let mut rows = RowBuf::new(table.width);
            for index in indices {
                table.row(index).iter().for_each(|&word| rows.push_word(from_number(word.into())));
                rows.end_row();
            }
            rows
        };
        let (delete, insert) = (rows(&mut delete.into_iter()), rows(&mut insert.into_iter()));
        let input = self.inputs.iter().find(|(name, _)| *name == table.name).expect("an input");
        self.engine.introduce(input.1, self.time, &delete, &insert);
    }

    /// Until everything of this time has come.
    fn finish(&mut self, worker: &mut Worker) {
        self.engine.advance(self.time);
        while self.engine.finished(self.output) != Some(self.time) {
            worker.step();
            self.engine.work(&EmitBudget::default());
            for step in self.engine.take_steps() {
                for (row, &diff) in step.changes.rows.iter().zip(&step.changes.diffs) {
                    self.contents.update(row.iter().map(|&word| to_number(word)), diff);
                }
            }
        }
        self.time += 1;
    }
}

//! Constant rows.

use dataflow_protocol::value::Word;
use differential_dataflow::AsCollection;
use timely::container::NoopBuilder;
use timely::dataflow::Scope;
use timely::dataflow::operators::generic::source;

use crate::container::Updates;
use crate::operators::Rows;

/// Rows that are there from `time` on; worker 0 introduces them.
pub(super) fn facts<'scope>(
    scope: Scope<'scope, u64>,
    width: usize,
    rows: Vec<Vec<Word>>,
    time: u64,
) -> Rows<'scope, u64> {
    let mut updates = Updates::<u64>::new(width);
    if scope.index() == 0 {
        rows.iter().for_each(|row| updates.push(row, time, 1));
    }
    source::<_, NoopBuilder<Updates<u64>>, _, _>(scope, "Facts", move |mut capability, _| {
        capability.downgrade(&time);
        let mut held = Some((capability, updates));
        move |output| {
            if let Some((capability, mut updates)) = held.take()
                && !updates.is_empty()
            {
                output.session_with_builder(&capability).give_container(&mut updates);
            }
        }
    })
    .as_collection()
}

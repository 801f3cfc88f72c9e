//! Operators that work row by row; and from arrangements back to rows.

use differential_dataflow::AsCollection;
use differential_dataflow::trace::Span;
use timely::container::NoopBuilder;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

use super::{ArrangedRows, Rows};
use crate::container::exchange::rows_per_container;
use crate::container::{EngineTime, Updates};
use crate::expr::Project;
use crate::trace::View;

/// Filters and projects.
pub(crate) fn map<'scope, T: EngineTime>(
    rows: Rows<'scope, T>,
    name: &str,
    project: Project,
) -> Rows<'scope, T> {
    rows.inner
        .unary::<NoopBuilder<Updates<T>>, _, _, _>(Pipeline, name, move |_, _| {
            move |input, output| {
                input.for_each(|time, rows| {
                    let mut mapped = Updates::with_capacity(project.width(), rows.len());
                    for index in 0..rows.len() {
                        if project.apply(rows.row(index), mapped.row_words()) {
                            mapped.end_row(rows.time(index), rows.diff(index));
                        } else {
                            mapped.abandon_row();
                        }
                    }
                    if !mapped.is_empty() {
                        output.session_with_builder(&time).give_container(&mut mapped);
                    }
                });
            }
        })
        .as_collection()
}

/// The updates of an arrangement, each row its key and value put through `project`.
pub(crate) fn flatten<'scope, T: EngineTime>(
    arranged: &ArrangedRows<'scope, T>,
    name: &str,
    project: Project,
) -> Rows<'scope, T> {
    flatten_stream(arranged.stream.clone(), name, project)
}

/// [`flatten`] of the bare stream of batches.
pub(crate) fn flatten_stream<'scope, T: EngineTime>(
    batches: Stream<'scope, T, Vec<Span<T, View<T>>>>,
    name: &str,
    project: Project,
) -> Rows<'scope, T> {
    batches
        .unary::<NoopBuilder<Updates<T>>, _, _, _>(Pipeline, name, move |_, _| {
            move |input, output| {
                input.for_each(|time, spans| {
                    for view in spans.drain(..).filter_map(|span| span.inner) {
                        for_each_chunk(&view, &project, |chunk| {
                            output.session_with_builder(&time).give_container(chunk);
                        });
                    }
                });
            }
        })
        .as_collection()
}

fn for_each_chunk<T: EngineTime>(view: &View<T>, project: &Project, mut logic: impl FnMut(&mut Updates<T>)) {
    let trie = view.trie();
    let full = rows_per_container(project.width());
    let mut chunk = Updates::with_capacity(project.width(), full.min(view.len()));
    let mut row = Vec::new();
    for key in 0..trie.keys() {
        for val in trie.values(key) {
            row.clear();
            row.extend_from_slice(trie.key(key));
            row.extend_from_slice(trie.value(val));
            for update in trie.updates(val) {
                if project.apply(&row, chunk.row_words()) {
                    chunk.end_row(view.time(update), view.diff(update));
                } else {
                    chunk.abandon_row();
                }
            }
            if chunk.len() >= full {
                logic(&mut chunk);
                chunk = Updates::with_capacity(project.width(), full);
            }
        }
    }
    if !chunk.is_empty() {
        logic(&mut chunk);
    }
}

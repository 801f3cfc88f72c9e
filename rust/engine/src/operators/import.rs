//! Another dataflow's arrangement as of a time.

use std::cell::RefCell;
use std::rc::Rc;

use differential_dataflow::operators::arrange::agent::ShutdownButton;
use differential_dataflow::operators::arrange::{Arranged, TraceReplayInstruction};
use differential_dataflow::trace::Span;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::CapabilitySet;
use timely::dataflow::operators::Enter;
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::generic::source;
use timely::dataflow::{Scope, Stream};

use super::ArrangedRows;
use crate::container::Inner;
use crate::trace::view::span_as_of;
use crate::trace::{Agent, Reader, View};

/// What ends the import: pressed before its dataflow is dropped.
pub(crate) type Button = ShutdownButton<CapabilitySet<u64>>;

type Spans<T> = Vec<Span<T, View<T>>>;

/// Brings an arrangement into another dataflow: its contents as of `since` first, then every change.
pub(crate) fn import<'scope>(
    agent: &mut Agent<u64>,
    scope: Scope<'scope, u64>,
    name: &str,
    since: u64,
) -> (ArrangedRows<'scope, u64>, Button) {
    import_as(agent, scope, name, since, false)
}

/// Brings the contents of an arrangement as of `since` into another dataflow, where they don't change any more. They are
/// what comes as spans; the trace goes on to change.
pub(crate) fn import_frozen<'scope>(
    agent: &mut Agent<u64>,
    scope: Scope<'scope, u64>,
    since: u64,
) -> (ArrangedRows<'scope, u64>, Button) {
    import_as(agent, scope, "ImportFrozen", since, true)
}

fn import_as<'scope>(
    agent: &mut Agent<u64>,
    scope: Scope<'scope, u64>,
    name: &str,
    since: u64,
    frozen: bool,
) -> (ArrangedRows<'scope, u64>, Button) {
    let mut button = None;
    let stream: Stream<'scope, u64, Spans<u64>> =
        source::<_, CapacityContainerBuilder<_>, _, _>(scope, name, |capability, info| {
            let held = Rc::new(RefCell::new(Some(CapabilitySet::from_elem(capability))));
            let mut queue = Some(agent.new_listener(scope.activator_for(Rc::clone(&info.address))));
            button = Some(ShutdownButton::new(Rc::clone(&held), scope.activator_for(info.address)));
            move |output| {
                let mut held = held.borrow_mut();
                let (Some(capabilities), Some(listener)) = (held.as_mut(), &queue) else { return };
                for instruction in listener.1.borrow_mut().drain(..) {
                    match instruction {
                        TraceReplayInstruction::Frontier(frontier) => capabilities.downgrade(frontier.iter()),
                        TraceReplayInstruction::Span(span, stamp) => {
                            if !stamp.is_empty() && span.has_updates() {
                                let delayed = capabilities.delayed_stamp(&stamp);
                                let span = if frozen { freeze(span, since) } else { span };
                                output.session(&delayed).give(span_as_of(&span, since));
                            }
                        }
                    }
                }
                if frozen && capabilities.iter().all(|capability| *capability.time() > since) {
                    // Nobody listens any more, and no time is held back.
                    (*held, queue) = (None, None);
                }
            }
        });
    let trace = Reader::as_of(agent.clone(), since);
    // `source` calls its constructor before it returns.
    let button = button.unwrap_or_else(|| unreachable!("the source was constructed"));
    (Arranged { stream, trace }, button)
}

/// A span with what the contents as of `since` have of it.
fn freeze(span: Span<u64, View<u64>>, since: u64) -> Span<u64, View<u64>> {
    let inner = span.inner.as_ref().and_then(|view| view.frozen(since));
    Span::new(span.desc, inner)
}

/// Brings an arrangement into a recursion, where it doesn't change with the iteration.
pub(crate) fn enter<'inner>(
    arranged: ArrangedRows<'_, u64>,
    scope: Scope<'inner, Inner>,
) -> ArrangedRows<'inner, Inner> {
    let stream = arranged.stream.enter(scope).unary::<CapacityContainerBuilder<Spans<Inner>>, _, _, _>(
        Pipeline,
        "EnterArrangement",
        |_, _| {
            move |input, output| {
                input.for_each(|time, spans| {
                    let entered = spans.drain(..).map(|span| span_as_of::<Inner>(&span, 0));
                    output.session(&time).give_iterator(entered);
                });
            }
        },
    );
    Arranged { stream, trace: arranged.trace.enter() }
}

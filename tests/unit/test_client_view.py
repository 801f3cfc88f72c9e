"""The view: snapshot and steps, applied in order, are the relation's contents."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from dataflow_serve.client import Progress, Step, View
from dataflow_serve.client._view import StepAssembler
from dataflow_serve.protocol import Changes

A, B, C = ("a",), ("b",), ("c",)


def test_added_and_removed_stand_once_a_copy() -> None:
    step = Step(5, [(A, 2), (B, -1), (C, 1)])
    assert step.added == [A, A, C]
    assert step.removed == [B]


def test_parts_become_one_step() -> None:
    assembler = StepAssembler()
    assert assembler.add(Changes(1, 5, [(A, 1)], snapshot=True, more=True)) is None
    assert assembler.add(Changes(1, 5, [(B, 1)], snapshot=True)) == Step(5, [(A, 1), (B, 1)], snapshot=True)
    assert not assembler.midway
    assert assembler.add(Changes(1, 6, [(A, -1)])) == Step(6, [(A, -1)])


def test_a_discarded_beginning_leaves_no_trace() -> None:
    assembler = StepAssembler()
    assembler.add(Changes(1, 5, [(A, 1)], more=True))
    assembler.discard()
    assert assembler.add(Changes(1, 6, [(B, 1)])) == Step(6, [(B, 1)])


def test_a_view_follows_steps_and_progress() -> None:
    view = View()
    assert len(view) == 0
    view.apply(Step(5, [(A, 1), (B, 1)], snapshot=True))
    view.apply(Step(6, [(A, -1), (C, 2)]))
    view.apply(Progress(9))
    assert sorted(view) == [B, C, C]
    assert (len(view), view.time) == (3, 9)
    assert B in view
    assert A not in view
    assert view.copies(C) == 2


def test_a_resync_replaces_the_contents() -> None:
    view = View()
    view.apply(Step(5, [(A, 1), (B, 1)], snapshot=True))
    view.apply(Step(2, [(C, 1)], snapshot=True, resync=True))
    assert (view.rows(), view.time) == ([C], 2)


@given(st.lists(st.lists(st.tuples(st.sampled_from([A, B, C]), st.integers(-2, 3)))))
def test_a_view_is_the_sum_of_its_steps(batches: list[list[tuple[tuple[str], int]]]) -> None:
    view, total = View(), Counter[tuple[str]]()
    for time, changes in enumerate(batches):
        merged = Counter[tuple[str]]()
        for row, diff in changes:
            merged[row] += diff
        # A server never takes away what isn't there.
        step = [(row, max(diff, -total[row])) for row, diff in merged.items() if max(diff, -total[row])]
        view.apply(Step(time, step))
        for row, diff in step:
            total[row] += diff
    assert Counter(view) == +total

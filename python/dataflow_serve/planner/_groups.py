"""Rules that group: aggregates over the very rows from which the rule takes their outer variables.

    total(k, n, s) :- r(k, _), n = count : { r(k, _) }, s = sum v : { r(k, v) }.

In general the rows of a body are joined with an aggregate's values. Here the values have all that there is to
know: a key is in the body if and only if it has a value. So there is nothing to join, and aggregates that can
be kept as running totals are kept together.
"""

from __future__ import annotations

from collections.abc import Sequence

from dataflow_serve.language import Type
from dataflow_serve.language.checked import AggregateLiteral
from dataflow_serve.planner import _expressions as ex
from dataflow_serve.planner._names import outer_names
from dataflow_serve.planner._nodes import Nodes, Reduction
from dataflow_serve.planner._rows import Rows

__all__ = ["add_to_groups"]


def is_total(aggregate: AggregateLiteral) -> bool:
    """Whether it is a running total, for which nobody looks at a group again."""
    of_floats = aggregate.target is not None and aggregate.target.type is Type.FLOAT
    return aggregate.func in ("count", "sum", "mean") and not of_floats


def add_to_groups(
    nodes: Nodes, left: int, rows: Rows, aggregate: AggregateLiteral, reduced: int
) -> Rows | None:
    """The rows with the aggregate's value, if they are the groups themselves; each group once.

    Args:
        nodes: Where nodes go.
        left: The rows as a node.
        rows: What variables its columns are.
        aggregate: The aggregate, whose outer variables are bound.
        reduced: Its values, as a node.
    """
    outer, result = outer_names(aggregate), aggregate.result.name
    wanted = nodes.as_reduction(reduced)
    if wanted is None or not outer or result in rows.env:
        return None
    keys = [rows.column(name) for name in outer]
    if rows.env.keys() == set(outer) and _same_groups(nodes, left, keys, wanted):
        env: dict[str, ex.Expr] = {name: ex.Col(place) for place, name in enumerate(outer)}
        return Rows(nodes, reduced, {**env, result: ex.Col(len(outer))})
    held = nodes.as_reduction(left)
    if held is None or not (held.totals and wanted.totals) or keys != list(range(len(held.key))):
        return None
    if not _same_groups(nodes, held.source, held.key, wanted):
        return None
    return Rows(nodes, _together(nodes, held, wanted), {**rows.env, result: ex.Col(nodes.width[left])})


def _same_groups(nodes: Nodes, node: int, columns: Sequence[int], wanted: Reduction) -> bool:
    """Whether these columns of a node and the reduction's key are the same of the same rows.

    Values that can fail are never the same: without them there may be a row where there is no value.
    """
    source, filters, project = nodes.as_map(node)
    other, conditions, values = nodes.as_map(wanted.source)
    if any(map(ex.is_fallible, (*project, *values))):
        return False
    mine, theirs = [project[column] for column in columns], [values[column] for column in wanted.key]
    return (source, set(filters), mine) == (other, set(conditions), theirs)


def _together(nodes: Nodes, held: Reduction, wanted: Reduction) -> int:
    """A reduction with the aggregates of both."""
    source, filters, project = nodes.as_map(held.source)
    columns = [project[column] for column in held.key]
    aggregates: list[tuple[str, int | None]] = []
    for reduction in (held, wanted):
        _, _, values = nodes.as_map(reduction.source)
        for func, column in reduction.aggregates:
            if column is not None and values[column] not in columns:
                columns.append(values[column])
            aggregates.append((func, None if column is None else columns.index(values[column])))
    grouped = nodes.map(source, filters, columns)
    return nodes.reduce(grouped, list(range(len(held.key))), *aggregates, totals=True)

"""What the command line shows: rows, live tables, plans and status."""

from __future__ import annotations

import csv
import heapq
import json
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

import msgspec
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from dataflow_serve.client._blocking import BlockingClient
from dataflow_serve.client._blocking_subscription import BlockingSubscription
from dataflow_serve.client._layouts import ROW_LAYOUTS
from dataflow_serve.client._order import ordered
from dataflow_serve.client._plans import plan_notes, plan_svg
from dataflow_serve.client._tables import in_order
from dataflow_serve.client._texts import value_from_text
from dataflow_serve.client._view import Step, View
from dataflow_serve.errors import IncorrectError
from dataflow_serve.protocol import Column, Row, Rows, Value
from dataflow_serve.values import value_text

__all__ = [
    "print_plan",
    "print_rows",
    "print_status",
    "restriction",
    "watch_lines",
    "watch_table",
]

REFRESHES_PER_SECOND = 8


def restriction(db: BlockingClient, relation: str, conditions: Sequence[str]) -> dict[str, Value]:
    """What ``column=value`` conditions mean for a relation.

    Raises:
        IncorrectError: a condition isn't one, or its value doesn't fit the column.
        NotFoundError: there is no such relation.
    """
    if not conditions:
        return {}
    columns = {column.name: column for column in db.read(relation, limit=0).columns}
    where: dict[str, Value] = {}
    for condition in conditions:
        name, equals, text = condition.partition("=")
        if not equals or name not in columns:
            raise IncorrectError(
                f"the condition {condition!r} names no column of {relation}",
                f"Write COLUMN=VALUE; the columns are {', '.join(columns)}.",
            )
        where[name] = value_from_text(columns[name], text)
    return where


# --- rows ---------------------------------------------------------------------------------------------------


def print_rows(rows: Rows, layout: str, target: TextIO, *, in_their_order: bool = False) -> None:
    """Print rows in one of `ROW_LAYOUTS`: sorted, or as they come."""
    shown = list(rows) if in_their_order else in_order(rows.columns, rows)
    _PRINTERS[layout](rows.columns, shown, rows.time, target)


def _as_table(columns: Sequence[Column], rows: Sequence[Row], time: int, target: TextIO) -> None:
    caption = f"{len(rows)} row{'' if len(rows) == 1 else 's'} at time {time}"
    Console(file=target).print(_table(columns, rows, caption))


def _as_csv(columns: Sequence[Column], rows: Sequence[Row], time: int, target: TextIO) -> None:
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow([column.name for column in columns])
    writer.writerows([_spelled(value) for value in row] for row in rows)


def _as_tsv(columns: Sequence[Column], rows: Sequence[Row], time: int, target: TextIO) -> None:
    target.write("\t".join(column.name for column in columns) + "\n")
    target.writelines(_line(row) + "\n" for row in rows)


def _as_json(columns: Sequence[Column], rows: Sequence[Row], time: int, target: TextIO) -> None:
    names = [column.name for column in columns]
    objects = [dict(zip(names, row, strict=True)) for row in rows]
    target.write(msgspec.json.encode({"time": time, "rows": objects}).decode() + "\n")


_PRINTERS: Mapping[str, Callable[[Sequence[Column], Sequence[Row], int, TextIO], None]] = dict(
    zip(ROW_LAYOUTS, (_as_table, _as_csv, _as_tsv, _as_json), strict=True)
)


def _table(columns: Sequence[Column], rows: Sequence[Row], caption: str) -> Table:
    table = Table(caption=caption)
    for column in columns:
        table.add_column(column.name, justify="left" if column.type in ("symbol", "bool") else "right")
    for row in rows:
        # As Text: a value with square brackets is no markup.
        table.add_row(*(Text(_spelled(value)) for value in row))
    return table


def _line(row: Row) -> str:
    return "\t".join(map(_spelled, row))


def _spelled(value: Value) -> str:
    return value_text(value)


# --- following ----------------------------------------------------------------------------------------------


def watch_lines(live: BlockingSubscription[Step], target: TextIO = sys.stdout) -> None:
    """Print a line for each change: its time, ``+`` or ``-``, and the row; until the subscription ends."""
    for step in live:
        if step.resync:
            target.write(f"{step.time}\t!\tresync\n")
        for row in in_order(live.columns, step.removed):
            target.write(f"{step.time}\t-\t{_line(row)}\n")
        for row in in_order(live.columns, step.added):
            target.write(f"{step.time}\t+\t{_line(row)}\n")
        target.flush()


def watch_table(live: BlockingSubscription[Step], title: str, order: Sequence[str] = ()) -> None:
    """Show the first rows of a relation as they are now, until the subscription ends.

    In the order given, which only makes sense of few rows.
    """
    view = View()
    # The view is written here and read by the thread that draws.
    lock = threading.Lock()
    console = Console()

    def draw() -> Table:
        with lock:
            room = max(console.height - 6, 1)
            if order:
                first = ordered(live.columns, view, order)[:room]
            else:
                first = heapq.nsmallest(room, view, key=_order)
            rest = f", {room} shown" if len(view) > room else ""
            return _table(live.columns, first, f"{title}: {len(view)} rows at time {view.time}{rest}")

    with Live(console=console, get_renderable=draw, refresh_per_second=REFRESHES_PER_SECOND):
        for step in live:
            with lock:
                view.apply(step)


def _order(row: Row) -> tuple[Any, ...]:
    return tuple((value != value, value) for value in row)


# --- plans and status ---------------------------------------------------------------------------------------


def print_plan(relation: str, plan: Any, target: TextIO, layout: str = "text") -> None:
    """Print a tree of operators; a shape that a later server has is shown as it is."""
    known = isinstance(plan, Mapping) and "op" in plan
    if layout == "json":
        print(json.dumps(plan, ensure_ascii=False, indent=2), file=target)
    elif layout == "svg" and known:
        print(plan_svg(plan), file=target)
    else:
        Console(file=target).print(_operators(plan) if known else _grown(Tree(Text(relation)), plan))


def _operators(node: Mapping[str, Any]) -> Tree:
    label = Text(f"{node['op']} {node.get('detail', '')}".rstrip())
    for note in plan_notes(node):
        label.append(f"  {note}", style="dim")
    tree = Tree(label)
    for part in node.get("inputs", ()):
        tree.add(_operators(part))
    return tree


def print_status(report: Mapping[str, Any], target: TextIO) -> None:
    """Print what a server says about itself."""
    Console(file=target).print(_grown(Tree("status"), report))


def _grown(tree: Tree, node: Any) -> Tree:
    """Hang a document of any shape into a tree: what is small stands on one line with its name."""
    named = (
        node.items() if isinstance(node, Mapping) else [("", item) for item in node] if _is_list(node) else []
    )
    for name, item in named:
        label = f"{name}: " if name else ""
        if not isinstance(item, Mapping) and not _is_list(item):
            tree.add(Text(f"{label}{item}"))
        elif _is_small(item):
            tree.add(Text(f"{label}{msgspec.json.encode(item).decode()}"))
        else:
            _grown(tree.add(Text(label.removesuffix(": ") or "·")), item)
    return tree


def _is_list(node: Any) -> bool:
    return isinstance(node, list | tuple)


def _is_small(node: Any) -> bool:
    items = node.values() if isinstance(node, Mapping) else node
    return all(not isinstance(item, Mapping) and not _is_list(item) for item in items)

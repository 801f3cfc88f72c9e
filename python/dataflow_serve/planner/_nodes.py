"""The list of operators of one plan, in which equal operators stand once."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from msgspec import Struct

from dataflow_serve.language import CLOCK, CheckedProgram, Kind, Scalar, ast
from dataflow_serve.planner._expressions import Col, Expr, expr_json, value_json
from dataflow_serve.planner._statistics import Statistics

__all__ = ["Nodes", "Reduction"]

MAX_RULE_TEXT = 200
"""Characters of a rule that a plan keeps for people to read."""


class Reduction(Struct, frozen=True):
    """Aggregates by key."""

    source: int
    key: tuple[int, ...]
    aggregates: tuple[tuple[str, int | None], ...]
    totals: bool
    """Whether they are kept without looking at a group again."""


class Nodes:
    """Builds nodes; asked twice for the same one, it gives the first again.

    A node that reads a relation of the recursive stratum being planned stands for the rows of an iteration;
    outside of the stratum the same words mean the finished relation. Such nodes are never shared across
    strata.
    """

    def __init__(self, program: CheckedProgram, statistics: Statistics) -> None:
        """No nodes yet."""
        self.statistics = statistics
        self.json: list[dict[str, Any]] = []
        self.width: list[int] = []
        """Columns of each node."""
        self.rules: list[dict[str, Any]] = []
        """The rules that nodes were made for, as a plan describes them."""
        self.causes: list[list[int]] = []
        """For each node those rules, by index."""
        self._rule: int | None = None
        self._places: dict[tuple[ast.Position, str], int] = {}
        self.imports = list(program.imports.values())
        self._program = program
        self._local = {name: index for index, name in enumerate(program.relations)}
        self._import = {relation.name: index for index, relation in enumerate(self.imports)}
        self._known: dict[Hashable, int] = {}
        self._named: dict[str, int] = {}
        self._stratum: frozenset[str] = frozenset()
        self._scope = 0
        self._iterated: set[int] = set()
        self._maps: dict[int, tuple[int, tuple[Expr, ...], tuple[Expr, ...]]] = {}
        self._reduces: dict[int, Reduction] = {}

    def enter(self, relations: frozenset[str]) -> None:
        """Begin a stratum; ``relations`` are those of it if it is recursive, else none."""
        self._scope += 1
        self._stratum = relations
        self._iterated = set()

    @contextmanager
    def made_for(self, clause: ast.Clause | ast.Subsumption) -> Iterator[None]:
        """What is asked for meanwhile is there for this rule."""
        text = " ".join(clause.text.split())
        if len(text) > MAX_RULE_TEXT:
            text = f"{text[:MAX_RULE_TEXT]}…"
        place = self._places.setdefault((clause.at, text), len(self.rules))
        if place == len(self.rules):
            self.rules.append({"text": text, "line": clause.at.line, "column": clause.at.column})
        before, self._rule = self._rule, place
        try:
            yield
        finally:
            self._rule = before

    def name(self, relation: str, node: int) -> None:
        """Let atoms of ``relation``, which is none of the program's, read the node."""
        self._named[relation] = node

    def is_recursive(self, relation: str) -> bool:
        """Whether the relation belongs to the recursive stratum being planned, or depends on it."""
        return relation in self._stratum or self._named.get(relation) in self._iterated

    def is_clock(self, relation: str) -> bool:
        """Whether the relation is the cluster's clock, rather than one that has its name."""
        return relation not in self._named and any(
            known.name == relation and known.id == CLOCK.id for known in self.imports
        )

    def is_iterated(self, node: int) -> bool:
        """Whether the node depends on the recursive stratum being planned."""
        return node in self._iterated

    def get(self, relation: str) -> int:
        """The rows of a relation."""
        if relation in self._named:
            return self._named[relation]
        local = self._local.get(relation)
        ref = {"import": self._import[relation]} if local is None else {"local": local}
        iterated = relation in self._stratum
        key = ("get", relation, self._scope if iterated else None)
        node = self._add(key, {"op": "get", "relation": ref}, (), len(self._program.columns(relation)))
        if iterated:
            self._iterated.add(node)
        return node

    def rows(self, types: Sequence[Kind], rows: Sequence[Sequence[Scalar]]) -> int:
        """Constant rows."""
        key = ("rows", tuple(types), tuple(map(tuple, rows)))
        known = self._known.get(key)
        if known is not None:
            return self._caused(known)
        typed = [[value_json(kind, value) for kind, value in zip(types, row, strict=True)] for row in rows]
        json = {"op": "rows", "types": [kind.value for kind in types], "rows": typed}
        return self._add(key, json, (), len(types))

    def unit(self) -> int:
        """One row without columns: what a body without atoms starts from."""
        return self.rows((), ((),))

    def map(self, source: int, filters: Sequence[Expr], project: Sequence[Expr]) -> int:
        """The rows that pass ``filters``, projected; the node itself where that changes nothing."""
        if not filters and list(project) == [Col(index) for index in range(self.width[source])]:
            return source
        key = ("map", source, tuple(filters), tuple(project))
        json = {"op": "map", "input": source, **_row_json(filters, project)}
        node = self._add(key, json, (source,), len(project))
        self._maps[node] = (source, tuple(filters), tuple(project))
        return node

    def as_map(self, node: int) -> tuple[int, tuple[Expr, ...], tuple[Expr, ...]]:
        """Of which node it is a map, with which filters and projection; of itself, if it is none."""
        return self._maps.get(node) or (node, (), tuple(map(Col, range(self.width[node]))))

    def range(self, source: int, over: Kind, start: Expr, stop: Expr, step: Expr | None) -> int:
        """The rows with a further column that runs through a range."""
        json = {
            "op": "range",
            "input": source,
            "over": over.value,
            "start": expr_json(start),
            "stop": expr_json(stop),
            "step": None if step is None else expr_json(step),
        }
        key = ("range", source, over, start, stop, step)
        return self._add(key, json, (source,), self.width[source] + 1)

    def window(self, source: int, since: Sequence[Expr], until: Sequence[Expr]) -> int:
        """The rows for which each of ``since`` <= now < each of ``until``, in µs since 1970."""
        json = {
            "op": "window",
            "input": source,
            "since": [expr_json(e) for e in since],
            "until": [expr_json(e) for e in until],
        }
        return self._add(("window", source, tuple(since), tuple(until)), json, (source,), self.width[source])

    def join(
        self,
        left: int,
        right: int,
        left_key: Sequence[int],
        right_key: Sequence[int],
        filters: Sequence[Expr],
        project: Sequence[Expr],
    ) -> int:
        """The pairs with equal keys that pass ``filters``, projected."""
        key = ("join", left, right, tuple(left_key), tuple(right_key), tuple(filters), tuple(project))
        json = {
            "op": "join",
            "left": left,
            "right": right,
            "left_key": list(left_key),
            "right_key": list(right_key),
            **_row_json(filters, project),
        }
        return self._add(key, json, (left, right), len(project))

    def multijoin(
        self,
        inputs: Sequence[int],
        variables: Sequence[Sequence[int]],
        paths: Sequence[Sequence[Sequence[int]]],
        filters: Sequence[Expr],
        project: Sequence[Expr],
    ) -> int:
        """The values of variables for which every input has a row, that pass ``filters``, projected."""
        named = tuple(map(tuple, variables))
        key = ("multijoin", tuple(inputs), named, tuple(filters), tuple(project))
        json = {
            "op": "multijoin",
            "inputs": list(inputs),
            "variables": [list(columns) for columns in variables],
            "paths": [[list(group) for group in path] for path in paths],
            **_row_json(filters, project),
        }
        return self._add(key, json, inputs, len(project))

    def antijoin(self, left: int, right: int, left_key: Sequence[int], right_key: Sequence[int]) -> int:
        """The left rows whose key the right doesn't have."""
        key = ("antijoin", left, right, tuple(left_key), tuple(right_key))
        json = {
            "op": "antijoin",
            "left": left,
            "right": right,
            "left_key": list(left_key),
            "right_key": list(right_key),
        }
        return self._add(key, json, (left, right), self.width[left])

    def union(self, inputs: Sequence[int]) -> int:
        """All rows of all inputs; the node itself where it is only one."""
        if len(inputs) == 1:
            return inputs[0]
        json = {"op": "union", "inputs": list(inputs)}
        return self._add(("union", tuple(inputs)), json, inputs, self.width[inputs[0]])

    def distinct(self, source: int) -> int:
        """Each row once."""
        return self._add(
            ("distinct", source), {"op": "distinct", "input": source}, (source,), self.width[source]
        )

    def reduce(
        self, source: int, key: Sequence[int], *aggregates: tuple[str, int | None], totals: bool = False
    ) -> int:
        """One row for each key that has rows: the key, then the aggregates, each a function and its column.

        With ``totals`` all of them are known to be running totals.
        """
        json = {
            "op": "reduce",
            "input": source,
            "key": list(key),
            "aggregates": [{"func": func, "column": column} for func, column in aggregates],
        }
        known = ("reduce", source, tuple(key), aggregates)
        node = self._add(known, json, (source,), len(key) + len(aggregates))
        self._reduces[node] = Reduction(source, tuple(key), aggregates, totals)
        return node

    def as_reduction(self, node: int) -> Reduction | None:
        """What a node reduces, if it does."""
        return self._reduces.get(node)

    def _add(self, key: Hashable, json: dict[str, Any], inputs: Sequence[int], width: int) -> int:
        node = self._known.get(key)
        if node is None:
            node = self._known[key] = len(self.json)
            self.json.append(json)
            self.width.append(width)
            self.causes.append([])
            if not self._iterated.isdisjoint(inputs):
                self._iterated.add(node)
        return self._caused(node)

    def _caused(self, node: int) -> int:
        if self._rule is not None and self._rule not in self.causes[node]:
            self.causes[node].append(self._rule)
        return node


def _row_json(filters: Sequence[Expr], project: Sequence[Expr]) -> dict[str, Any]:
    return {"filter": [expr_json(e) for e in filters], "project": [expr_json(e) for e in project]}

"""What a server must contain, computed the slow and obvious way.

`Model` keeps the transacted rows of every input relation with the meaning that the protocol gives to inserts
and deletes, and asks the naive evaluator (`tests/oracle`) for everything that programs derive from them.
"""

from __future__ import annotations

import datetime
import random
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from dataflow_serve.values import Branch
from tests.oracle.evaluator import evaluate_texts

from .wire import Contents, Row

VALUES: dict[str, Sequence[Any]] = {
    "number": (-2, -1, 0, 1, 2, 3),
    "unsigned": (0, 1, 2, 5),
    "float": (-1.5, 0.0, 0.5, 2.0),
    "symbol": ("a", "b", "7", "no", "eight by", "longer than one word", "ünïcödé"),
    "bool": (False, True),
    "instant": (
        datetime.datetime(1969, 12, 31, 23, 59, 59, 999999, datetime.UTC),
        datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC),
        datetime.datetime(2026, 11, 23, 21, 0, 0, 500000, datetime.UTC),
        datetime.datetime(9999, 12, 31, 23, 59, 59, 999999, datetime.UTC),
    ),
    "uuid": (uuid.UUID(int=0), uuid.UUID(int=10), uuid.UUID("ffeeddcc-bbaa-9988-7766-554433221100")),
    "Pair": (None, (1, "a"), (2, "a"), (1, "longer than one word"), (2, "no")),
    "List": (None, (1, None), (2, (1, None)), (3, (2, (1, None)))),
    "Tree": (
        Branch("Empty"),
        Branch("Leaf", (1,)),
        Branch("Leaf", (2,)),
        Branch("Node", (Branch("Leaf", (1,)), Branch("Empty"))),
        Branch("Node", (Branch("Node", (Branch("Leaf", (2,)), Branch("Leaf", (1,)))), Branch("Empty"))),
    ),
    "bytes": (b"", b"\x00", b"\xff\xfe", b"longer than a word", b"longer than \xff"),
}
"""Few values, so that random rows meet; floats whose sums are exact in any order."""


@dataclass
class Input:
    """An input relation: its columns' types, its mode, the rows transacted into it."""

    types: tuple[str, ...]
    mode: str = "set"
    key: tuple[int, ...] = ()
    rows: Contents = field(default_factory=Counter)

    def delete(self, row: Row) -> None:
        if self.mode == "raw":
            self.rows[row] -= 1
        else:
            self.rows.pop(row, None)

    def insert(self, row: Row) -> None:
        if self.mode == "raw":
            self.rows[row] += 1
            return
        if self.mode == "upsert":
            for other in [r for r in self.rows if all(r[i] == row[i] for i in self.key)]:
                del self.rows[other]
        self.rows[row] = 1

    def random_row(self, rng: random.Random) -> Row:
        return tuple(rng.choice(VALUES[kind]) for kind in self.types)


class Model:
    """The programs registered and the rows transacted."""

    def __init__(self) -> None:
        self.programs: dict[str, str] = {}
        self.inputs: dict[str, Input] = {}
        self._derived: dict[str, Contents] | None = None

    def register(self, name: str, program: str, inputs: dict[str, Input]) -> None:
        self.programs[name] = program
        self.inputs.update(inputs)
        self._derived = None

    def unregister(self, name: str, relations: Iterable[str]) -> None:
        del self.programs[name]
        for relation in relations:
            self.inputs.pop(relation, None)
        self._derived = None

    def transact(self, changes: Iterable[dict[str, Any]]) -> None:
        """All deletes first, then the inserts in their order."""
        changes = list(changes)
        for change in changes:
            for row in change.get("delete", ()):
                self.inputs[change["relation"]].delete(tuple(row))
        for change in changes:
            for row in change.get("insert", ()):
                self.inputs[change["relation"]].insert(tuple(row))
        self._derived = None

    def contents(self, relation: str) -> Contents:
        """What `relation` must contain now, with the number of copies of each row."""
        if self._derived is None:
            rows = {name: list(each.rows.elements()) for name, each in self.inputs.items()}
            self._derived = evaluate_texts(list(self.programs.values()), rows)
        return self._derived[relation]


def random_changes(inputs: dict[str, Input], rng: random.Random, size: int) -> list[dict[str, Any]]:
    """A transaction of about `size` operations; deletes mostly take rows that are there."""
    changes: dict[str, dict[str, Any]] = {}
    deleted: Counter[tuple[str, Row]] = Counter()
    for _ in range(rng.randint(1, size)):
        name = rng.choice(sorted(inputs))
        relation = inputs[name]
        change = changes.setdefault(name, {"relation": name})
        present = sorted(+relation.rows, key=repr)
        row = rng.choice(present) if present and rng.random() < 0.4 else relation.random_row(rng)
        if rng.random() < 0.4:
            # A raw relation whose rows go below zero is the client's mistake, with no meaning to compare.
            deleted[name, row] += 1
            if relation.mode != "raw" or deleted[name, row] <= relation.rows[row]:
                change.setdefault("delete", []).append(list(row))
        else:
            change.setdefault("insert", []).append(list(row))
    return [change for change in changes.values() if len(change) > 1]

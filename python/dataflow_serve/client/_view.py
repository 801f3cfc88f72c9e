"""What a subscriber sees: steps, and the relation's contents that they add up to. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from dataflow_serve.protocol import Changes, Row

__all__ = ["Progress", "Step", "StepAssembler", "View"]


@dataclass(frozen=True)
class Step:
    """What changed in a relation up to and including ``time``, since the step before.

    Attributes:
        time: The logical time at which the relation has these changes.
        changes: Each changed row once, with how many copies were added (or removed, below zero).
        snapshot: The changes are the relation's whole contents.
        resync: They replace what was seen so far: the server could not go on where the subscription was.
    """

    time: int
    changes: list[tuple[Row, int]]
    snapshot: bool = False
    resync: bool = False

    @cached_property
    def added(self) -> list[Row]:
        """Rows that came, once a copy."""
        return [row for row, diff in self.changes for _ in range(diff)]

    @cached_property
    def removed(self) -> list[Row]:
        """Rows that went, once a copy."""
        return [row for row, diff in self.changes for _ in range(-diff)]


@dataclass(frozen=True)
class Progress:
    """Every change up to and including ``time`` has been seen, whether or not there was one."""

    time: int


class StepAssembler:
    """Puts the messages of a step together; a step is handed out whole or not at all."""

    def __init__(self) -> None:
        """Start between two steps."""
        self._parts: list[tuple[Row, int]] = []
        self._midway = False

    @property
    def midway(self) -> bool:
        """Whether a step has begun and not ended."""
        return self._midway

    def add(self, part: Changes) -> Step | None:
        """The step, if ``part`` is its last message."""
        if not self._midway:
            self._parts = part.changes
        else:
            self._parts.extend(part.changes)
        self._midway = part.more
        if part.more:
            return None
        changes, self._parts = self._parts, []
        return Step(part.time, changes, part.snapshot, part.resync)

    def discard(self) -> None:
        """Forget the begun step: its rest was lost with its connection."""
        self._parts = []
        self._midway = False


class View:
    """A relation's contents as a subscriber knows them: apply every step in order, read at any time."""

    def __init__(self) -> None:
        """Start empty, true for no time yet."""
        self._copies: dict[Row, int] = {}
        self.time: int | None = None

    def apply(self, step: Step | Progress) -> None:
        """Move on to the step's time."""
        if isinstance(step, Step):
            if step.snapshot or step.resync:
                self._copies = {}
            for row, diff in step.changes:
                copies = self._copies.get(row, 0) + diff
                if copies:
                    self._copies[row] = copies
                else:
                    del self._copies[row]
        self.time = step.time

    def copies(self, row: Row) -> int:
        """How often the row is there: 0 or 1, except in a ``raw`` relation."""
        return self._copies.get(row, 0)

    def rows(self) -> list[Row]:
        """The contents, a row once a copy, in no particular order."""
        return list(self)

    def __iter__(self) -> Iterator[Row]:
        """Go through the rows, once a copy."""
        for row, copies in self._copies.items():
            for _ in range(copies):
                yield row

    def __contains__(self, row: object) -> bool:
        """Whether the row is there."""
        return row in self._copies

    def __len__(self) -> int:
        """How many rows there are, copies counted."""
        return sum(self._copies.values())

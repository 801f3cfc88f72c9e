"""The workers as readers of sources see them, without an extension: rows are split by commas and kept."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from dataflow_serve.sources import Target


def target(*columns: str, name: str = "r", number: int = 1, mode: Any = "set") -> Target:
    """A relation of numbers."""
    typed = [{"name": column, "type": "number"} for column in columns]
    return Target.of({"id": number, "name": name, "columns": typed, "input": mode})


@dataclass
class Piece:
    consumed: int = 0
    lines: int = 0
    rows: int = 0
    bad_rows: int = 0
    bad: list[tuple[int, str | None, str]] = field(default_factory=list)


@dataclass
class Form:
    width: int
    skip: bool
    order: tuple[list[int], int] | None = None


class Feed:
    """Keeps rows; `room` says how many transactions it takes."""

    def __init__(self, worker: int) -> None:
        self.worker = worker
        self.rows: list[tuple[str, ...]] = []
        self.ended: tuple[str, str] | None = None
        self.room = 1 << 30
        self.closed = False

    @property
    def has_room(self) -> bool:
        return self.room > 0

    @property
    def progress(self) -> dict[str, int]:
        return {"applied": 0, "rows": len(self.rows), "time": 0, "position": 0, "held_bytes": 0}

    def csv(self, form: Form, data: bytes, last: bool) -> Piece | None:
        if not self.has_room:
            return None
        self.room -= 1
        piece = Piece()
        whole = data if last else data[: data.rfind(b"\n") + 1]
        for line in whole.splitlines(keepends=True):
            fields = line.decode().strip().split(",")
            width = form.order[1] if form.order else form.width
            if line.strip() and len(fields) != width:
                piece.bad_rows += 1
                piece.bad.append((piece.lines, None, f"{len(fields)} fields, expected {width}"))
                if not form.skip:
                    break
            elif line.strip():
                self.rows.append(tuple(fields[at] for at in form.order[0]) if form.order else tuple(fields))
                piece.rows += 1
            piece.consumed += len(line)
            piece.lines += line.count(b"\n")
        return piece

    def ndjson(self, form: Form, data: bytes, last: bool) -> Piece | None:
        piece = Piece()
        whole = data if last else data[: data.rfind(b"\n") + 1]
        for line in whole.splitlines(keepends=True):
            self.rows.append(tuple(json.loads(line)))
            piece.consumed += len(line)
            piece.lines += line.count(b"\n")
        return piece

    def close(self) -> None:
        self.closed = True


class Intake:
    def __init__(self, generation: int = 0) -> None:
        self.generation = generation
        self.feeds: list[Feed] = []

    def feed(self, limit_bytes: int) -> Feed:
        self.feeds.append(Feed(len(self.feeds)))
        return self.feeds[-1]

    def wait(self, seconds: float) -> None:
        raise AssertionError("a test takes turns by itself")

    def ring(self) -> None:
        pass


class Workers:
    """Also keeps what was posted for `status`."""

    def __init__(self) -> None:
        self.posted: dict[str, dict[str, Any]] = {}
        self.intakes: list[Intake] = []

    def intake(self, generation: int) -> Intake:
        self.intakes.append(Intake(generation))
        return self.intakes[-1]

    def csv(self, target: Target, delimiter: str, skip: bool, order: tuple[list[int], int] | None) -> Form:
        return Form(len(target.columns), skip, order)

    def first_record(self, data: bytes, delimiter: str, last: bool) -> tuple[list[str], int] | None:
        line, end, _ = data.partition(b"\n")
        return (line.decode().split(delimiter), len(line) + len(end)) if end or (last and line) else None

    def ndjson(self, target: Target, skip: bool) -> Form:
        return Form(len(target.columns), skip)

    def attach(self, name: str, source: str) -> None:
        raise AssertionError("nothing is configured")

    def detached(self, ticket: int, time: int, left: list[str]) -> None:
        raise AssertionError("nothing is detached")

    def post_source(self, name: str, report: str | None) -> None:
        if report is None:
            self.posted.pop(name, None)
        else:
            self.posted[name] = json.loads(report)

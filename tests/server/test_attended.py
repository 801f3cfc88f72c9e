"""The server of a batch run: one thread asks, attends to the workers and takes the rows."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dataflow_serve.client import FileSource, connect
from dataflow_serve.errors import (
    ConnectionClosed,
    DataflowError,
    IncorrectError,
    InterruptedQueryError,
    NotFoundError,
    RemoteProtocolError,
    UnsupportedError,
)
from dataflow_serve.protocol import Column
from dataflow_serve.server import AttendedServer

EDGE = (Column("x", "number"), Column("y", "number"))
PROGRAM = """
.decl edge(x: number, y: number)
.input edge
.decl path(x: number, y: number)
.output path
path(x, y) :- edge(x, y).
path(x, z) :- path(x, y), edge(y, z).
"""


def contents(server: AttendedServer, relation: str) -> list[Any]:
    rows: list[Any] = []
    server.fetch_undecoded(relation, lambda changes: rows.extend(msgspec.msgpack.decode(changes)))
    return sorted(tuple(row) for row, copies in rows for _ in range(copies))


@pytest.mark.parametrize("workers", [1, 2])
def test_rows_go_in_and_what_follows_from_them_comes_out(workers: int, tmp_path: Path) -> None:
    count = 60
    facts = tmp_path / "edge.facts"
    facts.write_text("".join(f"{n}\t{n + 1}\n" for n in range(count)))
    with AttendedServer(workers) as server:
        module = server.register(PROGRAM)
        assert [relation.name for relation in module.relations] == ["edge", "path"]
        # More transactions than are under way at once.
        source = FileSource(facts, EDGE, delimiter="\t", quoted=False, header=False)
        assert server.load(source, "edge", batch_rows=3).rows == count
        assert contents(server, "edge") == [(n, n + 1) for n in range(count)]
        expected = [(n, m) for n in range(count + 1) for m in range(n + 1, count + 1)]
        assert contents(server, "path") == expected
        # The program that comes later is planned for a catalog with the other one in it.
        server.register(".decl far(x: number)\n.output far\nfar(y) :- path(0, y), y > 58.")
        assert contents(server, "far") == [(59,), (60,)]


def test_what_is_refused_comes_out_and_the_server_goes_on(tmp_path: Path) -> None:
    facts = tmp_path / "edge.facts"
    facts.write_text("1\t2\nx\t3\n")
    with AttendedServer(1) as server:
        with pytest.raises(IncorrectError, match="line 1, column") as wrong:
            server.register("a(x) :- b(x).")
        assert wrong.value.line == 1
        with pytest.raises(NotFoundError, match="path"):
            server.fetch_undecoded("path", lambda changes: None)
        server.register(PROGRAM)
        with pytest.raises(IncorrectError, match="'x' is not a number"):
            source = FileSource(facts, EDGE, delimiter="\t", quoted=False, header=False)
            server.load(source, "edge", batch_rows=1)

        def unreadable(changes: bytes) -> None:
            raise ValueError("no rows")

        server.register(".decl one(x: number)\n.output one\none(1).")
        with pytest.raises(RemoteProtocolError, match="rows of another kind: no rows"):
            server.fetch_undecoded("one", unreadable)


def test_a_program_that_passes_a_limit_ends() -> None:
    with AttendedServer(1, query_iterations=10) as server:
        server.register(".decl n(x: number)\n.output n\nn(0).\nn(x + 1) :- n(x).")
        with pytest.raises(InterruptedQueryError):
            server.fetch_undecoded("n", lambda changes: None)


def test_a_server_that_others_end_is_noticed() -> None:
    with AttendedServer(1) as server:
        server.register(PROGRAM)
        outcome: list[DataflowError] = []
        stopped = others(server, lambda url: connect(url, reconnect=False).shutdown())
        with pytest.raises((ConnectionClosed, DataflowError)) as lost:
            while True:
                server.fetch_undecoded("path", lambda changes: None)
        outcome.append(lost.value)
        stopped.join()
    assert outcome


def test_others_may_ask_but_not_attach_sources(tmp_path: Path) -> None:
    answers: list[object] = []

    def ask(url: str) -> None:
        with connect(url) as db:
            answers.append(db.explain("path") is not None)
            try:
                db.attach("files", {"kind": "files", "path": os.fspath(tmp_path / "x"), "relation": "edge"})
            except UnsupportedError as error:
                answers.append(error.message)
            module = db.register(".decl z(x: number)\nz(1).")
            answers.append(db.unregister(module.name) > 0)

    with AttendedServer(1) as server:
        server.register(PROGRAM)
        asking = others(server, ask)
        while asking.is_alive():
            # Whoever uses it attends to the others, too.
            contents(server, "edge")
        asking.join()
    assert answers == [True, "sources in a batch run", True]


def others(server: AttendedServer, action: Callable[[str], object]) -> threading.Thread:
    """Another client, in a thread of its own."""
    host, port = server._cluster.address
    thread = threading.Thread(target=action, args=(f"df://{host}:{port}",))
    thread.start()
    return thread


def test_ctrl_c_ends_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt), AttendedServer(1) as server:

        def interrupted() -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(server, "_attend", interrupted)
        server.register(PROGRAM)
    assert server._cluster.join(0) is not None


def test_tunables_that_there_are_not_are_refused() -> None:
    with pytest.raises(IncorrectError, match="no_such_thing"):
        AttendedServer(1, no_such_thing=1)

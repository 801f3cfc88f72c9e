"""A server inside a program: the session of a script or a notebook."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

import dataflow_serve as ds

PROGRAM = """
.decl knows(x: symbol, y: symbol)
.input knows
.decl reach(x: symbol, y: symbol)
reach(x, y) :- knows(x, y).
reach(x, z) :- reach(x, y), knows(y, z).
.output reach
"""


def test_a_session_from_start_to_end() -> None:
    with ds.serve(workers=2) as db:
        db.register(PROGRAM)
        db.transact(knows=[("ann", "bob"), ("bob", "cid")])
        assert sorted(db["reach"].rows()) == [("ann", "bob"), ("ann", "cid"), ("bob", "cid")]
        with db["reach"].subscribe() as live:
            first = next(live)
            assert len(first.added) == 3
            db.transact(knows=[("cid", "dan")])
            assert sorted(next(live).added) == [("ann", "dan"), ("bob", "dan"), ("cid", "dan")]
        with ds.connect(db.url) as other:
            assert other.status()["clients"] == 2
        with pytest.raises(ds.IncorrectError) as error:
            db.register(".decl r(x: symbol)\nr(x) :- know(x, _).")
        assert (error.value.line, error.value.column) == (2, 9)
        port = db.port
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), 5).close()


def test_servers_stand_side_by_side() -> None:
    with ds.serve() as one, ds.serve() as two:
        assert one.port != two.port
        one.register(PROGRAM)
        with pytest.raises(ds.NotFoundError):
            two["reach"].rows()


def test_a_taken_port_is_the_callers_to_handle() -> None:
    with ds.serve() as db, pytest.raises(OSError, match="could not listen"):
        ds.serve(port=db.port)


def test_an_unknown_tunable_is_refused() -> None:
    with pytest.raises(ds.IncorrectError, match="park_mikros"):
        ds.serve(park_mikros=3)


def test_a_token_keeps_others_out() -> None:
    with ds.serve(token="a secret of ours") as db:
        db.register(PROGRAM)
        with pytest.raises(ds.ForbiddenError, match="wants a token"):
            ds.connect(db.url)
        with ds.connect(db.url, token="a secret of ours") as other:
            assert other["reach"].rows() == []


def test_others_are_not_let_in_unasked() -> None:
    with pytest.raises(ds.IncorrectError, match="reached from other machines"):
        ds.serve(host="0.0.0.0")
    ds.serve(host="0.0.0.0", insecure=True).close()


def test_closing_ends_the_threads() -> None:
    before = threading.active_count()
    ds.serve().close()
    assert threading.active_count() == before


def test_a_file_is_read_for_a_program_that_has_a_server(tmp_path: Path) -> None:
    people = tmp_path / "people.csv"
    people.write_text("x,y\nann,bob\n", encoding="utf-8")
    with ds.serve() as db:
        db.register(PROGRAM)
        with db["knows"].subscribe() as live:
            rows = set(next(live).added)
            db.attach("people", {"kind": "files", "path": str(people), "relation": "knows"})
            while rows != {("ann", "bob")}:
                rows |= set(next(live).added)
        with pytest.raises(ds.ConflictError, match="process 0 has one of that name"):
            db.attach("people", {"kind": "files", "path": "x", "relation": "knows"})
        assert not db.detach("people").left
        assert db.status()["sources"] == []

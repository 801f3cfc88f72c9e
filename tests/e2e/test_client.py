"""The package's own clients against a real cluster: trio over TCP and WebSocket, blocking, embedded."""

from __future__ import annotations

import datetime
import uuid
from collections import Counter

import pytest
import trio

import dataflow_serve as ds
from dataflow_serve.client import View

from .cluster import Cluster

PROGRAM = """
    .decl knows(x: symbol, y: symbol)
    .input knows
    .decl reach(x: symbol, y: symbol)
    reach(x, y) :- knows(x, y).
    reach(x, z) :- reach(x, y), knows(y, z).
    .output reach
"""


def url(cluster: Cluster, scheme: str, process: int = -1) -> str:
    host, port = cluster.addresses[process]
    return f"{scheme}://{host}:{port}"


@pytest.mark.parametrize("scheme", ["df", "ws"])
def test_trio_client(cluster: Cluster, scheme: str) -> None:
    async def session() -> None:
        async with ds.open_client(url(cluster, scheme)) as db, ds.open_client(url(cluster, "df", 0)) as other:
            await db.register(PROGRAM, "people")
            async with other["reach"].subscribe() as steps:
                view = View()
                view.apply(await steps.receive())
                assert view.rows() == []
                done = await db.transact(knows=[("ann", "bob"), ("bob", "cid")])
                while (view.time or 0) < done.time:
                    view.apply(await steps.receive())
                assert Counter(view.rows()) == Counter([("ann", "bob"), ("bob", "cid"), ("ann", "cid")])
            assert Counter(await other["reach"].rows(where={"x": "ann"})) == Counter(
                [("ann", "bob"), ("ann", "cid")]
            )
            await db.transact(delete={"knows": [("bob", "cid")]})
            assert await other["reach"].rows() == [("ann", "bob")]
            with pytest.raises(ds.IncorrectError, match=r"pearson.*line 1, column 28"):
                await db.register(".decl r(x: symbol)\nr(x) :- pearson(x).".replace("\n", " "))
            with pytest.raises(ds.NotFoundError):
                await db["nope"].rows()

    trio.run(session)


STAMPED = """
    .decl seen(at: instant, by: uuid, what: bytes)
    .input seen
    .decl last(by: uuid, at: instant)
    last(u, t) :- seen(_, u, _), t = max x : { seen(x, u, _) }.
    .output last
"""


@pytest.mark.parametrize("scheme", ["df", "ws"])
def test_python_values_go_in_and_come_out(cluster: Cluster, scheme: str) -> None:
    one, two = uuid.UUID(int=1), uuid.uuid4()
    early = datetime.datetime(2026, 11, 23, 22, tzinfo=datetime.timezone(datetime.timedelta(hours=1)))
    late = datetime.datetime(2026, 11, 23, 21, 0, 0, 1, datetime.UTC)
    rows = [(early, one, b"\x00\xff"), (late, one, b""), (late, two, b"a good deal longer")]

    async def session() -> None:
        async with ds.open_client(url(cluster, scheme)) as db:
            await db.register(STAMPED, "stamped")
            done = await db.transact(seen=rows)
            assert Counter(await db["seen"].rows()) == Counter(rows)
            assert Counter(await db["last"].rows()) == Counter([(one, late), (two, late)])
            assert await db["seen"].rows(where={"at": early, "what": b"\x00\xff"}) == rows[:1]
            assert await db["seen"].rows(where={"by": two}) == rows[2:]
            async with db["last"].subscribe() as steps:
                assert dict((await steps.receive()).changes) == {(one, late): 1, (two, late): 1}
                done = await db.transact(delete={"seen": rows[1:2]})
                step = await steps.receive()
                assert (step.time, dict(step.changes)) == (done.time, {(one, late): -1, (one, early): 1})
            with pytest.raises(ds.IncorrectError, match=r"row 0: .* does not fit column `at` \(instant\)"):
                await db.transact(seen=[("2026-11-23", one, b"")])

    trio.run(session)


@pytest.mark.parametrize("scheme", ["df", "ws"])
def test_pipelined_transactions(cluster: Cluster, scheme: str) -> None:
    async def session() -> None:
        async with ds.open_client(url(cluster, scheme)) as db:
            await db.register(PROGRAM, "people")
            pending = [await db.transact(knows=[(str(k), str(k + 1))], wait=False) for k in range(100)]
            times = [(await each.result()).time for each in pending]
            assert times == sorted(times)
            assert len(await db["knows"].rows()) == 100

    trio.run(session)


def test_blocking_client(cluster: Cluster) -> None:
    with ds.connect(url(cluster, "df")) as db:
        db.register(PROGRAM, "people")
        db.transact(knows=[("ann", "bob")])
        with db["reach"].subscribe() as live:
            first = next(iter(live))
            assert (first.added, first.removed, first.snapshot) == ([("ann", "bob")], [], True)
            db.transact(knows=[("bob", "cid")], delete={"knows": [("ann", "bob")]})
            step = next(iter(live))
            assert (step.added, step.removed) == ([("bob", "cid")], [("ann", "bob")])
        assert db["reach"].rows() == [("bob", "cid")]
        db.load([(str(k), str(k + 1)) for k in range(2000)], into="knows", batch_rows=100)
        assert len(db.read("knows")) == 2001
        db.unregister("people")


@pytest.mark.parametrize("workers", [1, 2])
def test_embedded_server(workers: int) -> None:
    with ds.serve(workers=workers) as db:
        db.register(PROGRAM)
        db.transact(knows=[("ann", "bob"), ("bob", "ann")])
        assert Counter(db["reach"].rows()) == Counter(
            [(x, y) for x in ("ann", "bob") for y in ("ann", "bob")]
        )


def test_a_killed_server_is_noticed_and_a_new_one_found() -> None:
    """The view after a reconnection equals a fresh read, whatever the new server holds."""
    first = Cluster(1, 2)
    host, port = first.addresses[0]

    async def session() -> None:
        async with ds.open_client(f"df://{host}:{port}") as db:
            await db.register(PROGRAM, "people")
            await db.transact(knows=[("ann", "bob")])
            async with db["knows"].subscribe() as steps:
                view = View()
                view.apply(await steps.receive())
                first.kill()
                second = Cluster(1, 1, "--listen", f"{host}:{port}")
                try:
                    await db.wait_connected()
                    with trio.fail_after(30):
                        while True:
                            try:
                                await db.register(PROGRAM, "people")
                                break
                            except (ds.UnavailableError, ds.ConnectionClosed):
                                await db.wait_connected()
                    await db.transact(knows=[("new", "row")])
                    assert await db["knows"].rows() == [("new", "row")]
                finally:
                    second.kill()

    trio.run(session)


def test_rules_made_in_python(cluster: Cluster) -> None:
    x, y, z, n = ds.vars("x y z n")
    knows = ds.rel("knows", x=str, y=str).input()
    reach, fame = ds.rel("reach", x=str, y=str), ds.rel("fame", y=str, n=int)
    with ds.connect(url(cluster, "df")) as db:
        db.rules(
            knows,
            ds.rule(reach(x, y), knows(x, y)),
            ds.rule(reach(x, z), reach(x, y), knows(y, z)),
            name="people",
        )
        db.rule(fame(y, n), db.rel("reach")(ds._, y), n == ds.count(reach(ds._, y)), name="fame")
        db.transact(knows=[("ann", "bob"), ("bob", "cid")])
        assert Counter(db["fame"].rows()) == Counter([("bob", 1), ("cid", 2)])
        with pytest.raises(ds.IncorrectError, match=r'no relation "reech".*did you mean "reach"'):
            db.rule(ds.rel("r", x=str)(x), ds.rel("reech")(x, ds._))

    async def session() -> None:
        async with ds.open_client(url(cluster, "df")) as db:
            await db.rule(ds.rel("alone", x=str)(x), knows(x, ds._), ~reach(ds._, x), name="alone")
            assert await db["alone"].rows() == [("ann",)]

    trio.run(session)


BEST = ".decl score(name: symbol, points: number) .input score"


@pytest.mark.parametrize("scheme", ["df", "ws"])
def test_the_first_rows_in_an_order(cluster: Cluster, scheme: str) -> None:
    with ds.connect(url(cluster, scheme)) as db:
        db.register(BEST, "best")
        db.transact(score=[("ann", 3), ("bob", 5), ("a longer name", 5), ("cat", 1)])
        score = db["score"]
        assert score.rows(order="-points") == [("a longer name", 5), ("bob", 5), ("ann", 3), ("cat", 1)]
        assert db.read("score", order=["points", "-name"], limit=2).rows == [("cat", 1), ("ann", 3)]
        with score.subscribe(order=["-points", "name"], limit=2) as live:
            assert sorted(next(iter(live)).added) == [("a longer name", 5), ("bob", 5)]
            db.transact(score=[("dan", 4)])
            db.transact(delete={"score": [("bob", 5)]})
            step = next(iter(live))
            assert (step.removed, step.added) == ([("bob", 5)], [("dan", 4)])
        with pytest.raises(ds.IncorrectError, match=r"unknown column `point`.*did you mean `points`"):
            score.rows(order="point")

"""The trio client: requests, pipelining, cancellation, and life after a lost connection."""

import datetime
import gc
import logging
import weakref
from typing import Any

import pytest
import trio
import trio.testing

import dataflow_serve as ds
from dataflow_serve.client import LoadProgress, Pending, open_client, open_client_on
from dataflow_serve.client._session import Session
from dataflow_serve.client._trio import _running
from dataflow_serve.errors import (
    ConnectionClosed,
    FaultError,
    ForbiddenError,
    IncorrectError,
    LocalProtocolError,
    TooLargeError,
    UnavailableError,
)
from dataflow_serve.protocol import (
    Advance,
    Advanced,
    Cancel,
    Cancelled,
    Change,
    Changes,
    Column,
    ErrorBody,
    Explain,
    Failure,
    Hello,
    Module,
    Ping,
    Plan,
    Pong,
    Read,
    Register,
    RelationInfo,
    ReplyBody,
    Request,
    Rows,
    Shutdown,
    Status,
    StatusReport,
    Stopping,
    Subscribe,
    Subscribed,
    Transact,
    Transacted,
    Tunables,
    Tune,
    Unregister,
    Unregistered,
    Unsubscribe,
)
from tests.unit.scripted_server import KNOWS, Network, opened

NOON = datetime.datetime(2026, 11, 25, 12, tzinfo=datetime.UTC)


async def test_hello_opens_the_conversation() -> None:
    network = Network(trio.testing.memory_stream_pair)
    session = Session("df://scripted", network.dial, "secret", False, float("inf"))
    greetings: list[Hello] = []

    async def greet() -> None:
        greetings.append(await (await network.pick_up()).hello())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(greet)
        async with _running(session) as client:
            assert client.info.workers == 2
            assert client.connected
    assert greetings == [Hello(version=1, token="secret")]


async def test_every_request_gets_its_answer() -> None:
    module = Module("m", (RelationInfo("knows", "input", KNOWS),), 11)
    rows = Rows(KNOWS, [("ann", "bob")], 12)
    async with opened() as (db, server, _), trio.open_nursery() as nursery:

        async def script() -> None:
            dialogue: list[tuple[Request, ReplyBody]] = [
                (Register("text", "m"), module),
                (Read("knows", where={"x": "ann"}, limit=3), rows),
                (Read("knows", limit=3, order=["-x", "y"]), rows),
                (Explain("knows"), Plan({"get": 1})),
                (Explain("knows", True), Plan({"get": 2})),
                (Advance(NOON), Advanced(13)),
                (Status(), StatusReport({"workers": 2})),
                (Tune({"park_ms": 1}), Tunables({"park_ms": 1})),
                (Ping(), Pong(13)),
                (Unregister("m"), Unregistered(14)),
                (Register("text", None, {"rows": 7}), module),
                (Cancel("m"), Cancelled("m", ("m",), 3, 15, "knows")),
                (Shutdown(), Stopping()),
            ]
            for request, answer in dialogue:
                assert await server.expect(type(request)) == request
                await server.reply(answer)

        nursery.start_soon(script)
        assert await db.register("text", "m") == module
        assert await db.read("knows", where={"x": "ann"}, limit=3) == rows
        assert await db["knows"].contents(order=["-x", "y"], limit=3) == rows
        assert await db.explain("knows") == {"get": 1}
        assert await db.explain("knows", analyze=True) == {"get": 2}
        assert await db.advance(NOON) == 13
        assert await db.status() == {"workers": 2}
        assert await db.tune(park_ms=1) == {"park_ms": 1}
        assert await db.ping() == 13
        assert await db.unregister("m") == 14
        assert await db.register("text", limits={"rows": 7}) == module
        assert (await db.cancel("m")).iteration == 3
        await db.shutdown()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"knows": [("ann", "bob")]}, Transact([Change("knows", insert=[["ann", "bob"]])], wait="visible")),
        (
            {"knows": iter([["a", "b"]]), "wait": "sequenced"},
            Transact([Change("knows", insert=[["a", "b"]])]),
        ),
        (
            {"delete": {"knows": [("a", "b")]}, "knows": [], "key": "k"},
            Transact(
                [Change("knows", delete=[["a", "b"]]), Change("knows", insert=[])], key="k", wait="visible"
            ),
        ),
        ({}, Transact([], wait="visible")),
    ],
)
async def test_transactions_are_written_as_keywords(arguments: dict[str, Any], expected: Transact) -> None:
    async with opened() as (db, server, _), trio.open_nursery() as nursery:

        async def script() -> None:
            assert await server.expect(Transact) == expected
            await server.reply(Transacted(20))

        nursery.start_soon(script)
        assert await db.transact(**arguments) == Transacted(20)


async def test_relations_with_any_name_can_be_changed() -> None:
    async with opened() as (db, server, _), trio.open_nursery() as nursery:

        async def script() -> None:
            request = await server.expect(Transact)
            assert [change.relation for change in request.changes] == ["key", "wait"]
            await server.reply(Transacted(20))

        nursery.start_soon(script)
        await db.transact({"key": [(1,)], "wait": [(2,)]})


@pytest.mark.parametrize("rows", ["ann", ["ann"], [1], [{"x": "ann"}]])
async def test_what_is_no_row_is_found_before_anything_is_sent(rows: Any) -> None:
    async with opened() as (db, _, _):
        with pytest.raises(LocalProtocolError, match="cannot change knows"):
            await db.transact(knows=rows)


async def test_a_refusal_reaches_its_caller_only() -> None:
    async with opened() as (db, server, _), trio.open_nursery() as nursery:

        async def script() -> None:
            await server.expect(Register)
            await server.send(Failure(server.last_id, ErrorBody("incorrect", "no rule", at=(2, 7))))
            await server.expect(Ping)
            await server.reply(Pong(1))

        nursery.start_soon(script)
        with pytest.raises(IncorrectError, match="line 2, column 7"):
            await db.register("text")
        assert await db.ping() == 1


async def test_pipelined_transactions_are_sent_without_waiting() -> None:
    async with opened() as (db, server, _):
        pendings: list[Pending[Transacted]] = [
            await db.transact(knows=[("a", str(n))], wait=False) for n in range(3)
        ]
        assert not any(pending.done for pending in pendings)
        ids = []
        for n in range(3):
            request = await server.expect(Transact)
            assert request == Transact([Change("knows", insert=[["a", str(n)]])])
            ids.append(server.last_id)
        for n, number in reversed(list(enumerate(ids))):
            await server.reply(Transacted(20 + n), to=number)
        assert [(await pending.result()).time for pending in pendings] == [20, 21, 22]


async def test_leaving_the_block_waits_for_pipelined_transactions(caplog: pytest.LogCaptureFixture) -> None:
    order = []
    async with trio.open_nursery() as nursery:
        async with opened() as (db, server, _):
            await db.transact(knows=[("a", "b")], wait=False)

            async def script() -> None:
                await server.expect(Transact)
                await trio.testing.wait_all_tasks_blocked()
                order.append("answered")
                await server.refuse("busy", "too much")

            nursery.start_soon(script)
        order.append("left")
    assert order == ["answered", "left"]
    assert "nobody asked: too much" in caplog.text


async def test_the_outbox_holds_senders_back() -> None:
    async with opened(pair=trio.testing.lockstep_stream_pair) as (db, server, _):
        sent = 0
        row = ("x" * 100_000, "y")

        async def produce(*, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
            nonlocal sent
            with trio.CancelScope() as scope:
                task_status.started(scope)
                while True:
                    await db.transact(knows=[row], wait=False)
                    sent += 1

        async with trio.open_nursery() as nursery:
            scope = await nursery.start(produce)
            await trio.testing.wait_all_tasks_blocked()
            assert 10 <= sent <= 30
            held = sent
            for _ in range(5):
                await server.expect(Transact)
            await trio.testing.wait_all_tasks_blocked()
            assert sent > held
            scope.cancel()
            db._session._pipelined.clear()


async def test_a_cancelled_call_leaves_the_connection_usable() -> None:
    async with opened() as (db, server, _), trio.open_nursery() as nursery:
        with trio.move_on_after(0):
            await db.ping()
        with trio.CancelScope() as scope:

            async def give_up() -> None:
                await server.expect(Read)
                scope.cancel()

            nursery.start_soon(give_up)
            await db.read("knows")
        assert scope.cancelled_caught

        async def script() -> None:
            await server.reply(Rows(KNOWS, [], 3))
            await server.expect(Ping)
            await server.reply(Pong(4))

        nursery.start_soon(script)
        assert await db.ping() == 4


async def test_errors_of_the_block_come_out_as_they_are() -> None:
    with pytest.raises(KeyError, match="mine"):
        async with opened() as (_, _, _):
            raise KeyError("mine")


async def test_a_server_that_breaks_the_protocol_loses_the_connection() -> None:
    async with opened(reconnect=True) as (db, server, _), trio.open_nursery() as nursery:

        async def script() -> None:
            await server.expect(Ping)
            await server.reply(Pong(1), to=99)
            await server.expect_hangup()

        nursery.start_soon(script)
        with pytest.raises(ConnectionClosed, match="answered request 99, which nobody made"):
            await db.ping()
        with pytest.raises(ConnectionClosed, match="is closed"):
            await db.wait_connected()


async def test_the_servers_parting_words_reach_the_caller() -> None:
    async with opened() as (db, server, _), trio.open_nursery() as nursery:

        async def script() -> None:
            await server.expect(Transact)
            await server.send(Failure(None, ErrorBody("too-large", "a message of 17 MB")))
            await server.stream.aclose()

        nursery.start_soon(script)
        with pytest.raises(TooLargeError, match="17 MB"):
            await db.transact(knows=[("a", "b")])


async def test_a_lost_connection_fails_what_waits_on_it() -> None:
    async with opened() as (db, server, _), trio.open_nursery() as nursery:

        async def hang_up() -> None:
            await server.expect(Transact)
            await server.stream.aclose()

        nursery.start_soon(hang_up)
        with pytest.raises(ConnectionClosed, match="whether it took effect is unknown") as caught:
            await db.transact(knows=[("a", "b")])
        assert caught.value.retry
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ConnectionClosed, match="the server closed the connection"):
            await db.ping()


async def test_a_lost_connection_is_made_again(
    caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    async with opened(reconnect=True) as (db, server, network), trio.open_nursery() as nursery:
        await server.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(UnavailableError, match="connecting again") as caught:
            await db.ping()
        assert caught.value.retry
        again = await network.pick_up()
        assert not db.connected
        await again.hello("h2")
        await db.wait_connected()
        assert db.info.history == "h2"

        async def script() -> None:
            await again.expect(Ping)
            await again.reply(Pong(1))

        nursery.start_soon(script)
        assert await db.ping() == 1
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "lost df://scripted (the server closed the connection); connecting again" in caplog.text


async def test_attempts_to_connect_thin_out_and_are_told_of(
    caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    async with opened(reconnect=True) as (db, server, network):
        network.refuses = True
        await server.stream.aclose()
        await trio.sleep(301)
        assert 8 <= caplog.text.count("still not connected: nobody there") <= 10
        network.refuses = False
        await (await network.pick_up()).hello()
        await db.wait_connected()


async def test_a_server_that_refuses_the_token_is_not_asked_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with opened(reconnect=True) as (db, server, network):
        await server.stream.aclose()
        again = await network.pick_up()
        await again.expect(Hello)
        await again.refuse("forbidden", "wrong token")
        with pytest.raises(ConnectionClosed, match="wrong token"):
            await db.wait_connected()


async def test_a_transaction_with_a_key_settles_itself(autojump_clock: trio.testing.MockClock) -> None:
    async with opened(reconnect=True) as (db, server, network), trio.open_nursery() as nursery:

        async def script() -> None:
            first = await server.expect(Transact)
            await server.stream.aclose()
            again = await network.pick_up()
            await again.hello()
            assert await again.expect(Transact) == first
            await again.reply(Transacted(20, deduplicated=True))

        nursery.start_soon(script)
        assert await db.transact(knows=[("a", "b")], key="once") == Transacted(20, deduplicated=True)


async def test_a_silent_server_is_noticed_within_the_ping_interval(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with opened(ping_interval=30) as (db, _server, _):
        start = trio.current_time()
        with pytest.raises(ConnectionClosed, match="silent for 30 s"):
            await db.read("knows")
        assert trio.current_time() - start <= 30


async def test_a_server_that_answers_pings_stays(autojump_clock: trio.testing.MockClock) -> None:
    async with opened(ping_interval=30) as (db, server, _), trio.open_nursery() as nursery:

        async def script() -> None:
            for _ in range(20):
                await server.expect(Ping)
                await server.reply(Pong(1))
            assert db.connected
            assert trio.current_time() < 1000

        nursery.start_soon(script)


async def test_nobody_at_the_address_is_an_error_of_its_own() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    await listeners[0].aclose()
    with pytest.raises(
        UnavailableError, match=f"cannot reach a server at df://127.0.0.1:{port}: connection refused"
    ):
        async with open_client(f"df://127.0.0.1:{port}"):
            raise AssertionError("there is no server")


@pytest.mark.parametrize("url", ["http://host", "host:6262", "", "df://host:port"])
async def test_an_address_must_be_one(url: str) -> None:
    with pytest.raises(LocalProtocolError, match="cannot connect to"):
        async with open_client(url):
            raise AssertionError("there is no server")


async def test_an_attempt_to_connect_has_an_end(autojump_clock: trio.testing.MockClock) -> None:
    ours, _theirs = trio.testing.memory_stream_pair()
    with pytest.raises(UnavailableError, match="gave no answer in 10 s"):
        async with open_client_on(ours):
            raise AssertionError("there is no server")


async def test_a_refused_hello_comes_out_of_open_client() -> None:
    network = Network(trio.testing.memory_stream_pair)
    session = Session("df://scripted", network.dial, None, True, float("inf"))

    async def refuse() -> None:
        server = await network.pick_up()
        await server.expect(Hello)
        await server.refuse("forbidden", "a token is needed")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(refuse)
        with pytest.raises(ForbiddenError, match="a token is needed"):
            async with _running(session):
                raise AssertionError("not open")


async def test_a_closed_client_says_so() -> None:
    async with opened() as (db, _, _):
        await db.aclose()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ConnectionClosed, match="closed by this program"):
            await db.ping()


async def test_all_rows_come_in_parts_where_one_answer_is_too_small() -> None:
    async with opened() as (db, server, _), trio.open_nursery() as nursery:

        async def script() -> None:
            await server.expect(Read)
            await server.refuse("too-large", "20 MB")
            await server.expect(Subscribe)
            await server.reply(Subscribed(1, KNOWS, 10, "h1"))
            await server.send(
                Changes(1, 10, [(("a", "b"), 1)], snapshot=True, more=True),
                Changes(1, 10, [(("c", "d"), 1)], snapshot=True),
            )
            await server.expect(Unsubscribe)

        nursery.start_soon(script)
        contents = await db["knows"].contents()
        assert contents == Rows(KNOWS, [("a", "b"), ("c", "d")], 10)


async def test_all_rows_in_an_order_are_sorted_here_where_they_come_in_parts() -> None:
    async with opened() as (db, server, _), trio.open_nursery() as nursery:

        async def script() -> None:
            assert await server.expect(Read) == Read("knows", order=["-y"])
            await server.refuse("too-large", "20 MB")
            await server.expect(Subscribe)
            await server.reply(Subscribed(1, KNOWS, 10, "h1"))
            changes = [((x, y), 1) for x, y in ("ab", "cd", "ad")]
            await server.send(Changes(1, 10, changes, snapshot=True))
            await server.expect(Unsubscribe)

        nursery.start_soon(script)
        assert await db["knows"].rows(order="-y") == [("a", "d"), ("c", "d"), ("a", "b")]


async def test_the_first_rows_are_asked_for_by_columns_or_variables() -> None:
    x, y = ds.vars("x y")
    async with opened() as (db, server, _), trio.open_nursery() as nursery:

        async def script() -> None:
            asked = await server.expect(Subscribe)
            assert (asked.order, asked.limit) == (["-x", "y"], 2)
            await server.reply(Subscribed(1, KNOWS, 10, "h1"))
            await server.send(Changes(1, 10, [(("a", "b"), 1)], snapshot=True))
            await server.expect(Unsubscribe)

        nursery.start_soon(script)
        async with db[ds.rel("knows")].subscribe(order=[-x, y], limit=2) as steps:
            assert (await steps.receive()).added == [("a", "b")]
    with pytest.raises(LocalProtocolError, match="isn't a column"):
        db["knows"].subscribe(order=[x + y], limit=2)


async def test_handles_name_their_relation() -> None:
    async with opened() as (db, server, _), trio.open_nursery() as nursery:

        async def script() -> None:
            assert await server.expect(Read) == Read("knows", where={"x": "a"})
            await server.reply(Rows(KNOWS, [("a", "b")], 3))
            assert (await server.expect(Transact)).changes == [Change("knows", insert=[["a", "b"]])]
            await server.reply(Transacted(4))
            assert (await server.expect(Transact)).changes == [Change("knows", delete=[["a", "b"]])]
            await server.reply(Transacted(5))

        nursery.start_soon(script)
        assert await db["knows"].rows({"x": "a"}) == [("a", "b")]
        assert (await db["knows"].insert([("a", "b")])).time == 4
        assert (await db["knows"].delete([("a", "b")])).time == 5
        assert repr(db["knows"]) == "<Relation 'knows' of df://scripted>"


async def test_loading_sends_batches_and_waits_for_the_last() -> None:
    async with opened() as (db, server, _), trio.open_nursery() as nursery:

        async def script() -> None:
            assert await server.expect(Read) == Read("n", limit=0)
            await server.reply(Rows((Column("n", "number"),), [], 3))
            sizes, waits = [], []
            for time in range(3):
                request = await server.expect(Transact)
                sizes.append(len(request.changes[0].insert or []))
                waits.append(request.wait)
                await server.reply(Transacted(10 + time))
            assert (sizes, waits) == ([10, 10, 5], [None, None, "visible"])

        nursery.start_soon(script)
        seen: list[LoadProgress] = []
        loaded = await db.load(((n,) for n in range(25)), "n", batch_rows=10, on_batch=seen.append)
        assert (loaded.rows, loaded.time) == (25, 12)
        assert [progress.rows for progress in seen] == [10, 20, 25]


async def test_a_batch_that_is_refused_ends_the_load() -> None:
    async with opened() as (db, server, _), trio.open_nursery() as nursery:

        async def script() -> None:
            await server.expect(Read)
            await server.reply(Rows((Column("n", "number"),), [], 3))
            await server.expect(Transact)
            await server.refuse("fault", "broken")

        nursery.start_soon(script)
        with pytest.raises(FaultError, match="broken"):
            await db.load([(1,)], "n")


async def test_a_client_that_is_done_is_forgotten() -> None:
    async with opened() as (db, _, _):
        watched = weakref.ref(db)
    del db, _
    await trio.testing.wait_all_tasks_blocked()
    gc.collect()
    assert watched() is None


async def test_misuse_found_by_the_core_is_not_a_lost_connection() -> None:
    async with opened() as (db, server, _), trio.open_nursery() as nursery:
        with pytest.raises(LocalProtocolError, match="cannot encode"):
            await db.read("knows", where={"x": object()})

        async def script() -> None:
            await server.expect(Ping)
            await server.reply(Pong(1))

        nursery.start_soon(script)
        await db.ping()

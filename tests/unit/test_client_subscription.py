"""Subscriptions: exact steps whatever happens to the connection, bounded memory, safe to cancel."""

from typing import Any

import pytest
import trio
import trio.testing

from dataflow_serve.client import Client, Progress, Step, View
from dataflow_serve.client._subscription import BUFFERED_CHANGES
from dataflow_serve.errors import (
    BusyError,
    ConnectionClosed,
    InterruptedQueryError,
    LocalProtocolError,
    NotFoundError,
)
from dataflow_serve.protocol import (
    Changes,
    Ended,
    ErrorBody,
    Ping,
    Pong,
    Reached,
    Row,
    Subscribe,
    Subscribed,
    Unsubscribe,
    Unsubscribed,
)
from tests.unit.scripted_server import KNOWS, ScriptedServer, opened

AB, CD, EF = ("a", "b"), ("c", "d"), ("e", "f")


def changes(time: int, *rows: Row, diff: int = 1, sub: int = 1, **flags: bool) -> Changes:
    return Changes(sub, time, [(row, diff) for row in rows], **flags)


async def test_snapshot_and_steps_add_up() -> None:
    async with opened() as (db, server, _), trio.open_nursery() as nursery:

        async def script() -> None:
            assert await server.subscription() == Subscribe("knows")
            await server.send(
                changes(10, AB, snapshot=True, more=True),
                changes(10, CD, snapshot=True),
                changes(12, EF),
                changes(13, AB, diff=-1),
            )

        nursery.start_soon(script)
        async with db["knows"].subscribe() as steps:
            assert steps.columns == KNOWS
            assert steps.time == 10
            view = View()
            assert await anext(steps) == Step(10, [(AB, 1), (CD, 1)], snapshot=True)
            async for step in steps:
                view.apply(step)
                if step.time == 13:
                    break
            assert step == Step(13, [(AB, -1)])
            assert steps.time == 13


async def test_the_wishes_of_a_subscriber_reach_the_server() -> None:
    async with opened() as (db, server, _), trio.open_nursery() as nursery:
        requests: list[Subscribe] = []

        async def script() -> None:
            requests.append(await server.subscription())

        nursery.start_soon(script)
        subscription = db.subscribe(
            "knows", snapshot=False, progress=True, where={"x": "a"}, since=4, history="h0"
        )
        async with subscription:
            pass
        assert requests == [Subscribe("knows", False, True, {"x": "a"}, 4, "h0")]
        with pytest.raises(LocalProtocolError, match="`since` and `history`"):
            db.subscribe("knows", since=4)
        with pytest.raises(LocalProtocolError, match="once only"):
            async with subscription:
                pass


async def test_progress_is_told_to_those_who_asked() -> None:
    async with opened() as (db, server, _), trio.open_nursery() as nursery:

        async def script() -> None:
            await server.subscription()
            await server.send(changes(10, snapshot=True), Reached(1, 11), changes(12, AB), Reached(1, 12))

        nursery.start_soon(script)
        async with db.subscribe("knows", progress=True) as items:
            seen = [await items.receive() for _ in range(4)]
        assert seen == [Step(10, [], snapshot=True), Progress(11), Step(12, [(AB, 1)]), Progress(12)]


async def test_a_relation_that_does_not_exist() -> None:
    async with opened() as (db, server, _), trio.open_nursery() as nursery:

        async def script() -> None:
            await server.expect(Subscribe)
            await server.refuse("not-found", "no relation knows")

        nursery.start_soon(script)
        with pytest.raises(NotFoundError, match="no relation knows"):
            async with db["knows"].subscribe():
                raise AssertionError("not subscribed")
        assert not db._session._subscriptions


async def test_leaving_unsubscribes_even_when_cancelled() -> None:
    async with opened() as (db, server, _), trio.open_nursery() as nursery:
        nursery.start_soon(server.subscription)
        with trio.CancelScope() as scope:
            async with db["knows"].subscribe() as steps:
                scope.cancel()
                await steps.receive()
        assert await server.expect(Unsubscribe) == Unsubscribe(1)
        await server.send(changes(11, AB))
        await server.reply(Unsubscribed(12))
        await trio.testing.wait_all_tasks_blocked()
        assert db.connected


async def test_cancelling_the_entry_leaves_nothing_subscribed() -> None:
    async with opened() as (db, server, _), trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:

            async def script() -> None:
                await server.expect(Subscribe)
                scope.cancel()

            nursery.start_soon(script)
            async with db["knows"].subscribe():
                raise AssertionError("not subscribed")
        await server.reply(Subscribed(1, KNOWS, 10, "h1"))
        await server.send(changes(10, AB, snapshot=True))
        assert await server.expect(Unsubscribe) == Unsubscribe(1)


async def test_cancelling_a_wait_loses_nothing() -> None:
    async with opened() as (db, server, _), trio.open_nursery() as nursery:
        nursery.start_soon(server.subscription)
        async with db["knows"].subscribe() as steps:
            await server.send(changes(10, AB, snapshot=True, more=True))
            await trio.testing.wait_all_tasks_blocked()
            with trio.CancelScope() as scope:
                scope.cancel()
                await steps.receive()
            with trio.CancelScope() as scope:

                async def interrupt() -> None:
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()

                nursery.start_soon(interrupt)
                await steps.receive()
            assert scope.cancelled_caught
            await server.send(changes(10, CD, snapshot=True))
            assert await steps.receive() == Step(10, [(AB, 1), (CD, 1)], snapshot=True)


@pytest.mark.parametrize(
    ("code", "kind"), [("not-found", NotFoundError), ("interrupted", InterruptedQueryError)]
)
async def test_an_end_comes_after_the_steps_before_it(code: str, kind: type[Exception]) -> None:
    async with opened() as (db, server, _), trio.open_nursery() as nursery:

        async def script() -> None:
            await server.subscription()
            await server.send(changes(10, AB, snapshot=True), Ended(1, ErrorBody(code, "over")))

        nursery.start_soon(script)
        async with db["knows"].subscribe() as steps:
            await steps.receive()
            with pytest.raises(kind, match="over"):
                await steps.receive()
            assert [step async for step in steps] == []
            with pytest.raises(ConnectionClosed, match="is over"):
                await steps.receive()


async def test_an_unconsumed_subscription_stops_the_reading() -> None:
    async with opened(pair=trio.testing.lockstep_stream_pair) as (db, server, _):
        batch = [((str(n), "x"), 1) for n in range(5_000)]
        pushed = 0

        async def flood() -> None:
            nonlocal pushed
            await server.subscription()
            while True:
                await server.send(Changes(1, 10 + pushed, batch, snapshot=pushed == 0))
                pushed += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            async with db["knows"].subscribe() as steps:
                await trio.testing.wait_all_tasks_blocked()
                assert BUFFERED_CHANGES <= steps._buffered <= BUFFERED_CHANGES + 2 * len(batch)
                held = pushed
                for n in range(held):
                    assert (await steps.receive()).time == 10 + n
                await trio.testing.wait_all_tasks_blocked()
                assert pushed > held
                nursery.cancel_scope.cancel()


async def test_a_request_between_two_steps_is_answered_though_steps_wait() -> None:
    async with (
        opened(pair=trio.testing.lockstep_stream_pair) as (db, server, _),
        trio.open_nursery() as nursery,
    ):
        batch = [((str(n), "x"), 1) for n in range(BUFFERED_CHANGES)]

        async def script() -> None:
            await server.subscription()
            for time in range(10, 13):
                await server.send(Changes(1, time, batch, snapshot=time == 10))
            await server.expect(Ping)
            await server.reply(Pong(13))

        nursery.start_soon(script)
        async with db["knows"].subscribe() as steps:
            await trio.testing.wait_all_tasks_blocked()
            assert steps.full
            assert await db.ping() == 13
            assert [(await steps.receive()).time for _ in range(3)] == [10, 11, 12]
            nursery.cancel_scope.cancel()


async def reconnected(
    db: Client, server: ScriptedServer, network: Any, history: str = "h1"
) -> ScriptedServer:
    """Cut the connection, and greet the client on its next one."""
    await server.stream.aclose()
    again: ScriptedServer = await network.pick_up()
    await again.hello(history)
    return again


async def test_a_subscription_goes_on_after_a_reconnection(autojump_clock: trio.testing.MockClock) -> None:
    async with opened(reconnect=True) as (db, server, network), trio.open_nursery() as nursery:
        nursery.start_soon(server.subscription)
        async with db["knows"].subscribe() as steps:
            # The last message is the beginning of a step whose end is lost.
            await server.send(changes(10, AB, snapshot=True), changes(12, CD), changes(13, EF, more=True))
            await trio.testing.wait_all_tasks_blocked()
            again = await reconnected(db, server, network)
            assert await again.subscription(7, 14) == Subscribe("knows", since=12, history="h1")
            await again.send(changes(14, EF, sub=7), changes(15, AB, sub=7, diff=-1))
            seen = [await steps.receive() for _ in range(4)]
        assert seen == [
            Step(10, [(AB, 1)], snapshot=True),
            Step(12, [(CD, 1)]),
            Step(14, [(EF, 1)]),
            Step(15, [(AB, -1)]),
        ]


async def test_a_server_that_lost_its_history_sends_everything_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with opened(reconnect=True) as (db, server, network), trio.open_nursery() as nursery:
        nursery.start_soon(server.subscription)
        view = View()
        async with db["knows"].subscribe() as steps:
            await server.send(changes(10, AB, snapshot=True))
            view.apply(await steps.receive())
            again = await reconnected(db, server, network, "h2")
            assert await again.subscription(1, 3, history="h2", resync=True) == Subscribe(
                "knows", since=10, history="h1"
            )
            await again.send(changes(3, CD, snapshot=True, resync=True))
            step = await steps.receive()
            assert step.resync
            view.apply(step)
            assert steps.history == "h2"
        assert (view.rows(), view.time) == ([CD], 3)


async def test_a_snapshot_that_was_cut_is_asked_for_again(autojump_clock: trio.testing.MockClock) -> None:
    async with opened(reconnect=True) as (db, server, network), trio.open_nursery() as nursery:
        nursery.start_soon(server.subscription)
        async with db["knows"].subscribe() as steps:
            await server.send(changes(10, AB, snapshot=True, more=True))
            await trio.testing.wait_all_tasks_blocked()
            again = await reconnected(db, server, network)
            assert await again.subscription(1, 11) == Subscribe("knows")
            await again.send(changes(11, CD, snapshot=True))
            assert await steps.receive() == Step(11, [(CD, 1)], snapshot=True)


async def test_changes_only_are_continued_from_where_they_began(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with opened(reconnect=True) as (db, server, network), trio.open_nursery() as nursery:
        nursery.start_soon(server.subscription)
        async with db["knows"].subscribe(snapshot=False):
            again = await reconnected(db, server, network)
            request = await again.expect(Subscribe)
            assert (request.snapshot, request.since, request.history) == (False, 10, "h1")


async def test_a_relation_gone_after_the_reconnection_ends_the_subscription(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with opened(reconnect=True) as (db, server, network), trio.open_nursery() as nursery:
        nursery.start_soon(server.subscription)
        async with db["knows"].subscribe() as steps:
            again = await reconnected(db, server, network, "h2")
            await again.expect(Subscribe)
            await again.refuse("not-found", "no relation knows")
            with pytest.raises(NotFoundError):
                await steps.receive()
            await db.wait_connected()


async def test_without_reconnection_the_loss_ends_the_subscription() -> None:
    async with opened() as (db, server, _), trio.open_nursery() as nursery:
        nursery.start_soon(server.subscription)
        async with db["knows"].subscribe() as steps:
            await server.send(changes(10, AB, snapshot=True))
            await server.stream.aclose()
            assert (await steps.receive()).time == 10
            with pytest.raises(ConnectionClosed, match="subscription of knows ended"):
                await steps.receive()


async def test_a_subscriber_that_was_too_slow_catches_up_when_it_comes_back() -> None:
    async with opened() as (db, server, _), trio.open_nursery() as nursery:

        async def script() -> None:
            await server.subscription()
            await server.send(
                changes(10, AB, snapshot=True), Ended(1, ErrorBody("busy", "too slow", True), 10)
            )
            assert await server.subscription(2, 20) == Subscribe("knows", since=10, history="h1")
            await server.send(changes(20, CD, sub=2))

        nursery.start_soon(script)
        async with db["knows"].subscribe() as steps:
            assert (await steps.receive()).time == 10
            assert await steps.receive() == Step(20, [(CD, 1)])


async def test_who_wants_no_times_merged_is_told_of_being_too_slow() -> None:
    async with opened() as (db, server, _), trio.open_nursery() as nursery:

        async def script() -> None:
            assert await server.subscription() == Subscribe("knows", slow="end", backlog=5)
            await server.send(
                changes(10, AB, snapshot=True), Ended(1, ErrorBody("busy", "too slow", True), 10)
            )

        nursery.start_soon(script)
        async with db["knows"].subscribe(slow="end", backlog=5) as steps:
            assert (await steps.receive()).time == 10
            with pytest.raises(BusyError, match="too slow"):
                await steps.receive()


async def test_a_server_too_busy_to_continue_says_so() -> None:
    async with opened() as (db, server, _), trio.open_nursery() as nursery:

        async def script() -> None:
            await server.subscription()
            await server.send(Ended(1, ErrorBody("busy", "too slow", True)))
            await server.expect(Subscribe)
            await server.refuse("busy", "too many subscriptions")

        nursery.start_soon(script)
        async with db["knows"].subscribe() as steps:
            with pytest.raises(BusyError, match="too many subscriptions"):
                await steps.receive()


@pytest.mark.parametrize("code", ["busy", "interrupted"])
async def test_an_end_that_its_reader_has_not_come_to_is_not_passed_over_by_a_reconnection(
    code: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with opened(reconnect=True) as (db, server, network), trio.open_nursery() as nursery:
        again_connected = trio.Event()

        async def script() -> None:
            await server.subscription()
            await server.send(changes(10, AB, snapshot=True), Ended(1, ErrorBody(code, "why", True), 10))
            await server.stream.aclose()
            again = await network.pick_up()
            await again.hello()
            await again.expect(Ping)
            await again.reply(Pong(10))
            again_connected.set()
            if code == "busy":
                # Asked for once, by its reader, and given back by it.
                assert await again.subscription(7, 20) == Subscribe("knows", since=10, history="h1")
                await again.send(changes(20, CD, sub=7))
                assert await again.expect(Unsubscribe) == Unsubscribe(7)
                await again.reply(Unsubscribed(21))
            await again.expect(Ping)
            await again.reply(Pong(30))

        nursery.start_soon(script)
        async with db["knows"].subscribe() as steps:
            # All of it is here, and the reader comes once there is another connection.
            await trio.testing.wait_all_tasks_blocked()
            await db.wait_connected()
            await db.ping()
            await again_connected.wait()
            assert (await steps.receive()).time == 10
            if code == "busy":
                assert await steps.receive() == Step(20, [(CD, 1)])
            else:
                with pytest.raises(InterruptedQueryError):
                    await steps.receive()
        await db.ping()


async def test_many_subscriptions_share_a_connection() -> None:
    async with opened() as (db, server, _), trio.open_nursery() as nursery:

        async def script() -> None:
            for sub in (1, 2):
                await server.subscription(sub)
            await server.send(changes(10, AB, sub=2, snapshot=True), changes(10, CD, sub=1, snapshot=True))

        nursery.start_soon(script)
        async with db["knows"].subscribe() as first, db["knows"].subscribe(where={"x": "a"}) as second:
            assert (await first.receive()).added == [CD]
            assert (await second.receive()).added == [AB]

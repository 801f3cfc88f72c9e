"""Rows that are left as the server sent them: all of a snapshot, in order, and nothing else."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from dataflow_serve.client import Connection, LengthPrefixed, open_client_on
from dataflow_serve.client._undecoded import fetch_undecoded
from dataflow_serve.errors import (
    ConnectionClosed,
    DataflowError,
    InterruptedQueryError,
    LocalProtocolError,
    NotFoundError,
    RemoteProtocolError,
)
from dataflow_serve.protocol import (
    Changes,
    Column,
    Encoding,
    Ended,
    ErrorBody,
    Reached,
    Subscribe,
    Subscribed,
    Undecoded,
    Unsubscribe,
    Unsubscribed,
    decode_request,
    encode_message,
)
from tests.unit.scripted_server import KNOWS, ScriptedServer, opened, server_info


def snapshot(*names: str, sub: int = 1, more: bool = False) -> Changes:
    return Changes(sub, 10, [((name, name), 1) for name in names], snapshot=True, more=more)


Script = Callable[[ScriptedServer], Awaitable[object]]


async def fetched(script: Script, take: Callable[[bytes], object] | None = None) -> list[Any]:
    """What comes of a server that does this; errors come out as they are, not in a nursery's group."""
    parts: list[bytes] = []
    failure: DataflowError | None = None
    async with opened() as (client, server, _), trio.open_nursery() as nursery:
        nursery.start_soon(script, server)
        try:
            await fetch_undecoded(client._session.current(), "knows", take or parts.append)
        except DataflowError as error:
            failure = error
    if failure is not None:
        raise failure
    return [msgspec.msgpack.decode(part) for part in parts]


async def test_all_parts_come_as_they_are_and_then_it_unsubscribes() -> None:
    async def script(server: ScriptedServer) -> None:
        assert await server.subscription() == Subscribe("knows")
        await server.send(snapshot("ann", "bob", more=True), Reached(1, 9), snapshot("cid"))
        await server.send(Changes(1, 11, [(("dan", "dan"), 1)]))
        assert await server.expect(Unsubscribe) == Unsubscribe(1)

    assert await fetched(script) == [[[["ann", "ann"], 1], [["bob", "bob"], 1]], [[["cid", "cid"], 1]]]


async def test_other_subscriptions_of_the_connection_are_decoded() -> None:
    taken: list[bytes] = []

    async def serve(server: ScriptedServer) -> None:
        await server.subscription(1)
        await server.subscription(2)
        await server.send(snapshot("eve", more=True, sub=2), snapshot("ann", sub=1), snapshot("bob", sub=2))
        await server.expect(Unsubscribe)
        await server.reply(Unsubscribed(2))
        await server.send(Changes(1, 11, [(("cid", "cid"), 1)]))

    async with opened() as (client, server, _), trio.open_nursery() as nursery:
        nursery.start_soon(serve, server)
        async with client["knows"].subscribe() as steps:
            await fetch_undecoded(client._session.current(), "knows", taken.append)
            assert (await steps.receive()).changes == [(("ann", "ann"), 1)]
            assert (await steps.receive()).changes == [(("cid", "cid"), 1)]
    assert [msgspec.msgpack.decode(part) for part in taken] == [[[["eve", "eve"], 1]], [[["bob", "bob"], 1]]]


async def test_a_refusal_comes_out() -> None:
    async def script(server: ScriptedServer) -> None:
        await server.expect(Subscribe)
        await server.refuse("not-found", "unknown relation `knows`")

    with pytest.raises(NotFoundError, match="unknown relation"):
        await fetched(script)


async def test_an_end_before_the_last_part_comes_out() -> None:
    async def script(server: ScriptedServer) -> None:
        await server.subscription()
        await server.send(snapshot("ann", more=True), Ended(1, ErrorBody("interrupted", "the end")))

    with pytest.raises(InterruptedQueryError, match="the end"):
        await fetched(script)


async def test_a_loss_before_the_last_part_comes_out() -> None:
    async def script(server: ScriptedServer) -> None:
        await server.subscription()
        await server.send(snapshot("ann", more=True))
        await server.stream.aclose()

    with pytest.raises(ConnectionClosed, match="the rows aren't all here: the server closed the connection"):
        await fetched(script)


async def test_rows_that_nobody_can_read_break_the_connection() -> None:
    async def script(server: ScriptedServer) -> None:
        await server.subscription()
        await server.send(snapshot("ann", more=True))

    def refuse(changes: bytes) -> None:
        raise ValueError("no rows")

    with pytest.raises(RemoteProtocolError, match="the server sent rows of another kind: no rows"):
        await fetched(script, refuse)


async def test_cancelling_unsubscribes() -> None:
    async def serve(server: ScriptedServer, scope: trio.CancelScope) -> None:
        await server.expect(Subscribe)
        scope.cancel()
        await server.reply(Subscribed(1, (Column("x", "symbol"),), 10, "h1"))
        assert await server.expect(Unsubscribe) == Unsubscribe(1)

    async with opened() as (client, server, _), trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            nursery.start_soon(serve, server, scope)
            await fetch_undecoded(client._session.current(), "knows", lambda _: None)
        assert scope.cancelled_caught


def test_the_number_of_a_subscription_that_is_over_may_be_anothers() -> None:
    connection = Connection(LengthPrefixed())

    def hear(*messages: Any) -> list[Any]:
        for message in messages:
            payload = encode_message(message, Encoding.MESSAGEPACK)
            connection.receive(len(payload).to_bytes(4, "big") + payload)
        return list(iter(connection.next_event, None))

    for undecoded in (True, False):
        number, _ = connection.send(Subscribe("knows"))
        hear((number, Subscribed(1, (Column("x", "symbol"),), 5, "h")))
        if undecoded:
            connection.leave_undecoded(1)
        (event,) = hear(Changes(1, 5, [(("ann",), 1)], snapshot=True))
        assert event == (
            Undecoded(1, msgspec.msgpack.encode([(("ann",), 1)]))
            if undecoded
            else Changes(1, 5, [(("ann",), 1)], snapshot=True)
        )
        hear(Ended(1, ErrorBody("interrupted", "the end")))


async def test_a_connection_in_json_is_refused() -> None:
    ours, theirs = trio.testing.memory_stream_pair()

    async def serve() -> None:
        for body in (server_info(), Subscribed(1, KNOWS, 10, "h1")):
            number, _ = decode_request(bytes(await theirs.receive_some()), Encoding.JSON)
            await theirs.send_all(encode_message((number, body), Encoding.JSON) + b"\n")
        await theirs.send_all(encode_message(snapshot("ann"), Encoding.JSON) + b"\n")

    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with open_client_on(ours, encoding=Encoding.JSON) as client:
            try:
                await fetch_undecoded(client._session.current(), "knows", lambda _: None)
            except LocalProtocolError as error:
                failure = error
    assert str(failure) == "cannot leave rows undecoded on a connection in JSON"

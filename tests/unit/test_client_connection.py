"""The state machine: replies find their requests, pushes their subscriptions, misuse is told apart."""

from typing import Any

import msgspec
import pytest

from dataflow_serve.client import Connection, LengthPrefixed, Lines, WebSocketMessages
from dataflow_serve.client._connection import Disconnected, Refused, Replied
from dataflow_serve.errors import ConflictError, IncorrectError, LocalProtocolError, RemoteProtocolError
from dataflow_serve.protocol import (
    PREAMBLE,
    Changes,
    Column,
    Encoding,
    Ended,
    ErrorBody,
    Failure,
    Hello,
    Ping,
    Pong,
    Reached,
    Read,
    Rows,
    Status,
    Subscribe,
    Subscribed,
    Undecoded,
    Unsubscribe,
    Unsubscribed,
    encode_message,
)

COLUMNS = (Column("x", "symbol"),)


class Dialogue:
    """A connection in NDJSON, and what its server would send."""

    def __init__(self) -> None:
        self.connection = Connection(Lines())

    def hears(self, *messages: Any) -> list[Any]:
        for message in messages:
            self.connection.receive(encode_message(message, Encoding.JSON) + b"\n")
        return self.events()

    def events(self) -> list[Any]:
        found = []
        while (event := self.connection.next_event()) is not None:
            found.append(event)
        return found

    def subscribed(self, sub: int = 1) -> None:
        number, _ = self.connection.send(Subscribe("r"))
        self.hears((number, Subscribed(sub, COLUMNS, 5, "h")))


@pytest.fixture
def dialogue() -> Dialogue:
    return Dialogue()


def test_requests_are_numbered_and_framed(dialogue: Dialogue) -> None:
    assert dialogue.connection.send(Ping()) == (1, b'{"id":1,"op":"ping"}\n')
    assert dialogue.connection.send(Ping()) == (2, b'{"id":2,"op":"ping"}\n')


def test_the_preamble_stands_before_the_first_request_only() -> None:
    connection = Connection(LengthPrefixed())
    assert connection.send(Hello())[1].startswith(PREAMBLE + b"\x00\x00\x00")
    assert connection.send(Ping())[1].startswith(b"\x00\x00\x00")


def test_replies_may_overtake_one_another(dialogue: Dialogue) -> None:
    first, _ = dialogue.connection.send(Ping())
    second, _ = dialogue.connection.send(Read("r"))
    assert dialogue.connection.outstanding == 2
    rows = Rows(COLUMNS, [("a",)], 7)
    assert dialogue.hears((second, rows)) == [Replied(second, Read("r"), rows)]
    assert dialogue.hears((first, Pong(8))) == [Replied(first, Ping(), Pong(8))]
    assert dialogue.connection.outstanding == 0


def test_a_refusal_belongs_to_its_request(dialogue: Dialogue) -> None:
    number, _ = dialogue.connection.send(Ping())
    [refused] = dialogue.hears(Failure(number, ErrorBody("conflict", "taken")))
    assert isinstance(refused, Refused)
    assert refused.id == number
    assert isinstance(refused.error, ConflictError)


def test_an_error_for_nobody_in_particular_is_passed_on(dialogue: Dialogue) -> None:
    dialogue.connection.send(Ping())
    [refused] = dialogue.hears(Failure(None, ErrorBody("incorrect", "not JSON")))
    assert isinstance(refused, Refused)
    assert refused.id is None
    assert isinstance(refused.error, IncorrectError)


@pytest.mark.parametrize("number", [2, None, "1", 1.5])
def test_an_answer_that_nobody_asked_for_breaks_the_connection(dialogue: Dialogue, number: Any) -> None:
    dialogue.connection.send(Ping())
    with pytest.raises(RemoteProtocolError, match="which nobody made"):
        dialogue.hears((number, Pong(1)))
    with pytest.raises(LocalProtocolError, match="the connection is closed"):
        dialogue.connection.send(Ping())


def test_a_second_answer_breaks_the_connection(dialogue: Dialogue) -> None:
    number, _ = dialogue.connection.send(Ping())
    with pytest.raises(RemoteProtocolError, match="which nobody made"):
        dialogue.hears((number, Pong(1)), (number, Pong(1)))


def test_pushes_reach_the_subscription(dialogue: Dialogue) -> None:
    dialogue.subscribed(3)
    pushed = [
        Changes(3, 5, [(("a",), 1)], snapshot=True),
        Reached(3, 6),
        Ended(3, ErrorBody("not-found", "gone")),
    ]
    assert dialogue.hears(*pushed) == pushed


def test_rows_of_pushes_get_the_types_of_their_columns(dialogue: Dialogue) -> None:
    number, _ = dialogue.connection.send(Subscribe("r"))
    dialogue.hears((number, Subscribed(1, (Column("x", "float"),), 5, "h")))
    [changes] = dialogue.hears(Changes(1, 6, [(("-inf",), 1)]))
    assert changes == Changes(1, 6, [((float("-inf"),), 1)])


@pytest.mark.parametrize("push", [Changes(9, 5, []), Reached(9, 5), Ended(9, ErrorBody("busy", "slow"))])
def test_a_push_to_nobody_breaks_the_connection(dialogue: Dialogue, push: Any) -> None:
    with pytest.raises(RemoteProtocolError, match="subscription 9, which is not open"):
        dialogue.hears(push)


def test_nothing_follows_the_end_of_a_subscription(dialogue: Dialogue) -> None:
    dialogue.subscribed(1)
    dialogue.hears(Ended(1, ErrorBody("not-found", "gone")))
    with pytest.raises(RemoteProtocolError, match="not open"):
        dialogue.hears(Reached(1, 9))


def test_unsubscribing_silences_what_is_under_way(dialogue: Dialogue) -> None:
    dialogue.subscribed(1)
    number, _ = dialogue.connection.send(Unsubscribe(1))
    assert dialogue.hears(Changes(1, 6, [(("a",), 1)]), Reached(1, 6)) == []
    assert dialogue.hears((number, Unsubscribed(7))) == [Replied(number, Unsubscribe(1), Unsubscribed(7))]
    with pytest.raises(RemoteProtocolError, match="not open"):
        dialogue.hears(Reached(1, 9))


def test_an_end_and_an_unsubscription_may_cross(dialogue: Dialogue) -> None:
    dialogue.subscribed(1)
    number, _ = dialogue.connection.send(Unsubscribe(1))
    assert dialogue.hears(Ended(1, ErrorBody("busy", "slow"))) == []
    [refused] = dialogue.hears(Failure(number, ErrorBody("not-found", "no subscription 1")))
    assert isinstance(refused, Refused)


def test_a_subscription_number_stands_for_one_subscription(dialogue: Dialogue) -> None:
    dialogue.subscribed(1)
    with pytest.raises(RemoteProtocolError, match="number 1 to two"):
        dialogue.subscribed(1)


def test_unsubscribing_twice_is_the_callers_mistake(dialogue: Dialogue) -> None:
    dialogue.subscribed(1)
    dialogue.connection.send(Unsubscribe(1))
    for sub in (1, 2):
        with pytest.raises(LocalProtocolError, match="no such subscription is open"):
            dialogue.connection.send(Unsubscribe(sub))


def test_hello_comes_first_or_not_at_all(dialogue: Dialogue) -> None:
    dialogue.connection.send(Status())
    with pytest.raises(LocalProtocolError, match="must be the first"):
        dialogue.connection.send(Hello())


def test_the_end_of_the_stream_is_the_last_event(dialogue: Dialogue) -> None:
    dialogue.connection.receive(b"")
    assert dialogue.events() == [Disconnected()]
    with pytest.raises(LocalProtocolError, match="after the end"):
        dialogue.connection.receive(b"x")


def test_messages_before_the_end_still_count(dialogue: Dialogue) -> None:
    number, _ = dialogue.connection.send(Ping())
    dialogue.connection.receive(encode_message((number, Pong(1)), Encoding.JSON) + b"\n")
    dialogue.connection.receive(b"")
    assert dialogue.events() == [Replied(number, Ping(), Pong(1)), Disconnected()]


def test_a_stream_that_ends_inside_a_message_was_cut(dialogue: Dialogue) -> None:
    dialogue.connection.receive(b'{"id":')
    dialogue.connection.receive(b"")
    with pytest.raises(RemoteProtocolError, match="inside a message"):
        dialogue.events()


def test_garbage_breaks_the_connection(dialogue: Dialogue) -> None:
    dialogue.connection.receive(b"HTTP/1.1 400 Bad Request\r\n")
    with pytest.raises(RemoteProtocolError, match="malformed"):
        dialogue.events()


def test_a_request_that_cannot_be_spelled_leaves_the_connection_as_it_was(dialogue: Dialogue) -> None:
    with pytest.raises(LocalProtocolError, match="cannot encode"):
        dialogue.connection.send(Read("r", where={"x": object()}))
    assert dialogue.connection.outstanding == 0
    dialogue.connection.send(Hello())


def test_each_websocket_frame_is_read_in_its_own_encoding() -> None:
    connection = Connection(WebSocketMessages())
    first, _ = connection.send(Ping())
    second, _ = connection.send(Ping())
    connection.receive(encode_message((first, Pong(1)), Encoding.JSON).decode())
    connection.receive(encode_message((second, Pong(2)), Encoding.MESSAGEPACK))
    assert connection.next_event() == Replied(first, Ping(), Pong(1))
    assert connection.next_event() == Replied(second, Ping(), Pong(2))


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

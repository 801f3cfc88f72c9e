"""Framing: messages come out whole however bytes are cut; what cannot be a message is refused early."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow_serve.client import Framing, LengthPrefixed, Lines, WebSocketMessages
from dataflow_serve.errors import RemoteProtocolError
from dataflow_serve.protocol import Encoding

MESSAGES = [b"", b"x", b'{"id":1}', bytes(range(11, 256)), b"\x00" * 700]


def drain(framing: Framing) -> list[bytes]:
    found = []
    while (payload := framing.next_payload()) is not None:
        found.append(payload[0])
    return found


def test_length_prefixed_messages_survive_a_cut_at_every_byte() -> None:
    stream = b"".join(LengthPrefixed().wrap(message) for message in MESSAGES)
    for cut in range(len(stream) + 1):
        framing = LengthPrefixed()
        framing.feed(stream[:cut])
        found = drain(framing)
        framing.feed(stream[cut:])
        assert found + drain(framing) == MESSAGES
        assert not framing.midway


def test_lines_survive_a_cut_at_every_byte() -> None:
    stream = b'{"id":1}\n\r\n\n{"id":2}\r\n  \n' + '{"id":"é"}\n'.encode()
    for cut in range(len(stream) + 1):
        framing = Lines()
        framing.feed(stream[:cut])
        found = drain(framing)
        framing.feed(stream[cut:])
        assert found + drain(framing) == [b'{"id":1}', b'{"id":2}', '{"id":"é"}'.encode()]
        assert not framing.midway


@given(st.lists(st.binary(max_size=50)), st.lists(st.integers(1, 9)))
def test_any_chunks_give_the_messages_that_were_wrapped(messages: list[bytes], chunks: list[int]) -> None:
    framing = LengthPrefixed()
    stream = b"".join(framing.wrap(message) for message in messages)
    found = []
    for size in chunks:
        framing.feed(stream[:size])
        stream = stream[size:]
        found += drain(framing)
    framing.feed(stream)
    assert found + drain(framing) == messages


def test_buffers_forget_what_was_consumed() -> None:
    framing = LengthPrefixed()
    frame = framing.wrap(b"x" * 100_000)
    for _ in range(50):
        framing.feed(frame)
        assert drain(framing) == [b"x" * 100_000]
    assert len(framing._buffer) < 2_000_000


def test_an_oversize_message_is_refused_by_its_length_alone() -> None:
    framing = LengthPrefixed(max_message_bytes=1000)
    framing.feed(b"\x00\x00\x03\xe9")
    with pytest.raises(RemoteProtocolError, match="1001 bytes, over 1000"):
        framing.next_payload()


def test_an_endless_line_is_refused() -> None:
    framing = Lines(max_message_bytes=1000)
    framing.feed(b"x" * 1000)
    assert framing.next_payload() is None
    framing.feed(b"x")
    with pytest.raises(RemoteProtocolError, match="more than 1000"):
        framing.next_payload()


def test_a_websocket_message_is_in_the_encoding_of_its_frame() -> None:
    framing = WebSocketMessages()
    framing.feed("{}")
    framing.feed(b"\x80")
    assert framing.next_payload() == (b"{}", Encoding.JSON)
    assert framing.next_payload() == (b"\x80", Encoding.MESSAGEPACK)
    assert framing.next_payload() is None

"""Words on the wire: what one side spells the other reads, in both encodings."""

import contextlib
import datetime
import math
import uuid
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow_serve.errors import ConflictError, IncorrectError, LocalProtocolError, RemoteProtocolError
from dataflow_serve.protocol import (
    Cancel,
    Cancelled,
    Change,
    Changes,
    Column,
    Encoding,
    Ended,
    ErrorBody,
    Explain,
    Failure,
    Hello,
    Module,
    PackedRows,
    Ping,
    Plan,
    Pong,
    Reached,
    Read,
    Register,
    RelationInfo,
    Reply,
    ReplyBody,
    Request,
    Rows,
    ServerInfo,
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
    TypeInfo,
    Unregister,
    Unregistered,
    Unsubscribe,
    Unsubscribed,
    decode_message,
    decode_request,
    encode_message,
    encode_request,
    encode_value,
    row_reader,
)
from dataflow_serve.values import Branch

both = pytest.mark.parametrize("encoding", list(Encoding))
COLUMNS = (Column("x", "symbol"), Column("n", "number"))

REQUESTS: list[Request] = [
    Hello(),
    Hello(token="secret"),
    Register(".decl r(x: symbol)", "m"),
    Register("", limits={"iterations": 10, "rows": 0}),
    Cancel("m"),
    Unregister("m"),
    Transact([Change("r", insert=[["a", 1]]), Change("s", delete=[[]])], key="k", wait="visible"),
    Transact([]),
    Subscribe("r", snapshot=False, progress=True, where={"x": "a"}, since=3, history="h"),
    Subscribe("r"),
    Unsubscribe(7),
    Read("r", where={"n": -1}, limit=0),
    Explain("r"),
    Status(),
    Tune({"commands_per_turn": 10}),
    Ping(),
    Shutdown(),
]

REPLIES: list[tuple[Request, ReplyBody]] = [
    (Hello(), ServerInfo(1, "dataflow-serve 0.1", 3, 4, 1, 2, 99, "h")),
    (Register(""), Module("m", (RelationInfo("r", "derived", COLUMNS),), 5)),
    (Unregister("m"), Unregistered(6)),
    (Cancel("m"), Cancelled("m", ("n", "m"), 12, 6, "r")),
    (Cancel("m"), Cancelled("m", ("m",), 0, 6)),
    (Transact([]), Transacted(7)),
    (Transact([]), Transacted(7, deduplicated=True)),
    (Subscribe("r"), Subscribed(1, COLUMNS, 8, "h")),
    (Subscribe("r"), Subscribed(1, COLUMNS, 8, "h", resync=True)),
    (Unsubscribe(1), Unsubscribed(9)),
    (Read("r"), Rows(COLUMNS, [("a", 1), ("é\n", -(2**63))], 10)),
    (Explain("r"), Plan({"join": [1, 2]})),
    (Status(), StatusReport({"workers": 2, "time": 4})),
    (Tune(), Tunables({"park_ms": 1})),
    (Ping(), Pong(11)),
    (Shutdown(), Stopping()),
]


@both
@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.OP)
def test_a_server_reads_the_request_that_a_client_spelled(request_: Request, encoding: Encoding) -> None:
    assert decode_request(encode_request(17, request_, encoding), encoding) == (17, request_)


@both
@pytest.mark.parametrize(("request_", "body"), REPLIES, ids=lambda word: type(word).__name__)
def test_a_client_reads_the_reply_that_a_server_spelled(
    request_: Request, body: ReplyBody, encoding: Encoding
) -> None:
    message = decode_message(encode_message((17, body), encoding), encoding)
    assert isinstance(message, Reply)
    assert (message.id, message.decode(request_)) == (17, body)


@both
@pytest.mark.parametrize(
    "message",
    [
        Failure(3, ErrorBody("conflict", "taken", True, "Use another.", (2, 5))),
        Failure(None, ErrorBody("incorrect", "not JSON")),
        Changes(1, 5, [(("a", 1), 1), (("b", 2), -1)], snapshot=True, more=True),
        Changes(1, 6, [], resync=True, snapshot=True),
        Reached(1, 6),
        Ended(1, ErrorBody("busy", "too slow", True), 6),
        Ended(1, ErrorBody("not-found", "gone")),
    ],
)
def test_pushes_and_failures_come_back(message: Any, encoding: Encoding) -> None:
    assert decode_message(encode_message(message, encoding), encoding) == message


def test_requests_are_spelled_as_the_protocol_has_them() -> None:
    spelled = encode_request(1, Transact([Change("knows", insert=[("ann", "bob")])]), Encoding.JSON)
    assert spelled == b'{"id":1,"op":"transact","changes":[{"relation":"knows","insert":[["ann","bob"]]}]}'
    assert encode_request(2, Hello(), Encoding.JSON) == b'{"id":2,"op":"hello","version":1}'
    assert encode_request(3, Tune({"turn_us": 5}), Encoding.JSON) == b'{"id":3,"op":"tune","turn_us":5}'


def test_floats_that_json_lacks_are_text_there() -> None:
    rows = [(math.nan,), (math.inf,), (-math.inf,), (0.5,)]
    spelled = encode_request(1, Transact([Change("r", insert=rows)]), Encoding.JSON)
    assert b'[["NaN"],["inf"],["-inf"],[0.5]]' in spelled


MOMENT = datetime.datetime(2026, 11, 23, 21, 0, 0, 5, tzinfo=datetime.UTC)
NUMBER = uuid.UUID("00010203-0405-0607-0809-0a0b0c0d0e0f")


@both
def test_values_come_back_as_their_columns_say(encoding: Encoding) -> None:
    columns = [Column(kind, kind) for kind in ("float", "instant", "uuid", "bytes", "bool", "unsigned")]
    row = (math.inf, MOMENT, NUMBER, b"\x00\xff", True, 2**64 - 1)
    message = decode_message(encode_message((1, Rows(tuple(columns), [row], 1)), encoding), encoding)
    assert isinstance(message, Reply)
    body = message.decode(Read("r"))
    assert isinstance(body, Rows)
    assert body.rows == [row]


@both
def test_not_a_number_equals_itself_in_rows(encoding: Encoding) -> None:
    spelled = encode_message(Changes(1, 1, [((math.nan, 1), 1)]), Encoding.MESSAGEPACK)
    message = decode_message(spelled, Encoding.MESSAGEPACK)
    assert isinstance(message, Changes)
    read = row_reader([Column("x", "float"), Column("n", "number")], encoding)
    assert read is not None
    value: Any = message.changes[0][0][0] if encoding is Encoding.MESSAGEPACK else "NaN"
    assert {read((value, 1)): "seen"}[read((value, 1))] == "seen"


def test_integers_of_a_float_column_become_floats() -> None:
    read = row_reader([Column("x", "float")], Encoding.JSON)
    assert read is not None
    assert type(read((3,))[0]) is float


def test_rows_of_plain_types_need_no_reading() -> None:
    columns = [Column("a", "number"), Column("b", "unsigned"), Column("c", "symbol"), Column("d", "bool")]
    assert row_reader(columns, Encoding.JSON) is None


def test_a_row_that_does_not_fit_its_columns_is_the_servers_mistake() -> None:
    read = row_reader([Column("x", "float")], Encoding.JSON)
    assert read is not None
    for row in [("abc",), (1.0, 2.0), (None,)]:
        with pytest.raises(RemoteProtocolError, match="does not fit"):
            read(row)


@both
@pytest.mark.parametrize("value", [object(), "\ud800", {1, 2j}])
def test_a_value_without_a_spelling_is_the_callers_mistake(value: Any, encoding: Encoding) -> None:
    with pytest.raises(LocalProtocolError, match="cannot encode this transact"):
        encode_request(1, Transact([Change("r", insert=[(value,)])]), encoding)


def test_numbers_of_numpy_are_numbers() -> None:
    numpy = pytest.importorskip("numpy")
    rows = [(numpy.int64(3), numpy.float64(0.5), numpy.bool_(True))]
    spelled = encode_request(1, Transact([Change("r", insert=rows)]), Encoding.JSON)
    assert b"[[3,0.5,true]]" in spelled


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"nonsense",
        b"[]",
        b"{}",
        b'{"id":1}',
        b'{"sub":1}',
        b'{"sub":1,"time":2}',
        b'{"sub":"a","progress":1}',
    ],
)
def test_what_is_no_message_is_the_servers_mistake(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_message(payload, Encoding.JSON)


@given(st.binary(max_size=60), st.sampled_from(list(Encoding)))
def test_garbage_raises_nothing_but_protocol_errors(payload: bytes, encoding: Encoding) -> None:
    for decode in (decode_message, decode_request):
        with contextlib.suppress(RemoteProtocolError):
            decode(payload, encoding)


def test_a_reply_that_answers_something_else_is_the_servers_mistake() -> None:
    message = decode_message(b'{"id":1,"ok":{"time":"late"}}', Encoding.JSON)
    assert isinstance(message, Reply)
    with pytest.raises(RemoteProtocolError, match="answer to ping is malformed"):
        message.decode(Ping())


def test_unknown_fields_of_messages_are_for_later_versions() -> None:
    message = decode_message(b'{"sub":1,"time":2,"changes":[[["a"],1]],"colour":"red"}', Encoding.JSON)
    assert message == Changes(1, 2, [(("a",), 1)])


def test_unknown_fields_of_requests_are_named() -> None:
    with pytest.raises(RemoteProtocolError, match="read has no field 'colour'"):
        decode_request(b'{"op":"read","relation":"r","colour":"red"}', Encoding.JSON)


def test_errors_become_the_exception_of_their_code() -> None:
    error = ErrorBody(
        "incorrect", 'no relation "pearson"', False, 'Did you mean "person"?', (1, 37)
    ).to_exception()
    assert isinstance(error, IncorrectError)
    assert (error.line, error.column, error.retry) == (1, 37, False)
    assert isinstance(ErrorBody("conflict", "x", True).to_exception(), ConflictError)


scalars = st.one_of(
    st.integers(-(2**63), 2**64 - 1),
    st.text(),
    st.booleans(),
    st.floats(allow_nan=False, allow_infinity=False),
)


@given(
    st.lists(st.tuples(st.lists(scalars, max_size=4).map(tuple), st.integers(-3, 3))),
    st.sampled_from(list(Encoding)),
)
def test_any_changes_come_back(changes: list[tuple[tuple[Any, ...], int]], encoding: Encoding) -> None:
    pushed = Changes(4, 2**63 + 1, changes)
    spelled = encode_message(pushed, encoding)
    assert decode_message(spelled, encoding) == pushed
    if encoding is Encoding.JSON:
        assert b"\n" not in spelled
        assert msgspec.json.decode(spelled)["sub"] == 4


TYPES = {
    "Pair": TypeInfo(record=(Column("at", "instant"), Column("next", "Pair"))),
    "Tree": TypeInfo(branches={"Leaf": (Column("id", "uuid"), Column("x", "float")), "Empty": ()}),
}


@both
def test_records_and_branches_come_back_as_they_went(encoding: Encoding) -> None:
    columns = (Column("p", "Pair"), Column("t", "Tree"))
    moment = datetime.datetime(2026, 11, 23, 21, tzinfo=datetime.UTC)
    rows: list[Any] = [
        ((moment, (moment, None)), Branch("Leaf", (NUMBER, 0.5))),
        (None, Branch("Empty")),
    ]
    spelled = encode_message((1, Rows(columns, rows, 10, TYPES)), encoding)
    message = decode_message(spelled, encoding)
    assert isinstance(message, Reply)
    body = message.decode(Read("r"))
    assert isinstance(body, Rows)
    assert body.rows == rows
    assert len({*body.rows}) == 2, "rows can be members of sets"
    assert body.types == TYPES
    assert body.columns[0].types == TYPES


def test_a_row_of_no_such_branch_is_the_servers_mistake() -> None:
    read = row_reader([Column("t", "Tree", TYPES)], Encoding.JSON)
    assert read is not None
    for value in ({"$Twig": []}, {"$Leaf": [1]}, [], None, {}):
        with pytest.raises(RemoteProtocolError, match="does not fit its columns"):
            read((value,))


@pytest.mark.parametrize("encoding", Encoding)
def test_packed_rows_are_spelled_as_the_rows_they_are(encoding: Encoding) -> None:
    moment = datetime.datetime(2026, 11, 23, 21, 0, 0, 500000, datetime.UTC)
    types = {"R": TypeInfo(record=(Column("x", "number"), Column("r", "R")))}
    columns = (
        Column("n", "number"),
        Column("f", "float"),
        Column("s", "symbol"),
        Column("t", "instant"),
        Column("u", "uuid"),
        Column("b", "bytes"),
        Column("r", "R", types),
    )
    identity = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")
    rows = [(n, n / 2, f"text {n}", moment, identity, b"\x00" * n, (n, (n, None))) for n in range(3)]
    packed = PackedRows(encode_value(rows), len(rows), columns)
    assert (len(packed), list(packed), packed[1], packed[1:]) == (3, rows, rows[1], rows[1:])
    spelled, plain = (
        encode_request(1, Transact([Change("r", insert=each)]), encoding) for each in (packed, rows)
    )
    assert spelled == plain

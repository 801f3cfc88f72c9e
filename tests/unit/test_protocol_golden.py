"""The golden wire files, which the server's codec is tested with too: both sides mean the same bytes."""

import json
import math
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dataflow_serve.protocol import (
    Changes,
    Encoding,
    Ended,
    Failure,
    Message,
    Ping,
    Reached,
    Read,
    Register,
    Reply,
    Request,
    Rows,
    Shutdown,
    Status,
    Subscribe,
    Transact,
    decode_message,
    decode_request,
    encode_message,
    encode_request,
)

GOLDEN = Path(__file__).parents[1] / "golden"


def cases(name: str) -> list[Any]:
    """Cases of one file, named."""
    return [pytest.param(case, id=case["name"]) for case in json.loads((GOLDEN / f"{name}.json").read_text())]


def bytes_of(case: dict[str, str], encoding: Encoding) -> bytes:
    """The message in one encoding."""
    return case["json"].encode() if encoding is Encoding.JSON else bytes.fromhex(case["messagepack"])


def fields_of(payload: bytes, encoding: Encoding) -> Any:
    """What the bytes say, whatever the order of fields; NaN has to be spelled to be comparable."""
    decode = msgspec.json.decode if encoding is Encoding.JSON else msgspec.msgpack.decode
    return _comparable(decode(payload))


def _comparable(value: Any) -> Any:
    match value:
        case dict():
            return {name: _comparable(item) for name, item in value.items()}
        case list():
            return [_comparable(item) for item in value]
        case float() if math.isnan(value):
            return "not a number"
    return value


both = pytest.mark.parametrize("encoding", list(Encoding))


@both
@pytest.mark.parametrize("case", cases("requests"))
def test_requests_are_spelled_as_the_server_reads_them(case: dict[str, str], encoding: Encoding) -> None:
    payload = bytes_of(case, encoding)
    request_id, request = decode_request(payload, encoding)
    assert request_id == 7
    spelled = encode_request(request_id, request, encoding)
    assert fields_of(spelled, encoding) == fields_of(payload, encoding)


def asked(case: dict[str, str]) -> Request:
    """A request that the reply of a case can answer."""
    body = json.loads(case["json"])["ok"]
    match sorted(body):
        case ["time"]:
            return Ping()
        case ["deduplicated", "time"]:
            return Transact([])
        case ["columns", "rows", "time"]:
            return Read("r")
        case [*names] if "sub" in names:
            return Subscribe("r")
        case ["name", "relations", "time"]:
            return Register("")
        case []:
            return Shutdown()
    return Status()


@both
@pytest.mark.parametrize("case", cases("replies"))
def test_replies_of_the_server_are_read(case: dict[str, str], encoding: Encoding) -> None:
    payload = bytes_of(case, encoding)
    message = decode_message(payload, encoding)
    if isinstance(message, Reply):
        assert message.id == json.loads(case["json"])["id"]
        spelled = encode_message((message.id, message.decode(asked(case))), encoding)
    else:
        assert isinstance(message, Failure)
        spelled = encode_message(message, encoding)
    assert fields_of(spelled, encoding) == fields_of(payload, encoding)


@pytest.mark.parametrize("case", cases("replies"))
def test_rows_have_the_same_values_in_both_encodings(case: dict[str, str]) -> None:
    found: list[object] = []
    for encoding in Encoding:
        message = decode_message(bytes_of(case, encoding), encoding)
        if isinstance(message, Reply):
            body = message.decode(asked(case))
            found.append(body.rows if isinstance(body, Rows) else body)
        else:
            found.append(message)
    assert found[0] == found[1]


@both
@pytest.mark.parametrize("case", cases("pushes"))
def test_pushes_of_the_server_are_read(case: dict[str, str], encoding: Encoding) -> None:
    payload = bytes_of(case, encoding)
    message: Message = decode_message(payload, encoding)
    assert isinstance(message, Changes | Reached | Ended)
    assert fields_of(encode_message(message, encoding), encoding) == fields_of(payload, encoding)


@both
@pytest.mark.parametrize("case", cases("refusals"))
def test_refusals_of_the_server_are_read(case: dict[str, str], encoding: Encoding) -> None:
    reply = {"json": case["reply_json"], "messagepack": case["reply_messagepack"]}
    payload = bytes_of(reply, encoding)
    message = decode_message(payload, encoding)
    assert isinstance(message, Failure)
    assert fields_of(encode_message(message, encoding), encoding) == fields_of(payload, encoding)
    assert message.error.to_exception().code == message.error.code

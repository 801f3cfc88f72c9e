"""Words to bytes."""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections.abc import Mapping
from typing import Any

import msgspec

from dataflow_serve.errors import LocalProtocolError
from dataflow_serve.protocol._messages import Changes, Ended, ErrorBody, Failure, Reached
from dataflow_serve.protocol._packed import PackedRows
from dataflow_serve.protocol._replies import RelationInfo, ReplyBody, StatusReport, Transacted, Tunables
from dataflow_serve.protocol._requests import Request, Transact, Tune
from dataflow_serve.protocol._types import Column, Encoding, TypeInfo
from dataflow_serve.values import Branch, instant_text, instant_value

__all__ = ["encode_message", "encode_request", "encode_value"]


def encode_request(request_id: Any, request: Request, encoding: Encoding) -> bytes:
    """Spell a request; fields that are None are left out.

    Raises:
        LocalProtocolError: a value that the encoding cannot carry.
    """
    return _encode({"id": request_id, "op": request.OP, **_fields(request)}, encoding, request.OP)


def encode_value(value: Any) -> bytes:
    """Spell one value in MessagePack."""
    return _MESSAGEPACK.encode(value)


def encode_message(
    message: Failure | Changes | Reached | Ended | tuple[Any, ReplyBody], encoding: Encoding
) -> bytes:
    """Spell what a server sends; a successful reply is the pair of the request's id and its body.

    Raises:
        LocalProtocolError: a value that the encoding cannot carry.
    """
    return _encode(_spelled_message(message), encoding, "message")


def _spelled_message(message: Failure | Changes | Reached | Ended | tuple[Any, ReplyBody]) -> dict[str, Any]:
    match message:
        case Failure(id=request_id, error=error):
            return {"id": request_id, "error": _spelled_error(error)}
        case Changes():
            flags = {name: True for name in ("snapshot", "resync", "more") if getattr(message, name)}
            return {"sub": message.sub, "time": message.time, "changes": message.changes, **flags}
        case Reached(sub=sub, time=time):
            return {"sub": sub, "progress": time}
        case Ended(sub=sub, error=error, time=time):
            reached = {} if time is None else {"time": time}
            return {"sub": sub, "error": _spelled_error(error), **reached}
        case (request_id, body):
            return {"id": request_id, "ok": _spelled_body(body)}


def _spelled_error(error: ErrorBody) -> dict[str, Any]:
    spelled: dict[str, Any] = {"code": error.code, "message": error.message, "retry": error.retry}
    if error.hint is not None:
        spelled["hint"] = error.hint
    if error.at is not None:
        spelled["at"] = {"line": error.at[0], "column": error.at[1]}
    return spelled


def _spelled_body(body: ReplyBody) -> Mapping[str, Any]:
    match body:
        case StatusReport(report=fields) | Tunables(tunables=fields):
            return fields
        case Transacted(time=time, deduplicated=False):
            return {"time": time}
        case _:
            fields = {name: getattr(body, name) for name in _field_names(body)}
            if not fields.get("resync", True):
                del fields["resync"]
            if fields.get("types", True) is None:
                del fields["types"]
            return {name: _plain(value) for name, value in fields.items()}


def _plain(value: Any) -> Any:
    """Descriptions of columns and types as the wire has them."""
    match value:
        case Column(name, kind):
            return {"name": name, "type": kind}
        case RelationInfo(name, kind, columns):
            return {"name": name, "kind": kind, "columns": _plain(columns)}
        case TypeInfo(record=None, branches=branches):
            return {"branches": _plain(branches)}
        case TypeInfo(record=fields):
            return {"record": _plain(fields)}
        case tuple():
            return [_plain(item) for item in value]
        case Mapping():
            return {name: _plain(item) for name, item in value.items()}
        case _:
            return value


def _field_names(body: ReplyBody) -> list[str]:
    # Those that are dataclasses compare or show less than all that they have.
    if isinstance(body, msgspec.Struct):
        return list(body.__struct_fields__)
    return [item.name for item in dataclasses.fields(body)]


def _fields(word: Any) -> dict[str, Any]:
    if isinstance(word, Tune):
        return dict(word.tunables)
    spelled = {name: getattr(word, name) for name in word.__struct_fields__}
    if isinstance(word, Transact):
        spelled["changes"] = [_fields(change) for change in word.changes]
    return {name: value for name, value in spelled.items() if value is not None}


def _plain_value(value: Any) -> Any:
    """Scalars of numpy and its like know how to become Python's own."""
    if isinstance(value, datetime.datetime):
        return instant_value(value)
    if isinstance(value, PackedRows):
        return msgspec.Raw(value.packed)
    if isinstance(value, Branch):
        return {f"${value.name}": value.values}
    item = getattr(value, "item", None)
    if item is None:
        raise TypeError(f"a value of type {type(value).__name__} has no place in a relation")
    return item()


# A UUID goes as 16 bytes in MessagePack and as text in JSON; datetimes as timestamp extension and as RFC
# 3339.
_MESSAGEPACK = msgspec.msgpack.Encoder(enc_hook=_plain_value, uuid_format="bytes")
_JSON = msgspec.json.Encoder(enc_hook=_plain_value)


def _encode(spelled: dict[str, Any], encoding: Encoding, what: str) -> bytes:
    try:
        if encoding is Encoding.MESSAGEPACK:
            return _MESSAGEPACK.encode(spelled)
        return _JSON.encode(_json_values(spelled))
    except (TypeError, ValueError, OverflowError, msgspec.MsgspecError) as error:
        raise LocalProtocolError(f"cannot encode this {what}: {error}") from error


def _json_values(value: Any) -> Any:
    """Values as the protocol spells them in JSON, where JSON alone leaves a choice or has none."""
    match value:
        case float():
            return (
                value if math.isfinite(value) else "NaN" if value != value else "inf" if value > 0 else "-inf"
            )
        case datetime.datetime():
            return instant_text(instant_value(value))
        case Branch(name, values):
            return {f"${name}": _json_values(values)}
        case Mapping():
            return {name: _json_values(item) for name, item in value.items()}
        case list() | tuple() | PackedRows():
            return [_json_values(item) for item in value]
        case _:
            return value

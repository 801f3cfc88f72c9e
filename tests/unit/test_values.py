"""The texts of instants, uuids and bytes: the same on every side of the wire."""

import datetime
import uuid

import pytest

from dataflow_serve.values import (
    instant_text,
    instant_value,
    parse_bytes,
    parse_instant,
    parse_uuid,
    value_text,
)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000000Z"),
        ("2026-11-23T22:00:00+01:00", "2026-11-23T21:00:00.000000Z"),
        ("2026-11-23t15:30:00.5-05:30", "2026-11-23T21:00:00.500000Z"),
        ("1969-12-31T23:59:59.999999z", "1969-12-31T23:59:59.999999Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000000Z"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_instants_are_read_with_any_offset_and_written_in_utc(text: str, canonical: str) -> None:
    assert instant_text(parse_instant(text)) == canonical
    assert parse_instant(canonical) == parse_instant(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-11-23",
        "2026-11-23T21:00:00",
        "2026-11-23 21:00:00Z",
        "2026-11-23T21:00:00.1234567Z",
        "2026-11-23T21:00:00.Z",
        "2026-02-29T00:00:00Z",
        "2026-11-23T24:00:00Z",
        "2016-12-31T23:59:60Z",
        "2026-11-23T21:00:00+24:00",
        "2026-11-23T21:00:00+01:60",
        "0000-12-31T23:59:59Z",
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
        " 2026-11-23T21:00:00Z",
        "2026-11-23T21:00:00Z\n",
    ],
)
def test_what_is_no_instant_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"instant|offset|years|month|day|hour|second|range"):
        parse_instant(text)


def test_uuids_and_bytes_have_one_text_each() -> None:
    known = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")
    assert parse_uuid("00112233-4455-6677-8899-AABBCCDDEEFF") == known
    assert value_text(known) == "00112233-4455-6677-8899-aabbccddeeff"
    for text in ["00112233445566778899aabbccddeeff", "{00112233-4455-6677-8899-aabbccddeeff}", ""]:
        with pytest.raises(ValueError, match="is no uuid"):
            parse_uuid(text)
    assert (parse_bytes("/wABAg=="), value_text(b"\xff\x00\x01\x02")) == (b"\xff\x00\x01\x02", "/wABAg==")
    for text in ["/wABAg", "/wABAg=", "_wABAg==", "/wABAh==", "/wAB Ag=="]:
        with pytest.raises(ValueError, match=r"base64|padding|characters|discontinuous"):
            parse_bytes(text)


def test_a_date_without_an_offset_is_no_instant() -> None:
    with pytest.raises(ValueError, match="has no time zone"):
        instant_value(datetime.datetime(2026, 11, 23))

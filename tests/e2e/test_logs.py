"""What the server logs, in which form, and what it never does: what clients send."""

from __future__ import annotations

import json

import pytest

from .cluster import Process, wait_formed
from .wire import ENCODINGS, Refused, Wire

SECRET = "a text that nobody else need know"
PROGRAM = f"""
    .decl note(k: number, text: symbol)
    .input note
    .decl copy(text: symbol)
    copy(t) :- note(_, t), t != "{SECRET} either".
    .output copy
"""


def run(environment: dict[str, str]) -> list[str]:
    """The lines of a server that was asked all sorts of things about a secret."""
    server = Process(["--listen", "127.0.0.1:0", "-w", "2"], environment)
    try:
        address = server.wait_listening()
        wait_formed(address)
        for number, encoding in enumerate(ENCODINGS):
            with Wire(address, encoding) as client:
                if number == 0:
                    client.register(PROGRAM, "module")
                subscription = client.subscribe("copy", where={"text": SECRET})
                client.insert("note", (number, SECRET), key=f"key of {SECRET} {number}", wait="visible")
                client.read("note", where={"text": SECRET})
                with pytest.raises(Refused):
                    client.insert("note", (SECRET, SECRET))
                assert subscription.relation == "copy"
        with Wire(address) as client:
            client.raw_bytes(f'{{"id": "x", "op": "{SECRET}"}}\n'.encode())
            client.call("unregister", name="module")
            client.call("shutdown")
        assert server.wait(20) == 0
    finally:
        server.kill()
    return server.output


def test_lines_are_json_where_that_is_wanted_and_say_what_happened() -> None:
    lines = run({"DATAFLOW_SERVE_LOG": "debug", "DATAFLOW_SERVE_LOG_FORMAT": "json"})
    records = [json.loads(line) for line in lines if not line.startswith("listening on ")]
    for record in records:
        assert {"timestamp", "level", "fields", "target"} <= record.keys(), record
    said = [(record["level"], record["fields"]["message"]) for record in records]
    formed = "generation 1 of the cluster is formed"
    for event in ("registered", "unregistered", "the worker is part of a cluster", formed):
        assert ("INFO", event) in said, event
    assert ("DEBUG", "opened") in said and ("DEBUG", "closed") in said
    assert not any(level in ("WARN", "WARNING", "ERROR") for level, _ in said), said


def test_no_level_logs_what_clients_send() -> None:
    assert SECRET not in "".join(run({"DATAFLOW_SERVE_LOG": "trace"}))


def test_by_default_nothing_is_logged_while_all_is_well() -> None:
    assert [line for line in run({}) if not line.startswith("listening on ")] == []

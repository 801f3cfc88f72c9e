"""Who may do what: tokens, roles, relations, and what is closed to whoever has none."""

from __future__ import annotations

import base64
import http.client
import json
import signal
import socket
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
import websocket

import dataflow_serve as ds

from .cluster import Cluster, Process
from .wire import ENCODINGS, PATIENCE, Closed, Refused, Wire

PROGRAM = ".decl e(x: number)\n.input e\n.decl d(x: number)\nd(x) :- e(x).\n.output d"
ROLES = ("reader", "writer", "admin")
WRONG_TOKENS_ALLOWED = 5


def entry(token: str, role: str, *relations: str) -> str:
    """A token as the configuration has it."""
    lines = ["[[token]]", f'hash = "sha256:{sha256(token.encode()).hexdigest()}"', f'role = "{role}"']
    return "\n".join([*lines, *([f"relations = {list(relations)}"] if relations else []), ""])


@pytest.fixture(scope="module")
def configuration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("access") / "server.toml"
    file.write_text(
        'hosts = ["db.example"]\n'
        + "".join(entry(f"the-{role}", role) for role in ROLES)
        + entry("only-e", "writer", "e", "net.*")
    )
    return file


@pytest.fixture(scope="module", params=[(1, 2), (2, 1)], ids=lambda shape: f"{shape[0]}x{shape[1]}")
def guarded(request: pytest.FixtureRequest, configuration: Path) -> Iterator[Cluster]:
    """A cluster that wants tokens, with a program."""
    cluster = Cluster(*request.param, "--config", str(configuration), token="the-admin")
    cluster.open().register(PROGRAM, "p")
    yield cluster
    cluster.kill()


def refusal(client: Wire, op: str, **fields: object) -> dict[str, object]:
    with pytest.raises(Refused) as refused:
        client.call(op, **fields)
    return refused.value.error


def is_closed(client: Wire) -> None:
    with pytest.raises(Closed) as closed:
        while True:
            client.pump()
    if client.encoding.startswith("ws"):
        assert closed.value.code == 1008


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_without_a_token_nothing_is_served(guarded: Cluster, encoding: str) -> None:
    for op, fields in (
        ("hello", {"version": 1}),
        ("ping", {}),
        ("read", {"relation": "e"}),
        ("read", {"relation": "no such relation"}),
        ("transact", {"changes": [{"relation": "e", "insert": [["not a number"]]}]}),
        ("shutdown", {}),
    ):
        with Wire(guarded.addresses[0], encoding, hello=False) as client:
            error = refusal(client, op, **fields)
            assert (error["code"], error["message"]) == ("forbidden", "this server wants a token")
            is_closed(client)
    with Wire(guarded.addresses[0], encoding, hello=False) as client:
        assert client.raw({"id": "x", "op": "nonsense"})["error"]["code"] == "incorrect"
        is_closed(client)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_wrong_token_is_forbidden_and_a_right_one_is_let_in(guarded: Cluster, encoding: str) -> None:
    address = guarded.addresses[-1]
    with Wire(address, encoding, hello=False) as client:
        assert refusal(client, "hello", version=1, token="the-reade")["code"] == "forbidden"
        is_closed(client)
    with Wire(address, encoding, token="the-reader") as client:
        assert client.read("d") == {}


@pytest.mark.parametrize("role", ROLES)
def test_roles(guarded: Cluster, role: str) -> None:
    """What a role doesn't allow is forbidden, has no effect, and leaves the connection as it is."""
    admin = guarded.open()
    with Wire(guarded.addresses[-1], "msgpack", token=f"the-{role}") as client:
        rank = ROLES.index(role)
        subscription = client.subscribe("d")
        client.call("explain", relation="d")
        client.call("status")
        for needed, op, fields in (
            (1, "transact", {"changes": [{"relation": "e", "insert": [[1]]}]}),
            (1, "transact", {"changes": [{"relation": "e", "delete": [[1]]}]}),
            (1, "register", {"program": ".decl q(x: number)\n.input q", "name": "q"}),
            (1, "unregister", {"name": "q"}),
            (2, "tune", {"steps_per_turn": 16}),
        ):
            if rank >= needed:
                client.call(op, **fields)
            else:
                error = refusal(client, op, **fields)
                assert error["code"] == "forbidden", error
                needs = ROLES[needed]
                assert error["message"] == f"`{op}` needs the role {needs}, and this token's is {role}"
        if rank < 2:
            assert refusal(client, "shutdown")["code"] == "forbidden"
        assert [each["name"] for each in client.call("status")["relations"]] == ["d", "e"]
        client.unsubscribe(subscription)
    assert admin.read("e") == {}


def test_a_token_for_some_relations_sees_and_reaches_only_these(guarded: Cluster) -> None:
    with Wire(guarded.addresses[0], token="only-e") as client:
        time = client.insert("e", [7])
        assert client.subscribe("e").until(time) == {(7,): 1}
        assert [each["name"] for each in client.call("status")["relations"]] == ["e"]
        for op, fields in (
            ("read", {"relation": "d"}),
            ("read", {"relation": "not there"}),
            ("subscribe", {"relation": "d"}),
            ("transact", {"changes": [{"relation": "e", "delete": [[7]]}, {"relation": "d", "insert": []}]}),
            ("explain", {"relation": "e"}),
            ("register", {"program": ".decl q(x: number)\nq(x) :- d(x)."}),
            ("unregister", {"name": "p"}),
            ("tune", {}),
        ):
            assert refusal(client, op, **fields)["code"] == "forbidden", op
        assert refusal(client, "read", relation="net.x")["code"] == "not-found"
        assert client.read("e") == {(7,): 1}
        client.delete("e", [7])


def test_another_hello_changes_what_a_connection_may_do(guarded: Cluster) -> None:
    with Wire(guarded.addresses[0], token="the-reader") as client:
        assert refusal(client, "tune")["code"] == "forbidden"
        client.hello("the-admin")
        client.call("tune")
        client.hello()
        client.call("tune")


def dial_websocket(address: tuple[str, int], **options: object) -> websocket.WebSocket:
    host, port = address
    return websocket.create_connection(f"ws://{host}:{port}/", timeout=PATIENCE, **options)


def test_a_websocket_may_bring_its_token_with_the_upgrade(guarded: Cluster) -> None:
    address = guarded.addresses[0]
    opened = dial_websocket(address, header=["Authorization: Bearer the-reader"])
    opened.send('{"id": 1, "op": "read", "relation": "e"}')
    assert "ok" in json.loads(opened.recv())
    opened.send('{"id": 2, "op": "tune"}')
    assert json.loads(opened.recv())["error"]["code"] == "forbidden"
    opened.close()
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        dial_websocket(address, header=["Authorization: Bearer wrong"])
    assert refused.value.status_code == 401


@pytest.mark.parametrize(
    ("options", "admitted"),
    [
        ({}, True),
        ({"origin": "http://evil.example"}, False),
        ({"origin": "null"}, False),
        ({"host": "evil.example"}, False),
        ({"host": "evil.example:6262", "origin": "http://evil.example:6262"}, False),
        ({"host": "db.example:6262", "origin": "http://db.example:6262"}, True),
        ({"host": "localhost:1", "origin": "http://localhost:1"}, True),
        ({"suppress_origin": True}, True),
    ],
    ids=str,
)
def test_foreign_pages_and_foreign_names_open_no_websocket(
    guarded: Cluster, options: dict[str, object], admitted: bool
) -> None:
    try:
        dial_websocket(guarded.addresses[0], **options).close()
    except websocket.WebSocketBadStatusException as refused:
        assert not admitted and refused.status_code == 403
    else:
        assert admitted


def get(address: tuple[str, int], path: str, **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(*address, timeout=PATIENCE)
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    response.body = response.read()  # type: ignore[attr-defined]
    connection.close()
    return response


def test_http_says_whether_it_lives_to_all_and_more_to_those_with_a_token(guarded: Cluster) -> None:
    address = guarded.addresses[0]
    password = base64.b64encode(b"me:the-reader").decode()
    only_e = base64.b64encode(b"me:only-e").decode()
    for path in ("/health/live", "/health/ready"):
        assert get(address, path).status == 200
    for path in ("/", "/metrics"):
        nobody = get(address, path)
        assert nobody.status == 401
        assert "Basic" in (nobody.getheader("www-authenticate") or "")
        assert get(address, path, Authorization="Bearer wrong").status == 401
        assert get(address, path, Authorization="Bearer the-reader").status == 200
        assert get(address, path, Authorization=f"Basic {password}").status == 200
        assert get(address, path, Authorization=f"Basic {only_e}").status == 403
    foreign = get(address, "/", Authorization="Bearer the-reader", Host="evil.example")
    assert foreign.status == 403
    assert get(address, "/metrics", Authorization="Bearer the-reader", Host="a-target").status == 200


def test_wrong_tokens_make_an_address_wait_and_nobody_else(guarded: Cluster) -> None:
    """From an address of its own, so that other tests are none the worse for it."""
    guesser, (host, port) = "127.0.0.66", guarded.addresses[0]

    def answer(token: str, source: str) -> dict[str, object]:
        with socket.create_connection((host, port), PATIENCE, (source, 0)) as connection:
            connection.sendall(json.dumps({"op": "hello", "version": 1, "token": token}).encode() + b"\n")
            reply: dict[str, object] = json.loads(connection.makefile().readline())
            return reply

    codes = [answer("guess", guesser)["error"]["code"] for _ in range(WRONG_TOKENS_ALLOWED)]  # type: ignore[index]
    assert codes == ["forbidden"] * WRONG_TOKENS_ALLOWED
    error = answer("the-reader", guesser)["error"]
    assert (error["code"], error["retry"]) == ("busy", True)  # type: ignore[index]
    assert "ok" in answer("the-reader", "127.0.0.67")


def test_a_connection_that_gives_no_token_is_closed_in_time(guarded: Cluster) -> None:
    """Five seconds: it may keep its place no longer than one that says nothing at all."""
    opened = dial_websocket(guarded.addresses[0])
    opcode, data = opened.recv_data()
    assert (opcode, int.from_bytes(data[:2], "big")) == (websocket.ABNF.OPCODE_CLOSE, 1008)
    opened.shutdown()


def test_tokens_are_read_again_on_sighup(tmp_path: Path) -> None:
    """Those that are gone lose their connections, those that changed their role have the new one at once."""
    file = tmp_path / "server.toml"
    file.write_text(entry("one", "admin") + entry("two", "writer") + entry("three", "writer"))
    cluster = Cluster(1, 2, "--config", str(file), token="one")
    try:
        one, two, three = (Wire(cluster.addresses[0], token=token) for token in ("one", "two", "three"))
        one.register(PROGRAM)
        file.write_text("this is no TOML")
        cluster.members[0].popen.send_signal(signal.SIGHUP)
        file.write_text(entry("one", "admin") + entry("three", "reader") + entry("four", "reader"))
        cluster.members[0].popen.send_signal(signal.SIGHUP)
        is_closed(two)
        assert refusal(three, "transact", changes=[])["code"] == "forbidden"
        with Wire(cluster.addresses[0], token="four") as four:
            assert four.read("e") == {}
        with pytest.raises(Refused, match="forbidden"):
            Wire(cluster.addresses[0], token="two")
        one.insert("e", [1])
        for client in (one, two, three):
            client.close()
    finally:
        cluster.kill()


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0"])
def test_a_server_that_others_reach_wants_a_token_or_the_word(address: str, tmp_path: Path) -> None:
    process = Process(["--listen", address], {})
    assert process.wait(PATIENCE) == 2
    output = "".join(process.output)
    assert "can be reached from other machines" in output
    assert "--insecure" in output and "[[token]]" in output
    file = tmp_path / "server.toml"
    file.write_text(entry("one", "admin"))
    for options in (["--insecure"], ["--config", str(file)]):
        process = Process(["--listen", "0.0.0.0:0", *options], {})
        try:
            process.wait_listening()
        finally:
            process.kill()


def test_the_command_makes_tokens(tmp_path: Path) -> None:
    """The token is on standard error, its lines for the configuration on standard output."""
    made = Process(["token", "--role", "writer", "--name", 'the "loader"', "--relation", "e"], {})
    assert made.wait(PATIENCE) == 0
    shown = [line for line in made.output if line.startswith("token: ")]
    token = shown[0].removeprefix("token: ").strip()
    file = tmp_path / "server.toml"
    file.write_text(entry("boss", "admin") + "".join(line for line in made.output if line not in shown))
    cluster = Cluster(1, 1, "--config", str(file), token="boss")
    try:
        cluster.open().register(PROGRAM)
        with Wire(cluster.addresses[0], token=token) as client:
            assert client.insert("e", [1]) > 0
            assert refusal(client, "read", relation="d")["code"] == "forbidden"
    finally:
        cluster.kill()


@pytest.mark.parametrize("scheme", ["df", "ws"])
def test_the_packages_client_gives_its_token(guarded: Cluster, scheme: str) -> None:
    host, port = guarded.addresses[0]
    with ds.connect(f"{scheme}://{host}:{port}", token="the-writer") as db:
        db.transact(e=[(1,)])
        assert db["d"].rows() == [(1,)]
        db.transact(delete={"e": [(1,)]})
        with pytest.raises(ds.ForbiddenError, match="`tune` needs the role admin"):
            db._portal.call(lambda: db._client.tune())
    with pytest.raises(ds.ForbiddenError, match="token"):
        ds.connect(f"{scheme}://{host}:{port}")
    with pytest.raises(ds.ForbiddenError, match="token"):
        ds.connect(f"{scheme}://{host}:{port}", token="wrong")

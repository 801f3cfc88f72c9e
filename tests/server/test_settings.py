"""Where settings come from, which source wins, and what is said of a mistake."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from dataflow_serve.errors import IncorrectError
from dataflow_serve.server._access import make_token, token_hash
from dataflow_serve.server._cluster import limit_defaults
from dataflow_serve.server._settings import load


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text('listen = "a:1"\nthreads = 2\nspin = true\n[tunables]\npark_micros = 5\nemit_rows = 6\n')
    environment = {"DATAFLOW_SERVE_THREADS": "3", "DATAFLOW_SERVE_LISTEN": "b:2", "DATAFLOW_SERVE_OTHER": "x"}
    settings = load({"threads": 4, "processes": None, "tunables": {"emit_rows": 7}}, str(file), environment)
    assert (settings.listen, settings.threads, settings.processes, settings.spin) == ("b:2", 4, 1, True)
    assert settings.tunables == {"park_micros": 5, "emit_rows": 7}


def test_limits_and_tunables_have_variables_too(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text("[limits]\nmax_connections = 5\nhandshake_seconds = 2.5\n[tunables]\nemit_rows = 6\n")
    environment = {
        "DATAFLOW_SERVE_LIMIT_MAX_CONNECTIONS": "7",
        "DATAFLOW_SERVE_LIMIT_LIMIT_LOOPBACK": "true",
        "DATAFLOW_SERVE_TUNE_PARK_MICROS": "8",
    }
    settings = load({"limits": {"handshake_seconds": 3}, "tunables": {}}, str(file), environment)
    assert settings.limits == {"max_connections": 7, "handshake_seconds": 3, "limit_loopback": True}
    assert settings.tunables == {"emit_rows": 6, "park_micros": 8}
    with pytest.raises(IncorrectError, match="DATAFLOW_SERVE_LIMIT_MAX_CONNECTIONS: 'many' is no number"):
        load({}, None, {"DATAFLOW_SERVE_LIMIT_MAX_CONNECTIONS": "many"})


def test_every_limit_and_its_default_are_in_the_documents() -> None:
    page = (Path(__file__).parents[2] / "docs" / "security.md").read_text(encoding="utf-8")
    documented = dict(re.findall(r"^\| `(\w+)` \| ([0-9,.]+|yes|no) \|", page, re.MULTILINE))
    defaults = limit_defaults()
    assert defaults.keys() <= documented.keys()
    for name, value in defaults.items():
        spelled = {True: "yes", False: "no"}[value] if isinstance(value, bool) else f"{value:,g}"
        assert documented[name] == (f"{value:,}" if isinstance(value, int) and value > 1 else spelled), name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('theads = 2\n[tunables]\n"x" = 1', "theads"),
        ('threads = "two"', "$.threads"),
        ("threads = 2 x", "line 1"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "server.toml"
    file.write_text(text)
    with pytest.raises(IncorrectError) as error:
        load({}, str(file), {})
    assert str(file) in str(error.value) and message in str(error.value)


def test_a_mistake_in_the_environment_is_named() -> None:
    with pytest.raises(IncorrectError, match="DATAFLOW_SERVE_THREADS"):
        load({}, None, {"DATAFLOW_SERVE_THREADS": "many"})


def test_tokens_names_and_origins(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text(f'listen = "0.0.0.0:1"\n[[token]]\nhash = "{token_hash("abc")}"\nrole = "reader"\n')
    environment = {
        "DATAFLOW_SERVE_HOSTS": "a.example, b.example",
        "DATAFLOW_SERVE_ORIGINS": "https://c.example",
    }
    access = json.loads(load({}, str(file), environment).to_core())["access"]
    assert [(token["role"], token["relations"]) for token in access["tokens"]] == [("reader", None)]
    # The first example of FIPS 180-2.
    assert access["tokens"][0]["hash"] == (
        "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
    assert {"a.example", "b.example", "0.0.0.0"} <= set(access["hosts"])
    assert access["origins"] == ["https://c.example"]
    file.write_text('[[token]]\nhash = "x"\nrole = "king"\n')
    with pytest.raises(IncorrectError, match=r"king.*token\[0\]\.role"):
        load({}, str(file), {})


def test_made_tokens_differ() -> None:
    tokens = {make_token() for _ in range(100)}
    assert len(tokens) == 100
    assert min(map(len, tokens)) >= 43


@pytest.mark.parametrize(
    ("listen", "loopback"),
    [
        *((host, True) for host in ("127.0.0.1:1", "127.1.2.3:1", "localhost:1", "[::1]:1")),
        *((host, False) for host in ("0.0.0.0:1", "[::]:1", "192.0.2.1:1")),
    ],
)
def test_beyond_this_machine_somebody_must_be_known(listen: str, loopback: bool) -> None:
    if loopback:
        load({"listen": listen}, None, {}).check_exposure()
        return
    with pytest.raises(IncorrectError, match=r"reached from other machines.*dataflow-serve token"):
        load({"listen": listen}, None, {}).check_exposure()
    load({"listen": listen, "insecure": True}, None, {}).check_exposure()


def test_links_to_other_machines_need_a_secret(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("192.0.2.1:1\n192.0.2.2:1\n")
    flags = {"processes": 2, "hostfile": str(hosts)}
    with pytest.raises(IncorrectError, match="DATAFLOW_SERVE_SECRET"):
        load(flags, None, {}).check_exposure()
    load({**flags, "secret": "s"}, None, {}).check_exposure()
    load({**flags, "insecure": True}, None, {}).check_exposure()


def test_the_host_file_names_the_processes(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("one:1\n\n two:2 \nthree:3\n")
    settings = load({"processes": 2, "process": 1, "hostfile": str(hosts), "secret": "s"}, None, {})
    assert json.loads(settings.to_core())["mesh"] == ["one:1", "two:2"]
    with pytest.raises(IncorrectError, match="names 3 hosts for 4"):
        load({"processes": 4, "hostfile": str(hosts)}, None, {}).to_core()
    with pytest.raises(IncorrectError, match="no host file"):
        load({"processes": 2}, None, {}).to_core()
    with pytest.raises(IncorrectError, match="cannot read"):
        load({"processes": 2, "hostfile": str(tmp_path / "none")}, None, {}).to_core()

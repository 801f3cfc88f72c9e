"""TLS on the port for clients: every dialect, certificates that are replaced, certificates of clients."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import ssl
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

import dataflow_serve as ds
from dataflow_serve.client import client_context

from .cluster import Cluster, Process
from .test_access import PROGRAM, entry
from .wire import ENCODINGS, PATIENCE, SERVER_NAME, Wire


@dataclass
class Authority:
    """An authority and where its certificates are."""

    ca: trustme.CA
    directory: Path

    @classmethod
    def make(cls, directory: Path) -> Authority:
        directory.mkdir(parents=True, exist_ok=True)
        authority = cls(trustme.CA(), directory)
        authority.ca.cert_pem.write_to_path(str(authority.file))
        return authority

    @property
    def file(self) -> Path:
        return self.directory / "ca.pem"

    def issue(self, path: Path, *names: str) -> Path:
        """A certificate with its key, written at once: a server that looks sees the old or the new one."""
        issued = self.ca.issue_cert(*(names or (SERVER_NAME, "127.0.0.1")))
        new = path.with_suffix(".new")
        issued.private_key_and_cert_chain_pem.write_to_path(str(new))
        os.replace(new, path)
        return path

    def context(self, certificate: Path | None = None) -> ssl.SSLContext:
        """What a client of this authority trusts."""
        context = ssl.create_default_context(cafile=self.file)
        if certificate is not None:
            context.load_cert_chain(certificate)
        return context


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def encrypted(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A server that takes nothing but TLS."""
    directory = tmp_path_factory.mktemp("server")
    file = directory / "server.toml"
    certificate = authority.issue(directory / "server.pem", SERVER_NAME)
    file.write_text(f'tls_certificate = "{certificate}"\n' + entry("secret", "admin"))
    cluster = Cluster(1, 2, "--config", str(file), token="secret")
    with Wire(cluster.addresses[0], token="secret", tls=authority.context()) as client:
        client.register(PROGRAM, "p")
    yield cluster
    cluster.kill()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_dialect_goes_through_tls(encrypted: Cluster, authority: Authority, encoding: str) -> None:
    with Wire(encrypted.addresses[0], encoding, token="secret", tls=authority.context()) as client:
        subscription = client.subscribe("d")
        rows = [(number,) for number in range(2000)]
        time = client.insert("e", *rows)
        assert subscription.until(time) == dict.fromkeys(rows, 1)
        client.delete("e", *rows)
        assert client.read("d") == {}


def test_http_goes_through_tls(encrypted: Cluster, authority: Authority) -> None:
    port, context = encrypted.addresses[0][1], authority.context()
    connection = http.client.HTTPSConnection(SERVER_NAME, port, timeout=PATIENCE, context=context)
    connection.request("GET", "/metrics", headers={"Authorization": "Bearer secret"})
    response = connection.getresponse()
    assert response.status == 200
    assert b"dataflow_turns_total" in response.read()
    connection.close()


def test_this_machine_may_do_without_tls_and_plaintext_can_be_refused(
    encrypted: Cluster, authority: Authority, tmp_path: Path
) -> None:
    with Wire(encrypted.addresses[0], token="secret") as client:
        client.call("ping")
    file = tmp_path / "server.toml"
    file.write_text(f'tls_certificate = "{authority.issue(tmp_path / "a.pem")}"\nplaintext = "never"\n')
    process = Process(["--listen", "127.0.0.1:0", "--config", str(file)], {})
    try:
        address = process.wait_listening()
        with socket.create_connection(address, PATIENCE) as connection:
            connection.sendall(b'{"op": "ping"}\n')
            answer = connection.makefile().read()
        assert '"forbidden"' in answer and "this server wants TLS" in answer
        connection = http.client.HTTPConnection(*address, timeout=PATIENCE)
        connection.request("GET", "/health/live")
        assert connection.getresponse().status == 403
        connection.close()
        with pytest.raises(ds.ForbiddenError, match=r"wants TLS.*dfs://"):
            ds.connect(f"df://{address[0]}:{address[1]}")
    finally:
        process.kill()


@pytest.mark.parametrize("how", ["signal", "files"])
def test_a_replaced_certificate_is_shown_to_new_connections(tmp_path: Path, how: str) -> None:
    """Open connections go on; a certificate that can't be used changes nothing."""
    old, new = Authority.make(tmp_path / "old"), Authority.make(tmp_path / "new")
    certificate = old.issue(tmp_path / "server.pem")
    file = tmp_path / "server.toml"
    seconds = 0 if how == "signal" else 0.05
    file.write_text(f'tls_certificate = "{certificate}"\ntls_reload_seconds = {seconds}\n')
    cluster = Cluster(1, 1, "--config", str(file))
    try:
        address = cluster.addresses[0]
        with Wire(address, tls=old.context()) as before:
            if how == "signal":
                certificate.write_text("not a certificate")
                cluster.members[0].popen.send_signal(signal.SIGHUP)
                cluster.members[0].wait_said("left as it was")
                with Wire(address, tls=old.context()) as still:
                    still.call("ping")
            new.issue(certificate)
            if how == "signal":
                cluster.members[0].popen.send_signal(signal.SIGHUP)
            while True:
                try:
                    Wire(address, tls=new.context()).close()
                    break
                except ssl.SSLCertVerificationError:
                    continue
            with pytest.raises(ssl.SSLCertVerificationError):
                Wire(address, tls=old.context())
            before.call("ping")
    finally:
        cluster.kill()


def test_clients_may_have_to_show_a_certificate(authority: Authority, tmp_path: Path) -> None:
    """With it nobody needs a token: who has a certificate may come in, from wherever."""
    strangers = Authority.make(tmp_path / "strangers")
    server = authority.issue(tmp_path / "server.pem")
    file = tmp_path / "server.toml"
    file.write_text(
        f'tls_certificate = "{server}"\ntls_client_ca = "{authority.file}"\nplaintext = "never"\n'
    )
    process = Process(["--listen", "0.0.0.0:0", "--config", str(file)], {})
    try:
        port = process.wait_listening()[1]
        url = f"dfs://{SERVER_NAME}:{port}"
        known = authority.issue(tmp_path / "known.pem", "client.example")
        stranger = strangers.issue(tmp_path / "stranger.pem", "client.example")
        with ds.connect(url, ssl_context=client_context(authority.file, known)) as db:
            db.register(PROGRAM)
            db.transact(e=[(1,)])
            assert db["d"].rows() == [(1,)]
        for context in (client_context(authority.file), client_context(authority.file, stranger)):
            with pytest.raises(ds.ForbiddenError, match="certificate of this client"):
                ds.connect(url, ssl_context=context, reconnect=False)
    finally:
        process.kill()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tls-certificate", "/nowhere.pem"], "could not read the certificate in"),
        (["--tls-certificate", __file__], "could not read the certificate in"),
        (["--tls-key", "/nowhere.pem"], "no tls_certificate for tls_key"),
    ],
    ids=["missing", "no PEM", "half"],
)
def test_a_certificate_that_cannot_be_used_is_said_clearly(options: list[str], message: str) -> None:
    process = Process(["--listen", "127.0.0.1:0", *options], {})
    assert process.wait(PATIENCE) == 2
    output = "".join(process.output)
    assert message in output and "Traceback" not in output, output


@pytest.mark.parametrize("scheme", ["dfs", "wss"])
def test_the_packages_client_through_tls(encrypted: Cluster, authority: Authority, scheme: str) -> None:
    url = f"{scheme}://{SERVER_NAME}:{encrypted.addresses[0][1]}"
    context = client_context(authority.file)
    with ds.connect(url, token="secret", ssl_context=context) as db:
        rows = [(number,) for number in range(5000)]
        db.transact(e=rows)
        assert sorted(db["d"].rows()) == rows
        db.transact(delete={"e": rows})
    with pytest.raises(ds.UnavailableError, match=r"cannot trust the server .*--ca FILE"):
        ds.connect(url, token="secret")
    with pytest.raises(ds.UnavailableError, match=r"cannot trust the server"):
        ds.connect(url.replace(SERVER_NAME, "127.0.0.1"), token="secret", ssl_context=context)
    with pytest.raises(ds.LocalProtocolError, match=f"write {scheme}://"):
        ds.connect(url.replace(scheme, scheme[:-1]), ssl_context=context)


def test_tls_to_a_server_without_is_said_clearly() -> None:
    with ds.serve() as db:
        for scheme in ("dfs", "wss"):
            with pytest.raises(ds.UnavailableError, match=r"speaks no TLS.*df:// or ws://"):
                ds.connect(f"{scheme}://127.0.0.1:{db.port}")


def test_an_embedded_server_with_a_certificate(authority: Authority, tmp_path: Path) -> None:
    certificate = authority.issue(tmp_path / "server.pem")
    with ds.serve(certificate=certificate, token="ours") as db:
        db.register(PROGRAM)
        assert db.url.startswith("dfs://")
        context = client_context(authority.file)
        with ds.connect(f"dfs://{SERVER_NAME}:{db.port}", token="ours", ssl_context=context) as other:
            assert other["d"].rows() == []


def test_the_command_line_through_tls(encrypted: Cluster, authority: Authority) -> None:
    port = encrypted.addresses[0][1]
    command = [sys.executable, str(Path(sysconfig.get_path("scripts")) / "dataflow"), "read", "e"]
    options = ["--url", f"dfs://{SERVER_NAME}:{port}", "--token", "secret", "--format", "csv"]

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *options, *more], capture_output=True, text=True, timeout=PATIENCE)

    trusted = run("--ca", str(authority.file))
    assert (trusted.returncode, trusted.stdout) == (0, "x\n"), trusted.stderr
    untrusted = run()
    assert untrusted.returncode == 3 and "--ca FILE" in untrusted.stderr
    wrong = run("--ca", __file__)
    assert wrong.returncode == 1 and "cannot use the certificates in" in wrong.stderr

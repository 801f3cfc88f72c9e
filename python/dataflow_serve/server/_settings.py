"""How a process of the server is set up: defaults, then a TOML file, then the environment, then flags."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from dataflow_serve.errors import IncorrectError
from dataflow_serve.server._access import Token, is_loopback
from dataflow_serve.sources import Source, parse

__all__ = ["Settings", "load"]

ENVIRONMENT = "DATAFLOW_SERVE_"
"""Settings can be given by a variable: this prefix, and the name in capitals. Lists have commas."""
TABLES = {"tunables": "TUNE_", "limits": "LIMIT_", "token": None, "source": None}
"""Tables of the file, and how the variables of their entries begin: ``DATAFLOW_SERVE_LIMIT_<NAME>``."""
PYTHONS_OWN = (
    "hostfile",
    "source",
    "token",
    "hosts",
    "origins",
    "insecure",
    "plaintext",
    "tls_certificate",
    "tls_key",
    "tls_client_ca",
    "tls_reload_seconds",
)
"""Settings that the workers get in another form, or not at all."""
Plaintext = Literal["never", "loopback", "always"]
LimitValue: TypeAlias = bool | Annotated[int, msgspec.Meta(ge=0)] | Annotated[float, msgspec.Meta(ge=0)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One process of a cluster."""

    listen: str = "127.0.0.1:6262"
    """Address for clients; port 0 takes a free one."""
    threads: int = 1
    """Workers of this process."""
    io_threads: int = 0
    """Threads that read, decode, encode and write for the workers; with none these do it themselves."""
    processes: int = 1
    """Processes of the cluster."""
    process: int = 0
    """This process's index in the cluster."""
    hostfile: str | None = None
    """File with the address, one a line, at which each process reaches the others."""
    secret: str | None = None
    """Known to the processes of one cluster; whoever doesn't know it isn't let in."""
    heartbeat_millis: int = 1000
    """Between two signs of life that the processes give each other."""
    suspect_millis: int = 5000
    """Silence after which another process counts as gone, which ends the generation."""
    enable_echo: bool = False
    """Answer ``/echo`` with a WebSocket that echoes, for conformance suites."""
    enable_faults: bool = False
    """Let a module ask by its name for something to go wrong in it, for test suites."""
    spin: bool = False
    """Never park: lowest latency, one core a worker."""
    tls_certificate: str | None = None
    """PEM file with the certificate, and those between it and its authority. Without one there is no TLS."""
    tls_key: str | None = None
    """PEM file with the certificate's private key; by default it is in the same file."""
    tls_client_ca: str | None = None
    """PEM file with authorities: clients without a certificate of theirs aren't let in."""
    tls_reload_seconds: float = 60.0
    """How often to look whether these files have changed; 0 for never."""
    plaintext: Plaintext = "loopback"
    """From where connections without TLS are taken where there is a certificate: ``never``, from the
    ``loopback``, or ``always``."""
    token: list[Token] = []
    """Who may do what. Without tokens, whoever reaches the port may do everything."""
    hosts: list[str] = []
    """Names by which browsers may call this server, besides ``localhost``, addresses, the name in ``listen``
    and this machine's own; ``*`` for any."""
    origins: list[str] = []
    """Origins of pages that may open WebSockets, such as ``https://app.example``, besides the server's own;
    ``*`` for any."""
    insecure: bool = False
    """Listen where others can reach the server, though it can't tell who they are."""
    limits: dict[str, LimitValue] = {}
    """What connections may take and how long; `docs/security.md` has the names."""
    source: list[dict[str, Any]] = []
    """External sources to read, each with a ``name`` of its own; `docs/sources.md` says what else."""
    tunables: dict[str, int] = {}
    """What ``tune`` can change while the server runs, as it is at the start."""

    def mesh(self) -> list[str]:
        """The addresses at which the processes reach each other.

        Raises:
            IncorrectError: the host file is missing, can't be read or names too few.
        """
        if self.processes == 1:
            return []
        if self.hostfile is None:
            raise IncorrectError(
                f"no host file for {self.processes} processes",
                "Give a file with one host:port a line, one line a process.",
            )
        try:
            lines = Path(self.hostfile).read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise IncorrectError(f'cannot read host file "{self.hostfile}": {error.strerror}') from error
        hosts = [line.strip() for line in lines if line.strip()]
        if len(hosts) < self.processes:
            raise IncorrectError(
                f'host file "{self.hostfile}" names {len(hosts)} hosts for {self.processes} processes'
            )
        return hosts[: self.processes]

    def check_exposure(self) -> None:
        """See to it that nobody listens beyond this machine without knowing who comes in.

        Raises:
            IncorrectError: an address can be reached by others, and neither is there anything that would tell
                them apart nor was it said that this is meant.
        """
        if self.insecure:
            return
        known = self.token or (self.tls_client_ca and self.plaintext != "always")
        if not known and not is_loopback(self.listen):
            raise IncorrectError(
                f'"{self.listen}" can be reached from other machines, and nobody is asked for a token',
                "Add a [[token]] to the configuration (`dataflow-serve token` makes one), listen on "
                "127.0.0.1, or give --insecure if you mean it.",
            )
        own = self.mesh()[self.process : self.process + 1]
        if own and not self.secret and not is_loopback(own[0]):
            raise IncorrectError(
                f'"{own[0]}" can be reached from other machines, and the processes have no secret',
                "Set DATAFLOW_SERVE_SECRET to the same long text for all of them, or give --insecure if you "
                "mean it.",
            )

    def access(self) -> dict[str, Any]:
        """Who may do what, as the workers know it."""
        names = [self.listen.rpartition(":")[0], socket.gethostname()]
        return {
            "tokens": [msgspec.structs.asdict(token) for token in self.token],
            "hosts": [*self.hosts, *names],
            "origins": self.origins,
            "plaintext": "always" if self.tls_certificate is None else self.plaintext,
        }

    def tls(self) -> dict[str, str | None] | None:
        """Where the certificate is, as the workers know it.

        Raises:
            IncorrectError: there is a part of it only.
        """
        if self.tls_certificate is None:
            if self.tls_key is not None or self.tls_client_ca is not None:
                raise IncorrectError("no tls_certificate for tls_key or tls_client_ca", "Name its PEM file.")
            return None
        return {
            "certificate": self.tls_certificate,
            "key": self.tls_key or self.tls_certificate,
            "client_ca": self.tls_client_ca,
        }

    def is_readable(self) -> bool:
        """Whether tokens and data can be read on their way from other machines."""
        return (self.tls_certificate is None or self.plaintext == "always") and not is_loopback(self.listen)

    def sources(self) -> dict[str, Source]:
        """The external sources, by name.

        Raises:
            IncorrectError: one has no name or another's, or can't be understood.
        """
        sources: dict[str, Source] = {}
        for number, each in enumerate(self.source):
            document = dict(each)
            name = document.pop("name", None)
            if not isinstance(name, str) or not name:
                raise IncorrectError(f"`[[source]]` number {number + 1} has no name")
            if name in sources:
                raise IncorrectError(f"two sources are named {name!r}")
            sources[name] = parse(name, document)
        return sources

    def to_core(self) -> str:
        """The document that the workers are started with.

        Raises:
            IncorrectError: the settings contradict each other, or are unsafe.
        """
        self.check_exposure()
        fields = msgspec.structs.asdict(self)
        for name in PYTHONS_OWN:
            del fields[name]
        made = {"mesh": self.mesh(), "access": self.access(), "tls": self.tls()}
        return msgspec.json.encode({**fields, **made}).decode()


def load(
    flags: Mapping[str, Any], file: str | None = None, environment: Mapping[str, str] = os.environ
) -> Settings:
    """Put the sources together; a flag that is None wasn't given.

    Raises:
        IncorrectError: a setting is unknown or of the wrong type; the message says which and where.
    """
    merged = _from_file(file) if file is not None else {}
    for name, value in _from_environment(environment).items():
        merged[name] = {**merged.get(name, {}), **value} if name in TABLES else value
    given = {name: value for name, value in flags.items() if value is not None}
    for table in ("tunables", "limits"):
        given[table] = {**merged.get(table, {}), **given.get(table, {})}
    return _converted({**merged, **given}, "flags")


def _from_file(file: str) -> dict[str, Any]:
    import tomllib

    try:
        with open(file, "rb") as source:
            document = tomllib.load(source)
    except OSError as error:
        raise IncorrectError(f'cannot read configuration "{file}": {error.strerror}') from error
    except tomllib.TOMLDecodeError as error:
        raise IncorrectError(f'configuration "{file}": {error}') from error
    _converted(document, f'configuration "{file}"')
    return document


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in msgspec.structs.fields(Settings):
        variable = ENVIRONMENT + field.name.upper()
        if field.name not in TABLES and variable in environment:
            value: Any = environment[variable]
            if field.type == list[str]:
                value = [part.strip() for part in value.split(",") if part.strip()]
            try:
                found[field.name] = msgspec.convert(value, field.type, strict=False)
            except msgspec.ValidationError as error:
                raise IncorrectError(f"environment variable {variable}: {error}") from error
    for table, prefix in TABLES.items():
        for variable, text in environment.items():
            if prefix is not None and variable.startswith(ENVIRONMENT + prefix):
                name = variable.removeprefix(ENVIRONMENT + prefix).lower()
                found.setdefault(table, {})[name] = _number(variable, text)
    return found


def _number(variable: str, text: str) -> bool | int | float:
    try:
        return msgspec.json.decode(text, type=bool | int | float)
    except msgspec.DecodeError as error:
        raise IncorrectError(f"environment variable {variable}: {text!r} is no number") from error


def _converted(document: dict[str, Any], source: str) -> Settings:
    try:
        return msgspec.convert(document, Settings)
    except msgspec.ValidationError as error:
        raise IncorrectError(f"{source}: {error}") from error

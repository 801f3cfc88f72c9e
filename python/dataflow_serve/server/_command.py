"""The command ``dataflow-serve``: argument parsing, signals, exit codes."""

from __future__ import annotations

import logging
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import click
import msgspec
import outcome
import trio

from dataflow_serve.errors import DataflowError, WorkerFailed
from dataflow_serve.server import _logs
from dataflow_serve.server._access import ROLES, make_token, token_hash
from dataflow_serve.server._cluster import Cluster, limit_defaults, tunable_names
from dataflow_serve.server._orchestrator import run_process
from dataflow_serve.server._reload import reload, watch_certificate
from dataflow_serve.server._settings import Settings, load

__all__ = ["main"]

EXIT_FAILED = 70
"""A worker died (``EX_SOFTWARE``)."""
EXIT_ALONE = 75
"""Stopped, but the rest of the cluster wasn't reached (``EX_TEMPFAIL``)."""
GRACE_SECONDS = 4.8
"""From the signal to the end, whatever the workers do."""

_log = logging.getLogger(__name__)


def _tunable(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, int]:
    tunables = {}
    for value in values:
        name, separator, number = value.partition("=")
        if not separator or not number.isdecimal():
            raise click.BadParameter(f"{value!r} is not name=number")
        if name not in tunable_names():
            raise click.BadParameter(f"no tunable {name!r}; there are {', '.join(tunable_names())}")
        tunables[name] = int(number)
    return tunables


def _limit(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, bool | int | float]:
    limits = {}
    for value in values:
        name, _, number = value.partition("=")
        if name not in limit_defaults():
            raise click.BadParameter(f"no limit {name!r}; there are {', '.join(limit_defaults())}")
        try:
            limits[name] = msgspec.json.decode(number, type=bool | int | float)
        except msgspec.DecodeError as error:
            raise click.BadParameter(f"{value!r} is not name=number") from error
    return limits


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["--help"]})
@click.option("--listen", metavar="HOST:PORT", help="Address for clients; port 0 takes a free one.")
@click.option("-w", "--workers", "threads", type=click.IntRange(1), help="Worker threads of this process.")
@click.option(
    "--io-threads", type=click.IntRange(0), help="Threads that read and write for the workers; 0: they do."
)
@click.option("-n", "--processes", type=click.IntRange(1), help="Processes of the cluster.")
@click.option("-p", "--process", type=click.IntRange(0), help="Index of this process in the cluster.")
@click.option("-h", "--hostfile", metavar="FILE", help="Addresses of the processes, host:port, one a line.")
@click.option("--config", metavar="FILE", help="TOML file with any of these settings.")
@click.option("--tls-certificate", metavar="FILE", help="Certificate, with those above it, PEM.")
@click.option("--tls-key", metavar="FILE", help="Its private key, PEM; else in the same file.")
@click.option("--tls-client-ca", metavar="FILE", help="Let in only clients with a certificate of these, PEM.")
@click.option(
    "--insecure", is_flag=True, default=None, help="Listen beyond this machine though no token is needed."
)
@click.option("--enable-echo", is_flag=True, default=None, help="Serve an echoing WebSocket on /echo.")
@click.option("--spin", is_flag=True, default=None, help="Never park: lowest latency, one core a worker.")
@click.option(
    "--tune", "tunables", multiple=True, metavar="NAME=VALUE", callback=_tunable, help="Set a tunable."
)
@click.option(
    "--limit",
    "limits",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_limit,
    help="Set a limit of connections.",
)
@click.version_option(package_name="dataflow-serve")
@click.pass_context
def main(context: click.Context, /, config: str | None, **flags: Any) -> None:
    """Run one process of a dataflow-serve cluster.

    Settings come from the flags, else from variables DATAFLOW_SERVE_<NAME>, else from the configuration
    file. A signal (SIGINT, SIGTERM) stops the whole cluster; SIGHUP reads tokens, hosts, origins and the
    certificate again.
    """
    if context.invoked_subcommand is None:
        _serve(lambda: load(flags, config))


@main.command()
@click.option("--role", type=click.Choice(ROLES), default="reader", show_default=True, help="What it allows.")
@click.option("--name", default="", help="What it is for.")
@click.option(
    "--relation",
    "relations",
    multiple=True,
    help="Only for this relation; repeatable, x* for all that begin so.",
)
def token(role: str, name: str, relations: tuple[str, ...]) -> None:
    """Make a token, and what the configuration needs to know it.

    The token goes to standard error and is shown this once; its lines for the configuration file go to
    standard output.
    """
    made = make_token()
    click.echo(f"token: {made}", err=True)
    lines = [f"name = {_quoted(name)}"] if name else []
    lines += [f'role = "{role}"', f'hash = "{token_hash(made)}"']
    if relations:
        lines.append(f"relations = [{', '.join(map(_quoted, relations))}]")
    click.echo("\n".join(["[[token]]", *lines]))


def _quoted(text: str) -> str:
    """A text as TOML has it, which is how JSON has it, too."""
    return msgspec.json.encode(text).decode()


def _serve(read_settings: Callable[[], Settings]) -> None:
    """Run a process to its end, and leave."""
    _logs.begin(os.environ)
    try:
        settings = read_settings()
        _raise_descriptors()
        # Only the receiver below acts on these: one more signal while the cluster stops changes nothing.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        together = trio.run(_run, settings, read_settings)
    except WorkerFailed as error:
        _leave(EXIT_FAILED, str(error))
    except DataflowError as error:
        raise click.UsageError(str(error)) from error
    except OSError as error:
        raise click.ClickException(error.strerror or str(error)) from error
    _leave(0 if together else EXIT_ALONE)


def _raise_descriptors() -> None:
    """Have as many connections as the system allows; the usual 1,024 are for other programs."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _leave(code: int, message: str | None = None) -> NoReturn:
    """Exit at once: threads that wait for other processes must not hold the interpreter up."""
    if message is not None:
        click.echo(f"dataflow-serve: {message}", err=True)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


async def _run(settings: Settings, read_settings: Callable[[], Settings]) -> bool:
    with (
        trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals,
        trio.open_signal_receiver(signal.SIGHUP) as wishes,
    ):
        sources = settings.sources()
        cluster = Cluster(settings)
        host, port = cluster.address
        if settings.is_readable():
            _log.warning("tokens and data cross the network readable: tls_certificate would encrypt them")
        announce = _Announcement(f"listening on {host}:{port}")
        if settings.processes > 1:
            # Its clients are told which of the others it waits for.
            announce()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_stop_on_signal, signals, cluster)
            nursery.start_soon(_reload_on_signal, wishes, cluster, read_settings)
            nursery.start_soon(watch_certificate, cluster, settings)
            ended = await outcome.acapture(run_process, cluster, sources, on_formed=announce)
            nursery.cancel_scope.cancel()
        # Out here, a failure isn't wrapped in the nursery's group.
        together: bool = ended.unwrap()
        return together


class _Announcement:
    """Says, once, that clients are welcome: whoever waits for it may send requests."""

    def __init__(self, line: str) -> None:
        self._line: str | None = line

    def __call__(self) -> None:
        if self._line is not None:
            click.echo(self._line)
            self._line = None


async def _reload_on_signal(wishes: Any, cluster: Cluster, read_settings: Callable[[], Settings]) -> None:
    async for _ in wishes:
        reload(cluster, read_settings)


async def _stop_on_signal(signals: Any, cluster: Cluster) -> None:
    async for number in signals:
        _log.info("%s: stopping the cluster", signal.Signals(number).name)
        cluster.shutdown()
        with trio.move_on_after(GRACE_SECONDS):
            await trio.sleep_forever()
        _leave(EXIT_ALONE, "the workers did not stop in time")

"""The ``dataflow`` command: arguments only; the work is done where they lead.

Exit codes: 1 the request failed, 2 the command line is wrong, 3 no server answers, 130 Ctrl-C.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from dataflow_serve.client._defaults import DEFAULT_URL
from dataflow_serve.client._layouts import PLAN_LAYOUTS, ROW_LAYOUTS
from dataflow_serve.errors import ConnectionClosed, DataflowError, UnavailableError

# A command imports what it needs: the clients and what draws tables take longer than a small batch run.
if TYPE_CHECKING:
    from dataflow_serve.client import BlockingClient

__all__ = ["main"]

FAILED = 1
NO_SERVER = 3
INTERRUPTED = 130

_server = (
    click.option(
        "--url",
        default=DEFAULT_URL,
        show_default=True,
        envvar="DATAFLOW_URL",
        help="Address of the server; dfs:// or wss:// for TLS.",
    ),
    click.option("--token", envvar="DATAFLOW_TOKEN", help="Token, where the server wants one."),
    click.option(
        "--ca",
        metavar="FILE",
        envvar="DATAFLOW_CA",
        help="Authority of the server's certificate, PEM; else the system's.",
    ),
    click.option(
        "--client-certificate",
        metavar="FILE",
        envvar="DATAFLOW_CLIENT_CERTIFICATE",
        help="Certificate of this client with its key, PEM, where the server wants one.",
    ),
)
_where = click.option(
    "--where",
    "conditions",
    multiple=True,
    metavar="COLUMN=VALUE",
    help="Only rows with this value; repeatable.",
)
_order = click.option(
    "--order",
    metavar="COLUMNS",
    callback=lambda _context, _option, columns: columns.split(",") if columns else None,
    help="Columns to order by, separated by commas; one after a - has its greatest value first.",
)


Server: TypeAlias = Callable[[], "BlockingClient"]
"""Opens a connection as the command line says."""


def _server_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say where a server is; the command gets a `Server` of them."""

    @functools.wraps(command)
    def with_server(
        *arguments: Any,
        url: str,
        token: str | None,
        ca: str | None,
        client_certificate: str | None,
        **rest: Any,
    ) -> None:
        from dataflow_serve.client import client_context, connect

        def server() -> BlockingClient:
            named = ca is not None or client_certificate is not None
            context = client_context(ca, client_certificate) if named else None
            return connect(url, token=token, ssl_context=context)

        command(*arguments, server=server, **rest)

    return functools.reduce(lambda decorated, option: option(decorated), reversed(_server), with_server)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="dataflow-serve", message="%(version)s")
def cli() -> None:
    """Live Datalog queries: run programs, load rows, watch what follows from them."""


@cli.command()
@click.argument("program", type=click.Path(path_type=Path))
@click.option(
    "-F", "facts", default=".", type=click.Path(path_type=Path), help="Directory of the .facts files."
)
@click.option("-D", "output", default=".", help="Directory for the .csv files; - is standard output.")
@click.option(
    "-I", "include", multiple=True, type=click.Path(path_type=Path), help="Where included files are, too."
)
@click.option("-M", "macros", multiple=True, metavar="NAME[=VALUE]", help="Define a macro.")
@click.option("-w", "workers", default=1, type=click.IntRange(min=1), help="How many workers compute.")
@click.option("--progress", is_flag=True, help="Show how far loading is.")
@click.option("--now", metavar="INSTANT", help="What `now` is throughout the run; by default its beginning.")
def run(
    program: Path,
    facts: Path,
    output: str,
    include: tuple[Path, ...],
    macros: tuple[str, ...],
    workers: int,
    progress: bool,
    now: str | None,
) -> None:
    """Run PROGRAM once: read its inputs, write its outputs."""
    from dataflow_serve.run import run_program

    run_program(
        program,
        facts=facts,
        output=None if output == "-" else Path(output),
        include=include,
        macros=macros,
        workers=workers,
        progress=progress,
        now=now,
    )


@cli.command()
@click.argument("program", type=click.File(encoding="utf-8"))
@click.option("--name", help="Name of the module; else one is made.")
@_server_options
def register(program: Any, name: str | None, server: Server) -> None:
    """Install the program in a file (- reads standard input)."""
    with server() as db:
        module = db.register(program.read(), name)
    click.echo(f"{module.name}: {', '.join(relation.name for relation in module.relations)}")


@cli.command()
@click.argument("module")
@_server_options
def cancel(module: str, server: Server) -> None:
    """End a module and all that depend on it, whatever they are doing."""
    with server() as db:
        done = db.cancel(module)
    place = f" at iteration {done.iteration} of {done.relation}" if done.relation is not None else ""
    click.echo(f"cancelled{place}: {', '.join(done.modules)}")


@cli.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--into", required=True, metavar="RELATION", help="The relation that gets the rows.")
@click.option(
    "--header/--no-header", default=None, help="Whether the first line names columns; else compared."
)
@click.option("--delimiter", default=",", show_default=True, help="What separates fields.")
@click.option("--progress/--no-progress", default=None, help="Show a bar; else on a terminal only.")
@_server_options
def load(
    file: Path,
    into: str,
    header: bool | None,
    delimiter: str,
    progress: bool | None,
    server: Server,
) -> None:
    """Insert the rows of a CSV file."""
    shown = sys.stderr.isatty() if progress is None else progress
    with server() as db:
        loaded = db.load(file, into, header=header, delimiter=delimiter, progress=shown)
    click.echo(f"{loaded.rows} rows into {into}, visible at time {loaded.time}")


@cli.command()
@click.argument("relation")
@click.option("--format", "layout", type=click.Choice(ROW_LAYOUTS), default="table", show_default=True)
@_order
@click.option(
    "--limit", type=click.IntRange(min=0), help="At most so many rows; with --order the first ones."
)
@_where
@_server_options
def read(
    relation: str,
    layout: str,
    order: list[str] | None,
    limit: int | None,
    conditions: tuple[str, ...],
    server: Server,
) -> None:
    """Print the rows of a relation."""
    from dataflow_serve.client import _terminal

    with server() as db:
        where = _terminal.restriction(db, relation, conditions)
        rows = db[relation].contents(where, order=order, limit=limit)
    _terminal.print_rows(rows, layout, sys.stdout, in_their_order=order is not None)


@cli.command()
@click.argument("relation")
@click.option("--plain", is_flag=True, help="Print a line for each change instead of a live table.")
@_order
@click.option("--limit", type=click.IntRange(min=0), help="Only the first so many rows.")
@_where
@_server_options
def watch(
    relation: str,
    plain: bool,
    order: list[str] | None,
    limit: int | None,
    conditions: tuple[str, ...],
    server: Server,
) -> None:
    """Follow a relation until Ctrl-C."""
    from dataflow_serve.client import _terminal

    if order and limit is None:
        raise click.UsageError("--order needs --limit: how many of the first rows to follow.")
    with server() as db:
        where = _terminal.restriction(db, relation, conditions)
        with db.subscribe(relation, where=where, order=order, limit=limit) as live:
            if plain:
                _terminal.watch_lines(live, sys.stdout)
            else:
                _terminal.watch_table(live, relation, order or [])


@cli.command()
@_server_options
def status(server: Server) -> None:
    """Say how the server is."""
    from dataflow_serve.client import _terminal

    with server() as db:
        _terminal.print_status(db.status(), sys.stdout)


@cli.command()
@click.argument("relation")
@click.option("--analyze", is_flag=True, help="Also what each operator holds and has done, on all workers.")
@click.option(
    "--format",
    "layout",
    type=click.Choice(PLAN_LAYOUTS),
    default="text",
    show_default=True,
    help="How it is printed.",
)
@_server_options
def explain(relation: str, analyze: bool, layout: str, server: Server) -> None:
    """Print the plan of a relation."""
    from dataflow_serve.client import _terminal

    with server() as db:
        _terminal.print_plan(relation, db.explain(relation, analyze=analyze), sys.stdout, layout)


def main() -> None:
    """Run the command; an error is one line on standard error and an exit code."""
    try:
        cli.main(standalone_mode=False)
    except (UnavailableError, ConnectionClosed) as error:
        _fail(error, NO_SERVER)
    except DataflowError as error:
        _fail(error, FAILED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # Whoever read the output has enough; Python's own flush at exit must not complain again.
        sys.stderr.close()
        sys.exit(FAILED)


def _fail(error: DataflowError, code: int) -> None:
    # Messages may quote a program over several lines; here one line it is.
    click.echo(f"dataflow: {' '.join(str(error).split())}", err=True)
    sys.exit(code)

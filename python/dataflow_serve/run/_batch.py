"""One batch run, from the program's text to the files it derives."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TextIO

from msgspec.structs import replace

from dataflow_serve.client import FileSource
from dataflow_serve.errors import DataflowError, IncorrectError
from dataflow_serve.language import check, expand, parse
from dataflow_serve.protocol import Column, Module
from dataflow_serve.run._directives import STDIN, Input, Output, Plan, PrintSize, plan_of
from dataflow_serve.run._output import NewTable, RowCount, print_rows, write_file
from dataflow_serve.run._source import SourceText, read_source
from dataflow_serve.run._staging import Staging, needed_for, stage
from dataflow_serve.values import parse_instant

__all__ = ["run_on", "run_program"]

# Rows of one transaction. Each is a logical time of its own that every operator takes note of, so a batch run
# takes larger steps than an interactive load, within what one message may hold.
BATCH_ROWS = 50_000


def run_program(
    program: Path,
    *,
    facts: Path = Path(),
    output: Path | None = Path(),
    include: Sequence[Path] = (),
    macros: Sequence[str] = (),
    workers: int = 1,
    progress: bool = False,
    now: str | datetime.datetime | None = None,
) -> None:
    """Run a program on a server in this process: read its inputs, write its outputs.

    Args:
        program: The program's text.
        facts: Directory of ``<relation>.facts``.
        output: Directory for ``<relation>.csv``; None writes everything to standard output.
        include: Directories of files that the program includes, besides its own.
        macros: Definitions for the preprocessor, as ``NAME`` or ``NAME=VALUE``.
        workers: How many workers compute.
        progress: Whether to show how far the loading is.
        now: What `now` is throughout the run, as text or not; by default the time at which it begins.

    Raises:
        IncorrectError: the program has an error, a file is missing or has a bad row; names file, line and
            column.
        UnsupportedError: the program uses something that batch runs don't have.
    """
    # A run needs nothing of a server until here; its errors should come before workers start.
    moment = _moment(now)
    source = read_source(program, include, macros)
    plan, staging = _plan(source, facts, output)
    from dataflow_serve.server import AttendedServer, new_table

    # Nobody else waits here, and whoever runs the program can stop it. What it holds stays limited.
    with AttendedServer(workers, now_tick_ms=0, query_iterations=0, query_lag_millis=0) as db:
        db.advance(moment)
        run_on(db, source, plan, new_table, staging=staging, progress=progress)


def _moment(now: str | datetime.datetime | None) -> datetime.datetime:
    if not isinstance(now, str):
        return now or datetime.datetime.now(datetime.UTC)
    try:
        return parse_instant(now)
    except ValueError as error:
        raise IncorrectError(
            f"cannot run as of a time: {error}", "It looks like 2026-11-25T12:00:00Z."
        ) from None


def _plan(source: SourceText, facts: Path, output: Path | None) -> tuple[Plan, Staging]:
    """What the run reads and writes, and what comes before the rules."""
    try:
        program = parse(source.text)
        plan = plan_of(expand(program).directives, facts, output)
        # Of a program that says that it is frozen the inputs come before, as of any other.
        checked = check(replace(program, frozen=None))
    except DataflowError as error:
        raise source.located(error) from None
    missing = [wanted for wanted in plan.inputs if wanted.path != STDIN and not wanted.path.is_file()]
    if missing and plan.results:
        # As with Soufflé, what nothing depends on that is asked for needn't be there.
        needed = needed_for(checked, (result.relation for result in plan.results))
        plan = replace(plan, inputs=tuple(w for w in plan.inputs if w not in missing or w.relation in needed))
        missing = [wanted for wanted in missing if wanted.relation in needed]
    if missing:
        raise IncorrectError(f"cannot load {missing[0].relation}: there is no file {missing[0].path}")
    return plan, stage(checked)


class Server(Protocol):
    """What a run needs of a server."""

    def register(self, program: str, /) -> Module:
        """Install a program."""
        ...

    def load(self, source: FileSource, /, into: str, *, batch_rows: int, progress: bool) -> object:
        """Insert the rows of a file."""
        ...

    def fetch_undecoded(self, relation: str, take: Callable[[bytes], object], /) -> None:
        """Give all rows of a relation as they are sent."""
        ...


def run_on(
    db: Server,
    source: SourceText,
    plan: Plan,
    new_table: NewTable,
    *,
    staging: Staging | None = None,
    progress: bool = False,
    stdout: TextIO | None = None,
) -> None:
    """The run itself, on any server; its programs stay registered there.

    Args:
        db: The server.
        source: The program.
        plan: What to read and write.
        new_table: Makes what holds the rows of a result.
        staging: What is registered, and gets its rows, before the rules come.
        progress: Whether to show how far the loading is.
        stdout: Standard output.

    Raises:
        DataflowError: as `run_program`.
    """
    columns: dict[str, Sequence[Column]] = {}
    staging = staging or Staging()
    if staging.inputs:
        columns.update(_columns(db.register(staging.inputs)))
    early = [wanted for wanted in plan.inputs if wanted.relation in columns]
    for wanted in early:
        _load(db, wanted, columns[wanted.relation], progress=progress)
    text = f'{source.text}\n.pragma "frozen"' if staging.whole else source.text
    try:
        columns.update(_columns(db.register(text)))
    except DataflowError as error:
        raise source.located(error) from None
    for wanted in plan.inputs:
        if wanted not in early:
            _load(db, wanted, columns[wanted.relation], progress=progress)
    for result in plan.results:
        if isinstance(result, PrintSize):
            count = RowCount()
            db.fetch_undecoded(result.relation, count.add)
            print(f"{result.relation}\t{len(count)}", file=stdout or sys.stdout)
            continue
        table = new_table(columns[result.relation])
        db.fetch_undecoded(result.relation, table.add)
        match result:
            case Output(relation=relation, path=None, format=form):
                print_rows(stdout or sys.stdout, relation, table, form)
            case Output(path=Path() as path, format=form):
                write_file(path, table, form)


def _columns(module: Module) -> Mapping[str, Sequence[Column]]:
    return {relation.name: relation.columns for relation in module.relations}


def _load(db: Server, wanted: Input, columns: Sequence[Column], *, progress: bool) -> None:
    # Unlike a header that is looked for, one that is declared is there and says nothing: columns are in
    # order.
    rows = FileSource(
        wanted.path,
        columns,
        delimiter=wanted.format.delimiter,
        quoted=wanted.format.quoted,
        header=False,
        skip_lines=1 if wanted.format.headers else 0,
    )
    db.load(rows, into=wanted.relation, batch_rows=BATCH_ROWS, progress=progress)

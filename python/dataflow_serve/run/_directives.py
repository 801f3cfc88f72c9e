"""What the directives of a program mean for a batch run. No I/O.

Of Soufflé's parameters those are honoured that say where rows are and how they are written: ``IO`` (``file``,
for inputs also ``stdin``, for outputs ``stdout``), ``filename``, ``delimiter``, ``rfc4180``, ``headers`` and
``compress``.
Others could change which rows there are, so they are refused rather than ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from dataflow_serve.errors import IncorrectError, UnsupportedError
from dataflow_serve.language import did_you_mean
from dataflow_serve.language.ast import Directive

__all__ = ["FileFormat", "Input", "Output", "Plan", "PrintSize", "plan_of"]

_KNOWN = frozenset({"IO", "filename", "name", "delimiter", "rfc4180", "headers", "compress"})
_ELSEWHERE = frozenset({"json", "jsonfile", "sqlite"})
"""Values of ``IO`` that Soufflé has: no mistakes in writing."""
STDIN = Path("/dev/stdin")
"""Where the rows of an input with ``IO=stdin`` come from."""

_ESCAPES = {r"\t": "\t", r"\n": "\n", r"\"": '"', r"\\": "\\"}


class FileFormat(Struct, frozen=True):
    """How rows are written in a file: ``quoted`` as RFC 4180 has it, else as they are.

    ``compressed`` with gzip is about results; of a file that is read its first bytes tell.
    """

    delimiter: str = "\t"
    quoted: bool = False
    headers: bool = False
    compressed: bool = False


class Input(Struct, frozen=True):
    """Rows to load."""

    relation: str
    path: Path
    format: FileFormat


class Output(Struct, frozen=True):
    """Rows to write; a path of None is standard output."""

    relation: str
    path: Path | None
    format: FileFormat


class PrintSize(Struct, frozen=True):
    """A count to print."""

    relation: str


class Plan(Struct, frozen=True):
    """Everything a run reads and writes, in the order of the text."""

    inputs: tuple[Input, ...]
    results: tuple[Output | PrintSize, ...]


def plan_of(directives: Sequence[Directive], facts: Path, output: Path | None) -> Plan:
    """Where a run finds and leaves its rows; an ``output`` of None is standard output.

    Raises:
        IncorrectError: a parameter has a value that makes no sense.
        UnsupportedError: a parameter or a kind of input or output that batch runs don't have.
    """
    inputs: list[Input] = []
    results: list[Output | PrintSize] = []
    for directive in directives:
        match directive.kind:
            case "input":
                found = _input(directive, facts)
                if found.path == STDIN and any(other.path == STDIN for other in inputs):
                    line, column = directive.at
                    raise IncorrectError(
                        f"IO=stdin in .input {directive.relation}, too",
                        "Standard input can be read once; give the others files.",
                        line,
                        column,
                    )
                inputs.append(found)
            case "output":
                results.append(_output(directive, output))
            case "printsize":
                results.append(PrintSize(directive.relation))
    return Plan(tuple(inputs), tuple(results))


def _input(directive: Directive, facts: Path) -> Input:
    parameters = _parameters(directive, {"file", "stdin"})
    # An absolute filename stands for itself: joining leaves it as it is.
    path = facts / parameters.get("filename", f"{directive.relation}.facts")
    if parameters.get("IO") == "stdin":
        path = STDIN
    return Input(directive.relation, path, _format(directive, parameters))


def _output(directive: Directive, output: Path | None) -> Output:
    parameters = _parameters(directive, {"file", "stdout"})
    if output is None:
        # As with Soufflé, everything goes to standard output under the names of its columns.
        parameters.setdefault("headers", "true")
    path = None
    if output is not None and parameters.get("IO", "file") == "file":
        ending = "csv.gz" if _flag(directive, parameters, "compress") else "csv"
        path = output / parameters.get("filename", f"{directive.relation}.{ending}")
    return Output(directive.relation, path, _format(directive, parameters))


def _parameters(directive: Directive, kinds: set[str]) -> dict[str, str]:
    parameters = dict(directive.parameters)
    line, column = directive.at
    if unknown := sorted(parameters.keys() - _KNOWN):
        raise UnsupportedError(
            f"the parameter {unknown[0]} of .{directive.kind} {directive.relation}",
            did_you_mean(unknown[0], _KNOWN) or f"A batch run knows {', '.join(sorted(_KNOWN))}.",
            line,
            column,
        )
    if (kind := parameters.get("IO", "file")) not in kinds:
        raise UnsupportedError(
            f"IO={kind} in .{directive.kind} {directive.relation}",
            (None if kind in _ELSEWHERE else did_you_mean(kind, kinds))
            or f"A batch run knows {' and '.join(sorted(kinds))} here.",
            line,
            column,
        )
    return parameters


def _format(directive: Directive, parameters: dict[str, str]) -> FileFormat:
    quoted = _flag(directive, parameters, "rfc4180")
    delimiter = parameters.get("delimiter", "," if quoted else "\t")
    for escape, meant in _ESCAPES.items():
        delimiter = delimiter.replace(escape, meant)
    if not delimiter or (quoted and (len(delimiter) != 1 or delimiter in '"\r\n')):
        line, column = directive.at
        raise IncorrectError(
            f"the delimiter {delimiter!r} of .{directive.kind} {directive.relation} separates nothing",
            "With rfc4180 it is one character, and no quote.",
            line,
            column,
        )
    headers, compressed = (_flag(directive, parameters, name) for name in ("headers", "compress"))
    return FileFormat(delimiter, quoted, headers, compressed)


def _flag(directive: Directive, parameters: dict[str, str], name: str) -> bool:
    value = parameters.get(name, "false")
    if value not in ("true", "false"):
        line, column = directive.at
        raise IncorrectError(
            f"{name}={value} in .{directive.kind} {directive.relation} is neither true nor false",
            None,
            line,
            column,
        )
    return value == "true"

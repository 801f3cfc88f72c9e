"""All errors of a text, not just the first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dataflow_serve.errors import DataflowError, error_from_code

__all__ = ["MAX_ERRORS", "Errors"]

MAX_ERRORS = 100
"""Errors that are looked for in a program; what follows is left unread."""


class Errors:
    """Takes errors as they are found, so that what comes after is looked at, too."""

    def __init__(self) -> None:
        """None yet."""
        self._found: list[DataflowError] = []

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Keep an error that is raised inside.

        Raises:
            DataflowError: as `check`, if there are too many by now.
        """
        try:
            yield
        except DataflowError as error:
            self.add(error)

    def add(self, error: DataflowError) -> None:
        """Keep an error.

        Raises:
            DataflowError: as `check`, if there are too many by now.
        """
        self._found.append(error)
        if len(self._found) >= MAX_ERRORS:
            self.check()

    def check(self) -> None:
        """Raise the first error in the order of the text, with the lines of the others in its hint.

        Raises:
            DataflowError: if any was caught.
        """
        if not self._found:
            return
        # A component that has an error has it in each of its instances.
        unlike = {(error.line, error.column, error.message): error for error in self._found}
        first, *others = sorted(unlike.values(), key=lambda error: (error.line or 0, error.column or 0))
        if not others:
            raise first
        hint = " ".join(filter(None, [first.hint, _whereabouts(others)]))
        raise error_from_code(
            first.code, first.message, hint, first.line, first.column, first.retry
        ) from first


def _whereabouts(others: list[DataflowError]) -> str:
    lines = [str(line) for line in dict.fromkeys(error.line for error in others)]
    if len(others) == 1:
        return f"Another error is in line {lines[0]}."
    if len(lines) == 1:
        return f"{len(others)} more errors are in line {lines[0]}."
    shown = [*lines[:8], "…"] if len(lines) > 9 else lines
    return f"{len(others)} more errors are in lines {', '.join(shown[:-1])} and {shown[-1]}."

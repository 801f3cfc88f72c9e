"""A program's text and where each of its lines came from, preprocessed if it asks for that.

Programs with ``#include``, macros or Soufflé's own ``.include`` go through a C preprocessor, as with Soufflé.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from dataflow_serve.errors import DataflowError, IncorrectError, error_from_code

__all__ = ["SourceText", "read_source"]

_WANTS_PREPROCESSING = re.compile(
    r"^[ \t]*(#[ \t]*(include|define|undef|if|ifdef|ifndef|else|elif|endif|error|pragma|line)\b"
    r"|\.(include|once)\b)|\b__(FILE|LINE)__\b",
    re.MULTILINE,
)
_OWN_INCLUSION = re.compile(r'^([ \t]*)\.include(?=[ \t]+")', re.MULTILINE)
_OWN_ONCE = re.compile(r"^([ \t]*)\.once\b", re.MULTILINE)


class SourceText(Struct, frozen=True):
    """Program text, and for each line the file and line it was written in."""

    text: str
    origins: tuple[tuple[str, int], ...]

    def located(self, error: DataflowError) -> DataflowError:
        """The error with its line as the user knows it, and the file's name before the message."""
        if error.line is None or not 1 <= error.line <= len(self.origins):
            return error
        file, line = self.origins[error.line - 1]
        return error_from_code(
            error.code, f"{file}: {error.message}", error.hint, line, error.column, error.retry
        )


def read_source(path: Path, include: Sequence[Path] = (), macros: Sequence[str] = ()) -> SourceText:
    """Read a program.

    Args:
        path: Its file.
        include: Directories of included files, besides that of the file that includes them.
        macros: Definitions, as ``NAME`` or ``NAME=VALUE``; with any, every program is preprocessed.

    Raises:
        IncorrectError: it can't be read, or the preprocessor finds an error.
        UnsupportedError: it includes too many files.
    """
    text = read_text(path)
    if not macros and not _WANTS_PREPROCESSING.search(text):
        return SourceText(text, tuple((str(path), line) for line in range(1, text.count("\n") + 2)))
    # Most programs do without it.
    from dataflow_serve.run._preprocessor import Preprocessor

    preprocessor = Preprocessor(include, macros)
    preprocessor.parse(standard(text), str(path))
    lines: list[str] = []
    origins: list[tuple[str, int]] = []
    parts: list[str] = []
    origin: tuple[str, int] | None = None
    while (token := preprocessor.token()) is not None:
        # Lines that directives took away are missing from the output; the origins say so.
        for place, part in enumerate(token.value.split("\n")):
            here = (token.source, token.lineno + place)
            if place:
                lines.append("".join(parts))
                origins.append(origin or (token.source, token.lineno + place - 1))
                parts, origin = [], None
            if part and origin is None:
                origin = here
            parts.append(part)
    lines.append("".join(parts))
    origins.append(origin or (str(path), text.count("\n") + 1))
    preprocessor.check()
    return SourceText("\n".join(lines), tuple(origins))


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise IncorrectError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError as error:
        raise IncorrectError(f"cannot read {path}: not UTF-8") from error


def standard(text: str) -> str:
    """The text with the preprocessor's words for Soufflé's own directives about files."""
    return _OWN_ONCE.sub(r"\1#pragma once", _OWN_INCLUSION.sub(r"\1#include", text))

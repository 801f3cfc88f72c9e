"""A program's text and where each of its lines came from, preprocessed if it asks for that.

Programs with ``#include``, macros or Soufflé's own ``.include`` go through a C preprocessor, as with Soufflé.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import pcpp

from dataflow_serve.errors import DataflowError, IncorrectError, UnsupportedError, error_from_code

__all__ = ["SourceText", "read_source"]

MAX_FILES = 1_000
"""Files that a program may include, each as often as it is included."""

MAX_NESTING = 64
"""How deep files may include one another."""

_WANTS_PREPROCESSING = re.compile(
    r"^[ \t]*(#[ \t]*(include|define|undef|if|ifdef|ifndef|else|elif|endif|error|pragma|line)\b"
    r"|\.(include|once)\b)|\b__(FILE|LINE)__\b",
    re.MULTILINE,
)
_OWN_INCLUSION = re.compile(r'^([ \t]*)\.include(?=[ \t]+")', re.MULTILINE)
_OWN_ONCE = re.compile(r"^([ \t]*)\.once\b", re.MULTILINE)


@dataclass(frozen=True)
class SourceText:
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
    text = _read(path)
    if not macros and not _WANTS_PREPROCESSING.search(text):
        return SourceText(text, tuple((str(path), line) for line in range(1, text.count("\n") + 2)))
    preprocessor = _Preprocessor(include, macros)
    preprocessor.parse(_standard(text), str(path))
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


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise IncorrectError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError as error:
        raise IncorrectError(f"cannot read {path}: not UTF-8") from error


def _standard(text: str) -> str:
    """The text with the preprocessor's words for Soufflé's own directives about files."""
    return _OWN_ONCE.sub(r"\1#pragma once", _OWN_INCLUSION.sub(r"\1#include", text))


class _Text:
    """A file that has been read, as the preprocessor wants it."""

    def __init__(self, text: str) -> None:
        self._text = text

    def read(self) -> str:
        return self._text

    def close(self) -> None:
        pass


class _Preprocessor(pcpp.Preprocessor):  # type: ignore[misc]
    """Collects errors instead of printing them; comments stay, so that columns do."""

    def __init__(self, include: Sequence[Path], macros: Sequence[str]) -> None:
        super().__init__()
        # What Soufflé says of its numbers.
        self.define("RAM_DOMAIN_SIZE 64")
        for macro in macros:
            name, given, value = macro.partition("=")
            self.define(f"{name} {value if given else 1}")
        for directory in include:
            self.add_path(str(directory))
        self._errors: list[tuple[str, int, str]] = []
        self._files = 0

    def check(self) -> None:
        """Raise the first error, if there was one."""
        if self._errors:
            file, line, message = self._errors[0]
            raise IncorrectError(f"{file}: {message}", None, line, 1)

    def on_error(self, file: str, line: int, msg: str) -> None:
        self._errors.append((file, line, f"cannot preprocess this line: {msg[:1].lower()}{msg[1:]}"))

    def on_file_open(self, is_system_include: bool, includepath: str) -> _Text | TextIO:
        self._files += 1
        if self._files > MAX_FILES or len(self.temp_path) > MAX_NESTING:
            raise UnsupportedError(
                f"cannot include {includepath}: more than {MAX_FILES} files, or {MAX_NESTING} in one another",
                "If it comes to include itself, write .once at its beginning.",
            )
        path = Path(includepath)
        if not path.is_file():
            raise FileNotFoundError(includepath)
        return _Text(_standard(_read(path)))

    def on_include_not_found(
        self, is_malformed: bool, is_system_include: bool, curdir: str, includepath: str
    ) -> str:
        where: Any = self.lastdirective
        raise IncorrectError(f"{where.source}: cannot include {includepath}", None, where.lineno, 1)

    def on_directive_handle(
        self, directive: Any, toks: list[Any], ifpassthru: bool, precedingtoks: Any
    ) -> Any:
        if directive.value == "error":
            message = "".join(token.value for token in toks).strip()
            self.on_error(directive.source, directive.lineno, message)
            return True
        return super().on_directive_handle(directive, toks, ifpassthru, precedingtoks)

    def on_comment(self, tok: Any) -> bool:
        return True

"""A C preprocessor for programs that want one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import pcpp

from dataflow_serve.errors import IncorrectError, UnsupportedError
from dataflow_serve.run._source import read_text, standard

__all__ = ["Preprocessor"]

MAX_FILES = 1_000
"""Files that a program may include, each as often as it is included."""

MAX_NESTING = 64
"""How deep files may include one another."""


class _Text:
    """A file that has been read, as the preprocessor wants it."""

    def __init__(self, text: str) -> None:
        self._text = text

    def read(self) -> str:
        return self._text

    def close(self) -> None:
        pass


class Preprocessor(pcpp.Preprocessor):  # type: ignore[misc]
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
        return _Text(standard(read_text(path)))

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

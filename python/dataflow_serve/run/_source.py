"""A program's text and where each of its lines came from, preprocessed if it asks for that.

Programs with ``#include`` or macros go through a C preprocessor of the system, as Soufflé does it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from dataflow_serve.errors import DataflowError, IncorrectError, UnsupportedError, error_from_code

__all__ = ["SourceText", "read_source"]

_WANTS_PREPROCESSING = re.compile(
    r"^[ \t]*#[ \t]*(include|define|undef|if|ifdef|ifndef|else|elif|endif|error|pragma|line)\b", re.MULTILINE
)
_LINE_MARKER = re.compile(r'^#(?: ?line)? (\d+) "((?:[^"\\]|\\.)*)"')

# Without the system's own macros: a relation may be called `linux`. Warnings are about C, which this isn't.
_PREPROCESSORS = {
    "mcpp": ["-e", "utf8", "-W0", "-N"],
    "cpp": ["-x", "c", "-undef", "-nostdinc", "-w"],
}


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


def read_source(path: Path) -> SourceText:
    """Read a program.

    Raises:
        IncorrectError: it can't be read, or the preprocessor finds an error.
        UnsupportedError: it needs a preprocessor and there is none.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise IncorrectError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError as error:
        raise IncorrectError(f"cannot read {path}: not UTF-8") from error
    if _WANTS_PREPROCESSING.search(text):
        return _from_preprocessed(_preprocessed(path))
    return SourceText(text, tuple((str(path), line) for line in range(1, text.count("\n") + 2)))


def _preprocessed(path: Path) -> str:
    found = [
        (command, options) for name, options in _PREPROCESSORS.items() if (command := shutil.which(name))
    ]
    if not found:
        raise UnsupportedError(
            f"{path} needs a C preprocessor, and there is none",
            f"Install one of {', '.join(_PREPROCESSORS)}.",
        )
    command, options = found[0]
    done = subprocess.run([command, *options, str(path)], capture_output=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise IncorrectError(f"cannot preprocess {path}: {lines[0] if lines else f'{command} failed'}")
    return done.stdout.decode("utf-8", errors="replace")


def _from_preprocessed(text: str) -> SourceText:
    """Take out the markers that say where the following lines came from."""
    kept: list[str] = []
    origins: list[tuple[str, int]] = []
    file, line = "", 0
    for content in text.split("\n"):
        if (marker := _LINE_MARKER.match(content)) is not None:
            file, line = marker[2].replace('\\"', '"').replace("\\\\", "\\"), int(marker[1])
            continue
        kept.append(content)
        origins.append((file, line))
        line += 1
    return SourceText("\n".join(kept), tuple(origins))

"""A place in a list of tokens, and the words for what is wrong there."""

from __future__ import annotations

import re
from collections.abc import Iterable

from dataflow_serve.errors import IncorrectError
from dataflow_serve.language._habits import habit
from dataflow_serve.language._lexer import Token, tokenize
from dataflow_serve.language.ast import Position

__all__ = ["Cursor", "Where", "did_you_mean", "quote"]

QUOTE_LIMIT = 160
"""Characters of a clause that an error repeats."""


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """A hint with the nearest known name, if any is near."""
    # Few programs have anything misspelt.
    import difflib

    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f'Did you mean "{near[0]}"?' if near else None


def quote(text: str) -> str:
    """A part of the program on one line, cut when it is long."""
    flat = re.sub(r"\s+", " ", text).strip()
    return flat if len(flat) <= QUOTE_LIMIT else f"{flat[: QUOTE_LIMIT - 1]}…"


class Where:
    """The end of a message about a clause: a quotation of it, made only when the message is."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        """Quote ``text``."""
        self._text = text

    def __str__(self) -> str:
        """To be put behind what is wrong."""
        return f" in `{quote(self._text)}`"


class Cursor:
    """Reads tokens one after the other; where they don't fit, raises an `IncorrectError`."""

    def __init__(self, text: str) -> None:
        """Start at the first token of ``text``."""
        self.source = text
        self.tokens = tokenize(text)
        self.index = 0
        self.token = self.tokens[0]
        self.item_start = 0
        """Offset of the item being read, for quoting it."""

    def advance(self) -> Token:
        """The current token; the next becomes current. The end stays current for ever."""
        token = self.token
        if token.kind != "end":
            self.index += 1
            self.token = self.tokens[self.index]
        return token

    def peek(self, ahead: int = 1) -> Token:
        """A token after the current one."""
        return self.tokens[min(self.index + ahead, len(self.tokens) - 1)]

    def at(self, kind: str) -> bool:
        """Whether the current token is of this kind."""
        return self.token.kind == kind

    def at_word(self, word: str) -> bool:
        """Whether the current token is this name."""
        return self.token.kind == "name" and self.token.text == word

    def take(self, kind: str) -> Token | None:
        """The current token if it is of this kind, moving past it."""
        return self.advance() if self.token.kind == kind else None

    def expect(self, kind: str, *, hint: str | None = None, expected: str | None = None) -> Token:
        """The current token, which must be of this kind, moving past it."""
        if self.token.kind != kind:
            raise self.unexpected(expected or f'"{kind}"', hint)
        return self.advance()

    def name(self, what: str) -> Token:
        """The current token, which must be a name."""
        return self.expect("name", expected=what)

    def qualified_name(self, what: str) -> tuple[str, Position]:
        """A name, possibly of a part of an instance as in ``a.b``, moving past it; and where it begins."""
        first = last = self.name(what)
        parts = [first.text]
        while self.token.kind == "." and self.token.start == last.end:
            after = self.peek()
            if after.kind != "name" or after.start != self.token.end:
                break
            self.advance()
            last = self.advance()
            parts.append(last.text)
        return ".".join(parts), first.at

    def unexpected(self, expected: str, hint: str | None = None) -> IncorrectError:
        """The error for a token that isn't what has to stand here."""
        token = self.token
        if token.kind == "end":
            found = "the end of the program"
        else:
            found = token.text if token.kind == "text" else f'"{token.text}"'
        hint = habit(self.tokens, self.index) or hint
        return IncorrectError(f"expected {expected} but found {found}{self._where()}", hint, *token.at)

    def _where(self) -> str:
        """The item so far, to the end of the line on which the current token stands."""
        line_end = self.source.find("\n", self.token.end)
        item = quote(self.source[self.item_start : line_end if line_end >= 0 else len(self.source)])
        return f" in `{item}`" if item else ""

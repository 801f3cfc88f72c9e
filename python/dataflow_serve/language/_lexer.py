"""Text to tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from dataflow_serve.errors import IncorrectError, UnsupportedError
from dataflow_serve.language._habits import CHARACTERS
from dataflow_serve.language.ast import Position

__all__ = ["DIRECTIVES", "Token", "tokenize", "unescape"]

DIRECTIVES = frozenset(
    {
        "comp",
        "decl",
        "functor",
        "include",
        "init",
        "input",
        "lattice",
        "limitsize",
        "number_type",
        "once",
        "output",
        "override",
        "plan",
        "pragma",
        "printsize",
        "symbol_type",
        "type",
    }
)
"""Words that start an item when a full stop stands directly before them and white space behind them."""

_TOKEN = re.compile(
    rf"""
    (?:
    (?P<space>[ \t\r\v\f\n]+ | //[^\n]* | /\*.*?\*/)
  | (?P<directive>\.(?:{"|".join(sorted(DIRECTIVES, key=len, reverse=True))})(?=\s|$))
  | (?P<address>[0-9]+(?:\.[0-9]+){{3}})
  | (?P<float>[0-9]+\.[0-9]+(?:[eE][+-]?[0-9]+)? | [0-9]+[eE][+-]?[0-9]+)
  | (?P<number>(?:0x[0-9a-fA-F]+ | 0b[01]+ | [0-9]+)u?)
  | (?P<word>choice-domain)
  | (?P<name>[A-Za-z_?][A-Za-z0-9_?]*)
  | (?P<text>"(?:[^"\\\n]|\\.)*")
  | (?P<open>/\*)
  | (?P<sign>:- | <: | <= | >= | != | -> | :: | [-+*/%^=<>!,.;:(){{}}\[\]|$@])
    )
    [ ]*
    """,
    re.VERBOSE | re.DOTALL,
)

_OPENING, _CLOSING = frozenset("([{"), frozenset(")]}")

_ESCAPES = {
    '"': '"',
    "'": "'",
    "\\": "\\",
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
}


class Token(NamedTuple):
    """A word of the text.

    The kind is ``name``, ``number``, ``float``, ``address``, ``text``, ``directive`` or ``end``; for a sign
    it is the sign itself.
    """

    kind: str
    text: str
    at: Position
    start: int
    end: int


def tokenize(text: str) -> list[Token]:
    """Cut ``text`` into tokens; the last one has kind ``end``.

    Raises:
        IncorrectError: a character or a literal that the language doesn't have.
        UnsupportedError: a line for the C preprocessor.
    """
    _check_characters(text)
    tokens: list[Token] = []
    line, line_start, offset, length = 1, 0, 0, len(text)
    # There are many of them, and the constructors of named tuples take their time.
    match, add, make = _TOKEN.match, tokens.append, tuple.__new__
    while offset < length:
        found = match(text, offset)
        kind = None if found is None else found.lastgroup
        if kind == "space":
            assert found is not None
            end = found.end()
            newlines = text.count("\n", offset, end)
            if newlines:
                line += newlines
                line_start = text.rindex("\n", offset, end) + 1
        else:
            at = make(Position, (line, offset - line_start + 1))
            if found is None or kind is None or kind == "open":
                raise _bad_character(text, offset, at)
            end, word = found.end(kind), found.group(kind)
            if (
                kind in ("number", "float", "address")
                and end < length
                and (text[end].isalnum() or text[end] == "_")
            ):
                raise IncorrectError(
                    f'malformed number "{_word_from(text, offset)}"',
                    "Separate the number from the name with a space or a sign.",
                    *at,
                )
            add(make(Token, (word if kind in ("sign", "word") else kind, word, at, offset, end)))
            end = found.end()  # Spaces behind it, too.
        offset = end
    tokens.append(Token("end", "", Position(line, offset - line_start + 1), offset, offset))
    return _without_annotations(tokens) if "@[" in text or "@![" in text else tokens


def _without_annotations(tokens: Sequence[Token]) -> list[Token]:
    """The tokens but those of annotations, ``@[…]`` and ``@![…]``, which say nothing to this server."""
    kept: list[Token] = []
    at = 0
    while at < len(tokens):
        marks = "".join(token.kind for token in tokens[at : at + 3])
        opening = at + (1 if marks.startswith("@[") else 2)
        if not marks.startswith(("@[", "@![")):
            kept.append(tokens[at])
            at += 1
            continue
        depth, end = 1, opening + 1
        while depth and end < len(tokens):
            depth += (tokens[end].kind in _OPENING) - (tokens[end].kind in _CLOSING)
            end += 1
        if depth:
            raise IncorrectError("annotation that isn't closed", 'Close it with "]".', *tokens[at].at)
        at = end
    return kept


def unescape(token: Token) -> str:
    """The text that a ``text`` token stands for.

    Raises:
        IncorrectError: an unknown escape sequence, with its own position.
    """
    inner = token.text[1:-1]
    if "\\" not in inner:
        return inner
    parts: list[str] = []
    index = 0
    while index < len(inner):
        character = inner[index]
        if character != "\\":
            parts.append(character)
            index += 1
            continue
        escaped = inner[index + 1]
        if escaped not in _ESCAPES:
            raise IncorrectError(
                f'unknown escape sequence "\\{escaped}"',
                "Known are \\\" \\' \\\\ \\a \\b \\f \\n \\r \\t and \\v; all else is written as it is.",
                token.at.line,
                token.at.column + 1 + index,
            )
        parts.append(_ESCAPES[escaped])
        index += 2
    return "".join(parts)


def _word_from(text: str, offset: int) -> str:
    found = re.compile(r"\w+").match(text, offset)
    return found.group() if found else text[offset]


def _check_characters(text: str) -> None:
    """Refuse half of a surrogate pair: no symbol on the wire can hold it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        column = error.start - (text.rfind("\n", 0, error.start) + 1) + 1
        raise IncorrectError(
            "text with half of a surrogate pair", "Programs are Unicode text.", line, column
        ) from None


def _bad_character(text: str, offset: int, at: Position) -> IncorrectError | UnsupportedError:
    character = text[offset]
    if text.startswith("/*", offset):
        return IncorrectError("comment that isn't closed", 'Close it with "*/".', *at)
    if character == '"':
        return IncorrectError(
            "text that isn't closed on its line",
            "Close it with a quote; a line break inside is written \\n.",
            *at,
        )
    if character == "#":
        return UnsupportedError(
            f'the preprocessor line "{text[offset:].splitlines()[0].strip()}"',
            "Run the preprocessor before registering the program.",
            *at,
        )
    return IncorrectError(
        f"unexpected character {character!r}",
        CHARACTERS.get(character)
        or "Names consist of the letters a to z, digits, _ and ?; texts stand in double quotes.",
        *at,
    )

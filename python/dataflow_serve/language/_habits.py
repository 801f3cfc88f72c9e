"""What other languages write for things that this one has, and how it is written here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from dataflow_serve.language._functions import AGGREGATES

__all__ = ["CHARACTERS", "FUNCTORS", "TRUTHS", "TYPES", "habit"]

_AND = 'And is written ",".'
_OR = 'Or is written ";".'
_NOT = 'Not is written "!", as in "!edge(x, y)".'
_COMMENT = "A comment is written // … or /* … */."

_WORDS = {
    "and": _AND,
    "or": _OR,
    "not": _NOT,
    "is": 'A value is named, or compared, with "=".',
    "if": 'What follows from what is written "head :- body.".',
    "|": _OR,
    "%": _COMMENT,
}
"""Words and signs that stand where none of that kind may."""

_PAIRS = {
    ("=", "="): 'Equality is written "=".',
    ("<", ">"): 'Inequality is written "!=".',
    ("!", "="): 'Inequality is written "!=", without a space.',
    ("=", ">"): 'At least is written ">=".',
    ("=", "<"): 'At most is written "<=".',
    ("<", "-"): 'A body follows behind ":-".',
    (":", "-"): 'A body follows behind ":-", without a space.',
    ("<=", ">"): "There is no equivalence; write both rules.",
    ("-", "-"): _COMMENT,
}

CHARACTERS = {
    "&": _AND,
    "~": _NOT,
    "\\": _NOT,
    "¬": _NOT,
    "'": "Texts stand in double quotes.",
    "`": "Texts stand in double quotes.",
    "←": 'A body follows behind ":-".',
    "≠": 'Inequality is written "!=".',
    "≤": 'At most is written "<=".',
    "≥": 'At least is written ">=".',
    "∧": _AND,
    "∨": _OR,
}
"""Characters that stand for nothing here."""

TYPES = {
    **dict.fromkeys(("int", "integer", "long", "i8", "i16", "i32", "i64", "bigint", "Number"), "number"),
    **dict.fromkeys(("uint", "u8", "u16", "u32", "u64"), "unsigned"),
    **dict.fromkeys(("double", "real", "f32", "f64"), "float"),
    **dict.fromkeys(("text", "str", "varchar", "char", "String"), "symbol"),
    "boolean": "bool",
    **dict.fromkeys(("timestamp", "datetime", "date", "time"), "instant"),
    **dict.fromkeys(("blob", "bytea", "binary"), "bytes"),
}
"""Types by their names elsewhere."""

FUNCTORS = {
    **dict.fromkeys(("average", "avg"), "The mean of many rows is written mean x : { … }."),
    **dict.fromkeys(("len", "length", "strlength"), "The length of a text is strlen(text)."),
    **dict.fromkeys(("concat", "concatenate"), 'Texts are joined by cat(a, b) or "+".'),
    **dict.fromkeys(("substring", "slice"), "A part of a text is substr(text, start, length)."),
    **dict.fromkeys(("str", "tostring", "string"), "The text of a value is to_string(value)."),
    **dict.fromkeys(("int", "tonumber", "number"), "The number of a value is to_number(value)."),
}
"""What to write for functors of other languages."""

TRUTHS = {"True": "true", "TRUE": "true", "False": "false", "FALSE": "false"}
"""Names of variables that are truth values elsewhere."""


class _Token(Protocol):
    @property
    def kind(self) -> str: ...
    @property
    def text(self) -> str: ...


def habit(tokens: Sequence[_Token], index: int) -> str | None:
    """A hint about the token at ``index``, which can't stand there, or about the one before it."""
    for first, second in ((index - 1, index), (index, index + 1)):
        if first >= 0 and second < len(tokens):
            hint = _PAIRS.get((tokens[first].kind, tokens[second].kind))
            if hint is not None:
                return hint
    if (hint := _aggregate(tokens, index)) is not None:
        return hint
    if tokens[index].kind != "text" and (hint := _WORDS.get(tokens[index].text)) is not None:
        return hint
    return _WORDS.get(tokens[index - 1].text) if index and tokens[index - 1].kind == "name" else None


def _aggregate(tokens: Sequence[_Token], index: int) -> str | None:
    """A hint about a word where only an aggregate can stand: before ``:``, or a term and ``:``."""
    for word, colon in ((index - 1, index), (index - 1, index + 1)):
        if word >= 0 and colon < len(tokens) and tokens[word].kind == "name" and tokens[colon].kind == ":":
            # Few programs have anything misspelt.
            import difflib

            near = difflib.get_close_matches(tokens[word].text, AGGREGATES, n=1, cutoff=0.6)
            if near:
                return f'Did you mean "{near[0]}"?'
    return None

"""Whatever the text of a program, it compiles, or the language's own errors say where it is wrong.

Programs are those that other tests have, and random ones, mutated: their tokens and characters are removed,
repeated, exchanged, and mixed with those of others. FUZZ_SECONDS is how long it goes on. What was found by it
is a fixed case in FOUND.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from dataflow_serve.errors import ConflictError, DataflowError, IncorrectError, UnsupportedError
from dataflow_serve.planner import compile_program
from tests.e2e.programs import PROGRAMS
from tests.oracle.generator import generate

from .test_language_errors import CATALOG, PRELUDE, goldens

SECONDS = float(os.environ.get("FUZZ_SECONDS", "10"))
LONGEST_MESSAGE = 1000
TOKEN = re.compile(r'\s+|\w+|"[^"\n]*"|:-|[<>!]=|.', re.DOTALL)

FOUND = [
    # A chain of types that is long, but no circle.
    "\n".join(f".type T{n} <: T{n + 1}" for n in range(300)) + "\n.type T300 <: number",
]


def corpus() -> list[str]:
    flights = Path(__file__).parents[2] / "examples" / "flights" / "flights.dl"
    return [
        *(PRELUDE + case.program for case in goldens()),
        *PROGRAMS.values(),
        flights.read_text(),
        *(generate(random.Random(number)).program for number in range(20)),
    ]


CORPUS = corpus()
TOKENS = sorted(set(itertools.chain(*map(TOKEN.findall, CORPUS))))
places = st.integers(0, 2**16)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A program of the corpus, or two of them, after some accidents."""
    tokens = TOKEN.findall(draw(st.sampled_from(CORPUS)))
    for _ in range(draw(st.integers(0, 5))):
        at = draw(places) % (len(tokens) + 1)
        match draw(st.integers(0, 8)):
            case 0:
                del tokens[at : at + draw(st.integers(1, 4))]
            case 1 if tokens:
                tokens[at % len(tokens)] = draw(st.sampled_from(TOKENS))
            case 2:
                tokens.insert(at, draw(st.sampled_from(TOKENS)))
            case 3:
                start = draw(places) % (len(tokens) + 1)
                tokens[at:at] = tokens[start : start + draw(st.integers(1, 12))]
            case 4:
                other = TOKEN.findall(draw(st.sampled_from(CORPUS)))
                start = draw(places) % (len(other) + 1)
                tokens[at:at] = other[start : start + draw(st.integers(1, 40))]
            case 5 if tokens:
                other_at = draw(places) % len(tokens)
                at %= len(tokens)
                tokens[at], tokens[other_at] = tokens[other_at], tokens[at]
            case 6:
                tokens.insert(at, draw(st.text(max_size=3)))
            case 7:
                del tokens[at:]
            case _:
                tokens.insert(
                    at, draw(st.sampled_from(["(", "{", "[", "-", "!", "$", "0x", '"', "/*", "\\"]))
                )
    return "".join(tokens)


def exercise(text: str) -> None:
    """Compile; what is raised must be the language's, and say where."""
    try:
        compiled = compile_program(text, CATALOG)
    except DataflowError as error:
        assert isinstance(error, IncorrectError | ConflictError | UnsupportedError), repr(error)
        lines = text.split("\n")
        assert error.line is not None and error.column is not None, f"no position: {error!r}"
        assert 1 <= error.line <= len(lines), f"line {error.line} of {len(lines)}: {error!r}"
        assert 1 <= error.column <= len(lines[error.line - 1]) + 1, f"column {error.column}: {error!r}"
        assert 0 < len(error.message) <= LONGEST_MESSAGE and not error.message.endswith("."), error.message
        return
    json.dumps(compiled.plan)


@pytest.mark.parametrize("text", FOUND)
def test_what_was_found_once(text: str) -> None:
    exercise(text)


@pytest.mark.timeout(60 + 20 * SECONDS)
def test_any_text_compiles_or_is_refused_with_its_position(rng: random.Random) -> None:
    end, count = time.monotonic() + SECONDS, 0
    while not count or time.monotonic() < end:

        @seed(rng.randrange(2**32))
        @settings(
            max_examples=20,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(mutated())
        def check(text: str) -> None:
            exercise(text)

        check()
        count += 20
    print(f"{count} programs")

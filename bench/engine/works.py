"""The computations of `bench/engine`: their sizes, programs and tables."""

import contextlib
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import tpch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "python"))

from dataflow_serve.language import Catalog  # noqa: E402
from dataflow_serve.planner import RelationStatistics, Statistics, compile_program  # noqa: E402

SCALE = float(os.environ.get("BENCH_SCALE", "1"))
TPCH_SCALE = 0.1


@dataclass(frozen=True)
class Work:
    """A computation."""

    size: int
    """Nodes, edges, rows or variables, whatever its tables are counted by."""
    batches: tuple[tuple[int, int], ...] = ((1, 100),)
    """Rows that change in a transaction after loading, and how many such transactions."""
    sets: bool = False
    """Whether to compare also by hand with inputs that are sets, and on the engine with `raw` ones."""
    tpch: bool = False


WORKS = {
    "closure": Work(2_000),
    "triangles": Work(200_000),
    "counts": Work(3_000_000, sets=True),
    "same-generation": Work(3_000),
    "points-to": Work(20_000),
    "reach": Work(1_000_000, ((1, 200), (100, 50), (10_000, 6))),
    "q1": Work(0, ((1, 200), (1_000, 30)), sets=True, tpch=True),
    "q3": Work(0, ((1, 200), (1_000, 30)), sets=True, tpch=True),
    "q5": Work(0, ((1, 200), (1_000, 30)), sets=True, tpch=True),
    "q9": Work(0, ((1, 200), (1_000, 30)), sets=True, tpch=True),
}


def program(work: str, *, raw: bool = False) -> str:
    """The computation as a program, with `raw` inputs if asked for."""
    text = (Path(__file__).parent / "programs" / f"{work}.dl").read_text()
    for name in re.findall(r"^\.input (\w+)", text, re.MULTILINE) if raw else ():
        text = re.sub(rf"(\.decl {name}\([^)]*\))", r"\1 raw", text)
    return text


def input_columns(work: str) -> dict[str, list[str]]:
    """The computation's inputs with the names of their columns; that which changes comes first."""
    plan = compile_program(program(work), Catalog()).plan
    inputs = [relation for relation in plan["relations"] if relation["input"]]
    return {relation["name"]: [column["name"] for column in relation["columns"]] for relation in inputs}


def write_plan(
    work: str,
    directory: Path,
    statistics: Statistics | None = None,
    *,
    pairs: bool = False,
    raw: bool = False,
) -> Path:
    """The plan that the planner makes of the program.

    With ``pairs`` it sees no cycles, and joins two at a time. With ``raw`` inputs are `raw`.
    """
    blind = mock.patch("dataflow_serve.planner._bodies.cyclic_core", return_value=[])
    with blind if pairs else contextlib.nullcontext():
        compiled = compile_program(program(work, raw=raw), Catalog(), statistics=statistics)
    path = directory / f"{work}{'-pairs' if pairs else ''}{'-raw' if raw else ''}.plan"
    path.write_bytes(compiled.to_json())
    return path


def tables(work: str, directory: Path, scale: float) -> Statistics | None:
    """Tables that aren't made by the binary, in ``directory``, and what the planner may know of them."""
    if not WORKS[work].tpch:
        return None
    tpch.write_tables(directory, TPCH_SCALE * scale)
    return Statistics({name: _known(counts) for name, counts in tpch.distinct(directory).items()})


def _known(counts: list[int]) -> RelationStatistics:
    rows, *distinct = counts
    return RelationStatistics(rows, tuple(distinct), {})

"""Plans of short programs over a few relations, for the tests of what plans look like."""

from __future__ import annotations

from typing import Any

from dataflow_serve.planner import Catalog, compile_program, explain

PRELUDE = """
.decl e(x: number, y: number)
.input e
.decl big(a: number, b: number, c: number)
.input big
.decl s(name: symbol, n: number)
.input s
.decl p(x: number)
.decl p2(x: number, y: number)
.decl path(x: number, y: number)
.decl t(name: symbol, n: number)
"""


def plan_of(text: str, catalog: Catalog | None = None) -> dict[str, Any]:
    """The plan document of a program that follows the prelude."""
    return compile_program(PRELUDE + text, catalog or Catalog()).plan


def drawn(text: str, relation: str) -> list[str]:
    """The operators that compute a relation, one a line, without the relation's own."""
    drawing: str = explain(plan_of(text), relation)["text"]
    return [line[2:] for line in drawing.split("\n")[1:]]

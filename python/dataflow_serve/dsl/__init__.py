"""Rules written in Python: the same language as program text, and nothing but a way to write it.

    x, y, z = vars("x y z")
    edge, path = rel("edge"), rel("path", x=str, y=str)
    db.rules(rule(path(x, y), edge(x, y)), rule(path(x, z), path(x, y), edge(y, z)))

``_terms`` has variables, operators, functors and aggregates, ``_atoms`` relations, ``_program`` rules and
programs. Everything is immutable and has its program text; no I/O, and no checks beyond what Python itself
would find: errors of meaning are the server's to tell.
"""

from dataflow_serve.dsl._atoms import Atom, Relation, rel
from dataflow_serve.dsl._program import Program, Rule, program, rule
from dataflow_serve.dsl._terms import (
    Condition,
    Term,
    Var,
    count,
    fn,
    max,
    mean,
    min,
    sum,
    term,
    vars,
    wildcard,
)

__all__ = [
    "Atom",
    "Condition",
    "Program",
    "Relation",
    "Rule",
    "Term",
    "Var",
    "count",
    "fn",
    "max",
    "mean",
    "min",
    "program",
    "rel",
    "rule",
    "sum",
    "term",
    "vars",
    "wildcard",
]

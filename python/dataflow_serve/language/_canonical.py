"""One text for all programs that say the same, and its digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

from dataflow_serve.language import ast
from dataflow_serve.language._declarations import Names

__all__ = ["digest"]

_HEADER = "dataflow-serve program 1"


def digest(program: ast.Program, names: Names) -> str:
    """The SHA-256 of the program's canonical text, in hexadecimal.

    Layout, comments, the order of declarations and clauses, the names of types and the parameters of
    directives leave no trace in it. Repetitions of other programs' declarations do, as they are part of the
    text.
    """
    lines = {_clause(clause) for clause in program.clauses}
    lines.update(
        f"{_atom(each.dominated)}<={_atom(each.dominating)}:-{_body(each.body)}"
        for each in program.subsumptions
    )
    for declaration in program.relations:
        typed = ",".join(
            f"{column.name}:{names.type(column.type, column.type_at).value}" for column in declaration.columns
        )
        words = sorted(
            f"{q.name}({','.join(name for name, _ in q.columns)})"
            for q in declaration.qualifiers
            if q.name in ("raw", "upsert", "eqrel", "choice-domain")
        )
        lines.add(f".decl {declaration.name}({typed}) {' '.join(words)}")
    for directive in program.directives:
        if directive.kind == "limitsize":
            lines.add(f".limitsize {directive.relation} {sorted(directive.parameters)}")
        elif directive.kind != "printsize":
            lines.add(f".{directive.kind} {directive.relation}")
    lines.update(f".pragma magic-transform {name}" for name, _ in program.demanded)
    if program.frozen is not None:
        lines.add(".pragma frozen")
    return hashlib.sha256("\n".join([_HEADER, *sorted(lines)]).encode()).hexdigest()


def _clause(clause: ast.Clause) -> str:
    heads = ",".join(map(_atom, clause.heads))
    return heads if clause.body is None else f"{heads}:-{_body(clause.body)}"


def _body(body: ast.Body) -> str:
    match body:
        case ast.Atom():
            return _atom(body)
        case ast.Compare(op, left, right):
            return f"{_term(left)} {op} {_term(right)}"
        case ast.Constant(value):
            return f"?{value}"
        case ast.Negation(inner):
            return f"!({_body(inner)})"
        case ast.Conjunction(parts):
            return ",".join(map(_grouped, parts))
        case ast.Disjunction(parts):
            return ";".join(map(_grouped, parts))


def _grouped(body: ast.Body) -> str:
    return f"({_body(body)})" if isinstance(body, ast.Conjunction | ast.Disjunction) else _body(body)


def _atom(atom: ast.Atom) -> str:
    return f"{atom.relation}({_terms(atom.args)})"


def _terms(terms: Iterable[ast.Term]) -> str:
    return ",".join(map(_term, terms))


def _term(term: ast.Term) -> str:
    match term:
        case ast.Variable(name):
            return name
        case ast.Wildcard():
            return "_"
        case ast.NumberLiteral(value, unsigned):
            return f"{value}u" if unsigned else str(value)
        case ast.FloatLiteral(value):
            return value.hex()
        case ast.TextLiteral(value):
            return json.dumps(value)
        case ast.TruthLiteral(value):
            return f"?{value}"
        case ast.Apply(functor, args):
            return f"({functor} {_terms(args)})"
        case ast.Cast(inner, kind):
            return f"(as {_term(inner)} {kind})"
        case ast.Aggregate(func, target, body):
            return f"({func} {'' if target is None else _term(target)}:{{{_body(body)}}})"

"""Syntax trees with other names for relations, types and branches in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from msgspec.structs import replace

from dataflow_serve.language import ast

__all__ = ["Renaming"]

_Node = TypeVar("_Node")


class Renaming:
    """Replaces names wherever they stand; what a declaration declares keeps its own."""

    def __init__(
        self, relation: Callable[[str], str], kind: Callable[[str], str], branch: Callable[[str], str]
    ) -> None:
        """Relations, types and branches of algebraic types are called what these functions say."""
        self._relation = relation
        self._kind = kind
        self._branch = branch

    def clause(self, clause: ast.Clause) -> ast.Clause:
        """The clause; its text stays as written."""
        return replace(
            clause,
            heads=tuple(self._node(head) for head in clause.heads),
            body=None if clause.body is None else self._node(clause.body),
        )

    def subsumption(self, subsumption: ast.Subsumption) -> ast.Subsumption:
        """The subsumption; its text stays as written."""
        return replace(
            subsumption,
            dominated=self._node(subsumption.dominated),
            dominating=self._node(subsumption.dominating),
            body=self._node(subsumption.body),
        )

    def type_declaration(self, declaration: ast.TypeDeclaration) -> ast.TypeDeclaration:
        """The declaration with other bases, branches and types of fields."""
        bases = tuple((self._kind(name), at) for name, at in declaration.bases)
        branches = tuple(
            replace(
                branch,
                name=None if branch.name is None else self._branch(branch.name),
                fields=tuple(replace(each, type=self._kind(each.type)) for each in branch.fields),
            )
            for branch in declaration.branches
        )
        return replace(declaration, bases=bases, branches=branches)

    def relation_declaration(self, declaration: ast.RelationDeclaration) -> ast.RelationDeclaration:
        """The declaration with other types of columns."""
        columns = tuple(replace(column, type=self._kind(column.type)) for column in declaration.columns)
        return replace(declaration, columns=columns)

    def _node(self, node: _Node) -> _Node:
        """A part of a clause, by what its classes declare, so that new ones need nothing here."""
        changed: dict[str, Any] = {}
        if isinstance(node, ast.Atom):
            changed["relation"] = self._relation(node.relation)
        elif isinstance(node, ast.Cast):
            changed["type"] = self._kind(node.type)
        elif isinstance(node, ast.Apply) and node.functor.startswith("$"):
            changed["functor"] = f"${self._branch(node.functor[1:])}"
        for name in getattr(node, "__struct_fields__", ()):
            value = getattr(node, name)
            if type(value) is tuple:
                changed[name] = tuple(map(self._node, value))
            elif isinstance(value, ast.Node):
                changed[name] = self._node(value)
        return replace(node, **changed) if changed else node  # type: ignore[type-var]

"""The rows of a conjunction while it is being put together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from dataflow_serve.language import checked
from dataflow_serve.planner._expressions import (
    Call,
    Col,
    Const,
    Expr,
    is_fallible,
    same,
)
from dataflow_serve.planner._nodes import Nodes
from dataflow_serve.planner._windows import Window

__all__ = ["Rows"]


class Rows:
    """An operator whose filter and projection are still open, and what variable each expression over it is.

    Keeping them open is what fuses filters, computed variables and the head's projection into the join or
    source below: a node is only made when the next operator needs one, and then with the columns that are
    still needed.
    """

    def __init__(self, nodes: Nodes, node: int, env: dict[str, Expr]) -> None:
        """The rows of ``node``; ``env`` says what variables its columns are."""
        self._nodes = nodes
        self._node = node
        self._make: Callable[[Sequence[Expr], Sequence[Expr]], int] | None = None
        """Makes a node of filters and a projection, where that isn't one of a single node's rows."""
        self.env = env
        self._filters: list[Expr] = []
        self._evaluated: list[tuple[Expr, checked.Term]] = []

    @classmethod
    def open(
        cls, nodes: Nodes, make: Callable[[Sequence[Expr], Sequence[Expr]], int], env: dict[str, Expr]
    ) -> Rows:
        """The rows of an operator that ``make`` makes, given filters and a projection over its columns."""
        rows = cls(nodes, -1, env)
        rows._make = make
        return rows

    @classmethod
    def unit(cls, nodes: Nodes) -> Rows:
        """One row that binds nothing."""
        return cls(nodes, nodes.unit(), {})

    @property
    def is_unit(self) -> bool:
        """Whether nothing has been added to the one row that binds nothing."""
        return self._make is None and not self._filters and not self.env and self._node == self._nodes.unit()

    @property
    def iterates(self) -> bool:
        """Whether a recursion that is being planned may change them."""
        return self._make is not None or self._nodes.is_iterated(self._node)

    @property
    def is_plain(self) -> bool:
        """Whether these are the rows of a node as they are."""
        return self._make is None and not self._filters and not self._evaluated

    @property
    def conditions(self) -> int:
        """How many conditions the rows have to meet that no node checks yet."""
        return len(self._filters)

    def expr(self, term: checked.Term) -> Expr:
        """``term`` over the open operator's columns; its variables must be bound."""
        if isinstance(term, checked.Var):
            return self.env[term.name]
        if isinstance(term, checked.Const):
            return Const(term.type, term.value)
        return Call(term.func, term.over, tuple(map(self.expr, term.args)))

    def binds(self, names: Iterable[str]) -> bool:
        """Whether all of these variables have values."""
        return all(name in self.env for name in names)

    def filter(self, condition: Expr) -> None:
        """Keep only the rows for which ``condition`` holds."""
        if condition not in self._filters:
            self._filters.append(condition)

    def define(self, name: str, term: checked.Term) -> None:
        """Give a variable the value of ``term``.

        A value that can fail is evaluated even if nobody asks for it: a derivation fails with any of its
        parts.
        """
        expr = self.expr(term)
        self.env[name] = expr
        if is_fallible(expr):
            self._evaluated.append((expr, term))

    def node(self, project: Sequence[Expr]) -> int:
        """A node of these rows with the given columns."""
        filters = list(self._filters)
        for expr, term in self._evaluated:
            if expr not in project:
                filters.append(same(expr, term.type))
        if self._make is None:
            return self._nodes.map(self._node, filters, project)
        return self._make(filters, project)

    def only(self, names: Iterable[str]) -> tuple[int, Rows]:
        """A node of these rows with columns for the given variables alone, and the rows of that node.

        Columns keep the order they have, so that nothing is projected where nothing is dropped.
        """
        wanted: dict[Expr, list[str]] = {}
        for name in sorted(names):
            wanted.setdefault(self.env[name], []).append(name)
        project = sorted(wanted, key=lambda e: (e.place if isinstance(e, Col) else 1 << 30, wanted[e][0]))
        node = self.node(project)
        env: dict[str, Expr] = {
            name: Col(place) for place, expr in enumerate(project) for name in wanted[expr]
        }
        return node, Rows(self._nodes, node, env)

    def column(self, name: str) -> int:
        """The column that a variable is; the rows must be plain."""
        expr = self.env[name]
        assert isinstance(expr, Col)
        return expr.place

    def join(self, other: Rows, on: Sequence[str], needed: set[str]) -> Rows:
        """The pairs of rows that agree on the variables ``on``, with the ``needed`` variables of both."""
        left, mine = self.only((needed & self.env.keys()).union(on))
        right, theirs = other.only((needed & other.env.keys()).difference(self.env).union(on))
        width = self._nodes.width[left]
        env = dict(mine.env)
        for name in theirs.env:
            if name not in env:
                env[name] = Col(theirs.column(name) + width)
        keys = sorted(on, key=lambda name: (mine.column(name), name))
        left_key, right_key = map(mine.column, keys), map(theirs.column, keys)
        make = partial(self._nodes.join, left, right, list(left_key), list(right_key))
        return Rows.open(self._nodes, make, env)

    def within(self, windows: Sequence[Window], needed: set[str]) -> Rows:
        """These rows while ``now`` is in all of the windows, with the ``needed`` variables."""
        names = needed.union(*(window.names for window in windows)) & self.env.keys()
        source, rows = self.only(names)
        since = dict.fromkeys(rows.expr(term) for window in windows for term in window.since)
        until = dict.fromkeys(rows.expr(term) for window in windows for term in window.until)
        return Rows(self._nodes, self._nodes.window(source, list(since), list(until)), rows.env)

    def antijoin(self, other: Rows, on: Sequence[str], needed: set[str]) -> Rows:
        """These rows without those that agree with a row of ``other`` on the variables ``on``."""
        left, mine = self.only((needed & self.env.keys()).union(on))
        right, theirs = other.only(on)
        keys = sorted(on, key=lambda name: (mine.column(name), name))
        node = self._nodes.antijoin(
            left, right, [mine.column(name) for name in keys], [theirs.column(name) for name in keys]
        )
        return Rows(self._nodes, node, mine.env)

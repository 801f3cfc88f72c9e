"""Random programs and transactions, for comparing two ways to compute the same.

Every program is correct, ends, and means something: relations stand in layers, a layer negates and
aggregates lower ones only, and inside a recursion new values come from a finite range. Whatever is random
comes from the generator's `random.Random`, so a seed (or Hypothesis) repeats a case.
"""

from __future__ import annotations

import datetime
import random
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dataflow_serve.language import Branch, Column, Composite, Kind, Type
from dataflow_serve.values import parse_instant, value_text
from tests.oracle.values import Row

PAIR = Composite("Pair", "#pair")
PAIR.branches = (Branch(None, (Column("a", Type.NUMBER), Column("b", Type.SYMBOL))),)
"""A record type; programs know it by its name alone."""

VALUES: dict[Kind, Sequence[Any]] = {
    PAIR: (None, (1, "a"), (1, "longer than one word"), (2, "a"), (-1, "")),
    Type.NUMBER: (-2, -1, 0, 1, 2, 3, 5),
    Type.UNSIGNED: (0, 1, 2, 3),
    Type.FLOAT: (-1.5, 0.0, 0.5, 2.0),
    Type.SYMBOL: ("", "a", "b", "ab", "7", "longer than one word", "ünïcödé"),
    Type.BOOL: (False, True),
    Type.INSTANT: tuple(map(parse_instant, ("1969-12-31T23:59:59.999999Z", "1970-01-01T00:00:00.000001Z"))),
    Type.UUID: (uuid.UUID(int=0), uuid.UUID(int=5), uuid.UUID(int=1 << 127)),
    Type.BYTES: (b"", b"\x00", b"ab", b"\xff" * 9),
}
"""Few values, so that random rows meet; sums of the floats are exact in any order."""

_TYPES: list[Kind] = [
    *[Type.NUMBER] * 6,
    *[Type.SYMBOL] * 2,
    *(Type.UNSIGNED, Type.FLOAT, Type.BOOL),
    *(Type.INSTANT, Type.UUID, Type.BYTES),
    *[PAIR] * 2,
]
_NUMERIC = (Type.NUMBER, Type.UNSIGNED, Type.FLOAT)

Transaction = list[tuple[str, list[Row], list[Row]]]
"""Relation, rows to insert, rows to delete."""


@dataclass(frozen=True, slots=True)
class InputRelation:
    """An input relation of a generated program."""

    name: str
    types: tuple[Kind, ...]
    mode: str
    key: tuple[int, ...] = ()


@dataclass(slots=True)
class Case:
    """A program with transactions for it."""

    program: str
    inputs: dict[str, InputRelation]
    derived: list[str]
    transactions: list[Transaction] = field(default_factory=list)


def generate(rng: random.Random, *, rules: int = 6, transactions: int = 4, rows: int = 6) -> Case:
    """A random program of about ``rules`` rules, and transactions of up to ``rows`` rows a relation."""
    program = _Generator(rng)
    program.inputs()
    program.layers(rules)
    case = Case("\n".join(program.lines) + "\n", program.input_relations, program.derived)
    state: dict[str, Counter[Row]] = {name: Counter() for name in case.inputs}
    for _ in range(transactions):
        transaction = _transaction(rng, case.inputs, state, rows)
        apply_transaction(case.inputs, state, transaction)
        case.transactions.append(transaction)
    return case


def apply_transaction(
    inputs: Mapping[str, InputRelation], state: dict[str, Counter[Row]], transaction: Transaction
) -> None:
    """Do to the transacted rows what the protocol says: all deletes, then the inserts in their order."""
    for name, _, deletes in transaction:
        for row in deletes:
            if inputs[name].mode == "raw":
                state[name][row] -= 1
                state[name] = +state[name]
            else:
                state[name].pop(row, None)
    for name, inserts, _ in transaction:
        relation = inputs[name]
        for row in inserts:
            if relation.mode == "upsert":
                for other in [r for r in state[name] if all(r[c] == row[c] for c in relation.key)]:
                    del state[name][other]
            state[name][row] = state[name][row] + 1 if relation.mode == "raw" else 1


def _transaction(
    rng: random.Random,
    inputs: Mapping[str, InputRelation],
    state: Mapping[str, Counter[Row]],
    rows: int,
) -> Transaction:
    transaction: Transaction = []
    for name, relation in inputs.items():
        if rng.random() < 0.3:
            continue
        # Of a raw relation only what is there is deleted: less than no copies has no meaning to compare.
        present = sorted(state[name].elements(), key=repr)
        deletes = rng.sample(present, rng.randint(0, len(present) // 2)) if present else []
        inserts = [
            tuple(rng.choice(VALUES[kind]) for kind in relation.types) for _ in range(rng.randint(0, rows))
        ]
        transaction.append((name, inserts, deletes))
    return transaction


@dataclass(slots=True)
class _Scope:
    """The variables of a body under construction, by type."""

    names: dict[Kind, list[str]] = field(default_factory=dict)

    def all(self) -> Iterable[tuple[Kind, str]]:
        return [(kind, name) for kind, names in self.names.items() for name in names]


class _AggregateBody(NamedTuple):
    """The inside of an aggregate under construction."""

    text: str
    target: str | None
    kind: Kind
    """Of the target."""
    own: list[tuple[Kind, str]]
    """Its own variables."""


class _Generator:
    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.lines: list[str] = []
        self.input_relations: dict[str, InputRelation] = {}
        self.derived: list[str] = []
        self._types: dict[str, tuple[Kind, ...]] = {}
        self._complete: list[str] = []
        self._count = 0

    # Declarations

    def inputs(self) -> None:
        self.lines.append(f".type {PAIR} = {PAIR.branches[0]}")
        for place in range(self.rng.randint(2, 3)):
            types = self._some_types(1 if place else 2, 3)
            mode = self.rng.choice(["set"] * 4 + ["raw", "upsert"])
            key = (0,) if mode == "upsert" else ()
            name = f"in{place}"
            qualifier = {"set": "", "raw": " raw", "upsert": " upsert(c0)"}[mode]
            self._declare(name, types, qualifier)
            self.lines.append(f".input {name}")
            self.input_relations[name] = InputRelation(name, types, mode, key)
            self._complete.append(name)
            if mode == "set" and self.rng.random() < 0.2:
                self._facts(name)

    def layers(self, rules: int) -> None:
        while rules > 0:
            layer: list[str] = []
            for _ in range(self.rng.choice([1, 1, 1, 2])):
                name = f"d{len(self.derived)}"
                # A recursion needs relations that can hold each other's values: mostly numbers.
                types = self._some_types(0 if self.rng.random() < 0.05 else 1, 3)
                if self.rng.random() < 0.1:
                    types = (types or (Type.NUMBER,))[:1] * 2
                self._declare(name, types, self._closing(types))
                self.derived.append(name)
                layer.append(name)
            # Of rows that go away again in a recursion nobody knows whether they settle.
            loops = layer if self._may_loop(layer) else []
            for name in layer:
                if self.rng.random() < 0.15:
                    self._facts(name)
                for place in range(self.rng.choice([1, 1, 2, 3])):
                    rules -= 1
                    if place and self.rng.random() < 0.6:
                        self._rule(name, loops)
                    else:
                        self._rule(name, [])
                if self.rng.random() < 0.3:
                    self.lines.append(f".output {name}")
            self._complete += layer

    def _closing(self, types: tuple[Kind, ...]) -> str:
        """What stands behind a declaration, mostly nothing."""
        if len(types) == 2 and types[0] is types[1] and self.rng.random() < 0.5:
            return " eqrel"
        if len(types) > 1 and self.rng.random() < 0.1:
            domains = [" choice-domain c1", " choice-domain (c0)", " choice-domain c0, c1"]
            return self.rng.choice(domains)
        return ""

    def _may_loop(self, layer: list[str]) -> bool:
        """Whether the relations of a layer may depend on one another; if not, rows of some may give way."""
        if self.rng.random() < 0.8:
            declared = "".join(self.lines[-len(layer) :])
            if "eqrel" not in declared:
                if self.rng.random() < 0.15:
                    self.lines.append(f".limitsize {self.rng.choice(layer)}(n={self.rng.randint(1, 6)})")
                return True
            return "choice-domain" not in declared
        for name in layer:
            declared = next(line for line in self.lines if line.startswith(f".decl {name}("))
            width = len(self._types[name])
            if width and not declared.endswith(" eqrel") and "choice-domain" not in declared:
                place = self.rng.randrange(width)
                others = [f"x{column}" if self.rng.random() < 0.8 else "_" for column in range(width)]
                sides = [
                    ", ".join(side if column == place else other for column, other in enumerate(others))
                    for side in ("a", "b")
                ]
                ordered = self._types[name][place] is not PAIR
                sign = self.rng.choice(["<", "<=", ">", ">=", "!="] if ordered else ["!=", "="])
                self.lines.append(f"{name}({sides[0]}) <= {name}({sides[1]}) :- a {sign} b.")
        return False

    def _some_types(self, least: int, most: int) -> tuple[Kind, ...]:
        return tuple(self.rng.choice(_TYPES) for _ in range(self.rng.randint(least, most)))

    def _declare(self, name: str, types: tuple[Kind, ...], qualifier: str) -> None:
        columns = ", ".join(f"c{place}: {kind}" for place, kind in enumerate(types))
        self.lines.append(f".decl {name}({columns}){qualifier}")
        self._types[name] = types

    def _facts(self, name: str) -> None:
        for _ in range(self.rng.randint(1, 2)):
            self.lines.append(f"{name}({', '.join(map(self._constant, self._types[name]))}).")

    # Rules

    def _rule(self, name: str, recursive: list[str]) -> None:
        """A rule for ``name`` that may read the relations of ``recursive``, which in turn depend on it."""
        scope = _Scope()
        parts = [self._atom(self.rng.choice(self._complete), scope)]
        if recursive:
            parts.append(self._atom(self.rng.choice(recursive), scope))
        for _ in range(self.rng.choice([0, 0, 1, 1, 2])):
            pool = self._complete + recursive if recursive else self._complete
            parts.append(self._atom(self.rng.choice(pool), scope))
        if self.rng.random() < 0.15:
            parts.append(self._disjunction(scope))
        for _ in range(self.rng.choice([0, 0, 1, 1, 2])):
            parts.append(self._constraint(scope, bool(recursive)))
        heads = [f"{name}({self._head(name, scope, bool(recursive))})"]
        if self.rng.random() < 0.08 and not recursive:
            heads.append(f"{name}({self._head(name, scope, False)})")
        if self.rng.random() < 0.3:
            self.rng.shuffle(parts)
        self.lines.append(f"{', '.join(heads)} :- {', '.join(parts)}.")

    def _head(self, name: str, scope: _Scope, bounded: bool) -> str:
        args: list[str] = []
        for kind in self._types[name]:
            known = scope.names.get(kind)
            if kind is Type.NUMBER and self.rng.random() < 0.25:
                args.append(self._number(scope, bounded))
            elif known and self.rng.random() < 0.9:
                args.append(self.rng.choice(known))
            elif not bounded and self.rng.random() < 0.5:
                args.append(self._term(kind, scope))
            else:
                args.append(self._constant(kind))
        return ", ".join(args)

    def _atom(self, relation: str, scope: _Scope, fresh: float = 0.5, terms: bool = True) -> str:
        """An atom; its arguments are variables of ``scope`` or new ones of it, constants, terms or ``_``."""
        args: list[str] = []
        new: list[tuple[Kind, str]] = []
        for kind in self._types[relation]:
            chance = self.rng.random()
            known = scope.names.get(kind, [])
            if chance < 0.12:
                args.append("_")
            elif chance < 0.22:
                args.append(self._constant(kind))
            elif terms and known and chance < 0.28:
                args.append(self._term(kind, scope))
            elif known and self.rng.random() >= fresh:
                args.append(self.rng.choice(known))
            elif kind is PAIR and terms and self.rng.random() < 0.5:
                args.append(self._pattern(scope, new))
            else:
                name = self._name()
                new.append((kind, name))
                args.append(name)
        for kind, name in new:
            scope.names.setdefault(kind, []).append(name)
        return f"{relation}({', '.join(args)})"

    def _pattern(self, scope: _Scope, new: list[tuple[Kind, str]]) -> str:
        """A record that an atom takes apart, with variables of ``scope``, new ones, constants or ``_``."""
        args: list[str] = []
        for column in PAIR.branches[0].fields:
            known = scope.names.get(column.type)
            chance = self.rng.random()
            if chance < 0.2:
                args.append("_")
            elif chance < 0.3:
                args.append(self._constant(column.type))
            elif known and chance < 0.6:
                args.append(self.rng.choice(known))
            else:
                name = self._name()
                new.append((column.type, name))
                args.append(name)
        return f"[{', '.join(args)}]"

    def _disjunction(self, scope: _Scope) -> str:
        """Two alternatives that bind the same new variable, or none."""
        kind = self.rng.choice(_TYPES)
        name = self._name()
        able = [relation for relation in self._complete if kind in self._types[relation]]
        if len(able) < 1:
            return "(true ; false)"
        sides: list[str] = []
        for _ in range(2):
            relation = self.rng.choice(able)
            place = self._types[relation].index(kind)
            args = [
                name if column == place else self._local_argument(other, scope)
                for column, other in enumerate(self._types[relation])
            ]
            sides.append(f"{relation}({', '.join(args)})")
        scope.names.setdefault(kind, []).append(name)
        if self.rng.random() < 0.3:
            sides[1] += f", {self._comparison(scope)}"
        return f"({' ; '.join(sides)})"

    def _local_argument(self, kind: Kind, scope: _Scope) -> str:
        known = scope.names.get(kind)
        chance = self.rng.random()
        if known and chance < 0.4:
            return self.rng.choice(known)
        return "_" if chance < 0.8 else self._constant(kind)

    # Constraints

    def _constraint(self, scope: _Scope, bounded: bool) -> str:
        chance = self.rng.random()
        if chance < 0.3:
            return self._comparison(scope)
        if chance < 0.5:
            return f"!{self._negated(scope)}"
        if chance < 0.6 and not bounded:
            # Defines a variable by a term.
            kind = self.rng.choice([known for known, _ in scope.all()] or [Type.NUMBER])
            term = self._term(kind, scope)
            if term == "nil":
                # Alone it doesn't say of which type it is.
                term = '[1, "a"]'
            name = self._name()
            scope.names.setdefault(kind, []).append(name)
            sides = [name, term]
            self.rng.shuffle(sides)
            return " = ".join(sides)
        if chance < 0.62 and not bounded:
            return self._range(scope)
        if chance < 0.65:
            return f"!({self._comparison(scope)} ; {self._comparison(scope)})"
        if chance < 0.7 and scope.names.get(Type.SYMBOL):
            text = self.rng.choice(scope.names[Type.SYMBOL])
            negation = self.rng.choice(["", "!"])
            return f'{negation}{self.rng.choice(["contains", "match"])}("{self.rng.choice("ab7")}", {text})'
        return self._aggregate(scope, bounded)

    def _comparison(self, scope: _Scope) -> str:
        kind = self.rng.choice([known for known, _ in scope.all()] or [Type.NUMBER])
        operator = self.rng.choice(["=", "!="] if kind is PAIR else ["=", "!=", "<", "<=", ">", ">="])
        known = scope.names.get(kind)
        # A literal on both sides would be a number whatever was meant.
        left = self.rng.choice(known) if known else self._constant(Type.SYMBOL)
        right = self._term(kind if known else Type.SYMBOL, scope)
        return f"{left} {operator} {right}"

    def _range(self, scope: _Scope) -> str:
        """A new variable, or sometimes a known one, within a short range."""
        known = scope.names.get(Type.NUMBER)
        end = f"{self.rng.choice(known)} % 4" if known else str(self.rng.randint(-2, 3))
        step = f", {self.rng.choice([-1, 1, 2])}" if self.rng.random() < 0.4 else ""
        if known and self.rng.random() < 0.3:
            return f"{self.rng.choice(known)} = range(0, {end}{step})"
        name = self._name()
        scope.names.setdefault(Type.NUMBER, []).append(name)
        return f"{name} = range(0, {end}{step})"

    def _negated(self, scope: _Scope) -> str:
        relation = self.rng.choice(self._complete)
        args = [self._local_argument(kind, scope) for kind in self._types[relation]]
        return f"{relation}({', '.join(args)})"

    def _aggregate(self, scope: _Scope, bounded: bool) -> str:
        """``name = func target : { … }``; inside a recursion it is only compared, not kept."""
        func = self.rng.choice(["count", "count", "sum", "min", "max", "mean"])
        # Those of which the body binds all outer variables are taken outside of a loop.
        body = self._aggregate_body(func, scope, bounded and self.rng.random() < 0.5, depth=0)
        shown = f"{func}{' ' + body.target if body.target else ''} : {{ {body.text} }}"
        kind = {"count": Type.NUMBER, "mean": Type.FLOAT}.get(func, body.kind)
        witnessed = ""
        if func in ("min", "max") and body.own and not bounded and self.rng.random() < 0.3:
            # A variable of the aggregate is a witness because it is used outside, so that has to be sure.
            witness_kind, witness = self.rng.choice(body.own)
            scope.names.setdefault(witness_kind, []).append(witness)
            witnessed = f", {witness} = {witness}"
        if bounded or self.rng.random() < 0.3:
            return f"{shown} {self.rng.choice(['>', '<=', '!='])} {self._constant(kind)}{witnessed}"
        name = self._name()
        scope.names.setdefault(kind, []).append(name)
        return f"{name} = {shown}{witnessed}"

    def _aggregate_body(self, func: str, outer: _Scope, bounded: bool, depth: int) -> _AggregateBody:
        inner = _Scope({kind: list(names) for kind, names in outer.names.items()})
        before = {name for _, name in inner.all()}
        # If bounded, the atoms themselves bind the outer variables, which terms don't.
        parts = [self._atom(self.rng.choice(self._complete), inner, 0.6, terms=not bounded)]
        if self.rng.random() < 0.3:
            parts.append(self._atom(self.rng.choice(self._complete), inner, 0.6, terms=not bounded))
        own = [(kind, name) for kind, name in inner.all() if name not in before]
        if bounded:
            inner = _Scope()
            for kind, name in own:
                inner.names.setdefault(kind, []).append(name)
        if self.rng.random() < 0.4 and inner.names:
            parts.append(self._comparison(inner))
        if self.rng.random() < 0.15:
            parts.append(f"!{self._negated(inner)}")
        if depth == 0 and not bounded and self.rng.random() < 0.15:
            nested = self._aggregate_body("sum", inner, bounded, 1)
            name = self._name()
            parts.append(f"{name} = sum {nested.target} : {{ {nested.text} }}")
            own.append((nested.kind, name))
        numeric = [(kind, name) for kind, name in own if kind in _NUMERIC]
        if func == "count":
            body = ", ".join(parts)
            if self.rng.random() < 0.15 and len(parts) == 1 and not bounded:
                body = f"{body} ; {self._atom_of_locals(own)}"
            return _AggregateBody(body, None, Type.NUMBER, [])
        able = [each for each in own if each[0] is not PAIR] if func in ("min", "max") else numeric
        if able:
            kind, name = self.rng.choice(able)
            plain = kind not in _NUMERIC or self.rng.random() < 0.7
            target = name if plain else self._arithmetic(kind, name)
            return _AggregateBody(", ".join(parts), target, kind, own)
        # Nothing to take it of: a constant for each row.
        return _AggregateBody(", ".join(parts), "2", Type.NUMBER, own)

    def _atom_of_locals(self, own: list[tuple[Kind, str]]) -> str:
        relation = self.rng.choice(self._complete)
        args: list[str] = []
        for kind in self._types[relation]:
            able = [name for other, name in own if other is kind]
            args.append(self.rng.choice(able) if able and self.rng.random() < 0.6 else "_")
        return f"{relation}({', '.join(args)})"

    # Terms

    def _number(self, scope: _Scope, bounded: bool) -> str:
        known = scope.names.get(Type.NUMBER)
        if not known:
            return self._constant(Type.NUMBER)
        name = self.rng.choice(known)
        return f"({name} + {self.rng.randint(1, 3)}) % 7" if bounded else self._term(Type.NUMBER, scope)

    def _term(self, kind: Kind, scope: _Scope) -> str:
        known = scope.names.get(kind)
        if not known or self.rng.random() < 0.25:
            return self._constant(kind)
        name = self.rng.choice(known)
        if self.rng.random() < 0.4:
            return name
        if kind is Type.SYMBOL:
            return self.rng.choice(
                [f'cat({name}, "a")', f'{name} + "a"', f"substr({name}, 0, 1)", f"cat({name}, {name})", name]
            )
        if kind is Type.INSTANT:
            return self.rng.choice([f"{name} + 2", f"{name} - 1", f"to_instant(to_string({name}))"])
        if kind is PAIR:
            return f"[{', '.join(self._term(column.type, scope) for column in PAIR.branches[0].fields)}]"
        if kind in (Type.BOOL, Type.UUID, Type.BYTES):
            return name
        return self._arithmetic(kind, name, self.rng.choice(known))

    def _arithmetic(self, kind: Kind, name: str, other: str | None = None) -> str:
        other = other if other and self.rng.random() < 0.5 else self._constant(kind)
        operators = ["+", "-", "*"]
        if kind is not Type.FLOAT:
            operators += ["/", "%", "band", "bxor"]
        term = f"({name} {self.rng.choice(operators)} {other})"
        texts = self.rng.random()
        if texts < 0.1:
            return f"{self.rng.choice(['min', 'max'])}({name}, {term})"
        if texts < 0.15 and kind is Type.NUMBER:
            return f"to_number(to_string({name}))"
        return term

    def _constant(self, kind: Kind) -> str:
        value = self.rng.choice(VALUES[kind])
        match value:
            case bool():
                return str(value).lower()
            case str():
                return f'"{value}"'
            case datetime.datetime() | uuid.UUID() | bytes():
                return f'to_{kind}("{value_text(value)}")'
            case None:
                return "nil"
            case (first, second):
                return f'[{first}, "{second}"]'
            case int() if kind is Type.UNSIGNED:
                return f"{value}u"
            case int() if value < 0:
                return f"({value})"
            case _:
                return str(value)

    def _name(self) -> str:
        self._count += 1
        return f"v{self._count}"

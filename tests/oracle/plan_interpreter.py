"""What a plan document means, operator by operator, on bags of rows.

Written from the definition of the document alone. It says whether the planner is right without an engine,
and what an engine has to compute without a planner.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from dataflow_serve.language import CLOCK, Composite, Kind, Scalar, Type, composites_from_json
from tests.oracle.values import Failed, Row, aggregate, apply, floating, micros, values_of_range

Bag = Counter[Row]
Json = dict[str, Any]


def interpret(plan: Json, inputs: Mapping[str, Iterable[Row]], max_rounds: int = 10_000) -> dict[str, Bag]:
    """The contents of every relation that the plan declares.

    Args:
        plan: The plan document.
        inputs: Transacted rows by relation, and the contents of imports, by name; copies count for raw ones.
        max_rounds: Iterations that a recursion may take.
    """
    return _Interpreter(plan, inputs).run(max_rounds)


class _Interpreter:
    def __init__(self, plan: Json, inputs: Mapping[str, Iterable[Row]]) -> None:
        self._plan = plan
        self._imports = [Counter(map(_canonical, inputs.get(known["name"], ()))) for known in plan["imports"]]
        self._base: list[Bag] = []
        for relation in plan["relations"]:
            rows: Bag = Counter(map(_canonical, inputs.get(relation["name"], ())))
            self._base.append(rows if relation["input"] == "raw" else Counter(dict.fromkeys(rows, 1)))
        self._contents = [Counter(rows) for rows in self._base]
        self._values: dict[int, Bag] = {}
        self._composites = composites_from_json(plan["types"])
        self._types: list[list[Kind]] = []
        for node in plan["nodes"]:
            self._types.append(self._types_of(node))

    def run(self, max_rounds: int) -> dict[str, Bag]:
        for stratum in self._plan["strata"]:
            for _ in range(max_rounds):
                self._values = {}
                before = [Counter(rows) for rows in self._contents]
                derived = [(d["relation"], self._node(d["node"])) for d in stratum["relations"]]
                for relation, rows in derived:
                    united = {*self._base[relation], *rows}
                    self._contents[relation] = Counter(dict.fromkeys(united, 1))
                if not stratum["recursive"] or self._contents == before:
                    break
            else:
                raise AssertionError("a recursion without end")
        names = [relation["name"] for relation in self._plan["relations"]]
        return dict(zip(names, self._contents, strict=True))

    def _kind(self, name: str) -> Kind:
        return self._composites.get(name) or Type(name)

    def _types_of(self, node: Json) -> list[Kind]:
        """The types of a node's columns, from those of the nodes before it."""
        inputs = [self._types[source] for source in _sources(node)]
        match node["op"]:
            case "get":
                ((kind, place),) = node["relation"].items()
                if kind == "import":
                    return [self._kind(name) for name in self._plan["imports"][place]["types"]]
                return [self._kind(column["type"]) for column in self._plan["relations"][place]["columns"]]
            case "rows":
                return [self._kind(name) for name in node["types"]]
            case "map" | "join":
                columns = [kind for types in inputs for kind in types]
                assert all(self._expr_type(expr, columns) is Type.BOOL for expr in node["filter"])
                return [self._expr_type(expr, columns) for expr in node["project"]]
            case "multijoin":
                known: dict[int, Kind] = {}
                for types, variables in zip(inputs, node["variables"], strict=True):
                    for kind, variable in zip(types, variables, strict=True):
                        assert known.setdefault(variable, kind) == kind, node
                columns = [known[variable] for variable in range(len(known))]
                assert all(self._expr_type(expr, columns) is Type.BOOL for expr in node["filter"])
                return [self._expr_type(expr, columns) for expr in node["project"]]
            case "range":
                bounds = [node[name] for name in ("start", "stop", "step") if node[name] is not None]
                kinds = {self._expr_type(bound, inputs[0]) for bound in bounds}
                assert kinds == {Type(node["over"])}, node
                return [*inputs[0], *kinds]
            case "window":
                bounds = [*node["since"], *node["until"]]
                assert bounds and all(self._expr_type(e, inputs[0]) is Type.NUMBER for e in bounds), node
                return inputs[0]
            case "reduce":
                key = [inputs[0][column] for column in node["key"]]
                return key + [_aggregate_type(asked, inputs[0]) for asked in node["aggregates"]]
            case _:
                assert node["op"] == "antijoin" or all(types == inputs[0] for types in inputs)
                return inputs[0]

    def _expr_type(self, expr: Json, columns: list[Kind]) -> Kind:
        if "col" in expr:
            return columns[expr["col"]]
        if "const" in expr:
            return Type(next(iter(expr["const"])))
        call = expr["call"]
        func, over = call["func"], self._kind(call["over"])
        args = [self._expr_type(arg, columns) for arg in call["args"]]
        if isinstance(over, Composite) and func not in ("eq", "ne"):
            return self._record_type(func, over, call["args"], args)
        mixed = func in ("substr", "instant_add", "instant_sub")
        assert args[0] == over and (mixed or all(arg == over for arg in args)), call
        if func in ("eq", "ne", "lt", "le", "gt", "ge", "match", "contains"):
            return Type.BOOL
        if func in ("strlen", "instant_diff"):
            return Type.NUMBER
        return Type(func.removeprefix("to_")) if func.startswith("to_") else over

    @staticmethod
    def _record_type(func: str, over: Composite, args: list[Json], types: list[Kind]) -> Kind:
        numbers = [arg["const"]["unsigned"] for arg in args if "const" in arg and "unsigned" in arg["const"]]
        match func:
            case "nil":
                assert not args and over.record is not None
                return over
            case "pack":
                assert types[1:] == [field.type for field in over.branches[numbers[0]].fields], args
                return over
            case "is":
                assert types[0] == over and len(over.branches) > numbers[0]
                return Type.BOOL
            case _:
                assert func == "unpack" and types[0] == over
                return over.branches[numbers[0]].fields[numbers[1]].type

    def _node(self, place: int) -> Bag:
        if place not in self._values:
            node = self._plan["nodes"][place]
            for source in _sources(node):
                assert source < place, "a node refers to earlier ones only"
            rows: Bag = getattr(self, f"_{node['op']}")(node)
            self._values[place] = rows
        return self._values[place]

    def _get(self, node: Json) -> Bag:
        ((kind, place),) = node["relation"].items()
        rows: Bag = (self._contents if kind == "local" else self._imports)[place]
        return rows

    def _rows(self, node: Json) -> Bag:
        return Counter(tuple(map(_constant, row)) for row in node["rows"])

    def _map(self, node: Json) -> Bag:
        out: Bag = Counter()
        for row, copies in self._node(node["input"]).items():
            self._emit(node, row, copies, out)
        return out

    def _range(self, node: Json) -> Bag:
        out: Bag = Counter()
        for row, copies in self._node(node["input"]).items():
            try:
                start, stop = (self._evaluate(node[name], row) for name in ("start", "stop"))
                step = None if node["step"] is None else self._evaluate(node["step"], row)
                values = values_of_range(Type(node["over"]), start, stop, step)
            except Failed:
                continue
            for value in values:
                out[(*row, value)] += copies
        return out

    def _window(self, node: Json) -> Bag:
        clocks = [place for place, known in enumerate(self._plan["imports"]) if known["relation"] == CLOCK.id]
        moments = [micros(row[0]) for place in clocks for row in self._imports[place]]
        assert clocks and len(moments) <= 1, "a window needs the clock, which shows one time"
        out: Bag = Counter()
        for row, copies in self._node(node["input"]).items():
            try:
                since = [self._evaluate(expr, row) for expr in node["since"]]
                until = [self._evaluate(expr, row) for expr in node["until"]]
            except Failed:
                continue
            if all(max(since, default=now) <= now < min(until, default=now + 1) for now in moments):
                out[row] += copies * len(moments)
        return +out

    def _join(self, node: Json) -> Bag:
        out: Bag = Counter()
        by_key: dict[Row, list[tuple[Row, int]]] = {}
        for row, copies in self._node(node["right"]).items():
            by_key.setdefault(_key(row, node["right_key"]), []).append((row, copies))
        for row, copies in self._node(node["left"]).items():
            for other, others in by_key.get(_key(row, node["left_key"]), ()):
                self._emit(node, row + other, copies * others, out)
        return out

    def _multijoin(self, node: Json) -> Bag:
        found: list[tuple[dict[int, Scalar], int]] = [({}, 1)]
        for source, variables in zip(node["inputs"], node["variables"], strict=True):
            longer: list[tuple[dict[int, Scalar], int]] = []
            for known, copies in found:
                for row, others in self._node(source).items():
                    more = dict(zip(variables, row, strict=True))
                    assert len(more) == len(row), "two columns are one variable"
                    if all(known.get(variable, value) == value for variable, value in more.items()):
                        longer.append(({**known, **more}, copies * others))
            found = longer
        out: Bag = Counter()
        for known, copies in found:
            self._emit(node, tuple(known[variable] for variable in range(len(known))), copies, out)
        return out

    def _antijoin(self, node: Json) -> Bag:
        keys = {_key(row, node["right_key"]) for row in self._node(node["right"])}
        left = self._node(node["left"])
        return Counter({row: n for row, n in left.items() if _key(row, node["left_key"]) not in keys})

    def _union(self, node: Json) -> Bag:
        out: Bag = Counter()
        for source in node["inputs"]:
            out.update(self._node(source))
        return out

    def _distinct(self, node: Json) -> Bag:
        return Counter(dict.fromkeys(self._node(node["input"]), 1))

    def _reduce(self, node: Json) -> Bag:
        groups: dict[Row, list[Row]] = {}
        for row, copies in self._node(node["input"]).items():
            groups.setdefault(_key(row, node["key"]), []).extend([row] * copies)
        out: Bag = Counter()
        for key, rows in groups.items():
            results: list[Scalar] = []
            for asked in node["aggregates"]:
                column = asked["column"]
                values = [0 if column is None else row[column] for row in rows]
                kind = Type.NUMBER if column is None else self._types[node["input"]][column]
                results.append(aggregate(asked["func"], kind, values))
            out[(*key, *results)] += 1
        return out

    def _emit(self, node: Json, row: Row, copies: int, out: Bag) -> None:
        try:
            if all(self._evaluate(expr, row) for expr in node["filter"]):
                out[tuple(self._evaluate(expr, row) for expr in node["project"])] += copies
        except Failed:
            return

    def _evaluate(self, expr: Json, row: Row) -> Scalar:
        if "col" in expr:
            value: Scalar = row[expr["col"]]
            return value
        if "const" in expr:
            return _constant(expr["const"])
        call = expr["call"]
        args = [self._evaluate(arg, row) for arg in call["args"]]
        return apply(call["func"], self._kind(call["over"]), args)


def _sources(node: Json) -> list[int]:
    inputs: list[int] = node.get("inputs", [])
    return [node[name] for name in ("input", "left", "right") if name in node] + inputs


def _key(row: Row, columns: list[int]) -> Row:
    return tuple(row[column] for column in columns)


def _aggregate_type(asked: Json, columns: list[Kind]) -> Kind:
    if asked["func"] in ("count", "mean"):
        return Type.NUMBER if asked["func"] == "count" else Type.FLOAT
    return columns[asked["column"]]


def _constant(value: Json) -> Scalar:
    ((kind, constant),) = value.items()
    if kind == "float":
        bits: float = struct.unpack("<d", struct.pack("<Q", constant))[0]
        return floating(bits)
    scalar: Scalar = constant
    return scalar


def _canonical(row: Row) -> Row:
    return tuple(floating(value) if isinstance(value, float) else value for value in row)

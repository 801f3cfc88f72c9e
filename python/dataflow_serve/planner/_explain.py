"""What a plan does, as a tree that people read."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

from dataflow_serve.errors import NotFoundError, TooLargeError
from dataflow_serve.language import did_you_mean
from dataflow_serve.planner._compile import inputs_of
from dataflow_serve.planner._figures import Figures, notes

__all__ = ["explain"]

MAX_DEPTH = 56
"""Operators in a row: what reads JSON takes 128 levels, of which each operator is two."""

_INFIX = {
    "eq": "=",
    "ne": "!=",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "mod": "%",
    "pow": "^",
    **{word: word for word in ("band", "bor", "bxor", "bshl", "bshr", "bshru", "land", "lor", "lxor")},
}


def explain(
    plan: dict[str, Any], relation: str, analysis: Sequence[dict[str, Any]] | None = None
) -> dict[str, Any]:
    """The operators that compute ``relation``, from a plan document that declares it.

    Each operator is ``{"op", "detail", "inputs"}``, with the rules that it is there for as ``"rules"``; the
    root is the relation itself and has the whole tree as a drawing in ``"text"``. A node that several others
    read stands below each of them.

    With an ``analysis``, each worker's share of what the plan's operators hold and have done, operators have
    these as ``"stats"``, the arrangements that they read as ``"arrangements"``, and both in words as
    ``"notes"``.

    Raises:
        NotFoundError: the plan doesn't declare the relation.
        TooLargeError: more than ``MAX_DEPTH`` operators follow one another.
    """
    names = [declared["name"] for declared in plan["relations"]]
    if relation not in names:
        raise NotFoundError(
            f'no relation "{relation}" in module "{plan["name"]}"', did_you_mean(relation, names)
        )
    index = names.index(relation)
    declared = plan["relations"][index]
    figures = None if analysis is None else Figures(plan, analysis)
    columns = ", ".join(f"{column['name']}: {column['type']}" for column in declared["columns"])
    tree: dict[str, Any] = {"op": "relation", "detail": f"{relation}({columns})", "inputs": []}
    if declared["input"] is not None:
        mode = declared["input"]
        words = mode if isinstance(mode, str) else f"upsert by {_columns(declared, mode['upsert'])}"
        given = _operator("input", f"transacted rows ({words})")
        tree["inputs"].append(given)
        if figures is not None:
            figures.add(given, "input", index)
    for stratum in plan["strata"]:
        for definition in stratum["relations"]:
            if definition["relation"] == index:
                if stratum["recursive"]:
                    group = ", ".join(names[other["relation"]] for other in stratum["relations"])
                    tree["detail"] += f", recursive with {group}"
                _check_depth(plan, definition["node"], relation)
                tree["inputs"].append(_Tree(plan, figures).node(definition["node"])[0])
    if figures is not None:
        figures.add(tree, "relation", index)
        figures.arranged(tree, relation)
    if figures is not None:
        _note(tree)
    tree["text"] = "\n".join(_draw(tree))
    return tree


def _check_depth(plan: dict[str, Any], node: int, relation: str) -> None:
    depths: list[int] = []
    for each in plan["nodes"][: node + 1]:
        depths.append(1 + max((depths[place] for place in inputs_of(each)), default=0))
    if depths[node] > MAX_DEPTH:
        raise TooLargeError(
            f'"{relation}" is worked out by {depths[node]} operators in a row; {MAX_DEPTH} can be shown',
            "Divide a long rule among several relations.",
        )


def _columns(declared: dict[str, Any], places: list[int]) -> str:
    return ", ".join(declared["columns"][place]["name"] for place in places)


class _Tree:
    """Writes nodes with the names that their columns have in the relations they come from."""

    def __init__(self, plan: dict[str, Any], figures: Figures | None) -> None:
        self._plan = plan
        self._figures = figures
        self._known: dict[int, tuple[dict[str, Any], list[str]]] = {}

    def node(self, place: int) -> tuple[dict[str, Any], list[str]]:
        """A node's tree and the names of its columns.

        A node that is read again stands there without what is below it: written out each time, trees would
        double with every aggregate.
        """
        node = self._plan["nodes"][place]
        if place in self._known:
            tree, names = self._known[place]
            if tree["inputs"]:
                label = f"[{place}]"
                if not tree["detail"].startswith(label):
                    tree["detail"] = f"{label} {tree['detail']}".rstrip()
                return _operator(tree["op"], f"as {label} above"), names
            return dict(tree), names
        tree, names = self._known[place] = getattr(self, f"_{node['op']}")(node)
        if causes := self._plan["causes"][place : place + 1]:
            tree["rules"] = [self._plan["rules"][rule] for rule in causes[0]]
        if self._figures is not None:
            self._figures.add(tree, "node", place)
            if node["op"] == "get":
                self._figures.arranged(tree, tree["detail"])
        return tree, names

    def _get(self, node: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
        ((kind, place),) = node["relation"].items()
        if kind == "local":
            relation = self._plan["relations"][place]
            columns = [column["name"] for column in relation["columns"]]
        else:
            relation = self._plan["imports"][place]
            columns = [f"c{index}" for index in range(len(relation["types"]))]
        name = relation["name"]
        return _operator("get", name), [f"{name}.{column}" for column in columns]

    def _rows(self, node: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
        count = len(node["rows"])
        detail = f"{count} constant row{'' if count == 1 else 's'}"
        return _operator("rows", detail), [f"#{place}" for place in range(len(node["types"]))]

    def _map(self, node: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
        source, names = self.node(node["input"])
        detail = _detail(node, names)
        return _operator("map", detail, source), _projected(node, names)

    def _range(self, node: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
        source, names = self.node(node["input"])
        bounds = [node["start"], node["stop"], *([] if node["step"] is None else [node["step"]])]
        value = f"range({', '.join(_shown(bound, names) for bound in bounds)})"
        return _operator("range", f"with {value}", source), [*names, value]

    def _window(self, node: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
        source, names = self.node(node["input"])
        parts = [f"since {_shown(bound, names)}" for bound in node["since"]]
        parts += [f"until {_shown(bound, names)}" for bound in node["until"]]
        return _operator("window", "; ".join(parts), source), names

    def _join(self, node: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
        left, left_names = self.node(node["left"])
        right, right_names = self.node(node["right"])
        names = left_names + right_names
        cross = not node["left_key"] and left_names and right_names
        on = _keys(node, left_names, right_names) or ("every pair of rows" if cross else "if there is a row")
        op = "cross product" if cross else "join"
        return _operator(op, "; ".join(filter(None, [on, _detail(node, names)])), left, right), _projected(
            node, names
        )

    def _multijoin(self, node: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
        inputs = [self.node(source) for source in node["inputs"]]
        names: dict[int, str] = {}
        equal: list[str] = []
        for (_, columns), variables in zip(inputs, node["variables"], strict=True):
            for column, variable in zip(columns, variables, strict=True):
                if variable in names:
                    equal.append(f"{names[variable]} = {column}")
                else:
                    names[variable] = column
        ordered = [names[variable] for variable in sorted(names)]
        why = "all at once, because they close a cycle"
        detail = "; ".join(filter(None, [", ".join(equal), why, _detail(node, ordered)]))
        return _operator("multijoin", detail, *(tree for tree, _ in inputs)), _projected(node, ordered)

    def _antijoin(self, node: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
        left, left_names = self.node(node["left"])
        right, right_names = self.node(node["right"])
        on = _keys(node, left_names, right_names) or "if there is no row"
        return _operator("antijoin", on, left, right), left_names

    def _union(self, node: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
        inputs = [self.node(source) for source in node["inputs"]]
        return _operator("union", "", *(tree for tree, _ in inputs)), inputs[0][1]

    def _distinct(self, node: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
        source, names = self.node(node["input"])
        return _operator("distinct", "", source), names

    def _reduce(self, node: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
        source, names = self.node(node["input"])
        key = [names[column] for column in node["key"]]
        values = [
            aggregate["func"] + ("" if aggregate["column"] is None else f" {names[aggregate['column']]}")
            for aggregate in node["aggregates"]
        ]
        detail = f"{', '.join(values)}" + (f" for each {', '.join(key)}" if key else "")
        return _operator("reduce", detail, source), key + [f"({value})" for value in values]


def _operator(op: str, detail: str, *inputs: dict[str, Any]) -> dict[str, Any]:
    return {"op": op, "detail": detail, "inputs": list(inputs)}


def _keys(node: dict[str, Any], left: list[str], right: list[str]) -> str:
    pairs = zip(node["left_key"], node["right_key"], strict=True)
    return ", ".join(f"{left[one]} = {right[other]}" for one, other in pairs)


def _detail(node: dict[str, Any], names: list[str]) -> str:
    parts: list[str] = []
    if node["filter"]:
        parts.append("where " + ", ".join(_shown(expr, names) for expr in node["filter"]))
    if [expr.get("col") for expr in node["project"]] != list(range(len(names))):
        columns = ", ".join(_shown(expr, names) for expr in node["project"])
        parts.append(f"to ({columns})")
    return "; ".join(parts)


def _projected(node: dict[str, Any], names: list[str]) -> list[str]:
    return [_shown(expr, names) for expr in node["project"]]


def _shown(expr: dict[str, Any], names: list[str]) -> str:
    if "col" in expr:
        place: int = expr["col"]
        return names[place]
    if "const" in expr:
        ((kind, value),) = expr["const"].items()
        if kind == "float":
            value = struct.unpack("<d", struct.pack("<Q", value))[0]
        return json.dumps(value, ensure_ascii=False)
    call = expr["call"]
    func: str = call["func"]
    args = [_shown(arg, names) for arg in call["args"]]
    if func in _INFIX and len(args) == 2:
        shown = [f"({text})" if "call" in arg else text for text, arg in zip(args, call["args"], strict=True)]
        return f" {_INFIX[func]} ".join(shown)
    return f"{func}({', '.join(args)})"


def _note(tree: dict[str, Any]) -> None:
    if found := notes(tree):
        tree["notes"] = found
    for below in tree["inputs"]:
        _note(below)


def _draw(tree: dict[str, Any], indent: int = 0) -> list[str]:
    noted = f"  [{'; '.join(tree['notes'])}]" if "notes" in tree else ""
    line = "  " * indent + " ".join(filter(None, [tree["op"], tree["detail"]])) + noted
    return [line, *(below for child in tree["inputs"] for below in _draw(child, indent + 1))]

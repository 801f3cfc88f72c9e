"""Program text to a plan document."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from dataflow_serve.errors import ConflictError, DataflowError, IncorrectError
from dataflow_serve.language import (
    Catalog,
    CheckedProgram,
    Kind,
    check,
    checked,
    composites_json,
    digest_of,
    parse,
)
from dataflow_serve.planner._bodies import plan_body
from dataflow_serve.planner._closing import choose, close_equivalence, subsume, until_full
from dataflow_serve.planner._demand import restrict
from dataflow_serve.planner._nodes import Nodes
from dataflow_serve.planner._statistics import Statistics

__all__ = ["CompiledProgram", "compile_program", "plan_program"]

PLAN_VERSION = 1
"""The version of the plan document; `rust/protocol/src/plan.rs` is its definition."""


class CompiledProgram(Struct, frozen=True):
    """A program that can be registered."""

    name: str
    """Of the module: as asked for, or made from the digest, or that of an identical module."""
    digest: str
    plan: dict[str, Any]
    """The plan document, ready for JSON."""
    checked: CheckedProgram

    def to_json(self) -> bytes:
        """The plan document as the engine reads it."""
        return json.dumps(self.plan, ensure_ascii=False, separators=(",", ":")).encode()


def compile_program(
    text: str, catalog: Catalog, name: str | None = None, statistics: Statistics | None = None
) -> CompiledProgram:
    """Parse, check and plan a program against what earlier programs registered.

    What is known of the rows of their relations decides the order of joins, and nothing else.

    A program that is registered already, whatever name is asked for now, gives the module that it is: the
    plan is as it was before that module was there.

    Raises:
        IncorrectError: an error in the program, with line and column.
        ConflictError: it contradicts an earlier program, or ``name`` belongs to another one.
        UnsupportedError: it uses a part of the dialect that this build doesn't have.
    """
    if name == "":
        raise IncorrectError("empty name of a module", "Leave the name out, or give one.")
    program = parse(text)
    try:
        digest = digest_of(program)
    except DataflowError:
        check(program, catalog)  # knows of all errors
        raise
    known = catalog.module_with(digest)
    if known is not None:
        name, catalog = known, catalog.without(known)
    elif name is not None and name in catalog.modules:
        raise ConflictError(
            f'module "{name}" is another program', "Unregister that one first, or choose another name."
        )
    name = name or f"m{digest[:12]}"
    found = restrict(check(program, catalog))
    return CompiledProgram(name, digest, plan_program(found, name, statistics), found)


def plan_program(program: CheckedProgram, name: str, statistics: Statistics | None = None) -> dict[str, Any]:
    """The plan document of a checked program."""
    nodes = Nodes(program, statistics or Statistics())
    index = {relation: place for place, relation in enumerate(program.relations)}
    rules: dict[str, list[checked.Rule]] = {relation: [] for relation in program.relations}
    for rule in program.rules:
        for relation in dict.fromkeys(head.relation for head in rule.heads):
            rules[relation].append(rule)
    subsumptions: dict[str, list[checked.Subsumption]] = {}
    for each in program.subsumptions:
        subsumptions.setdefault(each.relation, []).append(each)
    strata: list[dict[str, Any]] = []
    for stratum in program.strata:
        nodes.enter(frozenset(stratum.relations if stratum.recursive else ()))
        members = [program.relations[relation] for relation in stratum.relations]
        limited = [each for each in members if stratum.recursive and each.limit is not None]
        definitions = [
            {"relation": index[relation], "node": node}
            for relation in stratum.relations
            if (node := _define(nodes, program, relation, rules[relation], subsumptions, limited)) is not None
        ]
        if definitions:
            strata.append({"recursive": stratum.recursive, "relations": definitions})
    kept, causes = _prune(nodes, strata)
    return {
        "version": PLAN_VERSION,
        "name": name,
        "digest": program.digest,
        "imports": [
            {
                "relation": relation.id,
                "name": relation.name,
                "types": [column.type.value for column in relation.columns],
            }
            for relation in nodes.imports
        ],
        "types": composites_json(_kinds(program)),
        "relations": [_relation_json(relation) for relation in program.relations.values()],
        "nodes": kept,
        "strata": strata,
        "rules": nodes.rules,
        "causes": causes,
        "frozen": program.frozen,
    }


def _kinds(program: CheckedProgram) -> list[Kind]:
    """The types of all columns in sight, and those that terms have."""
    relations = (*program.relations, *program.imports)
    kinds = [column.type for relation in relations for column in program.columns(relation)]
    for rule in program.rules:
        _kinds_in((rule.heads, rule.body), kinds)
    return kinds


def _kinds_in(part: Any, into: list[Kind]) -> None:
    match part:
        case tuple():
            for each in part:
                _kinds_in(each, into)
        case checked.Call(over=over, args=args, type=kind):
            into += (over, kind)
            _kinds_in(args, into)
        case checked.Head(args=args) | checked.AtomLiteral(args=args):
            _kinds_in(args, into)
        case checked.Filter(condition=condition):
            _kinds_in(condition, into)
        case checked.AggregateLiteral(target=target, alternatives=bodies):
            _kinds_in((target, bodies), into)


def _define(
    nodes: Nodes,
    program: CheckedProgram,
    relation: str,
    rules: list[checked.Rule],
    subsumptions: Mapping[str, Sequence[checked.Subsumption]],
    limited: Sequence[checked.Relation],
) -> int | None:
    """A node whose rows, made distinct, are the relation's; None for an input without facts and rules."""
    declared = program.relations[relation]
    parts: dict[int, None] = {}
    facts = program.facts.get(relation, ())
    if facts or (not rules and not declared.input):
        parts[nodes.rows([column.type for column in declared.columns], facts)] = None
    for rule in rules:
        heads = [head for head in rule.heads if head.relation == relation]
        # Planned for all heads alike, so that the relations of several heads share the body's node.
        wanted = [arg for head in rule.heads for arg in head.args]
        with nodes.made_for(rule.clause):
            planned = plan_body(nodes, rule.body, wanted, as_set=True)
            if len(rule.heads) == 1:
                parts[planned.node()] = None
                continue
            names: set[str] = set()
            for term in planned.wanted:
                checked.variables_of(term, names)
            shared = planned.rows.only(names)[1]
            exprs = iter([shared.expr(term) for term in planned.wanted])
            for head in rule.heads:
                project = [next(exprs) for _ in head.args]
                if head in heads:
                    parts[shared.node(project)] = None
    if declared.equivalence:
        return close_equivalence(nodes, relation, list(parts), transacted=declared.input)
    if not parts:
        return None
    source = nodes.union(list(parts))
    if limited:
        source = until_full(nodes, limited, source)
    if declared.choices:
        return choose(nodes, declared, source)
    if limited:
        return nodes.union([nodes.get(relation), source])
    if relation in subsumptions:
        return subsume(nodes, declared, subsumptions[relation], source)
    return source


def _relation_json(relation: checked.Relation) -> dict[str, Any]:
    mode: str | dict[str, list[int]] | None = None
    if relation.input:
        mode = {"upsert": list(relation.key)} if relation.mode == "upsert" else relation.mode
    return {
        "name": relation.name,
        "columns": [{"name": column.name, "type": column.type.value} for column in relation.columns],
        "input": mode,
        "output": relation.output,
    }


def _prune(made: Nodes, strata: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[list[int]]]:
    """The nodes that a definition needs, numbered anew, and their causes; changes both in place."""
    nodes = made.json
    used: set[int] = set()
    pending = [definition["node"] for stratum in strata for definition in stratum["relations"]]
    while pending:
        node = pending.pop()
        if node not in used:
            used.add(node)
            pending.extend(inputs_of(nodes[node]))
    places = {node: place for place, node in enumerate(sorted(used))}
    for node in used:
        json_node = nodes[node]
        for field in ("input", "left", "right"):
            if field in json_node:
                json_node[field] = places[json_node[field]]
        if "inputs" in json_node:
            json_node["inputs"] = [places[source] for source in json_node["inputs"]]
    for stratum in strata:
        for definition in stratum["relations"]:
            definition["node"] = places[definition["node"]]
    kept = sorted(used)
    return [nodes[node] for node in kept], [made.causes[node] for node in kept]


def inputs_of(node: dict[str, Any]) -> list[int]:
    """The nodes that a node reads."""
    single = [node[field] for field in ("input", "left", "right") if field in node]
    return [*single, *node.get("inputs", ())]

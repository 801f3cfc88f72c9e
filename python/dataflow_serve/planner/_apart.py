"""Parts of a body that share no variable with the rest, and of which only is asked whether they are true.

    answer(x) :- question(x), open(_), window(y), y > 3.

Joined like the rest, each of them would multiply its rows. Once reduced to whether there is a row it is a
condition.
"""

from __future__ import annotations

from collections.abc import Sequence

from dataflow_serve.language.checked import AtomLiteral, Const, Literal, Term, variables_of
from dataflow_serve.planner._names import names_of
from dataflow_serve.planner._nodes import Nodes

__all__ = ["conditions_apart"]


def conditions_apart(
    nodes: Nodes, literals: Sequence[Literal], wanted: Sequence[Term]
) -> tuple[list[Literal], list[list[Literal]]]:
    """A conjunction that is asked for values whose copies don't count, without such parts; and these.

    What a recursion changes stays where it is, and so does one part where nothing else would remain.
    """
    asked: set[str] = set()
    for term in wanted:
        variables_of(term, asked)
    parts: list[tuple[set[str], list[int]]] = []
    for place, literal in enumerate(literals):
        names, places = names_of(literal), [place]
        for part in [part for part in parts if part[0] & names]:
            parts.remove(part)
            names |= part[0]
            places = part[1] + places
        parts.append((names, places))
    apart = [
        places
        for names, places in parts
        if not names & asked and _is_open(nodes, [literals[place] for place in places])
    ]
    reading = [places for _, places in parts if _reads([literals[place] for place in places])]
    if len(apart) == len(reading):
        del apart[:1]
    taken = {place for places in apart for place in places}
    rest = [literal for place, literal in enumerate(literals) if place not in taken]
    return rest, [[literals[place] for place in sorted(places)] for places in apart]


def _reads(part: Sequence[Literal]) -> bool:
    return any(isinstance(literal, AtomLiteral) and not literal.negated for literal in part)


def _is_open(nodes: Nodes, part: Sequence[Literal]) -> bool:
    """Whether it may be true of several rows, and no recursion changes any of them."""
    atoms = [literal for literal in part if isinstance(literal, AtomLiteral)]
    return any(
        not isinstance(arg, Const) for atom in atoms if not atom.negated for arg in atom.args
    ) and not any(nodes.is_recursive(atom.relation) for atom in atoms)

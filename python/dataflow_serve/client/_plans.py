"""Plans as people see them: notes beside operators, and a drawing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

__all__ = ["plan_notes", "plan_svg"]

Node = Mapping[str, Any]

ROW = 40
INDENT = 28
MARGIN = 12
BAR = 120
CHARACTER = 7.3
"""About how wide a character of the drawing's font is."""
MAX_CHARACTERS = 180

STYLE = """
text { font: 13px ui-monospace, monospace; fill: #1c2733 }
.op { font-weight: bold }
.note { font-size: 11px; fill: #5b6b7b }
.link { stroke: #b8c4d0; fill: none }
.back { fill: #e8edf2 }
.time { fill: #e07a3f }
"""


def plan_notes(node: Node) -> list[str]:
    """What is said of an operator besides what it does: its figures, or at least the lines of its rules."""
    if "notes" in node:
        return list(node["notes"])
    rules = node.get("rules", ())
    return [f"line {', '.join(str(rule['line']) for rule in rules)}"] if rules else []


def plan_svg(plan: Node) -> str:
    """A drawing of a plan, a line for each operator with what it reads below; with times, if it has any.

    The rules that an operator is there for are its tooltip.
    """
    lines = list(_lines(plan))
    times = [node.get("stats", {}).get("micros", 0) for node, _, _ in lines]
    timed = any(times)
    left = MARGIN + (BAR + MARGIN if timed else 0)
    widest = max(
        depth * INDENT + CHARACTER * max(len(_label(node)), len("; ".join(plan_notes(node))))
        for node, depth, _ in lines
    )
    width, height = int(left + widest + 2 * MARGIN), len(lines) * ROW + 2 * MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">',
        f"<style>{STYLE}</style>",
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for place, (node, depth, parent) in enumerate(lines):
        top = MARGIN + place * ROW
        parts.append("<g>")
        tooltip = "\n".join(
            f"{rule['text']} (line {rule['line']}, column {rule['column']})" for rule in node.get("rules", ())
        )
        if tooltip:
            parts.append(f"<title>{escape(tooltip)}</title>")
        if timed:
            share = times[place] / max(times)
            parts.append(f'<rect class="back" x="{MARGIN}" y="{top + 4}" width="{BAR}" height="12"/>')
            parts.append(
                f'<rect class="time" x="{MARGIN}" y="{top + 4}" width="{share * BAR:.1f}" height="12"/>'
            )
        if parent is not None:
            x, from_y = left + (depth - 1) * INDENT + 6, MARGIN + parent * ROW + 20
            parts.append(f'<path class="link" d="M{x} {from_y} V{top + 10} H{x + INDENT - 10}"/>')
        x = left + depth * INDENT
        op, detail = escape(str(node["op"])), escape(_label(node)[len(str(node["op"])) :])
        parts.append(f'<text x="{x}" y="{top + 14}"><tspan class="op">{op}</tspan>{detail}</text>')
        if notes := plan_notes(node):
            parts.append(f'<text class="note" x="{x}" y="{top + 29}">{escape("; ".join(notes))}</text>')
        parts.append("</g>")
    return "\n".join([*parts, "</svg>"])


def _lines(plan: Node) -> Iterator[tuple[Node, int, int | None]]:
    """Operators in the order of the drawing, with their depths and the lines of those that read them."""
    pending: list[tuple[Node, int, int | None]] = [(plan, 0, None)]
    place = 0
    while pending:
        node, depth, parent = pending.pop()
        yield node, depth, parent
        pending += [(child, depth + 1, place) for child in reversed(node.get("inputs", ()))]
        place += 1


def _label(node: Node) -> str:
    text = f"{node['op']} {node.get('detail', '')}".rstrip()
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]}…"

"""A recursion that is asked for some rows only, worked out whole and by magic sets.

A random graph of 2,000 nodes and 8,000 edges: seconds until what follows from all edges is visible, then
until the answers to one more question are, then until an edge is gone and back; and the server's memory.
"""

import random
import statistics
import time

from common import SCALE, Client, server

NODES = int(2_000 * SCALE)
EDGES = 4 * NODES
CHANGES = 20
RULES = """
.decl edge(a: number, b: number)
.input edge
.decl ask(a: number)
.input ask
.decl reach(a: number, b: number)
reach(a, b) :- edge(a, b).
reach(a, c) :- reach(a, b), edge(b, c).
.decl answer(a: number, b: number)
answer(a, b) :- ask(a), reach(a, b).
.output answer
"""
VARIANTS = {"whole": "", "magic sets": '.pragma "magic-transform" "reach"\n'}


def measure(pragma: str) -> list[float]:
    """Seconds of the load, and of a question and of a change at the median; MB."""
    rng = random.Random(1)
    edges = [[rng.randrange(NODES), rng.randrange(NODES)] for _ in range(EDGES)]
    with server(1) as running:
        client = Client(running.port)
        client.call("register", program=RULES + pragma)

        def seconds(relation: str, **change: list[list[int]]) -> float:
            started = time.perf_counter()
            client.call("transact", changes=[{"relation": relation, **change}], wait="visible")
            return time.perf_counter() - started

        load = seconds("edge", insert=edges)
        questions = [seconds("ask", insert=[[node]]) for node in rng.sample(range(NODES), CHANGES)]
        changes = []
        for edge in rng.sample(edges, CHANGES):
            changes += [seconds("edge", delete=[edge]), seconds("edge", insert=[edge])]
        return [load, statistics.median(questions), statistics.median(changes), running.resident_mb()]


def main() -> None:
    """Prints a table."""
    print("| reach | load, s | a question, ms | a change, ms | memory, MB |")
    print("| --- | --- | --- | --- | --- |")
    for name, pragma in VARIANTS.items():
        load, question, change, memory = measure(pragma)
        print(
            f"| {name} | {load:.2f} | {question * 1e3:.2f} | {change * 1e3:.2f} | {memory:,.0f} |", flush=True
        )


if __name__ == "__main__":
    main()

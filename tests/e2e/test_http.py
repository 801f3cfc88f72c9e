"""The HTTP side of the port: health, metrics, the console page."""

from __future__ import annotations

import http.client
import json
import time
from collections import Counter

import pytest

from .cluster import Cluster
from .wire import PATIENCE


def get(cluster: Cluster, path: str, process: int = 0, method: str = "GET") -> http.client.HTTPResponse:
    """One request on a connection of its own; the body is in `response.body`."""
    connection = http.client.HTTPConnection(*cluster.addresses[process], timeout=PATIENCE)
    connection.request(method, path)
    response = connection.getresponse()
    response.body = response.read()  # type: ignore[attr-defined]
    connection.close()
    return response


def samples(cluster: Cluster, name: str, process: int | None = None) -> dict[str, float]:
    """The values of one metric by its labels as they are written, of one process or added up over all."""
    found: Counter[str] = Counter()
    for asked in range(cluster.processes) if process is None else [process]:
        text = get(cluster, "/metrics", asked).body.decode()  # type: ignore[attr-defined]
        for line in text.splitlines():
            series, _, value = line.rpartition(" ")
            if series == name or series.startswith(name + "{"):
                found[series[len(name) :]] += float(value)
    return found


def sample(cluster: Cluster, name: str) -> float:
    """The sum of a metric over all its labels and all processes."""
    return sum(samples(cluster, name).values())


def wait_for_sample(cluster: Cluster, name: str, expected: float) -> None:
    """Wait until a metric's sum is this."""
    deadline = time.monotonic() + PATIENCE
    while (found := sample(cluster, name)) != expected:
        assert time.monotonic() < deadline, f"{name} is {found}, not {expected}"


def test_threads_for_sockets_have_figures_where_there_are_some(cluster: Cluster) -> None:
    threads = 1 if cluster.arguments else 0
    for name in ("io_turns", "io_busy_seconds", "io_parked_seconds"):
        assert len(samples(cluster, f"dataflow_{name}_total")) == threads
    if threads:
        assert sample(cluster, "dataflow_io_turns_total") > 0


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
def test_health(cluster: Cluster, path: str) -> None:
    for process in range(cluster.processes):
        assert get(cluster, path, process).status == 200


def test_metrics_are_prometheus_text(cluster: Cluster) -> None:
    client = cluster.open()
    client.register(".decl e(x: number)\n.input e")
    client.insert("e", [1])
    response = get(cluster, "/metrics")
    assert response.status == 200
    assert response.getheader("content-type", "").startswith(("text/plain", "application/openmetrics-text"))
    text = response.body.decode()  # type: ignore[attr-defined]
    samples = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert samples
    for line in samples:
        name, value = line.rsplit(" ", 1)
        assert name.startswith("dataflow"), line
        float(value)


PHASES = ("accept", "read", "sequence", "step", "apply", "emit", "flush", "park")


def test_the_figures_of_workers_are_there_and_move(cluster: Cluster) -> None:
    client = cluster.open("msgpack")
    client.register(".decl e(x: number)\n.input e")
    counters = ("turns", "commands", "steps", "rows", "read_bytes", "written_bytes", "messages")
    before = {name: sample(cluster, f"dataflow_{name}_total") for name in counters}
    waits = sample(cluster, "dataflow_sequencing_seconds_count")
    client.insert("e", [1], [2])
    for name in counters:
        assert sample(cluster, f"dataflow_{name}_total") > before[name], name
    assert sample(cluster, "dataflow_rows_total") - before["rows"] == 2
    assert sample(cluster, "dataflow_sequencing_seconds_count") > waits
    seconds = samples(cluster, "dataflow_phase_seconds_total")
    for worker in range(cluster.workers):
        for phase in PHASES:
            assert seconds[f'{{worker="{worker}",phase="{phase}"}}'] > 0, (worker, phase)


def test_a_step_to_a_subscriber_is_measured(cluster: Cluster) -> None:
    client = cluster.open("msgpack")
    client.register(".decl e(x: number)\n.input e")
    subscription = client.subscribe("e")
    before = sample(cluster, "dataflow_step_latency_seconds_count")
    time = client.insert("e", [1])
    subscription.until(time)
    assert sample(cluster, "dataflow_step_latency_seconds_count") == before + 1


def test_the_figures_of_queries_are_there_while_they_are(cluster: Cluster) -> None:
    client = cluster.open("msgpack")
    program = ".decl e(x: number)\n.input e\n.decl d(x: number)\nd(x + 1) :- e(x).\n.output d"
    client.register(program, 'a "module"\n')
    labels = '{relation="%s",module="a \\"module\\"\\n"}'
    client.insert("e", *([x] for x in range(7)), wait="visible")
    for relation in "ed":
        wait_for_sample(cluster, "dataflow_relation_rows" + labels % relation, 7)
        assert sample(cluster, "dataflow_relation_bytes" + labels % relation) > 0
        wait_for_sample(cluster, "dataflow_relation_lag_seconds" + labels % relation, 0)
    client.call("unregister", name='a "module"\n')
    for name in ("rows", "bytes", "lag_seconds"):
        wait_for_sample(cluster, f"dataflow_relation_{name}", 0)


def test_the_page_says_what_this_is(cluster: Cluster) -> None:
    cluster.open().register(".decl a_relation_of_mine(x: number)\n.input a_relation_of_mine")
    response = get(cluster, "/")
    assert response.status == 200
    assert response.getheader("content-type", "").startswith("text/html")
    body = response.body.decode()  # type: ignore[attr-defined]
    assert "dataflow-serve" in body
    assert "a_relation_of_mine" in body


@pytest.mark.parametrize("path", ["/nothing", "/health", "/metrics/x", "/../etc/passwd"])
def test_anything_else_is_not_found(cluster: Cluster, path: str) -> None:
    assert get(cluster, path).status == 404


def test_head_has_no_body(cluster: Cluster) -> None:
    response = get(cluster, "/health/live", method="HEAD")
    assert response.status == 200
    assert response.body == b""  # type: ignore[attr-defined]


def test_a_relation_name_is_escaped_in_the_page(cluster: Cluster) -> None:
    """Names are identifiers, but a module's name is any text."""
    name = "<script>alert(1)</script>"
    client = cluster.open()
    client.raw({"id": "x", "op": "register", "program": ".decl e(x: number)\n.input e", "name": name})
    assert name.encode() not in get(cluster, "/").body  # type: ignore[attr-defined]


def test_ready_says_json_or_text(cluster: Cluster) -> None:
    response = get(cluster, "/health/ready")
    body = response.body.decode()  # type: ignore[attr-defined]
    if response.getheader("content-type", "").startswith("application/json"):
        json.loads(body)
    assert body

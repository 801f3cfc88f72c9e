"""The HTTP side of the port: health, metrics, the console page."""

from __future__ import annotations

import http.client
import json

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

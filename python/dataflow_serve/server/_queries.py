"""Programs: what is registered, as this process has heard, and plans for what is to be."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from dataflow_serve.errors import DataflowError, FaultError
from dataflow_serve.language import Composite, composites_from_json
from dataflow_serve.planner import (
    Catalog,
    CatalogRelation,
    Column,
    Statistics,
    Type,
    compile_program,
    explain,
)
from dataflow_serve.server._cluster import Cluster, Explain, Register, Registered, Unregistered
from dataflow_serve.server._collector import uncollected

__all__ = ["Queries"]

_log = logging.getLogger(__name__)


class Queries:
    """A mirror of the catalog, kept in step by sequenced events, and the planner in front of it.

    A plan may be out of date by the time it is delivered. Then the workers say so and the request comes
    again, by which time the mirror has caught up.
    """

    def __init__(self, cluster: Cluster) -> None:
        """An empty catalog."""
        self._cluster = cluster
        self._relations: dict[int, CatalogRelation] = {}
        self._modules: dict[str, str] = {}
        self._catalog = Catalog()

    @property
    def catalog(self) -> Catalog:
        """What is registered, as far as this process has heard."""
        return self._catalog

    def registered(self, event: Registered) -> None:
        """The catalog has grown by a module."""
        module = json.loads(event.module)
        self._modules[module["name"]] = module["digest"]
        composites = composites_from_json(module["types"])
        for relation in module["relations"]:
            self._relations[relation["id"]] = _catalog_relation(relation, composites, module["name"])
        self._renew()

    def unregistered(self, event: Unregistered) -> None:
        """Relations have left the catalog."""
        for name in event.modules:
            self._modules.pop(name, None)
        for relation in event.relations:
            self._relations.pop(relation, None)
        self._renew()

    def _renew(self) -> None:
        self._catalog = Catalog(self._relations.values(), self._modules)

    def planned(self, event: Register, catalog: Catalog) -> Callable[[], None]:
        """Plan a program against a catalog; what is returned hands the plan to the worker that asked.

        May be called from any thread.
        """
        try:
            known = Statistics.from_json(json.loads(event.statistics))
            with uncollected():
                plan = compile_program(event.program, catalog, event.name, known).to_json().decode()
        except DataflowError as error:
            return partial(self._cluster.reject, event.ticket, error)
        except Exception as error:
            return partial(self._cluster.reject, event.ticket, _fault("planning a program", error))
        return partial(self._cluster.respond, event.ticket, plan)

    def explained(self, event: Explain) -> Callable[[], None]:
        """Describe the plan of a relation; what is returned hands that to the worker that asked.

        May be called from any thread.
        """
        try:
            analysis = None if event.analysis is None else json.loads(event.analysis)
            tree = json.dumps(explain(json.loads(event.plan), event.relation, analysis))
        except DataflowError as error:
            return partial(self._cluster.reject, event.ticket, error)
        except Exception as error:
            return partial(self._cluster.reject, event.ticket, _fault("explaining a plan", error))
        return partial(self._cluster.explain, event.ticket, tree)


def _catalog_relation(
    relation: dict[str, Any], composites: Mapping[str, Composite], module: str
) -> CatalogRelation:
    columns = tuple(
        Column(column["name"], composites.get(column["type"]) or Type(column["type"]))
        for column in relation["columns"]
    )
    mode = relation["input"]
    if isinstance(mode, dict):
        mode = f"upsert({', '.join(columns[index].name for index in mode['upsert'])})"
    return CatalogRelation(
        id=relation["id"],
        name=relation["name"],
        columns=columns,
        input=mode is not None,
        mode=mode or "set",
        module=module,
    )


def _fault(what: str, error: Exception) -> FaultError:
    """An error of the server's own: logged here, and the client gets the reference to find it by."""
    reference = secrets.token_hex(4)
    _log.error("%s failed (reference %s)", what, reference, exc_info=error)
    return FaultError(f"{what} failed (reference {reference})")

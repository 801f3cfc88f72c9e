"""One process of a cluster, from its start to its end, as a trio task."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from functools import partial

import trio

from dataflow_serve.errors import DataflowError, WorkerFailed
from dataflow_serve.server._cluster import (
    Attach,
    Attached,
    Cluster,
    Detach,
    Explain,
    Fallen,
    Formed,
    Register,
    Registered,
    Stopped,
    Unattached,
    Unregistered,
    check_version,
)
from dataflow_serve.server._queries import Queries
from dataflow_serve.sources import Source, Sources

__all__ = ["run_process"]

MAX_PLANNING = 4
"""Programs planned at once; the others wait. Planning holds the GIL for most of its time."""

_log = logging.getLogger(__name__)

check_version()


async def run_process(
    cluster: Cluster,
    sources: Mapping[str, Source] | None = None,
    *,
    on_formed: Callable[[], None] = lambda: None,
) -> bool:
    """Attend to a process's workers until they have ended; False if the rest of the cluster wasn't reached.

    The workers live through one generation of the cluster after another, each with an empty catalog.
    ``on_formed`` is called at the beginning of each. ``sources`` are read in every one, beside those that
    clients attach.

    Cancelling leaves the workers running without a control plane: ask the cluster to stop first.

    Raises:
        WorkerFailed: the process can't take part in another generation.
    """
    queries = Queries(cluster)
    planning = trio.CapacityLimiter(MAX_PLANNING)
    fed = Sources(cluster, sources or {})
    stopped: Stopped | None = None
    async with trio.open_nursery() as nursery:
        await nursery.start(fed.run)
        async for batch in cluster.events():
            for event in batch:
                match event:
                    case Register():
                        nursery.start_soon(
                            _in_thread, partial(queries.planned, event, queries.catalog), planning
                        )
                    case Explain():
                        nursery.start_soon(_in_thread, partial(queries.explained, event), planning)
                    case Registered():
                        queries.registered(event)
                        fed.registered(json.loads(event.module))
                    case Unregistered():
                        queries.unregistered(event)
                        fed.unregistered(event.relations)
                    case Attach():
                        _accept(cluster, fed, event)
                    case Attached():
                        fed.attached(event.attachment, event.name, event.source)
                    case Unattached():
                        fed.unattached(event.name, event.reason)
                    case Detach():
                        fed.detach(event.ticket, event.attachment, event.name)
                    case Formed():
                        _log.info("generation %d of the cluster is formed", event.generation)
                        fed.formed(event.generation)
                        on_formed()
                    case Fallen():
                        _log.info("generation %d of the cluster is over: %s", event.generation, event.why)
                        # Plans under way are for nobody any more; the next generation knows no program.
                        queries = Queries(cluster)
                        fed.fallen()
                    case Stopped():
                        stopped = event
                        await fed.aclose()
                        # Nobody is left who could use the plans under way.
                        nursery.cancel_scope.cancel()
    assert stopped is not None, "events end with Stopped"
    await trio.to_thread.run_sync(cluster.join)
    if stopped.failure is not None:
        raise WorkerFailed(f"this process can't go on: {stopped.failure}")
    return not stopped.alone


async def _in_thread(answer: Callable[[], Callable[[], None]], limiter: trio.CapacityLimiter) -> None:
    """Find an answer in a thread, and give it.

    Cancelling leaves the request unanswered, which only a server that stops does.
    """
    give = await trio.to_thread.run_sync(answer, abandon_on_cancel=True, limiter=limiter)
    give()


def _accept(cluster: Cluster, sources: Sources, event: Attach) -> None:
    """Let the workers go on with a source that can be run here."""
    try:
        cluster.accept(event.ticket, sources.describe(event.name, event.source))
    except DataflowError as error:
        cluster.reject(event.ticket, error)

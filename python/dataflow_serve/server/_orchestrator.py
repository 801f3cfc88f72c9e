"""One process of a cluster, from its start to its end, as a trio task."""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from dataflow_serve.errors import WorkerFailed
from dataflow_serve.server._cluster import (
    Cluster,
    Explain,
    Formed,
    Register,
    Registered,
    Stopped,
    Unregistered,
)
from dataflow_serve.server._queries import Queries

__all__ = ["run_process"]

_log = logging.getLogger(__name__)


async def run_process(cluster: Cluster, *, on_formed: Callable[[], None] = lambda: None) -> bool:
    """Attend to a process's workers until they have ended; False if the rest of the cluster wasn't reached.

    Cancelling leaves the workers running without a control plane: ask the cluster to stop first.

    Raises:
        WorkerFailed: a worker thread died, here or in a process that this one was linked with.
    """
    queries = Queries(cluster)
    stopped: Stopped | None = None
    async with trio.open_nursery() as nursery:
        async for batch in cluster.events():
            for event in batch:
                match event:
                    case Register():
                        nursery.start_soon(queries.register, event)
                    case Explain():
                        nursery.start_soon(queries.explain, event)
                    case Registered():
                        queries.registered(event)
                    case Unregistered():
                        queries.unregistered(event)
                    case Formed():
                        _log.info("the cluster is formed")
                        on_formed()
                    case Stopped():
                        stopped = event
                        # Nobody is left who could use the plans under way.
                        nursery.cancel_scope.cancel()
    assert stopped is not None, "events end with Stopped"
    await trio.to_thread.run_sync(cluster.join)
    if stopped.failure is not None:
        raise WorkerFailed(f"a worker failed: {stopped.failure}")
    return not stopped.alone

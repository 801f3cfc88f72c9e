"""A server inside another program: a script, a notebook, a test."""

from __future__ import annotations

import concurrent.futures
import threading
from functools import partial

import trio

from dataflow_serve.client import BlockingClient, open_client
from dataflow_serve.server._access import Token, token_hash
from dataflow_serve.server._cluster import Cluster
from dataflow_serve.server._orchestrator import run_process
from dataflow_serve.server._settings import Settings

__all__ = ["EmbeddedServer", "serve"]

STOP_SECONDS = 5.0
"""How long a server that is closed may take to end."""


def serve(
    *,
    workers: int = 1,
    port: int = 0,
    host: str = "127.0.0.1",
    token: str | None = None,
    insecure: bool = False,
    **tunables: int,
) -> EmbeddedServer:
    """Start a server in this process, and give a client of it: ``db = ds.serve(workers=2)``.

    Other programs may connect to ``db.url``; with a ``token``, only those that give it, and they may do
    everything. The server ends with ``db.close()``, with the end of a ``with db:`` block, or with this
    process.

    Args:
        workers: Threads that compute.
        port: Where to listen; 0 takes a free port.
        host: The address to listen at. One that others can reach needs a ``token``.
        token: What a client has to know; a long random text.
        insecure: Listen where others can reach the server without one.
        tunables: What `Client.tune` can change.

    Raises:
        IncorrectError: a tunable doesn't exist or has a value that it can't have, or others could do what
            they like with the server.
        OSError: the port is taken.
    """
    known = [] if token is None else [Token(hash=token_hash(token), role="admin", name="serve")]
    settings = Settings(
        listen=f"{host}:{port}", threads=workers, token=known, insecure=insecure, tunables=tunables
    )
    return EmbeddedServer(_Control(settings), token)


class _Control:
    """A cluster of one process, and the daemon thread that attends to it."""

    def __init__(self, settings: Settings) -> None:
        """Return once requests are served."""
        self.cluster = Cluster(settings)
        self._formed: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._run, name="dataflow-server", daemon=True)
        self._thread.start()
        self._formed.result()

    def _run(self) -> None:
        try:
            trio.run(partial(run_process, self.cluster, on_formed=lambda: self._formed.set_result(None)))
        except BaseException as error:
            if self._formed.done():
                raise
            self._formed.set_exception(error)

    def close(self) -> None:
        """Stop the workers and wait for them. Twice is fine."""
        self.cluster.shutdown()
        if threading.current_thread() is not self._thread:
            self._thread.join(STOP_SECONDS)


class EmbeddedServer(BlockingClient):
    """A server in this process, and a client of it. Made by `serve`."""

    def __init__(self, control: _Control, token: str | None) -> None:
        """Connect to the server; closing the client stops it."""
        self.host, self.port = control.cluster.address
        try:
            url = f"df://{self.host}:{self.port}"
            super().__init__(partial(open_client, url, token=token), control.close)
        except BaseException:
            control.close()
            raise

    def __repr__(self) -> str:
        """Where it listens."""
        return f"<EmbeddedServer at {self.url}>"

"""A server inside another program: a script, a notebook, a test."""

from __future__ import annotations

import concurrent.futures
import os
import ssl
import threading
from functools import partial

import outcome
import trio

from dataflow_serve.client import BlockingClient, client_context, open_client
from dataflow_serve.server._access import Token, token_hash
from dataflow_serve.server._cluster import Cluster
from dataflow_serve.server._orchestrator import run_process
from dataflow_serve.server._reload import watch_certificate
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
    certificate: str | os.PathLike[str] | None = None,
    key: str | os.PathLike[str] | None = None,
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
        certificate: PEM file with the server's certificate: others connect through TLS.
        key: PEM file with its private key, if that is in another file.
        insecure: Listen where others can reach the server without one.
        tunables: What `Client.tune` can change.

    Raises:
        IncorrectError: a tunable doesn't exist or has a value that it can't have, or others could do what
            they like with the server.
        OSError: the port is taken.
    """
    known = [] if token is None else [Token(hash=token_hash(token), role="admin", name="serve")]
    settings = Settings(
        listen=f"{host}:{port}",
        threads=workers,
        token=known,
        tls_certificate=None if certificate is None else os.fspath(certificate),
        tls_key=None if key is None else os.fspath(key),
        insecure=insecure,
        tunables=tunables,
    )
    return EmbeddedServer(_Control(settings), token, _trust(settings))


def _trust(settings: Settings) -> ssl.SSLContext | None:
    """Trust in one's own server: in just the certificate that it shows, under whatever name."""
    if settings.tls_certificate is None:
        return None
    context = client_context(settings.tls_certificate)
    context.check_hostname = False
    return context


class _Control:
    """A cluster of one process, and the daemon thread that attends to it."""

    def __init__(self, settings: Settings) -> None:
        """Return once requests are served."""
        self.settings = settings
        self.cluster = Cluster(settings)
        self._formed: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._run, name="dataflow-server", daemon=True)
        self._thread.start()
        self._formed.result()

    def _run(self) -> None:
        try:
            trio.run(self._attend)
        except BaseException as error:
            if self._formed.done():
                raise
            self._formed.set_exception(error)

    async def _attend(self) -> None:
        """Cancelling leaves the workers running; they are asked to stop first."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch_certificate, self.cluster, self.settings)
            ended = await outcome.acapture(run_process, self.cluster, on_formed=self._serving)
            nursery.cancel_scope.cancel()
        ended.unwrap()

    def _serving(self) -> None:
        # The first generation is the one that was waited for.
        if not self._formed.done():
            self._formed.set_result(None)

    def close(self) -> None:
        """Stop the workers and wait for them. Twice is fine."""
        self.cluster.shutdown()
        if threading.current_thread() is not self._thread:
            self._thread.join(STOP_SECONDS)


class EmbeddedServer(BlockingClient):
    """A server in this process, and a client of it. Made by `serve`."""

    def __init__(self, control: _Control, token: str | None, trust: ssl.SSLContext | None) -> None:
        """Connect to the server; closing the client stops it."""
        self.host, self.port = control.cluster.address
        try:
            url = f"{'df' if trust is None else 'dfs'}://{self.host}:{self.port}"
            super().__init__(partial(open_client, url, token=token, ssl_context=trust), control.close)
        except BaseException:
            control.close()
            raise

    def __repr__(self) -> str:
        """Where it listens."""
        return f"<EmbeddedServer at {self.url}>"

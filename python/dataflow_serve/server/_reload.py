"""What changes while a process runs: rules on a signal, the certificate also when its files do."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

import trio

from dataflow_serve.errors import DataflowError
from dataflow_serve.server._cluster import Cluster
from dataflow_serve.server._settings import Settings

__all__ = ["reload", "watch_certificate"]

_log = logging.getLogger(__name__)


def reload(cluster: Cluster, read_settings: Callable[[], Settings]) -> None:
    """Put in force what may change: tokens, hosts, origins, the certificate.

    A mistake in it leaves things as they were, and is logged.
    """
    try:
        settings = read_settings()
        settings.check_exposure()
        cluster.set_certificate(settings)
        cluster.set_access(settings)
    except DataflowError as error:
        _log.error("the configuration is left as it was: %s", error)
    else:
        _log.info("tokens, hosts, origins and the certificate were read again")


async def watch_certificate(cluster: Cluster, settings: Settings) -> None:
    """Read the certificate again whenever its files have changed; look every ``tls_reload_seconds``.

    Cancelling leaves the one in force that was read last.
    """
    files = [file for file in (settings.tls_certificate, settings.tls_key, settings.tls_client_ca) if file]
    seen = _state(files)
    while files and settings.tls_reload_seconds > 0:
        await trio.sleep(settings.tls_reload_seconds)
        now = _state(files)
        if now == seen:
            continue
        try:
            cluster.set_certificate(settings)
        except DataflowError as error:
            # Perhaps one file is new and the other isn't yet: look again.
            _log.error("the certificate is left as it was: %s", error)
        else:
            seen = now
            _log.info("the certificate was read again")


def _state(files: list[str]) -> list[tuple[int, int, int] | None]:
    """What tells a file from its successor."""
    found: list[tuple[int, int, int] | None] = []
    for file in files:
        try:
            stat = os.stat(file)
            found.append((stat.st_ino, stat.st_mtime_ns, stat.st_size))
        except OSError:
            found.append(None)
    return found

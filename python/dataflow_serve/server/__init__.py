"""The control plane of a server process: Python decides, Rust does.

``_cluster`` is the only importer of the extension module: a handle on the workers and their events.
``_orchestrator`` runs one process of a cluster on trio. ``_queries`` mirrors the catalog and plans programs
against it. ``_settings`` says how a process is set up, ``_access`` what tokens are, ``_reload`` what
may change meanwhile; ``_command`` is ``dataflow-serve``, ``_embedded`` is
`serve`, ``_attended`` is for batch runs. Nothing here is on the path of a transaction or of a result.
"""

from typing import TYPE_CHECKING

from dataflow_serve._lazy import lazily

if TYPE_CHECKING:
    from dataflow_serve.server._attended import AttendedServer
    from dataflow_serve.server._cluster import new_table
    from dataflow_serve.server._embedded import EmbeddedServer, serve
    from dataflow_serve.server._settings import Settings
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "AttendedServer": "_attended",
            "EmbeddedServer": "_embedded",
            "Settings": "_settings",
            "new_table": "_cluster",
            "serve": "_embedded",
        },
    )

__all__ = ["AttendedServer", "EmbeddedServer", "Settings", "new_table", "serve"]

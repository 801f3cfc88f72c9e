"""The control plane of a server process: Python decides, Rust does.

``_cluster`` is the only importer of the extension module: a handle on the workers and their events.
``_orchestrator`` runs one process of a cluster on trio. ``_queries`` mirrors the catalog and plans programs
against it. ``_settings`` says how a process is set up, ``_access`` what tokens are, ``_reload`` what
may change meanwhile; ``_command`` is ``dataflow-serve``, ``_embedded`` is
`serve`. Nothing here is on the path of a transaction or of a result.
"""

from dataflow_serve.server._cluster import new_table
from dataflow_serve.server._embedded import EmbeddedServer, serve
from dataflow_serve.server._settings import Settings

__all__ = ["EmbeddedServer", "Settings", "new_table", "serve"]

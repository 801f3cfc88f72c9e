"""A live Datalog query server, and its clients.

    import dataflow_serve as ds
    db = ds.serve(workers=2)        # a server in this process; or ds.connect("df://host:6262")

Everything public is here; modules whose name begins with an underscore are not.
"""

from typing import TYPE_CHECKING

from dataflow_serve._lazy import lazily
from dataflow_serve.errors import (
    BusyError,
    ConflictError,
    ConnectionClosed,
    DataflowError,
    FaultError,
    ForbiddenError,
    IncorrectError,
    InterruptedQueryError,
    LocalProtocolError,
    NotFoundError,
    RemoteProtocolError,
    TooLargeError,
    UnavailableError,
    UnsupportedError,
    WorkerFailed,
)

if TYPE_CHECKING:
    from dataflow_serve.client import BlockingClient, Client, Progress, Step, connect, open_client
    from dataflow_serve.dsl import count, fn, max, mean, min, program, rel, rule, sum, vars
    from dataflow_serve.dsl import wildcard as _
    from dataflow_serve.server import EmbeddedServer, serve
    from dataflow_serve.values import Branch
else:
    # The server brings the extension, which clients have no use for; a batch run has none for the rest.
    __getattr__, __dir__ = lazily(
        __name__,
        {
            **dict.fromkeys(
                ("BlockingClient", "Client", "Progress", "Step", "connect", "open_client"), "client"
            ),
            **dict.fromkeys(
                ("count", "fn", "max", "mean", "min", "program", "rel", "rule", "sum", "vars"), "dsl"
            ),
            "_": "dsl:wildcard",
            **dict.fromkeys(("EmbeddedServer", "serve"), "server"),
            "Branch": "values",
        },
    )

__all__ = [
    "BlockingClient",
    "Branch",
    "BusyError",
    "Client",
    "ConflictError",
    "ConnectionClosed",
    "DataflowError",
    "EmbeddedServer",
    "FaultError",
    "ForbiddenError",
    "IncorrectError",
    "InterruptedQueryError",
    "LocalProtocolError",
    "NotFoundError",
    "Progress",
    "RemoteProtocolError",
    "Step",
    "TooLargeError",
    "UnavailableError",
    "UnsupportedError",
    "WorkerFailed",
    "_",
    "connect",
    "count",
    "fn",
    "max",
    "mean",
    "min",
    "open_client",
    "program",
    "rel",
    "rule",
    "serve",
    "sum",
    "vars",
]

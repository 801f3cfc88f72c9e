"""Clients of a server: `open_client` for trio programs, `connect` for all others.

The layers, from the wire up: ``_framing`` (bytes to messages) and ``_connection`` (the protocol) do no I/O;
``_transport``, ``_websocket`` and ``_link`` move bytes on trio; ``_subscription`` and ``_trio`` are what a
trio program sees; ``_portal`` and ``_blocking`` bring the same to programs without an event loop. ``_view``,
``_changes``, ``_load``, ``_order`` and ``_tables`` are plain functions on rows that both sides share;
``_undecoded`` is for batch runs, whose results never become rows here.
"""

from dataflow_serve.client._blocking import (
    BlockingClient,
    BlockingPending,
    BlockingRelation,
    BlockingSubscription,
    connect,
)
from dataflow_serve.client._connection import Connection
from dataflow_serve.client._framing import Framing, LengthPrefixed, Lines, WebSocketMessages
from dataflow_serve.client._link import Pending
from dataflow_serve.client._load import Loaded, LoadProgress
from dataflow_serve.client._subscription import Subscription
from dataflow_serve.client._text_files import FileSource
from dataflow_serve.client._tls import client_context
from dataflow_serve.client._trio import Client, Relation, open_client, open_client_on
from dataflow_serve.client._view import Progress, Step, View

__all__ = [
    "BlockingClient",
    "BlockingPending",
    "BlockingRelation",
    "BlockingSubscription",
    "Client",
    "Connection",
    "FileSource",
    "Framing",
    "LengthPrefixed",
    "Lines",
    "LoadProgress",
    "Loaded",
    "Pending",
    "Progress",
    "Relation",
    "Step",
    "Subscription",
    "View",
    "WebSocketMessages",
    "client_context",
    "connect",
    "open_client",
    "open_client_on",
]

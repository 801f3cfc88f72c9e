"""Clients of a server: `open_client` for trio programs, `connect` for all others.

The layers, from the wire up: ``_framing`` (bytes to messages) and ``_connection`` (the protocol) do no I/O;
``_transport``, ``_websocket`` and ``_link`` move bytes on trio; ``_subscription``, ``_relation`` and
``_trio`` are what a trio program sees; ``_portal`` and ``_blocking`` with its parts bring the same to all
others. ``_view``, ``_changes``, ``_load``, ``_order`` and ``_tables`` are plain functions on
rows that both sides share, ``_text_files``, ``_texts`` and ``_objects`` what ``_load`` reads; ``_undecoded``
is for batch runs, whose results never become rows here.
"""

from dataflow_serve.client._blocking import BlockingClient, connect
from dataflow_serve.client._blocking_relation import BlockingRelation
from dataflow_serve.client._blocking_subscription import BlockingPending, BlockingSubscription
from dataflow_serve.client._connection import Connection
from dataflow_serve.client._framing import Framing, LengthPrefixed, Lines, WebSocketMessages
from dataflow_serve.client._link import Pending
from dataflow_serve.client._load import Loaded, LoadProgress
from dataflow_serve.client._relation import Relation
from dataflow_serve.client._subscription import Subscription
from dataflow_serve.client._text_files import FileSource
from dataflow_serve.client._tls import client_context
from dataflow_serve.client._trio import Client, open_client, open_client_on
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

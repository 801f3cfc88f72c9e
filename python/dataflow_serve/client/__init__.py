"""Clients of a server: `open_client` for trio programs, `connect` for all others.

The layers, from the wire up: ``_framing`` (bytes to messages) and ``_connection`` (the protocol) do no I/O;
``_transport``, ``_websocket`` and ``_link`` move bytes on trio; ``_subscription``, ``_relation`` and
``_trio`` are what a trio program sees; ``_portal`` and ``_blocking`` with its parts bring the same to all
others. ``_view``, ``_changes``, ``_load``, ``_order`` and ``_tables`` are plain functions on
rows that both sides share, ``_text_files``, ``_texts`` and ``_objects`` what ``_load`` reads.
"""

from typing import TYPE_CHECKING

from dataflow_serve._lazy import lazily

if TYPE_CHECKING:
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
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "BlockingClient": "_blocking",
            "BlockingPending": "_blocking_subscription",
            "BlockingRelation": "_blocking_relation",
            "BlockingSubscription": "_blocking_subscription",
            "Client": "_trio",
            "Connection": "_connection",
            "FileSource": "_text_files",
            "Framing": "_framing",
            "LengthPrefixed": "_framing",
            "Lines": "_framing",
            "LoadProgress": "_load",
            "Loaded": "_load",
            "Pending": "_link",
            "Progress": "_view",
            "Relation": "_relation",
            "Step": "_view",
            "Subscription": "_subscription",
            "View": "_view",
            "WebSocketMessages": "_framing",
            "client_context": "_tls",
            "connect": "_blocking",
            "open_client": "_trio",
            "open_client_on": "_trio",
        },
    )

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

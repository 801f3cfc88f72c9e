"""Words on the wire: requests, replies and pushed messages of protocol version 1.

One frozen class a word, equal to the words of the server (the golden files keep both sides so), and four
functions that turn them into bytes and back. A client calls `encode_request` and `decode_message`; a server,
scripted or real, calls `decode_request` and `encode_message`. There is no I/O and no state here: framing and
the matching of replies to requests are the business of ``dataflow_serve.client``.

Values are plain Python values. Encodings differ in how they spell some of them (``docs/protocol.md``);
`row_reader` gives the function that brings a decoded row back to what its columns' types say.

``_types`` has what all words are made of, ``_requests``, ``_replies`` and ``_messages`` the words,
``_encoding`` and ``_decoding`` the four functions, ``_rows`` what becomes of rows, ``_packed`` those that are
in MessagePack before they are sent.
"""

from dataflow_serve.protocol._decoding import Message, Reply, decode_message, decode_request
from dataflow_serve.protocol._encoding import encode_message, encode_request, encode_value
from dataflow_serve.protocol._messages import Changes, Ended, ErrorBody, Failure, Reached, Undecoded
from dataflow_serve.protocol._packed import PackedRows
from dataflow_serve.protocol._replies import (
    Advanced,
    Attached,
    Cancelled,
    Detached,
    Module,
    Plan,
    Pong,
    RelationInfo,
    ReplyBody,
    Rows,
    ServerInfo,
    StatusReport,
    Stopping,
    Subscribed,
    Transacted,
    Tunables,
    Unregistered,
    Unsubscribed,
)
from dataflow_serve.protocol._requests import (
    Advance,
    Attach,
    Cancel,
    Change,
    Detach,
    Explain,
    Hello,
    Ping,
    Read,
    Register,
    Request,
    Shutdown,
    Status,
    Subscribe,
    Transact,
    Tune,
    Unregister,
    Unsubscribe,
)
from dataflow_serve.protocol._rows import row_reader
from dataflow_serve.protocol._types import (
    DEFAULT_PORT,
    PREAMBLE,
    VERSION,
    Column,
    Encoding,
    Row,
    TypeInfo,
    Value,
)

__all__ = [
    "DEFAULT_PORT",
    "PREAMBLE",
    "VERSION",
    "Advance",
    "Advanced",
    "Attach",
    "Attached",
    "Cancel",
    "Cancelled",
    "Change",
    "Changes",
    "Column",
    "Detach",
    "Detached",
    "Encoding",
    "Ended",
    "ErrorBody",
    "Explain",
    "Failure",
    "Hello",
    "Message",
    "Module",
    "PackedRows",
    "Ping",
    "Plan",
    "Pong",
    "Reached",
    "Read",
    "Register",
    "RelationInfo",
    "Reply",
    "ReplyBody",
    "Request",
    "Row",
    "Rows",
    "ServerInfo",
    "Shutdown",
    "Status",
    "StatusReport",
    "Stopping",
    "Subscribe",
    "Subscribed",
    "Transact",
    "Transacted",
    "Tunables",
    "Tune",
    "TypeInfo",
    "Undecoded",
    "Unregister",
    "Unregistered",
    "Unsubscribe",
    "Unsubscribed",
    "Value",
    "decode_message",
    "decode_request",
    "encode_message",
    "encode_request",
    "encode_value",
    "row_reader",
]

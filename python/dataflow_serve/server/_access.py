"""Who may do what: tokens as they are made and configured, and what may be listened on without any."""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
import socket
from typing import Literal, get_args

import msgspec

from dataflow_serve.errors import IncorrectError

__all__ = ["ROLES", "Role", "Token", "is_loopback", "make_token", "token_hash"]

Role = Literal["reader", "writer", "admin"]
ROLES: tuple[str, ...] = get_args(Role)

TOKEN_BYTES = 32
"""Random bytes of a token that is made here; nobody guesses 256 bits."""


class Token(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A token, known by its hash, and what its holder may do: a ``[[token]]`` of the configuration."""

    hash: str
    """``sha256:`` and 64 hexadecimal digits; ``dataflow-serve token`` makes them."""
    role: Role
    """``reader`` reads and subscribes, ``writer`` also registers and transacts, ``admin`` does everything."""
    name: str = ""
    """What it is for."""
    relations: list[str] | None = None
    """The relations it is good for, all where absent; one that ends in ``*`` stands for all that begin so."""


def token_hash(token: str) -> str:
    """What the server knows of a token."""
    return "sha256:" + hashlib.sha256(token.encode()).hexdigest()


def make_token() -> str:
    """A new token."""
    return "dfs_" + secrets.token_urlsafe(TOKEN_BYTES)


def is_loopback(address: str) -> bool:
    """Whether ``host:port`` can be reached from this machine only.

    Raises:
        IncorrectError: the name can't be found.
    """
    host = address.rpartition(":")[0].strip("[]")
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host or None, None, flags=socket.AI_PASSIVE)}
    except OSError as error:
        raise IncorrectError(f'cannot listen on "{address}": {error.strerror}') from error
    return all(ipaddress.ip_address(str(each).partition("%")[0]).is_loopback for each in found)

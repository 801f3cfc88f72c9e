"""Hosts that are network namespaces, on a switch that is one too; everything is gone when it is closed.

Nothing of it touches the machine's own interfaces. A test talks to a process on a host by making its sockets
inside that host's namespace.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator

_CLONE_NEWNET = 0x40000000
_NETNS = "/run/netns"


class NotPermittedError(Exception):
    """Why there can be no namespaces here."""


def command(*words: str) -> str:
    """Run a program and return what it printed.

    Raises:
        NotPermittedError: it isn't there, or it failed.
    """
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    except FileNotFoundError as error:
        raise NotPermittedError(f"{words[0]} is missing") from error
    if done.returncode != 0:
        raise NotPermittedError(f"`{' '.join(words)}` failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


class Network:
    """Hosts 0, 1, … with addresses 10.77.0.1, 10.77.0.2, … and a link each to one switch."""

    def __init__(self, hosts: int) -> None:
        """Make it all.

        Raises:
            NotPermittedError: this system or this user can't.
        """
        self.hosts = hosts
        self._name = f"dfs{secrets.token_hex(3)}"
        self._made: list[str] = []
        try:
            self._add(self._switch)
            self._inside_switch("ip", "link", "add", "bridge", "type", "bridge")
            self._inside_switch("ip", "link", "set", "bridge", "up")
            for host in range(hosts):
                self._plug(host)
        except BaseException:
            self.close()
            raise

    @property
    def _switch(self) -> str:
        return f"{self._name}sw"

    def namespace(self, host: int) -> str:
        """The name of a host's namespace."""
        return f"{self._name}h{host}"

    @staticmethod
    def address(host: int) -> str:
        """A host's address."""
        return f"10.77.0.{host + 1}"

    def _add(self, namespace: str) -> None:
        command("ip", "netns", "add", namespace)
        self._made.append(namespace)
        command("ip", "-n", namespace, "link", "set", "lo", "up")

    def _inside_switch(self, *words: str) -> None:
        command("ip", "netns", "exec", self._switch, *words)

    def _plug(self, host: int) -> None:
        namespace, port = self.namespace(host), f"port{host}"
        self._add(namespace)
        peer = ("peer", "name", port, "netns", self._switch)
        command("ip", "link", "add", "eth0", "netns", namespace, "type", "veth", *peer)
        command("ip", "-n", namespace, "address", "add", f"{self.address(host)}/24", "dev", "eth0")
        command("ip", "-n", namespace, "link", "set", "eth0", "up")
        self._inside_switch("ip", "link", "set", port, "master", "bridge", "up")

    def unplug(self, host: int) -> None:
        """Nothing gets to the host or away from it; nobody is told."""
        self._inside_switch("ip", "link", "set", f"port{host}", "down")

    def replug(self, host: int) -> None:
        """The contrary."""
        self._inside_switch("ip", "link", "set", f"port{host}", "up")

    def part(self, *hosts: int, apart: bool = True) -> None:
        """These hosts don't reach each other any more; all others reach them."""
        for host in hosts:
            state = "on" if apart else "off"
            self._inside_switch("bridge", "link", "set", "dev", f"port{host}", "isolated", state)

    def shape(self, host: int, rate: str) -> None:
        """What goes to the host and comes from it has this bandwidth, and a queue of a second."""
        bucket = ("root", "tbf", "rate", rate, "burst", "32kb", "latency", "1s")
        self._inside_switch("tc", "qdisc", "add", "dev", f"port{host}", *bucket)
        command("ip", "netns", "exec", self.namespace(host), "tc", "qdisc", "add", "dev", "eth0", *bucket)

    def lose(self, host: int, share: float) -> None:
        """This share of the packets that come to the host is lost."""
        rule = (
            "-A",
            "INPUT",
            "-m",
            "statistic",
            "--mode",
            "random",
            "--probability",
            str(share),
            "-j",
            "DROP",
        )
        command("ip", "netns", "exec", self.namespace(host), "iptables", *rule)

    @contextlib.contextmanager
    def inside(self, host: int) -> Iterator[None]:
        """Sockets that this thread makes belong to the host."""
        libc = ctypes.CDLL(None, use_errno=True)
        with (
            open("/proc/thread-self/ns/net", "rb") as own,
            open(f"{_NETNS}/{self.namespace(host)}", "rb") as there,
        ):
            if libc.setns(there.fileno(), _CLONE_NEWNET) != 0:
                raise NotPermittedError(f"entering a namespace: {os.strerror(ctypes.get_errno())}")
            try:
                yield
            finally:
                assert libc.setns(own.fileno(), _CLONE_NEWNET) == 0, "there is no way back"

    def prefix(self, host: int) -> list[str]:
        """What makes a command run on the host."""
        return ["ip", "netns", "exec", self.namespace(host)]

    def close(self) -> None:
        """Remove every namespace, and with them all links."""
        while self._made:
            subprocess.run(["ip", "netns", "delete", self._made.pop()], capture_output=True, check=False)


def missing(tool: str) -> bool:
    """Whether a program isn't there."""
    return shutil.which(tool) is None

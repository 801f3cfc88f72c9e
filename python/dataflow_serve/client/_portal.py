"""A thread that runs trio for a program that doesn't, and the way into it."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Generic, TypeVar

import trio

from dataflow_serve.errors import ConnectionClosed, LocalProtocolError

__all__ = ["Portal"]

T = TypeVar("T")
ResourceT = TypeVar("ResourceT")


class Portal(Generic[ResourceT]):
    """Holds one asynchronous resource open in a daemon thread of its own.

    The resource lives until `close`, whatever becomes of the calls: a notebook's connection outlives its
    cells. Ctrl-C in the main thread cancels the call that is waited for, and nothing else. Safe to use from
    any thread.
    """

    def __init__(self, opened: Callable[[], AbstractAsyncContextManager[ResourceT]]) -> None:
        """Start the thread and wait until the resource is open; raises what opening it raises."""
        self._opened = opened
        # Written by the trio thread before `_ready` is set, read by others after.
        self._token: trio.lowlevel.TrioToken
        self._nursery: trio.Nursery
        self._stop: trio.Event
        self._ready: concurrent.futures.Future[ResourceT] = concurrent.futures.Future()
        self._started: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(
            target=trio.run, args=(self._main,), name="dataflow-client", daemon=True
        )
        self._thread.start()
        self._started.result()
        try:
            self.resource = self._ready.result()
        except BaseException:
            self.abandon()
            raise

    def call(self, function: Callable[[], Awaitable[T]]) -> T:
        """Run ``function`` in the thread and wait for what it gives or raises.

        Raises:
            ConnectionClosed: the portal is closed.
            KeyboardInterrupt: from Ctrl-C; the function was cancelled.
        """
        if threading.current_thread() is self._thread:
            raise LocalProtocolError(
                "cannot call the blocking client from its own thread: it would wait for itself"
            )
        job = _Job(function)
        try:
            # Ctrl-C may come at any instruction, also before the thread has heard of the job.
            self._token.run_sync_soon(self._start, job)
            return job.outcome.result()
        except trio.RunFinishedError:
            raise _closed() from None
        except KeyboardInterrupt:
            self.soon(job.cancel)
            # What the function holds must be free again before the caller goes on; that takes no network.
            concurrent.futures.wait([job.outcome])
            raise

    def soon(self, function: Callable[[], object]) -> None:
        """Run ``function`` in the thread, and don't wait for it; without effect once the thread is over."""
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(function)

    def close(self) -> None:
        """Close the resource properly and end the thread; twice is fine. Ctrl-C makes it hurry."""
        self.soon(self._stop.set)
        try:
            self._thread.join()
        except KeyboardInterrupt:
            self.abandon()
            raise

    def abandon(self) -> None:
        """Tell the thread to end without waiting for anything."""
        self.soon(self._scope.cancel)

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._stop = trio.Event()
        self._scope = trio.CancelScope()
        self._started.set_result(None)
        with self._scope:
            try:
                async with self._opened() as resource, trio.open_nursery() as self._nursery:
                    self._ready.set_result(resource)
                    await self._stop.wait()
                    self._nursery.cancel_scope.cancel()
            except Exception as error:
                if self._ready.done():
                    raise
                self._ready.set_exception(error)
        if not self._ready.done():
            self._ready.set_exception(_closed())

    def _start(self, job: _Job[T]) -> None:
        if self._stop.is_set():
            job.outcome.set_exception(_closed())
        elif not job.outcome.done():
            job.started = True
            self._nursery.start_soon(job.run)


class _Job(Generic[T]):
    """One call into the thread."""

    def __init__(self, function: Callable[[], Awaitable[T]]) -> None:
        self._function = function
        self._scope = trio.CancelScope()
        self.started = False
        self.outcome: concurrent.futures.Future[T] = concurrent.futures.Future()

    def cancel(self) -> None:
        """Give it up; runs in the trio thread."""
        self._scope.cancel()
        if not self.started and not self.outcome.done():
            self.outcome.set_exception(_closed())

    async def run(self) -> None:
        try:
            with self._scope:
                self.outcome.set_result(await self._function())
        except Exception as error:
            self.outcome.set_exception(error)
        finally:
            if not self.outcome.done():
                self.outcome.set_exception(_closed())


def _closed() -> ConnectionClosed:
    return ConnectionClosed("the client is closed")

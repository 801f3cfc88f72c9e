"""A relation by its name: what can be asked of one through a trio client."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from dataflow_serve.client import _tables
from dataflow_serve.client._order import Order, order_names, ordered
from dataflow_serve.client._subscription import Slow, Subscription
from dataflow_serve.client._view import Step, View
from dataflow_serve.errors import (
    TooLargeError,
)
from dataflow_serve.protocol import (
    Row,
    Rows,
    Transacted,
    Value,
)

if TYPE_CHECKING:
    from dataflow_serve.client._trio import Client

__all__ = ["Relation"]


class Relation:
    """A handle on one relation: ``db["reach"]``."""

    def __init__(self, client: Client, name: str) -> None:
        """Name a relation; whether it exists shows when it is used."""
        self.name = name
        self._client = client

    async def rows(
        self,
        where: Mapping[str, Value] | None = None,
        *,
        order: Order | None = None,
        limit: int | None = None,
    ) -> list[Row]:
        """All rows, in no particular order; or as `Client.read` has them with these arguments.

        Cancelling leaves nothing behind.

        Raises:
            NotFoundError: there is no such relation.
        """
        return list(await self.contents(where, order=order, limit=limit))

    async def contents(
        self,
        where: Mapping[str, Value] | None = None,
        *,
        order: Order | None = None,
        limit: int | None = None,
    ) -> Rows:
        """All rows with their columns and the time they are true for; arguments are those of `Client.read`.

        Cancelling leaves nothing behind.

        Raises:
            NotFoundError: there is no such relation.
        """
        try:
            return await self._client.read(self.name, where=where, order=order, limit=limit)
        except TooLargeError:
            if limit is not None:
                raise
            # An answer has a size; a snapshot has none, it comes in parts.
            async with self.subscribe(where=where) as steps:
                view = View()
                view.apply(await steps.receive())
                rows = view.rows()
                if (names := order_names(order)) is not None:
                    rows = ordered(steps.columns, rows, names)
                return Rows(steps.columns, rows, view.time or 0)

    def subscribe(
        self,
        *,
        snapshot: bool = True,
        where: Mapping[str, Value] | None = None,
        since: int | None = None,
        history: Any = None,
        slow: Slow = "coalesce",
        backlog: int | None = None,
        order: Order | None = None,
        limit: int | None = None,
    ) -> Subscription[Step]:
        """Follow the relation; see `Client.subscribe`."""
        return self._client.subscribe(
            self.name,
            snapshot=snapshot,
            where=where,
            since=since,
            history=history,
            slow=slow,
            backlog=backlog,
            order=order,
            limit=limit,
        )

    async def insert(self, rows: Iterable[Iterable[Value]], *, key: str | None = None) -> Transacted:
        """Insert rows in one transaction, and wait until they are visible; see `Client.transact`."""
        return await self._client.transact({self.name: rows}, key=key)

    async def delete(self, rows: Iterable[Iterable[Value]], *, key: str | None = None) -> Transacted:
        """Delete rows in one transaction, and wait until it is visible; see `Client.transact`."""
        return await self._client.transact(delete={self.name: rows}, key=key)

    async def df(self, where: Mapping[str, Value] | None = None) -> Any:
        """All rows as a pandas data frame; needs pandas. Cancelling leaves nothing behind."""
        return _tables.to_pandas(await self.contents(where))

    async def pl(self, where: Mapping[str, Value] | None = None) -> Any:
        """All rows as a polars data frame; needs polars. Cancelling leaves nothing behind."""
        return _tables.to_polars(await self.contents(where))

    async def arrow(self, where: Mapping[str, Value] | None = None) -> Any:
        """All rows as an Arrow table; needs pyarrow. Cancelling leaves nothing behind."""
        return _tables.to_arrow(await self.contents(where))

    def __repr__(self) -> str:
        """Its name and where it is; a coroutine would be needed to show rows."""
        return f"<Relation {self.name!r} of {self._client.url}>"

"""A relation by its name: what can be asked of one through a blocking client."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from dataflow_serve.client import _tables
from dataflow_serve.client._blocking_subscription import BlockingSubscription
from dataflow_serve.client._order import Order
from dataflow_serve.client._subscription import Slow
from dataflow_serve.client._view import Step
from dataflow_serve.errors import DataflowError
from dataflow_serve.protocol import (
    Row,
    Rows,
    Transacted,
    Value,
)

if TYPE_CHECKING:
    from dataflow_serve.client._blocking import BlockingClient

__all__ = ["BlockingRelation"]


class BlockingRelation:
    """A handle on one relation: ``db["reach"]``; showing it shows its first rows."""

    def __init__(self, client: BlockingClient, name: str) -> None:
        """Name a relation; whether it exists shows when it is used."""
        self.name = name
        self._client = client

    def rows(
        self,
        where: Mapping[str, Value] | None = None,
        *,
        order: Order | None = None,
        limit: int | None = None,
    ) -> list[Row]:
        """All rows, in no particular order; or as `Client.read` has them with these arguments.

        Raises:
            NotFoundError: there is no such relation.
        """
        return list(self.contents(where, order=order, limit=limit))

    def contents(
        self,
        where: Mapping[str, Value] | None = None,
        *,
        order: Order | None = None,
        limit: int | None = None,
    ) -> Rows:
        """All rows with their columns and the time they are true for; arguments are those of `Client.read`.

        Raises:
            NotFoundError: there is no such relation.
        """
        relation = self._client._client[self.name]
        return self._client._portal.call(lambda: relation.contents(where, order=order, limit=limit))

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
    ) -> BlockingSubscription[Step]:
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

    def insert(self, rows: Iterable[Iterable[Value]], *, key: str | None = None) -> Transacted:
        """Insert rows in one transaction, and wait until they are visible."""
        return self._client.transact({self.name: rows}, key=key)

    def delete(self, rows: Iterable[Iterable[Value]], *, key: str | None = None) -> Transacted:
        """Delete rows in one transaction, and wait until it is visible."""
        return self._client.transact(delete={self.name: rows}, key=key)

    def df(self, where: Mapping[str, Value] | None = None) -> Any:
        """All rows as a pandas data frame; needs pandas."""
        return _tables.to_pandas(self.contents(where))

    def pl(self, where: Mapping[str, Value] | None = None) -> Any:
        """All rows as a polars data frame; needs polars."""
        return _tables.to_polars(self.contents(where))

    def arrow(self, where: Mapping[str, Value] | None = None) -> Any:
        """All rows as an Arrow table; needs pyarrow."""
        return _tables.to_arrow(self.contents(where))

    def __repr__(self) -> str:
        """The first rows and the time they are true for, or why they can't be shown."""
        try:
            return _tables.text_table(self.name, self._first())
        except DataflowError as error:
            return f"<relation {self.name!r}: {error}>"

    def _repr_html_(self) -> str | None:
        """The same for a notebook, which shows the plain one where this gives nothing."""
        try:
            return _tables.html_table(self.name, self._first())
        except DataflowError:
            return None

    def _first(self) -> Rows:
        # One more than is shown tells whether there are more.
        return self._client.read(self.name, limit=_tables.SHOWN_ROWS + 1)

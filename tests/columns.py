"""Columns of all sorts of types, and values for them: what files and objects are loaded into."""

import datetime
import uuid

from dataflow_serve.protocol import Column, TypeInfo

PERSON = (Column("name", "symbol"), Column("age", "number"))

MOMENT = datetime.datetime(2026, 11, 23, 21, 0, 0, 500000, datetime.UTC)
ID = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")
STAMPED = (Column("at", "instant"), Column("id", "uuid"), Column("data", "bytes"))
"""For `MOMENT`, `ID` and bytes."""

TYPES = {
    "List": TypeInfo(record=(Column("head", "symbol"), Column("tail", "List"))),
    "Tree": TypeInfo(
        branches={
            "Leaf": (Column("x", "number"), Column("at", "instant")),
            "Node": (Column("left", "Tree"), Column("right", "Tree")),
            "Empty": (),
        }
    ),
}
NESTED = (Column("list", "List", TYPES), Column("tree", "Tree", TYPES))
"""A record and a branch of `TYPES`."""

"""What earlier programs registered, as far as the text of a new one depends on it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

from msgspec import Struct

from dataflow_serve.language._types import Column, Type

__all__ = ["CLOCK", "STANDING", "Catalog", "CatalogRelation"]


class CatalogRelation(Struct, frozen=True):
    """A relation that an earlier program declared."""

    id: int
    """The cluster's id of it, never used again for another."""
    name: str
    columns: tuple[Column, ...]
    input: bool
    """Whether clients may transact into it."""
    mode: str
    """As declared: ``set``, ``raw`` or ``upsert(a, b)`` with the key's column names."""
    module: str
    """Name of the module that declared it."""


CLOCK = CatalogRelation(0, "now", (Column("t", Type.INSTANT),), False, "set", "")
"""The one row of it is the time of day as the cluster has it; no program declares it."""

STANDING = {CLOCK.name: CLOCK}
"""Relations that are there for whoever reads them, unless another one has the name."""


class Catalog(Mapping[str, CatalogRelation]):
    """An immutable mapping from relation name to relation, with the modules that declared them.

    Python plans against such a picture of a moment; whether it still holds is checked again when the plan is
    delivered.
    """

    __slots__ = ("_relations", "modules")

    def __init__(
        self, relations: Iterable[CatalogRelation] = (), modules: Mapping[str, str] | None = None
    ) -> None:
        """A catalog of these relations; ``modules`` gives the digest of each module's program by name."""
        self._relations = {relation.name: relation for relation in relations}
        self.modules: Mapping[str, str] = MappingProxyType(dict(modules or {}))

    def __getitem__(self, name: str) -> CatalogRelation:
        """The relation of this name."""
        return self._relations[name]

    def __iter__(self) -> Iterator[str]:
        """The names of all relations."""
        return iter(self._relations)

    def __len__(self) -> int:
        """How many relations there are."""
        return len(self._relations)

    def without(self, module: str) -> Catalog:
        """This catalog as if ``module`` had never been registered."""
        return Catalog(
            (relation for relation in self._relations.values() if relation.module != module),
            {name: digest for name, digest in self.modules.items() if name != module},
        )

    def module_with(self, digest: str) -> str | None:
        """The name of the module whose program has this digest."""
        return next((name for name, known in self.modules.items() if known == digest), None)

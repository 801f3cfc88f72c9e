"""The language: program text to a checked program. No I/O at all.

`parse` gives the syntax tree (`ast`) of a text, `expand` puts in what the instances of its components hold,
and `check` gives the checked form (`checked`) of a tree against the `Catalog` of what earlier programs
registered. The planner and everything else that gives programs a meaning start from the checked form.
"""

from dataflow_serve.language._catalog import CLOCK, Catalog, CatalogRelation
from dataflow_serve.language._check import check, digest_of
from dataflow_serve.language._components import expand
from dataflow_serve.language._composites import composites_from_json, composites_json
from dataflow_serve.language._cursor import did_you_mean
from dataflow_serve.language._parser import parse
from dataflow_serve.language._strata import stratify
from dataflow_serve.language._types import Branch, Column, Composite, Kind, Scalar, Type
from dataflow_serve.language.ast import Program
from dataflow_serve.language.checked import CheckedProgram

__all__ = [
    "CLOCK",
    "Branch",
    "Catalog",
    "CatalogRelation",
    "CheckedProgram",
    "Column",
    "Composite",
    "Kind",
    "Program",
    "Scalar",
    "Type",
    "check",
    "composites_from_json",
    "composites_json",
    "did_you_mean",
    "digest_of",
    "expand",
    "parse",
    "stratify",
]

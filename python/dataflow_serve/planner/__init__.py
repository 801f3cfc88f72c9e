"""The planner: a checked program to the plan document that every worker builds. No I/O at all."""

from dataflow_serve.language import Catalog, CatalogRelation, Column, Type
from dataflow_serve.planner._compile import (
    CompiledProgram,
    compile_program,
    plan_program,
)
from dataflow_serve.planner._explain import explain
from dataflow_serve.planner._statistics import RelationStatistics, Statistics

__all__ = [
    "Catalog",
    "CatalogRelation",
    "Column",
    "CompiledProgram",
    "RelationStatistics",
    "Statistics",
    "Type",
    "compile_program",
    "explain",
    "plan_program",
]

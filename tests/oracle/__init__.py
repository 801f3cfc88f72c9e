"""Slow, plain meanings of programs and plans, which the fast ones are compared with."""

from tests.oracle.evaluator import Diverged, evaluate, evaluate_texts
from tests.oracle.generator import Case, InputRelation, apply_transaction, generate
from tests.oracle.plan_interpreter import interpret

__all__ = [
    "Case",
    "Diverged",
    "InputRelation",
    "apply_transaction",
    "evaluate",
    "evaluate_texts",
    "generate",
    "interpret",
]

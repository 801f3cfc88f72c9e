"""Batch runs: a program, a directory of facts, a directory for what it derives.

``_source`` reads the program's text, ``_directives`` says which files its directives mean, ``_staging`` which
inputs come before the rules, ``_output`` writes rows, and ``_batch`` puts them together around a server in
the same process.
"""

from dataflow_serve.run._batch import run_program

__all__ = ["run_program"]

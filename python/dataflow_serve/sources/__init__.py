"""External sources of truth: files that grow, PostgreSQL. Each is read by a thread of its own.

``_specs`` says what can be attached; ``_supervisor`` runs what is, begins again what fails, and tells
``status``; ``_doors`` is what it needs of the workers. ``_files``, with ``_tail`` for a single file, and
``_postgres`` are the readers. Rows stay bytes here: the extension makes words of them, without the GIL.
"""

from dataflow_serve.sources._doors import Intake, Target, Workers
from dataflow_serve.sources._specs import Files, Source, check, parse
from dataflow_serve.sources._supervisor import Sources

__all__ = ["Files", "Intake", "Source", "Sources", "Target", "Workers", "check", "parse"]

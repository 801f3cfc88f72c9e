"""External sources of truth: files that grow, PostgreSQL. Each is read by a thread of its own.

``_specs`` says what can be attached; ``_supervisor`` runs what is, begins again what fails, and tells
``status``; ``_doors`` is what it needs of the workers. ``_files``, with ``_tail`` for a single file, and
``_postgres`` are the readers. Rows stay bytes here: the extension makes words of them, without the GIL.
"""

from typing import TYPE_CHECKING

from dataflow_serve._lazy import lazily

if TYPE_CHECKING:
    from dataflow_serve.sources._doors import Intake, Target, Workers
    from dataflow_serve.sources._specs import Files, Source, check, parse
    from dataflow_serve.sources._supervisor import Sources
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "Files": "_specs",
            "Intake": "_doors",
            "Source": "_specs",
            "Sources": "_supervisor",
            "Target": "_doors",
            "Workers": "_doors",
            "check": "_specs",
            "parse": "_specs",
        },
    )

__all__ = ["Files", "Intake", "Source", "Sources", "Target", "Workers", "check", "parse"]

"""What the server's Python part logs, in the same two forms as its workers."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime

__all__ = ["begin"]

LEVEL = "DATAFLOW_SERVE_LOG"
FORMAT = "DATAFLOW_SERVE_LOG_FORMAT"


class JsonFormatter(logging.Formatter):
    """One JSON object a line, with the fields that the workers' lines have."""

    def format(self, record: logging.LogRecord) -> str:
        """A record as a line."""
        fields = {"message": record.getMessage()}
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        return json.dumps(
            {
                "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z"),
                "level": record.levelname,
                "fields": fields,
                "target": record.name,
            }
        )


def begin(environment: Mapping[str, str]) -> None:
    """Log to standard error, at the level and in the form that the environment asks for.

    The workers' part understands more than a level (``info,dataflow_worker=debug``); here the first word
    counts.
    """
    level = environment.get(LEVEL, "warning").split(",")[0].upper()
    handler = logging.StreamHandler()
    if environment.get(FORMAT) == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    known = logging.getLevelNamesMapping() | {"WARN": logging.WARNING, "TRACE": logging.DEBUG}
    logging.basicConfig(level=known.get(level, logging.WARNING), handlers=[handler])

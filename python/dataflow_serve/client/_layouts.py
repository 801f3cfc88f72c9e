"""How rows and plans can be printed, for whoever says so without printing any."""

__all__ = ["PLAN_LAYOUTS", "ROW_LAYOUTS"]

ROW_LAYOUTS = ("table", "csv", "tsv", "json")
"""Of rows."""

PLAN_LAYOUTS = ("text", "json", "svg")
"""Of plans."""

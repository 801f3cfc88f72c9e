"""Packages show and give all their names, though they import modules only when asked."""

import importlib
from typing import Any

import pytest


@pytest.mark.parametrize("package", ["dataflow_serve", "dataflow_serve.client", "dataflow_serve.sources"])
def test_all_names_are_shown_and_there(package: str) -> None:
    module: Any = importlib.import_module(package)
    assert set(module.__all__) <= set(dir(module))
    # The server's need the extension.
    for name in set(module.__all__) - {"EmbeddedServer", "serve"}:
        assert getattr(module, name) is getattr(module, name)
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        _ = module.nothing

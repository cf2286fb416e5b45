"""Modules that define operations of the user's own, imported by name before a model or plan is opened."""

import importlib
from collections.abc import Sequence

from miniinfer_cli.errors import MiniinferError, UsageError


def load_plugins(modules: Sequence[str]) -> None:
    """Imports the modules in order. Raises UsageError when one cannot be imported."""
    for name in modules:
        try:
            importlib.import_module(name)
        except MiniinferError:
            raise
        except Exception as error:
            raise UsageError(f"--plugin {name}: {type(error).__name__}: {error}", hint="is its folder on PYTHONPATH?") from error

"""Modules that define operations of the user's own, imported by name before a model or plan is opened."""

import importlib
import traceback
from collections.abc import Sequence

from miniinfer_cli.errors import MiniinferError, UsageError


def load_plugins(modules: Sequence[str]) -> None:
    """Imports the modules in order. Raises UsageError when one cannot be imported, with the line that failed."""
    for name in modules:
        try:
            importlib.import_module(name)
        except MiniinferError:
            raise
        except ImportError as error:
            hint = "is its folder on PYTHONPATH?" if error.name == name else ""
            raise UsageError(f"--plugin {name}: {type(error).__name__}: {error}", hint=hint) from error
        except Exception as error:  # the user's code may raise whatever it likes, and it is not a bug of ours
            last = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{last.filename}:{last.lineno}"
            raise UsageError(f"--plugin {name}: {place}: {type(error).__name__}: {error}") from error

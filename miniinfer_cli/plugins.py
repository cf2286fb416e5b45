"""Modules that define operations of the user's own, imported by name before a model or plan is opened."""

import importlib
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

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


def plugin_files(modules: Sequence[str]) -> list[Path]:
    """Imports the modules like ``load_plugins``, and gives the files of them and of their sub-modules."""
    load_plugins(modules)
    packages = tuple(f"{m}." for m in modules)
    found = [m for name, m in list(sys.modules.items()) if name in modules or name.startswith(packages)]
    return [Path(file) for m in found if (file := getattr(m, "__file__", None))]

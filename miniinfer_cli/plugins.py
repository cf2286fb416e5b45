"""Modules that define operations of the user's own, imported by name before a model or plan is opened."""

import importlib
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from miniinfer_cli.errors import MiniinferError, UsageError
from miniinfer_cli.ops.registry import defined
from miniinfer_cli.shortage import memory_ran_out
from miniinfer_cli.wording import Wording


def load_plugins(modules: Sequence[str]) -> None:
    """Imports the modules in order. Raises UsageError when one cannot be imported, with the line that failed."""
    for name in modules:
        try:
            importlib.import_module(name)
        except (MiniinferError, MemoryError):
            raise
        except ImportError as error:
            if memory_ran_out(error):
                raise
            hint = "is its folder on PYTHONPATH?" if error.name == name else ""
            raise UsageError(_at_plugin(name, f"{type(error).__name__}: {error}"), hint=hint) from error
        except (Exception, SystemExit) as error:  # the user's code may raise whatever it likes, and it is not a bug of ours
            raise UsageError(_at_plugin(name, f"{_last_line(error)}: {type(error).__name__}: {error}")) from error


def _at_plugin(name: str, told: str) -> str:
    return Wording(f"plugins: {name}: {told}", flags=f"--plugin {name}: {told}")


def fault_of_plugin(error: BaseException) -> UsageError | None:
    """What to say of an error that no one expected, when a function of an operation that is not ours raised it; else None."""
    functions = [f for op in defined() for f in (op.infer, op.reference, op.expand, op.check) if f is not None]
    theirs = {f.__module__ for f in functions if not _is_ours(f.__module__)}
    cause: BaseException | None = error
    seen: set[int] = set()
    while cause is not None and id(cause) not in seen:  # an error may be raised from itself
        seen.add(id(cause))
        frames = [f for f, _ in traceback.walk_tb(cause.__traceback__)]
        known = [n for n in (str(f.f_globals.get("__name__", "")) for f in frames) if _is_ours(n) or n in theirs]
        if known and known[-1] in theirs:
            text = f"{_last_line(cause)}: {type(cause).__name__}: {cause}"
            return UsageError(f"the operations of {known[-1]}: {text}", hint="this is raised by the plugin: see docs/plugins.md")
        cause = cause.__cause__
    return None


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] in ("engine_format", "miniinfer_cli")


def _last_line(error: BaseException) -> str:
    """Where it was raised; of a file that cannot be parsed, the line that is wrong."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{last.filename}:{last.lineno}"


def plugin_files(modules: Sequence[str]) -> list[Path]:
    """Imports the modules like ``load_plugins``, and gives the files of them and of their sub-modules."""
    if not modules:
        return []
    load_plugins(modules)
    packages = tuple(f"{m}." for m in modules)
    found = [m for name, m in list(sys.modules.items()) if name in modules or name.startswith(packages)]
    return [Path(file) for m in found if (file := getattr(m, "__file__", None))]

"""Makes ``miniinfer_cli.ort`` the ``onnxruntime`` of this process. Python runs it when it starts, in whatever environment.

Nothing is imported until the program imports onnxruntime; where miniinfer is not installed, that says so. A sitecustomize that
stands behind this one on the path runs as well.
"""

import importlib
import importlib.util
import sys
from collections.abc import Iterable, Sequence
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from importlib.metadata import Distribution, DistributionFinder
from pathlib import Path
from types import ModuleType
from typing import Any

_NAME = "onnxruntime"
_OURS = "miniinfer_cli.ort"
_REAL = "onnxruntime_process"  # compares with onnxruntime itself


class _Alias(Loader):
    """Gives a module of ours under onnxruntime's name."""

    def __init__(self, ours: str) -> None:
        self._ours = ours
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module itself, imported by its own name."""
        try:
            module = importlib.import_module(self._ours)
        except ModuleNotFoundError as error:  # miniinfer, or, where its source lies in the current folder, what it needs
            where = f"miniinfer is not installed in the Python that runs this program, {sys.executable}: there is no {error.name}"
            hint = f"{sys.executable} -m pip install miniinfer, or take another Python: miniinfer ort-shim -- PATH/python ..."
            raise ImportError(f"{where}\n  hint: {hint}", name=_NAME) from None
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is left to run; the import system has put its spec in the place of the module's own."""
        module.__spec__ = self._spec


class _Named(Distribution):
    """What importlib.metadata tells of onnxruntime."""

    def read_text(self, filename: str) -> str | None:
        """The metadata; there are no other files."""
        if filename != "METADATA":
            return None
        from miniinfer_cli.version import ONNXRUNTIME  # late: most programs never ask

        return (
            f"Metadata-Version: 2.1\nName: {_NAME}\nVersion: {ONNXRUNTIME}\nSummary: miniinfer, with the names of onnxruntime\n"
        )

    def locate_file(self, path: Any) -> Any:
        """Beside this file, where nothing of it is."""
        return Path(__file__).parent / path


class Finder(DistributionFinder):
    """Finds onnxruntime, its modules, and its version, before anything that is installed."""

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The spec of onnxruntime or of a module of it. Raises ModuleNotFoundError for those that are refused, with a hint."""
        top, _, rest = fullname.partition(".")
        if top != _NAME:
            return None
        if not rest:
            return importlib.util.spec_from_loader(fullname, _Alias(_OURS), origin=__file__, is_package=True)
        ours = f"{_OURS}.{rest}"
        found = importlib.util.find_spec(ours)
        if found is None:
            from miniinfer_cli.ort.lacking import LACKING_MODULES, told  # late: it is imported already

            message = told(fullname, LACKING_MODULES.get(rest.partition(".")[0], ""), f"No module named {fullname!r}")
            raise ModuleNotFoundError(message, name=fullname)
        package = found.submodule_search_locations is not None
        return importlib.util.spec_from_loader(fullname, _Alias(ours), origin=found.origin, is_package=package)

    def find_distributions(self, context: Any = DistributionFinder.Context()) -> Iterable[Distribution]:  # noqa: B008
        """onnxruntime's, for who asks for it by name."""
        if context.name is not None and context.name.lower().replace("_", "-") == _NAME:
            yield _Named()


def _run_the_next() -> None:
    """What Python would have run without this folder."""
    here = Path(__file__).parent.resolve()
    sys.path[:] = [p for p in sys.path if not p or Path(p).resolve() != here]
    mine = sys.modules.pop("sitecustomize", None)
    try:
        importlib.import_module("sitecustomize")
    except ModuleNotFoundError as error:
        if error.name != "sitecustomize":
            raise
        if mine is not None:
            sys.modules["sitecustomize"] = mine


if __name__ == "sitecustomize":
    if not any(_REAL in word for word in sys.orig_argv):
        sys.meta_path.insert(0, Finder())
    _run_the_next()

"""Modules that seem not to be installed, to one thread for a while.

Other threads import them meanwhile as they like, so ``sys.modules``, which is everybody's, is left alone.
"""

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def hidden(module: str) -> Iterator[None]:
    """Inside, on this thread, importing ``module`` raises ModuleNotFoundError, unless somebody has loaded it already."""
    with _installing:
        if _FINDER not in sys.meta_path:
            # It stays: taking one out lets imports that go on in other threads skip the finder behind it.
            sys.meta_path.insert(0, _FINDER)
    before = _FINDER.names
    _FINDER.names = before | {module}
    try:
        yield
    finally:
        _FINDER.names = before


class _Finder(threading.local):
    """Asked before all others; finds nothing, and says of hidden modules that nobody will."""

    names: frozenset[str] = frozenset()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


_FINDER = _Finder()
_installing = threading.Lock()

"""Where the time of one process goes: spans of named functions and of imports, per thread, without a line in the product.

    with spans.recorded(FUNCTIONS) as tree: ...
    print(tree.text())

Functions are named ``module:Class.method`` or ``module:function``, the module being the one that calls it by that name; they are
wrapped as soon as their module has been imported.
"""

import builtins
import contextlib
import functools
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Span:
    """Calls of one function from one place: how many, their seconds, when the first began and the last ended."""

    name: str
    count: int = 0
    seconds: float = 0.0
    first: float = 0.0
    last: float = 0.0
    within: "dict[str, Span]" = field(default_factory=dict)

    def lines(self, least: float, depth: int = 0) -> Iterator[str]:
        """One line for each span of at least ``least`` seconds, in the order in which they began; times in ms."""
        for span in sorted(self.within.values(), key=lambda s: s.first):
            if span.seconds < least:
                continue
            count = f" x{span.count}" if span.count > 1 else ""
            rest = span.seconds - sum(s.seconds for s in span.within.values())
            own = f"  (itself {rest * 1e3:.0f})" if span.within else ""
            times = f"{span.first * 1e3:7.0f} {span.last * 1e3:7.0f} {span.seconds * 1e3:8.1f}"
            yield f"{times}  {'  ' * depth}{span.name}{count}{own}"
            yield from span.lines(least, depth + 1)


class Recorder:
    """Spans of every thread, by the thread's name, against ``start`` on the clock of ``time.perf_counter``."""

    def __init__(self, functions: Sequence[str], start: float, least_import: float = 0.002) -> None:
        self.start = start
        self.roots: dict[str, Span] = {}
        self._least = least_import
        self._pending = dict.fromkeys(functions)
        self._local = threading.local()
        self._importing = builtins.__import__

    def __enter__(self) -> "Recorder":
        builtins.__import__ = self._import
        self._wrap_imported()
        return self

    def __exit__(self, *exception: object) -> None:
        builtins.__import__ = self._importing

    @contextlib.contextmanager
    def span(self, name: str, least: float = 0.0) -> Iterator[None]:
        """Records what runs inside; not at all where it takes less than ``least`` seconds and has nothing within."""
        stack = self._stack()
        parent = stack[-1]
        found = parent.within.get(name)
        span = found or Span(name, first=time.perf_counter() - self.start)
        stack.append(span)
        began = time.perf_counter()
        try:
            yield
        finally:
            ended = time.perf_counter()
            stack.pop()
            if found is not None or span.within or ended - began >= least:
                parent.within[name] = span
                span.count += 1
                span.seconds += ended - began
                span.last = ended - self.start

    def text(self, least: float = 0.002) -> str:
        """All threads' spans: begin of the first, end of the last, sum (ms), name, calls."""
        return "\n".join(line for name, root in self.roots.items() for line in (f"-- {name}", *root.lines(least)))

    def _stack(self) -> list[Span]:
        stack: list[Span] | None = getattr(self._local, "stack", None)
        if stack is None:
            name = threading.current_thread().name
            stack = self._local.stack = [self.roots.setdefault(name, Span(name))]
        return stack

    def _import(self, name: str, *arguments: Any, **named: Any) -> Any:
        with self.span(f"import {name}", self._least):
            module = self._importing(name, *arguments, **named)
        self._wrap_imported()
        return module

    def _wrap_imported(self) -> None:
        for function in list(self._pending):
            module_name, _, path = function.partition(":")
            module = sys.modules.get(module_name)
            *owners, name = path.split(".")
            owner: Any = module
            for part in owners:
                owner = getattr(owner, part, None)
            original = getattr(owner, name, None) if owner is not None else None
            if original is not None and self._pending.pop(function, 0) is None:
                setattr(owner, name, self._wrapped(original, path))

    def _wrapped(self, original: Callable[..., Any], name: str) -> Callable[..., Any]:
        @functools.wraps(original)
        def wrapper(*arguments: Any, **named: Any) -> Any:
            with self.span(name):
                return original(*arguments, **named)

        return wrapper

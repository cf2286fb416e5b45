"""The engine behind a session: a plan opened on a device, and as many contexts as runs are under way at once."""

import threading
import weakref
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from miniinfer_cli.devices.opening import load_with
from miniinfer_cli.ort.faults import Fail, told_as
from miniinfer_cli.ort.nodes import Description, NodeArg
from miniinfer_cli.ort.plans import Wanted, plan_of
from miniinfer_cli.ort.types import type_text
from miniinfer_cli.runtime.bindings import Binding
from miniinfer_cli.runtime.context import Context
from miniinfer_cli.runtime.engine import Engine


class OpenedModel:
    """A model on a device. Thread-safe: each run takes a context that no other has."""

    def __init__(self, wanted: Wanted, device: str, threads: int | None) -> None:
        plan, declared = plan_of(wanted)
        with told_as(Fail):
            self.engine: Engine = load_with(plan, device, {} if threads is None else {"threads": threads})
        weakref.finalize(self, _close, self.engine, plan.close).atexit = False  # a run may be under way in another thread
        bindings = {b.name: b for b in self.engine.outputs}
        given = (*declared.inputs, *declared.overridable)
        names = {d for a in given for d in a.shape if isinstance(d, str)}
        outputs = [_output(item, bindings[item[0]], names) for item in declared.outputs]
        self.description = Description(declared.inputs, declared.overridable, outputs, declared.metadata)
        self._lock = threading.Lock()
        self._free: list[Context] = []

    def has_sizes_that_differ(self, feeds: Mapping[str, Any]) -> bool:
        """True where a name of the model's would be two sizes in these inputs."""
        sizes: dict[str, set[int]] = {}
        for binding in self.engine.inputs:
            given = getattr(feeds.get(binding.name), "shape", ())
            for dim, size in zip(binding.shape or (), given, strict=False):
                if isinstance(dim, str):
                    sizes.setdefault(dim, set()).add(int(size))
        return any(len(found) > 1 for found in sizes.values())

    @contextmanager
    def context(self) -> Iterator[Context]:
        """A context for one run."""
        with self._lock:
            context = self._free.pop() if self._free else None
        if context is None:
            context = self.engine.create_context()
        try:
            yield context
        finally:
            with self._lock:
                self._free.append(context)


def _close(engine: Engine, close_plan: Any) -> None:
    engine.close()
    close_plan()


def _output(declared: tuple[str, str, list[int | str | None] | None], binding: Binding, names: Collection[str]) -> NodeArg:
    """As the model declares it; what it leaves open as it was inferred, by ``names`` of the inputs' dimensions."""
    name, type, shape = declared
    if shape is None:
        shape = [d if isinstance(d, int) or d in names else None for d in binding.shape or ()]
    return NodeArg(name, type or type_text(binding.type), shape)

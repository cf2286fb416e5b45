"""Engines for the tests of batchers: a small plan on the CPU, whose inferences can be held, watched and made to fail."""

import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from engine_format import DimensionRange
from miniinfer_cli.devices.opening import load
from miniinfer_cli.runtime.engine import Engine
from tests.emulation.engine import plan_of

DOUBLE = "graph main(x: f32[n,3]) {\n  y = Add(x, x)\n  return y\n}"
WAIT_S = 20  # for what comes at once, if it comes


def open_cpu(text: str = DOUBLE, ranges: Sequence[DimensionRange] = ()) -> Engine:
    """The plan of a graph given as text, on the CPU."""
    from dataclasses import replace

    return load(replace(plan_of(text), ranges=tuple(ranges)), "cpu")


def row(number: float, width: int = 3) -> dict[str, Any]:
    """A request of one row that begins with ``number``."""
    return {"x": np.array([[number, *range(1, width)]], np.float32)}


def rows(*numbers: float) -> dict[str, Any]:
    return {"x": np.concatenate([row(n)["x"] for n in numbers])}


class Staged:
    """An engine around another one. ``batches``: what was computed, as the first number of each row of the first input.

    While ``gate`` is not set, inferences stand still, after ``entered`` was released. ``fault``: what to raise for a batch.
    """

    def __init__(self, engine: Engine, fault: Callable[[list[float]], BaseException | None] = lambda _: None) -> None:
        self.engine = engine
        self.fault = fault
        self.alter: Callable[[tuple[Any, ...]], tuple[Any, ...]] = lambda outputs: outputs
        self.batches: list[list[float]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.contexts: list[StagedContext] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def create_context(self) -> Any:
        self.contexts.append(StagedContext(self))
        return self.contexts[-1]

    def expect_entered(self) -> None:
        """Waits until one more inference has begun."""
        assert self.entered.acquire(timeout=WAIT_S)


class StagedContext:
    def __init__(self, staged: Staged) -> None:
        self._staged = staged
        self._context = staged.engine.create_context()
        self.closed = False
        self.depth = self._context.depth

    def run(self, inputs: dict[str, Any]) -> dict[str, Any]:
        outputs = self.run_arrays(self._staged.engine.check(inputs))
        return dict(zip((b.name for b in self._staged.engine.outputs), outputs, strict=True))

    def enqueue(self, inputs: dict[str, Any]) -> Any:
        outputs = self.run(inputs)
        return SimpleNamespace(result=lambda: outputs)

    def enqueue_arrays(self, arrays: list[Any]) -> Any:
        outputs = dict(enumerate(self.run_arrays(arrays)))
        return SimpleNamespace(result=lambda: outputs)

    def __enter__(self) -> "StagedContext":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def run_arrays(self, arrays: list[Any]) -> tuple[Any, ...]:
        staged = self._staged
        numbers = [float(v.flat[0]) for v in arrays[0]]
        staged.batches.append(numbers)
        staged.entered.release()
        assert staged.gate.wait(WAIT_S)
        error = staged.fault(numbers)
        if error is not None:
            raise error
        return staged.alter(self._context.run_arrays(arrays))

    def close(self, *, wait: bool = False) -> None:
        self.closed = True
        self._context.close(wait=wait)

"""The CPU as a device: a model's weights, and contexts that each own one arena."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from miniinfer_cli.backends.cpu import lowering  # noqa: F401  (registers the lowerings)
from miniinfer_cli.backends.cpu.kernel import Weights
from miniinfer_cli.backends.cpu.program import CpuExecution, CpuProgram, NestedPrograms
from miniinfer_cli.errors import OutOfMemoryError
from miniinfer_cli.ir import Array, Graph, Type

_EXECUTIONS = 16  # bound programs a context keeps; each is a list of views into the one arena


class CpuModel:
    """A graph whose constants are read from the plan at first touch."""

    device = "cpu"

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._weights = Weights()

    def make_program(self, inputs: Sequence[Type | None]) -> CpuProgram:
        """See LoadedModel."""
        return CpuProgram(self._graph, inputs, self._weights)

    def make_context(self) -> "CpuContext":
        """See LoadedModel."""
        return CpuContext(self._weights)

    def close(self) -> None:
        """See LoadedModel."""
        self._weights = Weights()


class CpuContext:
    """One arena that only grows, and the programs bound to it."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._arena: Array = np.empty(0, np.uint8)
        self._bound: dict[CpuProgram, CpuExecution] = {}
        self._nested = NestedPrograms(weights)

    @property
    def arena_nbytes(self) -> int:
        """See DeviceContext."""
        return self._arena.nbytes

    def execute(self, program: CpuProgram, inputs: Sequence[Any], times_ns: list[int] | None = None) -> tuple[Any, ...]:
        """See DeviceContext."""
        return self._bind(program).run(inputs, times_ns)

    def close(self) -> None:
        """See DeviceContext."""
        self._bound.clear()
        self._arena = np.empty(0, np.uint8)

    def _bind(self, program: CpuProgram) -> CpuExecution:
        execution = self._bound.pop(program, None)
        if execution is None:
            if program.arena_nbytes > self._arena.nbytes:
                self._bound.clear()  # they hold views of the arena that goes
                self._arena = _allocate(program.arena_nbytes)
            elif len(self._bound) >= _EXECUTIONS:
                self._bound.pop(next(iter(self._bound)))
            execution = CpuExecution(program, self._arena, self._nested)
        self._bound[program] = execution  # most recently used last
        return execution


def _allocate(nbytes: int) -> Array:
    """A byte array that starts on a 64-byte line, so that vector loads of the aligned offsets do not split lines."""
    try:
        raw = np.empty(nbytes + 64, np.uint8)
    except MemoryError:
        raise OutOfMemoryError(
            f"the activations need {nbytes / 2**20:.0f} MiB of memory, which this machine did not give",
            hint="run smaller shapes, for example a smaller batch",
        ) from None
    start = -raw.ctypes.data % 64
    return raw[start : start + nbytes]

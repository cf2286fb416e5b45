"""The CPU as a device: a model's weights, and what makes its programs and contexts."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from engine_format import TargetSection
from miniinfer_cli.backends import dlpack
from miniinfer_cli.backends.cpu import lowering  # noqa: F401  (registers the lowerings)
from miniinfer_cli.backends.cpu.execution import CpuContext
from miniinfer_cli.backends.cpu.program import CpuProgram
from miniinfer_cli.backends.cpu.routine import Weights
from miniinfer_cli.backends.cpu.threads import Threads
from miniinfer_cli.backends.interface import Vet
from miniinfer_cli.errors import UsageError
from miniinfer_cli.ir import Graph, Type


class CpuModel:
    """A graph whose constants are read from the plan at first touch. ``threads``: how many compute one inference."""

    device = "cpu"

    def __init__(self, graph: Graph, threads: int = 1) -> None:
        self._graph = graph
        self._threads = Threads(threads)
        self._weights = Weights()

    def facts(self) -> dict[str, Any]:
        """See LoadedModel: the host tells of its processor itself."""
        return {"name": "cpu", "threads": self._threads.count}

    def adopt(self, name: str, value: Any) -> None:
        """See LoadedModel: there is no array on a device for a CPU."""
        if dlpack.is_on_gpu(value) or (not isinstance(value, np.ndarray) and hasattr(value, "__cuda_array_interface__")):
            raise UsageError(
                f"input {name!r}: the array is on a GPU, the engine on the cpu", hint="copy it to the host, or load on cuda:N"
            )

    def rows(self, arrays: Sequence[Any], repeats: int) -> None:
        """See LoadedModel: arrays are not copied to a CPU."""

    def fetch(self, value: Any) -> Any:
        """See LoadedModel."""
        return value

    def use_targets(self, targets: Sequence[TargetSection], vet: Vet) -> None:
        """See LoadedModel: they are for GPUs."""

    notes = ()

    def state(self) -> dict[str, Any]:
        """See LoadedModel: nothing is asked of a CPU."""
        return {}

    def stats(self) -> dict[str, Any]:
        """See LoadedModel."""
        return {"threads": self._threads.count, "weights": {"derived_nbytes": self._weights.derived_nbytes}}

    def make_program(self, inputs: Sequence[Type | None], branched: Graph | None = None) -> CpuProgram:
        """See LoadedModel."""
        return CpuProgram(self._graph if branched is None else branched, inputs, self._weights, self._threads)

    def make_context(self) -> CpuContext:
        """See LoadedModel."""
        return CpuContext(self._weights, self._threads)

    def close(self) -> None:
        """See LoadedModel."""
        self._weights = Weights()

"""The CPU as a device: a model's weights, and what makes its programs and contexts."""

from collections.abc import Sequence

from miniinfer_cli.backends.cpu import lowering  # noqa: F401  (registers the lowerings)
from miniinfer_cli.backends.cpu.execution import CpuContext
from miniinfer_cli.backends.cpu.kernel import Weights
from miniinfer_cli.backends.cpu.program import CpuProgram
from miniinfer_cli.ir import Graph, Type


class CpuModel:
    """A graph whose constants are read from the plan at first touch."""

    device = "cpu"

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._weights = Weights()

    def make_program(self, inputs: Sequence[Type | None]) -> CpuProgram:
        """See LoadedModel."""
        return CpuProgram(self._graph, inputs, self._weights)

    def make_context(self) -> CpuContext:
        """See LoadedModel."""
        return CpuContext(self._weights)

    def close(self) -> None:
        """See LoadedModel."""
        self._weights = Weights()

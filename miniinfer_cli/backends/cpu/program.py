"""A graph made ready for one set of input shapes on the CPU: steps of numpy calls over one arena.

A step whose types are all known runs a kernel that writes into the arena. A step whose sizes depend on data, or whose
values are not tensors, runs the reference and keeps what it returns. Values known from the shapes alone are computed
while the program is made and cost nothing afterwards.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from miniinfer_cli.backends.cpu.kernel import Kernel, Site, Weights, find_lowering, nbytes_of
from miniinfer_cli.backends.cpu.memory import expect_memory
from miniinfer_cli.ir import DType, Graph, Node, TensorType, Type, Value, numpy_dtype
from miniinfer_cli.ops.inference import Types, infer_graph
from miniinfer_cli.planning.memory import MemoryLayout, StepUse, plan_memory

_VIEWS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"})


@dataclass(frozen=True, slots=True)
class Step:
    """One node of the program. ``kernel`` is None where the reference runs; ``view`` where the output shares bytes."""

    node: Node
    inputs: tuple[int | None, ...]
    outputs: tuple[int, ...]
    types: tuple[TensorType | None, ...]  # of the outputs; None where the size is known only at run time
    kernel: Kernel | None
    view: bool

    @property
    def label(self) -> str:
        """The node's name."""
        return self.node.name

    @property
    def kind(self) -> str:
        """The operation, with its domain if it is not ONNX's."""
        return f"{self.node.domain}.{self.node.op}" if self.node.domain else self.node.op

    @property
    def tactic(self) -> str:
        """How the step runs: ``view``, the kernel's tactic, or ``reference``."""
        return "view" if self.view else self.kernel.tactic if self.kernel is not None else "reference"


class CpuProgram:
    """The steps and the memory layout for one set of input types. Immutable once made; shared by contexts.

    Raises ModelError when the shapes do not go through the graph, OutOfMemoryError when a single value cannot fit.
    """

    def __init__(self, graph: Graph, inputs: Sequence[Type | None], weights: Weights) -> None:
        self.graph = graph
        self.weights = weights
        types = infer_graph(graph, inputs)
        _expect_fitting(types)
        self.slots: dict[Value, int] = {}
        self.preset: dict[int, Any] = {}  # slots with contents before the first step
        self.steps: list[Step] = []
        for value in graph.inputs:
            self._slot(value)
        for node in graph:
            if not self._settle(node, types):
                self.steps.append(self._lower(node, types))
        for value in graph.outputs:
            self._read(value, types)
        self.input_slots = tuple(self.slots[v] for v in graph.inputs)
        self.output_slots = tuple(self.slots[v] for v in graph.outputs)
        self.output_types: tuple[Type | None, ...] = tuple(types[v] for v in graph.outputs)
        self.layout = self._plan()

    @property
    def arena_nbytes(self) -> int:
        """Peak bytes of intermediates, as planned."""
        return self.layout.arena_nbytes

    @property
    def activation_nbytes(self) -> int:
        """Bytes that the intermediates would take with no memory shared."""
        return self.layout.sum_nbytes

    def _settle(self, node: Node, types: Types) -> bool:
        """Keeps the node's outputs as contents if they are all known by now."""
        arrays = [t.concrete if isinstance(t, TensorType) else None for t in (types[v] for v in node.outputs)]
        if not arrays or any(a is None for a in arrays):
            return False
        for value, array in zip(node.outputs, arrays, strict=True):
            kind = types[value]
            assert isinstance(kind, TensorType)
            self.preset[self._slot(value)] = np.asarray(array, numpy_dtype(kind.dtype))
        return True

    def _lower(self, node: Node, types: Types) -> Step:
        operands = tuple(None if v is None else types.get(v, v.type) for v in node.inputs)
        results = tuple(_static(types[v]) for v in node.outputs)
        inputs = tuple(None if v is None else self._read(v, types) for v in node.inputs)
        kernel, view = None, False
        ready = all(v is None or _static(t) is not None for v, t in zip(node.inputs, operands, strict=True))
        if ready and all(r is not None for r in results):
            view = node.domain == "" and node.op in _VIEWS and len(results) == 1
            lowering = find_lowering(node)
            if lowering is not None and not view:
                kinds = tuple(_static(t) for t in operands)
                handles = tuple(None if v is None else v.constant for v in node.inputs)
                kernel = lowering(Site(node, kinds, tuple(r for r in results if r is not None), handles, self.weights))
        return Step(node, inputs, tuple(self._slot(v) for v in node.outputs), results, kernel, view)

    def _slot(self, value: Value) -> int:
        return self.slots.setdefault(value, len(self.slots))

    def _read(self, value: Value, types: Types) -> int:
        slot = self._slot(value)
        if value.constant is not None and slot not in self.preset:
            self.preset[slot] = self.weights.array(value.constant)
            types.setdefault(value, value.type)
        return slot

    def _plan(self) -> MemoryLayout:
        uses: list[StepUse] = []
        nbytes: dict[int, int] = {}
        for step in self.steps:
            for slot, kind in zip(step.outputs, step.types, strict=True):
                if kind is not None:
                    nbytes[slot] = nbytes_of(kind)
            reads = tuple(s for s in step.inputs if s is not None)
            if step.view:
                uses.append(StepUse(reads, step.outputs, views={step.outputs[0]: reads[0]}))
            elif step.kernel is None:
                uses.append(StepUse(reads, step.outputs))
            else:
                in_place = {
                    step.outputs[o]: tuple(s for i in sources if (s := step.inputs[i]) is not None)
                    for o, sources in step.kernel.in_place.items()
                }
                uses.append(StepUse(reads, step.outputs, in_place=in_place, scratch_nbytes=step.kernel.scratch_nbytes))
        return plan_memory(uses, nbytes, self.output_slots)


def _static(type: Type | None) -> TensorType | None:
    """The type when it is a tensor of fixed-width elements whose shape is all ints."""
    if isinstance(type, TensorType) and type.is_static and type.dtype is not DType.STR:
        return type
    return None


def _expect_fitting(types: Types) -> None:
    """Looked at before anything is lowered: blocks of a value that cannot exist are endless."""
    sizes = ((nbytes_of(kind), value.name) for value, type in types.items() if (kind := _static(type)) is not None)
    largest, name = max(sizes, default=(0, ""))
    if largest > 1 << 28:
        expect_memory(largest, f"memory for the value {name!r}")

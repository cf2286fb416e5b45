"""A graph made ready for one set of input shapes on the CPU: steps of numpy calls over one arena.

A step whose types are all known runs a kernel that writes into the arena. A step whose sizes depend on data, or whose
values are not tensors, runs the reference and keeps what it returns. Values known from the shapes alone are computed
while the program is made and cost nothing afterwards.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from miniinfer_cli.backends.cpu.kernel import Kernel, Site, Weights, find_lowering, nbytes_of, shape_of
from miniinfer_cli.errors import MiniinferError, ModelError
from miniinfer_cli.ir import Array, DType, Graph, Node, TensorType, Type, Value, numpy_dtype
from miniinfer_cli.ops.inference import Types, infer_graph
from miniinfer_cli.ops.interpreter import interpret_node
from miniinfer_cli.ops.registry import lookup
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

    Raises ModelError when the shapes do not go through the graph.
    """

    def __init__(self, graph: Graph, inputs: Sequence[Type | None], weights: Weights) -> None:
        self.graph = graph
        self.weights = weights
        types = infer_graph(graph, inputs)
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


class CpuExecution:
    """A program bound to an arena of its own: what one context runs. Not for two threads at once."""

    def __init__(self, program: CpuProgram, arena: Array, nested: "NestedPrograms") -> None:
        self.program = program
        self._nested = nested
        self._slots: list[Any] = [None] * len(program.slots)
        for slot, array in program.preset.items():
            self._slots[slot] = array
        self._scratch = {
            number: arena[offset : offset + step.kernel.scratch_nbytes]
            for number, step in enumerate(program.steps)
            if step.kernel is not None and (offset := program.layout.scratch_offsets.get(number)) is not None
        }
        self._arena = arena
        self._nothing = arena[:0]
        for step in program.steps:
            for slot, kind in zip(step.outputs, step.types, strict=True):
                offset = program.layout.offsets.get(slot)
                if kind is not None and offset is not None and not step.view:
                    raw = arena[offset : offset + nbytes_of(kind)]
                    self._slots[slot] = raw.view(numpy_dtype(kind.dtype)).reshape(shape_of(kind))
        self._last_reads = _last_dynamic_reads(program)

    def run(self, inputs: Sequence[Any], times_ns: list[int] | None = None) -> tuple[Any, ...]:
        """The outputs, as arrays of their own (nothing of the arena is handed out).

        ``times_ns``, when given, receives one host duration per step in nanoseconds.
        """
        program, slots = self.program, self._slots
        for slot, array in zip(program.input_slots, inputs, strict=True):
            slots[slot] = array
        with np.errstate(all="ignore"):
            for number, step in enumerate(program.steps):
                started = time.perf_counter_ns() if times_ns is not None else 0
                self._step(number, step)
                if times_ns is not None:
                    times_ns.append(time.perf_counter_ns() - started)
        # A copy each: what lies in the arena, in the plan or in an input must not be handed out.
        outputs = tuple(v.copy() if isinstance(v := slots[s], np.ndarray) else v for s in program.output_slots)
        for slot in program.input_slots:
            slots[slot] = None
        return outputs

    def _step(self, number: int, step: Step) -> None:
        slots = self._slots
        operands: list[Any] = [None if s is None else slots[s] for s in step.inputs]
        if step.kernel is not None:
            step.kernel.run(operands, [slots[s] for s in step.outputs], self._scratch.get(number, self._nothing))
        elif step.view:
            (kind,) = step.types
            assert kind is not None
            slots[step.outputs[0]] = operands[0].reshape(shape_of(kind))
        else:
            results = self._reference(step.node, operands)
            for slot, kind, result in zip(step.outputs, step.types, results, strict=False):
                if kind is None:
                    slots[slot] = _outside(self._arena, result)
                else:
                    np.copyto(slots[slot], result, casting="no")
        for slot in self._last_reads.get(number, ()):
            slots[slot] = None

    def _reference(self, node: Node, operands: Sequence[Any]) -> tuple[Any, ...]:
        if not node.graphs:
            try:
                return interpret_node(node, operands)
            except IndexError as error:
                raise ModelError(
                    f"node {node.name!r}: {node.op}: {error}", hint="an index in the input data is out of range"
                ) from error
        try:
            return lookup(node.domain, node.op).evaluate(
                operands, node.attrs, n_outputs=len(node.outputs), graphs=node.graphs, run_graph=self._nested.run
            )
        except MiniinferError as error:
            raise error.at(f"node {node.name!r}") from None


class NestedPrograms:
    """The programs of sub-graphs (branches, loop bodies), made at first need for each set of input types of one context."""

    _LIMIT = 32  # programs; a loop whose shapes grow at each turn must not pile them up

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._made: dict[tuple[Any, ...], CpuExecution] = {}

    def run(self, graph: Graph, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """The outputs of ``graph`` for these inputs."""
        key = (graph, *(_signature(i) for i in inputs))
        execution = self._made.pop(key, None)
        if execution is None:
            kinds = [_type_of(i, v.type) for i, v in zip(inputs, graph.inputs, strict=True)]
            program = CpuProgram(graph, kinds, self._weights)
            execution = CpuExecution(program, np.empty(program.arena_nbytes, np.uint8), NestedPrograms(self._weights))
            if len(self._made) >= self._LIMIT:
                self._made.pop(next(iter(self._made)))
        self._made[key] = execution  # most recently used last
        return execution.run(inputs)


def _static(type: Type | None) -> TensorType | None:
    """The type when it is a tensor of fixed-width elements whose shape is all ints."""
    if isinstance(type, TensorType) and type.is_static and type.dtype is not DType.STR:
        return type
    return None


def _type_of(value: Any, declared: Type | None) -> Type | None:
    if not isinstance(value, np.ndarray):
        return declared
    if isinstance(declared, TensorType):
        return replace(declared, shape=value.shape, known=None)
    return declared


def _outside(arena: Array, value: Any) -> Any:
    """``value`` with copies of the arrays that lie in ``arena``, whose memory soon holds something else."""
    if isinstance(value, list):
        return [_outside(arena, item) for item in value]
    return value.copy() if isinstance(value, np.ndarray) and np.may_share_memory(value, arena) else value


def _signature(value: Any) -> Any:
    return (value.dtype, value.shape) if isinstance(value, np.ndarray) else type(value)


def _last_dynamic_reads(program: CpuProgram) -> dict[int, list[int]]:
    """By step: the slots with no place in the arena that nobody reads afterwards, so that their memory is let go."""
    last: dict[int, int] = {}
    for number, step in enumerate(program.steps):
        for slot in (*step.inputs, *step.outputs):
            if slot is not None and slot not in program.layout.offsets and slot not in program.preset:
                last[slot] = number
    freed: dict[int, list[int]] = {}
    for slot, number in last.items():
        if slot not in program.output_slots and slot not in program.input_slots:
            freed.setdefault(number, []).append(slot)
    return freed

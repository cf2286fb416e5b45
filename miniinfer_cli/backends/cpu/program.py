"""A graph made ready for one set of input shapes on the CPU: steps of numpy calls over one arena.

A step whose types are all known runs a routine that writes into the arena. A step whose sizes depend on data, or whose
values are not tensors, runs the reference and keeps what it returns; where there is much to do for sizes that depend on data,
several nodes are one step, a late part, with a program of its own once the sizes are known. Values known from the shapes alone
are computed while the program is made and cost nothing afterwards.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from miniinfer_cli.backends.ceilings import Rate
from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.cpu.appending import append_rows
from miniinfer_cli.backends.cpu.routine import Routine, Site, Weights, find_lowering, nbytes_of
from miniinfer_cli.backends.cpu.threads import Threads
from miniinfer_cli.backends.cpu.unfolding import unfolded
from miniinfer_cli.backends.interface import LaunchedKernel
from miniinfer_cli.backends.node_estimates import estimate_of, rate_of, weights_nbytes_of
from miniinfer_cli.backends.reference import is_same_bytes, kind_of, place_of, settled, static_tensor
from miniinfer_cli.host_memory import expect_memory
from miniinfer_cli.ir import Constant, Graph, Node, TensorType, Type, Value, numpy_dtype
from miniinfer_cli.ops.budget import current
from miniinfer_cli.ops.inference import Types, infer_graph
from miniinfer_cli.planning.flow import sources_of
from miniinfer_cli.planning.held_states import appending_nodes, changed_type, state_values
from miniinfer_cli.planning.late_parts import LatePart, is_late_part, late_parts
from miniinfer_cli.planning.memory import MemoryLayout, Part, StepUse, plan_memory

_LARGE_NBYTES = 1 << 28  # from which it is asked whether memory holds it


@dataclass(frozen=True, slots=True)
class Step:
    """One node of the program. ``routine`` is None where the reference runs; ``view`` where the output shares bytes."""

    node: Node
    inputs: tuple[int | None, ...]
    outputs: tuple[int, ...]
    types: tuple[TensorType | None, ...]  # of the outputs; None where the size is known only at run time
    told: tuple[Type | None, ...]  # of the outputs, as far as the shape rule could tell
    routine: Routine | None
    view: bool
    operands: tuple[Type | None, ...]
    in_state: bool = False
    """The output is the first input, a state of the context, with what the routine writes into it."""

    @property
    def label(self) -> str:
        """The node's name."""
        return self.node.name

    @property
    def kind(self) -> str:
        """The operation, with its domain if it is not ONNX's."""
        return kind_of(self.node)

    @property
    def tactic(self) -> str:
        """How the step runs: ``view``, the routine's tactic, ``late`` (as a program of its own), or ``reference``."""
        if self.view or self.routine is not None:
            return "view" if self.routine is None else self.routine.tactic
        return "late" if is_late_part(self.node) else "reference"

    @property
    def choice(self) -> None:
        """There is one way."""

    @property
    def estimate(self) -> Estimate:
        """What it does at least, as far as sizes are known."""
        return estimate_of(self.node, self.operands, self.told)

    @property
    def rate(self) -> Rate:
        """What computes it."""
        return rate_of(self.node, tf32=False, widens=True)

    @property
    def weights_nbytes(self) -> int:
        """Bytes of constants that it reads."""
        return weights_nbytes_of(self.node, self.told)

    @property
    def origins(self) -> tuple[str, ...]:
        """The nodes of the model that it computes."""
        return self.node.origins


@dataclass(frozen=True, slots=True)
class HeldState:
    """Slots of a state of the context; ``in_place``: the steps write into it, else it is replaced at the end."""

    past: int
    present: int
    in_place: bool


class CpuProgram:
    """The steps and the memory layout for one set of input types. Immutable once made; shared by contexts.

    ``late``: whether it may have late parts. Raises ModelError when the shapes do not go through the graph, OutOfMemoryError
    when a single value cannot fit.
    """

    def __init__(
        self, graph: Graph, inputs: Sequence[Type | None], weights: Weights, threads: Threads, *, late: bool = True
    ) -> None:
        self.graph = graph
        self.weights = weights
        self.threads = threads
        types = infer_graph(graph, inputs)
        _expect_fitting(types)
        self.slots: dict[Value, int] = {}
        self.preset: dict[int, Any] = {}  # slots with contents before the first step
        self.steps: list[Step] = []
        self._unfolded: dict[Value, Constant] = {}
        self._appends = appending_nodes(graph)
        for value in graph.inputs:
            self._slot(value)
        part_of = {n: part for part in (late_parts(graph, types) if late else ()) for n in part.nodes}
        for node in graph:
            part = part_of.get(node)
            if part is not None:
                if node is part.nodes[-1]:
                    self.steps.append(self._part(part, types))
            elif not self._settle(node, types) and not self._unfold(node):
                self.steps.append(self._lower(node, types))
        for value in graph.outputs:
            self._read(value, types)
        self.input_slots = tuple(self.slots[v] for v in graph.inputs)
        self.input_types: tuple[Type | None, ...] = tuple(inputs)
        self.output_slots = tuple(self.slots[v] for v in graph.outputs)
        self.output_types: tuple[Type | None, ...] = tuple(types[v] for v in graph.outputs)
        pairs = state_values(graph)
        in_state = {slot for step in self.steps if step.in_state for slot in step.outputs}
        self.states = tuple(HeldState(self.slots[past], self.slots[new], self.slots[new] in in_state) for past, new in pairs)
        self.state_types: tuple[Type | None, ...] = tuple(types[past] for past, _ in pairs)
        for past, new in pairs:
            if static_tensor(types[new]) is not None and types[new] != types[past]:
                raise changed_type(types[past], types[new])
        names = frozenset() if graph.states is None else graph.states.outputs
        handed = [i for i, name in enumerate(graph.output_names) if name not in names]
        self.handed_slots = tuple(self.output_slots[i] for i in handed)
        """The slots of the outputs that are no states."""
        self.layout = self._laid_out()
        handed_types = (static_tensor(self.output_types[i]) for i in handed)
        self.results_nbytes = sum(nbytes_of(t) for t in handed_types if t is not None)
        """Bytes of the outputs whose sizes are known."""

    def sources(self) -> Sequence[Sequence[int]]:
        """See backends.interface."""
        return sources_of(((s for s in step.inputs if s is not None), step.outputs) for step in self.steps)

    def launched_kernels(self) -> Sequence[Sequence[LaunchedKernel]]:
        """See backends.interface: a CPU has none."""
        return [()] * len(self.steps)

    @property
    def arena_nbytes(self) -> int:
        """Peak bytes of intermediates, as planned."""
        return self.layout.arena_nbytes

    @property
    def host_steps(self) -> tuple[Step, ...]:
        """None: the host is the device."""
        return ()

    def close(self) -> None:
        """Nothing is held."""

    @property
    def activation_nbytes(self) -> int:
        """Bytes that the intermediates and the scratch of steps would take with no memory shared."""
        return self.layout.sum_nbytes

    def _settle(self, node: Node, types: Types) -> bool:
        """Keeps the node's outputs as contents if they are all known by now."""
        arrays = settled([types[v] for v in node.outputs])
        if arrays is None:
            return False
        for value, array in zip(node.outputs, arrays, strict=True):
            kind = types[value]
            assert isinstance(kind, TensorType)
            self.preset[self._slot(value)] = array.astype(numpy_dtype(kind.dtype), copy=False)
        return True

    def _unfold(self, node: Node) -> bool:
        """Takes what the node gives for a constant where that is worth more than computing it at every run."""
        made = unfolded(node, [self._handle(v) for v in node.inputs], self.weights)
        if made is not None:
            self._unfolded[node.output] = made
        return made is not None

    def _handle(self, value: Value | None) -> Constant | None:
        """The constant that a value is, by the graph or by this program."""
        return None if value is None else value.constant or self._unfolded.get(value)

    def _lower(self, node: Node, types: Types) -> Step:
        operands = tuple(None if v is None else types.get(v, v.type) for v in node.inputs)
        results = tuple(static_tensor(types[v]) for v in node.outputs)
        inputs = tuple(None if v is None else self._read(v, types) for v in node.inputs)
        routine, view = None, False
        ready = all(v is None or static_tensor(t) is not None for v, t in zip(node.inputs, operands, strict=True))
        if ready and all(r is not None for r in results):
            view = is_same_bytes(node)
            lowering = find_lowering(node)
            if lowering is not None and not view:
                kinds = tuple(static_tensor(t) for t in operands)
                handles = tuple(map(self._handle, node.inputs))
                outputs = tuple(r for r in results if r is not None)
                routine = lowering(Site(node, kinds, outputs, handles, self.weights, self.threads))
        if routine is not None and routine.scratch_nbytes > _LARGE_NBYTES:
            expect_memory(routine.scratch_nbytes, f"scratch memory of node {node.name!r}")
        told = tuple(types[v] for v in node.outputs)
        outputs_of = tuple(self._slot(v) for v in node.outputs)
        if node in self._appends and ready and all(r is not None for r in results):
            kinds = tuple(static_tensor(t) for t in operands)
            routine = append_rows(node, kinds)
            return Step(node, inputs, outputs_of, results, told, routine, view, operands, in_state=True)
        return Step(node, inputs, outputs_of, results, told, routine, view, operands)

    def _part(self, part: LatePart, types: Types) -> Step:
        inputs = tuple(self._read(v, types) for v in part.inputs)
        told = tuple(types[v] for v in part.outputs)
        read = tuple(types.get(v, v.type) for v in part.inputs)
        outputs = tuple(map(self._slot, part.outputs))
        return Step(part.node, inputs, outputs, tuple(map(static_tensor, told)), told, None, False, read)

    def _slot(self, value: Value) -> int:
        return self.slots.setdefault(value, len(self.slots))

    def _read(self, value: Value, types: Types) -> int:
        slot = self._slot(value)
        handle = self._handle(value)
        if handle is not None and slot not in self.preset:
            self.preset[slot] = self.weights.array(handle)
            types.setdefault(value, value.type)
        return slot

    def _laid_out(self) -> MemoryLayout:
        uses: list[StepUse] = []
        nbytes: dict[int, int] = {}
        for step in self.steps:
            for slot, kind in zip(step.outputs, step.types, strict=True):
                if kind is not None:
                    nbytes[slot] = nbytes_of(kind)
            reads = tuple(s for s in step.inputs if s is not None)
            if step.view or step.in_state:
                uses.append(StepUse(reads, step.outputs, views={step.outputs[0]: Part(reads[0])}))
            elif step.routine is None:
                uses.append(StepUse(reads, step.outputs))
            else:
                in_place = {
                    step.outputs[o]: tuple(s for i in sources if (s := step.inputs[i]) is not None)
                    for o, sources in step.routine.in_place.items()
                }
                uses.append(StepUse(reads, step.outputs, in_place=in_place, scratch_nbytes=step.routine.scratch_nbytes))
        return plan_memory(uses, nbytes, self.output_slots)


def _expect_fitting(types: Types) -> None:
    """Looked at before anything is lowered: blocks of a value that cannot exist are endless."""
    sizes = ((nbytes_of(kind), value.name) for value, type in types.items() if (kind := static_tensor(type)) is not None)
    largest, name = max(sizes, default=(0, ""))
    budget = current()
    if budget is not None:
        for value, type in types.items():
            kind = static_tensor(type)
            if kind is not None and value.producer is not None and not is_same_bytes(value.producer):
                budget.expect_value(nbytes_of(kind), f"memory for the value {value.name!r}", place_of(value.producer))
    if largest > _LARGE_NBYTES:
        expect_memory(largest, f"memory for the value {name!r}")

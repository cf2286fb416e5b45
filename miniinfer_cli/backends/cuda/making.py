"""Graph -> CudaProgram: lowers every node, opens what has no lowering of its own, and plans the memory."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from miniinfer_cli.backends.choosing import Choice, Estimate
from miniinfer_cli.backends.cuda import lowering  # noqa: F401  (registers the lowerings)
from miniinfer_cli.backends.cuda.deciding import Decided, lower
from miniinfer_cli.backends.cuda.expansion import expand_node
from miniinfer_cli.backends.cuda.io_layout import IoLayout, lay_out
from miniinfer_cli.backends.cuda.program import CudaProgram, DeviceStep, HostStep, Origin, Place, Slot, Step
from miniinfer_cli.backends.cuda.site import OpenSize, Site
from miniinfer_cli.backends.cuda.steps import Bound, Copy, Derived, Lowered, Operand, OperandKind, Rewrite, moved
from miniinfer_cli.backends.cuda.tactics import has_tactics
from miniinfer_cli.backends.cuda.target import Target
from miniinfer_cli.backends.cuda.types import HostOnly
from miniinfer_cli.backends.reference import is_view, kind_of, place_of, settled, static_tensor
from miniinfer_cli.errors import MiniinferError
from miniinfer_cli.ir import Array, Constant, DType, Graph, Node, TensorType, Type, Value, dtype_of, numpy_dtype
from miniinfer_cli.ops.inference import Types, infer_graph
from miniinfer_cli.planning import late_parts
from miniinfer_cli.planning.memory import MemoryLayout, StepUse, plan_memory

_COUNT = TensorType(DType.I64, (1,))


def make_program(
    graph: Graph,
    inputs: Sequence[Type | None],
    target: Target,
    holds: Callable[[Constant], bool] | None = None,
    *,
    late: bool = True,
) -> CudaProgram:
    """Lowers ``graph`` for these input types. Raises ModelError when the shapes do not go through it.

    ``holds`` says which constants the model has on the device; those of ``graph`` when it is left out. Other small ones come and
    go with the program. ``late``: whether it may have late parts.
    """
    if holds is None:
        holds = frozenset(v.constant for v in graph.all_constants()).__contains__
    return _Maker(graph, inputs, target, holds, late).finish()


class _Maker:
    def __init__(
        self, graph: Graph, inputs: Sequence[Type | None], target: Target, holds: Callable[[Constant], bool], late: bool
    ) -> None:
        self.graph = graph
        self.target = target
        self.slots: list[Slot] = []
        self.steps: list[Step] = []
        self.views: list[tuple[int, int, int]] = []  # step number at which it appears, view, source
        self._constants: dict[Constant, int] = {}
        self._holds = holds
        self._late = late
        types = infer_graph(graph, inputs)
        self.input_slots = tuple(self._new(types[v], Origin.INPUT) for v in graph.inputs)
        self.output_slots = self._add_graph(graph, types, dict(zip(graph.inputs, self.input_slots, strict=True)))

    # -- slots -----------------------------------------------------------------------------------------------------

    def _new(
        self,
        type: Type | None,
        origin: Origin,
        *,
        root: int | None = None,
        handle: Constant | None = None,
        contents: Array | None = None,
        derived: Derived | None = None,
        bound: Bound | None = None,
        count: int | None = None,
    ) -> int:
        number = len(self.slots)
        self.slots.append(Slot(type, origin, number if root is None else root, handle, contents, derived, bound, count))
        return number

    def _constant(self, handle: Constant) -> int:
        if handle not in self._constants:
            contents = handle.array() if handle.is_small else None
            type = TensorType(handle.dtype, handle.shape, contents)
            if self._holds(handle) or contents is None or handle.dtype is DType.STR:
                self._constants[handle] = self._new(type, Origin.CONSTANT, handle=handle)
            else:  # made by a rewrite, or for a late part
                self._constants[handle] = self._new(type, Origin.TABLE, handle=handle, contents=contents)
        return self._constants[handle]

    def _on_device(self, slot: int) -> bool:
        """True when a device step can read the slot: a concrete tensor of known place, not cut to a count."""
        s = self.slots[slot]
        return static_tensor(s.type) is not None and s.bound is None

    # -- nodes -----------------------------------------------------------------------------------------------------

    def _add_graph(self, graph: Graph, types: Types, given: dict[Value, int]) -> tuple[int, ...]:
        """Adds the steps of ``graph``, whose inputs are the slots in ``given``; the slots of its outputs."""
        slot_of = dict(given)
        parts = late_parts.late_parts(graph, types) if self._late else []
        part_of = {n: part for part in parts for n in part.nodes}

        def read(value: Value) -> int:
            if value not in slot_of:
                assert value.constant is not None, f"{value!r} is read before it is made"
                slot_of[value] = self._constant(value.constant)
            return slot_of[value]

        for node in graph:
            if not node.outputs:  # it may stand in a plan, and computes nothing
                continue
            results = [types[v] for v in node.outputs]
            contents = settled(results)
            if contents is not None:
                for value, array, kind in zip(node.outputs, contents, results, strict=True):
                    assert isinstance(kind, TensorType)
                    array = array.astype(numpy_dtype(kind.dtype), copy=False)
                    slot_of[value] = self._new(replace(kind, known=array), Origin.TABLE, contents=array)
                continue
            part = part_of.get(node)
            if part is not None:
                if node is part.nodes[-1]:
                    made = self._host(part.node, [*map(read, part.inputs)], [types[v] for v in part.outputs], late_parts.REASON)
                    slot_of.update(zip(part.outputs, made, strict=True))
                continue
            operands = [None if v is None else read(v) for v in node.inputs]
            kinds = [None if v is None else types.get(v, v.type) for v in node.inputs]
            for value, slot in zip(node.outputs, self._add_node(node, operands, kinds, results), strict=True):
                slot_of[value] = slot
        return tuple(read(v) for v in graph.outputs)

    def _add_node(
        self, node: Node, operands: Sequence[int | None], kinds: Sequence[Type | None], results: Sequence[Type | None]
    ) -> Sequence[int]:
        present = [s for s in operands if s is not None]
        if node.graphs and not has_tactics(node):
            return self._host(node, operands, results, "control flow")
        if not all(self._on_device(s) for s in present):
            if node.body is not None:  # some of its nodes may read nothing whose size depends on data
                return self._inline(node.body, present, kinds)
            return self._host(node, operands, results, "its inputs' sizes depend on data, or they are no tensors")
        if is_view(node) and static_tensor(results[0]) is not None:
            return [self._view(present[0], results[0])]
        handles = tuple(None if s is None else self.slots[s].handle for s in operands)
        try:
            decided = lower(Site(node, tuple(kinds), tuple(results), handles, self.target))
        except (OpenSize, HostOnly):
            decided = None
        except MiniinferError as error:
            raise error.at(place_of(node)) from None
        except OverflowError:  # a size or an attribute that the kernel's argument has no room for
            return self._host(node, operands, results, "a number of its is beyond what kernels take")
        if decided is not None:
            work = decided.work
            if isinstance(work, Rewrite):
                return self._inline(work.graph, present, kinds)
            if all(static_tensor(t) is not None or i in work.bounds for i, t in enumerate(results)):
                return self._device(node, operands, results, work, decided)
        if node.body is not None:
            return self._inline(node.body, present, kinds)
        expanded = expand_node(node, kinds)
        if expanded is not None:
            return self._inline(expanded, present, kinds)
        if not has_tactics(node):
            return self._host(node, operands, results, "no lowering")
        is_open = any(static_tensor(t) is None for t in results)
        return self._host(node, operands, results, "its size depends on data" if is_open else "this form has no lowering")

    def _inline(self, graph: Graph, present: Sequence[int], kinds: Sequence[Type | None]) -> tuple[int, ...]:
        known = [k for k in kinds if k is not None]
        if len(known) != len(present):  # a type that nobody knows stands for a value that is there
            known = [self.slots[s].type for s in present]  # type: ignore[misc]
        types = infer_graph(graph, known)
        return self._add_graph(graph, types, dict(zip(graph.inputs, present, strict=True)))

    def _view(self, source: int, type: Type | None) -> int:
        slot = self._new(type, self.slots[source].origin, root=self.slots[source].root)
        self.views.append((len(self.steps), slot, source))
        return slot

    def _host(self, node: Node, operands: Sequence[int | None], results: Sequence[Type | None], reason: str) -> tuple[int, ...]:
        outputs = tuple(self._new(t, Origin.HOST) for t in results)
        self.steps.append(HostStep(node, tuple(operands), outputs, reason))
        return outputs

    def _device(
        self,
        node: Node,
        operands: Sequence[int | None],
        results: Sequence[Type | None],
        lowered: Lowered,
        decided: Decided,
    ) -> tuple[int, ...]:
        outputs: list[int] = []
        for number, kind in enumerate(results):
            bound = lowered.bounds.get(number)
            assert isinstance(kind, TensorType)
            if bound is None:
                outputs.append(self._new(kind, Origin.DEVICE))
            else:
                count = self._new(_COUNT, Origin.DEVICE)
                outputs.append(self._new(TensorType(kind.dtype, bound.shape), Origin.DEVICE, bound=bound, count=count))
        derived = [self._new(_derived_type(d), Origin.DERIVED, derived=d) for d in lowered.derived]
        tables = [self._new(TensorType(dtype_of(t), t.shape), Origin.TABLE, contents=t) for t in lowered.tables]
        offsets, scratch_nbytes = lay_out(list(enumerate(lowered.scratch)))
        number = len(self.steps)

        def place(o: Operand) -> Place:
            match o.kind:
                case OperandKind.INPUT:
                    slot = operands[o.number]
                    assert slot is not None
                    return Place(slot, o.offset)
                case OperandKind.OUTPUT:
                    return Place(outputs[o.number], o.offset)
                case OperandKind.SCRATCH:
                    return Place(number, offsets[o.number] + o.offset, scratch=True)
                case OperandKind.COUNT:
                    count = self.slots[outputs[o.number]].count
                    assert count is not None
                    return Place(count, o.offset)
                case OperandKind.DERIVED:
                    return Place(derived[o.number], o.offset)
                case OperandKind.TABLE:
                    return Place(tables[o.number], o.offset)

        counts = [c for s in outputs if (c := self.slots[s].count) is not None]
        self.steps.append(
            DeviceStep(
                label=node.name,
                kind=kind_of(node),
                choice=decided.choice,
                estimate=decided.estimate,
                actions=tuple(moved(a, place) for a in lowered.actions),
                reads=tuple(dict.fromkeys([s for s in operands if s is not None] + derived + tables)),
                writes=(*outputs, *counts),
                in_place={
                    outputs[o]: tuple(s for i in sources if (s := operands[i]) is not None)
                    for o, sources in lowered.in_place.items()
                },
                scratch_nbytes=scratch_nbytes,
            )
        )
        return tuple(outputs)

    # -- memory ----------------------------------------------------------------------------------------------------

    def finish(self) -> CudaProgram:
        """The program, once all nodes are added."""
        outputs = self._place_outputs()
        io_in, in_nbytes = lay_out([(s, self.slots[s].nbytes) for s in self.input_slots if self._on_device(s)])
        io_out, out_nbytes = lay_out([(s, self.slots[s].nbytes) for s in outputs])
        read = {self.slots[s].root for step in self.steps if isinstance(step, DeviceStep) for s in step.reads}
        uploads = tuple(i for i, s in enumerate(self.slots) if s.origin is Origin.HOST and i in read)
        return CudaProgram(
            graph=self.graph,
            slots=tuple(self.slots),
            steps=tuple(self.steps),
            input_slots=self.input_slots,
            output_slots=self.output_slots,
            layout=self._plan(set(outputs), set(uploads)),
            io=IoLayout(io_in, in_nbytes, io_out, out_nbytes),
            uploads=uploads,
        )

    def _place_outputs(self) -> list[int]:
        """The slots that live in the region of outputs: what a step computes is computed there; the rest is copied there."""
        placed: list[int] = []
        final: list[int] = []
        for slot in self.output_slots:
            s = self.slots[slot]
            root = self.slots[s.root]
            if s.origin is Origin.HOST or static_tensor(s.type) is None:
                final.append(slot)  # handed out from the host's memory
            elif root.origin is Origin.DEVICE and s.root not in placed and root.nbytes == s.nbytes:
                placed += [s.root, *([root.count] if root.count is not None else [])]
                final.append(slot)
            elif slot in final:
                final.append(slot)  # one value under two names
            else:
                copy = self._new(s.type, Origin.DEVICE)
                action = Copy(Place(copy), Place(slot), s.nbytes)
                actions, cost = (action,) if s.nbytes else (), Estimate(0, 2 * s.nbytes)
                self.steps.append(DeviceStep("output", "Copy", Choice("copy"), cost, actions, (slot,), (copy,), {}, 0))
                placed.append(copy)
                final.append(copy)
        self.output_slots = tuple(final)
        return placed

    def _plan(self, elsewhere: set[int], uploads: set[int]) -> MemoryLayout:
        nbytes = {
            i: s.nbytes
            for i, s in enumerate(self.slots)
            if ((s.origin is Origin.DEVICE and s.root not in elsewhere) or i in uploads) and static_tensor(s.type) is not None
        }
        views: dict[int, list[tuple[int, int]]] = {}
        for at, view, source in self.views:
            views.setdefault(at, []).append((view, source))
        uses: list[StepUse] = []
        number_of: list[int] = []
        for number in range(len(self.steps) + 1):
            uses += [StepUse((source,), (view,), views={view: source}) for view, source in views.get(number, ())]
            if number == len(self.steps):
                break
            step = self.steps[number]
            number_of.append(len(uses))
            if isinstance(step, DeviceStep):
                uses.append(StepUse(step.reads, step.writes, in_place=step.in_place, scratch_nbytes=step.scratch_nbytes))
            else:
                read = [s for s in step.inputs if s is not None]
                counts = [c for s in read if (c := self.slots[s].count) is not None]  # the host reads them, too
                uses.append(StepUse((*read, *counts), step.outputs))
        layout = plan_memory(uses, nbytes, self.output_slots)
        scratch = {n: layout.scratch_offsets[at] for n, at in enumerate(number_of) if at in layout.scratch_offsets}
        return MemoryLayout(layout.offsets, scratch, layout.arena_nbytes, layout.sum_nbytes)


def _derived_type(derived: Derived) -> TensorType:
    types = infer_graph(derived.graph, [TensorType(s.dtype, s.shape) for s in derived.sources])
    kind = types[derived.graph.outputs[0]]
    assert isinstance(kind, TensorType)
    return kind

"""Graph -> CudaProgram: lowers every node, opens what has no lowering of its own, and plans the memory."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from miniinfer_cli.backends.choosing import Joined
from miniinfer_cli.backends.cuda.choice.deciding import NO_JOINS, Decided
from miniinfer_cli.backends.cuda.choice.joining import Joining, Wanted
from miniinfer_cli.backends.cuda.contract.io_layout import IoLayout, lay_out
from miniinfer_cli.backends.cuda.contract.program import (
    CudaProgram,
    DeviceStep,
    HeldState,
    HostStep,
    Origin,
    Place,
    PlacedAction,
    is_whole,
)
from miniinfer_cli.backends.cuda.contract.steps import Copy, Derived, Lowered, Operand, OperandKind, moved
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.making.draft import Draft
from miniinfer_cli.backends.cuda.making.readers import Readers
from miniinfer_cli.backends.cuda.making.ways import ByTactic, Inline, OnHost, SameBytes, by_tactics, without_tactics
from miniinfer_cli.backends.cuda.scheduling.layout import lay_out_memory
from miniinfer_cli.backends.node_estimates import rate_of, weights_nbytes_of
from miniinfer_cli.backends.reference import kind_of, settled, static_tensor
from miniinfer_cli.ir import Constant, DType, Graph, Node, TensorType, Type, Value, dtype_of, numpy_dtype
from miniinfer_cli.ir.parts import leaving, reading
from miniinfer_cli.ops.inference import Types, infer_graph
from miniinfer_cli.planning import late_parts
from miniinfer_cli.planning.held_states import appending_nodes, changed_type, state_values

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


class _Maker(Draft):
    def __init__(
        self, graph: Graph, inputs: Sequence[Type | None], target: Target, holds: Callable[[Constant], bool], late: bool
    ) -> None:
        super().__init__(target, holds)
        self.graph = graph
        self._replaced: set[str] = set()
        self._join: Joined | None = None  # whose nodes are added
        self._around: tuple[str, ...] = ()  # the origins of what others are added in the place of
        self._late = late
        types = infer_graph(graph, inputs)
        pasts = {past for past, _ in state_values(graph)}
        self.input_slots = tuple(self.new(types[v], Origin.STATE if v in pasts else Origin.INPUT) for v in graph.inputs)
        self._appends = appending_nodes(graph)
        self._joined_appends = False  # whether what is added writes rows for nodes that may write into the states
        self._written: set[int] = set()
        given = dict(zip(graph.inputs, self.input_slots, strict=True))
        slots = self._add_graph(graph, types, given)
        self._states = tuple(
            (given[past], slots[next(i for i, v in enumerate(graph.outputs) if v is new)]) for past, new in state_values(graph)
        )
        names = frozenset() if graph.states is None else graph.states.outputs
        self.output_slots = tuple(s for s, name in zip(slots, graph.output_names, strict=True) if name not in names)

    # -- nodes -----------------------------------------------------------------------------------------------------

    def _add_graph(self, graph: Graph, types: Types, given: dict[Value, int]) -> tuple[int, ...]:
        """Adds the steps of ``graph``, whose inputs are the slots in ``given``; the slots of its outputs."""
        slot_of = dict(given)
        parts = late_parts.late_parts(graph, types) if self._late else []
        part_of = {n: part for part in parts for n in part.nodes}
        joining = Joining(graph, types, part_of, self.target) if graph is self.graph else None
        readers = Readers(graph, types, part_of, self.target, joining)

        def read(value: Value) -> int:
            if value not in slot_of:
                assert value.constant is not None, f"{value!r} is read before it is made"
                slot_of[value] = self.constant(value.constant)
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
                    slot_of[value] = self.new(replace(kind, known=array), Origin.TABLE, contents=array)
                continue
            part = part_of.get(node)
            if part is not None:
                if node is part.nodes[-1]:
                    left = self._host(part.node, [*map(read, part.inputs)], [types[v] for v in part.outputs], late_parts.REASON)
                    slot_of.update(zip(part.outputs, left, strict=True))
                continue
            taken = None if joining is None else joining.of(node)
            if taken is not None:
                if node is taken.join.nodes[-1]:
                    slot_of.update(self._add_join(graph, types, taken, read))
                continue
            operands = [None if v is None else read(v) for v in node.inputs]
            kinds = [None if v is None else types.get(v, v.type) for v in node.inputs]
            in_place = self.shown(node, operands, kinds, results, readers) or self.assembled(node, operands, results)
            joins = NO_JOINS if joining is None else joining.left(node)
            slot_of.update(zip(node.outputs, in_place or self._add_node(node, operands, kinds, results, joins), strict=True))
        return tuple(read(v) for v in graph.outputs)

    def _add_join(self, graph: Graph, types: Types, taken: Wanted, read: Callable[[Value], int]) -> Iterator[tuple[Value, int]]:
        """The nodes of a join's own graph in the place of those that it is of; what leaves these, with its slot."""
        join, self._join = taken.join, taken.told
        self._replaced.update(n.name for n in join.nodes)
        operands = reading(join.nodes)
        writing = {n for n in join.nodes if n.is_op("TensorScatter")}
        self._joined_appends = bool(writing) and writing <= self._appends
        try:
            origins = dict.fromkeys(o for n in join.nodes for o in n.origins)
            slots = self._inline(join.graph, tuple(origins), [*map(read, operands)], [types.get(v, v.type) for v in operands])
        finally:
            self._join, self._joined_appends = None, False
        return zip(leaving(graph, join.nodes), slots, strict=True)

    def _add_node(
        self,
        node: Node,
        operands: Sequence[int | None],
        kinds: Sequence[Type | None],
        results: Sequence[Type | None],
        joins: Mapping[str, str],
    ) -> Sequence[int]:
        is_on_device = all(s is None or self.is_on_device(s) for s in operands)
        way = without_tactics(node, results, is_on_device=is_on_device)
        if way is None:
            operands = self.readable(node, operands, kinds, results)
            way = by_tactics(node, kinds, results, joins, partial(self.site, node, operands, kinds, results))
        present = [s for s in operands if s is not None]
        match way:
            case ByTactic(work, decided):
                return self._device(node, operands, results, work, decided)
            case SameBytes():
                return [self.under_shape(node, present[0], results[0])]
            case Inline(graph, by_tactic):
                if by_tactic:
                    self._replaced.add(node.name)
                return self._inline(graph, node.known_origins or self._around or (node.name,), present, kinds)
            case OnHost(reason):
                return self._host(node, operands, results, reason)

    def _inline(
        self, graph: Graph, origins: tuple[str, ...], present: Sequence[int], kinds: Sequence[Type | None]
    ) -> tuple[int, ...]:
        """The outputs of ``graph``, whose nodes are added; those that do not say where they come from, from ``origins``."""
        known = [k for k in kinds if k is not None]
        if len(known) != len(present):  # a type that nobody knows stands for a value that is there
            known = [self.slots[s].type for s in present]  # type: ignore[misc]
        types = infer_graph(graph, known)
        around, self._around = self._around, origins
        try:
            return self._add_graph(graph, types, dict(zip(graph.inputs, present, strict=True)))
        finally:
            self._around = around

    def _host(self, node: Node, operands: Sequence[int | None], results: Sequence[Type | None], reason: str) -> tuple[int, ...]:
        read = tuple(s if s is None or is_whole(self.slots, s) else self.dense(node, s) for s in operands)
        outputs = tuple(self.new(t, Origin.HOST) for t in results)
        self.steps.append(HostStep(node, read, outputs, reason))
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
            state = self._state_written(node, operands, lowered.in_place.get(number, ()))
            if state is not None:
                outputs.append(self.new(kind, Origin.STATE, root=state))
                self._written.add(outputs[-1])
            elif bound is None:
                outputs.append(self.new(kind, Origin.DEVICE))
            else:
                count = self.new(_COUNT, Origin.DEVICE)
                outputs.append(self.new(TensorType(kind.dtype, bound.shape), Origin.DEVICE, bound=bound, count=count))
        derived = [self.new(_derived_type(d), Origin.DERIVED, derived=d) for d in lowered.derived]
        tables = [self.new(TensorType(dtype_of(t), t.shape), Origin.TABLE, contents=t) for t in lowered.tables]
        offsets, scratch_nbytes = lay_out(list(enumerate(lowered.scratch)))
        number = len(self.steps)
        named: set[int] = set()

        def place(o: Operand) -> Place:
            match o.kind:
                case OperandKind.INPUT:
                    slot = operands[o.number]
                    assert slot is not None
                    named.add(slot)
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
        actions = tuple(a for a in (moved(a, place) for a in lowered.actions) if not self._is_in_place(a))
        # A constant that is read in another form alone need not be there.
        read = [s for s in operands if s is not None and (s in named or self.slots[s].origin is not Origin.CONSTANT)]
        self.steps.append(
            DeviceStep(
                label=node.name,
                kind=kind_of(node),
                choice=replace(decided.choice, join=self._join),
                estimate=decided.estimate,
                actions=actions,
                reads=tuple(dict.fromkeys(read + derived + tables)),
                writes=(*outputs, *counts),
                in_place={
                    outputs[o]: self.replaceable(operands, sources)
                    for o, sources in lowered.in_place.items()
                    if self.slots[outputs[o]].origin is not Origin.STATE
                },
                scratch_nbytes=scratch_nbytes,
                rate=rate_of(node, tf32=self.target.tf32, widens=False),
                weights_nbytes=weights_nbytes_of(node, results),
                origins=node.known_origins or self._around or (node.name,),
            )
        )
        return tuple(outputs)

    def _state_written(self, node: Node, operands: Sequence[int | None], sources: Sequence[int]) -> int | None:
        """The state into which a node writes new rows, in the place of an output that may be made in place of ``sources``."""
        if node not in self._appends and not self._joined_appends:
            return None
        states = (s for i in sources if (s := operands[i]) is not None and self.slots[s].origin is Origin.STATE)
        return next((s for s in states if self.slots[s].root == s), None)

    def _is_in_place(self, action: PlacedAction) -> bool:
        """True for a copy of a state into itself."""
        if not isinstance(action, Copy) or action.target.scratch or action.source.scratch:
            return False
        to, come = (self.slots[p.number] for p in (action.target, action.source))
        return to.origin is Origin.STATE and (to.root, action.target.offset) == (come.root, action.source.offset)

    # -- memory ----------------------------------------------------------------------------------------------------

    def finish(self) -> CudaProgram:
        """The program, once all nodes are added."""
        outputs = self._place_outputs()
        _, handed_nbytes = lay_out([(s, self.slots[s].nbytes) for s in outputs])
        states = self._place_states(outputs)
        given = [s for s in self.input_slots if self.is_on_device(s) and self.slots[s].origin is Origin.INPUT]
        io_in, in_nbytes = lay_out([(s, self.slots[s].nbytes) for s in given])
        io_out, out_nbytes = lay_out([(s, self.slots[s].nbytes) for s in outputs])
        kept = (*self.output_slots, *(s.present for s in states if s.present is not None))
        read = {self.slots[s].root for step in self.steps if isinstance(step, DeviceStep) for s in step.reads}
        uploads = tuple(i for i, s in enumerate(self.slots) if s.origin is Origin.HOST and i in read)
        return CudaProgram(
            graph=self.graph,
            slots=tuple(self.slots),
            steps=tuple(self.steps),
            input_slots=self.input_slots,
            output_slots=self.output_slots,
            layout=lay_out_memory(self.slots, self.steps, self.views, kept, {*outputs}, {*uploads}),
            io=IoLayout(io_in, in_nbytes, io_out, out_nbytes, handed_nbytes),
            uploads=uploads,
            replaced=frozenset(self._replaced),
            states=states,
        )

    def _place_states(self, placed: list[int]) -> tuple[HeldState, ...]:
        """The states; what replaces one is computed in the region of outputs, or copied there, behind what is ``placed``."""
        states: list[HeldState] = []
        for past, slot in self._states:
            kind, root = static_tensor(self.slots[slot].type), self.slots[self.slots[slot].root]
            if kind is None or kind != self.slots[past].type:
                raise changed_type(self.slots[past].type, self.slots[slot].type)
            if slot in self._written and self.slots[slot].root == past:
                states.append(HeldState(past, None))
                continue
            whole = is_whole(self.slots, slot)
            if self.slots[slot].root not in placed:
                if root.origin is Origin.DEVICE and whole:
                    placed.append(self.slots[slot].root)
                else:
                    slot = self.copy("state", slot)
                    placed.append(slot)
            elif not whole:
                slot = self.copy("state", slot)
                placed.append(slot)
            states.append(HeldState(past, slot))
        return tuple(states)

    def _place_outputs(self) -> list[int]:
        """The slots that live in the region of outputs: what a step computes is computed there; the rest is copied there."""
        placed: list[int] = []
        final: list[int] = []
        for slot in self.output_slots:
            s = self.slots[slot]
            root = self.slots[s.root]
            whole = is_whole(self.slots, slot)
            if (s.origin is Origin.HOST and whole) or static_tensor(s.type) is None:
                final.append(slot)  # handed out from the host's memory
            elif root.origin is Origin.DEVICE and s.root not in placed and whole:
                placed += [s.root, *([root.count] if root.count is not None else [])]
                final.append(slot)
            elif slot in final:
                final.append(slot)  # one value under two names
            else:
                final.append(self.copy("output", slot))
                placed.append(final[-1])
        self.output_slots = tuple(final)
        return placed


def _derived_type(derived: Derived) -> TensorType:
    types = infer_graph(derived.graph, [TensorType(s.dtype, s.shape) for s in derived.sources])
    kind = types[derived.graph.outputs[0]]
    assert isinstance(kind, TensorType)
    return kind

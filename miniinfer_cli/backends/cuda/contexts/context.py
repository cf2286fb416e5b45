"""What one stream of work owns on a GPU: streams, workspace, arena, I/O slots, captured graphs; and how it runs programs."""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from miniinfer_cli.backends.cuda.arrays.device_array import DeviceArray
from miniinfer_cli.backends.cuda.arrays.registered import HostRows
from miniinfer_cli.backends.cuda.contexts.buffers import pinned_array
from miniinfer_cli.backends.cuda.contexts.clock import StreamClock
from miniinfer_cli.backends.cuda.contexts.context_memory import ContextMemory
from miniinfer_cli.backends.cuda.contexts.copying_in import send, stage
from miniinfer_cli.backends.cuda.contexts.held_states import HeldStates
from miniinfer_cli.backends.cuda.contexts.io_slot import IoSlot
from miniinfer_cli.backends.cuda.contexts.pending import Pending, Timed, Where
from miniinfer_cli.backends.cuda.contexts.running import Pair, Runner
from miniinfer_cli.backends.cuda.contexts.step_timing import time_steps
from miniinfer_cli.backends.cuda.contract.launch_attributes import CLUSTER_ARCH
from miniinfer_cli.backends.cuda.contract.program import CudaProgram
from miniinfer_cli.backends.cuda.contract.protocols import Event, Ranges, Stream
from miniinfer_cli.backends.cuda.contract.site import static_shape
from miniinfer_cli.backends.cuda.hosting.hosting import HostValues
from miniinfer_cli.backends.cuda.loading.last_use import OF_THE_PROCESS
from miniinfer_cli.backends.cuda.loading.loaded_program import LoadedProgram
from miniinfer_cli.backends.cuda.loading.sharing import Shared
from miniinfer_cli.backends.cuda.scheduling.bound_program import BoundProgram, Segment, bind
from miniinfer_cli.backends.interface import Clock, StepRound
from miniinfer_cli.errors import DeviceError, OutOfMemoryError
from miniinfer_cli.ir import Graph, TensorType, numpy_dtype
from miniinfer_cli.ops.budget import current
from miniinfer_cli.planning.late_parts import DEEPEST

_UNTIMED = (None, None, None)
_BINDINGS = 16  # programs that a slot keeps bound, each with its graphs
_NESTED_BINDINGS = 128  # the same within: every body and late part, for each of its sizes


@dataclass(frozen=True, slots=True)
class ContextOptions:
    """``cuda_graph``: capture and replay. ``overlap``: copies on streams of their own, two inferences at once.

    ``ranges``: names steps to profilers (driver.nvtx). ``pdl``: kernels may begin before those in front of them have ended, on
    GPUs that know of it (programmatic_edges).
    """

    cuda_graph: bool = True
    overlap: bool = True
    ranges: Ranges | None = None
    pdl: bool = True


class Nesting(Shared, Protocol):
    """A model as its contexts see it."""

    def nested_program(
        self, graph: Graph, inputs: Sequence[Any], stream: Stream, *, late: bool
    ) -> tuple[LoadedProgram, list[Any]]:
        """The program of a sub-graph for these inputs; and the inputs, on the host if they decide shapes."""


class CudaContext:
    """See backends.interface.DeviceContext. Used by one thread at a time; any thread may wait for what it enqueued."""

    def __init__(self, model: Nesting, options: ContextOptions, stream: Stream | None = None, level: int = 0) -> None:
        """``stream``: that of the context around this one, whose order with it is kept; otherwise one of its own.

        ``level``: how many contexts are around this one.
        """
        self.model = model
        self.options = options
        device = model.gpu
        device.make_current()
        self._device = device
        self._turn = 0
        self._level = level
        self._nested: CudaContext | None = None
        self._fitting: LoadedProgram | None = None
        with contextlib.ExitStack() as stack:
            self.compute = stream if stream is not None else stack.enter_context(device.create_stream())
            self.copy_in = stack.enter_context(device.create_stream()) if options.overlap else self.compute
            self.copy_out = stack.enter_context(device.create_stream()) if options.overlap else self.compute
            if stream is None:
                model.libraries.bind(self.compute)
                stack.callback(model.libraries.unbind, self.compute)
            bindings = _BINDINGS if stream is None else _NESTED_BINDINGS
            self.states = HeldStates(device, self.compute)
            self.memory = ContextMemory(device, 2 if options.overlap else 1, bindings, self.states)
            self._streams = stack.pop_all()  # what ``close`` gives back last
        self.runner = Runner(self.compute, model.capture_lock, cuda_graph=options.cuda_graph, counts=model.capture_counts)
        """How segments run, and what was captured."""
        self._clock = StreamClock(device, self.compute)
        self._closed = False

    # -- the interface ---------------------------------------------------------------------------------------------

    @property
    def depth(self) -> int:
        """Inferences that can be under way at once."""
        return self.memory.depth

    @property
    def arena_nbytes(self) -> int:
        """Bytes of activation memory held now, on the device."""
        return self.memory.arena.nbytes + (self._nested.arena_nbytes if self._nested is not None else 0)

    def execute(
        self, program: LoadedProgram, inputs: Sequence[Any], times_ns: list[int] | None = None, *, commit: bool = True
    ) -> tuple[Any, ...]:
        """The outputs, as arrays of the caller's own. ``times_ns``: one duration per step, timed one by one by events."""
        if times_ns is not None:
            taken, outputs = self._execute_timed(program, inputs, on_device=False, commit=commit)
            times_ns += map(round, taken.steps_ns)
            return outputs
        return self._enqueue(program, inputs, commit=commit).result()

    def time_steps(self, program: LoadedProgram, inputs: Sequence[Any]) -> StepRound:
        """See DeviceContext."""
        return self._execute_timed(program, inputs, on_device=True, commit=False)[0]

    def enqueue(self, program: LoadedProgram, inputs: Sequence[Any], *, timed: bool = False, on_device: bool = False) -> Pending:
        """Enqueues one inference and returns at once (as far as there is no host step); at most two are under way.

        When both slots are busy it waits for the older one, whose results are copied out first. ``timed``: events around
        copies and computation. ``on_device``: outputs stay where they are, and are valid until the slot's next turn.
        """
        return self._enqueue(program, inputs, timed=timed, on_device=on_device)

    def _enqueue(
        self, program: LoadedProgram, inputs: Sequence[Any], *, timed: bool = False, on_device: bool = False, commit: bool = True
    ) -> Pending:
        slot = self._take_slot(program)
        binding = self._bind(program, slot)
        if not binding.on_device:  # the host reads inputs as well
            inputs = [value.gathered() if isinstance(value, HostRows) else value for value in inputs]
        started = time.perf_counter_ns()
        before, within, behind = slot.timed().pairs if timed else _UNTIMED
        try:
            self._copy_in(program.made, slot, inputs, before)
            values = self._run(program, binding, inputs, slot.computed, within)
            if commit:
                self._commit(program.made, slot)
            end = self._copy_out(binding, slot, behind, on_device=on_device)
        except BaseException:
            self._undo(slot)
            raise
        spent = time.perf_counter_ns() - started
        mode = Timed.ALL if timed else Timed.NOTHING
        where = Where.DEVICE if on_device else Where.OWN
        pending = Pending(
            program, slot, values, end, outputs=where, enqueue_ns=spent, timed=mode, clock=self._clock.event, inputs=inputs
        )
        slot.pending = pending
        return pending

    def replay(self, program: LoadedProgram, inputs: Sequence[Any], *, timed: bool = False, transfers: bool = False) -> Pending:
        """Once more on the inputs of the slot's last ``enqueue``: for measuring, and for callers who keep inputs where they are.

        ``transfers``: the copies are made again, from and to the slot's pinned memory, where the outputs stay; else nothing
        is copied. Where the slot holds no inputs of this program, ``inputs`` are copied there first.
        """
        slot = self._take_slot(program)
        made = program.made
        binding = self._bind(program, slot)
        try:
            if slot.filled is not made or slot.device_fed:
                self._copy_in(made, slot, inputs, None)
            elif not binding.on_device:
                inputs = _held_inputs(made, slot, inputs)
            started = time.perf_counter_ns()
            before, within, behind = slot.timed().pairs if timed else _UNTIMED
            if transfers:
                self._mark(before, 0, self.copy_in)
                if made.io.input_nbytes and not slot.device_fed:
                    self.copy_in.copy_to_device(slot.device_in.address, slot.pinned_in.address, made.io.input_nbytes, pinned=True)
                self._mark(before, 1, self.copy_in)
                self._hand_over(slot)
            values = self._run(program, binding, inputs, slot.computed, within)
            end = self._copy_out(binding, slot, behind if transfers else None, on_device=not transfers)
        except BaseException:
            self._undo(slot)
            raise
        spent = time.perf_counter_ns() - started
        mode = Timed.NOTHING if not timed else Timed.ALL if transfers else Timed.COMPUTE
        where = Where.PINNED if transfers else Where.DEVICE
        pending = Pending(
            program, slot, values, end, outputs=where, enqueue_ns=spent, timed=mode, clock=self._clock.event, inputs=inputs
        )
        slot.pending = pending
        return pending

    def set_clock(self) -> Clock:
        """See DeviceContext."""
        self.synchronize()
        return self._clock.set()

    def is_busy(self) -> bool:
        """True when an ``enqueue`` now would wait for the device."""
        pending = self._next_slot.pending if len(self.memory.slots) == self.depth else None
        return pending is not None and not pending.done()

    def input_buffers(self, program: LoadedProgram) -> tuple[Any, ...]:
        """See DeviceContext."""
        slot = self._waiting_slot(program)
        slot.filled = None  # with what, only the caller knows
        memory = slot.device_in.lend()
        if memory is None:  # none of the inputs is a tensor of numbers
            return (None,) * len(program.made.input_slots)
        start, ordinal = memory.address, program.ordinal
        places = _input_places(program.made)
        return tuple(None if p is None else DeviceArray(start + p[0], *p[1:], ordinal, owner=memory) for p in places)

    def host_buffers(self, program: LoadedProgram) -> tuple[Any, ...]:
        """See DeviceContext."""
        slot = self._waiting_slot(program)
        memory = slot.pinned_in.lend()
        if memory is None:
            return (None,) * len(program.made.input_slots)
        return tuple(None if place is None else pinned_array(memory, *place) for place in _input_places(program.made))

    def hold_states(self, kinds: Sequence[TensorType]) -> None:
        """See DeviceContext."""
        self._let_states_go()
        self.states.hold(kinds)

    def drop_states(self) -> None:
        """See DeviceContext."""
        self._let_states_go()
        self.states.drop()

    def clear_state(self, number: int, axis: int, index: int) -> None:
        """See DeviceContext."""
        self._device.make_current()
        self.states.clear(number, axis, index)

    def copy_states(self, source: "CudaContext") -> None:
        """See DeviceContext."""
        source.synchronize()
        self.states.copy_of(source.states)

    def _let_states_go(self) -> None:
        """Nothing is under way, and no binding knows where states lie."""
        self._device.make_current()
        self.synchronize()
        self._fitting = None
        self.memory.drop_bindings()

    def synchronize(self) -> None:
        """Waits until all work of this context is done, and copies out what is pending."""
        self._device.make_current()
        for slot in self.memory.slots:
            pending = slot.pending  # which whoever takes its result sets to None
            if pending is not None:
                pending.wait()
        for stream in (self.copy_in, self.compute, self.copy_out):
            stream.synchronize()

    def close(self) -> None:
        """Frees everything; may be called twice. Results that were not asked for yet stay with their Pending."""
        if self._closed:
            return
        self._closed = True
        if self.model.fork_guard.is_child:
            self._streams.pop_all()  # they are the parent's
            return
        with self._streams as stack:  # which goes on when one of them fails, and raises that at its end
            stack.callback(self.memory.close)
            stack.callback(self.states.drop)
            stack.callback(self._clock.close)
            if self._nested is not None:
                stack.callback(self._nested.close)
            stack.callback(self.synchronize)

    # -- slots -----------------------------------------------------------------------------------------------------

    @property
    def _next_slot(self) -> IoSlot:
        return self.memory.slots[self._turn % len(self.memory.slots)]

    def _take_slot(self, program: LoadedProgram) -> IoSlot:
        """The slot whose turn it is, large enough, and no longer in use."""
        slot = self._waiting_slot(program)
        self._turn += 1
        budget = current()
        if budget is not None:
            budget.check_time()
        return slot

    def _expect_memory(self, program: LoadedProgram) -> None:
        """Raises LimitExceeded when the inference may not have what the program needs; what is kept within goes first."""
        budget = current()
        if budget is None:
            return
        if not budget.has_room(self._level, self.memory.nbytes_with(program)) and self._nested is not None:
            self._nested.close()
            self._nested = None
            budget.forget_arenas(self._level)
        if not budget.has_room(self._level, self.memory.nbytes_with(program)):
            self.memory.want_one_slot()
        budget.expect_arena(self._level, self.memory.nbytes_with(program), "memory for the activations and results")

    def _waiting_slot(self, program: LoadedProgram) -> IoSlot:
        self.model.fork_guard.check()
        self._device.make_current()
        OF_THE_PROCESS.note()
        if program is not self._fitting:
            self._fitting = None
            if not self.memory.fits(program):
                self.synchronize()
                self._expect_memory(program)
                self.memory.grow(program)
            self._fitting = program  # looked at once, as long as the same program comes again
        if program.made.states and not self.states.kinds:  # nobody asked for them: whoever measures
            self.hold_states([t for s in program.made.states if isinstance(t := program.made.slots[s.past].type, TensorType)])
        slot = self._next_slot
        pending = slot.pending
        if pending is not None:
            pending.wait()
        return slot

    def _bind(self, program: LoadedProgram, slot: IoSlot) -> BoundProgram:
        def make() -> BoundProgram:
            memory = self.memory
            workspace = memory.workspace.address if memory.workspace.nbytes else 0
            return bind(
                program.made,
                stream=self.compute,
                address_of=lambda place: memory.address(program, slot, place),
                function=self.model.functions.get,
                library_call=lambda action, addresses: program.library_call(action, addresses, self.compute, workspace),
                encode=self.model.gpu.encode,
                ranges=self.options.ranges,
                programmatic=self.options.pdl and self.model.gpu.arch >= CLUSTER_ARCH,
            )

        return slot.binding(program.made, make)

    # -- running ---------------------------------------------------------------------------------------------------

    def _undo(self, slot: IoSlot) -> None:
        """After what failed in the middle nothing is on its way: inputs and buffers are free for the next inference."""
        slot.filled = None
        for stream in (self.copy_in, self.compute, self.copy_out):
            with contextlib.suppress(DeviceError, OutOfMemoryError):  # the first error says more
                stream.synchronize()

    def _mark(self, pair: Pair | None, end: int, stream: Stream) -> None:
        if pair is not None:
            stream.record(pair[end])

    def _copy_in(self, made: CudaProgram, slot: IoSlot, inputs: Sequence[Any], around: Pair | None) -> None:
        placed = stage(made, slot, inputs, self.model.fetch)
        self._mark(around, 0, self.copy_in)
        send(made, slot, placed, self.copy_in)
        self._mark(around, 1, self.copy_in)
        slot.filled = made
        slot.device_fed = not all(isinstance(v, np.ndarray) for _, v in placed)
        self._hand_over(slot)

    def _hand_over(self, slot: IoSlot) -> None:
        """Lets the computation wait for the copies of its inputs."""
        if self.copy_in is not self.compute:
            self.copy_in.record(slot.uploaded)
            self.compute.wait(slot.uploaded)

    def _commit(self, made: CudaProgram, slot: IoSlot) -> None:
        """The states are what the program made of them in ``slot``, for all that is enqueued from here on."""
        self.states.replace(made, slot)
        if any(state.present is None for state in made.states):
            for one in self.memory.slots:  # their inputs, computed once more, would be written over rows that count by now
                one.filled = None

    def _copy_out(self, binding: BoundProgram, slot: IoSlot, around: Pair | None, *, on_device: bool) -> Event:
        """Everything in one copy; only what the host must cut to a count, where outputs stay on the device.

        Gives the event that ends the inference: that of the computation when nothing is copied.
        """
        copied = binding.counted if on_device else binding.outputs
        if not copied and around is None:
            return slot.computed
        if self.copy_out is not self.compute:
            self.copy_out.wait(slot.computed)
        self._mark(around, 0, self.copy_out)
        for offset, nbytes in copied:
            self.copy_out.copy_to_host(slot.pinned_out.address + offset, slot.device_out.address + offset, nbytes, pinned=True)
        self._mark(around, 1, self.copy_out)
        self.copy_out.record(slot.downloaded)
        return slot.downloaded

    def _run(
        self, program: LoadedProgram, binding: BoundProgram, inputs: Sequence[Any], end: Event, around: Pair | None
    ) -> HostValues | None:
        """Enqueues the computation, ``end`` behind it, and two events that take times around it."""
        alone = binding.alone
        if alone is not None:
            self.runner.run(alone, end, around)
            return None
        self._mark(around, 0, self.compute)
        values = None if binding.on_device else HostValues(self, program, binding, inputs, lend=self._level > 0)
        try:
            for segment in binding.segments:
                if isinstance(segment, Segment):
                    self.runner.run(segment)
                else:
                    assert values is not None
                    values.run(segment)
            if values is not None:
                values.fetch_outputs()
        finally:
            if values is not None:
                values.end()
        self._mark(around, 1, self.compute)
        self.compute.record(end)
        return values

    def run_nested(self, graph: Graph, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """The outputs of a branch, a loop's body or a late part, computed in a context of its own: this one is in mid-inference.

        Inputs may be arrays on the device, and outputs are, where they can be; they are good until the next call.
        """
        nested = self._nested
        if nested is None:
            options = replace(self.options, cuda_graph=self.runner.cuda_graph, overlap=False)
            nested = self._nested = CudaContext(self.model, options, self.compute, self._level + 1)
        program, values = self.model.nested_program(graph, inputs, self.compute, late=self._level < DEEPEST)
        return nested.enqueue(program, values, on_device=True).result()

    def _execute_timed(
        self, program: LoadedProgram, inputs: Sequence[Any], *, on_device: bool, commit: bool
    ) -> tuple[StepRound, tuple[Any, ...]]:
        slot = self._take_slot(program)
        self.synchronize()  # nothing else is on the device's clock
        binding = self._bind(program, slot)
        try:
            self._copy_in(program.made, slot, inputs, None)
            values = HostValues(self, program, binding, inputs)
            taken = time_steps(self._device, self.runner, binding, values)
            if commit:
                self._commit(program.made, slot)
            self.compute.record(slot.computed)
            end = self._copy_out(binding, slot, None, on_device=on_device)
        except BaseException:
            self._undo(slot)
            raise
        where = Where.DEVICE if on_device else Where.OWN
        pending = Pending(program, slot, values, end, outputs=where, enqueue_ns=0, timed=Timed.NOTHING, inputs=inputs)
        slot.pending = pending
        return taken, pending.result()


def _held_inputs(made: CudaProgram, slot: IoSlot, inputs: Sequence[Any]) -> list[Any]:
    """What lies in the slot, for steps on the host: the inputs that were copied there last, whatever is given now."""
    places = zip(_input_places(made), inputs, strict=True)
    return [given if place is None else slot.pinned_in.view(*place) for place, given in places]


def _input_places(made: CudaProgram) -> "list[tuple[int, tuple[int, ...], np.dtype[Any]] | None]":
    """Offset in the region of inputs, shape and dtype of each input; None for one that is no tensor of numbers."""

    def place(number: int) -> "tuple[int, tuple[int, ...], np.dtype[Any]] | None":
        kind = made.slots[number].type
        offset = made.io.inputs.get(number)
        if offset is None:
            return None
        assert isinstance(kind, TensorType)
        return offset, static_shape(kind), numpy_dtype(kind.dtype)

    return [place(n) for n in made.input_slots]

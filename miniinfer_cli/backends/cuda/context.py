"""What one stream of work owns on a GPU: streams, workspace, arena, I/O slots, captured graphs; and how it runs programs."""

import contextlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from miniinfer_cli.backends.cuda.binding import Binding, Segment, bind
from miniinfer_cli.backends.cuda.device_array import DeviceArray
from miniinfer_cli.backends.cuda.hosting import HostValues
from miniinfer_cli.backends.cuda.io_slot import IoSlot
from miniinfer_cli.backends.cuda.pending import Pending
from miniinfer_cli.backends.cuda.program import HostStep, Place
from miniinfer_cli.errors import DeviceError, OutOfMemoryError, UsageError
from miniinfer_cli.ir import numpy_dtype

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ContextOptions:
    """``cuda_graph``: capture and replay. ``overlap``: copies on streams of their own, two inferences at once."""

    cuda_graph: bool = True
    overlap: bool = True


class CudaContext:
    """See backends.interface.DeviceContext. Used by one thread at a time."""

    def __init__(self, model: Any, options: ContextOptions = ContextOptions()) -> None:
        self.model = model
        self.options = options
        device = model.device_handle
        device.make_current()
        self._device = device
        self.compute = device.create_stream()
        self.copy_in = device.create_stream() if options.overlap else self.compute
        self.copy_out = device.create_stream() if options.overlap else self.compute
        self._arena: Any = None
        self._workspace: Any = None
        self._slots = [IoSlot(device)]
        self.depth = 2 if options.overlap else 1
        """Inferences that can be under way at once."""
        self._turn = 0
        self._nested: CudaContext | None = None
        self._closed = False
        self.captures = 0
        """CUDA graphs captured so far."""
        self.capture_faults: list[str] = []
        """Why a capture failed; its program runs without one."""
        model.bind_libraries(self.compute)

    # -- the interface ---------------------------------------------------------------------------------------------

    @property
    def arena_nbytes(self) -> int:
        """Bytes of activation memory held now, on the device."""
        own = 0 if self._arena is None else self._arena.nbytes
        return int(own + (self._nested.arena_nbytes if self._nested is not None else 0))

    def execute(self, program: Any, inputs: Sequence[Any], times_ns: list[int] | None = None) -> tuple[Any, ...]:
        """The outputs, as arrays of the caller's own. ``times_ns``: one duration per step, timed one by one by events."""
        if times_ns is not None:
            return self._execute_timed(program, inputs, times_ns)
        return self.enqueue(program, inputs).result()

    def enqueue(self, program: Any, inputs: Sequence[Any], *, timed: bool = False, on_device: bool = False) -> Pending:
        """Enqueues one inference and returns at once (as far as there is no host step); at most two are under way.

        When both slots are busy it waits for the older one, whose results are copied out first. ``timed``: events around
        copies and computation. ``on_device``: outputs stay where they are, and are valid until the slot's next turn.
        """
        self._device.make_current()
        self._grow(program)
        slot = self._next_slot()
        if slot.pending is not None:
            slot.pending.settle()
        binding = self._bind(program, slot)
        started = time.perf_counter_ns()
        events = slot.timed().events if timed else None
        if events:
            self.copy_in.record(events[0])
        self._copy_in(program.plan, slot, inputs)
        if events:
            self.copy_in.record(events[1])
        self._chain(self.copy_in, slot.uploaded, self.compute)
        if events:
            self.compute.record(events[2])
        values = self._run(program, binding, slot, inputs)
        if events:
            self.compute.record(events[3])
        self._chain(self.compute, slot.computed, self.copy_out)
        if events:
            self.copy_out.record(events[4])
        if not on_device and program.plan.io.output_nbytes:
            self.copy_out.copy_to_host(slot.pinned_out.address, slot.device_out.address, program.plan.io.output_nbytes)
        if events:
            self.copy_out.record(events[5])
        self.copy_out.record(slot.downloaded)
        slot.pending = Pending(
            program, slot, values, on_device=on_device, enqueue_ns=time.perf_counter_ns() - started, timed="all" if timed else ""
        )
        return slot.pending

    def is_busy(self) -> bool:
        """True when an ``enqueue`` now would wait for the device."""
        slot = self._slots[self._turn % len(self._slots)] if len(self._slots) == self.depth else None
        return slot is not None and slot.pending is not None and not slot.pending.done()

    def replay(self, program: Any, inputs: Sequence[Any], *, timed: bool = False) -> Pending:
        """Like ``enqueue`` without any copy: the inputs are those of the slot's last ``enqueue``, the outputs stay put."""
        slot = self._next_slot()
        binding = self._bind(program, slot)
        started = time.perf_counter_ns()
        events = slot.timed().events if timed else None
        if events:
            self.compute.record(events[2])
        values = self._run(program, binding, slot, inputs)
        if events:
            self.compute.record(events[3])
        self.compute.record(slot.downloaded)
        return Pending(
            program, slot, values, on_device=True, enqueue_ns=time.perf_counter_ns() - started, timed="compute" if timed else ""
        )

    def input_buffers(self, program: Any) -> tuple[Any, ...]:
        """See DeviceContext."""
        slot = self._waiting_slot(program)
        return tuple(self._buffer(program, slot, number) for number in program.plan.input_slots)

    def host_buffers(self, program: Any) -> tuple[Any, ...]:
        """See DeviceContext."""
        slot = self._waiting_slot(program)
        views = []
        for number in program.plan.input_slots:
            buffer = self._buffer(program, slot, number)
            offset = buffer.address - slot.device_in.address
            views.append(slot.pinned_in.array[offset : offset + buffer.nbytes].view(buffer.dtype).reshape(buffer.shape))
        return tuple(views)

    def _waiting_slot(self, program: Any) -> IoSlot:
        """The slot of the next ``enqueue``, large enough, and no longer in use."""
        self._device.make_current()
        self._grow(program)
        slot = self._slots[self._turn % len(self._slots)]
        if slot.pending is not None:
            slot.pending.settle()
        return slot

    def _buffer(self, program: Any, slot: IoSlot, number: int) -> DeviceArray:
        offset = program.plan.io.inputs.get(number)
        kind = program.plan.slots[number].type
        if offset is None:
            raise UsageError("an input that is no tensor of numbers has no buffer on the device")
        return DeviceArray(slot.device_in.address + offset, kind.shape, numpy_dtype(kind.dtype), program.ordinal, owner=slot)

    def synchronize(self) -> None:
        """Waits until all work of this context is done, and copies out what is pending."""
        self._device.make_current()
        for slot in self._slots:
            if slot.pending is not None:
                slot.pending.settle()
        for stream in {id(s): s for s in (self.copy_in, self.compute, self.copy_out)}.values():
            stream.synchronize()

    def close(self) -> None:
        """Frees everything; may be called twice."""
        if self._closed:
            return
        self._closed = True
        try:
            self.synchronize()
        finally:
            if self._nested is not None:
                self._nested.close()
            for slot in self._slots:
                slot.close()
            for owned in (self._arena, self._workspace):
                if owned is not None:
                    owned.close()
            self.model.unbind_libraries(self.compute)
            for stream in {id(s): s for s in (self.copy_in, self.copy_out, self.compute)}.values():
                stream.close()

    # -- memory ----------------------------------------------------------------------------------------------------

    def _next_slot(self) -> IoSlot:
        slot = self._slots[self._turn % len(self._slots)]
        self._turn += 1
        return slot

    def _grow(self, program: Any) -> None:
        """Makes arena, workspace and slots large enough. Growing drops the captured graphs: they hold the old addresses."""
        plan = program.plan
        if (
            _size(self._arena) >= plan.arena_nbytes
            and _size(self._workspace) >= program.workspace_nbytes
            and len(self._slots) == self.depth
            and all(s.fits(plan) for s in self._slots)
        ):
            return
        self.synchronize()
        for slot in self._slots:
            slot.drop_bindings()
            slot.pending = None
        if _size(self._arena) < plan.arena_nbytes:
            if self._arena is not None:
                self._arena.close()
                self._arena = None
            self._arena = self._device.allocate(plan.arena_nbytes, "memory for the activations")
        if _size(self._workspace) < program.workspace_nbytes:
            if self._workspace is not None:
                self._workspace.close()
                self._workspace = None
            self._workspace = self._device.allocate(program.workspace_nbytes, "workspace of the libraries")
        self._slots[0].grow(plan)
        self._grow_second(plan)

    def _grow_second(self, plan: Any) -> None:
        """The second slot is for speed alone: where there is no memory for it, one inference is under way at a time."""
        try:
            if len(self._slots) < self.depth:
                self._slots.append(IoSlot(self._device))
            for slot in self._slots[1:]:
                slot.grow(plan)
        except OutOfMemoryError as error:
            if len(self._slots) > 1:
                self._slots.pop().close()
            self.depth = 1
            _LOG.warning("%s; copies no longer overlap with computation", error.message)

    # -- running ---------------------------------------------------------------------------------------------------

    def _chain(self, first: Any, event: Any, second: Any) -> None:
        if first is not second:
            first.record(event)
            second.wait(event)

    def _copy_in(self, plan: Any, slot: IoSlot, inputs: Sequence[Any]) -> None:
        """Host arrays go through pinned memory in one copy; arrays on the device straight into the slot."""
        staged = False
        for number, value in zip(plan.input_slots, inputs, strict=True):
            offset = plan.io.inputs.get(number)
            if offset is None:
                continue
            if isinstance(value, np.ndarray):
                if value.nbytes:
                    staged = True
                    if value.ctypes.data != slot.pinned_in.address + offset:  # else the caller filled our own buffer
                        raw = slot.pinned_in.array[offset : offset + value.nbytes]
                        np.copyto(raw.view(value.dtype).reshape(value.shape), value, casting="no")
            elif value.address != slot.device_in.address + offset:
                value.wait_on(self.copy_in)
                self.copy_in.copy_on_device(slot.device_in.address + offset, value.address, value.nbytes)
        if staged:
            if all(isinstance(v, np.ndarray) for v in inputs):
                self.copy_in.copy_to_device(slot.device_in.address, slot.pinned_in.address, plan.io.input_nbytes)
            else:
                for number, value in zip(plan.input_slots, inputs, strict=True):
                    offset = plan.io.inputs.get(number)
                    if offset is not None and isinstance(value, np.ndarray):
                        start = slot.pinned_in.address + offset
                        self.copy_in.copy_to_device(slot.device_in.address + offset, start, value.nbytes)

    def _run(self, program: Any, binding: Binding, slot: IoSlot, inputs: Sequence[Any]) -> HostValues | None:
        if binding.on_device:
            for segment in binding.segments:
                self._run_segment(segment)
            return None
        values = HostValues(self, program, binding, inputs)
        for segment in binding.segments:
            if isinstance(segment, HostStep):
                values.run(segment)
            else:
                self._run_segment(segment)
        values.fetch_outputs()
        return values

    def _run_segment(self, segment: Any) -> None:
        if segment.graph is not None:
            self.compute.launch_graph(segment.graph)
            return
        if not segment.warm or not self.options.cuda_graph:
            segment.enqueue()
            segment.warm = True
            return
        self._capture(segment)
        if segment.graph is not None:
            self.compute.launch_graph(segment.graph)
        else:
            segment.enqueue()

    def _capture(self, segment: Segment) -> None:
        if not any(segment.calls):
            return
        with self.model.capture_lock:
            try:
                segment.graph = self._noted(segment)
                self.captures += 1
            except (DeviceError, OutOfMemoryError) as error:
                self.capture_faults.append(error.message)
                self.options = ContextOptions(cuda_graph=False, overlap=self.options.overlap)
                _LOG.warning("CUDA graph capture failed (%s); running without graphs", error.message)

    def _noted(self, segment: Segment) -> Any:
        """The graph of what the segment enqueues; the stream works as before when that fails."""
        self.compute.begin_capture()
        try:
            segment.enqueue()
        except BaseException:
            with contextlib.suppress(DeviceError, OutOfMemoryError):  # the first error says more
                self.compute.end_capture().close()
            raise
        return self.compute.end_capture()

    def _bind(self, program: Any, slot: IoSlot) -> Binding:
        def make() -> Binding:
            return bind(
                program.plan,
                stream=self.compute,
                address_of=lambda place: self._address(program, slot, place),
                function=self.model.functions.get,
                library_call=lambda action, addresses: program.library_call(action, addresses, self.compute, self._workspace),
            )

        return slot.binding(program.plan, make)

    def _address(self, program: Any, slot: IoSlot, place: Place) -> int:
        plan = program.plan
        if place.scratch:
            return int(self._arena.address + plan.layout.scratch_offsets[place.number] + place.offset)
        root = plan.slots[place.number].root
        if root in plan.io.outputs:
            return int(slot.device_out.address + plan.io.outputs[root] + place.offset)
        if root in plan.io.inputs:
            return int(slot.device_in.address + plan.io.inputs[root] + place.offset)
        offset = plan.layout.offsets.get(root)
        if offset is not None:
            return int(self._arena.address + offset + place.offset)
        return int(program.address_of(root) + place.offset)

    def run_nested(self, graph: Any, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """The outputs of a branch or of a loop's body, computed in a context of its own: this one is in mid-inference."""
        if self._nested is None:
            self._nested = CudaContext(self.model, ContextOptions(self.options.cuda_graph, overlap=False))
        return self._nested.execute(self.model.nested_program(graph, inputs), inputs)

    def _execute_timed(self, program: Any, inputs: Sequence[Any], times_ns: list[int]) -> tuple[Any, ...]:
        """Step by step with an event between every two: slower than a whole inference, and each step's own time."""
        self._device.make_current()
        self.synchronize()
        self._grow(program)
        slot = self._slots[0]
        binding = self._bind(program, slot)
        self._copy_in(program.plan, slot, inputs)
        self._chain(self.copy_in, slot.uploaded, self.compute)
        values = HostValues(self, program, binding, inputs)
        marks: list[Any] = []
        try:
            for segment in binding.segments:
                if isinstance(segment, HostStep):
                    started = time.perf_counter_ns()
                    values.run(segment)
                    marks.append(time.perf_counter_ns() - started)
                    continue
                for calls in segment.calls:
                    before, after = (self._device.create_event(timing=True) for _ in range(2))
                    marks.append((before, after))
                    self.compute.record(before)
                    for call in calls:
                        call()
                    self.compute.record(after)
            values.fetch_outputs()
            self.compute.synchronize()
            times_ns += [m if isinstance(m, int) else int(m[1].elapsed_ms(m[0]) * 1e6) for m in marks]
        finally:
            for mark in marks:
                if not isinstance(mark, int):
                    mark[0].close()
                    mark[1].close()
        if program.plan.io.output_nbytes:
            self.compute.copy_to_host(slot.pinned_out.address, slot.device_out.address, program.plan.io.output_nbytes)
        self.compute.record(slot.downloaded)
        slot.pending = Pending(program, slot, values, on_device=False, enqueue_ns=0, timed="")
        return slot.pending.result()


def _size(memory: Any) -> int:
    return 0 if memory is None else int(memory.nbytes)


__all__ = ["ContextOptions", "CudaContext"]

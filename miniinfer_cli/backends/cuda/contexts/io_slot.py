"""An I/O slot: the buffers that one inference's inputs and outputs pass through, on the host (pinned) and on the device."""

import contextlib
from collections.abc import Callable

from miniinfer_cli.backends.cuda.contexts.buffers import Buffer, PinnedBuffer
from miniinfer_cli.backends.cuda.contract.program import CudaProgram
from miniinfer_cli.backends.cuda.contract.protocols import Device, Event
from miniinfer_cli.backends.cuda.scheduling.bound_program import BoundProgram
from miniinfer_cli.backends.interface import Intervals, Pending


class IoSlot:
    """Buffers that only grow, events, and the programs bound to these buffers. Used by one inference at a time.

    ``bindings``: programs that stay bound; each holds a graph for every device segment.
    """

    def __init__(self, device: Device, bindings: int) -> None:
        self.device = device
        self._most = bindings
        self.device_in = Buffer(device.allocate, "memory for the inputs")
        self.device_out = Buffer(device.allocate, "memory for the outputs")
        self.pinned_in = PinnedBuffer(device.allocate_pinned, "pinned memory for the inputs")
        self.pinned_out = PinnedBuffer(device.allocate_pinned, "pinned memory for the outputs")
        self.timers: Timers | None = None
        self.device_fed = False
        """True when some inputs came from the device, so that pinned memory does not hold all of them."""
        self.pending: Pending | None = None  # the inference that the outputs belong to, until they are copied out
        self.filled: CudaProgram | None = None  # the program whose inputs lie in ``device_in``
        self._bindings: dict[CudaProgram, BoundProgram] = {}
        with contextlib.ExitStack() as stack:
            self.uploaded, self.computed, self.downloaded = (stack.enter_context(device.create_event()) for _ in range(3))
            stack.pop_all()

    def fits(self, program: CudaProgram) -> bool:
        """True when no buffer must grow for the program."""
        io = program.io
        return all(b.nbytes >= io.input_nbytes for b in (self.device_in, self.pinned_in)) and all(
            b.nbytes >= io.output_nbytes for b in (self.device_out, self.pinned_out)
        )

    def grow(self, program: CudaProgram) -> None:
        """Makes the buffers large enough; nothing may be under way, and all bindings go, since addresses change."""
        self.drop_bindings()
        self.filled = None
        for buffer in (self.device_in, self.pinned_in):
            buffer.grow(program.io.input_nbytes)
        for buffer in (self.device_out, self.pinned_out):
            buffer.grow(program.io.output_nbytes)

    def shrink(self) -> None:
        """Gives all memory back."""
        self.drop_bindings()
        self.filled = None
        for buffer in (self.device_in, self.pinned_in, self.device_out, self.pinned_out):
            buffer.close()

    def binding(self, program: CudaProgram, make: Callable[[], BoundProgram]) -> BoundProgram:
        """The program bound to this slot, made now if it is not; the least recently used one beyond a number goes."""
        found = self._bindings.pop(program, None)
        if found is None:
            found = make()
            if len(self._bindings) >= self._most:
                self._bindings.pop(next(iter(self._bindings))).close()
        self._bindings[program] = found
        return found

    def drop_bindings(self) -> None:
        """Forgets every binding: an address in them changes."""
        for binding in self._bindings.values():
            binding.close()
        self._bindings.clear()

    def timed(self) -> "Timers":
        """The events that take times, made at first need."""
        if self.timers is None:
            self.timers = Timers(self.device)
        return self.timers

    def close(self) -> None:
        """Frees everything; may be called twice."""
        with contextlib.ExitStack() as stack:  # which goes on when one of them fails
            for owned in (self.device_in, self.device_out, self.pinned_in, self.pinned_out):
                stack.callback(owned.close)
            for event in (self.uploaded, self.computed, self.downloaded):
                stack.callback(event.close)
            if self.timers is not None:
                stack.callback(self.timers.close)
            stack.callback(self.drop_bindings)


class Timers:
    """Events around the copies in, the computation and the copies out of one inference."""

    def __init__(self, device: Device) -> None:
        self._events: list[Event] = []
        try:
            for _ in range(6):
                self._events.append(device.create_event(timing=True))
        except BaseException:
            self.close()
            raise
        self.pairs = tuple(zip(self._events[::2], self._events[1::2], strict=True))
        """Before and after the copies in, before and after the computation, before and after the copies out."""

    def elapsed_ms(self, *, copies: bool) -> tuple[float, float, float]:
        """Copies in, computation, copies out, in milliseconds; call it when all have happened. 0 for ``copies`` not made."""
        compute = _between(self.pairs[1])
        return (_between(self.pairs[0]), compute, _between(self.pairs[2])) if copies else (0.0, compute, 0.0)

    def intervals_ms(self, since: Event, *, copies: bool) -> Intervals:
        """When these were since an event, in milliseconds; call it when all have happened. None for ``copies`` not made."""
        compute = _points(self.pairs[1], since)
        return (_points(self.pairs[0], since), compute, _points(self.pairs[2], since)) if copies else (None, compute, None)

    def close(self) -> None:
        """Gives the events back; may be called twice."""
        for event in self._events:
            event.close()


def _between(pair: tuple[Event, Event]) -> float:
    return pair[1].elapsed_ms(pair[0])


def _points(pair: tuple[Event, Event], since: Event) -> tuple[float, float]:
    return pair[0].elapsed_ms(since), pair[1].elapsed_ms(since)

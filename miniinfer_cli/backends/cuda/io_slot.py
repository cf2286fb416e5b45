"""An I/O slot: the buffers that one inference's inputs and outputs pass through, on the host (pinned) and on the device."""

from collections.abc import Callable
from typing import Any

from miniinfer_cli.backends.cuda.binding import Binding
from miniinfer_cli.backends.cuda.program import CudaProgram

_BINDINGS = 16  # programs that a slot keeps bound; each holds a graph for every device segment


class IoSlot:
    """Buffers that only grow, events, and the programs bound to these buffers. Used by one inference at a time."""

    def __init__(self, device: Any) -> None:
        self._device = device
        self.device_in: Any = None
        self.device_out: Any = None
        self.pinned_in: Any = None
        self.pinned_out: Any = None
        self.uploaded = device.create_event()
        self.computed = device.create_event()
        self.downloaded = device.create_event()
        self.timers: Timers | None = None
        self.pending: Any = None  # the inference that the outputs belong to, until they are copied out
        self._bindings: dict[CudaProgram, Binding] = {}

    def fits(self, program: CudaProgram) -> bool:
        """True when no buffer must grow for the program."""
        return _size(self.device_in) >= program.io.input_nbytes and _size(self.device_out) >= program.io.output_nbytes

    def grow(self, program: CudaProgram) -> None:
        """Makes the buffers large enough; nothing may be under way, and all bindings go, since addresses change."""
        self.drop_bindings()
        if _size(self.device_in) < program.io.input_nbytes:
            self.device_in = _again(self.device_in, self._device.allocate, program.io.input_nbytes, "memory for the inputs")
            self.pinned_in = _again(
                self.pinned_in, self._device.allocate_pinned, program.io.input_nbytes, "memory for the inputs"
            )
        if _size(self.device_out) < program.io.output_nbytes:
            nbytes = program.io.output_nbytes
            self.device_out = _again(self.device_out, self._device.allocate, nbytes, "memory for the outputs")
            self.pinned_out = _again(self.pinned_out, self._device.allocate_pinned, nbytes, "memory for the outputs")

    def binding(self, program: CudaProgram, make: Callable[[], Binding]) -> Binding:
        """The program bound to this slot, made now if it is not; the least recently used one beyond a number goes."""
        found = self._bindings.pop(program, None)
        if found is None:
            found = make()
            if len(self._bindings) >= _BINDINGS:
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
            self.timers = Timers(self._device)
        return self.timers

    def close(self) -> None:
        """Frees everything; may be called twice."""
        self.drop_bindings()
        for owned in (
            self.device_in,
            self.device_out,
            self.pinned_in,
            self.pinned_out,
            self.uploaded,
            self.computed,
            self.downloaded,
        ):
            if owned is not None:
                owned.close()
        if self.timers is not None:
            self.timers.close()
        self.device_in = self.device_out = self.pinned_in = self.pinned_out = None


class Timers:
    """Pairs of events around the copies in, the computation and the copies out of one inference."""

    def __init__(self, device: Any) -> None:
        self.events = [device.create_event(timing=True) for _ in range(6)]

    def elapsed_ms(self, *, copies: bool) -> tuple[float, float, float]:
        """Copies in, computation, copies out, in milliseconds; call it when all have happened. 0 for ``copies`` not made."""
        a, b, c, d, e, f = self.events
        compute = d.elapsed_ms(c)
        return (b.elapsed_ms(a), compute, f.elapsed_ms(e)) if copies else (0.0, compute, 0.0)

    def close(self) -> None:
        """Gives the events back; may be called twice."""
        for event in self.events:
            event.close()


def _size(memory: Any) -> int:
    return 0 if memory is None else int(memory.nbytes)


def _again(old: Any, allocate: Callable[[int, str], Any], nbytes: int, what: str) -> Any:
    if old is not None:
        old.close()  # before the larger one comes
    return allocate(nbytes, what)

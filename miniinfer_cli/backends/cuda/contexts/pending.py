"""An inference under way: whether it is done, its results, and its times."""

import threading
from collections.abc import Sequence
from enum import Enum, auto
from typing import Any

import numpy as np

from miniinfer_cli.backends.cuda.arrays.device_array import DeviceArray
from miniinfer_cli.backends.cuda.contexts.io_slot import IoSlot
from miniinfer_cli.backends.cuda.contract.program import Slot
from miniinfer_cli.backends.cuda.contract.protocols import Event
from miniinfer_cli.backends.cuda.contract.site import static_shape
from miniinfer_cli.backends.cuda.hosting.hosting import HostValues, cut
from miniinfer_cli.backends.cuda.loading.loaded_program import LoadedProgram
from miniinfer_cli.backends.interface import Intervals
from miniinfer_cli.errors import DeviceError, OutOfMemoryError
from miniinfer_cli.ir import TensorType, numpy_dtype


class Where(Enum):
    """Where the outputs of an inference are once it is done."""

    OWN = auto()
    """In copies for the caller."""
    PINNED = auto()
    """In the slot's pinned memory, until its next turn."""
    DEVICE = auto()
    """In the slot's memory on the device, until its next turn."""


class Timed(Enum):
    """What of an inference is timed by events."""

    NOTHING = auto()
    COMPUTE = auto()
    ALL = auto()
    """The copies too."""


class Pending:
    """What ``enqueue`` gives; any thread may ask it. ``enqueue_ns``: what enqueuing took on the host.

    ``end``: the event, of the slot's, that says all of it is done.
    ``inputs`` are kept until the device has read them.
    """

    def __init__(
        self,
        program: LoadedProgram,
        slot: IoSlot,
        values: HostValues | None,
        end: Event,
        *,
        outputs: Where,
        enqueue_ns: int,
        timed: Timed,
        clock: Event | None = None,
        inputs: Sequence[Any] = (),
    ) -> None:
        self.program = program
        self.enqueue_ns = enqueue_ns
        self.times_ms: tuple[float, float, float] | None = None
        """Copies in, computation, copies out, by events; known when it is done, if it was asked for."""
        self.intervals_ms: Intervals | None = None
        """When they were, counted from ``clock``, if there is one; known as the times are."""
        self._slot: IoSlot | None = slot
        self._values = values
        self._end = end
        self._where = outputs
        self._timed = timed
        self._clock = clock
        self._inputs: Sequence[Any] = inputs
        self._outputs: tuple[Any, ...] | None = None
        self._fault: DeviceError | OutOfMemoryError | None = None
        self._lock = threading.Lock()

    def done(self) -> bool:
        """True when ``result`` would not wait for the device. Raises DeviceError in a forked child when it is not there yet."""
        if self._slot is not None:
            self.program.fork_guard.check()
        if not self._lock.acquire(blocking=False):
            return False  # somebody is waiting for it
        try:
            if self._slot is None:
                return True
            self._slot.device.make_current()
            return self._end.is_done()
        finally:
            self._lock.release()

    def wait(self) -> None:
        """Waits until the device is done with it; what it computed is taken out of the slot then.

        Raises DeviceError in a forked child, unless it was done before.
        """
        if self._slot is None:
            return
        self.program.fork_guard.check()  # before the lock: a thread that waits in the parent holds it
        with self._lock:
            if self._slot is not None:
                self._settle(self._slot)

    def result(self) -> tuple[Any, ...]:
        """The outputs in order, arrays of the caller's own. Waits for the device; may be called again.

        Raises DeviceError when the device failed meanwhile.
        """
        self.wait()
        if self._outputs is None:
            assert self._fault is not None
            raise self._fault
        return self._outputs

    def on_stream(self, handle: int) -> tuple[Any, ...]:
        """See interface.Pending. The outputs are good until the slot's next turn, which waits for the foreign stream only where
        it takes an array of its.
        """
        if self._slot is not None:
            self.program.fork_guard.check()
            with self._lock:
                slot, made = self._slot, self.program.made
                if slot is not None and self._where is Where.DEVICE and all(map(self._stays, made.output_slots)):
                    slot.device.make_current()
                    self._end.hold_foreign(handle)
                    return tuple(self._output(slot, s, made.slots[s]) for s in made.output_slots)
        return self.result()

    def _stays(self, number: int) -> bool:
        """True for an output that the host has no part in."""
        made = self.program.made
        root = made.slots[number].root
        return root in made.io.outputs and made.slots[root].bound is None

    def _settle(self, slot: IoSlot) -> None:
        # The lock is held: whoever comes first copies out, and the slot's next turn waits for that.
        try:
            slot.device.make_current()
            self._end.synchronize()
            if self._timed is not Timed.NOTHING:
                copies = self._timed is Timed.ALL
                self.times_ms = slot.timed().elapsed_ms(copies=copies)
                if self._clock is not None:
                    self.intervals_ms = slot.timed().intervals_ms(self._clock, copies=copies)
            slots = self.program.made.slots
            self._outputs = tuple(self._output(slot, s, slots[s]) for s in self.program.made.output_slots)
        except (DeviceError, OutOfMemoryError) as error:
            self._fault = error
        finally:
            if slot.pending is self:
                slot.pending = None
            self._slot = self._values = None
            self._inputs = ()

    def _output(self, slot: IoSlot, number: int, described: Slot) -> Any:
        made = self.program.made
        offset = made.io.outputs.get(described.root)
        if offset is None:
            assert self._values is not None
            return self._values.result(number)
        kind = described.type
        assert isinstance(kind, TensorType)
        dtype, shape = numpy_dtype(kind.dtype), static_shape(kind)
        root = made.slots[described.root]
        if self._where is Where.DEVICE and root.bound is None:
            address = slot.device_out.address + offset
            return DeviceArray(address, shape, dtype, self.program.ordinal, owner=slot.device_out.lend())
        array = slot.pinned_out.view(offset, shape, dtype)
        if root.bound is not None and root.count is not None:
            (count,) = slot.pinned_out.view(made.io.outputs[root.count], (1,), np.dtype(np.int64))
            array = cut(array, root.bound.axis, int(count))
        return array if self._where is Where.PINNED else array.copy()

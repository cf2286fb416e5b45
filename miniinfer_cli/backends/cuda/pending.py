"""An inference under way: whether it is done, its results, and its times."""

from typing import Any

import numpy as np

from miniinfer_cli.backends.cuda.device_array import DeviceArray
from miniinfer_cli.backends.cuda.hosting import HostValues
from miniinfer_cli.backends.cuda.io_slot import IoSlot
from miniinfer_cli.backends.cuda.program import Slot
from miniinfer_cli.ir import TensorType, numpy_dtype


class Pending:
    """What ``enqueue`` gives. ``enqueue_ns``: what enqueuing took on the host. ``timed``: "all", "compute", or nothing."""

    def __init__(
        self, program: Any, slot: IoSlot, values: HostValues | None, *, on_device: bool, enqueue_ns: int, timed: str
    ) -> None:
        self.program = program
        self.enqueue_ns = enqueue_ns
        self.times_ms: tuple[float, float, float] | None = None
        """Copies in, computation, copies out, by events; known when it is done, if it was asked for."""
        self._slot: IoSlot | None = slot
        self._values = values
        self._on_device = on_device
        self._timed = timed
        self._outputs: tuple[Any, ...] | None = None

    def done(self) -> bool:
        """True when ``result`` would not wait for the device."""
        return self._slot is None or self._slot.downloaded.is_done()

    def wait(self) -> None:
        """Waits until the device is done with it; copies nothing out."""
        if self._slot is not None:
            self._slot.downloaded.synchronize()

    def result(self) -> tuple[Any, ...]:
        """The outputs in order, arrays of the caller's own. Waits for the device; may be called again."""
        self.settle()
        assert self._outputs is not None
        return self._outputs

    def settle(self) -> None:
        """Waits, and takes the results out of the slot, whose next turn may come then."""
        slot = self._slot
        if slot is None:
            return
        slot.downloaded.synchronize()
        if self._timed:
            self.times_ms = slot.timed().elapsed_ms(copies=self._timed == "all")
        plan = self.program.plan
        self._outputs = tuple(self._output(slot, s, plan.slots[s]) for s in plan.output_slots)
        if slot.pending is self:
            slot.pending = None
        self._slot = None
        self._values = None

    def _output(self, slot: IoSlot, number: int, described: Slot) -> Any:
        plan = self.program.plan
        offset = plan.io.outputs.get(described.root)
        if offset is None:
            assert self._values is not None
            return self._values.own(number)
        kind = described.type
        assert isinstance(kind, TensorType)
        dtype, shape = numpy_dtype(kind.dtype), kind.shape or ()
        if self._on_device:
            return DeviceArray(slot.device_out.address + offset, shape, dtype, self.program.ordinal, owner=slot)  # type: ignore[arg-type]
        if not described.nbytes:
            return np.empty(shape, dtype)  # type: ignore[arg-type]
        raw = slot.pinned_out.array
        array = raw[offset : offset + described.nbytes].view(dtype).reshape(shape)
        root = plan.slots[described.root]
        if root.bound is not None and root.count is not None:
            at = plan.io.outputs[root.count]
            count = int(raw[at : at + 8].view(np.int64)[0])
            array = array[tuple(slice(count) if a == root.bound.axis else slice(None) for a in range(array.ndim))]
        return array.copy()

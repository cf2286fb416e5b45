"""Host steps of an inference: values fetched from the device, references run, results sent back where a step wants them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from miniinfer_cli.backends.cuda.binding import Binding
from miniinfer_cli.backends.cuda.program import HostStep, Place
from miniinfer_cli.backends.reference import run_reference
from miniinfer_cli.ir import Array, TensorType, numpy_dtype


class HostValues:
    """The values of one inference that the host knows, by slot."""

    def __init__(self, context: Any, program: Any, binding: Binding, inputs: Sequence[Any]) -> None:
        self._context = context
        self._program = program
        self._plan = program.plan
        self._binding = binding
        self._uploads = frozenset(self._plan.uploads)
        self._values: dict[int, Any] = {
            s: v for s, v in zip(self._plan.input_slots, inputs, strict=True) if v is None or isinstance(v, (np.ndarray, list))
        }
        self._fetched: set[int] = set()

    def run(self, step: HostStep) -> None:
        """One step, in order with what is enqueued on the device."""
        operands = [None if s is None else self.read(s) for s in step.inputs]
        with np.errstate(all="ignore"):
            results = run_reference(step.node, operands, self._context.run_nested)
        for slot, result in zip(step.outputs, results, strict=False):
            self._values[slot] = result
            if slot in self._uploads:
                self._send(slot, result)

    def fetch_outputs(self) -> None:
        """Reads what the graph returns and does not lie in the region of outputs."""
        for slot in self._plan.output_slots:
            if self._plan.slots[slot].root not in self._plan.io.outputs:
                self.read(slot)

    def own(self, slot: int) -> Any:
        """A value for the caller to keep."""
        return _own(self.read(slot))

    def read(self, slot: int) -> Any:
        """A value on the host; fetched from the device, and waited for, where it is not there yet."""
        if slot in self._values:
            return self._values[slot]
        described = self._plan.slots[slot]
        root = self._plan.slots[described.root]
        if root.contents is not None:
            value: Any = root.contents
        elif root.handle is not None:
            value = root.handle.array()
        elif described.root in self._values:
            value = self._values[described.root]
        else:
            value = self._fetch(slot)
        if (
            isinstance(value, np.ndarray)
            and isinstance(described.type, TensorType)
            and root.bound is None
            and described.root != slot
        ):
            value = value.reshape(described.type.shape)  # type: ignore[arg-type]
        self._values[slot] = value
        return value

    def _fetch(self, slot: int) -> Array:
        described = self._plan.slots[slot]
        root = self._plan.slots[described.root]
        kind = described.type
        assert isinstance(kind, TensorType)
        array = np.empty(kind.shape, numpy_dtype(kind.dtype))  # type: ignore[arg-type]
        count = np.zeros(1, np.int64)
        stream = self._context.compute
        stream.copy_to_host(array.ctypes.data, self._binding.address_of(Place(slot)), array.nbytes)
        if root.count is not None:
            stream.copy_to_host(count.ctypes.data, self._binding.address_of(Place(root.count)), 8)
        stream.synchronize()
        self._context.model.count_fetch(array.nbytes)
        if root.bound is not None:
            array = array[tuple(slice(int(count[0])) if a == root.bound.axis else slice(None) for a in range(array.ndim))]
        return array

    def _send(self, slot: int, value: Any) -> None:
        array = np.ascontiguousarray(value)
        stream = self._context.compute
        stream.copy_to_device(self._binding.address_of(Place(slot)), array.ctypes.data, array.nbytes)
        stream.synchronize()  # the array is pageable and may go
        self._context.model.count_send(array.nbytes)


def _own(value: Any) -> Any:
    if isinstance(value, list):
        return [_own(item) for item in value]
    return value.copy() if isinstance(value, np.ndarray) else value

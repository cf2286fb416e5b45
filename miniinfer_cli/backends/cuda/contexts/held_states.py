"""The states that a context holds on the device: their memory, and what changes it, in order on the stream that computes."""

import contextlib
import math
from collections.abc import Sequence

from miniinfer_cli.backends.cuda.contexts.io_slot import IoSlot
from miniinfer_cli.backends.cuda.contract.program import CudaProgram, nbytes_of
from miniinfer_cli.backends.cuda.contract.protocols import Device, Memory, Stream
from miniinfer_cli.backends.cuda.contract.site import static_shape
from miniinfer_cli.backends.cuda.contract.types import element_nbytes
from miniinfer_cli.ir import TensorType
from miniinfer_cli.ops.budget import current


class HeldStates:
    """The memory of each state, in the order of the graph's pairs; nothing before ``hold``."""

    def __init__(self, device: Device, stream: Stream) -> None:
        self._device = device
        self._stream = stream
        self._memory: tuple[Memory, ...] = ()
        self.kinds: tuple[TensorType, ...] = ()
        """The types of what is held."""

    def address(self, number: int) -> int:
        """Where a state lies."""
        return self._memory[number].address

    def hold(self, kinds: Sequence[TensorType]) -> None:
        """Takes memory for states of these types, all zeros; nothing may be under way, and what was held goes.

        Raises LimitExceeded where the inference may not have it, OutOfMemoryError where there is none, and then holds nothing.
        """
        self.drop()
        sizes = [nbytes_of(kind) for kind in kinds]
        budget = current()
        if budget is not None:
            budget.expect(sum(sizes), "memory for the states of the context")
        with contextlib.ExitStack() as stack:
            held: list[Memory] = []
            for size in sizes:
                held.append(self._device.allocate(max(size, 1), "a state of the context"))
                stack.callback(held[-1].close)
                if size:
                    self._stream.fill(held[-1].address, 0, size)
            stack.pop_all()
        self._memory, self.kinds = tuple(held), tuple(kinds)

    def drop(self) -> None:
        """Frees the memory; nothing may be under way. May be called twice."""
        memory, self._memory, self.kinds = self._memory, (), ()
        with contextlib.ExitStack() as stack:  # which goes on when one of them fails
            for held in memory:
                stack.callback(held.close)

    def clear(self, number: int, axis: int, index: int) -> None:
        """Zeros at ``index`` along ``axis`` of a state, behind what is enqueued."""
        shape = static_shape(self.kinds[number])
        inner = math.prod(shape[axis + 1 :]) * element_nbytes(self.kinds[number].dtype)
        for outer in range(math.prod(shape[:axis]) if inner else 0):
            self._stream.fill(self.address(number) + (outer * shape[axis] + index) * inner, 0, inner)

    def copy_of(self, other: "HeldStates") -> None:
        """Takes what another context holds, of the same types, where nothing is under way; waits for the copies."""
        for number, kind in enumerate(self.kinds):
            if nbytes := nbytes_of(kind):
                self._stream.copy_on_device(self.address(number), other.address(number), nbytes)
        self._stream.synchronize()  # so that the other may go

    def replace(self, made: CudaProgram, slot: IoSlot) -> None:
        """Enqueues the replacing of states by what a program computed in ``slot``, in front of all that comes."""
        for number, state in enumerate(made.states):
            nbytes = made.slots[state.past].nbytes
            if state.present is not None and nbytes:
                offset = made.io.outputs[made.slots[state.present].root]
                self._stream.copy_on_device(self.address(number), slot.device_out.address + offset, nbytes)

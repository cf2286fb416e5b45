"""A program performed step by step over memory with guards: every value has a buffer of its own, so no stray write is hidden."""

import ctypes
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from miniinfer_cli.backends.cuda.contract.parameters import pack_parameters
from miniinfer_cli.backends.cuda.contract.program import CudaProgram, DeviceStep, Place, Slot
from miniinfer_cli.backends.cuda.contract.steps import Copy, Derived, Fill, Launch, LibraryCall, Operand
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.tensor_map import TensorMap
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.ir import Array, TensorType, dtype_of, numpy_dtype
from tests.backends.cuda import numpy_library
from tests.backends.cuda.unrolling import unrolled
from tests.emulation.architectures import compile_for_a_gpu
from tests.emulation.compiler import load
from tests.emulation.poison import poison
from tests.emulation.stream import check_launch
from tests.emulation.tensor_map import encode_readable

NVRTC = bool(os.environ.get("MINIINFER_NVRTC"))
"""Whether every kernel that runs here is compiled for a GPU, too; ``test_kernel_files.py`` compiles some of every file anyway."""
GUARD = 512  # bytes of a known pattern around every buffer


class RunsOnTheHost(AssertionError):
    """A step of the program is the host's: its node has no lowering, or its lowering refused."""


class Buffer:
    """Bytes with a guard on either side, poisoned."""

    def __init__(self, nbytes: int) -> None:
        self._raw = np.full(nbytes + 2 * GUARD + 256, 0xA5, np.uint8)
        start = GUARD + -(self._raw.ctypes.data + GUARD) % 256
        self.bytes = self._raw[start : start + nbytes]
        self.address = self._raw.ctypes.data + start
        self._inside = (start, start + nbytes)
        self.bytes[:] = poison(nbytes)

    def check(self) -> None:
        """Raises AssertionError when something was written before or behind the buffer."""
        start, stop = self._inside
        assert (self._raw[:start] == 0xA5).all(), "a kernel wrote before its buffer"
        assert (self._raw[stop:] == 0xA5).all(), "a kernel wrote behind its buffer"

    def view(self, dtype: Any, shape: Sequence[int]) -> Array:
        """The first bytes as an array."""
        count = int(np.prod(shape, dtype=np.int64))
        found: Array = self.bytes[: count * np.dtype(dtype).itemsize].view(dtype).reshape(shape)
        return found


def perform_program(program: CudaProgram, inputs: Sequence[Array], target: Target) -> list[Array]:
    """The program's outputs, each cut to its count. Raises RunsOnTheHost, and AssertionError for a write where none belongs."""
    return _Performance(program, target).run(inputs)


class _Performance:
    def __init__(self, program: CudaProgram, target: Target) -> None:
        self._program = program
        self._target = target
        self._buffers: dict[int, Buffer] = {}
        self._scratch: dict[int, Buffer] = {}

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        program = self._program
        for number, array in zip(program.input_slots, inputs, strict=True):
            self._hold(number, array)
        for number, slot in enumerate(program.slots):
            if slot.root == number and slot.origin not in ("input", "host"):
                contents = self._contents(slot)
                if contents is None:
                    self._buffers[number] = Buffer(slot.nbytes)
                else:
                    self._hold(number, contents)
        for number, step in enumerate(program.steps):
            if not isinstance(step, DeviceStep):
                raise RunsOnTheHost(f"{step.kind} runs on the host: {step.reason}")
            self._scratch[number] = Buffer(step.scratch_nbytes)
            for action in unrolled(step.actions):
                if isinstance(action, LibraryCall):
                    assert self._target.supports(action.problem), f"no library solves {action.problem}"
                _perform(action, self._address)
        for buffer in (*self._buffers.values(), *self._scratch.values()):
            buffer.check()
        for number, array in zip(program.input_slots, inputs, strict=True):
            assert self._buffers[number].bytes.tobytes() == np.ascontiguousarray(array).tobytes(), "a kernel wrote into an input"
        return [self._result(number) for number in program.output_slots]

    def _hold(self, number: int, array: Array) -> None:
        buffer = self._buffers[number] = Buffer(array.nbytes)
        buffer.view(array.dtype, array.shape)[...] = array

    def _contents(self, slot: Slot) -> Array | None:
        if slot.derived is not None:
            return self._derive(slot.derived)
        return slot.contents if slot.contents is not None else slot.handle.array() if slot.handle is not None else None

    def _derive(self, derived: Derived) -> Array:
        arrays = [s.array() for s in derived.sources]
        kinds = [TensorType(dtype_of(a), a.shape) for a in arrays]
        (array,) = perform_program(make_program(derived.graph, kinds, self._target), arrays, self._target)
        return array

    def _address(self, place: Place) -> int:
        if place.scratch:
            return self._scratch[place.number].address + place.offset
        behind = self._program.behind_root(place)
        return self._buffers[behind.number].address + behind.offset

    def _result(self, number: int) -> Array:
        slot = self._program.slots[number]
        assert isinstance(slot.type, TensorType) and slot.type.shape is not None
        whole = self._buffers[slot.root].view(numpy_dtype(slot.type.dtype), slot.type.shape)  # type: ignore[arg-type]
        if slot.bound is None:
            return whole.copy()
        assert slot.count is not None
        count, axis = int(self._buffers[slot.count].view(np.int64, (1,))[0]), slot.bound.axis
        assert 0 <= count <= whole.shape[axis]
        return whole[(slice(None),) * axis + (slice(count),)].copy()


def _perform(action: Any, address: Callable[[Any], int]) -> None:
    match action:
        case Copy(target, source, nbytes):
            ctypes.memmove(address(target), address(source), nbytes)
        case Fill(target, byte, nbytes):
            ctypes.memset(address(target), byte, nbytes)
        case Launch():
            launch(action, address)
        case LibraryCall(problem, operands):
            numpy_library.perform(problem, [address(o) for o in operands])
        case _:
            raise TypeError(f"no such action: {action!r}")


def launch(action: Launch[Any], address: Callable[[Any], int]) -> None:
    """One launch on the emulated device, under the limits of a real one."""
    check_launch(action.grid, action.block, action.shared_nbytes, action.attributes)
    parameters = pack_parameters([_value(a, address) for a in action.arguments])
    if NVRTC:
        compile_for_a_gpu(action.kernel)
    address_of_table = ctypes.c_void_p(parameters.address)
    load(action.kernel)(action.grid, action.block, action.shared_nbytes, address_of_table, action.attributes)


def _value(argument: Any, address: Callable[[Any], int]) -> Any:
    match argument:
        case Operand() | Place():
            return np.uint64(address(argument))
        case TensorMap():
            return encode_readable(argument, address(argument.operand))
    return argument

"""Arrays on the device for the tests of the libraries: guarded, poisoned, at any offset, and what may differ from float64."""

import itertools
import zlib

import numpy as np

from miniinfer_cli.backends.cuda.contract.problems import Compute
from miniinfer_cli.backends.cuda.driver.device import Device
from miniinfer_cli.backends.cuda.driver.stream import Stream
from miniinfer_cli.ir import Array, DType, numpy_dtype

GUARD = 512  # bytes before and behind, which nothing may write
TOLERANCES = {
    (DType.F64, Compute.F64): 1e-12,
    (DType.F32, Compute.F32): 1e-5,
    (DType.F32, Compute.TF32): 5e-3,
    (DType.F16, Compute.F32): 1e-2,
    (DType.BF16, Compute.F32): 5e-2,
    (DType.I32, Compute.I32): 0.0,
}
"""The relative error in the Frobenius norm, by the result's type and the way to compute."""
_asked = itertools.count()


def numbers_for(problem: object) -> np.random.Generator:
    """Random numbers, others each time: equal problems that run side by side must not have equal operands. Prints the seed."""
    seed = [zlib.crc32(repr(problem).encode()), next(_asked)]
    print(f"numpy.random.default_rng({seed}) for {problem}")
    return np.random.default_rng(seed)


class Operand:
    """An array of ``count`` elements on the device. ``address`` is ``shift`` bytes past a multiple of 256."""

    def __init__(self, device: Device, stream: Stream, dtype: DType, count: int, shift: int = 0) -> None:
        self.dtype = numpy_dtype(dtype)
        self._stream = stream
        self._nbytes = count * self.dtype.itemsize
        self._memory = device.allocate(self._nbytes + 2 * GUARD + shift)
        self._start = GUARD + shift
        self.address = self._memory.address + self._start
        stream.fill(self._memory.address, 0xFF, self._memory.nbytes)  # NaN in every float type

    def write(self, array: Array) -> None:
        """Copies the elements in; waits."""
        flat = np.ascontiguousarray(array, self.dtype).reshape(-1)
        assert flat.nbytes == self._nbytes
        self._stream.copy_to_device(self.address, flat.ctypes.data, flat.nbytes)
        self._stream.synchronize()

    def read(self) -> Array:
        """The elements, flat, after all that was enqueued; fails when something beside them was written."""
        raw = np.empty(self._memory.nbytes, np.uint8)
        self._stream.copy_to_host(raw.ctypes.data, self._memory.address, raw.nbytes)
        self._stream.synchronize()
        outside = np.concatenate([raw[: self._start], raw[self._start + self._nbytes :]])
        assert (outside == 0xFF).all(), "written beside the operand"
        return raw[self._start : self._start + self._nbytes].view(self.dtype)


def random_array(random: np.random.Generator, dtype: DType, shape: tuple[int, ...], scale: float = 1.0) -> Array:
    """Normal numbers, or small whole ones for integers, as the type holds them."""
    if dtype.is_integer:
        return random.integers(-8, 9, shape).astype(numpy_dtype(dtype))
    return (random.standard_normal(shape) * scale).astype(numpy_dtype(dtype))


def relative_error(got: Array, expected: Array) -> float:
    """The distance over the expected norm; infinite where something is not finite."""
    difference = np.linalg.norm((got.astype(np.float64) - expected).reshape(-1))
    norm = float(np.linalg.norm(expected.reshape(-1)))
    return float(difference) / max(norm, 1e-30) if np.isfinite(difference) else float("inf")


def assert_close(got: Array, expected: Array, dtype: DType, compute: Compute, what: object) -> None:
    """Fails with the problem when the error is above what TOLERANCES allows."""
    error = relative_error(got, expected)
    assert error <= TOLERANCES[dtype, compute], f"relative error {error:.3g} of {what}"

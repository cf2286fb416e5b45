"""Programs over rows of three numbers, what to feed them, and what an array on the emulated device holds."""

import ctypes

import numpy as np

from miniinfer_cli.backends.cuda.arrays.device_array import DeviceArray

PAIR = """
graph main(a: f32[n,3], b: f32[n,3]) {
  d = Sub(a, b)
  return d
}
"""

TRIPLE = """
graph main(x: f32[batch,3]) {
  two: f32[] = const 2.0
  y = Mul(x, two)
  z = Add(y, x)
  return tripled=z
}
"""


def rows(n: int, first: float = 0.0) -> np.ndarray:
    """f32[n,3] that counts up from ``first``."""
    return (np.arange(3 * n, dtype=np.float32) + np.float32(first)).reshape(n, 3)


def contents(array: DeviceArray) -> np.ndarray:
    """What the array holds, which the emulated device has in the host's memory."""
    raw = (ctypes.c_uint8 * array.nbytes).from_address(array.address)
    return np.frombuffer(raw, np.uint8).view(array.dtype).reshape(array.shape)

"""Cases of matrix instructions: every type, random columns, layouts and swizzles, a in shared memory or in registers."""

from typing import Any

import ml_dtypes
import numpy as np

from tests.sm90_cases.case import Case, swizzled

DTYPES: tuple[tuple[str, Any, int], ...] = (("f16", np.float16, 16), ("bf16", ml_dtypes.bfloat16, 16), ("f32", np.float32, 8))
BYTES = ((np.int8, np.int8), (np.int8, np.uint8), (np.uint8, np.int8), (np.uint8, np.uint8), (ml_dtypes.float8_e4m3fn,) * 2)
"""Types of a and b under 16 bits."""
_CUT_OFF = 2.0**-9
"""Of the sum of products without signs, what two instructions cut off at most: each term ends 13 bits behind the largest."""
_DIGITS = 13
_NAMES = {np.int8: "i8", np.uint8: "u8", ml_dtypes.float8_e4m3fn: "f8e4m3fn"}
_BODY = """  MI_TILES(room);
  for (int i = threadIdx.x; i < nbytes; i += 128) room[i] = image[i];
  fence_for_copies();
  __syncthreads();
  u32 at = shared_address(room);
  {sum} d[{n} / 2];
  for (int i = 0; i < {n} / 2; i++) d[i] = ({sum})i;
  {held}
  hold(d);
  fence_sums();
  {first}
  {second}
  close_products();
  await_products<0>();
  hold(d);
  for (int i = 0; i < {n} / 2; i++) reinterpret_cast<{sum}*>(result)[threadIdx.x * ({n} / 2) + i] = d[i];"""


def fragment(matrix: np.ndarray) -> np.ndarray:
    """A matrix of 64 rows as its 128 threads have it."""
    columns = matrix.shape[1]
    found = np.empty((128, columns // 2), matrix.dtype)
    for thread in range(128):
        for i in range(columns // 2):
            row = thread // 32 * 16 + thread % 32 // 4 + i // 2 % 2 * 8
            found[thread, i] = matrix[row, i // 4 * 8 + thread % 4 * 2 + i % 2]
    return found


def _held(a: np.ndarray) -> np.ndarray:
    """Rows of a as registers: four words of each of 128 threads."""
    words = 4 // a.itemsize
    found = np.empty((128, 4, words), a.dtype)
    for thread in range(128):
        for register in range(4):
            row = thread // 32 * 16 + thread % 32 // 4 + register % 2 * 8
            k = register // 2 * 4 * words + thread % 4 * words
            found[thread, register] = a[row, k : k + words]
    return found.view(np.uint32).reshape(128, 4)


class _Layout:
    """Two tiles of k behind each other in an image of shared memory: where elements lie, and what a descriptor says of it."""

    def __init__(self, rng: np.random.Generator, rows: int, k: int, itemsize: int, *, turned: bool, swizzle: int) -> None:
        width = swizzle or 16
        self.turned, self.swizzle, self.width, self.itemsize = turned, swizzle, width, itemsize
        gaps = 1024 if swizzle else 16 * int(rng.integers(0, 3))
        if not turned and swizzle:
            groups, self.stride, self.leading = -(-rows // 8), 8 * width * int(rng.integers(1, 3)), 16
            self.nbytes = groups * self.stride
        elif not turned:
            self.leading = 128 + gaps
            self.stride = 2 * k * itemsize // 16 * self.leading
            self.nbytes = -(-rows // 8) * self.stride
        else:
            per = width // itemsize
            self.stride = 8 * width
            self.leading = self.stride * 2 * k // 8
            self.nbytes = -(-rows // per) * self.leading
        self.nbytes = -(-self.nbytes // 1024) * 1024
        # Bytes from the first tile of k to the second.
        self.step = k // 8 * self.stride if turned else k * itemsize if swizzle else k * itemsize // 16 * self.leading

    def put(self, image: np.ndarray, start: int, matrix: np.ndarray) -> None:
        """Elements [row, k] at their places."""
        for row, k in np.ndindex(*matrix.shape):
            x = k * self.itemsize
            if not self.turned and self.swizzle:
                at = row // 8 * self.stride + row % 8 * self.width + x
            elif not self.turned:
                at = row // 8 * self.stride + x // 16 * self.leading + row % 8 * 16 + x % 16
            else:
                y = row * self.itemsize
                at = y // self.width * self.leading + k // 8 * self.stride + k % 8 * self.width + y % self.width
            place = swizzled(start + at, self.swizzle)
            image[place : place + self.itemsize] = matrix[row, k : k + 1].view(np.uint8)

    def descriptor(self, start: int) -> str:
        """The call that makes it."""
        return f"tile<{self.swizzle}>(at + {start}, {self.leading}, {self.stride})"


def product_case(rng: np.random.Generator, seed: int) -> Case:
    """Two steps of k; the second adds to the first, which begins at 0 or at what is there."""
    name, dtype, k = DTYPES[seed % 3]
    n = 8 * int(rng.integers(1, 33))
    in_registers = bool(rng.integers(3) == 0)
    itemsize = np.dtype(dtype).itemsize

    def layout(rows: int, *, turnable: bool) -> _Layout:
        while True:
            turned = turnable and itemsize == 2 and bool(rng.integers(2))
            swizzle = int(rng.choice([32, 64, 128] if turned else [0, 64, 128]))
            if not (turned and rows % (max(swizzle, 16) // itemsize)):
                return _Layout(rng, rows, k, itemsize, turned=turned, swizzle=swizzle)

    left, right = layout(64, turnable=not in_registers), layout(n, turnable=True)
    a, b = (rng.standard_normal((rows, 2 * k)).astype(np.float32) for rows in (64, n))
    if dtype is np.float32:  # what TF32 leaves of them
        a, b = ((v.view(np.uint32) & 0xFFFFE000).view(np.float32) for v in (a, b))
    a, b = a.astype(dtype), b.astype(dtype)
    image = np.zeros(left.nbytes + right.nbytes, np.uint8)
    left.put(image, 0, a)
    right.put(image, left.nbytes, b)
    adds = bool(rng.integers(2))
    expected = fragment(a.astype(np.float64) @ b.astype(np.float64).T) + (np.arange(n // 2) if adds else 0)
    calls = []
    for step in range(2):
        flags = f"{str(right.turned).lower()}"
        right_tile = right.descriptor(left.nbytes + step * right.step)
        accumulate = "true" if step or adds else "false"
        if in_registers:
            calls.append(f"multiply<{name}, {flags}>(d, a{step}, {right_tile}, {accumulate});")
        else:
            left_tile = left.descriptor(step * left.step)
            calls.append(f"multiply<{name}, {str(left.turned).lower()}, {flags}>(d, {left_tile}, {right_tile}, {accumulate});")
    held = "const u32* mine = held + threadIdx.x * 4;\n  u32 a0[4], a1[4];\n"
    held += "  for (int i = 0; i < 4; i++) a0[i] = mine[i], a1[i] = mine[512 + i];"
    return Case(
        f"{name} n{n} {'registers' if in_registers else left.swizzle} {right.swizzle} turned {left.turned} {right.turned}",
        "wgmma",
        "const u8* image, const u32* held, int nbytes",
        _BODY.format(n=n, sum="float", held=held if in_registers else "", first=calls[0], second=calls[1]),
        (image, np.stack([_held(a[:, :k]), _held(a[:, k:])]), np.int32(image.nbytes)),
        np.zeros((128, n // 2), np.float32),
        expected,
        shared_nbytes=image.nbytes,
        rtol=1e-5,
    )


def bytes_case(rng: np.random.Generator, seed: int) -> Case:
    """The same of bytes, along k: whole numbers, whose sums are exact, or f8e4m3fn, whose sums a matrix unit cuts off."""
    left_type, right_type = BYTES[seed % len(BYTES)]
    is_whole = left_type is not ml_dtypes.float8_e4m3fn
    widths = [8, 16, 24, *range(32, 257, 16)] if is_whole else range(8, 257, 8)
    n, k = int(rng.choice(widths)), 32
    left, right = (_Layout(rng, rows, k, 1, turned=False, swizzle=int(rng.choice([0, 64, 128]))) for rows in (64, n))
    a, b = (_numbers(rng, kind, (rows, 2 * k)) for kind, rows in ((left_type, 64), (right_type, n)))
    image = np.zeros(left.nbytes + right.nbytes, np.uint8)
    left.put(image, 0, a)
    right.put(image, left.nbytes, b)
    adds = bool(rng.integers(2))
    expected = fragment(a.astype(np.float64) @ b.astype(np.float64).T) + (np.arange(n // 2) if adds else 0)
    if not is_whole:
        expected = np.broadcast_to(np.arange(n // 2) * float(adds), (128, n // 2))
        for step in (slice(0, k), slice(k, 2 * k)):
            terms = a[:, None, step].astype(np.float64) * b[None, :, step].astype(np.float64)
            expected = cut_off_sums(np.stack([fragment(terms[:, :, i]) for i in range(k)] + [expected], axis=-1))
    types = ", ".join(_NAMES[kind] for kind in ((left_type, right_type) if is_whole else (left_type,)))
    calls = []
    for step in range(2):
        tiles = left.descriptor(step * left.step), right.descriptor(left.nbytes + step * right.step)
        calls.append(f"multiply<{types}>(d, {', '.join(tiles)}, {'true' if step or adds else 'false'});")
    return Case(
        f"{types} n{n} {left.swizzle} {right.swizzle}",
        "wgmma",
        "const u8* image, int nbytes",
        _BODY.format(n=n, sum="int" if is_whole else "float", held="", first=calls[0], second=calls[1]),
        (image, np.int32(image.nbytes)),
        np.zeros((128, n // 2), np.int32 if is_whole else np.float32),
        expected.astype(np.int32) if is_whole else expected,
        shared_nbytes=image.nbytes,
        rtol=0.0 if is_whole else 1e-3,
        slack=None if is_whole else fragment(np.abs(a.astype(np.float64)) @ np.abs(b.astype(np.float64)).T + n) * _CUT_OFF,
    )


def cut_off_sums(terms: np.ndarray) -> np.ndarray:
    """What an H200 makes of terms of floats of 8 bits, along the last axis: f64, exact in f32.

    Each is cut off toward zero 13 bits behind the exponent of the largest, and so is what they sum up to.
    """
    cut = _cut(terms, np.abs(terms).max(axis=-1, keepdims=True)).sum(axis=-1)
    return _cut(cut, np.abs(cut))


def _cut(numbers: np.ndarray, largest: np.ndarray) -> np.ndarray:
    steps = np.ldexp(1.0, np.frexp(largest)[1] - 1 - _DIGITS)
    return np.trunc(numbers / steps) * steps


def _numbers(rng: np.random.Generator, kind: Any, shape: tuple[int, ...]) -> np.ndarray:
    if kind is ml_dtypes.float8_e4m3fn:
        return rng.standard_normal(shape).astype(kind)
    info = np.iinfo(kind)
    return rng.integers(info.min, info.max, shape, endpoint=True).astype(kind)

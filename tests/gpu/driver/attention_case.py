"""Attention for the tests of cuDNN: problems, operands on the device, and results in float64."""

from collections.abc import Sequence

import numpy as np

from miniinfer_cli.backends.cuda.contract.problems import AttentionProblem, Compute
from miniinfer_cli.backends.cuda.driver.device import Device
from miniinfer_cli.backends.cuda.driver.stream import Stream
from miniinfer_cli.ir import Array, DType
from tests.gpu.driver.operands import Operand, assert_close, numbers_for, random_array


def attention(
    dtype: DType,
    batch: int,
    heads: int,
    kv_heads: int,
    q_length: int,
    kv_length: int,
    size: int = 64,
    v_size: int | None = None,
    *,
    heads_inside: bool = True,
    causal: bool = False,
    mask_shape: tuple[int, int, int, int] | None = None,
) -> AttentionProblem:
    """Dense operands. ``heads_inside``: laid out as batch, length, heads, size, as a projection leaves them."""
    v_size = v_size or size

    def strides(heads: int, length: int, size: int) -> tuple[int, int, int, int]:
        whole = heads * length * size
        return (whole, size, heads * size, 1) if heads_inside else (whole, length * size, size, 1)

    return AttentionProblem(
        *(dtype, batch, heads, kv_heads, q_length, kv_length, size, v_size),
        q_strides=strides(heads, q_length, size),
        k_strides=strides(kv_heads, kv_length, size),
        v_strides=strides(kv_heads, kv_length, v_size),
        y_strides=strides(heads, q_length, v_size),
        scale=size**-0.5,
        causal=causal,
        mask_shape=mask_shape,
    )


def softmax(x: Array) -> Array:
    """Over the last axis."""
    e = np.exp(x - x.max(-1, keepdims=True))
    shares: Array = e / e.sum(-1, keepdims=True)
    return shares


class AttentionCase:
    """Operands on the device, filled, and the result in float64. ``packed``: Q, K and V are slices of one buffer."""

    def __init__(self, device: Device, stream: Stream, p: AttentionProblem, *, packed: bool = False) -> None:
        self.problem = p
        random = numbers_for(p)
        shapes = [
            ((p.batch, p.heads, p.q_length, p.size), p.q_strides),
            ((p.batch, p.kv_heads, p.kv_length, p.size), p.k_strides),
            ((p.batch, p.kv_heads, p.kv_length, p.v_size), p.v_strides),
        ]
        self.operands = []
        views, starts = [], [0, 0, 0]
        if packed:
            starts = [0, p.heads * p.size, 2 * p.heads * p.size]
            buffer, flat = self._filled(device, stream, random, p.batch * p.q_length * 3 * p.heads * p.size)
        for (shape, strides), start in zip(shapes, starts, strict=True):
            if not packed:
                buffer, flat = self._filled(device, stream, random, self._extent(shape, strides))
            self.operands.append(buffer.address + start * flat.itemsize)
            inside = tuple(s * flat.itemsize for s in strides)
            views.append(np.lib.stride_tricks.as_strided(flat[start:], shape, inside).astype(np.float64))
        self._y_shape = (p.batch, p.heads, p.q_length, p.v_size)
        self.y = Operand(device, stream, p.dtype, self._extent(self._y_shape, p.y_strides))
        self.operands.append(self.y.address)
        q, k, v = views
        k, v = (np.repeat(x, p.heads // p.kv_heads, axis=1) for x in (k, v))
        scores = p.scale * q @ np.swapaxes(k, 2, 3)
        if p.mask_shape is not None:
            mask = random_array(random, p.dtype, p.mask_shape)
            mask[random.random(p.mask_shape) < 0.2] = -np.inf
            mask[..., 0] = 0  # no query without a key
            self.mask = Operand(device, stream, p.dtype, mask.size)
            self.mask.write(mask)
            self.operands.append(self.mask.address)
            scores = scores + mask.astype(np.float64)
        if p.causal:
            scores = np.where(np.tri(p.q_length, p.kv_length, dtype=bool), scores, -np.inf)
        self.expected = softmax(scores) @ v

    def _filled(self, device: Device, stream: Stream, random: np.random.Generator, count: int) -> tuple[Operand, Array]:
        flat = random_array(random, self.problem.dtype, (count,))
        operand = Operand(device, stream, self.problem.dtype, count)
        operand.write(flat)
        # Kept alive with the case.
        self.__dict__.setdefault("buffers", []).append(operand)
        return operand, flat

    @staticmethod
    def _extent(shape: Sequence[int], strides: Sequence[int]) -> int:
        return sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) + 1

    @property
    def addresses(self) -> list[int]:
        return self.operands

    def check(self) -> None:
        flat = self.y.read()
        strides = tuple(s * flat.itemsize for s in self.problem.y_strides)
        got = np.lib.stride_tricks.as_strided(flat, self._y_shape, strides)
        assert_close(got, self.expected, self.problem.dtype, Compute.F32, self.problem)

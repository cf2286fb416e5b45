"""cuDNN and cuBLASLt in numpy: library calls of lowerings, solved over the emulated device's memory."""

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from miniinfer_cli.backends.cuda.contract.problems import (
    Activation,
    AttentionProblem,
    Compute,
    ConvolutionProblem,
    MatmulProblem,
    Problem,
)
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.ir import Array, numpy_dtype
from miniinfer_cli.ops.convolve import Geometry, conv_channels_last
from miniinfer_cli.ops.convolve_transposed import Spread, prepare_conv_transpose

_LOG2E = np.float32(1.4426950408889634)


class Library:
    """What ``Target.supports`` is in a test: says yes where ``accepts`` does, and keeps the problems it was asked about."""

    def __init__(self, accepts: Callable[[Any], bool] = lambda problem: True) -> None:
        self._accepts = accepts
        self.asked: list[Problem] = []
        self.accepted: list[Problem] = []

    def supports(self, problem: Problem) -> bool:
        self.asked.append(problem)
        answer = self._accepts(problem)
        if answer:
            self.accepted.append(problem)
        return answer

    def target(self, **options: Any) -> Target:
        """A device with this library."""
        return Target(supports=self.supports, **options)


def perform(problem: Problem, addresses: Sequence[int]) -> None:
    """Solves ``problem`` over memory: the operands' addresses, in the order that the problem's class documents."""
    solve(problem, _views(problem, addresses))


def solve(problem: Problem, arrays: Sequence[Array]) -> None:
    """Writes the result of ``problem`` into the array of its output; ``arrays`` are its operands in order."""
    match problem:
        case ConvolutionProblem():
            _convolve(problem, *arrays)
        case MatmulProblem():
            _multiply(problem, *arrays)
        case AttentionProblem():
            _attend(problem, *arrays)
        case _:
            raise AssertionError(f"numpy does not solve {type(problem).__name__}")


def at(address: int, dtype: Any, shape: Sequence[int]) -> Array:
    """The memory at ``address`` as an array."""
    kind = np.dtype(dtype)
    count = int(np.prod(shape, dtype=np.int64))
    raw = (ctypes.c_uint8 * (count * kind.itemsize)).from_address(address)
    found: Array = np.frombuffer(raw, np.uint8).view(kind).reshape(shape)
    return found


def _views(problem: Problem, addresses: Sequence[int]) -> list[Array]:
    match problem:
        case ConvolutionProblem():
            shapes = [problem.x_shape, problem.w_shape, problem.y_shape]
            shapes += [(problem.y_shape[-1],)] if problem.bias else []
            shapes += [problem.y_shape] if problem.residual else []
            return [at(a, numpy_dtype(problem.dtype), s) for a, s in zip(addresses, shapes, strict=True)]
        case MatmulProblem():
            return _matrices(problem, addresses)
        case AttentionProblem():
            return _heads(problem, addresses)
        case _:
            raise AssertionError(f"numpy does not know the operands of {type(problem).__name__}")


ACTIVATIONS: dict[Activation, Callable[[Array], Array]] = {
    Activation.NONE: lambda x: x,
    Activation.RELU: lambda x: np.maximum(x, 0),
    Activation.GELU_TANH: lambda x: 0.5 * x * (1 + np.tanh(np.float32(0.7978845608028654) * (x + np.float32(0.044715) * x**3))),
}
"""Every activation that a problem may name, over f32."""


def _convolve(problem: ConvolutionProblem, x: Array, w: Array, y: Array, *others: Array) -> None:
    rest = list(others)
    wide_x, wide_w = x.astype(np.float32), w.astype(np.float32)
    bias: Array | None = rest.pop(0).astype(np.float32) if problem.bias else None
    p = problem
    total: Array
    assert p.y_shape[0] == p.x_shape[0]
    if p.transposed:
        total = np.empty(p.y_shape, np.float32)
        spread = Spread(p.strides, p.pads_begin, p.dilations, p.group)
        prepare_conv_transpose(np.ascontiguousarray(wide_x), np.ascontiguousarray(wide_w), bias, spread, out=total)()
    else:
        geometry = Geometry(p.strides, p.pads_begin, p.pads_end, p.dilations, p.group)
        total = conv_channels_last(wide_x, wide_w, bias, geometry)
    assert total.shape == p.y_shape, f"{p} gives {total.shape}"
    if p.residual:
        total = total + rest.pop(0).astype(np.float32)
    y[...] = ACTIVATIONS[p.activation](total).astype(y.dtype)


def _matrices(problem: MatmulProblem, addresses: Sequence[int]) -> list[Array]:
    """Views of every operand: ``[batch, rows, columns]`` as stored, and the bias ``[n]``."""
    p = problem
    assert all(a % p.alignment == 0 for a in addresses), f"{p} over operands at {[hex(a) for a in addresses]}"
    stored_a, stored_b = (p.k, p.m) if p.transpose_a else (p.m, p.k), (p.n, p.k) if p.transpose_b else (p.k, p.n)
    forms = [(p.a, *stored_a, p.lda, p.stride_a), (p.b, *stored_b, p.ldb, p.stride_b), (p.d, p.m, p.n, p.ldd, p.stride_d)]
    forms += [forms[2]] if p.residual else []
    views = []
    for address, (dtype, rows, columns, ld, stride) in zip(addresses, forms, strict=False):
        row = ld or columns
        assert row >= columns or rows == 1
        item = numpy_dtype(dtype).itemsize
        flat = at(address, numpy_dtype(dtype), ((p.batch - 1) * stride + (rows - 1) * row + columns,))
        strides = (stride * item, row * item, item)
        views.append(np.lib.stride_tricks.as_strided(flat, (p.batch, rows, columns), strides))
    return [*views, at(addresses[-1], numpy_dtype(p.d), (p.n,))] if p.bias else views


def _multiply(problem: MatmulProblem, a: Array, b: Array, d: Array, *others: Array) -> None:
    p, rest = problem, list(others)
    assert p.batch == 1 or p.stride_d
    wide: Any = {Compute.F64: np.float64, Compute.I32: np.int32}.get(p.compute, np.float32)
    left, right = (a.swapaxes(1, 2) if p.transpose_a else a), (b.swapaxes(1, 2) if p.transpose_b else b)
    total = np.matmul(left.astype(wide), right.astype(wide)) * wide(p.alpha)
    if p.residual:
        total = total + rest.pop(0).astype(wide)
    if p.bias:
        total = total + rest.pop(0).astype(wide)
    d[...] = ACTIVATIONS[p.activation](total).astype(d.dtype)


def _heads(p: AttentionProblem, addresses: Sequence[int]) -> list[Array]:
    """Views of Q, K, V and Y, ``[batch, heads, length, size]``, and of the mask."""
    kind = numpy_dtype(p.dtype)
    forms = [
        ((p.batch, p.heads, p.q_length, p.size), p.q_strides),
        ((p.batch, p.kv_heads, p.kv_length, p.size), p.k_strides),
        ((p.batch, p.kv_heads, p.kv_length, p.v_size), p.v_strides),
        ((p.batch, p.heads, p.q_length, p.v_size), p.y_strides),
    ]
    views = []
    for address, (shape, strides) in zip(addresses, forms, strict=False):
        assert strides[3] == 1 and address % 16 == 0
        reach = 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        in_bytes = [s * kind.itemsize for s in strides]
        views.append(np.lib.stride_tricks.as_strided(at(address, kind, (reach,)), shape, in_bytes))
    if p.mask_shape is not None:
        assert p.mask_shape[0] in (1, p.batch) and p.mask_shape[1] in (1, p.heads)
        views.append(at(addresses[-1], kind, p.mask_shape))
    return views


def _attend(p: AttentionProblem, q: Array, k: Array, v: Array, y: Array, mask: Array | None = None) -> None:
    """A row that sees no key is NaN: nothing is said about it. For base 2, the highest score is scaled and rounded by itself."""
    wide = [a.astype(np.float32) for a in (q, *(np.repeat(a, p.heads // p.kv_heads, axis=1) for a in (k, v)))]
    scores = np.matmul(wide[0], wide[1].swapaxes(2, 3)) * np.float32(p.scale)
    if mask is not None:
        scores += mask.astype(np.float32)
    if p.causal:
        scores[..., ~np.tri(p.q_length, p.kv_length, dtype=np.bool_)] = -np.inf
    with np.errstate(invalid="ignore", over="ignore"):
        highest = scores.max(axis=-1, keepdims=True) * _LOG2E
        weights = np.exp2((scores.astype(np.float64) * _LOG2E - highest).astype(np.float32))
        y[...] = np.matmul(weights / weights.sum(axis=-1, keepdims=True), wide[2]).astype(y.dtype)

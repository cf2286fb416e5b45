"""Convolutions for the tests of cuDNN: problems, operands on the device, and results in float64."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from miniinfer_cli.backends.cuda.contract.problems import Activation, Compute, ConvolutionProblem
from miniinfer_cli.backends.cuda.driver.device import Device
from miniinfer_cli.backends.cuda.driver.stream import Stream
from miniinfer_cli.ir import Array, DType
from tests.gpu.driver.operands import Operand, assert_close, numbers_for, random_array


def convolution(
    dtype: DType, compute: Compute, x_shape: Sequence[int], kernel: Sequence[int], out: int, **o: Any
) -> ConvolutionProblem:
    """An ordinary convolution with ``out`` channels, its output's shape worked out; one number stands for every axis."""
    axes = len(kernel)
    group = o.pop("group", 1)
    strides, dilations, begin, end = (
        o.pop(name, (default,) * axes) for name, default in (("strides", 1), ("dilations", 1), ("begin", 0), ("end", 0))
    )
    sizes = tuple(
        (x_shape[1 + i] + begin[i] + end[i] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1 for i in range(axes)
    )
    w_shape, y_shape = (out, *kernel, x_shape[-1] // group), (x_shape[0], *sizes, out)
    windows = (tuple(strides), tuple(dilations), tuple(begin), tuple(end))
    return ConvolutionProblem(dtype, tuple(x_shape), w_shape, y_shape, *windows, group, compute=compute, **o)


def transposed(p: ConvolutionProblem) -> ConvolutionProblem:
    """The convolution from y's place to x's."""
    return replace(p, x_shape=p.y_shape, y_shape=p.x_shape, transposed=True)


def reference(p: ConvolutionProblem, x: Array, w: Array, bias: Array | None, z: Array | None) -> Array:
    """The convolution in float64, tap by tap."""
    axes = len(p.strides)
    wide, narrow = (p.y_shape, p.x_shape) if p.transposed else (p.x_shape, p.y_shape)
    padded = [wide[1 + i] + p.pads_begin[i] + p.pads_end[i] for i in range(axes)]
    space = np.zeros((wide[0], *padded, p.group, wide[-1] // p.group))
    inner = tuple(slice(p.pads_begin[i], p.pads_begin[i] + wide[1 + i]) for i in range(axes))
    other = np.zeros((*narrow[:-1], p.group, narrow[-1] // p.group))
    weights = w.reshape(p.group, -1, *w.shape[1:])
    if p.transposed:
        other[...] = x.reshape(other.shape)
    else:
        space[:, *inner] = x.reshape(wide[0], *wide[1:-1], p.group, -1)
    for tap in itertools.product(*(range(s) for s in w.shape[1:-1])):
        window = tuple(
            slice(t * p.dilations[i], t * p.dilations[i] + (narrow[1 + i] - 1) * p.strides[i] + 1, p.strides[i])
            for i, t in enumerate(tap)
        )
        at: tuple[Any, ...] = (slice(None), slice(None), *tap)
        part = weights[at]  # group, K of the group, C of the group
        if p.transposed:
            space[:, *window] += np.einsum("...gk,gkc->...gc", other, part)
        else:
            other += np.einsum("...gc,gkc->...gk", space[:, *window], part)
    total = (space[:, *inner] if p.transposed else other).reshape(p.y_shape)
    total = total + (0 if bias is None else bias) + (0 if z is None else z)
    return np.maximum(total, 0) if p.activation is Activation.RELU else total


class ConvolutionCase:
    """A convolution's operands on the device, filled, and its result in float64."""

    def __init__(self, device: Device, stream: Stream, p: ConvolutionProblem) -> None:
        self.problem = p
        random = numbers_for(p)
        terms = np.prod(p.w_shape[1:]) if not p.transposed else np.prod(p.w_shape) / p.w_shape[-1] / p.group
        shapes: list[tuple[tuple[int, ...], float]] = [(p.x_shape, 1.0), (p.w_shape, float(terms) ** -0.5)]
        shapes += [((p.y_shape[-1],), 1.0)] if p.bias else []
        shapes += [(p.y_shape, 1.0)] if p.residual else []
        arrays = [random_array(random, p.dtype, shape, scale) for shape, scale in shapes]
        self.inputs = []
        for array in arrays:
            self.inputs.append(Operand(device, stream, p.dtype, array.size))
            self.inputs[-1].write(array)
        self.y = Operand(device, stream, p.dtype, int(np.prod(p.y_shape)))
        x, w, *rest = [a.astype(np.float64) for a in arrays]
        bias = rest.pop(0) if p.bias else None
        z = rest.pop(0) if p.residual else None
        self.expected = reference(p, x, w, bias, z)

    @property
    def addresses(self) -> list[int]:
        x, w, *rest = (o.address for o in self.inputs)
        return [x, w, self.y.address, *rest]

    def poison(self) -> None:
        self.y.write(np.full(self.expected.size, np.nan))

    def result(self) -> Array:
        return self.y.read().reshape(self.expected.shape)

    def check(self) -> None:
        assert_close(self.result(), self.expected, self.problem.dtype, self.problem.compute, self.problem)

"""Convolutions of few channels as those of more: squares of pixels are folded into one, and a window's part of a row is a pixel.

A filter of 7 x 7 over 3 channels in steps of 2 so becomes one of 4 x 4 over 16 bytes in steps of 1; as rows of windows overlap in
memory, it is read as one of 4 x 1 over 64 bytes, whose pixels lie 16 bytes apart.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from miniinfer_cli.backends.cuda.contract.steps import Kernel, Launch, Operand
from miniinfer_cli.backends.cuda.contract.strides import row_major
from miniinfer_cli.backends.cuda.launching.grids import index_dtype, index_name, launch_over
from miniinfer_cli.backends.cuda.tactics.convolution.convolutions import Convolution
from miniinfer_cli.backends.cuda.tactics.products.product_sm90 import Windows
from miniinfer_cli.backends.cuda.tactics.products.weight_forms import Rearranged
from miniinfer_cli.ir import Graph, Value
from miniinfer_cli.ops import insert

_PACK = 16
_MOST_STEP, _MOST_FOLDED = 4, 64


@dataclass(frozen=True, slots=True)
class Folding:
    """``step`` pixels along each axis become one of ``folded`` bytes; ``kernel`` taps of those, and an image of ``rows`` by
    ``columns``."""

    conv: Convolution
    step: int
    folded: int
    kernel: tuple[int, int]
    rows: int
    columns: int

    @property
    def nbytes(self) -> int:
        """Of folded images."""
        return self.conv.x_shape[0] * self.rows * self.columns * self.folded

    @property
    def windows(self) -> Windows:
        """Those of the folded image: a row of a window is one tap."""
        images, _, width, _ = self.conv.y_shape
        row = self.columns * self.folded
        shape = (images, self.rows, width, self.kernel[1] * self.folded)
        return Windows(shape, (self.kernel[0], 1), (1, 1), (1, 1), (0, 0), (0, 0), (self.folded, row, self.rows * row))

    @property
    def rearranged(self) -> Rearranged:
        """The weights that go with it."""
        return Rearranged(f"by {self.kernel[0]}x{self.kernel[1]} squares of {self.step} in {self.folded}", self._weights)

    def _weights(self, graph: Graph, value: Value) -> Value:
        features, height, width, channels = self.conv.w_shape
        down, across = self.kernel
        pads = (0, 0, 0, 0, 0, down * self.step - height, across * self.step - width, 0)
        value = insert(graph, "Pad", value, _numbers(graph, pads))
        value = insert(graph, "Reshape", value, _numbers(graph, (features, down, self.step, across, self.step, channels)))
        value = insert(graph, "Transpose", value, perm=[0, 1, 3, 2, 4, 5])
        value = insert(graph, "Reshape", value, _numbers(graph, (features, down * across, self.step**2 * channels)))
        value = insert(graph, "Pad", value, _numbers(graph, (0, 0, 0, 0, 0, self.folded - self.step**2 * channels)))
        return insert(graph, "Reshape", value, _numbers(graph, (features, down * across * self.folded)))

    def launch(self, x: Operand, strides: Sequence[int] | None, y: Operand, fill: int, multiprocessors: int) -> Launch[Operand]:
        """Folds the images, which lie in ``strides``, None for dense ones; what lies outside of one is ``fill``, a byte."""
        conv, count = self.conv, self.nbytes // _PACK
        _, height, width, channels = conv.x_shape
        sizes = (height, width, channels, self.rows, self.columns, self.folded, self.step, *conv.begin, fill)
        index = index_dtype(max(self.nbytes, math.prod(conv.x_shape)))
        kernel = Kernel("fold_pixels", "fold.cu", (("MI_INDEX", index_name(max(self.nbytes, math.prod(conv.x_shape)))),))
        walk = np.array(strides or row_major(conv.x_shape), np.int64)
        return launch_over(kernel, count, (x, y, walk, index.type(count), np.array(sizes, np.int32)), multiprocessors)


def folding_of(conv: Convolution) -> Folding | None:
    """How a convolution of bytes is folded; None where it has another form, or too many channels."""
    plain = conv.channels_last and not conv.transposed and conv.group == 1 and len(conv.x_shape) == 4
    if not plain or 0 in conv.y_shape or any(d != 1 for d in conv.dilations) or conv.strides[0] != conv.strides[1]:
        return None
    step = conv.strides[0]
    folded = -(-step * step * conv.channels // _PACK) * _PACK
    if step > _MOST_STEP or folded > _MOST_FOLDED:
        return None
    taps = conv.spatial(conv.w_shape)
    down, across = -(-taps[0] // step), -(-taps[1] // step)
    height, width = conv.spatial(conv.y_shape)
    return Folding(conv, step, folded, (down, across), height + down - 1, width + across - 1)


def _numbers(graph: Graph, numbers: tuple[int, ...]) -> Value:
    return graph.add_constant(np.array(numbers, np.int64))

"""Convolutions of a few channels in steps of two, with which networks begin, by the kernel for many tokens on sm_90.

A pixel of three channels is too short for a tensor map. So the image is copied first, with four channels to a pixel, a border of
zeros, and rows in pairs: four channels of a row, then of the row below, lie beside each other. What eight columns of two rows
have is 64 elements in one piece, and a window is such pieces below each other. In steps of two columns these overlap, which a map
that is im2col does not mind: a place is 64 channels, two places away is the next. The weights are turned to that order once.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.cuda.contract.steps import Derived, Kernel, Launch, Operand
from miniinfer_cli.backends.cuda.contract.strides import row_major
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.tensor_map import map_fault
from miniinfer_cli.backends.cuda.contract.types import c_type, element_nbytes
from miniinfer_cli.backends.cuda.contract.work import Work
from miniinfer_cli.backends.cuda.launching.division import dividers
from miniinfer_cli.backends.cuda.launching.grids import index_dtype, index_name
from miniinfer_cli.backends.cuda.tactics.convolution.convolution_heuristic import CONVOLUTIONS, ConvolutionHeuristic
from miniinfer_cli.backends.cuda.tactics.convolution.convolutions import (
    PRODUCT_ACTIVATIONS,
    Convolution,
    ConvolutionOperands,
    Finish,
    product_of_rows,
)
from miniinfer_cli.backends.cuda.tactics.convolution.pixel_products import MANY_PIXELS
from miniinfer_cli.backends.cuda.tactics.products.few_tokens import Extra
from miniinfer_cli.backends.cuda.tactics.products.large_products import large_region_tactics, large_tactics, least_us
from miniinfer_cli.backends.cuda.tactics.products.product_endings import Following
from miniinfer_cli.backends.cuda.tactics.products.product_records import Operands, Product
from miniinfer_cli.backends.cuda.tactics.products.product_sm90 import Windows
from miniinfer_cli.ir import Constant, DType, Graph, TensorType
from miniinfer_cli.ops.insert import insert

WAY = "stem"
"""The first word of the keys of these tactics; the rest is the key of the product."""
_CHANNELS, _COLUMNS = 4, 8  # of a place, and of a piece
_PLACE = 2 * _CHANNELS  # elements
_PIECE = _COLUMNS * _PLACE
_BLOCK = 256


@dataclass(frozen=True, slots=True)
class _Stem:
    """A convolution whose windows are pieces of an image of ``pairs`` of rows by ``columns``, ``below`` each other so many."""

    conv: Convolution
    below: int

    @property
    def pairs(self) -> int:
        return self.conv.y_shape[1] + self.below - 1

    @property
    def columns(self) -> int:
        return 2 * (self.conv.y_shape[2] - 1) + _COLUMNS

    @property
    def places(self) -> int:
        """Of all images."""
        return self.conv.y_shape[0] * self.pairs * self.columns

    @property
    def nbytes(self) -> int:
        """Of the copy."""
        return self.places * _PLACE * element_nbytes(self.conv.dtype)

    @property
    def windows(self) -> Windows:
        images, _, columns, _ = self.conv.y_shape
        row = self.columns * _PLACE
        pitches = (2 * _PLACE, row, self.pairs * row)
        once = (1, 1)
        return Windows((images, self.pairs, columns, _PIECE), (self.below, 1), once, once, (0, 0), (0, 0), pitches)

    def product(self, finish: Finish) -> Product:
        k = self.below * _PIECE
        return replace(product_of_rows(self.conv, finish), k=k, lda=k, ldb=k)

    def weights(self, weights: Constant) -> Derived:
        """Those of each feature in the order of its window."""
        graph = Graph("weights")
        value = graph.add_input("w", TensorType(weights.dtype, weights.shape))
        features, height, width, channels = weights.shape
        ends = (0, 2 * self.below - height, _COLUMNS - width, _CHANNELS - channels)
        pads = np.array([0, 0, 0, 0, *ends], np.int64)
        value = insert(graph, "Pad", value, graph.add_constant(pads, "pads"))
        paired = np.array((features, self.below, 2, _COLUMNS, _CHANNELS), np.int64)
        value = insert(graph, "Reshape", value, graph.add_constant(paired, "paired"))
        value = insert(graph, "Transpose", value, perm=[0, 1, 3, 2, 4])
        rows = graph.add_constant(np.array((features, self.below * _PIECE), np.int64), "rows")
        graph.set_outputs([insert(graph, "Reshape", value, rows)])
        return Derived((weights,), f"rows of {features}x{height}x{width}x{channels} in pairs", graph)

    def copy(self, io: ConvolutionOperands, to: Operand) -> Launch[Operand]:
        """The launch that makes the image of pairs."""
        conv = self.conv
        _, height, width, channels = conv.x_shape
        strides = np.array(row_major(conv.x_shape) if io.x_strides is None else io.x_strides, np.int64)
        largest = max(self.places * _PLACE, math.prod(conv.x_shape))
        numbers = (height, width, channels, conv.begin[0], conv.begin[1], self.pairs, self.columns)
        values = (io.x, to, strides, *map(np.int32, numbers), dividers((self.columns, self.pairs)))
        defines = (("MI_T", c_type(conv.dtype)), ("MI_INDEX", index_name(largest)))
        kernel = Kernel("paired_rows", "paired_rows.cu", defines)
        return Launch(kernel, (-(-self.places // _BLOCK),), (_BLOCK,), (*values, index_dtype(largest).type(self.places)))


def stem_tactics(conv: Convolution, io: ConvolutionOperands, finish: Finish, target: Target) -> tuple[Tactic, ...]:
    """The convolution and its finish; none where it is no stem."""
    stem = _stem_of(conv, io)
    if stem is None or finish.activation not in PRODUCT_ACTIVATIONS:
        return ()
    extra = Extra(windows=stem.windows)
    products = large_tactics(stem.product(finish), _operands(io, finish), target, MANY_PIXELS, extra)
    return _behind_copy(stem, io, products)


def stem_region_tactics(
    conv: Convolution, io: ConvolutionOperands, finish: Finish, following: Following, target: Target
) -> tuple[Tactic, ...]:
    """The same with what follows: ``finish`` is the convolution's own, a bias or nothing."""
    stem = _stem_of(conv, io)
    if stem is None:
        return ()
    extra = Extra(windows=stem.windows)
    products = large_region_tactics(stem.product(finish), _operands(io, finish), following, target, MANY_PIXELS, extra)
    return _behind_copy(stem, io, products)


def prefers_stem(conv: Convolution, io: ConvolutionOperands, target: Target, table: ConvolutionHeuristic = CONVOLUTIONS) -> bool:
    """True where that is to take less time than the library, which has no fast kernels for so few channels."""
    stem = _stem_of(conv, io)
    if stem is None or target.arch != table.pixel_arch or not (conv.dtype.is_half or target.tf32):
        return False
    product = stem.product(Finish())
    if product.m < table.least_stem_pixels or product.n % 8:
        return False
    library_us = table.library_stem_us(conv, strided=io.x_strides is not None)
    moved = stem.nbytes + math.prod(conv.x_shape) * element_nbytes(conv.dtype)
    copied_us = table.pass_us + moved / table.pass_nbytes_per_us
    return copied_us + least_us(product, target, Extra(windows=stem.windows)) < table.many_gain * library_us


def _stem_of(conv: Convolution, io: ConvolutionOperands) -> _Stem | None:
    """None for what has no pieces, for weights that are computed, and where no map reads the windows."""
    plain = not conv.transposed and conv.channels_last and conv.group == 1 and len(conv.x_shape) == 4 and io.weights is not None
    if not plain or conv.dtype not in (DType.F16, DType.BF16, DType.F32) or 0 in (*conv.x_shape, *conv.y_shape, *conv.w_shape):
        return None
    height, width = conv.spatial(conv.w_shape)
    narrow = conv.channels <= _CHANNELS and width <= _COLUMNS and conv.taps > 1
    if not narrow or conv.strides != (2, 2) or conv.dilations != (1, 1):
        return None
    stem = _Stem(conv, -(-height // 2))
    return None if map_fault(stem.windows.seen(Operand.scratch(0), conv.dtype, 8)) else stem


def _behind_copy(stem: _Stem, io: ConvolutionOperands, products: tuple[Tactic, ...]) -> tuple[Tactic, ...]:
    moved = stem.nbytes + math.prod(stem.conv.x_shape) * element_nbytes(stem.conv.dtype)

    def behind(tactic: Tactic) -> Tactic:
        def emit(work: Work) -> None:
            assert io.weights is not None
            work.derive(stem.weights(io.weights))
            work.add(stem.copy(io, work.scratch(stem.nbytes)))
            tactic.emit(work)

        estimate = tactic.estimate + Estimate(0, moved)
        return replace(tactic, key=f"{WAY}, {tactic.key}", emit=emit, estimate=estimate, parts=(tactic.key,))

    return tuple(map(behind, products))


def _operands(io: ConvolutionOperands, finish: Finish) -> Operands:
    return Operands(Operand.scratch(0), Operand.derived(0), io.y, finish.residual, finish.bias)

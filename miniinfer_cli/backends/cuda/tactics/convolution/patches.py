"""Convolutions whose windows share no pixel: the windows as rows of a matrix, then a product with the weights.

A window of channels-last pixels is a row of ``window x channels`` numbers, in the order of the weights. Where the input is a view
of an image with the channels first, rows are taken in the order in which its numbers lie, and constant weights are turned to
that order once: so both sides of the copy are dense along the window. Where windows lie one behind the other, nothing is copied.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.cuda.contract.steps import Operand
from miniinfer_cli.backends.cuda.contract.strides import is_dense, row_major
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.types import element_nbytes
from miniinfer_cli.backends.cuda.contract.viewing import ALIGNMENT
from miniinfer_cli.backends.cuda.contract.work import Work
from miniinfer_cli.backends.cuda.tactics.convolution.convolution_kernels import transposed_weights
from miniinfer_cli.backends.cuda.tactics.convolution.convolutions import (
    PRODUCT_ACTIVATIONS,
    Convolution,
    ConvolutionOperands,
    Finish,
    Ints,
    product_of_rows,
)
from miniinfer_cli.backends.cuda.tactics.movement.transposing import permute_ways
from miniinfer_cli.backends.cuda.tactics.products.aligned_products import aligned_tactics
from miniinfer_cli.backends.cuda.tactics.products.library_products import library_tactics
from miniinfer_cli.backends.cuda.tactics.products.product_kernels import kernel_tactics
from miniinfer_cli.backends.cuda.tactics.products.product_records import Operands
from miniinfer_cli.backends.cuda.tactics.products.products import is_gemv

WAY = "patches"
"""The first word of the keys of these tactics; the rest is the key of the product."""


@dataclass(frozen=True, slots=True)
class PatchTactics:
    """The tactics by fast products, those of the library or of a single row, and those by our other products; the heuristic's
    favourites first."""

    fast: tuple[Tactic, ...] = ()
    others: tuple[Tactic, ...] = ()


def has_patches(conv: Convolution) -> bool:
    """True where windows share no pixel, hold no padding, and are more than the pixels one by one."""
    plain = not conv.transposed and not conv.is_depthwise and conv.channels_last and conv.group == 1 and conv.channels > 0
    if not plain or any(conv.begin) or any(conv.end) or 0 in conv.w_shape or 0 in conv.y_shape:
        return False
    windows = zip(conv.spatial(conv.w_shape), conv.dilations, conv.strides, conv.spatial(conv.y_shape), strict=True)
    apart = all((k - 1) * d + 1 <= s or count == 1 for k, d, s, count in windows)
    return apart and (conv.taps != 1 or any(s != 1 for s in conv.strides))


def prefers_patches(conv: Convolution, io: ConvolutionOperands) -> bool:
    """True where the product beats the library's convolution, and a row is a multiple of 16 bytes, which products want.

    That is where nothing is copied, and where a pixel is no multiple of 16 bytes, which keeps the library from its fast kernels:
    ViT's patches in f16 at batch 64 took it 561 us on an H200.
    """
    pixel = conv.channels * element_nbytes(conv.dtype)
    if not has_patches(conv) or pixel * conv.taps % ALIGNMENT:
        return False
    return pixel % ALIGNMENT != 0 or (io.x_strides is None and _Rows.of(conv, io).are_dense)


def patch_tactics(conv: Convolution, io: ConvolutionOperands, finish: Finish, target: Target) -> PatchTactics:
    """The ways of a convolution and what follows it by patches; none where it has none, or products do not do it."""
    if not has_patches(conv) or finish.activation not in PRODUCT_ACTIVATIONS:
        return PatchTactics()
    rows = _Rows.of(conv, io)
    x = io.x if rows.are_dense else Operand.scratch(0)
    w = Operand.derived(0) if rows.weights_turn else io.w
    constants = {io.w: io.weights} if io.weights is not None and not rows.weights_turn else {}
    product = product_of_rows(conv, finish)
    operands = Operands(x, w, io.y, finish.residual, finish.bias, constants=constants)

    def behind_rows(tactic: Tactic) -> Tactic:
        def emit(work: Work) -> None:
            rows.emit(work, conv, io, target)
            tactic.emit(work)

        estimate = tactic.estimate if rows.are_dense else tactic.estimate + Estimate(0, 2 * rows.nbytes)
        return replace(tactic, key=f"{WAY}, {tactic.key}", emit=emit, estimate=estimate, parts=(tactic.key,))

    aligned = aligned_tactics(product, operands, target)
    library = [behind_rows(t) for t in (*aligned.ahead, *library_tactics(product, operands, target))]
    by_way: dict[str, Tactic] = {}
    for tactic in kernel_tactics(product, operands, target):
        by_way.setdefault(tactic.key.partition(" in ")[0], behind_rows(tactic))
    ours = by_way.values()
    return PatchTactics((*ours, *library)) if is_gemv(product) else PatchTactics(tuple(library), tuple(ours))


@dataclass(frozen=True, slots=True)
class _Rows:
    """The windows: ``sizes`` of the axes of places and then of the window, and ``strides`` of the input along each.

    ``order``: the axes of the window, those of the kernel and then the channels, in the order of a row.
    """

    sizes: Ints
    strides: Ints
    order: Ints
    nbytes: int

    @staticmethod
    def of(conv: Convolution, io: ConvolutionOperands) -> "_Rows":
        image, *pixels, channel = row_major(conv.x_shape) if io.x_strides is None else io.x_strides
        window = (*conv.w_shape[1:-1], conv.channels)
        within = (*(d * s for d, s in zip(conv.dilations, pixels, strict=True)), channel)
        order = _by_distance(within) if io.weights is not None else tuple(range(len(window)))
        places = (image, *(step * s for step, s in zip(conv.strides, pixels, strict=True)))
        sizes = (*conv.y_shape[:-1], *(window[i] for i in order))
        strides = (*places, *(within[i] for i in order))
        return _Rows(sizes, strides, order, math.prod(sizes) * element_nbytes(conv.dtype))

    @property
    def are_dense(self) -> bool:
        """True where the input is the matrix as it lies."""
        return is_dense(self.sizes, self.strides)

    @property
    def weights_turn(self) -> bool:
        """True where the weights have another order."""
        return self.order != tuple(sorted(self.order))

    def emit(self, work: Work, conv: Convolution, io: ConvolutionOperands, target: Target) -> None:
        """The matrix, and the weights in its order, in the first buffers of their kinds."""
        if self.weights_turn:
            assert io.weights is not None
            work.derive(transposed_weights(io.weights, [0, *(i + 1 for i in self.order)]))
        if not self.are_dense:
            matrix, identity = work.scratch(self.nbytes), range(len(self.sizes))
            nbytes = element_nbytes(conv.dtype)
            _, make = permute_ways(matrix, io.x, nbytes, self.sizes, identity, target, strides=self.strides)[0]
            work.add(make())


def _by_distance(strides: Sequence[int]) -> Ints:
    """The axes, those along which neighbours lie furthest apart first."""
    return tuple(sorted(range(len(strides)), key=lambda i: -strides[i]))

"""Convolutions of several groups by the kernel for few features on sm_90: a group's pixels are tokens of its own.

A map of the images has groups as an axis, so that a copy has one group's channels, and zeros behind them. Where these are few,
several lie beside each other on the diagonal of one block of up to 64 channels and features, whose other weights are zeros.
"""

import math
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.cuda.contract.steps import Derived, Operand
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.tensor_map import map_fault
from miniinfer_cli.backends.cuda.contract.types import element_nbytes
from miniinfer_cli.backends.cuda.contract.work import Work
from miniinfer_cli.backends.cuda.tactics.convolution.convolution_heuristic import CONVOLUTIONS, ConvolutionHeuristic
from miniinfer_cli.backends.cuda.tactics.convolution.convolutions import (
    PRODUCT_ACTIVATIONS,
    Convolution,
    ConvolutionOperands,
    Finish,
    estimate_of,
    product_of_rows,
)
from miniinfer_cli.backends.cuda.tactics.products.few_tokens import needs_arch
from miniinfer_cli.backends.cuda.tactics.products.large_product_sm90 import LargeProduct, is_whole
from miniinfer_cli.backends.cuda.tactics.products.narrow_product_sm90 import (
    NarrowForm,
    grouped_forms,
    narrow_forms,
    narrow_launch,
)
from miniinfer_cli.backends.cuda.tactics.products.product_endings import Ending, Following
from miniinfer_cli.backends.cuda.tactics.products.product_records import Product
from miniinfer_cli.backends.cuda.tactics.products.product_sm90 import MOST_OPERANDS, Windows
from miniinfer_cli.backends.cuda.tactics.products.product_sm90 import Finish as Finished
from miniinfer_cli.backends.cuda.tactics.products.token_forms import FEATURES
from miniinfer_cli.ir import Constant, DType, Graph, TensorType, numpy_dtype
from miniinfer_cli.ops.insert import insert

GROUPS = "groups"
"""The word that keys begin with."""
_LEAST_CHANNELS = 4
"""Of a group, and features: with fewer, most of a block's weights are zeros."""
_MOST_BESIDE = 31
"""Pixels between a window's first tap and any other, along an axis, by a map of five axes."""


@dataclass(frozen=True, slots=True)
class _Grouped:
    """A convolution by blocks of so many groups ``together``."""

    conv: Convolution
    together: int
    windows: Windows

    def product(self, finish: Finish) -> Product:
        """Its pixels times all its features; k is that of a block, and rows are pixels as they lie."""
        conv, channels = self.conv, self.windows.channels
        k, features = conv.taps * channels, conv.features * conv.group
        pixel = conv.channels * conv.group
        product = replace(product_of_rows(conv, finish), n=features, k=k, lda=pixel, ldb=k, ldd=features)
        return product if finish.residual is None else replace(product, c=(features, 1))

    def weights(self, weights: Constant) -> Derived:
        """Those of each block on its diagonal, ``[features, taps, channels of the block]``."""
        conv, blocks = self.conv, self.windows.groups
        graph = Graph("weights")
        value = graph.add_input("w", TensorType(weights.dtype, weights.shape))
        parted = (blocks, self.together, conv.features, conv.taps, 1, conv.channels)
        value = insert(graph, "Reshape", value, graph.add_constant(np.array(parted, np.int64), "parted"))
        own = np.eye(self.together, dtype=bool).reshape(1, self.together, 1, 1, self.together, 1)
        zero = graph.add_constant(np.zeros((), numpy_dtype(weights.dtype)), "zero")
        value = insert(graph, "Where", graph.add_constant(own, "own"), value, zero)
        rows = np.array((conv.features * conv.group, conv.taps * self.windows.channels), np.int64)
        graph.set_outputs([insert(graph, "Reshape", value, graph.add_constant(rows, "rows"))])
        key = f"{conv.group} groups of {conv.features}x{conv.taps}x{conv.channels} by {self.together} on a diagonal"
        return Derived((weights,), key, graph)


def grouped_tactics(
    conv: Convolution, io: ConvolutionOperands, finish: Finish, target: Target, table: ConvolutionHeuristic = CONVOLUTIONS
) -> tuple[Tactic, ...]:
    """The convolution and its finish, in several forms, the one that takes least first; none where it does not fit."""
    grouped, ending = grouped_of(conv, io), Ending()
    if grouped is None or finish.activation not in PRODUCT_ACTIVATIONS:
        return ()
    product = grouped.product(finish)
    if not ending.add(finish.residual, product.d, product.c):
        return ()
    ending.close(product)
    return _tactics(grouped, io, finish, ending.finish("MI_DEVICE void body() {}"), ending, conv.dtype, target, table)


def grouped_region_tactics(
    conv: Convolution,
    io: ConvolutionOperands,
    finish: Finish,
    following: Following,
    target: Target,
    table: ConvolutionHeuristic = CONVOLUTIONS,
) -> tuple[Tactic, ...]:
    """The same with what follows: ``finish`` is the convolution's own, a bias or nothing."""
    grouped, ending = grouped_of(conv, io), Ending()
    followed = None if grouped is None else ending.follow(following)
    if grouped is None or followed is None:
        return ()
    body, result = followed
    return _tactics(grouped, io, finish, ending.finish(body), ending, result, target, table)


def grouped_of(conv: Convolution, io: ConvolutionOperands) -> _Grouped | None:
    """As many groups to a block as there is room for; None for what is no such convolution of 16 bits, for weights that are
    computed, and where no map reads the windows.
    """
    plain = not conv.transposed and conv.channels_last and conv.group > 1 and len(conv.x_shape) == 4 and not conv.is_depthwise
    fits = plain and conv.dtype.is_half and io.x_strides is None and io.weights is not None and 0 not in conv.y_shape
    if not fits or min(conv.channels, conv.features) < _LEAST_CHANNELS or io.x.offset % 16:
        return None
    widest = max(conv.channels, conv.features)
    whole = [n for n in range(1, conv.group + 1) if conv.group % n == 0 and n * conv.channels % 8 == n * conv.features % 8 == 0]
    together = max((n for n in whole if n == 1 or n * widest <= FEATURES), default=0)
    if not together:
        return None
    images, height, width, channels = conv.x_shape
    pairs = (conv.spatial(conv.w_shape), conv.strides, conv.dilations, conv.begin, conv.end)
    kernel, strides, dilations, begin, end = ((int(a), int(b)) for a, b in pairs)
    shape = images, height, width, channels
    windows = Windows(shape, kernel, strides, dilations, begin, end, groups=conv.group // together)
    beside = max(d * (k - 1) for d, k in zip(dilations, kernel, strict=True))
    if windows.corners != conv.spatial(conv.y_shape) or beside > _MOST_BESIDE or math.prod(conv.y_shape[:-1]) >= 1 << 31:
        return None
    seen = windows.seen(Operand.input(0), conv.dtype, 8)
    return None if map_fault(seen) else _Grouped(conv, together, windows)


def _tactics(
    grouped: _Grouped,
    io: ConvolutionOperands,
    finish: Finish,
    finished: Finished,
    ending: Ending,
    result: DType,
    target: Target,
    table: ConvolutionHeuristic,
) -> tuple[Tactic, ...]:
    conv, windows = grouped.conv, grouped.windows
    p, nbytes = grouped.product(finish), element_nbytes(conv.dtype)
    filled = conv.taps * windows.chunks(nbytes) * FEATURES
    sizes = (p.m, p.n, filled, p.a, p.d, result, p.lda, p.k, p.ldd)
    biased = p.d if finish.bias is not None else None
    large = LargeProduct(*sizes, biased=biased, windows=windows)
    if len(ending.operands) > MOST_OPERANDS or not is_whole(large, finished, (io.y, *ending.places)):
        return ()
    moved = estimate_of(conv, finish).nbytes

    def tactic(form: NarrowForm) -> Tactic:
        def emit(work: Work) -> None:
            assert io.weights is not None
            weights = work.derive(grouped.weights(io.weights)) if grouped.together > 1 else io.w
            work.add(
                narrow_launch(large, form, finished, io.x, weights, io.y, finish.bias, ending.places, target.multiprocessors)
            )

        tiles = -(-p.m // form.tokens) * windows.groups * -(-large.width // FEATURES)
        flops = 2 * tiles * form.tokens * FEATURES * filled
        return Tactic(key_of(form, grouped.together), emit, Estimate(flops, moved), partial(needs_arch, table.pixel_arch))

    many, room = target.multiprocessors, target.shared_nbytes
    return tuple(map(tactic, narrow_forms(large, room) if large.groups == 1 else grouped_forms(large, many, room, moved)))


def key_of(form: NarrowForm, together: int) -> str:
    """What a tactic of this form is called."""
    beside = f", {together} together" if together > 1 else ""
    return f"{GROUPS} {form.tokens}x{FEATURES}, {form.stages} ahead{beside}"

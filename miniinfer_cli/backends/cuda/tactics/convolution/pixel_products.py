"""Convolutions as products by the kernels for sm_90, with all that follows: a pixel of the result is a row, their token.

One tap is a product of the image as it lies. Several are windows, which a map that is im2col reads out of the image.
"""

import math
from dataclasses import replace

from miniinfer_cli.backends.cuda.contract.steps import Operand
from miniinfer_cli.backends.cuda.contract.strides import merge_axes
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.tensor_map import map_fault
from miniinfer_cli.backends.cuda.contract.types import element_nbytes
from miniinfer_cli.backends.cuda.tactics.convolution.convolution_heuristic import CONVOLUTIONS, ConvolutionHeuristic
from miniinfer_cli.backends.cuda.tactics.convolution.convolutions import (
    PRODUCT_ACTIVATIONS,
    Convolution,
    ConvolutionOperands,
    Finish,
    product_of,
    product_of_rows,
)
from miniinfer_cli.backends.cuda.tactics.convolution.grouped_products import GROUPS, grouped_region_tactics, grouped_tactics
from miniinfer_cli.backends.cuda.tactics.products.few_tokens import NOTHING_ELSE, WAY, Extra, region_tactics, token_tactics
from miniinfer_cli.backends.cuda.tactics.products.large_products import LARGE, large_region_tactics, large_tactics, least_us
from miniinfer_cli.backends.cuda.tactics.products.product_endings import Following
from miniinfer_cli.backends.cuda.tactics.products.product_heuristic import PRODUCTS
from miniinfer_cli.backends.cuda.tactics.products.product_records import Operands, Product
from miniinfer_cli.backends.cuda.tactics.products.product_sm90 import ELEMENTS, Windows
from miniinfer_cli.ir import DType

MANY_PIXELS = replace(
    PRODUCTS, few_tokens=range(9, 3137), tokens_features=8, tokens_k_nbytes=16, large_columns=8, large_k_nbytes=16
)
"""Images have more pixels than texts tokens, for weights that are fewer."""
_MOST_BESIDE = 255
"""Pixels between a window's first tap and any other, along an axis."""


def favours_pixels(
    conv: Convolution, target: Target, table: ConvolutionHeuristic = CONVOLUTIONS, *, activated: bool = False
) -> bool:
    """True where a kernel for sm_90 is the heuristic's favourite; ``activated``: with what follows and libraries do not do."""
    return bool(_favoured(conv, target, table, activated=activated))


def _favoured(conv: Convolution, target: Target, table: ConvolutionHeuristic = CONVOLUTIONS, *, activated: bool = False) -> str:
    """``WAY``, ``LARGE`` or ``GROUPS``, by which kernel; empty where the libraries are faster."""
    if conv.group > 1:
        return GROUPS if target.arch == table.pixel_arch else ""
    if target.arch != table.pixel_arch or conv.features % 8 or conv.channels % 8:
        return ""
    found = _product(conv, Finish())
    if found is None or not (conv.dtype.is_half or (target.tf32 and conv.dtype is DType.F32)):
        return ""
    product, extra = found
    if _favours_few(conv, product, target, table):
        return WAY
    if product.m < MANY_PIXELS.large_rows or not conv.dtype.is_half:  # as TF32 ResNet-50 takes 3.38 ms for 3.36
        return ""
    library_us = table.library_us(conv, activated=activated)
    return LARGE if least_us(product, target, extra) < table.many_gain * library_us else ""


def _favours_few(conv: Convolution, product: Product, target: Target, table: ConvolutionHeuristic) -> bool:
    """True where the kernel for few tokens was measured to make networks faster than the libraries do."""
    pixels, most = table.favoured_pixels, table.most_favoured_products
    if not conv.dtype.is_half:
        pixels, most = table.favoured_tf32_pixels, table.most_favoured_tf32_products
    sizes = product.m in pixels and product.n in table.favoured_features and conv.channels >= table.favoured_channels
    return sizes and product.m * product.n * product.k <= most


def pixel_tactics(conv: Convolution, io: ConvolutionOperands, finish: Finish, target: Target) -> tuple[Tactic, ...]:
    """The convolution and its finish, by the favoured kernel first; none where it is no such product, or where none fits."""
    if conv.group > 1:
        return grouped_tactics(conv, io, finish, target)
    found = _as_it_lies(conv, finish, io)
    if found is None:
        return ()
    (product, extra), operands = found, _operands(io, finish)
    large = large_tactics(product, operands, target, MANY_PIXELS, extra)
    few = token_tactics(product, operands, target, MANY_PIXELS, extra)
    return (*large, *few) if _favoured(conv, target) == LARGE else (*few, *large)


def pixel_region_tactics(
    conv: Convolution, io: ConvolutionOperands, finish: Finish, following: Following, target: Target
) -> tuple[Tactic, ...]:
    """The same with what follows: ``finish`` is the convolution's own, a bias or nothing."""
    if conv.group > 1:
        return grouped_region_tactics(conv, io, finish, following, target)
    found = _as_it_lies(conv, finish, io)
    if found is None:
        return ()
    (product, extra), operands = found, _operands(io, finish)
    large = large_region_tactics(product, operands, following, target, MANY_PIXELS, extra)
    few = region_tactics(product, operands, following, target, MANY_PIXELS, extra)
    return (*large, *few) if _favoured(conv, target, activated=True) == LARGE else (*few, *large)


def reads_as_it_lies(conv: Convolution, io: ConvolutionOperands, target: Target, *, activated: bool = False) -> bool:
    """True where the favourite is a kernel for sm_90 that reads some channels of a wider image, whose strides ``io`` has."""
    return favours_pixels(conv, target, activated=activated) and conv.group == 1 and _as_it_lies(conv, Finish(), io) is not None


def _as_it_lies(conv: Convolution, finish: Finish, io: ConvolutionOperands) -> tuple[Product, Extra] | None:
    """The product of an image with these strides: rows of the image begin at whole vectors, and windows are read by a map."""
    found = _product(conv, finish)
    if found is None or io.x_strides is None:
        return found
    (product, extra), nbytes = found, element_nbytes(conv.dtype)
    *walk, step = io.x_strides
    if step != 1 or any(n > 1 and s * nbytes % 16 for n, s in zip(conv.x_shape, walk, strict=False)):
        return None
    if extra.windows is None:
        _, (rows,) = merge_axes(conv.x_shape[:-1], walk)
        return (replace(product, lda=rows[0] if rows else product.lda), extra) if len(rows) <= 1 else None
    images, height, width = walk
    windows = replace(extra.windows, pitches=(width, height, images))
    return None if map_fault(windows.seen(Operand.input(0), conv.dtype, 8)) else (product, replace(extra, windows=windows))


def _product(conv: Convolution, finish: Finish) -> tuple[Product, Extra] | None:
    """The product that the convolution is, of pixels as they lie or of windows; None where it is neither."""
    product = product_of(conv, finish)
    if product is not None:
        return product, NOTHING_ELSE
    windows = windows_of(conv) if finish.activation in PRODUCT_ACTIVATIONS else None
    return None if windows is None else (product_of_rows(conv, finish), Extra(windows=windows))


def windows_of(conv: Convolution) -> Windows | None:
    """The windows of a convolution of images with two axes; None for others, and for those that no map reads."""
    plain = not conv.transposed and conv.channels_last and conv.group == 1
    if not plain or len(conv.x_shape) != 4 or conv.dtype not in ELEMENTS or 0 in conv.y_shape:
        return None
    images, height, width, channels = conv.x_shape
    pairs = (conv.spatial(conv.w_shape), conv.strides, conv.dilations, conv.begin, conv.end)
    kernel, strides, dilations, begin, end = ((int(a), int(b)) for a, b in pairs)
    windows = Windows((images, height, width, channels), kernel, strides, dilations, begin, end)
    fits = windows.corners == conv.spatial(conv.y_shape) and channels * element_nbytes(conv.dtype) % 16 == 0
    beside = max(d * (k - 1) for d, k in zip(dilations, kernel, strict=True))
    if not fits or beside > _MOST_BESIDE or math.prod(conv.y_shape[:-1]) >= 1 << 31:
        return None
    return None if map_fault(windows.seen(Operand.input(0), conv.dtype, 8)) else windows


def _operands(io: ConvolutionOperands, finish: Finish) -> Operands:
    constants = {} if io.weights is None else {io.w: io.weights}
    return Operands(io.x, io.w, io.y, finish.residual, finish.bias, constants=constants)

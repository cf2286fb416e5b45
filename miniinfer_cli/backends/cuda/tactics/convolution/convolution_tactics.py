"""The tactics of a convolution and what follows it: libraries, products, and our kernels, in the heuristic's order."""

import math
from dataclasses import dataclass, replace

from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.cuda.contract.problems import ConvolutionProblem
from miniinfer_cli.backends.cuda.contract.steps import NULL, LibraryCall, Operand
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.types import c_type, element_nbytes
from miniinfer_cli.backends.cuda.contract.work import Work
from miniinfer_cli.backends.cuda.tactics.convolution.convolution_heuristic import CONVOLUTIONS, ConvolutionHeuristic
from miniinfer_cli.backends.cuda.tactics.convolution.convolution_kernels import OwnKernels, own_tactics, transposed_weights
from miniinfer_cli.backends.cuda.tactics.convolution.convolutions import (
    Convolution,
    ConvolutionOperands,
    Finish,
    estimate_of,
    library_problem,
    product_of,
    turned,
)
from miniinfer_cli.backends.cuda.tactics.convolution.depthwise import depthwise_tactics
from miniinfer_cli.backends.cuda.tactics.convolution.patches import patch_tactics, prefers_patches
from miniinfer_cli.backends.cuda.tactics.convolution.pixel_products import favours_pixels, pixel_tactics
from miniinfer_cli.backends.cuda.tactics.convolution.stems import prefers_stem, stem_tactics
from miniinfer_cli.backends.cuda.tactics.movement.transposing import permute, permute_ways
from miniinfer_cli.backends.cuda.tactics.products.aligned_products import Aligned, aligned_tactics
from miniinfer_cli.backends.cuda.tactics.products.library_products import library_tactics
from miniinfer_cli.backends.cuda.tactics.products.product_kernels import kernel_tactics
from miniinfer_cli.backends.cuda.tactics.products.product_records import Operands
from miniinfer_cli.backends.cuda.tactics.products.products import NOTHING, is_gemv
from miniinfer_cli.ops.layout import channels_first, channels_last

CUDNN = "cudnn"
"""The key of the library's tactic."""
CUDNN_TURNED = "cudnn between transposes"
"""The same for operands with the channels first."""


@dataclass(frozen=True, slots=True)
class Ways:
    """The tactics of a convolution with a certain finish, by what they are worth.

    ``fast``: no kernel is known that is faster, so a region leaves what follows to others for them. ``products`` are our kernels
    for the matrix product that it is, ``own`` those for convolutions, ``beside`` what is never the heuristic's. ``pixels`` are
    the kernels for sm_90, which come first where they are ``favoured``.
    """

    fast: tuple[Tactic, ...]
    products: tuple[Tactic, ...] = ()
    own: tuple[Tactic, ...] = ()
    beside: tuple[Tactic, ...] = ()
    pixels: tuple[Tactic, ...] = ()
    favoured: bool = False

    @property
    def in_order(self) -> tuple[Tactic, ...]:
        """All of them, the heuristic's favourite first."""
        others = (*self.fast, *self.products, *self.own, *self.beside)
        return (*self.pixels, *others) if self.favoured else (*others, *self.pixels)


def convolution_ways(
    conv: Convolution, io: ConvolutionOperands, finish: Finish, target: Target, table: ConvolutionHeuristic = CONVOLUTIONS
) -> Ways:
    """The ways of a convolution and what follows it; memory bounds what is depthwise, and a single pixel.

    Windows that share no pixel are read as they lie, and by the kernels for sm_90 some channels of a wider image; for all
    other ways what is strided is copied first.
    """
    if 0 in conv.y_shape:
        return Ways((Tactic(NOTHING, lambda work: None, Estimate(0, 0)),))
    patches = patch_tactics(conv, io, finish, target)
    if io.x_strides is None:
        ways = _dense_ways(conv, io, finish, target, table)
    else:
        dense = replace(io, x=Operand.scratch(0), x_strides=None)
        ways = _behind_copy(conv, io, _dense_ways(conv, dense, finish, target, table), target)
        if conv.group == 1 and (pixels := pixel_tactics(conv, io, finish, target)):
            ways = replace(ways, pixels=pixels)  # in the place of those behind a copy
    stems = stem_tactics(conv, io, finish, target)
    if stems and prefers_stem(conv, io, target, table):
        ways = replace(ways, pixels=(*stems, *ways.pixels), favoured=True)
    else:
        ways = replace(ways, pixels=(*ways.pixels, *stems))
    if prefers_patches(conv, io):
        return replace(ways, fast=(*patches.fast, *ways.fast), products=(*patches.others, *ways.products))
    return replace(ways, beside=(*ways.beside, *patches.fast, *patches.others))


def _behind_copy(conv: Convolution, io: ConvolutionOperands, ways: Ways, target: Target) -> Ways:
    """The ways, which read a dense input in the first scratch buffer, behind what copies it there."""
    strides = io.x_strides
    assert strides is not None
    nbytes, rank = element_nbytes(conv.dtype), range(len(conv.x_shape))
    moved = math.prod(conv.x_shape) * nbytes

    def behind(tactic: Tactic) -> Tactic:
        def emit(work: Work) -> None:
            x = work.scratch(moved)
            _, make = permute_ways(x, io.x, nbytes, conv.x_shape, rank, target, strides=strides)[0]
            work.add(make())
            tactic.emit(work)

        return replace(tactic, emit=emit, estimate=tactic.estimate + Estimate(0, 2 * moved))

    fast, products, own, beside, pixels = (
        tuple(map(behind, listed)) for listed in (ways.fast, ways.products, ways.own, ways.beside, ways.pixels)
    )
    return Ways(fast, products, own, beside, pixels, ways.favoured)


def _dense_ways(conv: Convolution, io: ConvolutionOperands, finish: Finish, target: Target, table: ConvolutionHeuristic) -> Ways:
    """The ways that read the whole of a dense input."""
    estimate = estimate_of(conv, finish)
    cudnn = _library_tactics(conv, io, finish, target)
    product = product_of(conv, finish)
    constants = {} if io.weights is None else {io.w: io.weights}
    operands = Operands(io.x, io.w, io.y, finish.residual, finish.bias, constants=constants)
    products = () if product is None else kernel_tactics(product, operands, target)
    aligned = Aligned() if product is None else aligned_tactics(product, operands, target)
    cublaslt = (*(() if product is None else library_tactics(product, operands, target)), *aligned.beside)
    own = own_tactics(conv, _kernels(conv, io, finish), estimate, target, table)
    if conv.is_depthwise:
        beside = (*aligned.ahead, *cublaslt, *cudnn, *own)
        return Ways((*products, *depthwise_tactics(conv, io, finish, target, table)), beside=beside)
    if product is not None and is_gemv(product):
        return Ways(products, own=own, beside=(*aligned.ahead, *cublaslt, *cudnn))
    # With a residual cuBLASLt is as fast as cuDNN, and serves every size at once. Both are slow for channels of odd numbers.
    libraries = (*cublaslt, *cudnn) if finish.residual is not None else (*cudnn, *cublaslt)
    pixels, favoured = pixel_tactics(conv, io, finish, target), favours_pixels(conv, target, table)
    return Ways((*aligned.ahead, *libraries), products, own, pixels=pixels, favoured=favoured)


def _kernels(conv: Convolution, io: ConvolutionOperands, finish: Finish) -> OwnKernels:
    return OwnKernels(
        "conv",
        (("MI_T", c_type(conv.dtype)), ("MI_ACTIVATION", finish.activation.value or "none")),
        (io.x, io.w, finish.bias or NULL, finish.residual or NULL, io.y),
        4 if conv.channels_last and conv.channels % 4 == 0 and conv.features % 4 == 0 else 1,
    )


def _library_tactics(conv: Convolution, io: ConvolutionOperands, finish: Finish, target: Target) -> tuple[Tactic, ...]:
    problem = library_problem(conv, finish, target)
    if problem is None:
        return ()
    estimate = estimate_of(conv, finish)
    if conv.channels_last:
        extra = tuple(o for o in (finish.bias, finish.residual) if o is not None)
        call = LibraryCall(problem, (io.x, io.w, io.y, *extra))
        return (Tactic(CUDNN, lambda work: work.add(call), estimate, problems=(problem,)),)
    turned_shapes = (conv.x_shape, conv.y_shape, *((conv.w_shape,) if io.weights is None else ()))
    moved = 2 * element_nbytes(conv.dtype) * sum(map(math.prod, turned_shapes))
    return (
        Tactic(
            CUDNN_TURNED,
            lambda work: _emit_turned(work, conv, io, finish, problem, target),
            estimate + Estimate(0, moved),
            problems=(problem,),
        ),
    )


def _emit_turned(
    work: Work, conv: Convolution, io: ConvolutionOperands, finish: Finish, problem: ConvolutionProblem, target: Target
) -> None:
    """What is channels first is transposed before and after, constant weights once and for all."""
    nbytes, rank = element_nbytes(conv.dtype), len(conv.x_shape)
    forth, back = channels_last(rank), channels_first(rank)
    x, y = (work.scratch(math.prod(s) * nbytes) for s in (conv.x_shape, conv.y_shape))
    work.add(permute(x, io.x, nbytes, conv.x_shape, forth, target))
    if io.weights is not None:
        w = work.derive(transposed_weights(io.weights, forth))
    else:
        w = work.scratch(math.prod(conv.w_shape) * nbytes)
        work.add(permute(w, io.w, nbytes, conv.w_shape, forth, target))
    bias = () if finish.bias is None else (finish.bias,)
    work.add(LibraryCall(problem, (x, w, y, *bias)))
    work.add(permute(io.y, y, nbytes, turned(conv.y_shape), back, target))

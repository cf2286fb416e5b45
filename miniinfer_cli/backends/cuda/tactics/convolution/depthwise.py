"""Depthwise convolutions by our kernel: how many outputs and channels a thread takes."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from miniinfer_cli.backends.cuda.contract.problems import Activation
from miniinfer_cli.backends.cuda.contract.steps import NULL, Kernel, Launch
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.types import c_type, element_nbytes
from miniinfer_cli.backends.cuda.contract.work import Work
from miniinfer_cli.backends.cuda.launching.division import dividers
from miniinfer_cli.backends.cuda.launching.grids import index_dtype, index_name, load_width
from miniinfer_cli.backends.cuda.tactics.convolution.convolution_heuristic import CONVOLUTIONS, ConvolutionHeuristic
from miniinfer_cli.backends.cuda.tactics.convolution.convolution_kernels import conv_sizes, transposed_weights
from miniinfer_cli.backends.cuda.tactics.convolution.convolutions import Convolution, ConvolutionOperands, Finish, estimate_of
from miniinfer_cli.backends.cuda.tactics.convolution.depthwise_tiles import favoured_tile, tile_tactics

_HELD_KERNELS = (3, 5, 7)  # sizes of a row of weights that a thread holds
_HELD_STRIDES = (1, 2)


@dataclass(frozen=True, slots=True)
class _Share:
    """What a thread makes: ``rows`` x ``columns`` outputs along the last two spatial axes, for ``channels``."""

    rows: int
    columns: int
    channels: int

    @property
    def key(self) -> str:
        return f"depthwise {self.rows}x{self.columns}x{self.channels}"

    def tiles(self, conv: Convolution) -> tuple[int, ...]:
        """How many there are along each spatial axis."""
        *planes, rows, columns = (1, *conv.spatial(conv.y_shape))
        return (*planes, -(-rows // self.rows), -(-columns // self.columns))

    def threads(self, conv: Convolution) -> int:
        """How many there are."""
        return conv.y_shape[0] * math.prod(self.tiles(conv)) * (conv.group // self.channels)


def depthwise_tactics(
    conv: Convolution,
    io: ConvolutionOperands,
    finish: Finish,
    target: Target,
    table: ConvolutionHeuristic = CONVOLUTIONS,
    before: Activation = Activation.NONE,
) -> tuple[Tactic, ...]:
    """A depthwise convolution that writes something, the heuristic's favourite share of a thread first.

    ``before``: an activation of what it reads, pixel by pixel; those beyond the image are zeros whatever it is.
    """

    def emitting(share: _Share) -> Callable[[Work], None]:
        return lambda work: _emit(work, share, conv, io, finish, table, before)

    estimate = estimate_of(conv, finish)
    listed = _shares(conv, target, table)
    shares = [Tactic(share.key, emitting(share), estimate) for share in listed]
    tiles = tile_tactics(conv, io, finish, target, table, before)
    if target.arch != table.pixel_arch or not tiles:
        return (*shares, *tiles)
    first = favoured_tile(conv, table, few=(listed[0].rows, listed[0].columns) == table.outputs_of_thread[-1]).key
    return (*(t for t in tiles if t.key == first), *shares, *(t for t in tiles if t.key != first))


def _shares(conv: Convolution, target: Target, table: ConvolutionHeuristic) -> list[_Share]:
    widest = load_width(conv.group, element_nbytes(conv.dtype), 16)
    whole = widest * element_nbytes(conv.dtype) == 16 and widest > 1
    held = _is_held(conv)
    shapes = [shape for shape in table.outputs_of_thread if held or shape == (1, 1)]
    many = table.many_outputs if conv.strides[-1] == 1 else table.many_strided_outputs
    if len(conv.spatial(conv.y_shape)) == 1:
        shapes, many = [shape for shape in shapes if shape[0] == 1], table.many_of_one_axis
    shares = [_Share(*shape, channels) for shape in shapes for channels in ((widest, widest // 2) if whole else (widest,))]
    favourite = next((s for s in shares if (s.rows, s.columns) == many), None)
    if favourite is None or favourite.threads(conv) < table.busy_threads * target.multiprocessors:
        favourite = next(s for s in shares if (s.rows, s.columns) == shapes[-1])
    return [favourite, *(s for s in shares if s != favourite)]


def _is_held(conv: Convolution) -> bool:
    """True when a thread holds a row of weights in registers."""
    return conv.dilations[-1] == 1 and conv.w_shape[-2] in _HELD_KERNELS and conv.strides[-1] in _HELD_STRIDES


def _emit(
    work: Work,
    share: _Share,
    conv: Convolution,
    io: ConvolutionOperands,
    finish: Finish,
    table: ConvolutionHeuristic,
    before: Activation,
) -> None:
    threads, packs = share.threads(conv), conv.group // share.channels
    largest = max(math.prod(s) for s in (conv.x_shape, conv.w_shape, conv.y_shape))
    weights, is_turned = io.w, io.weights is not None and conv.taps > 1
    if io.weights is not None and is_turned:
        rank = len(conv.w_shape)
        weights = work.derive(transposed_weights(io.weights, [*range(1, rank), 0]))
    held = _is_held(conv)
    defines = (
        ("MI_T", c_type(conv.dtype)),
        ("MI_INDEX", index_name(largest)),
        ("MI_ACTIVATION", finish.activation.value or "none"),
        ("MI_QUICK", str(int(conv.dtype.is_half))),
        ("MI_ACTIVATES", str(int(bool(before)))),
        ("MI_BEFORE", before.value or "none"),
        ("MI_VEC", str(share.channels)),
        ("MI_ROWS", str(share.rows)),
        ("MI_WIDTH", str(share.columns)),
        ("MI_KERNEL", str(conv.w_shape[-2] if held else 0)),
        ("MI_STRIDE", str(conv.strides[-1] if held else 1)),
        ("MI_TAPS_FIRST", str(int(is_turned or conv.taps == 1))),
    )
    operands = (io.x, weights, finish.bias or NULL, finish.residual or NULL, io.y)
    beside = max(n for n in range(1, min(packs, table.packs_beside) + 1) if packs % n == 0)
    planes, rows, columns = (1, 1, *share.tiles(conv))[-3:]
    divisors = dividers((beside, rows, packs // beside, columns, planes))
    work.add(
        Launch(
            Kernel("conv_depthwise", "conv_depthwise.cu", defines),
            (-(-threads // table.depthwise_block),),
            (table.depthwise_block,),
            (*operands, conv_sizes(conv), divisors, np.int32(beside), index_dtype(largest).type(threads)),
        )
    )

"""Depthwise convolutions by our kernel: how many outputs and channels a thread takes."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from miniinfer_cli.backends.cuda.contract.steps import NULL, Kernel, Launch
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.types import c_type, element_nbytes
from miniinfer_cli.backends.cuda.contract.work import Work
from miniinfer_cli.backends.cuda.launching.division import dividers
from miniinfer_cli.backends.cuda.launching.grids import index_dtype, index_name, load_width
from miniinfer_cli.backends.cuda.tactics.convolution.convolution_heuristic import CONVOLUTIONS, ConvolutionHeuristic
from miniinfer_cli.backends.cuda.tactics.convolution.convolution_kernels import conv_sizes, spatial_axes, transposed_weights
from miniinfer_cli.backends.cuda.tactics.convolution.convolutions import Convolution, ConvolutionOperands, Finish, estimate_of

_BLOCK = 128
_HELD_KERNELS = (3, 5, 7)  # sizes of a row of weights that a thread holds
_HELD_STRIDES = (1, 2)


@dataclass(frozen=True, slots=True)
class _Share:
    """What a thread makes: ``outputs`` along the last spatial axis, for ``channels``."""

    outputs: int
    channels: int

    @property
    def key(self) -> str:
        return f"depthwise {self.outputs}x{self.channels}"

    def threads(self, conv: Convolution) -> int:
        """How many there are."""
        *rows, last = conv.spatial(conv.y_shape)
        return conv.y_shape[0] * math.prod(rows) * -(-last // self.outputs) * (conv.group // self.channels)


def depthwise_tactics(
    conv: Convolution, io: ConvolutionOperands, finish: Finish, target: Target, table: ConvolutionHeuristic = CONVOLUTIONS
) -> tuple[Tactic, ...]:
    """A depthwise convolution that writes something, the heuristic's favourite share of a thread first."""

    def emitting(share: _Share) -> Callable[[Work], None]:
        return lambda work: _emit(work, share, conv, io, finish)

    estimate = estimate_of(conv, finish)
    return tuple(Tactic(share.key, emitting(share), estimate) for share in _shares(conv, target, table))


def _shares(conv: Convolution, target: Target, table: ConvolutionHeuristic) -> list[_Share]:
    widest = load_width(conv.group, element_nbytes(conv.dtype), 16)
    most = table.outputs_of_thread if _is_held(conv) else 1
    favourite, enough = _Share(most, widest), table.busy_threads * target.multiprocessors
    if favourite.threads(conv) < enough:
        favourite = _Share(1, widest)
    whole = widest * element_nbytes(conv.dtype) == 16 and widest > 1
    if favourite.threads(conv) < enough and whole:
        favourite = _Share(favourite.outputs, widest // 2)
    others = [_Share(outputs, channels) for outputs in (most, 1) for channels in ((widest, widest // 2) if whole else (widest,))]
    return list(dict.fromkeys((favourite, *others)))


def _is_held(conv: Convolution) -> bool:
    """True when a thread holds a row of weights in registers."""
    return conv.dilations[-1] == 1 and conv.w_shape[-2] in _HELD_KERNELS and conv.strides[-1] in _HELD_STRIDES


def _emit(work: Work, share: _Share, conv: Convolution, io: ConvolutionOperands, finish: Finish) -> None:
    sizes, threads = conv.spatial(conv.y_shape), share.threads(conv)
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
        ("MI_VEC", str(share.channels)),
        ("MI_WIDTH", str(share.outputs)),
        ("MI_KERNEL", str(conv.w_shape[-2] if held else 0)),
        ("MI_STRIDE", str(conv.strides[-1] if held else 1)),
        ("MI_TAPS_FIRST", str(int(is_turned or conv.taps == 1))),
    )
    operands = (io.x, weights, finish.bias or NULL, finish.residual or NULL, io.y)
    divisors = (conv.group // share.channels, -(-sizes[-1] // share.outputs), *spatial_axes(sizes, 1)[1::-1])
    work.add(
        Launch(
            Kernel("conv_depthwise", "conv_depthwise.cu", defines),
            (-(-threads // _BLOCK),),
            (_BLOCK,),
            (*operands, conv_sizes(conv), dividers(divisors), index_dtype(largest).type(threads)),
        )
    )

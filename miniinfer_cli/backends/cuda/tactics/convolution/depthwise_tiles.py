"""Depthwise convolutions by tiles in shared memory on sm_90: what a block makes, what it takes, and the launch."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from miniinfer_cli.backends.cuda.contract.problems import Activation
from miniinfer_cli.backends.cuda.contract.steps import NULL, Kernel, Launch, Operand
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.tensor_map import TensorMap, map_fault
from miniinfer_cli.backends.cuda.contract.types import c_type, element_nbytes
from miniinfer_cli.backends.cuda.contract.work import Work
from miniinfer_cli.backends.cuda.tactics.convolution.convolution_heuristic import CONVOLUTIONS, ConvolutionHeuristic
from miniinfer_cli.backends.cuda.tactics.convolution.convolution_kernels import transposed_weights
from miniinfer_cli.backends.cuda.tactics.convolution.convolutions import Convolution, ConvolutionOperands, Finish, estimate_of
from miniinfer_cli.backends.cuda.tactics.products.few_tokens import needs_arch
from miniinfer_cli.backends.cuda.tactics.products.product_sm90 import ARCH, ELEMENTS

_VECTOR, _MOST_PACKS, _MOST_THREADS = 8, 8, 128
_KERNELS, _STEPS = (3, 5, 7), (1, 2)
_MOST_BLOCKS = 65535
_KEEPS_ZERO = frozenset({Activation.NONE, Activation.RELU, Activation.RELU6, Activation.SWISH, Activation.HARD_SWISH})


@dataclass(frozen=True, slots=True)
class Tile:
    """``down`` x ``across`` outputs of a block, ``rows`` x ``width`` of a thread."""

    down: int
    across: int
    rows: int
    width: int

    @property
    def key(self) -> str:
        """What a tactic of this form is called."""
        return f"depthwise tiles {self.down}x{self.across} by {self.rows}x{self.width}"

    def read(self, conv: Convolution) -> tuple[int, int]:
        """Pixels that are read for it, along the height and the width."""
        (step, _), (kernel, _) = conv.strides, conv.spatial(conv.w_shape)
        return (self.down - 1) * step + kernel, (self.across - 1) * step + kernel

    def shared_nbytes(self, conv: Convolution) -> int:
        """Bytes of a block: the tile, its weights and a barrier."""
        return (math.prod(self.read(conv)) + conv.taps) * packs_of(conv) * 16 + 8

    def tasks(self, conv: Convolution) -> int:
        """Threads that have something to do."""
        return self.down // self.rows * (self.across // self.width) * packs_of(conv)


TILES = (
    *(Tile(8, 16, 2, 4), Tile(8, 16, 1, 4), Tile(8, 8, 2, 4), Tile(8, 8, 1, 4), Tile(8, 8, 2, 2)),
    *(Tile(16, 16, 2, 4), Tile(4, 8, 1, 4), Tile(4, 8, 1, 2)),
)


def packs_of(conv: Convolution) -> int:
    """Vectors of channels that a block has: as many as divide all of them, up to eight."""
    packs = conv.group // _VECTOR
    return max(n for n in range(1, _MOST_PACKS + 1) if packs % n == 0)


def favoured_tile(conv: Convolution, table: ConvolutionHeuristic, *, few: bool) -> Tile:
    """The heuristic's; ``few``: threads that make one output each would be too few for more."""
    if few:
        return Tile(*table.few_tile)
    across = conv.y_shape[2]
    if conv.strides[0] > 1 or across <= Tile(*table.small_tile).across:
        return Tile(*table.small_tile)
    return Tile(*(table.middle_tile if across <= Tile(*table.middle_tile).across else table.wide_tile))


def tile_tactics(
    conv: Convolution,
    io: ConvolutionOperands,
    finish: Finish,
    target: Target,
    table: ConvolutionHeuristic = CONVOLUTIONS,
    before: Activation = Activation.NONE,
) -> tuple[Tactic, ...]:
    """A depthwise convolution of 16 bits by tiles; none for another kernel, with a residual, for weights that are computed."""
    kernel = conv.spatial(conv.w_shape)
    plain = len(kernel) == 2 and kernel[0] == kernel[1] and kernel[0] in _KERNELS and set(conv.dilations) == {1}
    plain = plain and conv.strides[0] == conv.strides[1] and conv.strides[0] in _STEPS and conv.dtype.is_half
    if not plain or conv.group % _VECTOR or finish.residual is not None or before not in _KEEPS_ZERO or io.weights is None:
        return ()
    if max(conv.x_shape[0], conv.group // _VECTOR) > _MOST_BLOCKS or io.x_strides is not None or 0 in conv.y_shape:
        return ()
    estimate = estimate_of(conv, finish)

    def emitting(tile: Tile) -> Callable[[Work], None]:
        def emit(work: Work) -> None:
            assert io.weights is not None
            weights = work.derive(transposed_weights(io.weights, [1, 2, 3, 0]))
            work.add(depthwise_launch(tile, conv, io, finish, weights, before))

        return emit

    fitting = [t for t in TILES if t.shared_nbytes(conv) <= target.shared_nbytes and map_fault(_seen(t, conv, io)) is None]
    needs = partial(needs_arch, table.pixel_arch)
    return tuple(Tactic(tile.key, emitting(tile), estimate, needs) for tile in fitting)


def _seen(tile: Tile, conv: Convolution, io: ConvolutionOperands) -> TensorMap[Operand]:
    images, height, width, channels = conv.x_shape
    nbytes = element_nbytes(conv.dtype)
    down, across = tile.read(conv)
    strides = (channels * nbytes, width * channels * nbytes, height * width * channels * nbytes)
    box = (packs_of(conv) * _VECTOR, across, down, 1)
    return TensorMap(io.x, ELEMENTS[conv.dtype], (channels, width, height, images), strides, box)


def depthwise_launch(
    tile: Tile, conv: Convolution, io: ConvolutionOperands, finish: Finish, weights: Operand, before: Activation
) -> Launch[Operand]:
    """The launch; ``weights``: rows of channels, one for each tap."""
    images, height, width, channels = conv.y_shape
    packs = packs_of(conv)
    threads = min(_MOST_THREADS, -(-tile.tasks(conv) // 32) * 32)
    defines = (
        ("MI_T", c_type(conv.dtype)),
        ("MI_KERNEL", str(conv.w_shape[1])),
        ("MI_STRIDE", str(conv.strides[0])),
        ("MI_DOWN", str(tile.down)),
        ("MI_ACROSS", str(tile.across)),
        ("MI_ROWS", str(tile.rows)),
        ("MI_WIDTH", str(tile.width)),
        ("MI_PACKS", str(packs)),
        ("MI_THREADS", str(threads)),
        ("MI_ACTIVATES", str(int(bool(before)))),
        ("MI_BEFORE", before.value or "none"),
        ("MI_ACTIVATION", finish.activation.value or "none"),
    )
    across = -(-width // tile.across)
    numbers = map(np.int32, (channels, height, width, across, *conv.begin))
    return Launch(
        Kernel("depthwise_tiles", "sm90/depthwise.cu", defines, arch=ARCH),
        (-(-height // tile.down) * across, channels // (packs * _VECTOR), images),
        (threads,),
        (_seen(tile, conv, io), weights, finish.bias or NULL, io.y, *numbers),
        tile.shared_nbytes(conv),
    )

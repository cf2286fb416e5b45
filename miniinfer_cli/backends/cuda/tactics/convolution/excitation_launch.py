"""Both products of squeeze-and-excitation in one launch: sizes, the numbers of outputs that a block may make, and the launch."""

from dataclasses import dataclass

import numpy as np

from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.cuda.contract.launch_attributes import MOST_OVERLAPPING_SHARED
from miniinfer_cli.backends.cuda.contract.steps import Argument, Kernel, Launch, Operand
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.types import c_type, element_nbytes
from miniinfer_cli.backends.cuda.launching.grids import load_width, power_of_two_from
from miniinfer_cli.backends.cuda.tactics.convolution.excitation_heuristic import EXCITATIONS, ExcitationHeuristic
from miniinfer_cli.ir import DType

_WARPS = 16
_MOST_ROWS = 4  # of a warp at a time
_MOST_HELD = 20  # loads of a lane that wait in registers
_MOST_IMAGES = 65535  # along a grid's second axis


@dataclass(frozen=True, slots=True)
class Excitation:
    """From ``channels`` of each image to ``squeezed`` values, and from these to ``features``."""

    dtype: DType
    images: int
    channels: int
    squeezed: int
    features: int

    @property
    def is_empty(self) -> bool:
        """True where there is nothing to compute, or nothing to sum up."""
        return not (self.images and self.channels and self.squeezed and self.features)

    @property
    def estimate(self) -> Estimate:
        """Weights, channels, biases and results moved once; two operations for each weight and image."""
        weights = self.squeezed * (self.channels + self.features)
        vectors = self.images * (self.channels + self.features)
        flops = 2 * self.images * weights + 2 * self.images * (self.squeezed + self.features)
        return Estimate(flops, (weights + vectors + self.squeezed + self.features) * element_nbytes(self.dtype))

    def shares(self, target: Target, table: ExcitationHeuristic = EXCITATIONS) -> tuple[int, ...]:
        """Outputs that a block may make, the favourite first; none where it has no room for what it keeps."""
        whole = power_of_two_from(self.features)
        favourite = min(table.outputs, whole)
        while favourite < min(table.most_outputs, whole) and self.blocks(favourite) > target.multiprocessors:
            favourite *= 2
        shares = dict.fromkeys((favourite, *(min(n, whole) for n in table.other_outputs)))
        room = min(target.shared_nbytes, MOST_OVERLAPPING_SHARED)
        return tuple(n for n in shares if self.shared_nbytes(n) <= room)

    def blocks(self, share: int) -> int:
        """How many blocks make so many outputs each."""
        return self.images * -(-self.features // share)

    def gain_us(self, share: int, table: ExcitationHeuristic = EXCITATIONS) -> float:
        """Microseconds that one launch is expected to save."""
        nbytes = self.squeezed * self.channels * element_nbytes(self.dtype)
        reading = max(nbytes / table.nbytes_per_us, nbytes * self.blocks(share) / table.nbytes_per_us_of_all)
        apart_us = table.apart_us if self.images == 1 else table.library_us
        return apart_us - table.launch_us - self.squeezed * table.squeezed_us - reading

    def shared_nbytes(self, share: int) -> int:
        """Bytes that a block keeps: biases and the squeezed vector, the channels, and its rows of the second weights."""
        item = element_nbytes(self.dtype)
        numbers = -(-(2 * self.squeezed + share) // 4) * 4 * max(item, 4)
        return numbers + -(-self.channels * item // 16) * 16 + share * self.squeezed * item


def excite(
    sizes: Excitation,
    share: int,
    operands: tuple[Argument, ...],
    functions: tuple[str, str],
    limits: tuple[float, float],
    constant: bool,
) -> Launch[Operand]:
    """The launch in which a block makes ``share`` outputs.

    ``operands``: x, both weights, both biases (NULL for none) and the result. ``functions``: what follows each product, as
    epilogue.cuh and the kernel call it; ``limits``: alpha and beta of a hard sigmoid. ``constant``: no kernel makes the weights.
    """
    pack = load_width(sizes.channels, element_nbytes(sizes.dtype))
    rows = min(power_of_two_from(-(-sizes.squeezed // _WARPS)), _MOST_ROWS)
    steps = min(-(-sizes.channels // (32 * pack)), _MOST_HELD // rows)
    defines = (
        ("MI_T", c_type(sizes.dtype)),
        ("MI_PACK", str(pack)),
        ("MI_ROWS", str(rows)),
        ("MI_STEPS", str(steps)),
        ("MI_WARPS", str(_WARPS)),
        ("MI_CONSTANT", str(int(constant))),
        ("MI_ACTIVATION", functions[0]),
        ("MI_GATE", functions[1]),
    )
    helpers = max(1, min(32, 32 * _WARPS // share))
    numbers = map(np.int32, (sizes.images, sizes.channels, sizes.squeezed, sizes.features, share, helpers))
    alpha, beta = (np.float64(n) if sizes.dtype is DType.F64 else np.float32(n) for n in limits)
    return Launch(
        Kernel("excitation", "excitation.cu", defines),
        (-(-sizes.features // share), min(sizes.images, _MOST_IMAGES)),
        (32, _WARPS),
        (*operands, *numbers, alpha, beta),
        sizes.shared_nbytes(share),
    )

"""Squeeze-and-excitation of whole images by clusters on sm_90: sizes, what a block may have, what it takes, and the launch."""

from dataclasses import dataclass

import numpy as np

from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.cuda.contract.launch_attributes import LaunchAttributes
from miniinfer_cli.backends.cuda.contract.steps import Argument, Kernel, Launch, Operand
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.types import c_type, element_nbytes
from miniinfer_cli.backends.cuda.tactics.convolution.excitation_heuristic import EXCITATIONS, ExcitationHeuristic
from miniinfer_cli.backends.cuda.tactics.products.product_sm90 import ARCH
from miniinfer_cli.ir import DType

THREADS = 512
DTYPES = (DType.F16, DType.BF16, DType.F32)
_VECTOR = 16  # bytes
_MOST_IMAGES = 65535  # along a grid's second axis


@dataclass(frozen=True, slots=True)
class Cut:
    """How a cluster of blocks has an image: ``down`` parts of its pixels, ``across`` of its channels."""

    down: int
    across: int

    @property
    def parts(self) -> int:
        """Blocks of a cluster."""
        return self.down * self.across

    @property
    def key(self) -> str:
        """What a tactic is called that cuts so."""
        return f"cluster of {self.down}x{self.across}"


@dataclass(frozen=True, slots=True)
class SqueezeExcitation:
    """Of ``images`` of so many ``pixels`` and ``channels``, by as many ``squeezed`` values."""

    dtype: DType
    images: int
    pixels: int
    channels: int
    squeezed: int

    @property
    def estimate(self) -> Estimate:
        """Images read and written once, weights and biases read once; an element is added and multiplied, a weight by image."""
        elements, weights = self.images * self.pixels * self.channels, 2 * self.squeezed * self.channels
        flops = 2 * elements + 2 * self.images * weights
        return Estimate(flops, (2 * elements + weights + self.squeezed + self.channels) * element_nbytes(self.dtype))

    @property
    def nbytes(self) -> int:
        """Of the images."""
        return self.images * self.pixels * self.channels * element_nbytes(self.dtype)

    @property
    def pack(self) -> int:
        """Elements of a vector."""
        return _VECTOR // element_nbytes(self.dtype)

    @property
    def packs(self) -> int:
        """Vectors of a pixel."""
        return self.channels // self.pack

    @property
    def rows(self) -> int:
        """Squeezed values, filled up to fours."""
        return -(-self.squeezed // 4) * 4

    def own(self, cut: Cut) -> tuple[int, int]:
        """Pixels and vectors of channels that a block has at most."""
        return -(-self.pixels // cut.down), -(-self.packs // cut.across)

    def shared_nbytes(self, cut: Cut) -> int:
        """Bytes that a block keeps: its part of the image and of both weights, numbers of threads, means, sums, and a barrier."""
        pixels, packs = self.own(cut)
        numbers = THREADS * self.pack + packs * self.pack + (2 + cut.parts) * self.rows
        return (pixels + 2 * self.squeezed) * packs * _VECTOR + 4 * numbers + 8

    def cuts(self, target: Target, table: ExcitationHeuristic = EXCITATIONS) -> tuple[Cut, ...]:
        """How images may be cut, the favourite first; none where there is nothing, where channels are no whole vectors, or where
        a part has no room."""
        sizes = (self.images, self.pixels, self.channels, self.squeezed)
        if self.dtype not in DTYPES or 0 in sizes or self.channels % self.pack or self.images > _MOST_IMAGES:
            return ()
        parts = table.parts
        wide = 2 * self.squeezed * self.channels * element_nbytes(self.dtype) > table.own_weights_nbytes
        favourite = Cut(1, parts) if wide else Cut(parts, 1)
        listed = dict.fromkeys((favourite, *(Cut(*n) for n in table.other_cuts)))
        return tuple(cut for cut in listed if not self.fault(cut) and self.shared_nbytes(cut) <= target.shared_nbytes)

    def fault(self, cut: Cut) -> str:
        """Why the kernel cannot cut images so, whatever room there is; nothing where it can."""
        _, packs = self.own(cut)
        if (cut.across - 1) * packs >= self.packs:
            return f"{self.packs} vectors of channels leave a block of {cut.across} with none"
        if packs * self.pack > THREADS or self.squeezed > THREADS:
            return f"{packs * self.pack} channels of a block, {self.squeezed} squeezed values"
        return ""

    def gain_us(self, table: ExcitationHeuristic = EXCITATIONS) -> float:
        """Microseconds that one launch is expected to save, beside means, gates and a product of their own; less than nothing
        where it is not to be taken unasked.
        """
        if self.images > table.whole_images:
            return -1.0
        apart_us = table.apart_us if self.images == 1 else table.library_us
        passes_us = 2 * table.pass_us + 3 * self.nbytes / table.pass_nbytes_per_us
        return passes_us + apart_us - table.whole_us - 2 * self.nbytes / table.pass_nbytes_per_us


def squeeze_and_excite(
    sizes: SqueezeExcitation,
    cut: Cut,
    operands: tuple[Argument, ...],
    functions: tuple[str, str],
    limits: tuple[float, float],
) -> Launch[Operand]:
    """The launch. ``operands``: x, both weights as rows of channels, both biases (NULL for none) and the result. ``functions``:
    what follows each product, as epilogue.cuh and gates.cuh call it; ``limits``: alpha and beta of a hard sigmoid.
    Raises ValueError for a cut that the kernel has not.
    """
    why = sizes.fault(cut)
    if why:
        raise ValueError(why)
    defines = (
        ("MI_T", c_type(sizes.dtype)),
        ("MI_PACK", str(sizes.pack)),
        ("MI_THREADS", str(THREADS)),
        ("MI_PARTS", str(cut.parts)),
        ("MI_ACROSS", str(cut.across)),
        ("MI_ACTIVATION", functions[0]),
        ("MI_GATE", functions[1]),
    )
    numbers = map(np.int32, (sizes.pixels, sizes.packs, sizes.squeezed, sizes.rows, *sizes.own(cut)))
    return Launch(
        Kernel("squeeze_excitation", "sm90/squeeze_excitation.cu", defines, arch=ARCH),
        (cut.parts, sizes.images),
        (THREADS,),
        (*operands, *numbers, *map(np.float32, limits)),
        sizes.shared_nbytes(cut),
        LaunchAttributes(cluster=(cut.parts, 1, 1)),
    )

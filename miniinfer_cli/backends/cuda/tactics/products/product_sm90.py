"""Products of few tokens on sm_90: the launch of the kernel, and what it does before and behind the sums."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from miniinfer_cli.backends.cuda.contract.launch_attributes import LaunchAttributes
from miniinfer_cli.backends.cuda.contract.steps import NULL, Argument, Kernel, Launch, Operand
from miniinfer_cli.backends.cuda.contract.tensor_map import Im2col, MapElement, Swizzle, TensorMap
from miniinfer_cli.backends.cuda.contract.types import c_type, element_nbytes
from miniinfer_cli.backends.cuda.tactics.products.token_forms import (
    CHUNK_NBYTES,
    FEATURES,
    MOST_TOKENS,
    Form,
    TokenProduct,
    grid_of,
)
from miniinfer_cli.ir import DType

ARCH = "sm_90a"
FILE = "sm90/product.cu"
"""Of the kernel."""
MOST_OPERANDS = 4
"""Operands that finish an element."""
PIECE = 64
"""Neighbours in a row whose statistics are one pair."""
ELEMENTS = {
    DType.F16: MapElement.F16,
    DType.BF16: MapElement.BF16,
    DType.F32: MapElement.TF32,
    **dict.fromkeys((DType.I8, DType.U8, DType.F8E4M3FN), MapElement.U8),
}
"""What tensor maps see of the types that the matrix units multiply."""
INTEGERS = (DType.I8, DType.U8)
"""Whose sums are whole numbers."""


@dataclass(frozen=True, slots=True)
class Ends:
    """What is done with scaled sums of bytes: the macros of ``integer_ending.cuh``, and the numbers of its ``Ending``."""

    defines: tuple[tuple[str, str], ...]
    numbers: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Finish:
    """What is done with a sum. ``body``: the text of functions, on one line; ``call``: the call, of ``s``, ``x0`` ... and ``y``.

    Where rows are normalized, also of ``mean``, which is taken off the elements of the token's row, and of ``inverse``, by which
    the rest is multiplied. ``types`` are of the operands; ``steps`` 1 where an operand has an element for each feature, 0 where
    for all alike; ``rows`` the elements from token to token.
    """

    body: str
    call: str
    types: tuple[DType, ...] = ()
    steps: tuple[int, ...] = ()
    rows: tuple[int, ...] = ()
    adds: bool = False
    """Whether it adds the only operand to the sum, and does nothing else."""
    plain: bool = False
    """Whether it does nothing but round the sum to the result's type."""
    quick: bool = False
    """Whether it takes a few instructions, and no operand."""
    ends: Ends | None = None
    """What ``ended`` and ``ending`` of the call are, where it is of bytes."""


@dataclass(frozen=True, slots=True)
class KeptRows:
    """Where normalized tokens go, dense, and by what their elements are multiplied; the shift is added, where there is one."""

    result: Operand
    scale: Operand
    shift: Operand | None


@dataclass(frozen=True, slots=True)
class Rows:
    """What is known of the rows of tokens: ``statistics``, f32[tokens, k / 64, 2], mean and M2 of each piece of 64 elements.

    ``centred``: whether the mean is taken off. ``kept``: None where nobody reads the normalized tokens themselves.
    """

    statistics: Operand
    epsilon: float
    centred: bool = True
    kept: KeptRows | None = None


@dataclass(frozen=True, slots=True)
class Windows:
    """Where tokens are the windows of a convolution: ``x_shape`` of images, channels last, and how a filter of ``kernel`` taps
    is moved, height first. ``begin`` and ``end`` are pads. ``pitches``: elements from pixel to pixel, row to row and image to
    image, None where images are dense. ``groups``: of channels, each of which has features of its own.
    """

    x_shape: tuple[int, int, int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    begin: tuple[int, int]
    end: tuple[int, int]
    pitches: tuple[int, int, int] | None = None
    groups: int = 1

    @property
    def channels(self) -> int:
        """Of a group."""
        return self.x_shape[3] // self.groups

    @property
    def elements(self) -> int:
        """Of all images, those that several windows share but once."""
        whole = math.prod(self.x_shape)
        return whole if self.pitches is None else min(whole, self.x_shape[0] * self.pitches[2])

    @property
    def corners(self) -> tuple[int, int]:
        """Of the filter, along the height and the width."""
        _, *sizes, _ = self.x_shape
        sides = zip(sizes, self.kernel, self.strides, self.dilations, self.begin, self.end, strict=True)
        height, width = (-(-(n + b + e - d * (k - 1)) // s) for n, k, s, d, b, e in sides)
        return height, width

    def chunks(self, nbytes: int) -> int:
        """Of k, for each tap, with elements of so many bytes."""
        return -(-self.channels * nbytes // CHUNK_NBYTES)

    def seen(self, tokens: Operand, dtype: DType, pixels: int) -> TensorMap[Operand]:
        """The map of the images, of which a copy takes so many windows' pixels, of a group's channels: what lies behind these
        reads as zeros, whatever the next group has there.
        """
        images, height, width, channels = self.x_shape
        nbytes = element_nbytes(dtype)
        lower = tuple(-b for b in reversed(self.begin))
        upper = tuple(e - d * (k - 1) for e, d, k in list(zip(self.end, self.dilations, self.kernel, strict=True))[::-1])
        columns = Im2col(lower, upper, CHUNK_NBYTES // nbytes, pixels)
        pitches = self.pitches or (channels, width * channels, height * width * channels)
        strides = tuple(pitch * nbytes for pitch in pitches)
        steps = (1, *reversed(self.strides), 1)
        dims: tuple[int, ...] = (channels, width, height, images)
        if self.groups > 1:
            dims, strides, steps = (self.channels, *dims[1:], self.groups), (*strides, self.channels * nbytes), (*steps, 1)
            columns = replace(columns, lower=(*lower, 0), upper=(*upper, 0))
        return TensorMap(tokens, ELEMENTS[dtype], dims, strides, swizzle=Swizzle.B128, im2col=columns, steps=steps)

    def argument(self, nbytes: int) -> "np.ndarray[Any, np.dtype[np.int32]]":
        """The kernel's ``Windows``, for elements of so many bytes."""
        axes = (self.strides, tuple(-b for b in self.begin), self.dilations, self.corners)
        return np.array([self.chunks(nbytes), self.kernel[1], *(n for axis in axes for n in reversed(axis))], np.int32)


MOST_SCALES_NBYTES = 2 << 10
"""Of any form, what follows."""


def keeps_rows(p: TokenProduct) -> bool:
    """Whether the kernel can make the normalized tokens as well: each 64 features make a slice of them."""
    return _kept_bits(p) <= 7


def _kept_bits(p: TokenProduct) -> int:
    packs, tiles = -(-p.k // 8), -(-p.features // FEATURES)
    return (-(-packs // tiles) - 1).bit_length()


def scales_nbytes(form: Form) -> int:
    """Bytes of shared memory more that a block takes whose rows are normalized."""
    return 8 * 8 * form.share() * form.groups * form.rows


def product_launch(
    p: TokenProduct,
    form: Form,
    finish: Finish,
    tokens: Operand,
    weights: Operand,
    result: Operand,
    operands: Sequence[Operand],
    *,
    rows: Rows | None = None,
    summary: Operand | None = None,
    windows: Windows | None = None,
) -> Launch[Operand]:
    """The launch. ``operands`` are those of ``finish``.

    ``rows``: the tokens' statistics; k is a multiple of 64 then, and tokens are of 16 bits. ``summary``: where those of results
    go, f32[tokens, features / 64, 2]: features are a multiple of 64 then, and all rows whole vectors. ``windows``: ``tokens`` are
    images, and k the channels of each tap, filled up to whole chunks.
    Raises ValueError for a form that the kernel has not, and for such sizes.
    """
    why = form.fault(p.chunks)
    if why:
        raise ValueError(why)
    if rows is not None and (p.k % PIECE or not p.dtype.is_half):
        raise ValueError(f"rows of {p.k} elements of {p.dtype} have no pieces of {PIECE}")
    if rows is not None and rows.kept is not None and not keeps_rows(p):
        raise ValueError(f"rows of {p.k} elements are too long to be made beside {p.features} features")
    if rows is not None and not form.keeps_barriers(p.chunks):
        raise ValueError(f"the results of {form} lie over what rows are normalized by")
    held = form.chunks_of_block(p.chunks)
    stages = min(form.stages, held)
    nbytes = element_nbytes(p.dtype)
    pack = pack_of(p, finish, (result, *operands))
    if summary is not None and (p.features % PIECE or pack != PIECE // 8):
        raise ValueError(f"results of {p.features} features have no pieces of {PIECE}, or lie at no whole vectors")
    if p.dtype in INTEGERS and not has_columns(form.tokens // form.groups):
        raise ValueError(f"the matrix units have no {form.tokens // form.groups} columns of whole numbers")
    unused = MOST_OPERANDS - len(operands)
    types = [c_type(t) for t in finish.types] + ["f32"] * unused
    defines = (
        ("MI_T", c_type(p.dtype)),
        ("MI_W", c_type(p.weights or p.dtype)),
        ("MI_D", c_type(p.result)),
        ("MI_BYTES", str(bytes_macro(p.dtype))),
        ("MI_TOKENS", str(form.tokens)),
        ("MI_GROUPS", str(form.groups)),
        ("MI_ROWS", str(form.rows)),
        ("MI_COLUMNS", str(form.tokens // form.groups)),
        ("MI_SPLIT", str(form.split)),
        ("MI_CHUNKS", str(held)),
        ("MI_EVEN", str(int(p.chunks % form.split == 0))),
        ("MI_STAGES", str(stages)),
        ("MI_SHARING", str(form.sharing)),
        ("MI_OVER", str(int(form.parts_lie_over(p.chunks)))),
        ("MI_CONSTANT", str(int(p.constant))),
        ("MI_PACK", str(pack)),
        ("MI_OPERANDS", str(len(operands))),
        *((f"MI_X{i}", t) for i, t in enumerate(types)),
        *((f"MI_STEP{i}", str(s)) for i, s in enumerate((*finish.steps, *(0,) * unused))),
        *((f"MI_VARIES{i}", str(int(row > 0))) for i, row in enumerate((*finish.rows, *(0,) * unused))),
        ("MI_BODY", finish.body),
        ("MI_FINISH(s, x0, x1, x2, x3, mean, inverse, y)", finish.call),
        ("MI_PIECES", str(p.k // PIECE if rows else 0)),
        ("MI_CENTRED", str(int(rows is None or rows.centred))),
        ("MI_KEEPS_ROWS", str(int(rows is not None and rows.kept is not None))),
        ("MI_SUMMARY", str(int(summary is not None))),
        ("MI_WINDOWS", str(int(windows is not None))),
        ("MI_ENDS", str(int(finish.ends is not None))),
        *(finish.ends.defines if finish.ends else ()),
    )
    element, box, shared = ELEMENTS[p.dtype], CHUNK_NBYTES // nbytes, form.tokens // form.sharing
    seen = TensorMap(tokens, element, (p.k, p.count), (p.pitch * nbytes,), (box, shared), Swizzle.B128)
    if windows is not None:
        seen = windows.seen(tokens, p.dtype, shared)
    values: list[Argument] = [weights, seen, result, *operands, *(NULL,) * unused]
    values += [np.array((*finish.rows, *(0,) * unused), np.int64), np.int64(p.result_pitch)]
    values += [np.int32(n) for n in (p.features, p.count, p.chunks)]
    if rows is not None:
        values += [rows.statistics, np.float32(rows.epsilon)]
        if rows.kept is not None:
            values += [tokens, rows.kept.scale, rows.kept.shift or NULL, rows.kept.result, np.int64(p.pitch)]
            values.append(np.int32(_kept_bits(p)))
    if summary is not None:
        values.append(summary)
    if windows is not None:
        values.append(windows.argument(nbytes))
    if finish.ends is not None:
        values.append(np.array(finish.ends.numbers, np.float32))
    return Launch(
        Kernel("product_sm90", FILE, defines, arch=ARCH),
        grid_of(p, form),
        (form.threads + 32,),
        tuple(values),
        form.shared_nbytes(p.chunks) + (scales_nbytes(form) if rows else 0),
        LaunchAttributes(cluster=(form.sharing, form.split, 1)),
    )


def bytes_macro(dtype: DType) -> int:
    """The kernels' MI_BYTES: 1 where sums are whole numbers, 2 where they have few digits, else 0."""
    return 1 if dtype in INTEGERS else 2 if dtype is DType.F8E4M3FN else 0


def has_columns(columns: int) -> bool:
    """Whether a matrix instruction of whole numbers has so many columns."""
    return columns in (8, 16, 24) or (columns % 16 == 0 and 0 < columns <= MOST_TOKENS)


def packed_pieces() -> "np.ndarray[Any, np.dtype[np.int64]]":
    """The 512 pieces of 16 bytes of a chunk of packed weights: which piece of its 64 rows, eight to a row, lies where."""
    place = np.arange(FEATURES * CHUNK_NBYTES // 16)
    return place ^ (place // 8 % 8)


def pack_of(p: TokenProduct, finish: Finish, places: Sequence[Operand]) -> int:
    """Elements that a thread finishes at once: 8 where all rows are whole vectors, of 16 bytes or of 8, else 1."""
    sizes = [element_nbytes(p.result), *map(element_nbytes, finish.types)]
    pitches = [p.result_pitch, *(row if step else 0 for row, step in zip(finish.rows, finish.steps, strict=True))]
    vectors = all(
        pitch * size % min(16, 8 * size) == 0 and place.offset % min(16, 8 * size) == 0
        for pitch, size, place in zip(pitches, sizes, places, strict=True)
    )
    return 8 if vectors and p.features % 8 == 0 else 1


def bias_finish(dtype: DType) -> Finish:
    """Adds one row to all tokens."""
    name = c_type(dtype)
    body = f"MI_DEVICE void body(float s, {name} x0, {name}& y) {{ y = narrow<{name}>(s + widen(x0)); }}"
    return Finish(body, "body(s, x0, y)", (dtype,), (1,), (0,))

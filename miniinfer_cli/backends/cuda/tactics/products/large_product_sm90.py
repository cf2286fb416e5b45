"""Products of many tokens on sm_90: the form of the kernel, what it takes of a block, and its launch."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from miniinfer_cli.backends.cuda.contract.launch_attributes import MOST_CLUSTER, LaunchAttributes
from miniinfer_cli.backends.cuda.contract.steps import NULL, Argument, Kernel, Launch, Operand
from miniinfer_cli.backends.cuda.contract.tensor_map import MapElement, Swizzle, TensorMap
from miniinfer_cli.backends.cuda.contract.types import c_type, element_nbytes
from miniinfer_cli.backends.cuda.tactics.products.product_sm90 import (
    ARCH,
    MOST_OPERANDS,
    PIECE,
    Finish,
    KeptRows,
    Windows,
)
from miniinfer_cli.backends.cuda.tactics.products.token_forms import CHUNK_NBYTES, MOST_SHARED
from miniinfer_cli.ir import DType

FILE = "sm90/large_product.cu"
"""Of the kernel."""
ROWS = 64
"""Tokens of a warpgroup."""
MOST_FEATURES = 256
"""Features of a tile: the columns of a matrix instruction."""
MOST_PITCH = 1 << 24
"""Elements between rows of the result: some rows of it are counted in 32 bits."""
_PIECE_NBYTES = 16
_MOST_OF_FOUR = 192  # features of a tile that four warps finish
_FEATURES, _SHARING, _MOST_STAGES = (256, 192, 128, 64), (2, 1), 6
_LAUNCH_US = 1.9
# By features, where all multiprocessors are at work: a chunk, what passes between two tiles, and what an erf-Gelu adds to a tile.
# Those of 64 features are predicted.
_CHUNK_US, _TILE_US = {256: 0.64, 192: 0.545, 128: 0.381, 64: 0.3}, {256: 2.1, 192: 0.93, 128: 0.9, 64: 0.6}
_SHORT_CHUNK_US = {256: 2.74, 192: 2.7, 128: 2.1, 64: 1.5}
"""Of a part of a chunk: sums are put down and copied before the next tile's can be (MobileNetV2, 16 and 24 channels)."""
_FINISH_US = {256: 1.2, 192: 0.5, 128: 0.4, 64: 0.2}
_ALONE = 128  # features of a tile up to which blocks are as fast that share nothing
_SHORT_RING, _SHORT_US = 3, 0.07  # a chunk takes so much more with a ring of that
_NBYTES_PER_US = 3.7e6  # of memory
_REGISTERS = {3: (192, 120, 120), 4: (168, 136, 40)}
_ELEMENTS = {DType.F16: MapElement.F16, DType.BF16: MapElement.BF16, DType.F32: MapElement.TF32}


@dataclass(frozen=True, slots=True)
class LargeForm:
    """How the kernel cuts a product: tiles of 64 tokens for each of ``groups`` warpgroups, by ``features``.

    ``stages`` of the ring, and ``sharing``: how many blocks, one below the other, load weights for each other.
    """

    groups: int
    features: int
    stages: int
    sharing: int = 1

    @property
    def tokens(self) -> int:
        """Of a tile."""
        return ROWS * self.groups

    @property
    def threads(self) -> int:
        """Of a block."""
        return 128 * (self.groups + 1 + self.finishers // 4)

    @property
    def finishers(self) -> int:
        """Warps that finish: with more threads no matrix instruction has so many columns, for want of registers."""
        return 3 if self.features > _MOST_OF_FOUR else 4

    @property
    def registers(self) -> tuple[int, int, int]:
        """Of a thread that multiplies, that finishes, and that loads, in a warpgroup with those that finish, or in one more."""
        return _REGISTERS[self.finishers] if self.groups > 1 else (0, 0, 0)

    def shared_nbytes(self, waiting: DType, *, scales: bool = False) -> int:
        """Bytes of shared memory of a block whose sums wait as numbers of this type; ``scales``: whose rows are normalized."""
        stage = (self.tokens + self.features) * CHUNK_NBYTES
        added = 2 * (4 * (self.features // 4 + 4) * 4 + 4 * self.tokens * scales)
        barriers = 8 * (2 * self.stages + 3 * self.groups)
        sums = self.tokens * self.features * element_nbytes(waiting)
        return self.stages * stage + sums + added + barriers

    def fault(self, waiting: DType, *, scales: bool = False) -> str:
        """Why the kernel has no such form; nothing where it has."""
        if self.groups not in (1, 2) or self.stages < 2:
            return f"{self.groups} warpgroups, a ring of {self.stages}"
        panel = CHUNK_NBYTES // element_nbytes(waiting)
        if not 1 <= self.sharing <= MOST_CLUSTER or self.features % (8 * self.sharing) or self.features % panel:
            return f"{self.features} features, whose weights {self.sharing} blocks load"
        if not 0 < self.features <= MOST_FEATURES:
            return f"{self.features} features"
        if self.shared_nbytes(waiting, scales=scales) > MOST_SHARED:
            return f"{self.shared_nbytes(waiting, scales=scales)} bytes of shared memory"
        return ""


@dataclass(frozen=True, slots=True)
class LargeProduct:
    """``count`` tokens of ``k`` elements times ``features`` weights of as many; all rows are pitched.

    A sum times ``alpha``, and a bias of type ``biased`` where there is one, is rounded to ``waiting`` before it is finished.
    ``constant``: no kernel makes the weights. ``windows``: tokens are those of a convolution, and k the channels of each tap,
    filled up to whole chunks; weights have no such fillings, a row of them is ``weights_pitch`` long.
    """

    count: int
    features: int
    k: int
    dtype: DType
    waiting: DType
    result: DType
    pitch: int
    weights_pitch: int
    result_pitch: int
    alpha: float = 1.0
    biased: DType | None = None
    constant: bool = True
    windows: Windows | None = None

    @property
    def chunks(self) -> int:
        """Of k."""
        return -(-self.k * element_nbytes(self.dtype) // CHUNK_NBYTES)

    @property
    def groups(self) -> int:
        """Of features, each by channels of its own."""
        return 1 if self.windows is None else self.windows.groups

    @property
    def width(self) -> int:
        """Features of a group."""
        return self.features // self.groups


@dataclass(frozen=True, slots=True)
class LargeRows:
    """Tokens that are normalized: sums over them as they are become those of normalized ones.

    ``statistics``: f32[tokens, k / 64, 2], mean and M2 of each piece. Weights have been multiplied by the scale and ``factor``;
    where means are taken off (``centred``), those of each feature sum up to nothing. ``shift``: f32[features], the products of
    the weights as they were with what is added to normalized tokens, or None.
    """

    statistics: Operand
    epsilon: float
    centred: bool
    shift: Operand | None
    factor: float = 1.0
    kept: KeptRows | None = None
    """Where the normalized tokens themselves go, if somebody reads them."""


def tiles_along(p: LargeProduct, form: LargeForm) -> tuple[int, int]:
    """Tiles of clusters along the tokens and along the features."""
    return -(-p.count // (form.tokens * form.sharing)), -(-p.features // form.features)


def large_launch(
    p: LargeProduct,
    form: LargeForm,
    finish: Finish,
    tokens: Operand,
    weights: Operand,
    result: Operand,
    bias: Operand | None,
    operands: Sequence[Operand],
    multiprocessors: int,
    band: int = 8,
    *,
    rows: LargeRows | None = None,
    summary: Operand | None = None,
) -> Launch[Operand]:
    """The launch. ``operands`` are those of ``finish``.

    ``rows``: how tokens are normalized; k is a multiple of 64 then, tokens are of 16 bits and no windows, and alpha is 1.
    ``summary``: where the statistics of results go, f32[tokens, features / 64, 2]: see ``has_pieces``.
    Raises ValueError for a form that the kernel has not, and for such sizes.
    """
    whole = is_whole(p, finish, (result, *operands))
    tabled, plain, early = (whole and holds(p, finish) for holds in (is_table, is_plain, finishes_early))
    why = form.fault(p.waiting, scales=rows is not None)
    if why:
        raise ValueError(why)
    if rows is not None and not is_normalized(p):
        raise ValueError(f"rows of {p.k} elements of {p.dtype} have no pieces of {PIECE}, or alpha is not 1")
    if summary is not None and not has_pieces(p, finish, (result, *operands)):
        raise ValueError(f"results of {p.features} features have no pieces of {PIECE}, lie at no whole vectors, or never wait")
    defines = (
        ("MI_T", c_type(p.dtype)),
        ("MI_S", c_type(p.waiting)),
        ("MI_D", c_type(p.result)),
        ("MI_B", c_type(p.biased or p.waiting)),
        ("MI_GROUPS", str(form.groups)),
        ("MI_FEATURES", str(form.features)),
        ("MI_COLUMNS", str(form.features)),
        ("MI_STAGES", str(form.stages)),
        ("MI_FINISHERS", str(form.finishers)),
        ("MI_SHARING", str(form.sharing)),
        ("MI_CONSTANT", str(int(p.constant))),
        ("MI_SCALES", str(int(p.alpha != 1))),
        ("MI_BIASED", str(int(p.biased is not None))),
        ("MI_WHOLE", str(int(whole))),
        ("MI_TABLE", str(int(tabled))),
        ("MI_MULTIPLYING", str(form.registers[0])),
        ("MI_FINISHING", str(form.registers[1])),
        ("MI_LOADING", str(form.registers[2])),
        ("MI_OPERANDS", str(len(operands))),
        ("MI_ADDS", str(int(tabled and finish.adds and p.waiting.is_half and {*finish.types, p.result} == {p.waiting}))),
        ("MI_PLAIN", str(int(plain))),
        ("MI_EARLY", str(int(early))),
        ("MI_PIECES", str(p.k // PIECE if rows else 0)),
        ("MI_CENTRED", str(int(rows is not None and rows.centred))),
        ("MI_SHIFTED", str(int(rows is not None and rows.shift is not None))),
        ("MI_KEEPS_ROWS", str(int(rows is not None and rows.kept is not None))),
        ("MI_SUMMARY", str(int(summary is not None))),
        ("MI_WINDOWS", str(int(p.windows is not None))),
        *finish_defines(finish, DType.F32),
    )
    seen, read = token_map(p, form.tokens, tokens), weight_map(p, form.features // form.sharing, weights)
    down, columns = tiles_along(p, form)
    beside = result_map(p, operands[0], finish.rows[0]) if tabled else seen
    copied = result_map(p, result, p.result_pitch) if tabled or plain or early else seen
    values: list[Argument] = [seen, read, beside, copied, result, bias or NULL, *finish_arguments(finish, operands)]
    values += [np.int64(p.result_pitch), np.float32(p.alpha)]
    values += [np.int32(n) for n in (p.features, p.count, p.chunks, down, columns, band)]
    values += [NULL, NULL] if rows is None else [rows.statistics, rows.shift or NULL]
    values += [summary or NULL, np.float32(rows.epsilon if rows else 0), np.float32(1 / rows.factor if rows else 1)]
    if rows is not None and rows.kept is not None:
        values += [tokens, rows.kept.scale, rows.kept.shift or NULL, rows.kept.result, np.int64(p.pitch)]
    if p.windows is not None:
        values.append(p.windows.argument(element_nbytes(p.dtype)))
    clusters = min(down * columns, max(1, multiprocessors // form.sharing))
    return Launch(
        Kernel("large_product", FILE, defines, arch=ARCH),
        (clusters * form.sharing,),
        (form.threads,),
        tuple(values),
        form.shared_nbytes(p.waiting, scales=rows is not None),
        LaunchAttributes(cluster=(form.sharing, 1, 1)),
    )


def finish_defines(finish: Finish, unused: DType) -> tuple[tuple[str, str], ...]:
    """Macros of what finishes a sum; operands that it has not are of type ``unused``."""
    less = MOST_OPERANDS - len(finish.types)
    return (
        *((f"MI_X{i}", c_type(t)) for i, t in enumerate((*finish.types, *(unused,) * less))),
        *((f"MI_STEP{i}", str(s)) for i, s in enumerate((*finish.steps, *(0,) * less))),
        ("MI_BODY", finish.body),
        ("MI_FINISH(s, x0, x1, x2, x3, y)", finish.call),
    )


def finish_arguments(finish: Finish, operands: Sequence[Operand]) -> tuple[Argument, ...]:
    """What it reads, and how far rows of that lie apart, in elements."""
    less = MOST_OPERANDS - len(operands)
    return (*operands, *(NULL,) * less, np.array((*finish.rows, *(0,) * less), np.int64))


def token_map(p: LargeProduct, count: int, tokens: Operand) -> TensorMap[Operand]:
    """Of which a copy takes a chunk of so many tokens."""
    if p.windows is not None:
        return p.windows.seen(tokens, p.dtype, count)
    nbytes = element_nbytes(p.dtype)
    box = (CHUNK_NBYTES // nbytes, count)
    return TensorMap(tokens, _ELEMENTS[p.dtype], (p.k, p.count), (p.pitch * nbytes,), box, Swizzle.B128)


def weight_map(p: LargeProduct, rows: int, weights: Operand) -> TensorMap[Operand]:
    """Of which a copy takes a chunk of so many features."""
    nbytes = element_nbytes(p.dtype)
    element, box, pitch = _ELEMENTS[p.dtype], CHUNK_NBYTES // nbytes, p.weights_pitch * nbytes
    if p.windows is None:
        return TensorMap(weights, element, (p.k, p.features), (pitch,), (box, rows), Swizzle.B128)
    channels, taps = p.windows.channels, math.prod(p.windows.kernel)
    strides = (channels * nbytes, pitch)
    return TensorMap(weights, element, (channels, taps, p.features), strides, (box, 1, rows), Swizzle.B128)


def is_normalized(p: LargeProduct) -> bool:
    """Whether the kernel can normalize the tokens of such a product."""
    return p.k % PIECE == 0 and p.dtype.is_half and p.alpha == 1 and p.windows is None


def has_pieces(p: LargeProduct, finish: Finish, places: Sequence[Operand]) -> bool:
    """Whether the kernel can leave statistics of the results: these wait as they are stored, and rows are whole vectors."""
    waits = is_whole(p, finish, places) and leaves_by_map(p, finish)
    return waits and p.features % PIECE == 0 and p.waiting.is_half and p.waiting is p.result


def is_plain(p: LargeProduct, finish: Finish) -> bool:
    """Whether nothing is done to a sum."""
    return finish.plain and p.waiting is p.result


def finishes_early(p: LargeProduct, finish: Finish) -> bool:
    """Whether those who multiply finish, with no operand."""
    return finish.quick and not finish.types and element_nbytes(p.waiting) == element_nbytes(p.result)


def leaves_by_map(p: LargeProduct, finish: Finish) -> bool:
    """Whether results wait as they are stored, if rows are whole vectors: nobody has to finish them, or those who multiply do."""
    return is_table(p, finish) or is_plain(p, finish) or finishes_early(p, finish)


def large_forms(
    p: LargeProduct,
    multiprocessors: int,
    room: int = MOST_SHARED,
    *,
    scales: bool = False,
    finishes: bool = False,
    moved: int = 0,
) -> list[LargeForm]:
    """Forms whose blocks have ``room`` bytes of shared memory, the fastest first by ``large_us``; the longest rings of each.

    ``scales``: rows are normalized; ``finishes`` and ``moved`` as in ``large_us``.
    """
    found = []
    for features, sharing in itertools.product(_FEATURES, _SHARING):
        form = LargeForm(2, features, _MOST_STAGES, sharing)
        while form.stages > 2 and form.shared_nbytes(p.waiting, scales=scales) > min(room, MOST_SHARED):
            form = replace(form, stages=form.stages - 1)
        if not form.fault(p.waiting, scales=scales) and form.shared_nbytes(p.waiting, scales=scales) <= room:
            found.append(form)
    us = partial(large_us, p, multiprocessors=multiprocessors, finishes=finishes, moved=moved)

    def rank(form: LargeForm) -> tuple[float, ...]:
        """Of those that are as fast, the one that multiplies least, then the one that loads least, or waits for nobody."""
        _, across = tiles_along(p, form)
        shared = -form.sharing if form.features > _ALONE else form.sharing
        return us(form), across * form.features, shared, -form.features

    return sorted(found, key=rank)


def large_us(p: LargeProduct, form: LargeForm, multiprocessors: int, *, finishes: bool = False, moved: int = 0) -> float:
    """Microseconds, about, as fitted to what an H200 took: turns of tiles, and what begins and ends a kernel.

    ``finishes``: what follows a sum is more than it takes to write it. ``moved``: bytes that pass through memory at least, for
    products of few operations for each.
    """
    down, across = tiles_along(p, form)
    turns = -(-down * across // max(1, multiprocessors // form.sharing))
    chunk = _CHUNK_US[form.features] + (_SHORT_US if form.stages <= _SHORT_RING and form.features < MOST_FEATURES else 0)
    behind = turns * _FINISH_US[form.features] if finishes else 0
    short = turns > 1 and p.k * element_nbytes(p.dtype) < CHUNK_NBYTES
    tile = _SHORT_CHUNK_US[form.features] if short else p.chunks * chunk + _TILE_US[form.features]
    return _LAUNCH_US + max(turns * tile + behind, moved / _NBYTES_PER_US)


def is_whole(p: LargeProduct, finish: Finish, places: Sequence[Operand]) -> bool:
    """True where rows of the result and of operands are whole vectors for the elements that a thread finishes at once."""
    piece = _PIECE_NBYTES // element_nbytes(p.waiting)
    sizes = [element_nbytes(p.result), *map(element_nbytes, finish.types)]
    pitches = [p.result_pitch, *(row if step else 0 for row, step in zip(finish.rows, finish.steps, strict=True))]
    steps = (1, *finish.steps)
    return p.features % piece == 0 and all(
        not step or (pitch * size % min(16, piece * size) == 0 and place.offset % min(16, piece * size) == 0)
        for step, pitch, size, place in zip(steps, pitches, sizes, places, strict=True)
    )


def is_table(p: LargeProduct, finish: Finish) -> bool:
    """True where the only operand has an element for each of the result's, and all are of the size of sums that wait: its
    elements are loaded by a map to where sums will wait, and those who multiply finish them.
    """
    if len(finish.types) != 1 or not (finish.steps[0] and finish.rows[0]):
        return False
    return element_nbytes(finish.types[0]) == element_nbytes(p.result) == element_nbytes(p.waiting)


def result_map(p: LargeProduct, operand: Operand, row: int, tokens: int = ROWS) -> TensorMap[Operand]:
    """Of what has an element for each of the result's, of which a copy takes 128 bytes of so many tokens, of one group."""
    nbytes = element_nbytes(p.waiting)
    element, piece = MapElement.U16 if nbytes == 2 else MapElement.U32, CHUNK_NBYTES // nbytes
    if p.groups == 1:
        return TensorMap(operand, element, (p.features, p.count), (row * nbytes,), (piece, tokens), Swizzle.B128)
    dims, strides = (p.width, p.groups, p.count), (p.width * nbytes, row * nbytes)
    return TensorMap(operand, element, dims, strides, (piece, 1, tokens), Swizzle.B128)


def adding_finish(dtype: DType, pitch: int) -> Finish:
    """Adds a table of this type, whose rows lie ``pitch`` elements apart."""
    name = c_type(dtype)
    body = f"MI_DEVICE void body(float s, {name} x0, {name}& y) {{ y = narrow<{name}>(s + widen(x0)); }}"
    return Finish(body, "body(s, x0, y)", (dtype,), (1,), (pitch,), adds=True)


def plain_finish(dtype: DType) -> Finish:
    """The sum as it is."""
    name = c_type(dtype)
    return Finish(f"MI_DEVICE void body(float s, {name}& y) {{ y = narrow<{name}>(s); }}", "body(s, y)", plain=True)

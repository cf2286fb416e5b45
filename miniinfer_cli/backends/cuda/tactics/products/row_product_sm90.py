"""Products of a few tokens, decoded one at a time, on sm_90: the launch of the kernel, and the forms that it has."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from miniinfer_cli.backends.cuda.contract.launch_attributes import MOST_OVERLAPPING_SHARED, LaunchAttributes
from miniinfer_cli.backends.cuda.contract.steps import NULL, Argument, Kernel, Launch, Operand
from miniinfer_cli.backends.cuda.contract.types import c_type, element_nbytes
from miniinfer_cli.backends.cuda.tactics.products.product_sm90 import ARCH, MOST_OPERANDS, Finish
from miniinfer_cli.ir import DType

FILE = "sm90/row_product.cu"
"""Of the kernel."""
TILE = 16
"""Features of a block where k is the last axis of the weights."""
PACKED_STRIP = 64
"""Those where weights are packed."""
STRIPS = (128, 256, 64)
"""Those where features are: for each of the sums that an element is made of."""
COLUMNS = 8
"""Of a matrix instruction: a token takes one, or three where its numbers are of f32."""
PACKED_STEP = 64
"""Elements of k in a step of packed weights ..."""
_STEPS = {True: 16, False: 256}
"""... and of others, by whether k is their first axis."""
_WARPS = (8, 16, 4)
_PARTS = (1, 2, 3, 4, 6, 8)
_STAGES = (1, 2, 3, 4, 6, 8)


@dataclass(frozen=True, slots=True)
class PackedWeights:
    """Numbers of 4 bits in the kernel's order, with the scales and zero points of groups of ``group`` of k.

    ``group`` is a power of two from 16 on, or all of k, filled up to a multiple of 64. ``zeros``: None where nibbles are
    ``middle`` more than the numbers.
    """

    weights: Operand
    scales: Operand
    scale: DType
    zeros: Operand | None
    group: int
    middle: int = 8


@dataclass(frozen=True, slots=True)
class PlainWeights:
    """Numbers of 16 bits where they lie: ``[k, features]`` if ``k_first``, else turned; ``pitch`` elements from row to row."""

    weights: Operand
    pitch: int
    k_first: bool


@dataclass(frozen=True, slots=True)
class RowNorm:
    """What normalizes rows of x first: the scale's and the shift's place; ``centred``: whether the mean is taken off."""

    scale: Operand
    shift: Operand | None
    epsilon: float
    centred: bool


@dataclass(frozen=True, slots=True)
class RowProduct:
    """``tokens`` rows of x, ``pitch`` elements apart, times ``features`` columns of weights; ``halves`` sums to an element.

    ``dtype``: of x, f16, bf16 or f32; ``result``: of an element.
    """

    tokens: int
    features: int
    k: int
    dtype: DType
    result: DType
    pitch: int
    result_pitch: int
    weights: PlainWeights | PackedWeights
    halves: int = 1
    norm: RowNorm | None = None

    @property
    def columns(self) -> int:
        """Of the matrix instructions that are used."""
        return self.tokens * (3 if self.dtype is DType.F32 else 1)

    @property
    def step(self) -> int:
        """Elements of k that a warp multiplies at a time."""
        return PACKED_STEP if isinstance(self.weights, PackedWeights) else _STEPS[self.weights.k_first]

    @property
    def steps(self) -> int:
        """Of k."""
        return -(-self.k // self.step)

    @property
    def strips(self) -> tuple[int, ...]:
        """How many features a block may have."""
        if isinstance(self.weights, PackedWeights):
            return (PACKED_STRIP,)
        return STRIPS if self.weights.k_first else (TILE,)


@dataclass(frozen=True, slots=True)
class RowForm:
    """``warps`` of a block of ``strip`` features, ``stages`` of copies that each has under way, ``parts`` of k, which blocks of a
    cluster have.
    """

    strip: int
    warps: int
    stages: int
    parts: int

    def blocks(self, p: RowProduct) -> int:
        """Of the launch."""
        return -(-p.features // self.strip) * self.parts

    def share(self, p: RowProduct) -> int:
        """Steps of a block, at most."""
        return -(-p.steps // self.parts)

    def rounds(self, p: RowProduct) -> int:
        """Steps of a warp, at most."""
        return -(-self.share(p) * p.halves // self.warps)

    def stage_nbytes(self, p: RowProduct) -> int:
        """Bytes of a step of a warp."""
        w = p.weights
        if isinstance(w, PlainWeights):
            return (self.strip if w.k_first else TILE * 16) * 32
        subs = subs_of(w.group)
        return PACKED_STRIP * PACKED_STEP // 2 + subs * PACKED_STRIP * (
            element_nbytes(w.scale) + (2 if w.zeros is not None else 0)
        )

    def shared_nbytes(self, p: RowProduct) -> int:
        """Of a block: as the kernel lays it out."""
        ring = self.warps * self.stages * self.stage_nbytes(p)
        sums = self.warps * p.columns * self.strip * 4
        parts = (self.parts - 1) * p.halves * p.tokens * self.strip * 4
        totals = 8 * (self.warps + p.tokens) if p.norm is not None else 0
        barrier = 8 if self.parts > 1 else 0
        return -(-(max(ring, sums) + parts + totals + barrier) // 16) * 16 + p.columns * (self.share(p) * p.step + 8) * 2


def subs_of(group: int) -> int:
    """Groups of k that a step of packed weights has scales of."""
    return max(1, PACKED_STEP // group)


def forms_of(p: RowProduct, multiprocessors: int) -> tuple[RowForm, ...]:
    """The forms that there are for the product, the one that was measured to take least first."""
    found: dict[RowForm, float] = {}
    for strip, warps, parts in itertools.product(p.strips, _WARPS, _PARTS):
        if _are_whole(p, warps, parts):
            rounds = RowForm(strip, warps, 1, parts).rounds(p)
            for stages in dict.fromkeys(min(most, rounds) for most in _STAGES):
                form = RowForm(strip, warps, stages, parts)
                if form.shared_nbytes(p) <= MOST_OVERLAPPING_SHARED:
                    found[form] = _cost(p, form, multiprocessors)
    favourite = _favourite(p, multiprocessors)
    return tuple(sorted(found, key=lambda form: (form != favourite, found[form])))


def _are_whole(p: RowProduct, warps: int, parts: int) -> bool:
    """Whether each part has some of k, and half of the warps a step of it."""
    share = -(-p.steps // parts)
    return parts == 1 or (share * (parts - 1) < p.steps and 2 * share * p.halves >= warps)


def _favourite(p: RowProduct, multiprocessors: int) -> RowForm:
    """Eight warps, and as many parts as leave some blocks to each multiprocessor: what was best of all that was tried for the
    products of TinyLlama (docs/kernels.md). More stages than a warp has steps only keep the next kernel's blocks away.
    """
    packed, strip = isinstance(p.weights, PackedWeights), p.strips[0]
    sums = -(-p.features // strip) * (p.halves if packed else 1)
    fit = [n for n in _PARTS if _are_whole(p, _WARPS[0], n) and sums * n <= 3 * multiprocessors and strip != TILE]
    form = RowForm(strip, _WARPS[0], 1, max(fit, default=1))
    stages = min(form.rounds(p), 3 if not packed else 2 if form.parts > 1 else 4)
    while stages > 1 and replace(form, stages=stages).shared_nbytes(p) > MOST_OVERLAPPING_SHARED:
        stages -= 1
    return replace(form, stages=stages)


def _cost(p: RowProduct, form: RowForm, multiprocessors: int) -> float:
    """Microseconds, about: what blocks read in turns, at the rate of memory or at that of copies under way. It orders others."""
    blocks, stage = form.blocks(p), form.stage_nbytes(p)
    most = (227 << 10) // (form.shared_nbytes(p) + 1024), 2048 // (32 * form.warps), 65536 // (3072 * form.warps)
    here = min(max(1, min(most)), -(-blocks // multiprocessors))  # blocks of a multiprocessor at one time
    turns = -(-blocks // (multiprocessors * here))
    rate = min(60e3, here * form.warps * form.stages * stage / 0.9)  # bytes a microsecond, which take 0.9 to come
    reading = turns * here * form.share(p) * p.halves * stage / rate
    fastest = 4.2e6 if isinstance(p.weights, PackedWeights) else _MEMORY[form.strip]
    memory = -(-p.features // form.strip) * p.halves * p.steps * stage / fastest
    meeting = 0.3 + 0.03 * form.parts if form.parts > 1 else 0.0
    return max(memory, reading) + 0.4 * turns + 0.05 * form.rounds(p) + meeting


_MEMORY = {16: 4.2e6, 64: 2.3e6, 128: 4.2e6, 256: 4.1e6}
"""Bytes a microsecond, by features of a block: where these lie side by side, pieces of rows are as long."""


def row_product_launch(
    p: RowProduct, form: RowForm, finish: Finish, x: Operand, result: Operand, operands: Sequence[Operand]
) -> Launch[Operand]:
    """The launch of the kernel; ``operands``: what ``finish`` reads."""
    w, norm = p.weights, p.norm
    packed = w if isinstance(w, PackedWeights) else None
    unused = MOST_OPERANDS - len(operands)
    element = c_type(p.dtype)
    types = [*map(c_type, finish.types), *("f32",) * unused]
    defines = (
        ("MI_T", element),
        ("MI_W", "bf16" if p.dtype is DType.F32 else element),
        ("MI_D", c_type(p.result)),
        ("MI_FORM", "2" if isinstance(w, PackedWeights) else str(int(not w.k_first))),
        ("MI_STRIP", str(form.strip)),
        ("MI_SUBS", str(subs_of(packed.group) if packed else 1)),
        ("MI_S", c_type(packed.scale) if packed else "f32"),
        ("MI_ZEROS", str(int(packed is not None and packed.zeros is not None))),
        ("MI_MIDDLE", str(packed.middle if packed else 0)),
        ("MI_TOKENS", str(p.tokens)),
        ("MI_HALVES", str(p.halves)),
        ("MI_WARPS", str(form.warps)),
        ("MI_STAGES", str(form.stages)),
        ("MI_PARTS", str(form.parts)),
        ("MI_NORM", "0" if norm is None else "2" if norm.centred else "1"),
        ("MI_SHIFTED", str(int(norm is not None and norm.shift is not None))),
        ("MI_OPERANDS", str(len(operands))),
        *((f"MI_X{i}", t) for i, t in enumerate(types)),
        *((f"MI_STEP{i}", str(s)) for i, s in enumerate((*finish.steps, *(0,) * unused))),
        ("MI_BODY", finish.body),
        ("MI_FINISH(s, second, x0, x1, x2, x3, y)", finish.call),
    )
    arguments: tuple[Argument, ...] = (
        w.weights,
        packed.scales if packed else NULL,
        (packed.zeros if packed else None) or NULL,
        x,
        result,
        *operands,
        *(NULL,) * unused,
        np.array((*finish.rows, *(0,) * unused), np.int64),
        NULL if norm is None else norm.scale,
        (None if norm is None else norm.shift) or NULL,
        np.float32(0 if norm is None else norm.epsilon),
        *(np.int64(n) for n in (p.pitch, p.result_pitch, 0 if isinstance(w, PackedWeights) else w.pitch)),
        *(np.int32(n) for n in (p.features, p.k, p.steps, *(_groups(packed, p.steps) if packed else (0, 0)))),
    )
    return Launch(
        Kernel("row_product", FILE, defines, arch=ARCH),
        (form.blocks(p),),
        (32 * form.warps,),
        arguments,
        form.shared_nbytes(p),
        LaunchAttributes(cluster=(form.parts, 1, 1)),
    )


def _groups(w: PackedWeights, steps: int) -> tuple[int, int]:
    """Groups of k with those that only filled up k has, and the power of two of the steps that share one."""
    groups = -(-steps * PACKED_STEP // w.group)
    return groups, 31 if groups == 1 else max(w.group // PACKED_STEP, 1).bit_length() - 1

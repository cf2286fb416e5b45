"""Products of many tokens and few features on sm_90: weights stay in shared memory, two warpgroups take tiles in turns.

More features of short tokens as well: rows of blocks have 64 of them each, and all read the tokens.

Convolutions of several groups as well: a row of blocks has weights of one group, and multiplies them by its channels alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from miniinfer_cli.backends.cuda.contract.steps import NULL, Argument, Kernel, Launch, Operand
from miniinfer_cli.backends.cuda.contract.types import c_type, element_nbytes
from miniinfer_cli.backends.cuda.tactics.products.large_product_sm90 import (
    LargeProduct,
    finish_arguments,
    finish_defines,
    finishes_early,
    is_plain,
    is_whole,
    result_map,
    token_map,
    weight_map,
)
from miniinfer_cli.backends.cuda.tactics.products.product_sm90 import ARCH, Finish
from miniinfer_cli.backends.cuda.tactics.products.token_forms import CHUNK_NBYTES, FEATURES, MOST_SHARED

FILE = "sm90/narrow_product.cu"
"""Of the kernel."""
THREADS = 288
_MOST_STAGES = 10
_TOKENS = 128
# A chunk of 128 tokens, by ResNet-50's convolutions of 64 features on an H200; what else a tile takes, and the kernel.
_CHUNK_US, _TILE_US, _LAUNCH_US = 0.28, 0.25, 1.9
_NBYTES_PER_US = 3.9e6  # of memory
# With groups, by convolutions of RegNets and ResNeXt-50: a chunk of few tokens at least, a chunk of weights that a block waits
# for, and bytes of weights that all blocks together load.
_LEAST_CHUNK_US, _WEIGHTS_US, _WEIGHTS_NBYTES_PER_US = 0.15, 0.35, 5.5e6
_GROUPED_TOKENS = (128, 64, 32)
_PARTED_NBYTES = 96
"""Of a token that is read again for each 64 features: longer ones are left to larger tiles, and so are ..."""
_LEAST_PARTED = 1 << 15
"""... fewer tokens: with 12544 MobileNetV2 takes 1.5 us more so."""
_STEPS = 4  # of a chunk's elements


@dataclass(frozen=True, slots=True)
class NarrowForm:
    """Tiles of so many tokens, and a ring of so many stages."""

    tokens: int
    stages: int

    def shared_nbytes(self, chunks: int) -> int:
        """Bytes of shared memory of a block, for weights of so many chunks."""
        barriers = 8 * (2 * self.stages + 3)
        return chunks * FEATURES * CHUNK_NBYTES + (self.stages + 2) * self.tokens * CHUNK_NBYTES + barriers

    def fault(self, chunks: int) -> str:
        """Why the kernel has no such form; nothing where it has."""
        if self.stages < 2 or self.tokens % 16 or not 0 < self.tokens <= 256:
            return f"{self.tokens} tokens, a ring of {self.stages}"
        nbytes = self.shared_nbytes(chunks)
        return f"{nbytes} bytes of shared memory" if nbytes > MOST_SHARED else ""


def narrow_forms(p: LargeProduct, room: int = MOST_SHARED) -> list[NarrowForm]:
    """The form with the longest ring that there is room for; none where the kernel does no such product, or larger tiles of
    features are to do it.
    """
    parted = p.windows is None and p.k * element_nbytes(p.dtype) <= _PARTED_NBYTES and p.count >= _LEAST_PARTED
    if (p.features > FEATURES and not parted) or not p.dtype.is_half or not p.dtype is p.waiting is p.result:
        return []
    return _longest(p, _TOKENS, room)


def grouped_forms(p: LargeProduct, multiprocessors: int, room: int = MOST_SHARED, moved: int = 0) -> list[NarrowForm]:
    """Forms for the windows of a convolution of several groups, the fastest first by ``narrow_us``, with the longest rings;
    none where the kernel does no such product.
    """
    if _group_fault(p) or not p.dtype is p.waiting is p.result:
        return []
    found = [form for tokens in _GROUPED_TOKENS for form in _longest(p, tokens, room)]
    return sorted(found, key=lambda form: (round(narrow_us(p, form, multiprocessors, moved), 3), -form.tokens))


def _longest(p: LargeProduct, tokens: int, room: int) -> list[NarrowForm]:
    """The form of so many tokens with the longest ring, if there is room for one."""
    forms = (NarrowForm(tokens, stages) for stages in range(_MOST_STAGES, 2, -1))
    return [form for form in forms if not form.fault(p.chunks) and form.shared_nbytes(p.chunks) <= room][:1]


def _group_fault(p: LargeProduct) -> str:
    """Why the kernel does not do the groups of such a product; nothing where it does."""
    if not p.dtype.is_half or p.groups == 1 or p.width % 8 or p.windows is None or p.windows.channels % 8:
        return f"{p.groups} groups of {p.width} features of {p.dtype}"
    return ""


def grid_of(p: LargeProduct, form: NarrowForm, multiprocessors: int) -> tuple[int, int]:
    """Blocks along the tokens, and along the features, 64 of a group each; with several rows no more than it takes for as few
    turns.
    """
    tiles, rows = -(-p.count // form.tokens), p.groups * -(-p.width // FEATURES)
    if rows == 1:
        return min(tiles, multiprocessors), rows
    turns = -(-tiles // max(1, multiprocessors // rows))
    return -(-tiles // turns), rows


def narrow_us(p: LargeProduct, form: NarrowForm, multiprocessors: int, moved: int = 0) -> float:
    """Microseconds, about: turns of tiles, or ``moved`` bytes and those read again, and what begins and ends a kernel."""
    across, rows = grid_of(p, form, multiprocessors)
    if p.groups == 1:
        moved += (rows - 1) * p.count * p.k * element_nbytes(p.dtype)
    turns = -(-p.count // (form.tokens * across)) * -(-across * rows // multiprocessors)
    share = form.tokens / _TOKENS
    chunk, weights = _CHUNK_US * share, 0.0
    if p.groups > 1:
        chunk = max(chunk, _LEAST_CHUNK_US)
        weights = p.chunks * (_WEIGHTS_US + across * rows * FEATURES * CHUNK_NBYTES / _WEIGHTS_NBYTES_PER_US)
    return _LAUNCH_US + weights + max(turns * (p.chunks * chunk + _TILE_US * share), moved / _NBYTES_PER_US)


def narrow_launch(
    p: LargeProduct,
    form: NarrowForm,
    finish: Finish,
    tokens: Operand,
    weights: Operand,
    result: Operand,
    bias: Operand | None,
    operands: Sequence[Operand],
    multiprocessors: int,
) -> Launch[Operand]:
    """The launch. ``operands`` are those of ``finish``.

    Raises ValueError for a form that the kernel has not, and for what it does not do: other types, rows of no whole vectors.
    """
    why, grouped = form.fault(p.chunks), p.groups > 1
    if not why and not p.dtype is p.waiting is p.result:
        why = f"features of {p.dtype} to {p.result}"
    if not why and grouped:
        why = _group_fault(p)
    elif not why and not p.dtype.is_half:
        why = f"{p.features} features of {p.dtype}"
    if why or not is_whole(p, finish, (result, *operands)):
        raise ValueError(why or "rows that are no whole vectors")
    across, down = grid_of(p, form, multiprocessors)
    defines = (
        ("MI_T", c_type(p.dtype)),
        ("MI_D", c_type(p.result)),
        ("MI_B", c_type(p.biased or p.waiting)),
        ("MI_TOKENS", str(form.tokens)),
        ("MI_COLUMNS", str(form.tokens)),
        ("MI_STAGES", str(form.stages)),
        ("MI_CONSTANT", str(int(p.constant))),
        ("MI_SCALES", str(int(p.alpha != 1))),
        ("MI_BIASED", str(int(p.biased is not None))),
        ("MI_PLAIN", str(int(is_plain(p, finish)))),
        ("MI_EARLY", str(int(finishes_early(p, finish)))),
        ("MI_OPERANDS", str(len(operands))),
        *finish_defines(finish, p.result),
        ("MI_WINDOWS", str(int(p.windows is not None))),
        ("MI_GROUPED", str(int(grouped))),
        ("MI_PARTED", str(int(down > 1))),
        ("MI_STEPS", str(_steps_of(p))),
    )
    maps = token_map(p, form.tokens, tokens), weight_map(p, FEATURES, weights), result_map(p, result, p.result_pitch, form.tokens)
    values: list[Argument] = [*maps, bias or NULL, *finish_arguments(finish, operands), np.float32(p.alpha)]
    values += [np.int32(n) for n in (p.features, p.count, p.chunks)]
    if p.windows is not None:
        values.append(p.windows.argument(element_nbytes(p.dtype)))
    if down > 1:
        values += [np.int32(p.width), np.int32(down // p.groups)]
    kernel = Kernel("narrow_product", FILE, defines, arch=ARCH)
    return Launch(kernel, (across, down) if down > 1 else (across,), (THREADS,), tuple(values), form.shared_nbytes(p.chunks))


def _steps_of(p: LargeProduct) -> int:
    """How many times 16 elements of a chunk are multiplied: behind a short group's channels are zeros."""
    if p.groups == 1 or p.windows is None:
        return _STEPS
    return min(_STEPS, -(-p.windows.channels // 16))

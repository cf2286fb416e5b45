"""Attention by our kernel of one pass: which warps, tiles and parts of the keys."""

from dataclasses import dataclass
from functools import partial

import numpy as np

from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.cuda.contract.steps import NULL, Argument, Kernel, Launch, Operand
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.types import c_type, element_nbytes
from miniinfer_cli.backends.cuda.contract.work import Work
from miniinfer_cli.backends.cuda.launching.grids import launch_over
from miniinfer_cli.backends.cuda.tactics.attention.attention_form import Form, Q
from miniinfer_cli.backends.cuda.tactics.attention.attention_heuristic import ATTENTION, AttentionHeuristic
from miniinfer_cli.backends.cuda.tactics.attention.attention_rows import clear_nan
from miniinfer_cli.ir import DType

_LARGEST_SIZE = 256
_LEAST_ARCH = 80
_WARPS = 4
_FORMS = ((4, 1, 64), (4, 1, 32), (2, 2, 64), (2, 2, 32), (1, 4, 64), (1, 2, 32), (1, 1, 16))
"""Warps over rows, warps over keys, and keys of a step, of the tiles that there are."""


@dataclass(frozen=True, slots=True)
class _Tile:
    row_warps: int
    key_warps: int
    keys: int
    size: int  # of a head of keys, padded
    value: int
    nbytes: int  # shared memory

    @property
    def rows(self) -> int:
        return 16 * self.row_warps


@dataclass(frozen=True, slots=True)
class _Cut:
    """A tile, and the parts that keys are taken in: how many, and the keys of each."""

    tile: _Tile
    parts: int
    part_keys: int

    @property
    def key(self) -> str:
        name = f"fused {self.tile.rows}x{self.tile.keys}"
        return f"{name} in {self.parts} parts" if self.parts > 1 else name

    def needs(self, target: Target) -> str:
        if target.arch < _LEAST_ARCH:
            return f"it needs sm_{_LEAST_ARCH}"
        short = self.tile.nbytes > target.shared_nbytes
        return f"it needs {-(-self.tile.nbytes >> 10)} KiB of shared memory" if short else ""


@dataclass(frozen=True, slots=True)
class _Arguments:
    """What the kernel ``attention`` takes, in its order."""

    q: Argument
    k: Argument
    v: Argument
    y: Argument
    partial: Argument
    mask: Argument
    nonpad: Argument
    sight: Argument
    strides: Argument
    scale: np.float32
    softcap: np.float32
    group: np.int32
    kv_heads: np.int32
    size: np.int32
    v_size: np.int32
    tiles: np.int32
    part_keys: np.int32


def fused_tactics(form: Form, y: Operand, target: Target, table: AttentionHeuristic = ATTENTION) -> tuple[Tactic, ...]:
    """Y in one pass, no operand empty, the heuristic's favourite first; none where the kernel does not reach.

    Where the target's shared memory holds no tile that the heuristic would take, the first is one that may not be taken.
    """
    if not _takes(form):
        return ()
    favourite = _choose(form, target, table)
    tiles = dict.fromkeys((*([favourite] if favourite is not None else []), *(_tile(form, *sizes) for sizes in _FORMS)))
    cuts = [cut for tile in tiles for cut in _cuts(form, tile, target, table)]
    return tuple(
        Tactic(cut.key, partial(_emit, cut=cut, form=form, y=y, target=target), _estimate(form, cut), cut.needs) for cut in cuts
    )


def has_favourite(form: Form, target: Target, table: AttentionHeuristic = ATTENTION) -> bool:
    """True when the heuristic takes the kernel on the target."""
    return target.arch >= _LEAST_ARCH and _takes(form) and _choose(form, target, table) is not None


def _takes(form: Form) -> bool:
    if form.precision not in (None, DType.F32, form.dtype) or form.dtype is DType.F64:
        return False
    return form.size > 0 and max(form.size, form.v_size) <= _LARGEST_SIZE


def _emit(work: Work, *, cut: _Cut, form: Form, y: Operand, target: Target) -> None:
    tile, all_rows = cut.tile, form.batch * form.heads * form.queries
    tiles, split = _tiles(form, tile), cut.parts > 1
    defines = (
        ("MI_T", c_type(form.dtype)),
        ("MI_SIZE", str(tile.size)),
        ("MI_VALUE", str(tile.value)),
        ("MI_ROW_WARPS", str(tile.row_warps)),
        ("MI_KEY_WARPS", str(tile.key_warps)),
        ("MI_KEYS", str(tile.keys)),
        ("MI_WHOLE", str(int(_is_whole(form)))),
        ("MI_EXACT", str(int(form.dtype is DType.F32 and not target.tf32))),
        ("MI_SPLIT", str(int(split))),
        *form.mask_defines(),
        *form.nan_defines(),
    )
    sums = work.scratch(_sums_nbytes(form, cut)) if split else None
    strides: Argument = np.array(form.strides, np.int64).reshape(-1)
    mask, nonpad, sight = form.seen_by()
    arguments = _Arguments(
        q=Operand.input(Q),
        k=form.k,
        v=form.v,
        y=y,
        partial=sums or NULL,
        mask=mask,
        nonpad=nonpad,
        sight=sight,
        strides=strides,
        scale=np.float32(form.scale),
        softcap=np.float32(form.softcap),
        group=np.int32(form.group),
        kv_heads=np.int32(form.kv_heads),
        size=np.int32(form.size),
        v_size=np.int32(form.v_size),
        tiles=np.int32(tiles),
        part_keys=np.int32(cut.part_keys),
    )
    grid, block = (tiles * _matrices(form), cut.parts), (32 * tile.row_warps * tile.key_warps,)
    listed = tuple(getattr(arguments, name) for name in arguments.__slots__)
    work.add(Launch(Kernel("attention", "attention.cu", defines), grid, block, listed, tile.nbytes))
    if sums is None:
        return
    combine = Kernel("attention_combine", "attention_combine.cu", (("MI_T", c_type(form.dtype)), *form.nan_defines()))
    counts = (np.int32(cut.parts), np.int64(all_rows), np.int32(form.queries), np.int32(form.heads), np.int32(form.v_size))
    work.add(launch_over(combine, all_rows * form.v_size, (sums, y, strides, *counts), target.multiprocessors))
    work.add(*clear_nan(form, y, target))


def _sums_nbytes(form: Form, cut: _Cut) -> int:
    """Bytes of what parts leave: sums of values, highest score and sum of exponentials of each row."""
    return cut.parts * form.batch * form.heads * form.queries * (form.v_size + 2) * 4


def _estimate(form: Form, cut: _Cut) -> Estimate:
    split = Estimate(_sums_nbytes(form, cut) // 4, 2 * _sums_nbytes(form, cut)) if cut.parts > 1 else Estimate(0, 0)
    return form.estimate() + split


def _matrices(form: Form) -> int:
    return form.batch * form.kv_heads


def _tiles(form: Form, tile: _Tile) -> int:
    """Blocks of rows of the queries that share a head of keys."""
    return -(-form.group * form.queries // tile.rows)


def _choose(form: Form, target: Target, table: AttentionHeuristic) -> _Tile | None:
    """As many rows a block as leave every multiprocessor one; few rows share their keys out among the warps."""
    rows = form.group * form.queries
    row_warps = table.row_warps
    while row_warps > 1 and (
        16 * row_warps >= 2 * rows or -(-rows // (16 * row_warps)) * _matrices(form) < target.multiprocessors
    ):
        row_warps //= 2
    best = None
    for keys in (64, 32):
        tile = _tile(form, row_warps, _WARPS // row_warps, keys)
        if tile.nbytes <= target.shared_nbytes and tile.keys // tile.key_warps >= 16:
            best = best or tile
            if tile.nbytes <= table.two_blocks:
                return tile
    if best is None and row_warps < 2:
        best = next((t for t in (_tile(form, 1, 2, 32), _tile(form, 1, 1, 16)) if t.nbytes <= target.shared_nbytes), None)
    return best


def _tile(form: Form, row_warps: int, key_warps: int, keys: int) -> _Tile:
    item = element_nbytes(form.dtype)
    size, value = (_padded(n, item) for n in (form.size, form.v_size))
    k_row = size * item + (0 if size * item % 128 else 64)
    v_row = value * item + 16
    steps = 16 * row_warps * k_row + 2 * keys * (k_row + v_row)
    handed_over = (key_warps - 1) * row_warps * (value // 2 + 4) * 128
    return _Tile(row_warps, key_warps, keys, size, value, max(steps, handed_over))


def _padded(size: int, item: int) -> int:
    """Few sizes, so that few kernels are compiled; each is a multiple of 64 bytes."""
    least = 64 // item
    for n in (16, 32, 64, 96, 128, 192):
        if size <= n and n >= least:
            return n
    return _LARGEST_SIZE


def _cuts(form: Form, tile: _Tile, target: Target, table: AttentionHeuristic) -> list[_Cut]:
    """The parts that the keys may be taken in with a tile, the favourite first; none where a number is beyond an int."""
    blocks = _tiles(form, tile) * _matrices(form)
    if max(form.group * form.queries + tile.rows, form.keys + tile.keys, blocks) >= 1 << 31:
        return []
    most = min(form.keys // table.part_keys, table.most_parts)
    favourite = min(table.part_blocks * target.multiprocessors // blocks, most)
    numbers = (favourite, *(n for n in table.other_parts if n == 1 or n <= most))
    return list(dict.fromkeys(_cut(form.keys, tile, n) for n in numbers))


def _cut(keys: int, tile: _Tile, parts: int) -> _Cut:
    """So many parts as come out where each is whole steps."""
    if parts < 2:
        return _Cut(tile, 1, keys)
    part = -(-keys // parts)
    part = -(-part // tile.keys) * tile.keys
    return _Cut(tile, -(-keys // part), part)


def _is_whole(form: Form) -> bool:
    """True when rows can be read 16 bytes at a time, and written two elements at a time."""
    cell = 16 // element_nbytes(form.dtype)
    q, k, v, y = form.strides
    return all(n % cell == 0 for n in (form.size, form.v_size, *q, *k, *v)) and all(n % 2 == 0 for n in y)

"""Attention by our kernel of one pass: which warps, tiles and parts of the keys."""

from dataclasses import dataclass

import numpy as np

from miniinfer_cli.backends.cuda.grids import launch_over
from miniinfer_cli.backends.cuda.launching.attention_form import Form, Q
from miniinfer_cli.backends.cuda.launching.attention_rows import clear_nan
from miniinfer_cli.backends.cuda.launching.product_records import Solution
from miniinfer_cli.backends.cuda.steps import NULL, Action, Argument, Kernel, Launch, Operand
from miniinfer_cli.backends.cuda.target import Target
from miniinfer_cli.backends.cuda.types import c_type, element_nbytes
from miniinfer_cli.ir import DType

_LARGEST_SIZE = 256
_WARPS = 4
_SHORT = 128  # keys that are not worth a part of their own
_MOST_PARTS = 64
_TWO_BLOCKS = 100 << 10  # bytes of shared memory of which a multiprocessor has twice as much


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


def attend_fused(form: Form, y: Operand, target: Target, scratch: int) -> Solution | None:
    """Y in one pass, no operand empty; None where the kernel does not reach."""
    if target.arch < 80 or not _takes(form):
        return None
    rows, matrices = form.group * form.queries, form.batch * form.kv_heads
    tile = _choose(form, rows, matrices, target)
    if tile is None:
        return None
    tiles = -(-rows // tile.rows)
    blocks = tiles * matrices
    if max(rows + tile.rows, form.keys + tile.keys, blocks) >= 1 << 31:
        return None
    parts, part_keys = _parts(form.keys, blocks, tile.keys, target)
    whole = _is_whole(form)
    defines = (
        ("MI_T", c_type(form.dtype)),
        ("MI_SIZE", str(tile.size)),
        ("MI_VALUE", str(tile.value)),
        ("MI_ROW_WARPS", str(tile.row_warps)),
        ("MI_KEY_WARPS", str(tile.key_warps)),
        ("MI_KEYS", str(tile.keys)),
        ("MI_WHOLE", str(int(whole))),
        ("MI_EXACT", str(int(form.dtype is DType.F32 and not target.tf32))),
        ("MI_SPLIT", str(int(parts > 1))),
        *form.mask_defines(),
        *form.nan_defines(),
    )
    partial = Operand.scratch(scratch)
    strides: Argument = np.array(form.strides, np.int64).reshape(-1)
    sizes = (form.group, form.kv_heads, form.size, form.v_size, tiles, part_keys)
    arguments = (
        *(Operand.input(Q), form.k, form.v, y, partial if parts > 1 else NULL, *form.seen_by(), strides),
        *(np.float32(form.scale), np.float32(form.softcap)),
        *(np.int32(n) for n in sizes),
    )
    kernel = Kernel("attention", "attention.cu", defines)
    block = 32 * tile.row_warps * tile.key_warps
    actions: list[Action] = [Launch(kernel, (blocks, parts), (block,), arguments, tile.nbytes)]
    tactic = f"fused {tile.rows}x{tile.keys}"
    if parts == 1:
        return Solution(tuple(actions), (), tactic)
    all_rows = matrices * rows
    combine = Kernel("attention_combine", "attention_combine.cu", (("MI_T", c_type(form.dtype)), *form.nan_defines()))
    counts = (np.int32(parts), np.int64(all_rows), np.int32(form.queries), np.int32(form.heads), np.int32(form.v_size))
    actions.append(launch_over(combine, all_rows * form.v_size, (partial, y, strides, *counts), target.multiprocessors))
    actions += clear_nan(form, y, target)
    return Solution(tuple(actions), (parts * all_rows * (form.v_size + 2) * 4,), f"{tactic} in {parts} parts")


def _takes(form: Form) -> bool:
    if form.precision not in (None, DType.F32, form.dtype) or form.dtype is DType.F64:
        return False
    return form.size > 0 and max(form.size, form.v_size) <= _LARGEST_SIZE


def _choose(form: Form, rows: int, matrices: int, target: Target) -> _Tile | None:
    """As many rows a block as leave every multiprocessor one; few rows share their keys out among the warps."""
    row_warps = _WARPS
    while row_warps > 1 and (16 * row_warps >= 2 * rows or -(-rows // (16 * row_warps)) * matrices < target.multiprocessors):
        row_warps //= 2
    best = None
    for keys in (64, 32):
        tile = _tile(form, row_warps, _WARPS // row_warps, keys)
        if tile.nbytes <= target.shared_nbytes and tile.keys // tile.key_warps >= 16:
            best = best or tile
            if tile.nbytes <= _TWO_BLOCKS:
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


def _parts(keys: int, blocks: int, step: int, target: Target) -> tuple[int, int]:
    """In how many parts the keys are taken, and the keys of each: several where there are few blocks and many keys."""
    wanted = min(2 * target.multiprocessors // blocks, keys // _SHORT, _MOST_PARTS)
    if wanted < 2:
        return 1, keys
    part = -(-keys // wanted)
    part = -(-part // step) * step
    return -(-keys // part), part


def _is_whole(form: Form) -> bool:
    """True when rows can be read 16 bytes at a time, and written two elements at a time."""
    cell = 16 // element_nbytes(form.dtype)
    q, k, v, y = form.strides
    return all(n % cell == 0 for n in (form.size, form.v_size, *q, *k, *v)) and all(n % 2 == 0 for n in y)

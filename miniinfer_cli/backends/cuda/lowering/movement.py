"""Transpose, Concat, Split, Expand, Tile."""

import math
from collections.abc import Sequence

import numpy as np

from miniinfer_cli.backends.cuda.grids import BLOCK, blocks_for, index_dtype, index_name
from miniinfer_cli.backends.cuda.launching.division import dividers
from miniinfer_cli.backends.cuda.launching.strided_copy import at, copy_strided, is_movable, widest_unit
from miniinfer_cli.backends.cuda.launching.transposing import permute
from miniinfer_cli.backends.cuda.site import Site, lowers
from miniinfer_cli.backends.cuda.steps import NULL, Action, Argument, Copy, Kernel, Launch, Lowered, Operand
from miniinfer_cli.backends.cuda.strides import broadcast_strides, row_major
from miniinfer_cli.backends.cuda.target import Target
from miniinfer_cli.backends.cuda.types import element_nbytes, unit_type

_PARTS = 16  # parts that one launch of join or cut takes
_X, _Y = Operand.input(0), Operand.output(0)


@lowers("Transpose")
def lower_transpose(site: Site) -> Lowered | None:
    """Axes in another order."""
    if not is_movable(site):
        return None
    shape = site.shape(0)
    perm = site.attr("perm")
    order = range(len(shape))[::-1] if perm is None else [int(p) for p in perm]
    if 0 in shape:
        return Lowered(())
    return Lowered((permute(_Y, _X, element_nbytes(site.dtype()), shape, order, site.target),), tactic="transpose")


@lowers("Concat")
def lower_concat(site: Site) -> Lowered | None:
    """The inputs side by side: one launch for many of them."""
    if not is_movable(site):
        return None
    whole = site.out_shape()
    axis = int(site.attr("axis")) % len(whole)
    parts = [(Operand.input(i), site.shape(i)[axis]) for i in range(len(site.types))]
    actions = move_parts("join", _Y, parts, whole, axis, element_nbytes(site.dtype()), site.target)
    return Lowered(actions, tactic="concat")


@lowers("Split")
def lower_split(site: Site) -> Lowered | None:
    """Consecutive pieces of the input: one launch for many of them."""
    if not is_movable(site):
        return None
    whole = site.shape(0)
    axis = int(site.attr("axis", 0)) % len(whole)
    parts = [(Operand.output(i), site.out_shape(i)[axis]) for i in range(len(site.results))]
    return Lowered(move_parts("cut", _X, parts, whole, axis, element_nbytes(site.dtype()), site.target), tactic="split")


@lowers("Expand")
def lower_expand(site: Site) -> Lowered | None:
    """Axes of one element repeated."""
    if not is_movable(site):
        return None
    sizes = site.out_shape()
    if 0 in sizes:
        return Lowered(())
    strides = broadcast_strides(site.shape(0), sizes)
    return Lowered((copy_strided(_Y, _X, element_nbytes(site.dtype()), sizes, row_major(sizes), strides, site.target),))


@lowers("Tile")
def lower_tile(site: Site) -> Lowered | None:
    """The whole repeated along each axis."""
    if not is_movable(site):
        return None
    shape, whole = site.shape(0), site.out_shape()
    if 0 in whole:
        return Lowered(())
    sizes: list[int] = []
    strides: list[int] = []
    for n, total, stride in zip(shape, whole, row_major(shape), strict=True):
        sizes += [total // n, n]
        strides += [0, stride]
    return Lowered((copy_strided(_Y, _X, element_nbytes(site.dtype()), sizes, row_major(sizes), strides, site.target),))


def move_parts(
    name: str, whole: Operand, parts: Sequence[tuple[Operand, int]], shape: Sequence[int], axis: int, nbytes: int, target: Target
) -> tuple[Action, ...]:
    """Dense ``parts`` of these sizes along ``axis``, one behind the other: put into ``whole`` of ``shape`` (``join``) or taken
    out of it (``cut``)."""
    outer, inner = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
    width = widest_unit(nbytes, inner * shape[axis], *(inner * n for _, n in parts)) if outer else 1
    unit = nbytes * width
    pieces: list[tuple[Operand, int, int]] = []  # operand, units a row, start in the row
    start = 0
    for operand, size in parts:
        if outer * size * inner:
            pieces.append((operand, size * inner // width, start))
        start += size * inner // width
    if outer == 1 and (len(pieces) == 1 or unit < 4):
        return tuple(_copy_part(name, whole, part, first * unit, n * unit) for part, n, first in pieces)
    groups = (pieces[i : i + _PARTS] for i in range(0, len(pieces), _PARTS))
    return tuple(_launch_parts(name, whole, group, outer, start, unit, target) for group in groups)


def _copy_part(name: str, whole: Operand, part: Operand, offset: int, nbytes: int) -> Copy[Operand]:
    inside = at(whole, offset)
    return Copy(inside, part, nbytes) if name == "join" else Copy(part, inside, nbytes)


def _launch_parts(
    name: str, whole: Operand, pieces: Sequence[tuple[Operand, int, int]], outer: int, row: int, unit: int, target: Target
) -> Launch[Operand]:
    largest = outer * row
    index = index_dtype(largest)
    total = sum(outer * n for _, n, _ in pieces)
    budget = blocks_for(total, target.multiprocessors)
    ends = np.cumsum([max(1, min(-(-outer * n // BLOCK), -(-budget * outer * n // total))) for _, n, _ in pieces])
    spare = _PARTS - len(pieces)
    widths = [n for _, n, _ in pieces] + [1] * spare
    pointers: list[Argument] = [operand for operand, _, _ in pieces]
    arguments: tuple[Argument, ...] = (
        whole,
        *pointers,
        *(NULL,) * spare,
        np.array([*ends, *[ends[-1]] * spare], np.int32),
        index.type(outer),
        index.type(row),
        np.array(widths, index),
        np.array([first for _, _, first in pieces] + [0] * spare, index),
        dividers(widths),
    )
    kernel = Kernel(name, "movement.cu", (("MI_T", unit_type(unit)), ("MI_INDEX", index_name(largest))))
    return Launch(kernel, (int(ends[-1]),), (BLOCK,), arguments)

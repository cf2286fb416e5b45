"""Transpose, Concat, Split, Expand, Tile."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from miniinfer_cli.backends.cuda.contract.estimating import default_estimate, moved_estimate
from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import NULL, Argument, Copy, Kernel, Launch, Lowered, Operand
from miniinfer_cli.backends.cuda.contract.strides import is_dense, merge_axes, row_major, spread_strides
from miniinfer_cli.backends.cuda.contract.tactic import Tactic, tactic_of
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.types import element_nbytes, unit_type
from miniinfer_cli.backends.cuda.contract.viewing import View, assembles, reads_strided, views
from miniinfer_cli.backends.cuda.contract.work import Work
from miniinfer_cli.backends.cuda.launching.division import dividers
from miniinfer_cli.backends.cuda.launching.grids import BLOCK, blocks_for, index_dtype, index_name
from miniinfer_cli.backends.cuda.launching.strided_copy import at, copy_strided, is_movable, widest_unit
from miniinfer_cli.backends.cuda.tactics.movement.transposing import transpose_tactics

_PARTS = 16  # parts that one launch of join or cut takes
_TOGETHER = {"join": "concat", "cut": "split"}  # keys of the tactics that take all parts together, by their kernels
_NARROW = 4  # bytes of a unit below which a copy of each part is faster than a launch for all
_X, _Y = Operand.input(0), Operand.output(0)


@lowers("Transpose")
def lower_transpose(site: Site) -> Lowered | tuple[Tactic, ...] | None:
    """Axes in another order."""
    if not is_movable(site):
        return None
    shape = site.shape(0)
    perm = site.attr("perm")
    order = range(len(shape))[::-1] if perm is None else [int(p) for p in perm]
    if 0 in shape:
        return Lowered(())
    return transpose_tactics(site, shape, order, site.strides(0))


@reads_strided("Transpose", "Expand", "Tile")
def reads_what_is_moved(site: Site, number: int) -> bool:
    """The data, however they lie."""
    return number == 0


@views("Transpose")
def view_transpose(site: Site) -> tuple[View, ...]:
    """The same elements, walked in another order."""
    strides = site.strides(0)
    perm = site.attr("perm")
    order = range(len(strides))[::-1] if perm is None else [int(p) for p in perm]
    return (View(0, tuple(strides[p] for p in order)),)


@lowers("Concat")
def lower_concat(site: Site) -> Lowered | tuple[Tactic, ...] | None:
    """The inputs side by side: one launch for many of them, or a copy of each; of each where one is read where it lies."""
    if not is_movable(site):
        return None
    whole = site.out_shape()
    axis = int(site.attr("axis")) % len(whole)
    if any(strides is not None for strides in site.strided):
        copies = tuple(_copies_where_they_lie(site, whole, axis))
        apart = tactic_of("copies of views", lambda: Lowered(copies, estimate=moved_estimate(site)), moved_estimate(site))
        launch = _joined_where_they_lie(site, whole, axis)
        if launch is None or len(copies) < 2:
            return (apart,)
        return (tactic_of(_TOGETHER["join"], lambda: Lowered((launch,)), moved_estimate(site)), apart)
    parts = [(Operand.input(i), site.shape(i)[axis]) for i in range(len(site.types))]
    return _part_tactics("join", site, _Y, parts, whole, axis)


@reads_strided("Concat")
def reads_what_is_joined(site: Site, number: int) -> bool:
    """Parts of others, as a rolled image is put together, whose rows are whole: one that is turned is faster turned by itself."""
    return is_movable(site) and site.strides(number)[-1] == 1


def _copies_where_they_lie(site: Site, whole: Sequence[int], axis: int) -> Iterator[Copy[Operand] | Launch[Operand]]:
    nbytes, to = element_nbytes(site.dtype()), row_major(whole)
    start = 0
    for number in range(len(site.types)):
        shape = site.shape(number)
        if 0 not in shape:
            yield copy_strided(
                at(_Y, start * to[axis] * nbytes), Operand.input(number), nbytes, shape, to, site.strides(number), site.target
            )
        start += shape[axis]


def _joined_where_they_lie(site: Site, whole: Sequence[int], axis: int) -> Launch[Operand] | None:
    """One launch for parts whose rows, all that is behind the joined axis and along it, are whole and lie equally far apart."""
    nbytes, outer, inner = element_nbytes(site.dtype()), math.prod(whole[:axis]), math.prod(whole[axis + 1 :])
    parts: list[tuple[Operand, int, int, int]] = []  # operand, elements of a row, where it begins in the whole's, and its pitch
    start = 0
    for number in range(len(site.types)):
        shape, strides = site.shape(number), site.strides(number)
        length = shape[axis] * inner
        _, (walk,) = merge_axes(shape[:axis], strides[:axis])
        if len(walk) > 1 or not is_dense(shape[axis:], strides[axis:]):
            return None
        if outer * length:
            parts.append((Operand.input(number), length, start, walk[0] if walk else length))
        start += length
    if len(parts) > _PARTS:
        return None
    width = widest_unit(nbytes, start, *(n for _, *numbers in parts for n in numbers)) if parts else 1
    pieces = [(operand, n // width, first // width, pitch // width) for operand, n, first, pitch in parts]
    return _launch_parts("join_apart", _Y, pieces, outer, start // width, nbytes * width, site.target) if pieces else None


@assembles("Concat")
def join_parts(site: Site) -> tuple[int, ...] | None:
    """One behind the other, where no axis in front of the joined one has several elements."""
    whole = site.out_shape()
    axis = int(site.attr("axis")) % len(whole)
    if math.prod(whole[:axis]) != 1:
        return None
    sizes = (math.prod(site.shape(i)) * element_nbytes(site.dtype()) for i in range(len(site.types) - 1))
    return (0, *itertools.accumulate(sizes))


@lowers("Split")
def lower_split(site: Site) -> tuple[Tactic, ...] | None:
    """Consecutive pieces of the input: one launch for many of them, or a copy of each."""
    if not is_movable(site):
        return None
    whole = site.shape(0)
    axis = int(site.attr("axis", 0)) % len(whole)
    parts = [(Operand.output(i), site.out_shape(i)[axis]) for i in range(len(site.results))]
    return _part_tactics("cut", site, _X, parts, whole, axis)


@views("Split")
def view_split(site: Site) -> tuple[View, ...]:
    """Each piece behind the one before it, with the strides of the whole."""
    strides = site.strides(0)
    axis = int(site.attr("axis", 0)) % len(strides)
    starts = [0, *itertools.accumulate(site.out_shape(i)[axis] for i in range(len(site.results) - 1))]
    return tuple(View(start * strides[axis], strides) for start in starts)


@lowers("Expand")
def lower_expand(site: Site) -> Lowered | None:
    """Axes of one element repeated."""
    if not is_movable(site):
        return None
    sizes = site.out_shape()
    if 0 in sizes:
        return Lowered(())
    strides = spread_strides(site.shape(0), site.strides(0), sizes)
    return Lowered((copy_strided(_Y, _X, element_nbytes(site.dtype()), sizes, row_major(sizes), strides, site.target),))


@views("Expand")
def view_expand(site: Site) -> tuple[View, ...] | None:
    """What is repeated once, as for a batch of one."""
    return (View(0, site.strides(0)),) if site.shape(0) == site.out_shape() else None


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
    for n, total, stride in zip(shape, whole, site.strides(0), strict=True):
        sizes += [total // n, n]
        strides += [0, stride]
    return Lowered((copy_strided(_Y, _X, element_nbytes(site.dtype()), sizes, row_major(sizes), strides, site.target),))


def _part_tactics(
    name: str, site: Site, whole: Operand, parts: Sequence[tuple[Operand, int]], shape: Sequence[int], axis: int
) -> tuple[Tactic, ...]:
    """Dense ``parts`` of these sizes along ``axis``, one behind the other: put into ``whole`` of ``shape`` (``join``) or taken
    out of it (``cut``); the heuristic's favourite first."""
    outer, inner = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
    nbytes = element_nbytes(site.dtype())
    width = widest_unit(nbytes, inner * shape[axis], *(inner * n for _, n in parts)) if outer else 1
    unit = nbytes * width
    pieces: list[tuple[Operand, int, int]] = []  # operand, units a row, start in the row
    start = 0
    for operand, size in parts:
        if outer * size * inner:
            pieces.append((operand, size * inner // width, start))
        start += size * inner // width

    def copies(work: Work) -> None:
        work.add(*(_copy_part(name, whole, part, first * unit, n * unit) for part, n, first in pieces))

    def launches(work: Work) -> None:
        groups = (pieces[i : i + _PARTS] for i in range(0, len(pieces), _PARTS))
        work.add(*(_launch_parts(name, whole, group, outer, start, unit, site.target) for group in groups))

    estimate = replace(default_estimate(site), flops=0)
    together, apart = Tactic(_TOGETHER[name], launches, estimate), Tactic("copies", copies, estimate)
    if outer != 1:
        return (together,)
    return (apart, together) if len(pieces) == 1 or unit < _NARROW else (together, apart)


def _copy_part(name: str, whole: Operand, part: Operand, offset: int, nbytes: int) -> Copy[Operand]:
    inside = at(whole, offset)
    return Copy(inside, part, nbytes) if name == "join" else Copy(part, inside, nbytes)


def _launch_parts(
    name: str, whole: Operand, pieces: Sequence[tuple[Operand, *tuple[int, ...]]], outer: int, row: int, unit: int, target: Target
) -> Launch[Operand]:
    """``pieces``: operand, units of a row, where it begins in one of the whole, and, where it may be another, its pitch."""
    largest = outer * max(row, *(n for _, *numbers in pieces for n in numbers))
    index = index_dtype(largest)
    operands, lengths, *others = zip(*pieces, strict=True)
    total = sum(outer * n for n in lengths)
    budget = blocks_for(total, target.multiprocessors)
    ends = np.cumsum([max(1, min(-(-outer * n // BLOCK), -(-budget * outer * n // total))) for n in lengths])
    spare = _PARTS - len(pieces)
    widths = [*lengths, *[1] * spare]
    arguments: tuple[Argument, ...] = (
        whole,
        *operands,
        *(NULL,) * spare,
        np.array([*ends, *[ends[-1]] * spare], np.int32),
        index.type(outer),
        index.type(row),
        np.array(widths, index),
        *(np.array([*numbers, *[0] * spare], index) for numbers in others),
        dividers(widths),
    )
    kernel = Kernel(name, "movement.cu", (("MI_T", unit_type(unit)), ("MI_INDEX", index_name(largest))))
    return Launch(kernel, (int(ends[-1]),), (BLOCK,), arguments)

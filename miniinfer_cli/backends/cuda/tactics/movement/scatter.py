"""Scatter, ScatterElements, ScatterND, TensorScatter."""

import math
from dataclasses import dataclass
from functools import partial

import numpy as np

from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.cuda.contract.estimating import default_estimate
from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import (
    Action,
    Argument,
    Copy,
    Fill,
    Kernel,
    Launch,
    Lowered,
    Operand,
    inputs,
    outputs,
)
from miniinfer_cli.backends.cuda.contract.tactic import Tactic, tactic_of
from miniinfer_cli.backends.cuda.contract.types import HOST_ONLY, c_type, element_nbytes, unit_type
from miniinfer_cli.backends.cuda.launching.division import dividers
from miniinfer_cli.backends.cuda.launching.grids import index_dtype, index_name, launch_over
from miniinfer_cli.backends.cuda.launching.strided_copy import is_movable, widest_unit
from miniinfer_cli.backends.cuda.tactics.movement.places import element_places, slice_places
from miniinfer_cli.backends.cuda.tactics.sorting.sorting import ASCENDING, Rows, sort_rows
from miniinfer_cli.ir import Array, DType

_REDUCTIONS = {"none": "0", "add": "1", "mul": "2", "max": "3", "min": "4"}  # as in scatter.cu
_INDICES, _UPDATES = inputs(1, 2)
(_Y,) = outputs(0)


@dataclass(frozen=True, slots=True)
class ScatterHeuristic:
    """The order is: updates that may share a place compared one by one, where they are few; else the last of each place is found,
    or, where they are combined, they are sorted by their places."""

    short: int = 32
    """Positions that may share a place and are compared one by one, at most."""


SCATTER = ScatterHeuristic()


@dataclass(frozen=True, slots=True)
class _Scatter:
    """``n_updates`` positions of ``inner`` elements, each with one of ``n_places``. Positions that may share their place
    are ``line_step`` apart, ``line_size`` of them."""

    n_updates: int
    n_places: int
    inner: int
    line_size: int
    line_step: int
    largest: int
    defines: tuple[tuple[str, str], ...]
    places: tuple[Argument, ...]


@lowers("Scatter", "ScatterElements")
def lower_scatter_elements(site: Site) -> Lowered | tuple[Tactic, ...] | None:
    """Each update at its own position but for one axis."""
    if not _is_reducible(site):
        return None
    data, indices = site.shape(0), site.shape(1)
    axis = int(site.attr("axis", 0)) % len(data)
    count, n_places = math.prod(indices), math.prod(data)
    if count == 0 or n_places == 0:
        return _scattered(site, ())
    largest = max(count, n_places)
    rank, places = element_places(data, indices, axis, largest)
    known = site.known(1)
    line_size = indices[axis]
    if known is not None and _all_differ(np.moveaxis(known, axis, -1).reshape(-1, line_size), data[axis]):
        line_size = 1
    defines = (("MI_ELEMENTS", ""), ("MI_RANK", str(rank)))
    step = math.prod(indices[axis + 1 :])
    return _scatter(site, _Scatter(count, n_places, 1, line_size, step, largest, defines, places))


@lowers("ScatterND")
def lower_scatter_nd(site: Site) -> Lowered | tuple[Tactic, ...] | None:
    """Each update, a slice of the data, at its coordinates."""
    if not _is_reducible(site):
        return None
    data, indices = site.shape(0), site.shape(1)
    depth = indices[-1]
    count, n_places, inner = math.prod(indices[:-1]), math.prod(data[:depth]), math.prod(data[depth:])
    if 0 in (count, n_places, inner):
        return _scattered(site, ())
    if site.attr("reduction", "none") == "none":
        inner //= widest_unit(element_nbytes(site.dtype()), inner)
    largest = max(max(count, n_places) * inner, count * depth)
    known = site.known(1)
    line_size = count
    if known is not None:
        rows = known.reshape(count, depth).astype(np.int64)
        numbers = np.where(rows < 0, rows + data[:depth], rows) @ np.cumprod((1, *data[:depth][:0:-1]))[::-1]
        line_size = 1 if _all_differ(numbers.reshape(1, count), n_places) else count
    places = slice_places(data[:depth], count, largest)
    return _scatter(site, _Scatter(count, n_places, inner, line_size, 1, largest, (("MI_RANK", str(depth)),), places))


@lowers("TensorScatter")
def lower_tensor_scatter(site: Site) -> Lowered | None:
    """Entries written into a cache; in the cache itself where nobody reads it afterwards."""
    if not is_movable(site):
        return None
    cache, update = site.shape(0), site.shape(1)
    if 0 in update or 0 in cache:
        return _scattered(site, ())
    axis = int(site.attr("axis", -2)) % len(cache)
    nbytes = element_nbytes(site.dtype())
    inner = math.prod(cache[axis + 1 :])
    width = widest_unit(nbytes, inner)
    sizes = (math.prod(cache[1:axis]), update[axis], inner // width)
    largest, count = math.prod(cache) // width, math.prod(update) // width
    index = index_dtype(largest)
    defines = (("MI_T", unit_type(nbytes * width)), ("MI_INDEX", index_name(largest)))
    circular = np.int32(site.attr("mode", "linear") == "circular")
    arguments = (
        _INDICES, site.operand(2), _Y, index.type(count), index.type(cache[axis]), circular,
        np.array(sizes, index), dividers(sizes),
    )  # fmt: skip
    return _scattered(
        site, (launch_over(Kernel("cache_update", "cache_update.cu", defines), count, arguments, site.target.multiprocessors),)
    )


def _is_reducible(site: Site) -> bool:
    """False for strings, and for complex numbers that are combined: the host does both."""
    return is_movable(site) and (site.attr("reduction", "none") == "none" or site.dtype() not in HOST_ONLY)


def _all_differ(lines: Array, size: int) -> bool:
    """True when no two indices of a line are the same, negative ones counted from the end."""
    ordered = np.sort(np.where(lines < 0, lines + size, lines), axis=-1)
    return not (ordered[:, 1:] == ordered[:, :-1]).any()


def _scattered(site: Site, actions: tuple[Action, ...], scratch: tuple[int, ...] = (), tactic: str = "scatter") -> Lowered:
    """The node as ``actions`` on a copy of the data; on the data itself where nothing else reads it."""
    nbytes = math.prod(site.shape(0)) * element_nbytes(site.dtype())
    data, *others = site.node.inputs
    start = (Copy(_Y, Operand.input(0), nbytes),) if nbytes else ()
    return Lowered((*start, *actions), scratch, in_place={} if data in others else {0: (0,)}, tactic=tactic)


def _scatter(site: Site, work: _Scatter, table: ScatterHeuristic = SCATTER) -> tuple[Tactic, ...]:
    """The ways of updates, the heuristic's favourite first. Where no two share a place there is one."""
    estimate = default_estimate(site)
    if work.line_size == 1:
        return (tactic_of("scatter", partial(_made, site, work, "scatter"), estimate),)
    pairs = work.n_updates * min(work.line_size, work.n_updates) // 2
    places = Estimate(0, work.n_places * np.dtype(index_dtype(work.largest)).itemsize)
    lines = tactic_of("scatter by lines", partial(_made, site, work, "scatter by lines"), estimate + Estimate(pairs, 0))
    name = "scatter the last" if site.attr("reduction", "none") == "none" else "scatter sorted"
    others = tactic_of(name, partial(_made, site, work, name), estimate + places)
    return (lines, others) if work.line_size <= table.short else (others, lines)


def _made(site: Site, work: _Scatter, way: str) -> Lowered:
    reduction = _REDUCTIONS[site.attr("reduction", "none")]
    moved = unit_type(element_nbytes(site.dtype()) * math.prod(site.shape(2)) // (work.n_updates * work.inner))
    placing = (("MI_I", c_type(site.dtype(1))), *work.defines, ("MI_INDEX", index_name(work.largest)))
    index = index_dtype(work.largest)
    count, number = work.n_updates * work.inner, index.type(work.n_updates)
    sizes: tuple[Argument, ...] = (index.type(count), index.type(work.inner), dividers([work.inner]))
    element = moved if reduction == "0" else c_type(site.dtype())

    def launch(name: str, *arguments: Argument) -> Launch[Operand]:
        kernel = Kernel(name, "scatter.cu", (("MI_T", element), ("MI_REDUCTION", reduction), *placing))
        return launch_over(kernel, count, (*arguments, _UPDATES, _Y, *sizes, *work.places), site.target.multiprocessors)

    def place(name: str, into: Operand, *arguments: Argument) -> Launch[Operand]:
        kernel = Kernel(name, "scatter_places.cu", placing)
        return launch_over(
            kernel, work.n_updates, (_INDICES, into, number, *arguments, *work.places), site.target.multiprocessors
        )

    if way == "scatter":
        return _scattered(site, (launch("scatter", _INDICES),))
    if way == "scatter by lines":
        line = (index.type(work.line_size), index.type(work.line_step))
        return _scattered(site, (launch("scatter_lines", *line, _INDICES),))
    if way == "scatter the last":
        last, nbytes = Operand.scratch(0), work.n_places * index.itemsize
        actions = (Fill(last, 0xFF, nbytes), place("scatter_claim", last), launch("scatter_claimed", last, _INDICES))
        return _scattered(site, actions, (nbytes,))
    places, ordered, order = (Operand.scratch(i) for i in range(3))
    key = DType.I64 if index == np.int64 else DType.I32
    rows = Rows(places, key, 1, work.n_updates, 1, work.n_updates, ASCENDING)
    sorting = sort_rows(rows, site.target, outputs=(ordered, order), first_scratch=3)
    outside = index.type(work.n_places)
    defines = (("MI_T", element), ("MI_REDUCTION", reduction), ("MI_INDEX", index_name(work.largest)))
    combine = launch_over(
        Kernel("scatter_sorted", "scatter_sorted.cu", defines),
        count,
        (ordered, order, _UPDATES, _Y, *sizes, number, outside),
        site.target.multiprocessors,
    )
    own = (work.n_updates * n for n in (index.itemsize, index.itemsize, 8))
    scratch = (*own, *sorting.scratch)
    return _scattered(site, (place("scatter_places", places, outside), *sorting.actions, combine), scratch)

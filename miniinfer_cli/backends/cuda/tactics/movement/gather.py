"""Gather, GatherElements, GatherND."""

import math

import numpy as np

from miniinfer_cli.backends.cuda.contract.estimating import moved_estimate
from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import Fill, Kernel, Lowered, Operand, inputs, outputs
from miniinfer_cli.backends.cuda.contract.strides import row_major
from miniinfer_cli.backends.cuda.contract.types import c_type, element_nbytes, unit_type
from miniinfer_cli.backends.cuda.contract.viewing import View, views
from miniinfer_cli.backends.cuda.launching.division import dividers
from miniinfer_cli.backends.cuda.launching.grids import index_dtype, index_name, launch_over
from miniinfer_cli.backends.cuda.launching.strided_copy import at, copy_strided, is_movable, widest_unit
from miniinfer_cli.backends.cuda.tactics.movement.places import element_places, slice_places


@lowers("Gather")
def lower_gather(site: Site) -> Lowered | None:
    """Slices along an axis. A single index that is known is a strided copy."""
    if not is_movable(site):
        return None
    shape, n_indices = site.shape(0), math.prod(site.shape(1))
    axis = int(site.attr("axis", 0)) % len(shape)
    outer, size, inner = math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])
    empty = _empty(site)
    if empty is not None:
        return empty
    nbytes = element_nbytes(site.dtype())
    (source,), (target,) = inputs(0), outputs(0)
    chosen = site.known(1) if n_indices == 1 else None
    if chosen is not None:
        index = int(chosen.reshape(-1)[0])
        start = min(max(index + size if index < 0 else index, 0), size - 1) * inner
        action = copy_strided(
            target, at(source, start * nbytes), nbytes, (outer, inner), (inner, 1), (size * inner, 1), site.target
        )
        return Lowered((action,), tactic="gather one", estimate=moved_estimate(site))
    width = widest_unit(nbytes, inner)
    inner //= width
    count, largest = outer * n_indices * inner, outer * max(size, n_indices) * inner
    of = index_dtype(largest)
    kernel = Kernel("gather", "gather.cu", _defines(site, nbytes * width, largest))
    arguments = (
        *inputs(0, 1), target, of.type(count), of.type(size),
        np.array([n_indices, inner], of), dividers([n_indices, inner]),
    )  # fmt: skip
    launch = launch_over(kernel, count, arguments, site.target.multiprocessors)
    return Lowered((launch,), tactic="gather", estimate=moved_estimate(site, 1))


@views("Gather")
def view_gather(site: Site) -> tuple[View, ...] | None:
    """Slices at known places that lie equally far apart, further on each time: rows in order, as of positions; or one alone."""
    chosen, shape = site.known(1), site.shape(0)
    axis = int(site.attr("axis", 0)) % len(shape)
    if chosen is None or chosen.size == 0 or 0 in shape:
        return None
    size, indices = shape[axis], chosen.reshape(-1).astype(np.int64)
    places = np.where(indices < 0, indices + size, indices)
    first, last, step = int(places[0]), int(places[-1]), int(places[1] - places[0]) if places.size > 1 else 1
    if step < 1 or first < 0 or last >= size or (np.diff(places) != step).any():
        return None
    walk = site.strides(0)
    rows = (s * step * walk[axis] for s in row_major(chosen.shape))
    return (View(first * walk[axis], (*walk[:axis], *rows, *walk[axis + 1 :])),)


@lowers("GatherElements")
def lower_gather_elements(site: Site) -> Lowered | None:
    """One element for each index."""
    if not is_movable(site):
        return None
    empty = _empty(site)
    if empty is not None:
        return empty
    axis = int(site.attr("axis", 0)) % len(site.shape(0))
    count, largest = math.prod(site.out_shape()), max(math.prod(site.shape(0)), math.prod(site.out_shape()))
    rank, places = element_places(site.shape(0), site.shape(1), axis, largest)
    defines = (*_defines(site, element_nbytes(site.dtype()), largest), ("MI_ELEMENTS", ""), ("MI_RANK", str(rank)))
    of = index_dtype(largest)
    arguments = (*inputs(0, 1), *outputs(0), of.type(count), of.type(1), dividers([1]), *places)
    return Lowered(
        (launch_over(Kernel("gather_at", "gather_at.cu", defines), count, arguments, site.target.multiprocessors),),
        tactic="gather elements",
        estimate=moved_estimate(site, 1),
    )


@lowers("GatherND")
def lower_gather_nd(site: Site) -> Lowered | None:
    """One slice for each vector of coordinates."""
    if not is_movable(site):
        return None
    empty = _empty(site)
    if empty is not None:
        return empty
    shape, indices = site.shape(0), site.shape(1)
    batch_dims, depth = int(site.attr("batch_dims", 0)), indices[-1]
    inner = math.prod(shape[batch_dims + depth :])
    nbytes = element_nbytes(site.dtype())
    width = widest_unit(nbytes, inner)
    inner //= width
    count = math.prod(indices[:-1]) * inner
    largest = max(count, math.prod(shape) // width, math.prod(indices))
    places = slice_places(shape[batch_dims : batch_dims + depth], math.prod(indices[batch_dims:-1]), largest)
    defines = (*_defines(site, nbytes * width, largest), ("MI_RANK", str(depth)))
    of = index_dtype(largest)
    arguments = (*inputs(0, 1), *outputs(0), of.type(count), of.type(inner), dividers([inner]), *places)
    return Lowered(
        (launch_over(Kernel("gather_at", "gather_at.cu", defines), count, arguments, site.target.multiprocessors),),
        tactic="gather slices",
        estimate=moved_estimate(site, 1),
    )


def _empty(site: Site) -> Lowered | None:
    """What there is to do where no element can be read; the CPU refuses the indices where there are any."""
    count = math.prod(site.out_shape())
    if count == 0:
        return Lowered(())
    if 0 in site.shape(0):
        return Lowered((Fill(Operand.output(0), 0, count * element_nbytes(site.dtype())),))
    return None


def _defines(site: Site, unit: int, largest: int) -> tuple[tuple[str, str], ...]:
    return (("MI_T", unit_type(unit)), ("MI_I", c_type(site.dtype(1))), ("MI_INDEX", index_name(largest)))

"""TopK."""

import math
from dataclasses import replace
from functools import partial

import numpy as np

from miniinfer_cli.backends.cuda.contract.estimating import default_estimate
from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import Action, Bound, Kernel, Launch, Lowered, Operand, inputs
from miniinfer_cli.backends.cuda.contract.tactic import Tactic, tactic_of
from miniinfer_cli.backends.cuda.launching.grids import power_of_two_from
from miniinfer_cli.backends.cuda.tactics.sorting.sorting import ASCENDING, DESCENDING, Rows, Sorting, sort_rows


@lowers("TopK")
def lower_topk(site: Site) -> Lowered | tuple[Tactic, ...] | None:
    """The first of each row by a sort; where k is not known, all of it, to be cut to the k that the device reads."""
    if not site.gives(1):
        return None  # the kernels write both outputs
    shape = site.shape(0)
    axis = site.attr("axis", -1) % len(shape)
    size, outer, inner = shape[axis], math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
    found = site.output().shape
    assert found is not None
    wanted = found[axis]
    order = DESCENDING if site.attr("largest", 1) else ASCENDING
    keep = wanted if isinstance(wanted, int) else size
    actions: tuple[Action, ...] = ()
    scratch: tuple[int, ...] = ()
    if outer * inner * keep:
        rows = Rows(Operand.input(0), site.dtype(), outer * inner, size, inner, keep, order)
        if isinstance(wanted, int):
            return _tactics(site, rows)
        sorting = _sorted(site, rows, rows.most)
        actions, scratch = sorting.actions, sorting.scratch
    if isinstance(wanted, int):
        return Lowered(())
    bound = Bound((*shape[:axis], size, *shape[axis + 1 :]), axis)
    counts = (Operand.count(0), Operand.count(1))
    defines = Rows(Operand.input(0), site.dtype(), 1, 1, 1, 1, order).of_items()
    count: Launch[Operand] = Launch(Kernel("topk_count", "topk.cu", defines), (1,), (1,), (*inputs(1), *counts, np.int64(size)))
    return Lowered((*actions, count), scratch, bounds={0: bound, 1: bound}, tactic="sort, cut to k")


def _tactics(site: Site, rows: Rows) -> tuple[Tactic, ...]:
    """By how many items a block sorts at once, the heuristic's favourite first: as many as there is room for."""
    numbers = [rows.most, *(n for n in (rows.most // 2, rows.most // 4) if n < rows.size)]
    levels = max(1, power_of_two_from(rows.size).bit_length() - 1)
    moved = replace(default_estimate(site), flops=rows.count * rows.size * levels * (levels + 1) // 2)
    return tuple(tactic_of(f"sort by {n}", partial(_lowered, site, rows, n), moved) for n in numbers)


def _sorted(site: Site, rows: Rows, at_once: int) -> Sorting:
    return sort_rows(rows, site.target, outputs=(Operand.output(0), Operand.output(1)), at_once=at_once)


def _lowered(site: Site, rows: Rows, at_once: int) -> Lowered:
    sorting = _sorted(site, rows, at_once)
    return Lowered(sorting.actions, sorting.scratch)

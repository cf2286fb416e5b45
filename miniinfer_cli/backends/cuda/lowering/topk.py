"""TopK."""

import math

import numpy as np

from miniinfer_cli.backends.cuda.launching.sorting import ASCENDING, DESCENDING, Rows, sort_rows
from miniinfer_cli.backends.cuda.site import Site, lowers
from miniinfer_cli.backends.cuda.steps import Action, Bound, Kernel, Launch, Lowered, Operand, inputs


@lowers("TopK")
def lower_topk(site: Site) -> Lowered | None:
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
    actions: list[Action] = []
    scratch: tuple[int, ...] = ()
    if outer * inner * keep:
        rows = Rows(Operand.input(0), site.dtype(), outer * inner, size, inner, keep, order)
        sorting = sort_rows(rows, site.target, outputs=(Operand.output(0), Operand.output(1)))
        actions += sorting.actions
        scratch = sorting.scratch
    if isinstance(wanted, int):
        return Lowered(tuple(actions), scratch, tactic="topk")
    bound = Bound((*shape[:axis], size, *shape[axis + 1 :]), axis)
    counts = (Operand.count(0), Operand.count(1))
    defines = Rows(Operand.input(0), site.dtype(), 1, 1, 1, 1, order).of_items()
    actions.append(Launch(Kernel("topk_count", "topk.cu", defines), (1,), (1,), (*inputs(1), *counts, np.int64(size))))
    return Lowered(tuple(actions), scratch, bounds={0: bound, 1: bound}, tactic="topk")

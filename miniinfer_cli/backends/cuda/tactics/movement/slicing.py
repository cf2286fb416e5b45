"""Slice."""

from miniinfer_cli.backends.cuda.contract.estimating import moved_estimate
from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import Lowered, Operand
from miniinfer_cli.backends.cuda.contract.strides import row_major
from miniinfer_cli.backends.cuda.contract.types import element_nbytes
from miniinfer_cli.backends.cuda.contract.viewing import View, reads_strided, views
from miniinfer_cli.backends.cuda.launching.strided_copy import at, copy_strided, is_movable
from miniinfer_cli.ops.slicing import positions


@lowers("Slice")
def lower_slice(site: Site) -> Lowered | None:
    """A strided copy; bounds that depend on data go to the host, as the size of the output does."""
    cut = _cut(site) if is_movable(site) else None
    if cut is None:
        return None
    out_shape = site.out_shape()
    if 0 in out_shape:
        return Lowered(())
    nbytes = element_nbytes(site.dtype())
    source = at(Operand.input(0), cut.offset * nbytes)
    action = copy_strided(Operand.output(0), source, nbytes, out_shape, row_major(out_shape), cut.strides, site.target)
    return Lowered((action,), tactic="slice", estimate=moved_estimate(site))


@reads_strided("Slice")
def reads_what_is_cut(site: Site, number: int) -> bool:
    """The data, however they lie."""
    return number == 0


@views("Slice")
def view_slice(site: Site) -> tuple[View, ...] | None:
    """What is cut forwards, however far its elements lie apart."""
    cut = _cut(site)
    return None if cut is None or any(s < 0 for s in cut.strides) else (cut,)


def _cut(site: Site) -> View | None:
    """The result as part of the data; None where its bounds are not known."""
    operands = [site.known(i) for i in range(1, 5)]
    if any(site.has(i) and o is None for i, o in enumerate(operands, 1)):
        return None
    starts, ends, axes, steps = (None if o is None else [int(i) for i in o.reshape(-1)] for o in operands)
    assert starts is not None and ends is not None  # required inputs
    shape, strides = site.shape(0), list(site.strides(0))
    offset = 0
    for start, end, axis, step in zip(starts, ends, axes or range(len(starts)), steps or [1] * len(starts), strict=True):
        offset += positions(shape[axis], start, end, step).start * strides[axis]
        strides[axis] *= step
    return View(offset, tuple(strides))

"""DepthToSpace, SpaceToDepth, ReverseSequence, Trilu."""

import math
from collections.abc import Sequence

import numpy as np

from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import NULL, Kernel, Lowered, inputs, outputs
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.types import bits_type, element_nbytes, unit_type
from miniinfer_cli.backends.cuda.launching.division import dividers
from miniinfer_cli.backends.cuda.launching.grids import index_dtype, index_name, launch_over
from miniinfer_cli.backends.cuda.launching.strided_copy import is_movable, widest_unit
from miniinfer_cli.backends.cuda.tactics.movement.transposing import transpose_tactics


@lowers("DepthToSpace")
def lower_depth_to_space(site: Site) -> Lowered | tuple[Tactic, ...] | None:
    """A Transpose of six axes."""
    if not is_movable(site):
        return None
    n, c, h, w = site.shape(0)
    b = int(site.attr("blocksize"))
    if site.attr("mode", "DCR") == "DCR":
        return _permuted(site, (n, b, b, c // b**2, h, w), (0, 3, 4, 1, 5, 2))
    return _permuted(site, (n, c // b**2, b, b, h, w), (0, 1, 4, 2, 5, 3))


@lowers("SpaceToDepth")
def lower_space_to_depth(site: Site) -> Lowered | tuple[Tactic, ...] | None:
    """A Transpose of six axes."""
    if not is_movable(site):
        return None
    n, c, h, w = site.shape(0)
    b = int(site.attr("blocksize"))
    order = (0, 3, 5, 1, 2, 4) if site.attr("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    return _permuted(site, (n, c, h // b, b, w // b, b), order)


@lowers("ReverseSequence")
def lower_reverse_sequence(site: Site) -> Lowered | None:
    """Steps in reverse order, as many of each sample as the device reads."""
    if not is_movable(site):
        return None
    shape, nbytes = site.shape(0), element_nbytes(site.dtype())
    if 0 in shape:
        return Lowered(())
    inner = math.prod(shape[2:])
    width = widest_unit(nbytes, inner)
    time = int(site.attr("time_axis", 0))
    sizes = (shape[1], inner // width)
    count = shape[0] * math.prod(sizes)
    index = index_dtype(count)
    defines = (("MI_T", unit_type(nbytes * width)), ("MI_INDEX", index_name(count)))
    arguments = (
        *inputs(0, 1), *outputs(0), index.type(count), index.type(shape[time]), np.int32(time == 1),
        np.array(sizes, index), dividers(sizes),
    )  # fmt: skip
    kernel = Kernel("reverse_sequence", "reverse_sequence.cu", defines)
    return Lowered((launch_over(kernel, count, arguments, site.target.multiprocessors),), tactic="reverse sequence")


@lowers("Trilu")
def lower_trilu(site: Site) -> Lowered | None:
    """A triangle of each matrix; the diagonal's number is read on the device when it is not known."""
    if not is_movable(site):
        return None
    shape = site.shape(0)
    if 0 in shape:
        return Lowered(())
    known = site.known(1)
    diagonal = 0 if known is None else int(known.reshape(-1)[0])
    diagonal_at = site.operand(1) if known is None else NULL
    width = widest_unit(element_nbytes(site.dtype()), shape[-1])
    sizes = (shape[-2], shape[-1] // width)
    count = math.prod(shape) // width
    index = index_dtype(count)
    defines = (("MI_T", bits_type(site.dtype())), ("MI_WIDTH", str(width)), ("MI_INDEX", index_name(count)))
    arguments = (
        *inputs(0), *outputs(0), diagonal_at, np.int64(diagonal), np.int32(site.attr("upper", 1)), index.type(count),
        np.array(sizes, index), dividers(sizes),
    )  # fmt: skip
    return Lowered(
        (launch_over(Kernel("trilu", "trilu.cu", defines), count, arguments, site.target.multiprocessors),), tactic="trilu"
    )


def _permuted(site: Site, shape: Sequence[int], order: Sequence[int]) -> Lowered | tuple[Tactic, ...]:
    return Lowered(()) if 0 in shape else transpose_tactics(site, shape, order)

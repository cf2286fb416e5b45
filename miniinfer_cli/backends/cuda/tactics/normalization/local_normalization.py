"""LRN, LpNormalization."""

import math

import numpy as np

from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import Kernel, Launch, Lowered, Operand
from miniinfer_cli.backends.cuda.contract.types import c_type, element_nbytes
from miniinfer_cli.backends.cuda.launching.grids import BLOCK, blocks_for, index_dtype, index_name, load_width
from miniinfer_cli.backends.cuda.tactics.normalization.normalizing import BY_NORM, normalize_by, real_dtype
from miniinfer_cli.backends.cuda.tactics.reduction.reduction import reduction_of
from miniinfer_cli.backends.cuda.tactics.reduction.reductions import reduce_actions

_X, _Y = Operand.input(0), Operand.output(0)


@lowers("LpNormalization")
def lower_lp_normalization(site: Site) -> Lowered | None:
    """The norms, then each element by its own."""
    shape, dtype = site.shape(0), site.dtype()
    if math.prod(shape) == 0:
        return Lowered(())
    if not shape:
        return None
    axis, real, norms = site.attr("axis", -1) % len(shape), real_dtype(dtype), Operand.scratch(0)
    what = reduction_of("ReduceL1" if site.attr("p", 2) == 1 else "ReduceL2", dtype, real)
    stages = reduce_actions(what, shape, (axis,), _X, norms, site.target, first_scratch=1)
    last = normalize_by(BY_NORM, _X, _Y, (dtype, dtype), shape, (axis,), norms, real, site.target)
    scratch = (math.prod(shape) // shape[axis] * element_nbytes(real), *stages.scratch)
    return Lowered((*stages.actions, last), scratch, in_place={0: (0,)}, tactic="norms")


@lowers("LRN")
def lower_lrn(site: Site) -> Lowered | None:
    """Each element with its neighbouring channels, which the cache holds."""
    shape, dtype = site.shape(0), site.dtype()
    count, inner = math.prod(shape), math.prod(shape[2:])
    if count == 0:
        return Lowered(())
    width = load_width(inner, element_nbytes(dtype), 4)
    index = index_dtype(count).type
    defines = (
        ("MI_T", c_type(dtype)),
        ("MI_F", c_type(real_dtype(dtype))),
        ("MI_N", str(width)),
        ("MI_INDEX", index_name(count)),
    )
    size = site.attr("size")
    arguments = (
        _X,
        _Y,
        index(count),
        index(shape[1]),
        index(inner),
        np.int32((size - 1) // 2),
        np.int32(size // 2),
        np.float64(site.attr("alpha", 1e-4) / size),
        np.float64(site.attr("beta", 0.75)),
        np.float64(site.attr("bias", 1.0)),
    )
    grid = (blocks_for(count, site.target.multiprocessors, width),)
    return Lowered((Launch(Kernel("lrn", "lrn.cu", defines), grid, (BLOCK,), arguments),), tactic="window")

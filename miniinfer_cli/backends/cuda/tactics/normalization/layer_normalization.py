"""LayerNormalization, RMSNormalization."""

import math
from functools import partial

import numpy as np

from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import NULL, Action, Argument, Kernel, Launch, Lowered, Operand
from miniinfer_cli.backends.cuda.contract.strides import broadcast_strides
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.types import c_type, element_nbytes
from miniinfer_cli.backends.cuda.launching.grids import index_dtype, index_name, launch_over
from miniinfer_cli.backends.cuda.tactics.normalization.normalizing import (
    BY_VARIANCE,
    Affine,
    in_place,
    moments,
    normalization_tactics,
    normalize_by,
    real_dtype,
)
from miniinfer_cli.backends.cuda.tactics.normalization.row_groups import RowGroups, row_ways
from miniinfer_cli.backends.cuda.tactics.reduction.reductions import reduce_actions
from miniinfer_cli.ir import DType
from miniinfer_cli.ops.type_codes import dtype_of_code


@lowers("LayerNormalization", "RMSNormalization")
def lower_layer_normalization(site: Site) -> Lowered | tuple[Tactic, ...]:
    """Rows in registers; long rows, and scales that change from row to row, by statistics made before."""
    shape, dtype = site.shape(0), site.dtype()
    first = site.attr("axis", -1) % len(shape)
    rows, length = math.prod(shape[:first]), math.prod(shape[first:])
    if rows * length == 0:
        return Lowered(_store(site, rows, NULL))  # rows of no elements have statistics, those of zeros
    nbytes = max(element_nbytes(dtype), element_nbytes(site.out_dtype()))
    along_rows = all(math.prod(site.shape(i)) == length and _ends(shape[first:], site.shape(i)) for i in _affine(site))
    ways = row_ways(rows, length, nbytes, site.target) if along_rows else ()
    return normalization_tactics(site, ways, partial(_rows, site, rows), partial(_by_statistics, site, first))


def _rows(site: Site, rows: int, groups: RowGroups) -> Lowered:
    return Lowered((_launch(site, rows, groups),), in_place=in_place(site))


def _affine(site: Site) -> tuple[int, ...]:
    return (1, 2) if site.has(2) else (1,)


def _ends(row: tuple[int, ...], operand: tuple[int, ...]) -> bool:
    """True when the operand has one element for each of a row."""
    dropped = tuple(d for d in operand if d != 1)
    return dropped == tuple(d for d in row if d != 1)


def _real(site: Site) -> DType:
    return real_dtype(dtype_of_code(site.attr("stash_type", 1)))


def _launch(site: Site, rows: int, groups: RowGroups) -> Launch[Operand]:
    y, count = site.out_dtype(), math.prod(site.shape(0))
    wide = real_dtype(y)
    defines = (
        ("MI_T", c_type(site.dtype())),
        ("MI_Y", c_type(y)),
        ("MI_SCALE", c_type(site.dtype(1))),
        ("MI_BIAS", c_type(site.dtype(2) if site.has(2) else wide)),
        ("MI_STASH", c_type(dtype_of_code(site.attr("stash_type", 1)))),
        ("MI_F", c_type(_real(site))),
        ("MI_W", c_type(wide)),
        ("MI_CENTRE", str(int(site.node.op == "LayerNormalization"))),
        ("MI_BY_CHANNEL", "0"),
        ("MI_N", str(groups.width)),
        ("MI_PACKS", str(groups.loads)),
        ("MI_INDEX", index_name(count)),
    )
    index = index_dtype(count).type
    arguments: tuple[Argument, ...] = (
        Operand.input(0),
        Operand.output(0),
        Operand.input(1),
        site.operand(2),
        site.result(1),
        site.result(2),
        index(rows),
        np.int32(groups.packs),
        np.float64(site.attr("epsilon", 1e-5)),
        index(1),
        np.int32(1),
    )
    return Launch(Kernel("normalize_rows", "normalize.cu", defines), groups.grid(rows), groups.block, arguments)


def _by_statistics(site: Site, first: int) -> Lowered:
    shape, dtype, y, real = site.shape(0), site.dtype(), site.out_dtype(), _real(site)
    axes, rows = tuple(range(first, len(shape))), math.prod(shape[:first])
    x, statistics, epsilon = Operand.input(0), Operand.scratch(0), site.attr("epsilon", 1e-5)
    what = moments(dtype, real, centred=site.node.op == "LayerNormalization")
    stages = reduce_actions(what, shape, axes, x, statistics, site.target, first_scratch=1)
    scale, bias = (
        Affine(Operand.input(i), site.dtype(i), broadcast_strides(site.shape(i), shape)) if site.has(i) else None for i in (1, 2)
    )
    last = normalize_by(
        BY_VARIANCE,
        x,
        Operand.output(0),
        (dtype, y),
        shape,
        axes,
        statistics,
        real,
        site.target,
        epsilon=epsilon,
        scale=scale,
        bias=bias,
    )
    scratch = (rows * 2 * element_nbytes(real), *stages.scratch)
    return Lowered((*stages.actions, *_store(site, rows, statistics), last), scratch, in_place=in_place(site))


def _store(site: Site, rows: int, statistics: Argument) -> tuple[Action, ...]:
    if not site.gives(1) or rows == 0:
        return ()
    real = _real(site)
    defines = (
        ("MI_F", c_type(real)),
        ("MI_STASH", c_type(dtype_of_code(site.attr("stash_type", 1)))),
        ("MI_INDEX", index_name(rows)),
    )
    epsilon = np.float64(site.attr("epsilon", 1e-5))
    arguments = (statistics, site.result(1), site.result(2), index_dtype(rows).type(rows), epsilon)
    return (launch_over(Kernel("store_statistics", "row_statistics.cu", defines), rows, arguments, site.target.multiprocessors),)

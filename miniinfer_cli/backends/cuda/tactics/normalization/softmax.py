"""Softmax, LogSoftmax, Hardmax."""

import math
from functools import partial

import numpy as np

from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import Kernel, Launch, Lowered, Operand, inputs, outputs
from miniinfer_cli.backends.cuda.contract.tactic import Tactic, tactic_of
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.types import HOST_ONLY, c_type, computed_type, element_nbytes
from miniinfer_cli.backends.cuda.launching.grids import index_dtype, index_name, launch_over, load_width, power_of_two_from
from miniinfer_cli.backends.cuda.tactics.normalization.normalization_heuristic import NORMALIZATIONS, NormalizationHeuristic
from miniinfer_cli.backends.cuda.tactics.normalization.normalizing import (
    LOG_SOFTMAX,
    SOFTMAX,
    SOFTMAX_FLOPS,
    exp_sums,
    normalize_by,
    real_dtype,
)
from miniinfer_cli.backends.cuda.tactics.normalization.row_groups import RowGroups, row_ways
from miniinfer_cli.backends.cuda.tactics.reduction.arg_reduction import arg_reduction
from miniinfer_cli.backends.cuda.tactics.reduction.reductions import reduce_actions
from miniinfer_cli.ir import numpy_dtype

_COLUMN_BLOCK = 256
_COLUMN_THREADS = 32  # as many at most as share a column, when it is asked whether the columns fill the device


@lowers("Softmax", "LogSoftmax")
def lower_softmax(site: Site) -> Lowered | tuple[Tactic, ...] | None:
    """Rows in registers, or columns; a reduction and another pass where the results of either would not fill the device."""
    if not site.dtype().is_float:
        return None
    if math.prod(site.shape(0)) == 0:
        return Lowered(())
    return softmax_tactics(site)


def softmax_tactics(site: Site, table: NormalizationHeuristic = NORMALIZATIONS) -> tuple[Tactic, ...]:
    """The ways of a softmax that writes something, the heuristic's favourite first."""
    shape, dtype, target = site.shape(0), site.dtype(), site.target
    outer, length, inner = around_axis(shape, site.attr("axis", -1))
    nbytes = outer * length * inner * element_nbytes(dtype)
    flops = SOFTMAX_FLOPS * outer * length * inner
    once, twice = Estimate(flops, 2 * nbytes), Estimate(flops, 3 * nbytes)
    rows: list[Tactic] = []
    for groups in row_ways(outer, length, element_nbytes(dtype), target, table=table) if inner == 1 else ():
        rows.append(tactic_of(groups.key, partial(_rows, site, groups), once))
    width = load_width(inner, element_nbytes(dtype), 4)
    columns: list[Tactic] = []
    for across in _shares(outer * inner // width, length, target, table):
        key = f"columns by {across} threads" if across > 1 else "columns by a thread"
        columns.append(tactic_of(key, partial(_columns, site, width, across), twice))
    sums = [tactic_of("sums", partial(_by_sums, site), twice)] if shape else []
    busy = outer * inner // width * _COLUMN_THREADS >= target.multiprocessors * table.busy_threads
    others = (*columns, *sums) if length < table.long_columns or busy else (*sums, *columns)
    return (*rows, *others)


def _rows(site: Site, groups: RowGroups) -> Lowered:
    outer, length, _ = around_axis(site.shape(0), site.attr("axis", -1))
    defines = (*_defines(site), ("MI_N", str(groups.width)), ("MI_PACKS", str(groups.loads)))
    arguments = (*inputs(0), *outputs(0), index_dtype(outer * length).type(outer), np.int32(groups.packs))
    launch = Launch(Kernel("softmax_rows", "softmax_rows.cu", defines), groups.grid(outer), groups.block, arguments)
    return Lowered((launch,), in_place={0: (0,)})


def _shares(columns: int, length: int, target: Target, table: NormalizationHeuristic) -> list[int]:
    """How many threads share a column, the favourite first."""

    def fits(across: int) -> bool:
        return across * min(columns, 32) <= _COLUMN_BLOCK and across * 2 < length

    favourite, enough = 1, target.multiprocessors * table.busy_threads
    while fits(favourite * 2) and columns * favourite < enough:
        favourite *= 2
    return list(dict.fromkeys((favourite, *(n for n in table.shared_columns if n == 1 or fits(n)))))


def _columns(site: Site, width: int, across: int) -> Lowered:
    """``width`` columns a load, each shared by ``across`` threads."""
    outer, length, inner = around_axis(site.shape(0), site.attr("axis", -1))
    index, columns = index_dtype(outer * length * inner).type, outer * inner // width
    along = max(32 // across, min(_COLUMN_BLOCK // across, power_of_two_from(columns)))
    part = 16 if computed_type(site.dtype()) == "f64" else 8
    kernel = Kernel("softmax_columns", "softmax_columns.cu", (*_defines(site), ("MI_N", str(width))))
    arguments = (*inputs(0), *outputs(0), index(columns), index(length), index(inner))
    shared = along * across * width * part if across > 1 else 0
    launch = Launch(kernel, (-(-columns // along),), (along, across), arguments, shared)
    return Lowered((launch,), in_place={0: (0,)})


def _defines(site: Site) -> tuple[tuple[str, str], ...]:
    is_log = str(int(site.node.op == "LogSoftmax"))
    return ("MI_T", c_type(site.dtype())), ("MI_LOG", is_log), ("MI_INDEX", index_name(math.prod(site.shape(0))))


@lowers("Hardmax")
def lower_hardmax(site: Site) -> Lowered | None:
    """The position of the maximum, then a one there."""
    shape, dtype = site.shape(0), site.dtype()
    if dtype in HOST_ONLY:
        return None
    outer, length, inner = around_axis(shape, site.attr("axis", -1))
    count = outer * length * inner
    if count == 0:
        return Lowered(())
    at = Operand.scratch(0)
    stages = reduce_actions(
        arg_reduction("ArgMax", dtype, "int"), (outer, length, inner), (1,), Operand.input(0), at, site.target, first_scratch=1
    )
    index = index_dtype(count).type
    kernel = Kernel("hardmax", "hardmax.cu", (("MI_T", c_type(dtype)), ("MI_INDEX", index_name(count))))
    one = np.ones((1,), numpy_dtype(dtype))
    arguments = (at, Operand.output(0), index(count), index(length), index(inner), one)
    launch = launch_over(kernel, count, arguments, site.target.multiprocessors)
    return Lowered((*stages.actions, launch), (4 * outer * inner, *stages.scratch), in_place={0: (0,)}, tactic="reduce")


def around_axis(shape: tuple[int, ...], axis: int) -> tuple[int, int, int]:
    """Elements before, along and behind ``axis``; a scalar is a row of one."""
    if not shape:
        return 1, 1, 1
    axis %= len(shape)
    return math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])


def _by_sums(site: Site) -> Lowered:
    shape, dtype = site.shape(0), site.dtype()
    axis = site.attr("axis", -1) % len(shape)
    x, sums = Operand.input(0), Operand.scratch(0)
    what = exp_sums(dtype)
    stages = reduce_actions(what, shape, (axis,), x, sums, site.target, first_scratch=1)
    how = LOG_SOFTMAX if site.node.op == "LogSoftmax" else SOFTMAX
    launch = normalize_by(how, x, Operand.output(0), (dtype, dtype), shape, (axis,), sums, real_dtype(dtype), site.target)
    results = math.prod(shape) // shape[axis]
    return Lowered(
        (*stages.actions, launch),
        (results * 2 * element_nbytes(real_dtype(dtype)), *stages.scratch),
        in_place={0: (0,)},
    )

"""Softmax, LogSoftmax, Hardmax."""

import math

import numpy as np

from miniinfer_cli.backends.cuda.grids import index_dtype, index_name, launch_over, load_width, power_of_two_from
from miniinfer_cli.backends.cuda.launching.normalizing import LOG_SOFTMAX, SOFTMAX, exp_sums, normalize_by, real_dtype
from miniinfer_cli.backends.cuda.launching.reductions import reduce_actions
from miniinfer_cli.backends.cuda.launching.row_groups import row_groups
from miniinfer_cli.backends.cuda.lowering.arg_reduction import arg_reduction
from miniinfer_cli.backends.cuda.site import Site, lowers
from miniinfer_cli.backends.cuda.steps import Kernel, Launch, Lowered, Operand
from miniinfer_cli.backends.cuda.types import HOST_ONLY, c_type, computed_type, element_nbytes
from miniinfer_cli.ir import numpy_dtype

_COLUMN_BLOCK = 256


@lowers("Softmax", "LogSoftmax")
def lower_softmax(site: Site) -> Lowered | None:
    """Rows in registers, or columns; a reduction and another pass where the results of either would not fill the device."""
    shape, dtype = site.shape(0), site.dtype()
    if not dtype.is_float:
        return None
    outer, length, inner = around_axis(shape, site.attr("axis", -1))
    count = outer * length * inner
    if count == 0:
        return Lowered(())
    is_log = site.node.op == "LogSoftmax"
    nbytes, device = element_nbytes(dtype), site.target
    index = index_dtype(count).type
    common = (("MI_T", c_type(dtype)), ("MI_LOG", str(int(is_log))), ("MI_INDEX", index_name(count)))
    x, y = Operand.input(0), Operand.output(0)
    groups = row_groups(outer, length, nbytes, device) if inner == 1 else None
    if groups is not None:
        defines = (*common, ("MI_N", str(groups.width)), ("MI_PACKS", str(groups.loads)))
        kernel = Kernel("softmax_rows", "softmax_rows.cu", defines)
        launch = Launch(kernel, groups.grid(outer), groups.block, (x, y, index(outer), np.int32(groups.packs)))
        return Lowered((launch,), in_place={0: (0,)}, tactic="rows")
    width = load_width(inner, nbytes, 4)
    columns = outer * inner // width
    if length >= 1024 and columns * 32 < device.multiprocessors * 1024:
        return _by_sums(site, is_log)
    across = 1
    while (
        across * 2 * min(columns, 32) <= _COLUMN_BLOCK
        and across * 4 < length
        and columns * across < device.multiprocessors * 1024
    ):
        across *= 2
    along = max(32 // across, min(_COLUMN_BLOCK // across, power_of_two_from(columns)))
    part = 16 if computed_type(dtype) == "f64" else 8
    kernel = Kernel("softmax_columns", "softmax_columns.cu", (*common, ("MI_N", str(width))))
    arguments = (x, y, index(columns), index(length), index(inner))
    shared = along * across * width * part if across > 1 else 0
    launch = Launch(kernel, (-(-columns // along),), (along, across), arguments, shared)
    return Lowered((launch,), in_place={0: (0,)}, tactic="columns")


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


def _by_sums(site: Site, is_log: bool) -> Lowered:
    shape, dtype = site.shape(0), site.dtype()
    axis = site.attr("axis", -1) % len(shape)
    x, sums = Operand.input(0), Operand.scratch(0)
    what = exp_sums(dtype)
    stages = reduce_actions(what, shape, (axis,), x, sums, site.target, first_scratch=1)
    how = LOG_SOFTMAX if is_log else SOFTMAX
    launch = normalize_by(how, x, Operand.output(0), (dtype, dtype), shape, (axis,), sums, real_dtype(dtype), site.target)
    results = math.prod(shape) // shape[axis]
    return Lowered(
        (*stages.actions, launch),
        (results * 2 * element_nbytes(real_dtype(dtype)), *stages.scratch),
        in_place={0: (0,)},
        tactic="sums",
    )

"""BatchNormalization, InstanceNormalization, GroupNormalization, MeanVarianceNormalization."""

import math
from functools import partial

import numpy as np

from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import NULL, Kernel, Launch, Lowered, Operand
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.types import c_type, element_nbytes
from miniinfer_cli.backends.cuda.launching.grids import BLOCK, blocks_for, index_dtype, index_name, launch_over, load_width
from miniinfer_cli.backends.cuda.tactics.normalization.normalizing import (
    BY_DEVIATION,
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

_MVN_EPSILON = 1e-9  # of the function body in ONNX's schema
_X, _Y = Operand.input(0), Operand.output(0)


@lowers("InstanceNormalization", "GroupNormalization")
def lower_group_normalization(site: Site) -> Lowered | tuple[Tactic, ...]:
    """A group of a sample is a row: in registers, or by statistics made before where it is long."""
    shape, dtype = site.shape(0), site.dtype()
    if math.prod(shape) == 0:
        return Lowered(())
    groups = site.attr("num_groups", shape[1])
    real = real_dtype(dtype_of_code(site.attr("stash_type", 1)) if site.node.op == "GroupNormalization" else dtype)
    inner = math.prod(shape[2:])
    rows, length = shape[0] * groups, shape[1] // groups * inner
    ways = row_ways(rows, length, element_nbytes(dtype), site.target, multiple=inner)
    view = (shape[0], groups, shape[1] // groups, inner)
    return normalization_tactics(
        site,
        ways,
        lambda way: Lowered((_rows(site, rows, groups, way, real, inner),), in_place=in_place(site)),
        partial(group_by_statistics, site, view, (2, 3), 1, real),
    )


def group_by_statistics(site: Site, shape: tuple[int, ...], axes: tuple[int, ...], group_axis: int, real: DType) -> Lowered:
    """Input 0, seen as ``shape``, normalized over ``axes``; the scale and the bias run over ``group_axis`` and a later axis.

    That later one is the first of ``axes`` behind the group's.
    """
    dtype, statistics = site.dtype(), Operand.scratch(0)
    what = moments(dtype, real)
    stages = reduce_actions(what, shape, axes, _X, statistics, site.target, first_scratch=1)
    channel_axis = min(a for a in axes if a > group_axis)
    strides = tuple(shape[channel_axis] if a == group_axis else int(a == channel_axis) for a in range(len(shape)))
    scale, bias = (Affine(Operand.input(i), site.dtype(i), strides) for i in (1, 2))
    last = normalize_by(
        BY_VARIANCE,
        _X,
        _Y,
        (dtype, dtype),
        shape,
        axes,
        statistics,
        real,
        site.target,
        epsilon=site.attr("epsilon", 1e-5),
        scale=scale,
        bias=bias,
    )
    kept = math.prod(d for a, d in enumerate(shape) if a not in axes)
    scratch = (kept * 2 * element_nbytes(real), *stages.scratch)
    return Lowered((*stages.actions, last), scratch, in_place=in_place(site), tactic="statistics")


def _rows(site: Site, rows: int, groups: int, ways: RowGroups, real: DType, inner: int) -> Launch[Operand]:
    count = math.prod(site.shape(0))
    defines = (
        ("MI_T", c_type(site.dtype())),
        ("MI_Y", c_type(site.dtype())),
        ("MI_SCALE", c_type(site.dtype(1))),
        ("MI_BIAS", c_type(site.dtype(2))),
        ("MI_F", c_type(real)),
        ("MI_W", c_type(real_dtype(site.dtype()))),
        ("MI_BY_CHANNEL", "1"),
        ("MI_N", str(ways.width)),
        ("MI_PACKS", str(ways.loads)),
        ("MI_INDEX", index_name(count)),
    )
    index = index_dtype(count).type
    arguments = (
        _X,
        _Y,
        Operand.input(1),
        Operand.input(2),
        NULL,
        NULL,
        index(rows),
        np.int32(ways.packs),
        np.float64(site.attr("epsilon", 1e-5)),
        index(groups),
        np.int32(inner // ways.width),
    )
    return Launch(Kernel("normalize_rows", "normalize.cu", defines), ways.grid(rows), ways.block, arguments)


@lowers("MeanVarianceNormalization")
def lower_mean_variance_normalization(site: Site) -> Lowered | None:
    """Statistics over the axes, then each element by them."""
    shape, dtype = site.shape(0), site.dtype()
    if math.prod(shape) == 0:
        return Lowered(())
    axes = tuple({int(a) % len(shape) for a in site.attr("axes", (0, 2, 3))})
    real, statistics = real_dtype(dtype), Operand.scratch(0)
    what = moments(dtype, real)
    stages = reduce_actions(what, shape, axes, _X, statistics, site.target, first_scratch=1)
    last = normalize_by(BY_DEVIATION, _X, _Y, (dtype, dtype), shape, axes, statistics, real, site.target, epsilon=_MVN_EPSILON)
    kept = math.prod(d for a, d in enumerate(shape) if a not in axes)
    scratch = (kept * 2 * element_nbytes(real), *stages.scratch)
    return Lowered((*stages.actions, last), scratch, in_place=in_place(site), tactic="statistics")


@lowers("BatchNormalization")
def lower_batch_normalization(site: Site) -> Lowered | None:
    """A factor and a shift for each channel; in training mode from statistics of the batch, which update the running ones."""
    shape, dtype = site.shape(0), site.dtype()
    channels = shape[1] if len(shape) > 1 else 1
    inner = math.prod(shape[2:]) if len(shape) > 1 else math.prod(shape)
    count = math.prod(shape)
    training = bool(site.attr("training_mode", 0))
    if channels == 0 or (count == 0 and not training):
        return Lowered(())
    real = DType.F64 if DType.F64 in [site.dtype(i) for i in range(5)] else DType.F32
    index = index_dtype(count).type
    common = (
        ("MI_SCALE", c_type(site.dtype(1))),
        ("MI_BIAS", c_type(site.dtype(2))),
        ("MI_MEAN", c_type(real if training else site.dtype(3))),
        ("MI_VARIANCE", c_type(real if training else site.dtype(4))),
        ("MI_RUNNING_MEAN", c_type(site.dtype(3))),
        ("MI_RUNNING_VARIANCE", c_type(site.dtype(4))),
        ("MI_T", c_type(dtype)),
        ("MI_F", c_type(real)),
        ("MI_INDEX", index_name(count)),
    )
    actions: list[Launch[Operand]] = []
    scratch: tuple[int, ...] = ()
    mean, variance = Operand.input(3), Operand.input(4)
    if training:
        statistics = Operand.scratch(0)
        shape3, axes = (shape[0] if len(shape) > 1 else 1, channels, inner), (0, 2)
        stages = reduce_actions(moments(dtype, real), shape3, axes, _X, statistics, site.target, first_scratch=1)
        actions += [a for a in stages.actions if isinstance(a, Launch)]
        scratch = (channels * 2 * element_nbytes(real), *stages.scratch)
        if site.gives(1):
            outs = (site.result(1), site.result(2))
            running = (statistics, mean, variance, *outs, index(channels), np.float64(site.attr("momentum", 0.9)))
            kernel = Kernel("update_running", "batch_normalize.cu", (*common, ("MI_N", "1")))
            actions.append(launch_over(kernel, channels, running, site.target.multiprocessors))
        mean, variance = statistics, Operand.scratch(0, element_nbytes(real))
    if count == 0:
        return Lowered(tuple(actions), scratch, tactic="training")
    width = load_width(inner, element_nbytes(dtype))
    kernel = Kernel("batch_normalize", "batch_normalize.cu", (*common, ("MI_N", str(width))))
    arguments = (
        _X,
        _Y,
        Operand.input(1),
        Operand.input(2),
        mean,
        variance,
        np.int32(2 if training else 1),
        index(count),
        index(channels),
        index(inner),
        np.float64(site.attr("epsilon", 1e-5)),
    )
    actions.append(Launch(kernel, (blocks_for(count, site.target.multiprocessors, width),), (BLOCK,), arguments))
    return Lowered(tuple(actions), scratch, in_place=in_place(site), tactic="training" if training else "channels")

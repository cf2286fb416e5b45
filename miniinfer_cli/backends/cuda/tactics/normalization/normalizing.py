"""Launches that normalize a tensor by statistics over some of its axes, which a reduction left before: normalize_by.cu."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.cuda.contract.estimating import default_estimate, elements, nbytes
from miniinfer_cli.backends.cuda.contract.site import Site
from miniinfer_cli.backends.cuda.contract.steps import NULL, Argument, Kernel, Launch, Lowered, Operand
from miniinfer_cli.backends.cuda.contract.strides import broadcast_strides, merge_axes, row_major
from miniinfer_cli.backends.cuda.contract.tactic import Tactic, tactic_of
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.types import c_type, element_nbytes
from miniinfer_cli.backends.cuda.launching.grids import BLOCK, blocks_for, index_dtype, index_name, load_width
from miniinfer_cli.backends.cuda.launching.strided_copy import compiled_rank
from miniinfer_cli.backends.cuda.tactics.normalization.row_groups import RowGroups
from miniinfer_cli.backends.cuda.tactics.reduction.reductions import Reduction
from miniinfer_cli.ir import DType

BY_VARIANCE, BY_DEVIATION, BY_NORM, SOFTMAX, LOG_SOFTMAX = range(5)
"""MI_HOW of normalize_by.cu."""

SOFTMAX_FLOPS = 5
"""Operations of a softmax for each element: the highest, the difference, its exponential, the sum, the quotient."""
NORMALIZATION_FLOPS = 8
"""Operations of a normalization for each element: mean, distance, square, variance, quotient, scale, bias."""


@dataclass(frozen=True, slots=True)
class Affine:
    """A scale or a bias: where it is, its type, and its strides over the axes that are normalized."""

    operand: Operand
    dtype: DType
    strides: tuple[int, ...]


def real_dtype(dtype: DType) -> DType:
    """What statistics of ``dtype`` are computed in: f64 for itself, f32 for every narrower float."""
    return DType.F64 if dtype is DType.F64 else DType.F32


def in_place(site: Site) -> dict[int, tuple[int, ...]]:
    """Output 0 may overwrite input 0, unless that is another operand too, which is read while the output is written."""
    return {} if site.node.inputs[0] in site.node.inputs[1:] else {0: (0,)}


def moments(dtype: DType, real: DType, *, centred: bool = True) -> Reduction:
    """Mean and variance (0 and the mean of squares when not ``centred``) as a pair of ``real``."""
    kind = ("Moments" if centred else "Squares") + real.value.upper()
    part = element_nbytes(real) * (3 if centred else 1)
    return Reduction(kind, c_type(dtype), element_nbytes(dtype), f"Pack<{real}, 2>", part)


def exp_sums(dtype: DType) -> Reduction:
    """The maximum and log(sum(exp(x - maximum))) as a pair."""
    real = real_dtype(dtype)
    return Reduction("LogSumExpParts", c_type(dtype), element_nbytes(dtype), f"Pack<{real}, 2>", 2 * element_nbytes(real))


def normalization_tactics(
    site: Site,
    ways: Sequence[RowGroups],
    by_rows: Callable[[RowGroups], Lowered],
    by_statistics: Callable[[], Lowered],
) -> tuple[Tactic, ...]:
    """Rows in registers, in these ways; then statistics and another pass, which reads the input twice."""
    moved = default_estimate(site)
    once = replace(moved, flops=NORMALIZATION_FLOPS * elements(site.types[0]))
    twice = once + Estimate(0, nbytes(site.types[0]))
    return (
        *(tactic_of(groups.key, partial(by_rows, groups), once) for groups in ways),
        tactic_of("statistics", by_statistics, twice),
    )


def normalize_by(
    how: int,
    x: Operand,
    y: Operand,
    types: tuple[DType, DType],
    shape: Sequence[int],
    axes: Sequence[int],
    statistics: Operand,
    real: DType,
    target: Target,
    *,
    epsilon: float = 0.0,
    scale: Affine | None = None,
    bias: Affine | None = None,
) -> Launch[Operand]:
    """``y`` from ``x`` of ``shape``, not empty, and the ``statistics``, in ``real``, of each place along the other axes.

    ``types``: of x and y.
    """
    kept = [1 if i in set(axes) else d for i, d in enumerate(shape)]
    zeros = (0,) * len(shape)
    merged, strides = merge_axes(
        shape,
        row_major(shape),
        broadcast_strides(kept, shape),
        scale.strides if scale else zeros,
        bias.strides if bias else zeros,
    )
    count = math.prod(shape)
    index = index_dtype(count)
    rank = compiled_rank(len(merged))
    sizes = [1] * (rank - len(merged)) + list(merged)
    width = load_width(sizes[-1], max(element_nbytes(t) for t in types))
    wide = real_dtype(types[1])
    defines = (
        ("MI_HOW", str(how)),
        ("MI_T", c_type(types[0])),
        ("MI_Y", c_type(types[1])),
        ("MI_F", c_type(real)),
        ("MI_W", c_type(wide)),
        ("MI_SCALE", c_type(scale.dtype if scale else wide)),
        ("MI_BIAS", c_type(bias.dtype if bias else wide)),
        ("MI_N", str(width)),
        ("MI_RANK", str(rank)),
        ("MI_INDEX", index_name(count)),
    )
    walks = (np.array([0] * (rank - len(merged)) + list(s), index) for s in strides[1:])
    arguments: tuple[Argument, ...] = (
        x,
        y,
        statistics,
        scale.operand if scale else NULL,
        bias.operand if bias else NULL,
        index.type(count),
        np.float64(epsilon),
        np.array(sizes, index),
        *walks,
    )
    grid = (blocks_for(count, target.multiprocessors, width),)
    return Launch(Kernel("normalize_by", "normalize_by.cu", defines), grid, (BLOCK,), arguments)

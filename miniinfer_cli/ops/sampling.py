"""Sampling at given places: GridSample, and AffineGrid, which makes its grids."""

import itertools
import math

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, TensorType
from miniinfer_cli.ops.inference import UNKNOWN
from miniinfer_cli.ops.interpolation import cubic_kernel, round_to, working_type
from miniinfer_cli.ops.numerics import widen_half
from miniinfer_cli.ops.operands import count_of, dims_of, to_ints
from miniinfer_cli.ops.registry import define
from miniinfer_cli.ops.shapes import expect_rank, same_dim
from miniinfer_cli.ops.work import CALL, Attrs, Inputs, Outputs, elements

_CUBIC_A = -0.75
_FAR = float(1 << 30)  # coordinates beyond this are as good as infinite, and still fit an integer

# -- GridSample --------------------------------------------------------------------------------------------------------


def infer_grid_sample(
    x: TensorType, grid: TensorType, *, align_corners: int = 0, mode: str = "linear", padding_mode: str = "zeros"
) -> TensorType:
    """[N, C, D1_out ... Dr_out] from ``x`` [N, C, D1 ... Dr] and ``grid`` [N, D1_out ... Dr_out, r]."""
    if mode not in ("linear", "nearest", "cubic"):
        raise ModelError(f"GridSample mode {mode!r} is not one of linear, nearest, cubic")
    if padding_mode not in ("zeros", "border", "reflection"):
        raise ModelError(f"GridSample padding_mode {padding_mode!r} is not one of zeros, border, reflection")
    rank = x.rank if x.rank is not None else grid.rank
    if rank is None:
        return TensorType(x.dtype)
    if rank < 3 or (grid.rank is not None and grid.rank != rank):
        raise ModelError(f"GridSample: input {x} and grid {grid} should have the same rank, 3 or more")
    source = x.shape or (UNKNOWN,) * rank
    places = grid.shape or (UNKNOWN,) * rank
    same_dim("GridSample", f"coordinates of grid {grid} for the spatial axes of {x}", places[-1], rank - 2)
    batch = same_dim("GridSample", f"batch of input {x} and grid {grid}", source[0], places[0])
    return TensorType(x.dtype, (batch, source[1], *places[1:-1]))


def grid_sample(x: Array, grid: Array, *, align_corners: int = 0, mode: str = "linear", padding_mode: str = "zeros") -> Array:
    """``x`` read at the places in ``grid``, whose last axis holds coordinates in [-1, 1], innermost axis first.

    Source: ONNX GridSample-22.
    """
    n, channels, *sizes = x.shape
    outs = grid.shape[1:-1]
    wide = working_type(x)
    # Channels last: each place then reads one contiguous run.
    pixels = np.moveaxis(x, 1, -1).reshape(n * math.prod(sizes), channels).astype(wide, copy=False)
    out = np.zeros((n * math.prod(outs), channels), wide)
    if out.size and pixels.size:
        taps = [
            _taps(grid[..., len(sizes) - 1 - i].astype(wide, copy=False), size, bool(align_corners), mode, padding_mode)
            for i, size in enumerate(sizes)
        ]
        first = np.arange(n).reshape(-1, *[1] * len(outs))
        for corner in itertools.product(range(len(taps[0])), repeat=len(sizes)):
            index: Array = first
            weight = np.ones((1,) * grid[..., 0].ndim, wide)
            for axis, k in enumerate(corner):
                place, factor = taps[axis][k]
                index, weight = index * sizes[axis] + place, weight * factor
            out += np.take(pixels, index.reshape(-1), axis=0) * weight.reshape(-1, 1)
    return round_to(np.moveaxis(out.reshape(n, *outs, channels), -1, 1), x.dtype, np.trunc)


def _taps(coordinate: Array, size: int, align_corners: bool, mode: str, padding_mode: str) -> list[tuple[Array, Array]]:
    """The elements of one axis around each normalised coordinate, each as (index within the axis, weight)."""
    place = (coordinate + 1) / 2 * (size - 1) if align_corners else ((coordinate + 1) * size - 1) / 2
    place = np.clip(np.nan_to_num(place, nan=-_FAR), -_FAR, _FAR)
    if mode == "nearest":
        place = np.rint(place)
    base = np.floor(place).astype(np.int64)
    part = place - base
    if mode == "nearest":
        found = [(base, np.ones_like(place))]
    elif mode == "linear":
        found = [(base, 1 - part), (base + 1, part)]
    else:
        found = [(base + k, cubic_kernel(np.abs(part - k), _CUBIC_A)) for k in (-1, 0, 1, 2)]
    return [_inside(index, weight, size, align_corners, padding_mode) for index, weight in found]


def _inside(index: Array, weight: Array, size: int, align_corners: bool, padding_mode: str) -> tuple[Array, Array]:
    if padding_mode == "zeros":
        weight = np.where((index >= 0) & (index < size), weight, 0)
    elif padding_mode == "reflection" and align_corners:  # about the centers of the end elements
        index = (size - 1) - np.abs(index % max(2 * (size - 1), 1) - (size - 1))
    elif padding_mode == "reflection":  # about their outer edges
        index = index % (2 * size)
        index = np.where(index < size, index, 2 * size - 1 - index)
    return np.clip(index, 0, size - 1), weight


# -- AffineGrid --------------------------------------------------------------------------------------------------------


def infer_affine_grid(theta: TensorType, size: TensorType, *, align_corners: int = 0) -> TensorType:
    """[N, H, W, 2] for ``theta`` [N, 2, 3], or [N, D, H, W, 3] for [N, 3, 4]; the sizes are those the operand holds."""
    dims, count = dims_of(size), count_of("AffineGrid size", size)
    if count is not None and count < 3:
        raise ModelError(f"AffineGrid size has {count} elements: a batch, channels and the sides of the grid are expected")
    if theta.shape is not None:
        expect_rank("AffineGrid theta", theta, 3)
        rows, columns = theta.shape[1:]
        spatial = (
            same_dim("AffineGrid", f"rows of theta {theta} for a size of {count} elements", count - 2, rows) if count else rows
        )
        same_dim("AffineGrid", f"columns of theta {theta}", columns, spatial + 1)
        count = spatial + 2 if isinstance(spatial, int) else None
    if count is None:
        return TensorType(theta.dtype)
    batch = theta.shape[0] if theta.shape is not None else UNKNOWN if dims is None else dims[0]
    return TensorType(theta.dtype, (batch, *((UNKNOWN,) * (count - 2) if dims is None else dims[2:]), count - 2))


@widen_half
def affine_grid(theta: Array, size: Array, *, align_corners: int = 0) -> Array:
    """Evenly spaced places in [-1, 1], each mapped by its sample's matrix; coordinates innermost axis first.

    Source: ONNX AffineGrid-20.
    """
    sizes = to_ints(size)[2:]
    rank = len(sizes)
    grid = theta[:, :, rank].reshape(-1, *[1] * rank, rank)
    for axis, count in enumerate(sizes):
        steps = np.arange(count, dtype=theta.dtype)
        if align_corners:
            places = 2 * steps / (count - 1) - 1 if count > 1 else np.zeros(count, theta.dtype)
        else:
            places = (2 * steps + 1) / count - 1
        column = theta[:, :, rank - 1 - axis].reshape(-1, *[1] * rank, rank)
        grid = grid + places.reshape([-1 if i == axis + 1 else 1 for i in range(rank + 2)]).astype(theta.dtype) * column
    return grid


def _work(inputs: Inputs, outputs: Outputs, attrs: Attrs) -> int:
    """Each place reads 1, 2 or 4 elements along each axis, in every combination."""
    x, grid = inputs
    if x is None or grid is None:
        return 0
    taps = {"nearest": 1, "linear": 2}.get(attrs.get("mode", "linear"), 4)
    return int(taps ** (x.ndim - 2)) * (100 * CALL + 20 * grid.size + 8 * elements(outputs[0]))


GRID_SAMPLE = define("GridSample", infer=infer_grid_sample, reference=grid_sample, work=_work)
AFFINE_GRID = define("AffineGrid", infer=infer_affine_grid, reference=affine_grid, shape_operands=(1,))

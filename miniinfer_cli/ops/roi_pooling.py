"""Pooling inside regions of interest: RoiAlign, MaxRoiPool."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, Dim, TensorType
from miniinfer_cli.ops.budget import static_shape
from miniinfer_cli.ops.inference import UNKNOWN
from miniinfer_cli.ops.numerics import widen_half
from miniinfer_cli.ops.operands import to_indices
from miniinfer_cli.ops.registry import define
from miniinfer_cli.ops.shapes import expect_rank, same_dim
from miniinfer_cli.ops.work import CALL, NEVER, Attrs, Inputs, Outputs, volume

# -- RoiAlign ----------------------------------------------------------------------------------------------------------


def infer_roi_align(
    x: TensorType,
    rois: TensorType,
    batch_indices: TensorType,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> TensorType:
    """[regions, C, output_height, output_width] from ``x`` [N, C, H, W] and ``rois`` [regions, 4]."""
    if mode not in ("avg", "max"):
        raise ModelError(f"RoiAlign mode {mode!r} is neither avg nor max")
    if coordinate_transformation_mode not in ("half_pixel", "output_half_pixel"):
        raise ModelError(f"RoiAlign coordinate_transformation_mode {coordinate_transformation_mode!r} is not known")
    count = _count_regions("RoiAlign", x, rois, 4)
    expect_rank("RoiAlign batch_indices", batch_indices, 1)
    if batch_indices.shape is not None:
        count = same_dim("RoiAlign", f"regions of {rois} and {batch_indices}", count, batch_indices.shape[0])
    return TensorType(x.dtype, (count, UNKNOWN if x.shape is None else x.shape[1], output_height, output_width))


@widen_half
def roi_align(
    x: Array,
    rois: Array,
    batch_indices: Array,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Array:
    """The mean, or the maximum, of samples interpolated on a regular grid in each bin of each region (x1, y1, x2, y2).

    A maximum is taken over the weighted neighbours of the samples, as in ONNX's reference. Source: ONNX RoiAlign-22.
    """
    half = coordinate_transformation_mode == "half_pixel"
    corners = rois * np.asarray(spatial_scale, rois.dtype) - np.asarray(0.5 if half else 0, rois.dtype)
    images = to_indices("RoiAlign", batch_indices, x.shape[0], what="batch index")
    out = np.zeros((len(rois), x.shape[1], output_height, output_width), x.dtype)
    for i, (x1, y1, x2, y2) in enumerate(corners.tolist()):
        rows = _samples(y1, y2, output_height, x.shape[2], sampling_ratio, not half)
        columns = _samples(x1, x2, output_width, x.shape[3], sampling_ratio, not half)
        if rows.per_bin > 0 and columns.per_bin > 0:
            pool = _mean if mode == "avg" else _maximum
            out[i] = pool(x[images[i]], rows, columns)
    return out


@dataclass(frozen=True, slots=True)
class _Samples:
    """Sample places along one axis of a region: the neighbours on both sides of each, and their weights, [bins * per_bin].

    A sample outside the image weighs nothing.
    """

    per_bin: int
    low: Array
    high: Array
    low_weight: Array
    high_weight: Array

    def matrix(self, size: int, dtype: np.dtype[np.generic]) -> tuple[slice, Array]:
        """The part of the axis that is read, and the means of the bins as a matrix [bins, part] over it."""
        first, last = int(self.low.min()), int(self.high.max()) + 1
        bins = np.arange(self.low.size) // self.per_bin
        means = np.zeros((self.low.size // self.per_bin, last - first))
        np.add.at(means, (bins, self.low - first), self.low_weight / self.per_bin)
        np.add.at(means, (bins, self.high - first), self.high_weight / self.per_bin)
        return slice(first, last), means.astype(dtype)


def _samples(start: float, end: float, bins: int, size: int, ratio: int, at_least_one: bool) -> _Samples:
    length = max(end - start, 1.0) if at_least_one else end - start
    per_bin = ratio if ratio > 0 else max(math.ceil(length / bins), 0)
    places = start + (np.arange(bins * per_bin) + 0.5) * length / (bins * max(per_bin, 1))
    inside = (places >= -1) & (places <= size)
    places = np.clip(places, 0, size - 1)
    low = places.astype(np.intp)
    high = np.minimum(low + 1, size - 1)
    part = places - low
    return _Samples(per_bin, low, high, (1 - part) * inside, part * inside)


def _mean(image: Array, rows: _Samples, columns: _Samples) -> Array:
    row_part, row_means = rows.matrix(image.shape[1], image.dtype)
    column_part, column_means = columns.matrix(image.shape[2], image.dtype)
    result: Array = row_means @ (image[:, row_part, column_part] @ column_means.T)
    return result


def _maximum(image: Array, rows: _Samples, columns: _Samples) -> Array:
    best: Array | None = None
    for row, row_weight in ((rows.low, rows.low_weight), (rows.high, rows.high_weight)):
        for column, column_weight in ((columns.low, columns.low_weight), (columns.high, columns.high_weight)):
            weights = (row_weight[:, None] * column_weight).astype(image.dtype)
            values = image[:, row[:, None], column] * weights
            best = values if best is None else np.maximum(best, values)
    bins = rows.low.size // rows.per_bin, columns.low.size // columns.per_bin
    result: Array = np.asarray(best).reshape(image.shape[0], bins[0], rows.per_bin, bins[1], columns.per_bin).max(axis=(2, 4))
    return result


# -- MaxRoiPool --------------------------------------------------------------------------------------------------------


def infer_max_roi_pool(x: TensorType, rois: TensorType, *, pooled_shape: Sequence[int], spatial_scale: float = 1.0) -> TensorType:
    """[regions, C, *pooled_shape] from ``x`` [N, C, H, W] and ``rois`` [regions, 5]."""
    if len(pooled_shape) != 2 or min(pooled_shape) < 1:
        raise ModelError(f"MaxRoiPool pooled_shape {list(pooled_shape)} is not a height and a width")
    count = _count_regions("MaxRoiPool", x, rois, 5)
    return TensorType(x.dtype, (count, UNKNOWN if x.shape is None else x.shape[1], *pooled_shape))


@widen_half
def max_roi_pool(x: Array, rois: Array, *, pooled_shape: Sequence[int], spatial_scale: float = 1.0) -> Array:
    """The maximum of each bin of each region (batch index, x1, y1, x2, y2); 0 for a bin outside the image.

    Corners are rounded to whole elements, both ends included. Source: ONNX MaxRoiPool-22.
    """
    images = to_indices("MaxRoiPool", rois[:, 0], x.shape[0], what="batch index")
    corners = _round_away(rois[:, 1:] * np.asarray(spatial_scale, rois.dtype)).astype(np.int64)
    out = np.zeros((len(rois), x.shape[1], *pooled_shape), x.dtype)
    for i, (x1, y1, x2, y2) in enumerate(corners.tolist()):
        image = x[images[i]]
        rows = _bins(y1, y2, pooled_shape[0], image.shape[1])
        columns = _bins(x1, x2, pooled_shape[1], image.shape[2])
        for r, (top, bottom) in enumerate(rows):
            if bottom > top:
                line = image[:, top:bottom].max(axis=1)
                for c, (left, right) in enumerate(columns):
                    if right > left:
                        out[i, :, r, c] = line[:, left:right].max(axis=1)
    return out


def _bins(start: int, end: int, count: int, size: int) -> list[tuple[int, int]]:
    length = max(end - start + 1, 1)
    return [
        (min(max(start + i * length // count, 0), size), min(max(start - (-(i + 1) * length // count), 0), size))
        for i in range(count)
    ]


def _round_away(x: Array) -> Array:
    """Rounds to whole numbers, halves away from zero, as C's ``round`` does."""
    result: Array = np.trunc(x + np.copysign(np.asarray(0.5, x.dtype), x))
    return result


def _count_regions(op: str, x: TensorType, rois: TensorType, width: int) -> Dim:
    expect_rank(op, x, 4)
    expect_rank(f"{op} rois", rois, 2)
    if rois.shape is None:
        return UNKNOWN
    same_dim(op, f"coordinates of rois {rois}", rois.shape[1], width)
    return rois.shape[0]


def _roi_align_work(inputs: Inputs, outputs: Outputs, attrs: Attrs) -> int:
    """Samples along both axes of every bin, as many as a region is long where no ratio is given, and products over the image."""
    x, rois = inputs[:2]
    bins = static_shape(outputs[0].shape)
    if x is None or rois is None or bins is None or not rois.size:
        return 0
    longest = float(np.abs(rois.astype(np.float64)).max()) * 2 * abs(attrs.get("spatial_scale", 1.0)) + 1
    if not longest < NEVER:
        return NEVER
    ratio = attrs.get("sampling_ratio", 0)
    rows, columns = (n * ratio if ratio > 0 else math.ceil(longest) + n for n in bins[2:])
    pool = x.shape[2] * x.shape[3] * bins[3] if attrs.get("mode", "avg") == "avg" else 180 * rows * columns
    result: int = len(rois) * (40 * CALL + 600 * (rows + columns) + x.shape[1] * pool)
    return result


def _max_roi_pool_work(inputs: Inputs, outputs: Outputs, attrs: Attrs) -> int:
    """A call for each bin of each region."""
    x, rois = inputs
    if x is None or rois is None:
        return 0
    return len(rois) * (10 * CALL + math.prod(x.shape[1:]) * 4 + CALL * volume(static_shape(outputs[0].shape) or ()))


ROI_ALIGN = define("RoiAlign", infer=infer_roi_align, reference=roi_align, work=_roi_align_work, heavy=True)
MAX_ROI_POOL = define("MaxRoiPool", infer=infer_max_roi_pool, reference=max_roi_pool, work=_max_roi_pool_work, heavy=True)

"""Interpolation along one axis at a time: source coordinates, taps with weights, and their application (for Resize)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array

COORDINATE_MODES = (
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_crop_and_resize",
    "tf_half_pixel_for_nn",
)  # fmt: skip
NEAREST_MODES = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")

_BLOCK = 1 << 18  # elements of the result that are worked on at once, so that they stay in the cache


@dataclass(frozen=True, slots=True)
class Stretch:
    """How one axis is resized: from ``size`` to ``out`` elements, by ``scale``, over the part ``roi`` of it."""

    size: int
    out: int
    scale: Fraction
    roi: tuple[float, float]

    def coordinates(self, mode: str) -> Array:
        """Where each element of the result lies among the sources, f64 [out]."""
        x = np.arange(self.out, dtype=np.float64)
        if not self.size:  # nothing to lie among, and nothing asked for
            return x
        # Multiply before dividing: a coordinate that is a whole number then comes out as one.
        up, down = float(self.scale.numerator), float(self.scale.denominator)
        if mode == "asymmetric":
            return x * down / up
        if mode == "align_corners":
            length = self.size * up / down
            return np.zeros(self.out) if length == 1 else x * (self.size - 1) / (length - 1)
        if mode == "tf_crop_and_resize":
            start, end = self.roi
            if self.out == 1:
                return np.full(1, 0.5 * (start + end) * (self.size - 1))
            return start * (self.size - 1) + x * (end - start) * (self.size - 1) / (self.out - 1)
        if mode == "pytorch_half_pixel" and self.out == 1:
            return np.zeros(1)
        if mode == "tf_half_pixel_for_nn":
            # Of opset 11 only: half a pixel above half_pixel. As in ONNX Runtime an axis that keeps its size is left alone.
            return x if self.scale == 1 else (x + 0.5) * down / up
        centers = (x + 0.5) * down / up - 0.5
        if mode == "half_pixel_symmetric":
            adjustment = self.out / (self.size * up / down)
            return self.size / 2 * (1 - adjustment) + centers
        return centers


def exact_scale(scale: float, size: int, out: int) -> Fraction:
    """The ratio that was meant by a scale rounded to f32: out/size, or one of small numbers, where it rounds to the same."""
    rounded = np.float32(scale)
    for candidate in (Fraction(out, size) if size else Fraction(1), small_ratio(scale)):
        if candidate is not None and np.float32(float(candidate)) == rounded:
            return candidate
    return Fraction(float(rounded))


def small_ratio(scale: float) -> Fraction | None:
    """The ratio of two small numbers that rounds to ``scale`` in f32; None when there is none."""
    ratio = Fraction(float(scale)).limit_denominator(256)
    return ratio if np.float32(float(ratio)) == np.float32(scale) else None


def nearest_taps(coordinates: Array, size: int, rounding: str) -> Array:
    """The source element nearest to each coordinate, i64 within [0, size)."""
    if rounding == "round_prefer_floor":
        nearest = np.ceil(coordinates - 0.5)
    elif rounding == "round_prefer_ceil":
        nearest = np.floor(coordinates + 0.5)
    else:
        nearest = np.floor(coordinates) if rounding == "floor" else np.ceil(coordinates)
    return np.clip(nearest, 0, size - 1).astype(np.intp)


def weighted_taps(
    coordinates: Array, size: int, scale: float, *, mode: str, antialias: bool, cubic_coeff_a: float, exclude_outside: bool
) -> tuple[Array, Array]:
    """The source elements around each coordinate and their weights, both [out, taps]; sources past the ends repeat the end.

    With ``antialias`` the filter widens as the scale falls below 1. With ``exclude_outside`` only sources inside count.
    """
    squeeze = min(scale, 1.0) if antialias else 1.0
    reach = math.ceil((1 if mode == "linear" else 2) / squeeze)
    left = np.floor(coordinates).astype(np.intp)
    taps = left[:, None] + np.arange(1 - reach, reach + 1)
    distance = np.abs(coordinates[:, None] - taps) * squeeze
    weights = np.maximum(1 - distance, 0) if mode == "linear" else cubic_kernel(distance, cubic_coeff_a)
    if exclude_outside:
        weights = np.where((taps >= 0) & (taps < size), weights, 0)
    if exclude_outside or antialias:
        total = weights.sum(axis=1, keepdims=True)
        weights = weights / np.where(total == 0, 1, total)
    return np.clip(taps, 0, size - 1), weights


def blend(data: Array, axis: int, taps: Array, weights: Array) -> Array:
    """The weighted sums of the elements of ``data`` at ``taps`` along ``axis``, in the (floating) type of ``data``."""
    rows = data.reshape(math.prod(data.shape[:axis]), data.shape[axis], math.prod(data.shape[axis + 1 :]))
    used = [k for k in range(taps.shape[1]) if np.any(weights[:, k])]
    factors = weights.astype(data.dtype)[:, :, None]
    out = np.empty((rows.shape[0], len(taps), rows.shape[2]), data.dtype)
    if not used:
        out[...] = 0
    step = max(_BLOCK // max(out.shape[1] * out.shape[2], 1), 1)
    for start in range(0, len(out) if used else 0, step):
        source, target = rows[start : start + step], out[start : start + step]
        np.take(source, taps[:, used[0]], axis=1, out=target, mode="clip")
        target *= factors[:, used[0]]
        for k in used[1:]:
            term = np.take(source, taps[:, k], axis=1, mode="clip")
            term *= factors[:, k]
            target += term
    return out.reshape(*data.shape[:axis], len(taps), *data.shape[axis + 1 :])


def order_of_axes(axes: Sequence[int], growth: Sequence[float]) -> list[int]:
    """The axes that shrink first, then those that grow, the last one first: the least data moves."""
    return [axis for _, _, axis in sorted((g, -axis, axis) for axis, g in zip(axes, growth, strict=True))]


def cubic_kernel(distance: Array, a: float) -> Array:
    """Keys' cubic convolution kernel at ``distance`` >= 0."""
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0))


def check_modes(mode: str, coordinate_mode: str, nearest_mode: str) -> None:
    """Raises ModelError when one of the three names of Resize's modes is not known."""
    for what, name, names in (
        ("mode", mode, ("nearest", "linear", "cubic")),
        ("coordinate_transformation_mode", coordinate_mode, COORDINATE_MODES),
        ("nearest_mode", nearest_mode, NEAREST_MODES),
    ):
        if name not in names:
            raise ModelError(f"Resize {what} {name!r} is not one of {', '.join(names)}")


def working_type(x: Array) -> type[np.floating[Any]]:
    """The type to interpolate in: f32 for what it holds exactly, f64 for f64 and wide integers."""
    return np.float64 if x.dtype.itemsize > 2 and x.dtype != np.float32 else np.float32


def round_to(out: Array, dtype: np.dtype[Any], whole: Callable[[Array], Array] = np.rint) -> Array:
    """``out`` as ``dtype``; for an integer type made whole by ``whole`` and saturated."""
    if out.dtype == dtype:
        return out
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return np.clip(whole(out), limits.min, limits.max).astype(dtype)
    return out.astype(dtype)

"""Resize: nearest, linear and cubic interpolation over any axes, one axis after the other."""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, Dim, DType, TensorType
from miniinfer_cli.ops.element_types import REAL
from miniinfer_cli.ops.inference import UNKNOWN
from miniinfer_cli.ops.interpolation import (
    Stretch,
    blend,
    check_modes,
    exact_scale,
    nearest_taps,
    order_of_axes,
    round_to,
    small_ratio,
    weighted_taps,
    working_type,
)
from miniinfer_cli.ops.operands import dims_of, floats_of, to_ints
from miniinfer_cli.ops.registry import define
from miniinfer_cli.ops.shapes import normal_axes
from miniinfer_cli.ops.work import Attrs, Inputs, Outputs, elements


def infer_resize(
    x: TensorType,
    roi: TensorType | None = None,
    scales: TensorType | None = None,
    sizes: TensorType | None = None,
    *,
    antialias: int = 0,
    axes: Sequence[int] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> TensorType:
    """The named axes take the sizes asked for, or floor(size * scale)."""
    check_modes(mode, coordinate_transformation_mode, nearest_mode)
    if mode != "nearest" and x.dtype in (DType.STR, DType.BOOL, DType.C64, DType.C128):
        raise ModelError(f"Resize cannot interpolate {x} by mode {mode!r}; nearest can")
    if keep_aspect_ratio_policy not in ("stretch", "not_larger", "not_smaller"):
        raise ModelError(f"Resize keep_aspect_ratio_policy {keep_aspect_ratio_policy!r} is not known")
    if (_is_given(scales)) == (_is_given(sizes)):
        raise ModelError("Resize needs either scales or sizes, and not both")
    if x.shape is None:
        return TensorType(x.dtype)
    chosen = normal_axes("Resize", range(len(x.shape)) if axes is None else axes, x)
    dims: list[Dim] = list(x.shape)
    wanted, factors = dims_of(sizes), floats_of(scales)
    for what, items in (("sizes", wanted), ("scales", factors)):
        if items and len(items) != len(chosen):
            raise ModelError(f"Resize has {len(items)} {what} for {len(chosen)} axes of {x}")
    extents = [1.0] * len(chosen)
    if coordinate_transformation_mode == "tf_crop_and_resize" and factors:
        corners = floats_of(roi)
        if not corners:
            factors = None
        else:
            extents = [corners[i + len(chosen)] - corners[i] for i in range(len(chosen))]
    for i, axis in enumerate(chosen):
        if factors:
            if factors[i] <= 0:
                raise ModelError(f"Resize scale {factors[i]} of axis {axis} is not positive")
            if not math.isfinite(factors[i] * extents[i]):
                raise ModelError(f"Resize scale {factors[i]} of axis {axis} is no finite number")
            dims[axis] = scaled = _scaled(dims[axis], factors[i], extents[i])
            if isinstance(scaled, int) and not 0 <= scaled < 1 << 62:
                raise ModelError(f"Resize of axis {axis} of {x} by {factors[i] * extents[i]:g} asks for {scaled} elements")
        elif not wanted or keep_aspect_ratio_policy != "stretch":
            dims[axis] = UNKNOWN
        else:
            dims[axis] = wanted[i]
    if wanted and keep_aspect_ratio_policy != "stretch":
        dims = _kept_aspect(x, dims, chosen, wanted, keep_aspect_ratio_policy)
    if 0 in x.shape and all(isinstance(d, int) for d in dims) and 0 not in dims:
        axis = x.shape.index(0)
        raise ModelError(f"Resize cannot fill {dims[axis]} elements of axis {axis} of {x} from none")
    return TensorType(x.dtype, tuple(dims))


def resize(
    x: Array,
    roi: Array | None = None,
    scales: Array | None = None,
    sizes: Array | None = None,
    *,
    antialias: int = 0,
    axes: Sequence[int] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Array:
    """``x`` resampled along the named axes. Interpolation is done in f32 (f64 for f64 and wide integers), axis by axis;
    integers are rounded and saturated at the end.

    Source: ONNX Resize-19.
    """
    chosen = [axis % x.ndim for axis in (range(x.ndim) if axes is None else axes)]
    stretches = stretches_of(x.shape, roi, scales, sizes, chosen, coordinate_transformation_mode, keep_aspect_ratio_policy)
    coordinates = {axis: s.coordinates(coordinate_transformation_mode) for axis, s in stretches.items()}
    out = x if mode == "nearest" else x.astype(working_type(x), copy=False)
    for axis in order_of_axes(chosen, [s.out / max(s.size, 1) for s in stretches.values()]):
        s, places = stretches[axis], coordinates[axis]
        if s.out == s.size and np.array_equal(places, np.arange(s.size)):
            continue
        if mode == "nearest":
            out = np.take(out, nearest_taps(places, s.size, nearest_mode), axis=axis)
        else:
            taps, weights = weighted_taps(
                places,
                s.size,
                float(s.scale),
                mode=mode,
                antialias=bool(antialias),
                cubic_coeff_a=cubic_coeff_a,
                exclude_outside=bool(exclude_outside),
            )
            out = blend(out, axis, taps, weights)
    if coordinate_transformation_mode == "tf_crop_and_resize":
        out = _extrapolated(out, stretches, coordinates, extrapolation_value)
    return round_to(out, x.dtype)


def _is_given(operand: TensorType | None) -> bool:
    return operand is not None and operand.shape != (0,)


def _scaled(dim: Dim, scale: float, extent: float) -> Dim:
    """floor(dim * extent * scale); the product is rounded to f32 first, so that 3 * f32(1/3) is 1."""
    if isinstance(dim, int):
        return int(np.floor(np.float32(dim * extent) * np.float32(scale)))
    ratio = small_ratio(scale) if extent == 1 else None
    return UNKNOWN if ratio is None else dim * ratio.numerator // ratio.denominator


def _kept_aspect(x: TensorType, dims: list[Dim], chosen: Sequence[int], wanted: Sequence[Dim], policy: str) -> list[Dim]:
    """The sizes of ``chosen`` under one scale for all: the smallest (not_larger) or the largest of those asked for."""
    sizes = [(x.shape or ())[axis] for axis in chosen]
    if not all(isinstance(d, int) for d in (*sizes, *wanted)):
        return dims
    scale = _common_scale([int(s) for s in sizes], [int(w) for w in wanted], policy)
    for axis, size in zip(chosen, sizes, strict=True):
        dims[axis] = int(scale * int(size) + Fraction(1, 2))  # halves go up
    return dims


def _common_scale(have: Sequence[int], wanted: Sequence[int], policy: str) -> Fraction:
    """The one scale of all axes; an axis of none has no say."""
    ratios = [Fraction(w, n) for w, n in zip(wanted, have, strict=True) if n]
    return (min if policy == "not_larger" else max)(ratios, default=Fraction(1))


def stretches_of(
    shape: Sequence[int],
    roi: Array | None,
    scales: Array | None,
    sizes: Array | None,
    chosen: Sequence[int],
    coordinate_mode: str,
    policy: str,
) -> dict[int, Stretch]:
    """How each of the ``chosen`` axes is resized. Raises ModelError when the operands do not say so."""
    count = len(chosen)
    crops = coordinate_mode == "tf_crop_and_resize"
    if crops and (roi is None or roi.size != 2 * count):
        raise ModelError(f"Resize by tf_crop_and_resize needs a roi of {2 * count} numbers")
    corners = roi.astype(np.float64).tolist() if crops and roi is not None else [0.0] * count + [1.0] * count
    have = [shape[axis] for axis in chosen]
    if scales is not None and scales.size:
        factors = scales.astype(np.float64).reshape(-1).tolist()
        if not all(0 < f < math.inf for f in factors):
            raise ModelError(f"Resize scales {factors} are not all positive and finite")
        outs = [int(_scaled(n, f, corners[i + count] - corners[i])) for i, (n, f) in enumerate(zip(have, factors, strict=True))]
        ratios = [exact_scale(f, n, o) for f, n, o in zip(factors, have, outs, strict=True)]
    elif sizes is not None and sizes.size:
        outs = to_ints(sizes)
        if any(size < 0 for size in outs):
            raise ModelError(f"Resize to sizes {outs} asks for a negative dimension")
        ratios = [Fraction(o, n) if n and o else Fraction(1) for o, n in zip(outs, have, strict=True)]
        if policy != "stretch":
            common = _common_scale(have, outs, policy)
            outs = [int(common * n + Fraction(1, 2)) for n in have]
            ratios = [common or Fraction(1)] * count
    else:
        raise ModelError("Resize needs either scales or sizes, and not both")
    return {axis: Stretch(have[i], outs[i], ratios[i], (corners[i], corners[i + count])) for i, axis in enumerate(chosen)}


def _extrapolated(out: Array, stretches: dict[int, Stretch], coordinates: dict[int, Array], value: float) -> Array:
    """``out`` with ``value`` wherever a coordinate lies outside its axis."""
    outside = np.zeros((1,) * out.ndim, np.bool_)
    for axis, s in stretches.items():
        places = coordinates[axis]
        beyond = (places < 0) | (places > s.size - 1)
        outside = outside | beyond.reshape([-1 if i == axis else 1 for i in range(out.ndim)])
    return np.where(outside, np.asarray(value).astype(out.dtype), out) if outside.any() else out


def _work(inputs: Inputs, outputs: Outputs, attrs: Attrs) -> int:
    """The elements that each of the output is blended of, axis by axis; a filter that widens reads many."""
    x, roi, scales, sizes = (*inputs, None, None, None)[:4]
    if x is None:
        return 0
    axes, mode = attrs.get("axes"), attrs.get("mode", "nearest")
    chosen = [axis % x.ndim for axis in (range(x.ndim) if axes is None else axes)]
    crop = attrs.get("coordinate_transformation_mode", "half_pixel")
    policy = attrs.get("keep_aspect_ratio_policy", "stretch")
    stretches = stretches_of(x.shape, roi, scales, sizes, chosen, crop, policy)
    taps = {"nearest": 1, "linear": 2}.get(mode, 4)
    squeezed = [min(float(s.scale), 1.0) for s in stretches.values()] if attrs.get("antialias", 0) and mode != "nearest" else []
    widest = max(x.size, elements(outputs[0]))
    return 4 * widest * (sum(math.ceil(taps / s) + 1 for s in squeezed) if squeezed else taps * len(chosen))


RESIZE = define("Resize", infer=infer_resize, reference=resize, takes=(None, None, REAL), shape_operands=(1, 2, 3), work=_work)

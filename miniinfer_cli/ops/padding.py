"""Growing and cropping at the borders: Pad, CenterCropPad."""

from collections.abc import Sequence

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, Dim, TensorType
from miniinfer_cli.ops.inference import UNKNOWN
from miniinfer_cli.ops.operands import count_of, dims_of, ints_of, to_dims, to_ints, to_scalar
from miniinfer_cli.ops.registry import define
from miniinfer_cli.ops.shapes import normal_axes

_MODES = ("constant", "reflect", "edge", "wrap")


def infer_pad(
    data: TensorType,
    pads: TensorType,
    constant_value: TensorType | None = None,
    axes: TensorType | None = None,
    *,
    mode: str = "constant",
) -> TensorType:
    """Each named axis grows by its two pads; negative ones crop."""
    if mode not in _MODES:
        raise ModelError(f"Pad mode {mode!r} is not one of {', '.join(_MODES)}")
    if constant_value is not None and constant_value.dtype != data.dtype:
        raise ModelError(f"Pad fills {data} with a value of type {constant_value.dtype}")
    if data.shape is None:
        return TensorType(data.dtype)
    chosen = tuple(range(len(data.shape))) if axes is None else ints_of(axes)
    n_axes = len(data.shape) if axes is None else count_of("Pad axes", axes)
    sizes, count = dims_of(pads), count_of("Pad pads", pads)
    if n_axes is not None and (count not in (None, 2 * n_axes) or n_axes > len(data.shape)):
        raise ModelError(f"Pad has {count} pads for {n_axes} axes of {data}; two for each are expected")
    if chosen is None:
        return TensorType(data.dtype, (UNKNOWN,) * len(data.shape))
    dims: list[Dim] = list(data.shape)
    for i, axis in enumerate(normal_axes("Pad", chosen, data)):
        dims[axis] = UNKNOWN if sizes is None else dims[axis] + sizes[i] + sizes[i + len(chosen)]
        if isinstance(dims[axis], int) and dims[axis] < 0:
            raise ModelError(f"Pad crops axis {axis} of {data} by more than it has")
        if mode != "constant" and sizes is not None:
            _expect_left(mode, data.shape[axis], sizes[i], sizes[i + len(chosen)])
    return TensorType(data.dtype, tuple(dims))


def pad(
    data: Array, pads: Array, constant_value: Array | None = None, axes: Array | None = None, *, mode: str = "constant"
) -> Array:
    """``data`` with its borders grown, or cropped where a pad is negative: cropping first, then growing what is left.

    A crop may go beyond the axis where the other pad makes up for it: what there is then is all fill. Source: ONNX Pad-25.
    """
    chosen: Sequence[int] = range(data.ndim) if axes is None else to_ints(axes)
    sizes = to_ints(pads)
    if len(sizes) != 2 * len(chosen):
        raise ModelError(f"Pad has {len(sizes)} pads for {len(chosen)} axes of {list(data.shape)}; two for each are expected")
    before, after = [0] * data.ndim, [0] * data.ndim
    for i, axis in enumerate(chosen):
        before[axis], after[axis] = sizes[i], sizes[i + len(chosen)]
    sides = list(zip(data.shape, before, after, strict=True))
    kept = data[tuple(slice(max(-b, 0), max(n + min(a, 0), 0)) for n, b, a in sides)]
    if mode == "constant":
        fill = zero_of(data.dtype) if constant_value is None else to_scalar(constant_value)
        out = np.full([n + b + a for n, b, a in sides], fill, data.dtype)
        if kept.size:
            out[tuple(slice(max(b, 0), max(b, 0) + n) for n, b in zip(kept.shape, before, strict=True))] = kept
        return out
    for axis, (n, b, a) in enumerate(sides):
        if b > 0 or a > 0:
            _expect_left(mode, n, b, a)
            sources = _sources(kept.shape[axis], max(b, 0), max(a, 0), mode) if n + b + a else np.empty(0, np.intp)
            kept = np.take(kept, sources, axis=axis)
    return kept


def _expect_left(mode: str, size: Dim, before: Dim, after: Dim) -> None:
    """Raises ModelError when an axis is to grow by repeating itself and nothing of it is left to repeat."""
    if not (isinstance(size, int) and isinstance(before, int) and isinstance(after, int)):
        return
    if size + min(before, 0) + min(after, 0) <= 0 < size + before + after:
        raise ModelError(f"Pad in mode {mode!r} cannot grow an empty axis")


def _sources(size: int, before: int, after: int, mode: str) -> Array:
    """Which element of an axis of ``size`` each place of the padded axis shows."""
    places = np.arange(-before, size + after)
    if mode == "edge":
        return np.clip(places, 0, size - 1)
    if mode == "wrap":
        return places % size
    period = max(2 * (size - 1), 1)  # there and back again, the two ends once each
    return (size - 1) - np.abs(places % period - (size - 1))


def infer_center_crop_pad(input_data: TensorType, shape: TensorType, *, axes: Sequence[int] | None = None) -> TensorType:
    """The named axes take the sizes that the operand holds."""
    if input_data.shape is None:
        return TensorType(input_data.dtype)
    chosen = normal_axes("CenterCropPad", range(len(input_data.shape)) if axes is None else axes, input_data)
    sizes, count = dims_of(shape), count_of("CenterCropPad shape", shape)
    if count not in (None, len(chosen)) or len(chosen) > len(input_data.shape):
        raise ModelError(f"CenterCropPad has {count} sizes for {len(chosen)} axes of {input_data}")
    if sizes is not None and any(isinstance(d, int) and d < 0 for d in sizes):
        raise ModelError(f"CenterCropPad to [{','.join(map(str, sizes))}] asks for a negative dimension")
    dims: list[Dim] = list(input_data.shape)
    for i, axis in enumerate(chosen):
        dims[axis] = UNKNOWN if sizes is None else sizes[i]
    return TensorType(input_data.dtype, tuple(dims))


def center_crop_pad(input_data: Array, shape: Array, *, axes: Sequence[int] | None = None) -> Array:
    """The middle of ``input_data``, or ``input_data`` in the middle of zeros, axis by axis; an odd one out goes right.

    Source: ONNX CenterCropPad-18.
    """
    dims = list(input_data.shape)
    crop, place = [slice(None)] * input_data.ndim, [slice(None)] * input_data.ndim
    for axis, size in zip(range(input_data.ndim) if axes is None else axes, to_dims("CenterCropPad", shape), strict=True):
        have = input_data.shape[axis]
        dims[axis] = size
        if size < have:
            crop[axis] = slice((have - size) // 2, (have - size) // 2 + size)
        else:
            place[axis] = slice((size - have) // 2, (size - have) // 2 + have)
    out = np.full(dims, zero_of(input_data.dtype), input_data.dtype)
    out[tuple(place)] = input_data[tuple(crop)]
    return out


def zero_of(dtype: np.dtype[np.generic]) -> str | int:
    """What fills a tensor of ``dtype`` by default: the number 0, or the empty string."""
    return "" if dtype.kind == "O" else 0


PAD = define("Pad", infer=infer_pad, reference=pad, shape_operands=(1, 3), moves=True)
CENTER_CROP_PAD = define("CenterCropPad", infer=infer_center_crop_pad, reference=center_crop_pad, shape_operands=(1,))

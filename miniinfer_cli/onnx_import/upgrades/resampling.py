"""Older forms of Resize, Upsample, GridSample, RoiAlign and ConvTranspose."""

from collections.abc import Sequence

import numpy as np

from miniinfer_cli.ir import TensorType, Value
from miniinfer_cli.onnx_import.call import Call
from miniinfer_cli.onnx_import.registry import upgrades


@upgrades("Upsample", 7, 9, 10)
@upgrades("Resize", 10)
def scale_from_corner(call: Call) -> Sequence[Value]:
    """Resize with x_original = x_resized / scale.

    The text of these versions does not say which pixel is nearest. The runtimes of their time, and so the models, take
    the floor where an axis grows and the ceiling where it shrinks.
    """
    x, scales = call.required(0), call.input(1)
    if scales is None:
        scales = call.constant(np.array(call.attrs["scales"], np.float32), "scales")
    mode = call.attrs.get("mode", "nearest")
    mode = {"bilinear": "linear"}.get(mode, mode)
    how = {"mode": mode, "coordinate_transformation_mode": "asymmetric"}
    if mode != "nearest":
        return call.result("Resize", x, None, scales, **how)
    factors = call.known(scales)
    if factors is None or np.all(factors >= 1):
        return call.result("Resize", x, None, scales, nearest_mode="floor", **how)
    if np.all(factors <= 1):
        return call.result("Resize", x, None, scales, nearest_mode="ceil", **how)
    growing = call.constant(np.maximum(factors, 1).astype(np.float32), "scales")
    shrinking = call.constant(np.minimum(factors, 1).astype(np.float32), "scales")
    grown = call.emit("Resize", x, None, growing, nearest_mode="floor", **how)
    return call.result("Resize", grown, None, shrinking, nearest_mode="ceil", **how)


@upgrades("Upsample", 1)
def upsample_by_two_factors(call: Call) -> Sequence[Value]:
    """A factor each for height and width of an image batch."""
    factors = [1.0, 1.0, call.attrs["height_scale"], call.attrs["width_scale"]]
    call.inputs = (call.required(0), call.constant(np.array(factors, np.float32), "scales"))
    return scale_from_corner(call)


@upgrades("Resize", 11, 13, 18, 19)
def resize(call: Call) -> Sequence[Value]:
    """Operands that are empty tensors are left out."""
    x, *operands = call.inputs
    kept = [None if _is_empty(v) else v for v in operands]
    if kept and call.attrs.get("coordinate_transformation_mode") != "tf_crop_and_resize":
        kept[0] = None  # the region of interest takes no part
    return call.result("Resize", x, *kept, **call.attrs)


@upgrades("GridSample", 16)
def grid_sample(call: Call) -> Sequence[Value]:
    """``bilinear`` and ``bicubic`` are called linear and cubic today."""
    mode = call.attrs.pop("mode", "bilinear")
    return call.result("GridSample", *call.inputs, mode={"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode), **call.attrs)


@upgrades("RoiAlign", 10)
def roi_align(call: Call) -> Sequence[Value]:
    """Without the shift by half a pixel."""
    return call.result("RoiAlign", *call.inputs, coordinate_transformation_mode="output_half_pixel", **call.attrs)


@upgrades("ConvTranspose", 1)
def conv_transpose(call: Call) -> Sequence[Value]:
    """With ``output_shape``, the odd pixel of padding went to the other side than today."""
    if "output_shape" in call.attrs:
        upper = call.attrs.get("auto_pad", "NOTSET") == "SAME_UPPER"
        call.attrs["auto_pad"] = "SAME_LOWER" if upper else "SAME_UPPER"
    return call.result("ConvTranspose", *call.inputs, **call.attrs)


def _is_empty(value: Value | None) -> bool:
    return value is not None and isinstance(value.type, TensorType) and value.type.shape == (0,)

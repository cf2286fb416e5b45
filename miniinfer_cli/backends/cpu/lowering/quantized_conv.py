"""Convolutions of 8-bit integers by constant weights, as convolutions of f32 that are exact."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from miniinfer_cli.backends.cpu.lowering.exact_parts import centred_weights, exact_cuts
from miniinfer_cli.backends.cpu.routine import Routine, Site, each_time, lowers, shape_of
from miniinfer_cli.ir import Array
from miniinfer_cli.ops.convolve import Geometry, conv_channels_last, conv_scratch_nbytes
from miniinfer_cli.ops.windows import window


@lowers("ConvInteger")
def lower_conv_integer(site: Site) -> Routine | None:
    """``x`` by constant weights with a constant zero point, or none; the zero point of ``x`` is one number, or none."""
    x, w = shape_of(site.inputs[0]), shape_of(site.inputs[1])
    point = site.inputs[2] if len(site.inputs) > 2 else None
    attrs = site.node.attrs
    if attrs.get("group", 1) != 1 or (point is not None and math.prod(shape_of(point)) != 1):
        return None

    def shaped(array: Array) -> Array:
        return _last(array) if array.ndim > 1 else array.reshape(-1, *(1,) * (len(w) - 1))  # a zero point for each feature

    weights = centred_weights(site, 1, 3, "channels last", shaped)
    if weights is None:
        return None
    wide = weights
    cuts = exact_cuts(wide, wide.ndim - 1, 0)
    names = ("strides", "dilations", "pads", "auto_pad")
    stated = window("ConvInteger", w[2:], **{k: attrs[k] for k in names if k in attrs})
    geometry = Geometry.of(stated, x[2:], 1)
    last = (x[0], *x[2:], x[1])
    out_shape = shape_of(site.outputs[0])
    out_last = (out_shape[0], *out_shape[2:], out_shape[1])
    read, made = (4 * math.prod(shape) for shape in (last, out_last))
    threads = site.threads

    def scratch_of(channels: int) -> int:
        return conv_scratch_nbytes((*last[:-1], channels), (w[0], *w[2:], channels), 4, geometry, threads=threads.count)

    inner = max((scratch_of(cut.stop - cut.start) for cut in cuts), default=0)

    def run(inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array) -> None:
        image = scratch[:read].view(np.float32).reshape(last)
        total = scratch[read : read + made].view(np.float32).reshape(out_last)
        zero = np.float32(0) if point is None else inputs[2].reshape(()).astype(np.float32)
        np.subtract(_last(inputs[0]), zero, out=image, casting="unsafe")
        out = _last(outputs[0])
        if not cuts:
            out[...] = 0
        for number, cut in enumerate(cuts):
            part = image if len(cuts) == 1 else np.ascontiguousarray(image[..., cut])
            factors = wide if len(cuts) == 1 else np.ascontiguousarray(wide[..., cut])
            conv_channels_last(part, factors, None, geometry, out=total, scratch=scratch[read + made :], for_each=threads)
            if number:
                out += total.astype(np.int32)
            else:
                np.copyto(out, total, casting="unsafe")

    return Routine(each_time(run), scratch_nbytes=read + made + inner, tactic="exact conv")


def _last(array: Array) -> Array:
    """[N,C,spatial...] as [N,spatial...,C], and weights alike: a view."""
    return np.moveaxis(array, 1, -1)

"""Convolutions of 8-bit integers by constant weights, as convolutions of f32 that are exact."""

import functools
import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from miniinfer_cli.backends.cpu.lowering.convolution import channels_last, geometry_of
from miniinfer_cli.backends.cpu.lowering.exact_parts import EXACT, centred_weights, exact_cuts
from miniinfer_cli.backends.cpu.routine import Routine, Site, lowers, shape_of
from miniinfer_cli.ir import Array
from miniinfer_cli.ops.convolve import Geometry, conv_channels_last, conv_scratch_nbytes, prepare_conv
from miniinfer_cli.ops.convolve_winograd import G, pays, prepare_winograd, scratch_elements, turned_weights
from miniinfer_cli.ops.products import Call, in_order


@lowers("ConvInteger")
def lower_conv_integer(site: Site) -> Routine | None:
    """``x`` by constant weights with a constant zero point, or none; the zero point of ``x`` is one number, or none."""
    x, w = shape_of(site.inputs[0]), shape_of(site.inputs[1])
    point = site.inputs[2] if len(site.inputs) > 2 else None
    if site.node.attrs.get("group", 1) != 1 or (point is not None and math.prod(shape_of(point)) != 1):
        return None

    def shaped(array: Array) -> Array:
        return (
            channels_last(array) if array.ndim > 1 else array.reshape(-1, *(1,) * (len(w) - 1))
        )  # a zero point for each feature

    weights = centred_weights(site, 1, 3, "channels last", shaped)
    if weights is None:
        return None
    wide = weights
    cuts = exact_cuts(wide, wide.ndim - 1, 0)
    geometry = geometry_of(site, w[2:], x[2:])
    last = (x[0], *x[2:], x[1])
    out_shape = shape_of(site.outputs[0])
    out_last = (out_shape[0], *out_shape[2:], out_shape[1])
    read, made = (4 * math.prod(shape) for shape in (last, out_last))
    threads = site.threads

    def scratch_of(channels: int) -> int:
        return conv_scratch_nbytes((*last[:-1], channels), (w[0], *w[2:], channels), 4, geometry, threads=threads.count)

    inner = max((scratch_of(cut.stop - cut.start) for cut in cuts), default=0)
    turned = _turned(site, wide, geometry, out_last) if len(cuts) == 1 else None
    if turned is not None:
        inner = 4 * scratch_elements(out_last[0], out_last[1:-1], last[-1], out_last[-1], 4, threads.count)

    def products(image: Array, total: Array, scratch: Array) -> list[Call]:
        """What computes the sums over each part of the channels into ``total``."""
        if turned is not None:
            room = scratch.view(np.float32)
            conv = prepare_winograd(image, turned, geometry.begin, out=total, scratch=room, for_each=threads, follow=None)
            return [in_order(conv, functools.partial(np.multiply, total, _QUARTER, total))]
        if len(cuts) == 1:
            return [prepare_conv(image, wide, None, geometry, out=total, scratch=scratch, for_each=threads)]
        return [functools.partial(part_of, image, cut, total, scratch) for cut in cuts]

    def part_of(image: Array, cut: slice, total: Array, scratch: Array) -> None:
        part, factors = (np.ascontiguousarray(array[..., cut]) for array in (image, wide))
        conv_channels_last(part, factors, None, geometry, out=total, scratch=scratch, for_each=threads)

    def prepare(inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array) -> Call:
        image = scratch[:read].view(np.float32).reshape(last)
        total = scratch[read : read + made].view(np.float32).reshape(out_last)
        x, out = channels_last(inputs[0]), channels_last(outputs[0])
        calls = products(image, total, scratch[read + made :])

        def run() -> None:
            zero = np.float32(0) if point is None else inputs[2].reshape(()).astype(np.float32)
            np.subtract(x, zero, out=image, casting="unsafe")
            if not calls:
                out[...] = 0
            for number, call in enumerate(calls):
                call()
                if number:
                    np.add(out, total.astype(np.int32), out)
                else:
                    np.copyto(out, total, casting="unsafe")

        return run

    tactic = "exact conv" if turned is None else "exact winograd"
    return Routine(prepare, scratch_nbytes=read + made + inner, tactic=tactic)


_QUARTER = np.float32(0.25)


def _turned(site: Site, weights: Array, geometry: Geometry, out: Sequence[int]) -> Array | None:
    """Four times the weights ``[K, 3, 3, C]`` as Winograd's convolution takes them: whole numbers; computed once.

    None where that takes longer, and where a sum on the way might leave what f32 holds exactly.
    """
    handle = site.handles[1]
    g = geometry
    if handle is None or not pays(weights.shape, g.strides, g.dilations, g.group, out[0], out[1:-1]):
        return None
    point = site.handles[3] if len(site.handles) > 3 else None
    key = "" if point is None else hashlib.sha256(site.weights.array(point).tobytes()).hexdigest()

    def make(stored: Array) -> Array:
        whole = turned_weights(4 * weights)
        return whole if stays_exact(whole, weights) else np.empty(0, np.float32)

    found = site.weights.derived(handle, f"exact winograd less zero point {key}", make)
    return found if found.size else None


def stays_exact(whole: Array, weights: Array) -> bool:
    """Whether nothing leaves what f32 holds, in the order in which ``ops.convolve_winograd`` adds up.

    Each of the 16 products has sums over channels, of differences of four neighbours, which are within twice 255 of 0, or of
    their sum. Two of a column are added, and then the third, which makes them a convolution along the column of what the row
    was turned into; two of these are added; and then the third, which makes them four times the result.
    """
    reach = np.full((4, 4, 1), 2 * 255.0)  # by column and row
    reach[1, 1] *= 2
    places = np.abs(whole, dtype=np.float64).sum(axis=1).reshape(4, 4, -1) * reach
    rows = np.abs(np.einsum("jx,kyxc->jkyc", 4 * G, weights)).sum(axis=(2, 3)) * np.array([[255.0], [510.0], [255.0], [255.0]])
    pairs = [places[:, i] + places[:, i + 1] for i in (0, 1)] + [rows[j] + rows[j + 1] for j in (0, 1)]
    results = 4 * 255.0 * np.abs(weights, dtype=np.float64).sum(axis=(1, 2, 3))
    return all(float(sums.max(initial=0)) < EXACT for sums in (places, rows, results, *pairs))

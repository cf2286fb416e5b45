"""Resize that repeats rows, columns and the like a whole number of times, as one copy."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from miniinfer_cli.backends.cpu.routine import Routine, Site, contents_behind_first, lowers, shape_of
from miniinfer_cli.errors import MiniinferError
from miniinfer_cli.ir import Array
from miniinfer_cli.ops.interpolation import nearest_taps
from miniinfer_cli.ops.products import Call
from miniinfer_cli.ops.resize import stretches_of


@lowers("Resize")
def lower_resize(site: Site) -> Routine | None:
    """By the nearest element, where each comes as often as the others; not along the last axis, whose elements lie apart then."""
    attrs = site.node.attrs
    shape = shape_of(site.inputs[0])
    given = contents_behind_first(site)
    coordinates = attrs.get("coordinate_transformation_mode", "half_pixel")
    if attrs.get("mode", "nearest") != "nearest" or given is None or coordinates == "tf_crop_and_resize" or not shape:
        return None
    roi, scales, sizes = (*given, None, None, None)[:3]
    chosen = [axis % len(shape) for axis in attrs.get("axes", range(len(shape)))]
    try:
        stretches = stretches_of(shape, roi, scales, sizes, chosen, coordinates, attrs.get("keep_aspect_ratio_policy", "stretch"))
    except MiniinferError:
        return None  # the reference tells what is wrong, when it runs
    times = [1] * len(shape)
    for axis, stretch in stretches.items():
        taps = nearest_taps(stretch.coordinates(coordinates), stretch.size, attrs.get("nearest_mode", "round_prefer_floor"))
        times[axis] = stretch.out // max(stretch.size, 1)
        if not np.array_equal(taps, np.repeat(np.arange(stretch.size), times[axis])):
            return None
    if times[-1] != 1 or [n * t for n, t in zip(shape, times, strict=True)] != list(shape_of(site.outputs[0])):
        return None
    apart = [n for pair in zip(shape, times, strict=True) for n in pair]

    def prepare(inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array) -> Call:
        each = inputs[0].reshape([n for size in shape for n in (size, 1)])
        return functools.partial(np.copyto, outputs[0].reshape(apart), each)

    return Routine(prepare, tactic="repeated")

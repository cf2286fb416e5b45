"""DynamicQuantizeLinear in few passes, straight into the arena."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from miniinfer_cli.backends.cpu.lowering.element_form import hold_within
from miniinfer_cli.backends.cpu.routine import Routine, Site, lowers, nbytes_of
from miniinfer_cli.ir import Array
from miniinfer_cli.ops.products import Call

_BLOCK = 1 << 15  # elements: what the passes hand on stays in the cache


@lowers("DynamicQuantizeLinear")
def lower_dynamic_quantize_linear(site: Site) -> Routine | None:
    """The range, then every element over the scale, rounded, with the zero point."""
    kind = site.inputs[0]
    assert kind is not None
    size = nbytes_of(kind) // 4
    block = min(size, _BLOCK)
    if not size:
        return None

    def prepare(inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array) -> Call:
        x = inputs[0].reshape(size)
        y, scale, zero = outputs[0].reshape(size), outputs[1], outputs[2]
        quotient = scratch.view(np.float32)
        starts = range(0, size, block)
        parts = [(x[s : s + block], y[s : s + block], quotient[: min(block, size - s)]) for s in starts]

        def run() -> None:
            low, high = min(np.minimum.reduce(x), _ZERO), max(np.maximum.reduce(x), _ZERO)
            width = high - low
            step = width / _LEVELS if width > 0 else _ONE
            point = np.minimum(np.maximum(np.rint(-low / step), _ZERO), _LEVELS)
            scale[...] = step
            zero[...] = point
            point = np.float32(zero[()])
            for source, target, between in parts:
                np.divide(source, step, between)
                np.rint(between, between)
                np.add(between, point, between)
                hold_within(between, _ZERO, _LEVELS, between)
                np.copyto(target, between, casting="unsafe")

        return run

    return Routine(prepare, scratch_nbytes=block * 4, tactic="blocks")


_ZERO, _ONE, _LEVELS = np.float32(0), np.float32(1), np.float32(255)

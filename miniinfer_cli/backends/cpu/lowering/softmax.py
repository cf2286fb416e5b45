"""Softmax along the last axis in cache-sized groups of rows, on all threads."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from miniinfer_cli.backends.cpu.routine import Routine, Site, each_time, lowers, shape_of
from miniinfer_cli.ir import Array, DType

_GROUP = 1 << 15  # elements


@lowers("Softmax")
def lower_softmax(site: Site) -> Routine | None:
    """Shift by the maximum, exponential, division by the sum, all in the output's memory."""
    shape = shape_of(site.outputs[0])
    if site.outputs[0].dtype not in (DType.F32, DType.F64) or not shape:
        return None
    if site.node.attrs.get("axis", -1) % len(shape) != len(shape) - 1 or shape[-1] == 0:
        return None
    columns = shape[-1]
    step = max(_GROUP // columns, 1)
    rows = int(np.prod(shape[:-1], dtype=np.int64))
    starts = range(0, rows, step)

    def run(inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array) -> None:
        x, y = inputs[0].reshape(rows, columns), outputs[0].reshape(rows, columns)

        def group(number: int) -> None:
            part = slice(starts[number], starts[number] + step)
            softmax_rows(x[part], y[part])

        site.threads(len(starts), group)

    return Routine(each_time(run), in_place={0: (0,)}, tactic="row groups")


def softmax_rows(x: Array, out: Array) -> None:
    """Softmax of each row of ``x`` ``[rows, columns]`` into ``out``, which may be ``x``. A row of -inf gives NaN."""
    np.subtract(x, x.max(axis=-1, keepdims=True), out=out)
    np.exp(out, out=out)
    out /= out.sum(axis=-1, keepdims=True)

"""TensorScatter into a state of the context: the new rows alone are written."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from miniinfer_cli.backends.cpu.routine import Routine, each_time, shape_of
from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, Node, TensorType


def append_rows(node: Node, kinds: Sequence[TensorType | None]) -> Routine:
    """The routine of a linear TensorScatter whose output is its first input; a run raises ModelError as its reference does."""
    rank = len(shape_of(kinds[0]))
    axis = node.attrs.get("axis", -2) % rank
    size, count = shape_of(kinds[0])[axis], shape_of(kinds[1])[axis]

    def run(inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array) -> None:
        cache, update = outputs[0], inputs[1]
        starts = np.zeros(len(cache), np.int64) if len(inputs) < 3 or inputs[2] is None else inputs[2]
        if starts.size and count and (int(starts.min()) < 0 or int(starts.max()) + count > size):
            raise ModelError(f"TensorScatter writes {count} entries at {int(starts.max())} into a cache of {size}")
        inner = (slice(None),) * (axis - 1)
        for rows, new, start in zip(cache, update, starts.tolist(), strict=True):
            rows[(*inner, slice(start, start + count))] = new

    return Routine(each_time(run), tactic="append")

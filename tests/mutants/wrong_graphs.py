"""What a pass leaves, made wrong: the graph's first output that numbers can be multiplied in, or a constant that it made."""

from collections.abc import Callable

import numpy as np

from miniinfer_cli.ir import Array, Constant, DType, Graph, TensorType, numpy_dtype
from miniinfer_cli.ir.constants import constant

WAYS = ("scaled", "changed")
"""An output scaled by 1.01 where the pass fired; one element of a constant of floats that it made changed.

Integers most often steer shapes: where these are wrong, no numbers are left to compare.
"""
MAY_NOT_APPLY = frozenset({"changed"})
_LARGE = 1 << 16  # elements of a constant that is not touched


def change(way: str, graph: Graph, run: Callable[[Graph], int], applied: Callable[[], None]) -> int:
    """Runs the pass on ``graph``, and spoils what it left if it fired. Returns what the pass did."""
    before = {v.constant for v in graph.all_constants()}
    fired = run(graph)
    if fired and (_scale(graph) if way == "scaled" else _change(graph, before)):
        applied()
    return fired


def _scale(graph: Graph) -> bool:
    outputs = list(graph.outputs)
    for number, value in enumerate(outputs):
        kind = value.type
        if not isinstance(kind, TensorType) or kind.dtype in (DType.STR, DType.BOOL):
            continue
        if kind.dtype.is_integer:
            op, operand = "Add", np.array(1)
        else:
            op, operand = "Mul", np.array(1.01)
        outputs[number] = graph.add(op, value, graph.add_constant(operand.astype(numpy_dtype(kind.dtype))), type=kind)
        graph.set_outputs(outputs, graph.output_names)
        return True
    return False


def _change(graph: Graph, before: set[Constant | None]) -> bool:
    for value in graph.constants():
        handle = value.constant
        if handle is None or handle in before or not _is_float(handle.dtype) or not 0 < handle.size <= _LARGE:
            continue
        if value.users or graph.is_output(value):
            graph.set_constant(value, constant(_spoiled(handle.array())))
            return True
    return False


def _is_float(dtype: DType) -> bool:
    return dtype in (DType.F64, DType.F32, DType.F16, DType.BF16)


def _spoiled(array: Array) -> Array:
    array = array.copy()
    flat = array.reshape(-1)
    flat[-1] = 1 if flat[-1] == 0 else 0
    return array

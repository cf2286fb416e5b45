"""A model in float64: who is right where ONNX Runtime and a plan differ by more than a tolerance.

ONNX's own reference evaluator computes it, which shares no line with either. ONNX Runtime adds up thousands of numbers one after
the other, and its Sigmoid has steps of 3e-8, which is all that is left where a detector says that there is next to nothing.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

FLOAT, DOUBLE = onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE
KEPT = {("Resize", 1), ("Resize", 2), ("Upsample", 1)}
"""Operands that are f32 whatever the others are: by operation, and number."""


def in_double(model: onnx.ModelProto, feeds: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs by name. Raises whatever the evaluator raises for what it does not know."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    _widen(wide.graph)
    given = {k: a.astype(np.float64) if a.dtype == np.float32 else a for k, a in feeds.items()}
    names = [o.name for o in wide.graph.output]
    return dict(zip(names, ReferenceEvaluator(wide).run(None, given), strict=True))


def _widen(graph: onnx.GraphProto) -> None:
    kept = {node.input[i] for node in graph.node for op, i in KEPT if node.op_type == op and i < len(node.input)}
    for tensor in graph.initializer:
        if tensor.name not in kept:
            _as_double(tensor)
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == FLOAT:
            value.type.tensor_type.elem_type = DOUBLE
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _widen(attribute.g)
            elif attribute.type == onnx.AttributeProto.TENSOR and not kept.intersection(node.output):
                _as_double(attribute.t)
            elif node.op_type == "Cast" and attribute.name == "to" and attribute.i == FLOAT:
                attribute.i = DOUBLE


def _as_double(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == FLOAT:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))

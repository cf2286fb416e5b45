"""The Constant operator: a value in one of seven attributes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Constant, constant
from miniinfer_cli.onnx_import.functions import plain_domain
from miniinfer_cli.onnx_import.tensors import TensorReader, text


def is_constant(node: onnx.NodeProto) -> bool:
    """True for ai.onnx's Constant, which is no operation here but a value."""
    return node.op_type == "Constant" and not plain_domain(node.domain) and len(node.output) == 1


def constant_of(attributes: Sequence[onnx.AttributeProto], tensors: TensorReader) -> Constant:
    """The constant of a Constant node with these attributes. Raises ModelError unless it is one of the seven."""
    if len(attributes) != 1:
        raise ModelError(f"Constant takes one attribute that holds its value, got {len(attributes)}")
    (attribute,) = attributes
    match attribute.name:
        case "value":
            return tensors.read(attribute.t)
        case "sparse_value":
            return tensors.read_sparse(attribute.sparse_tensor)
        case "value_float":
            return constant(np.array(attribute.f, np.float32))
        case "value_floats":
            return constant(np.array(attribute.floats, np.float32))
        case "value_int":
            return constant(np.array(attribute.i, np.int64))
        case "value_ints":
            return constant(np.array(attribute.ints, np.int64))
        case "value_string":
            return _strings(text(attribute.s), ())
        case "value_strings":
            return _strings([text(s) for s in attribute.strings], (len(attribute.strings),))
    raise ModelError(f"Constant has no attribute {attribute.name!r}")


def _strings(items: Any, shape: tuple[int, ...]) -> Constant:
    array = np.empty(shape, object)
    array[...] = items
    return constant(array)

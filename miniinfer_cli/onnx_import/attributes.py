"""AttributeProto as plain Python: int, float, str, lists of these, numpy arrays for tensors, types of values."""

from typing import Any

import onnx

from miniinfer_cli.errors import ModelError
from miniinfer_cli.onnx_import.tensors import TensorReader, text
from miniinfer_cli.onnx_import.types import DimNames, read_type

_A = onnx.AttributeProto
_GRAPHS = (_A.GRAPH, _A.GRAPHS)


def kind_of(attribute: onnx.AttributeProto) -> int:
    """The attribute's type; models of IR version 1 leave it out, and it is told by the field that is filled."""
    if attribute.type != _A.UNDEFINED:
        return int(attribute.type)
    for field, kind in (("f", _A.FLOAT), ("i", _A.INT), ("s", _A.STRING), ("t", _A.TENSOR), ("g", _A.GRAPH)):
        if attribute.HasField(field):
            return int(kind)
    for field, kind in (("floats", _A.FLOATS), ("ints", _A.INTS), ("strings", _A.STRINGS), ("tensors", _A.TENSORS)):
        if len(getattr(attribute, field)):
            return int(kind)
    return int(_A.INTS)


def is_graph(attribute: onnx.AttributeProto) -> bool:
    """True for an attribute that holds sub-graphs."""
    return kind_of(attribute) in _GRAPHS


def read_attribute(attribute: onnx.AttributeProto, tensors: TensorReader, dims: DimNames) -> Any:
    """The value of an attribute that is not a graph. Raises ModelError for a kind that no operation has."""
    match kind_of(attribute):
        case _A.INT:
            return attribute.i
        case _A.INTS:
            return list(attribute.ints)
        case _A.FLOAT:
            return attribute.f
        case _A.FLOATS:
            return list(attribute.floats)
        case _A.STRING:
            return text(attribute.s)
        case _A.STRINGS:
            return [text(s) for s in attribute.strings]
        case _A.TENSOR:
            return tensors.read(attribute.t).array()
        case _A.SPARSE_TENSOR:
            return tensors.read_sparse(attribute.sparse_tensor).array()
        case _A.TYPE_PROTO:
            return read_type(attribute.tp, attribute.name, dims)
    raise ModelError(
        f"attribute {attribute.name!r} is a list of {_A.AttributeType.Name(kind_of(attribute))}, which is not supported"
    )

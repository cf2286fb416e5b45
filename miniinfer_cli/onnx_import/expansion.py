"""Operators that nothing here runs, but that ONNX itself defines as a function of others."""

from collections.abc import Sequence

import onnx

from miniinfer_cli.ir import Type
from miniinfer_cli.onnx_import.schemas import Form
from miniinfer_cli.onnx_import.types import type_proto


def has_function(form: Form) -> bool:
    """True when the operator is a function in ONNX's own words."""
    return bool(form.schema.has_function or form.schema.has_context_dependent_function)


def function_of(form: Form, node: onnx.NodeProto, opset: int, input_types: Sequence[Type | None]) -> onnx.FunctionProto | None:
    """The operator's body for this node, in the newest form that ``opset`` allows; None when there is none.

    Some bodies depend on the attributes and the input types.
    """
    schema = form.schema
    versions = [v for v in schema.function_opset_versions if v <= opset]
    if versions:
        return _parsed(schema.get_function_with_opset_version(max(versions)))
    versions = [v for v in schema.context_dependent_function_opset_versions if v <= opset]
    if not versions:
        return None
    types = [type_proto(t).SerializeToString() for t in input_types]
    body = schema.get_context_dependent_function_with_opset_version(max(versions), node.SerializeToString(), types)
    return _parsed(body) if body else None


def _parsed(body: bytes) -> onnx.FunctionProto:
    function = onnx.FunctionProto()
    function.ParseFromString(body)
    return function

"""Operators that run on the host through onnx.reference: which, and the nodes that stand for them."""

import functools
from collections.abc import Sequence

import onnx
import onnx.checker
import onnx.numpy_helper
import onnx.shape_inference

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import TensorType, Type, Value
from miniinfer_cli.onnx_import.call import Call, Origin
from miniinfer_cli.onnx_import.registry import Handler
from miniinfer_cli.onnx_import.schemas import form_of
from miniinfer_cli.onnx_import.types import InferredDims, read_type, type_proto
from miniinfer_cli.ops import OURS
from miniinfer_cli.ops.onnx_reference import adapter_attributes, adapter_supports


@functools.cache
def host_handler(domain: str, op: str, opset: int) -> Handler | None:
    """The handler that hands a node to the host adapter; None when onnx.reference cannot run ``op``."""
    return run_on_host if adapter_supports(domain, op, opset) else None


def run_on_host(call: Call) -> Sequence[Value]:
    """One OnnxReference node with the ONNX node inside and the output types that onnx infers for it."""
    if call.origin is None or call.graphs:
        raise ModelError(f"{call.op} has sub-graphs, which the host adapter does not run")
    input_types = [None if v is None else v.type for v in call.inputs]
    node = _whole_node(call.origin)
    output_types = _inferred(node, call, call.origin, input_types)
    attrs = adapter_attributes(node, call.origin.opsets, input_types, output_types)
    return call.result("OnnxReference", *call.inputs, domain=OURS, **attrs)


def _whole_node(origin: Origin) -> onnx.NodeProto:
    """The node by itself: with the data of its tensors, and without trailing outputs that nobody wants."""
    node = origin.node
    outputs = [name for i, name in enumerate(node.output) if any(node.output[i:])]
    whole = onnx.NodeProto(op_type=node.op_type, domain=node.domain, input=node.input, output=outputs)
    for attribute in origin.attributes:
        own = whole.attribute.add()
        own.CopyFrom(attribute)
        for tensor in (*([own.t] if own.HasField("t") else ()), *own.tensors):
            if tensor.HasField("segment") or tensor.data_location == onnx.TensorProto.EXTERNAL:
                tensor.CopyFrom(onnx.numpy_helper.from_array(origin.tensors.read(tensor).array(), tensor.name))
    return whole


def _inferred(node: onnx.NodeProto, call: Call, origin: Origin, input_types: Sequence[Type | None]) -> list[Type | None]:
    """The output types by onnx's own rule; where it tells no type or no shape, the ones that the model declares."""
    form = form_of(call.domain, call.op, origin.opsets[call.domain])
    found: dict[str, onnx.TypeProto] = {}
    given = [(name, t) for name, t in zip(node.input, input_types, strict=False) if name]
    if form is not None and all(t is not None for _, t in given):
        types = {name: type_proto(t) for name, t in given}
        contents = {name: t.concrete for name, t in given if isinstance(t, TensorType)}
        data = {name: onnx.numpy_helper.from_array(c) for name, c in contents.items() if c is not None}
        imports = [onnx.helper.make_opsetid(d, v) for d, v in origin.opsets.items()]
        try:
            found = onnx.shape_inference.infer_node_outputs(form.schema, node, types, data, opset_imports=imports)
        except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError) as error:
            raise ModelError(" ".join(str(error).split())) from None
    return [
        _better(*(read_type(p[n], n, InferredDims()) if n in p else None for p in (found, origin.declared))) for n in node.output
    ]


def _better(told: Type | None, declared: Type | None) -> Type | None:
    """``told``, but for a ``declared`` type that knows the shape when it does not."""
    if told is None or (isinstance(told, TensorType) and told.shape is None and isinstance(declared, TensorType)):
        return declared or told
    return told

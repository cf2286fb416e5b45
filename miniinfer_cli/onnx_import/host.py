"""Operators that run on the host through onnx.reference: which, and the nodes that stand for them."""

import functools
from collections.abc import Sequence
from dataclasses import replace

import onnx
import onnx.numpy_helper

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Value
from miniinfer_cli.onnx_import.call import Call, Origin
from miniinfer_cli.onnx_import.host_types import host_output_types
from miniinfer_cli.onnx_import.registry import Handler
from miniinfer_cli.onnx_import.schemas import form_of
from miniinfer_cli.ops import OURS
from miniinfer_cli.ops.onnx_reference import adapter_attributes, adapter_supports


@functools.cache
def host_handler(domain: str, op: str, opset: int) -> Handler | None:
    """The handler that hands a node to the host adapter; None when onnx.reference cannot run ``op``."""
    return run_on_host if adapter_supports(domain, op, opset) else None


def run_on_host(call: Call) -> Sequence[Value]:
    """One OnnxReference node with the ONNX node inside and the types of its outputs."""
    if call.origin is None or call.graphs:
        raise ModelError(f"{call.op} has sub-graphs, which the host adapter does not run")
    # Other domains, whose versions may be any number, say nothing of this operator.
    origin = replace(call.origin, opsets={d: v for d, v in call.origin.opsets.items() if d in ("", call.domain)})
    form = form_of(call.domain, call.op, origin.opsets[call.domain])
    for index in form.single if form is not None else ():
        call.required(index)  # a function's body may name an input that its call leaves out
    input_types = [None if v is None else v.type for v in call.inputs]
    node = _whole_node(call, origin)
    output_types = host_output_types(node, call.domain, origin, call.attrs, input_types)
    attrs = adapter_attributes(node, origin.opsets, input_types, output_types)
    return call.result("OnnxReference", *call.inputs, domain=OURS, **attrs)


def _whole_node(call: Call, origin: Origin) -> onnx.NodeProto:
    """The node by itself: with the data of its tensors, without names of inputs that are left out, nor trailing outputs that
    nobody wants."""
    node = origin.node
    inputs = [name if call.input(i) is not None else "" for i, name in enumerate(node.input[: len(call.inputs)])]
    outputs = [name for i, name in enumerate(node.output) if any(node.output[i:])]
    whole = onnx.NodeProto(op_type=node.op_type, domain=node.domain, input=inputs, output=outputs)
    for attribute in origin.attributes:
        own = whole.attribute.add()
        own.CopyFrom(attribute)
        for tensor in (*([own.t] if own.HasField("t") else ()), *own.tensors):
            if tensor.HasField("segment") or tensor.data_location == onnx.TensorProto.EXTERNAL:
                tensor.CopyFrom(onnx.numpy_helper.from_array(origin.tensors.read(tensor).array(), tensor.name))
    return whole

"""Small ONNX models for the importer's tests, and what becomes of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Graph
from miniinfer_cli.ir.verifier import verify
from miniinfer_cli.onnx_import import import_model
from miniinfer_cli.ops.interpreter import interpret

F32, F16, F64, I64, I32, BOOL, STR = (
    TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL,
    TensorProto.STRING,
)  # fmt: skip

Formal = Mapping[str, tuple[int, Sequence[Any] | None]]  # name: element type, shape


def values(formal: Formal) -> list[onnx.ValueInfoProto]:
    return [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in formal.items()]


def subgraph(
    nodes: Sequence[onnx.NodeProto], inputs: Formal, outputs: Formal, stored: Mapping[str, Any] | None = None
) -> onnx.GraphProto:
    tensors = [onnx.numpy_helper.from_array(np.asarray(a), name) for name, a in (stored or {}).items()]
    return helper.make_graph(list(nodes), "body", values(inputs), values(outputs), tensors)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Formal,
    outputs: Formal,
    stored: Mapping[str, Any] | None = None,
    *,
    opset: int = 18,
    opsets: Mapping[str, int] | None = None,
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    """A model of one graph; ``stored`` are its initializers, as arrays or TensorProtos."""
    tensors = [
        a if isinstance(a, onnx.TensorProto) else onnx.numpy_helper.from_array(np.asarray(a), name)
        for name, a in (stored or {}).items()
    ]
    graph = helper.make_graph(list(nodes), "g", values(inputs), values(outputs), tensors)
    imports = [helper.make_opsetid(d, v) for d, v in {"": opset, **(opsets or {})}.items()]
    return helper.make_model(graph, opset_imports=imports, functions=list(functions), ir_version=10)


def read(proto: onnx.ModelProto, **options: Any) -> Graph:
    """The verified graph; the model must come out of it unchanged."""
    before = proto.SerializeToString(deterministic=True)
    graph = import_model(proto, **options)
    assert proto.SerializeToString(deterministic=True) == before
    verify(graph)
    return graph


def run(proto: onnx.ModelProto, *inputs: Any, **options: Any) -> list[Any]:
    """The outputs of the model as read."""
    return list(interpret(read(proto, **options), inputs))


def fault(proto: Any, **options: Any) -> str:
    """The message of the ModelError that reading the model raises, with its hint unless that is the one of its class."""
    with pytest.raises(ModelError) as caught:
        import_model(proto, **options)
    assert caught.value.exit_code == 3
    return str(caught.value).removesuffix(f"\n  hint: {ModelError.way_out}")


def ops_of(graph: Graph) -> list[str]:
    return [node.op for node in graph]

"""Names in a model are text: protobuf hands out as bytes a string that is not UTF-8, and that is refused here, early."""

from collections.abc import Iterable, Iterator
from typing import Any

import onnx

from miniinfer_cli.errors import ModelError


def expect_text(model: onnx.ModelProto) -> None:
    """Raises ModelError when a name of ``model`` that is looked at later is not text."""
    for name in _strings(model):
        if isinstance(name, bytes):
            raise ModelError(f"the name {name[:40]!r} is not UTF-8 text", hint="the file is damaged; copy or export it again")


def as_text(text: Any) -> str:
    """A description of the model as text, whatever it holds."""
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)


def _strings(model: onnx.ModelProto) -> Iterator[Any]:
    for opset in model.opset_import:
        yield opset.domain
    yield from _graph_strings(model.graph)
    for function in model.functions:
        yield from (function.name, function.domain, function.overload, *function.input, *function.output, *function.attribute)
        for opset in function.opset_import:
            yield opset.domain
        yield from _node_strings(function.node)
        yield from _attribute_strings(function.attribute_proto)


def _graph_strings(graph: onnx.GraphProto) -> Iterator[Any]:
    yield graph.name
    for tensor in (*graph.initializer, *(s.values for s in graph.sparse_initializer)):
        yield tensor.name
    for value in (*graph.input, *graph.output, *graph.value_info):
        yield value.name
    yield from _node_strings(graph.node)


def _node_strings(nodes: Iterable[onnx.NodeProto]) -> Iterator[Any]:
    for node in nodes:
        yield from (node.op_type, node.domain, node.name, node.overload, *node.input, *node.output)
        yield from _attribute_strings(node.attribute)


def _attribute_strings(attributes: Iterable[onnx.AttributeProto]) -> Iterator[Any]:
    for attribute in attributes:
        yield attribute.name
        yield attribute.ref_attr_name
        if attribute.HasField("g"):
            yield from _graph_strings(attribute.g)
        for graph in attribute.graphs:
            yield from _graph_strings(graph)

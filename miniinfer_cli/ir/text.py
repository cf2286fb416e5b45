"""Graphs as text, for people and for tests: ``print_graph`` writes it, ``parse_graph`` reads it back.

    graph main(x: f32[batch,64]) {
      w: f32[64,10] = const large "mapped model.onnx@128"
      half: f32[] = const 0.5
      y: f32[batch,10] = MatMul(x, w)
      z: f32[batch,10] = Clip(y, -, half) @head/clip
      p: f32[batch,10] = miniinfer.FusedPointwise(z) {tag="a"}
        body: graph FusedPointwise(z: f32[batch,10]) {
          q: f32[batch,10] = Neg(z)
          return q
        }
      return probabilities=p
    }

One statement per node: outputs with their types (left out where unknown), operation with its domain, inputs (``-`` for
one left out), attributes in braces, the node's name after ``@`` where it is not the first output's, then the body and the
sub-graphs, indented. A constant stands before its first reader. The text of a parsed text is that text; a large constant
comes back as a ``NamedConstant``, which has everything but contents.
"""

import json
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from engine_format.dtypes import DType
from miniinfer_cli.ir.arrays import Array, dtype_of, numpy_dtype, pack
from miniinfer_cli.ir.constants import (
    ArrayConstant,
    Concatenated,
    Constant,
    Filled,
    Mapped,
    MappedConstant,
    Reshaped,
    Sliced,
    Transposed,
)
from miniinfer_cli.ir.graph import Graph
from miniinfer_cli.ir.node import Node, Value
from miniinfer_cli.ir.text_reader import BARE_NAME, NamedConstant, parse_graph
from miniinfer_cli.ir.types import MapType, OptionalType, SequenceType, TensorType
from miniinfer_cli.visible import visible

__all__ = ["INLINE_SIZE", "NamedConstant", "describe_constant", "parse_graph", "print_graph"]

INLINE_SIZE = 32  # elements; larger constants are described, not listed


def print_graph(graph: Graph) -> str:
    """The text of ``graph``, ending in a newline."""
    return "\n".join(map(visible, _graph_lines(graph))) + "\n"


def describe_constant(handle: Constant) -> str:
    """What a handle is made of, in words: ``transposed [1,0] of mapped model.onnx@128``."""
    match handle:
        case NamedConstant():
            return handle.tag
        case ArrayConstant():
            return f"array {zlib.crc32(_bytes(handle.data, handle.dtype)):08x}"
        case MappedConstant():
            return f"mapped {handle.source or 'bytes'}"
        case Filled():
            return f"fill {_scalar(np.array(handle.value, numpy_dtype(handle.dtype))[()], handle.dtype)}"
        case Reshaped():
            return f"reshaped {describe_constant(handle.source)}"
        case Transposed():
            return f"transposed {_ints(handle.perm)} of {describe_constant(handle.source)}"
        case Sliced():
            return f"sliced at {_ints(handle.start)} of {describe_constant(handle.source)}"
        case Concatenated():
            return f"concatenated on {handle.axis} of ({'; '.join(map(describe_constant, handle.sources))})"
        case Mapped():
            return f"{handle.label or 'mapped'}({'; '.join(map(describe_constant, handle.sources))})"
    return type(handle).__name__


def _graph_lines(graph: Graph) -> Iterator[str]:
    parameters = [_typed(v) for v in graph.inputs]
    line = f"graph {_name(graph.name)}({', '.join(parameters)}) {{"
    if len(line) <= 120:
        yield line
    else:
        yield f"graph {_name(graph.name)}("
        yield from (f"    {p}," for p in parameters[:-1])
        yield f"    {parameters[-1]}) {{"
    shown: set[Value] = set()
    for node in graph:
        yield from _constant_lines(node.inputs, shown)
        yield f"  {_node_line(node)}"
        for key, inner in (*((("body", node.body),) if node.body is not None else ()), *node.graphs.items()):
            first, *others = _graph_lines(inner)
            yield f"    {_name(key)}: {first}"
            yield from (f"    {line}" for line in others)
    yield from _constant_lines(graph.outputs, shown)
    returned = [
        _name(v.name) if v.name == n else f"{_name(n)}={_name(v.name)}"
        for v, n in zip(graph.outputs, graph.output_names, strict=True)
    ]
    yield f"  return {', '.join(returned)}".rstrip()
    yield "}"


def _constant_lines(values: tuple[Value | None, ...], shown: set[Value]) -> Iterator[str]:
    for value in values:
        if value is not None and value.constant is not None and value not in shown:
            shown.add(value)
            yield f"  {_typed(value)} = const {_contents(value.constant)}"


def _node_line(node: Node) -> str:
    outputs = ", ".join(_typed(v) for v in node.outputs)
    inputs = ", ".join("-" if v is None else _name(v.name) for v in node.inputs)
    op = f"{node.domain}.{node.op}" if node.domain else node.op
    line = f"{outputs} = {op}({inputs})" if outputs else f"{op}({inputs})"
    if node.attrs:
        line += " {" + ", ".join(f"{k}={_attribute(v)}" for k, v in sorted(node.attrs.items())) + "}"
    if node.name != (node.outputs[0].name if node.outputs else node.op):
        line += f" @{_name(node.name)}"
    return line


def _typed(value: Value) -> str:
    return _name(value.name) if value.type is None else f"{_name(value.name)}: {value.type}"


def _name(name: str) -> str:
    return name if BARE_NAME.fullmatch(name) and name not in ("-", "return") else json.dumps(name)


def _contents(handle: Constant) -> str:
    if isinstance(handle, Filled) and handle.shape:
        return describe_constant(handle)
    if isinstance(handle, NamedConstant) or handle.size > INLINE_SIZE:
        return f"large {json.dumps(describe_constant(handle))}"
    return _literal(handle.array(), handle.dtype)


def _literal(array: Array, dtype: DType) -> str:
    items = [_scalar(x, dtype) for x in array.reshape(-1)]
    if array.ndim == 0:
        return items[0]
    return f"[{', '.join(items)}]"


def _scalar(x: Any, dtype: DType) -> str:
    if dtype is DType.STR:
        return json.dumps(x.decode() if isinstance(x, bytes) else str(x))
    if dtype is DType.BOOL:
        return "true" if x else "false"
    if dtype in (DType.C64, DType.C128):
        return f"{x.real}{x.imag:+}j"
    if dtype.is_integer:
        return str(int(x))
    return str(x if dtype in (DType.F64, DType.F32, DType.F16) else np.float32(x))


def _attribute(value: Any) -> str:
    if isinstance(value, np.ndarray):
        dtype = dtype_of(value)
        return f"{TensorType(dtype, value.shape)} {_literal(value, dtype)}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_attribute, value))}]"
    if isinstance(value, str):
        return json.dumps(str(value))
    if isinstance(value, (TensorType, SequenceType, OptionalType, MapType)):
        return f"type {value}"
    return str(value)


def _ints(items: tuple[int, ...]) -> str:
    return "[" + ",".join(map(str, items)) + "]"


def _bytes(array: Array, dtype: DType) -> bytes:
    return "\0".join(map(str, array.reshape(-1))).encode() if dtype is DType.STR else pack(array, dtype)

"""Running one operation with its shape rule held against its reference: what the tests of operations are made of."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from miniinfer_cli.ir import Array, DType, Graph, Node, TensorType, Value, dtype_of, numpy_dtype
from miniinfer_cli.ops import infer_node, lookup
from miniinfer_cli.ops.interpreter import interpret

# The floating-point types that arithmetic is defined for, with the error allowed relative to f64: half a step.
FLOATS = {"float64": 1e-15, "float32": 1.2e-7, "float16": 5e-4, "bfloat16": 4e-3}


@dataclass(frozen=True)
class Told:
    """An input whose contents the shape rule is told, as it is told a constant's."""

    data: Array


def told(*items: int) -> Told:
    """A vector of i64 that the shape rule is told."""
    return Told(np.array(items, np.int64))


def array(items: Any, dtype: str) -> Array:
    """An array of the element type that numpy or ml_dtypes calls ``dtype``."""
    named = next((d for d in DType if d is not DType.STR and numpy_dtype(d).name == dtype), DType.STR)
    wide = np.asarray(items)
    return wide.astype(np.float32).astype(numpy_dtype(named)) if named.is_half else wide.astype(numpy_dtype(named))


def single_node(op: str, *inputs: Any, n_outputs: int = 1, domain: str = "", **attrs: Any) -> Node:
    """A node in a graph of its own, reading graph inputs of the types of these arrays (or of these types)."""
    graph = Graph("test")
    operands: list[Value | None] = []
    for i, x in enumerate(inputs):
        type = TensorType(dtype_of(x), x.shape) if isinstance(x, np.ndarray) else x
        if isinstance(x, Told):
            dtype = DType.I64 if x.data.dtype == object else dtype_of(x.data)
            type = TensorType(dtype, x.data.shape, x.data)
        operands.append(None if x is None else graph.add_input(f"x{i}", type))
    outputs = [graph.new_value(f"y{i}") for i in range(n_outputs)]
    node = graph.add_node(op, operands, outputs, domain=domain, attrs=attrs)
    graph.set_outputs(outputs)
    return node


def infer(op: str, *inputs: Any, n_outputs: int = 1, domain: str = "", **attrs: Any) -> Any:
    """The output type (a tuple of several) of one node for these arrays or types."""
    node = single_node(op, *inputs, n_outputs=n_outputs, domain=domain, **attrs)
    types = infer_node(node, [None if v is None else v.type for v in node.inputs])
    return types[0] if n_outputs == 1 else types


def run(op: str, *inputs: Array | Told | None, n_outputs: int = 1, domain: str = "", **attrs: Any) -> Any:
    """The output array (a tuple of several) of one node; its type and shape are what the shape rule says."""
    node = single_node(op, *inputs, n_outputs=n_outputs, domain=domain, **attrs)
    types = infer_node(node, [None if v is None else v.type for v in node.inputs])
    results = lookup(domain, op).evaluate([_data(x) for x in inputs], attrs, n_outputs=n_outputs)
    for result, type in zip(results, types, strict=True):
        assert isinstance(result, np.ndarray)
        assert (dtype_of(result), result.shape) == (type.dtype, type.shape)
    return results[0] if n_outputs == 1 else results


def run_expanded(op: str, *inputs: Array | Told | None, n_outputs: int = 1, domain: str = "", **attrs: Any) -> Any:
    """The same output by the operation's expansion, in which the operation itself does not occur."""
    node = single_node(op, *inputs, n_outputs=n_outputs, domain=domain, **attrs)
    graph = node.graph
    assert graph is not None
    for value, type in zip(node.outputs, infer_node(node, [None if v is None else v.type for v in node.inputs]), strict=True):
        graph.set_type(value, type)
    replacements = lookup(domain, op).expand(graph, node)
    assert [v.type for v in replacements] == [v.type for v in node.outputs]
    graph.set_outputs(replacements)
    graph.remove(node)
    assert op not in [n.op for n in graph]
    results = interpret(graph, [_data(x) for x in inputs if x is not None])
    return results[0] if n_outputs == 1 else results


def contents(op: str, *inputs: Any, **attrs: Any) -> list[Any] | None:
    """What inference knows of the output's contents when the inputs' contents are these lists; None for nothing.

    A list is i64, or bool when its items are.
    """
    types = []
    for items in inputs:
        known = np.array(items, object)
        dtype = DType.BOOL if isinstance(known.reshape(-1)[0], bool) else DType.I64
        types.append(TensorType(dtype, known.shape, known))
    node = single_node(op, *types, **attrs)
    (type,) = infer_node(node, types)
    assert isinstance(type, TensorType)
    return None if type.known is None else type.known.tolist()


def _data(x: Array | Told | None) -> Array | None:
    return x.data if isinstance(x, Told) else x

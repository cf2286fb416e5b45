"""Inputs and outputs of a graph in other element types, with Casts at its borders; the graph within is what it was."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from miniinfer_cli.ir import Array, DType, Graph, TensorType, Value, numpy_dtype
from miniinfer_cli.ops.type_codes import code_of_dtype
from miniinfer_cli.passes.recipes import map_constants


def retype_bindings(graph: Graph, inputs: Mapping[str, DType], outputs: Mapping[str, DType]) -> int:
    """Gives inputs and outputs, tensors by name, these element types, and defaults of inputs, too. Counts those that changed."""
    changed = 0
    for value in graph.inputs:
        if value.name in inputs and value.tensor.dtype is not inputs[value.name]:
            _retype_input(graph, value, inputs[value.name])
            changed += 1
    found = []
    for value, name in zip(graph.outputs, graph.output_names, strict=True):
        dtype = outputs.get(name)
        if dtype is not None and value.tensor.dtype is not dtype:
            changed += 1
            value = _cast(graph, value, dtype)
        found.append(value)
    graph.set_outputs(found, graph.output_names)
    return changed


def _retype_input(graph: Graph, value: Value, dtype: DType) -> None:
    before = value.tensor
    graph.set_type(value, replace(before, dtype=dtype, known=None))
    default = graph.defaults.get(value.name)
    if default is not None:
        graph.defaults[value.name] = map_constants(lambda block: _as(block, dtype), [default], dtype, default.shape, str(dtype))
    readers = value.users
    if not readers and not graph.is_output(value):
        return
    first = next(iter(graph), None)
    inner = graph.add("Cast", value, out=value.name, type=before, before=first, to=code_of_dtype(before.dtype))
    graph.replace_uses(value, inner)
    if inner.producer is not None:
        graph.set_inputs(inner.producer, (value,))


def _cast(graph: Graph, value: Value, dtype: DType) -> Value:
    type: TensorType = replace(value.tensor, dtype=dtype, known=None)
    return graph.add("Cast", value, out=f"{value.name}_{dtype}", type=type, to=code_of_dtype(dtype))


def _as(block: Array, dtype: DType) -> Array:
    with np.errstate(all="ignore"):
        return block.astype(numpy_dtype(dtype))

"""A node on the host through its numpy reference, with the faults of its data told as the user's."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from miniinfer_cli.errors import InputDataError, MiniinferError, ModelError
from miniinfer_cli.ir import DType, Node, TensorType, Type
from miniinfer_cli.ops.interpreter import interpret_node
from miniinfer_cli.ops.products import ForEach
from miniinfer_cli.ops.registry import RunGraph, find, lookup


def run_reference(node: Node, operands: Sequence[Any], run_graph: RunGraph, for_each: ForEach | None = None) -> tuple[Any, ...]:
    """The outputs of ``node``; its sub-graphs are run by ``run_graph``, its products shared by ``for_each``.

    Raises InputDataError for what the data do not allow, ModelError where it is the model's own constants that do not fit.
    """
    try:
        if not node.graphs:
            return interpret_node(node, operands, for_each)
        try:
            return lookup(node.domain, node.op).evaluate(
                operands, node.attrs, n_outputs=len(node.outputs), graphs=node.graphs, run_graph=run_graph, for_each=for_each
            )
        except MiniinferError as error:
            raise error.at(place_of(node)) from None
    except ModelError as error:
        if node.graphs or not _decided_by_data(node):
            raise
        raise InputDataError(error.message, hint=error.hint, where=error.where) from error
    except (IndexError, ValueError, ArithmeticError) as error:
        # The types went through the shape rule, so it is the contents that numpy refuses.
        hint = "is an index, a size or a position in the input data out of range?"
        kind = InputDataError if _decided_by_data(node) else ModelError
        raise kind(f"{kind_of(node)}: {error}", hint=hint, where=(place_of(node),)) from error


def _decided_by_data(node: Node) -> bool:
    """Whether what steers the node (indices, sizes, axes: whatever stands behind its first operand) comes out of data."""
    steering = [v for v in node.inputs[1:] if v is not None] or [v for v in node.inputs if v is not None]
    return any(v.constant is None for v in steering)


def place_of(node: Node) -> str:
    """The node, as errors name the place."""
    return f"node {node.name!r}"


def kind_of(node: Node) -> str:
    """The operation, with its domain if it is not ONNX's."""
    return f"{node.domain}.{node.op}" if node.domain else node.op


def is_same_bytes(node: Node) -> bool:
    """True when the node's only output is its first input's bytes."""
    opdef = find(node.domain, node.op)
    return opdef is not None and opdef.view and len(node.outputs) == 1


def static_tensor(type: Type | None) -> TensorType | None:
    """The type when it is a tensor of fixed-width elements whose shape is all ints."""
    if isinstance(type, TensorType) and type.is_static and type.dtype is not DType.STR:
        return type
    return None


def settled(types: Sequence[Type | None]) -> list[Any] | None:
    """The contents of a node's outputs when all of them follow from the shapes alone; None otherwise."""
    arrays = [t.concrete if isinstance(t, TensorType) else None for t in types]
    if not arrays or any(a is None for a in arrays):
        return None
    return [np.asarray(a) for a in arrays]


def own(value: Any) -> Any:
    """``value`` with copies of its arrays, for whoever is to keep it."""
    if isinstance(value, list):
        return [own(item) for item in value]
    return value.copy() if isinstance(value, np.ndarray) else value

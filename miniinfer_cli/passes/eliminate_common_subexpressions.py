"""Computes once what is computed twice: equal operations on equal inputs, equal constants, equal shape arithmetic."""

from collections.abc import Hashable
from typing import Any

import numpy as np

from miniinfer_cli.ir import Constant, DType, Graph, Node, TensorType, Value
from miniinfer_cli.ir.constants import Filled, MappedConstant, content_key
from miniinfer_cli.ops import find


def eliminate_common_subexpressions(graph: Graph) -> int:
    """Gives the number of nodes and constants that took the value of an earlier one."""
    merged = 0
    first: dict[Hashable, Value] = {}
    for value in list(graph.constants()):
        if value.constant is not None and (key := _constant_key(value.constant)) is not None:
            merged += _replace(graph, value, first.setdefault(key, value))
    seen: dict[Hashable, tuple[Value, ...]] = {}
    for node in graph.nodes:
        keys = [k for k in (_node_key(node), _contents_key(node)) if k is not None]
        earlier = next((seen[k] for k in keys if k in seen), None)
        seen.update((k, earlier or node.outputs) for k in keys if k not in seen)
        if earlier is not None:
            graph.replace_node(node, earlier)
            merged += 1
    return merged


def _replace(graph: Graph, value: Value, by: Value) -> int:
    if value is by:
        return 0
    graph.replace_uses(value, by)
    return 1


def _constant_key(handle: Constant) -> Hashable | None:
    """Equal for constants of equal contents; None where telling would mean reading a large one."""
    kind = (handle.dtype, handle.shape)
    if isinstance(handle, Filled):
        return (*kind, "filled", np.asarray(handle.value).tobytes())
    if isinstance(handle, MappedConstant) and handle.source and not handle.is_small:
        return (*kind, "mapped", handle.source)
    if handle.is_small and handle.dtype.bits:
        return (*kind, "small", np.ascontiguousarray(handle.array()).tobytes())
    return None if handle.is_small else content_key(handle)


def _node_key(node: Node) -> Hashable | None:
    opdef = find(node.domain, node.op)
    if opdef is None or opdef.random or node.graphs or node.body is not None or not node.outputs:
        return None
    attrs = tuple((k, _freeze(v)) for k, v in sorted(node.attrs.items()))
    return (node.domain, node.op, node.inputs, len(node.outputs), attrs)


def _contents_key(node: Node) -> Hashable | None:
    """Equal for integers computed from shapes that inference found to be the same expressions, however they are computed."""
    type = node.outputs[0].type if len(node.outputs) == 1 else None
    if not isinstance(type, TensorType) or type.known is None or type.known.dtype != object or type.dtype is DType.STR:
        return None
    return ("contents", type.dtype, type.shape, tuple(type.known.reshape(-1).tolist()))


def _freeze(value: Any) -> Hashable:
    if isinstance(value, np.ndarray):
        return ("array", value.dtype.str, value.shape, value.tobytes() if value.dtype != object else tuple(value.reshape(-1)))
    if isinstance(value, (list, tuple)):
        return tuple(map(_freeze, value))
    # 1, 1.0 and True are equal keys and different attributes.
    return (type(value).__name__, repr(value) if isinstance(value, float) else value)

"""What a graph computes of lengths alone, at chosen sizes: positions, lengths and masks as numbers.

Exporters write positions and masks in many ways. What they come to is the same few functions of the number of rows that are held
and of new ones; so they are computed, at sizes up to the capacity, and told by their values.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from miniinfer_cli.errors import MiniinferError, ModelError
from miniinfer_cli.ir import Array, Dim, Graph, Node, TensorType, Type, Value, numpy_dtype
from miniinfer_cli.ir.dims import evaluate
from miniinfer_cli.ops.inference import infer_graph
from miniinfer_cli.ops.interpreter import interpret_node

_MOST = 1 << 24  # elements of a value that is computed here; a larger one (a mask of tokens by very many rows) is not looked at


@dataclass(frozen=True, slots=True)
class Point:
    """Sizes: slots of the batch, new rows, rows that are held already, rows that there is room for."""

    batch: int
    new: int
    held: int
    room: int


def mask(point: Point) -> Array:
    """All tokens count."""
    return np.ones((point.batch, point.held + point.new), np.int64)


def positions(point: Point) -> Array:
    """Where the new tokens stand, for each slot."""
    return np.broadcast_to(np.arange(point.held, point.held + point.new), (point.batch, point.new))


MEANINGS: dict[str, Callable[[Point], Array]] = {
    "attention_mask": mask,
    "position_ids": positions,
    "cache_position": lambda point: np.arange(point.held, point.held + point.new),
    "seqlens_k": lambda point: np.full(point.batch, point.held + point.new - 1),
    "total_sequence_length": lambda point: np.array(point.held + point.new),
    "past_sequence_length": lambda point: np.array(point.held),
    "write_indices": lambda point: np.full(point.batch, point.held),
    "nonpad_kv_seqlen": lambda point: np.full(point.batch, point.held + point.new),
}
"""Inputs that follow from lengths, by the names that exporters and ONNX give them: what they are at a point."""


def meaning_of(value: Value) -> str:
    """The key in MEANINGS of an input that follows from lengths, by its name or by who reads it; empty for others."""
    if value.name in MEANINGS:
        return value.name
    readers = _through_casts(value)
    if any(n.is_op("TensorScatter") and v in n.inputs[2:3] for n, v in readers):
        return "write_indices"
    if any(n.is_op("Attention") and v in n.inputs[6:7] for n, v in readers):
        return "nonpad_kv_seqlen"
    return ""


def _through_casts(value: Value) -> list[tuple[Node, Value]]:
    """The readers of a value, and of what is it in another type or shape; each with what it reads."""
    found: list[tuple[Node, Value]] = []
    for node in value.users:
        if node.is_op("Cast", "Reshape", "Squeeze", "Unsqueeze") and node.inputs[0] is value:
            found += _through_casts(node.output)
        found.append((node, value))
    return found


def given_at(value: Value, point: Point) -> Array:
    """What an input that follows from lengths is at a point, in its own type and rank.

    Raises ModelError for one that it cannot be.
    """
    kind = value.tensor
    array = np.asarray(MEANINGS[meaning_of(value)](point))
    if kind.shape is not None and len(kind.shape) != array.ndim:
        if len(kind.shape) < array.ndim:
            raise ModelError(f"input {value.name!r} is {value.type}, expected rank {array.ndim}")
        array = array.reshape((1,) * (len(kind.shape) - array.ndim) + array.shape)
    return array.astype(numpy_dtype(kind.dtype))


def values_at(graph: Graph, sizes: Mapping[str, int], given: Mapping[Value, Array]) -> dict[Value, Array]:
    """All values that follow from shapes, constants and the inputs ``given``, where named dimensions have these ``sizes``.

    Raises ModelError when the sizes do not go through the graph.
    """
    types = infer_graph(graph, [_type(v, sizes, given.get(v)) for v in graph.inputs])
    found: dict[Value, Array] = dict(given)

    def read(value: Value) -> Array | None:
        if value not in found and value.constant is not None and value.constant.is_small:
            found[value] = value.constant.array()
        return found.get(value)

    for node in graph:
        kinds = [types.get(v) for v in node.outputs]
        known = [k.concrete if isinstance(k, TensorType) else None for k in kinds]
        if known and all(k is not None for k in known):
            found.update((v, np.asarray(k)) for v, k in zip(node.outputs, known, strict=True))
            continue
        operands = [None if v is None else read(v) for v in node.inputs]
        is_there = all(v is None or o is not None for v, o in zip(node.inputs, operands, strict=True))
        if not is_there or node.graphs or not operands or not all(_is_moderate(k) for k in kinds):
            continue
        with np.errstate(all="ignore"):
            results: Sequence[Any] = interpret_node(node, operands)
        found.update(zip(node.outputs, results, strict=False))
    return found


def sizes_at(dims: Mapping[str, str], point: Point) -> dict[str, int]:
    """The sizes of dimensions, by what each counts: ``batch``, ``new``, ``held`` or ``room``."""
    return {name: getattr(point, what) for name, what in dims.items()}


def _type(value: Value, sizes: Mapping[str, int], given: Array | None) -> Type | None:
    kind = value.type
    if not isinstance(kind, TensorType) or kind.shape is None:
        return kind
    if given is not None:
        return TensorType(kind.dtype, given.shape)
    shape: list[Dim] = []
    for dim in kind.shape:
        size = evaluate(dim, sizes)
        shape.append(1 if size is None else size)
    return TensorType(kind.dtype, tuple(shape))


def _is_moderate(kind: Type | None) -> bool:
    if not isinstance(kind, TensorType) or not kind.is_static:
        return False
    return math.prod(d for d in kind.shape or () if isinstance(d, int)) <= _MOST


def try_points(points: Sequence[Point], compute: Any) -> list[tuple[Point, dict[Value, Array]]]:
    """``compute(point)`` for each point, without those whose sizes the model does not take. Raises what all of them raise."""
    found: list[tuple[Point, dict[Value, Array]]] = []
    fault: MiniinferError | None = None
    for point in points:
        try:
            found.append((point, compute(point)))
        except MiniinferError as error:
            fault = fault or error
    if not found and fault is not None:
        raise fault
    return found

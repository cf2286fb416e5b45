"""Computes what does not depend on the graph's inputs: shape arithmetic, and operations on constants.

A small result becomes an array. A large one is never computed here: operations that move, join, cut or map elements turn
into recipes over the constants they read, and everything else that would be large stays an operation. So does what would let the
constants of the whole build grow beyond its limit, what would compute for too long, and what memory does not suffice for.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from miniinfer_cli.errors import MiniinferError
from miniinfer_cli.ir import Array, Constant, DType, Graph, Node, TensorType, constant
from miniinfer_cli.ir.arrays import numpy_dtype
from miniinfer_cli.ir.constants import CHUNK_NBYTES, SMALL_NBYTES, STRING_NBYTES, Filled
from miniinfer_cli.limits import FOLD_STEPS, KNOWN_CHARACTERS, RECIPE_STEPS
from miniinfer_cli.ops import OpDef, find
from miniinfer_cli.ops.agreement import expect_told
from miniinfer_cli.ops.pointwise import is_pointwise
from miniinfer_cli.ops.work import NEVER
from miniinfer_cli.passes.operands import concrete, constant_handle, dims, known_ints
from miniinfer_cli.passes.recipes import (
    concatenate_constants,
    map_constants,
    reshape_constant,
    slice_constant,
    transpose_constant,
)

# The largest array that folding keeps in memory, for results that no recipe describes (a causal mask, a position table).
LARGEST_RESULT_NBYTES = 4 << 20
# The largest strings that are computed with: each operation may double their length, which no type tells.
LARGEST_STRINGS_NBYTES = 16 * KNOWN_CHARACTERS.value
# Folding must not swell the plan: a result may be this many times the size of what it was made from,
LARGEST_GROWTH = 2
# or so little of the model: the masks of windows, which are made of a few rows of numbers, are added up in no run.
SMALL_PART = 1 / 32


def fold_constants(graph: Graph) -> int:
    """Gives the number of nodes that became constants."""
    folded = 0
    for node in graph.nodes:
        handles = _fold_within(node, graph)
        if handles is not None:
            _check_types(node, handles)
            graph.fold_node(node, handles)
            folded += 1
    return folded


def note_unfolded(graph: Graph) -> tuple[str, ...]:
    """A line on the nodes of ``graph``, and of all graphs inside it, that the limit of steps kept from being folded, if any."""
    budget, left = graph.budget, {}
    for node in _all_nodes(graph):
        op, steps = budget.too_long.get(node.name, ("", 0))
        if node.op == op:
            left[node.name] = steps
    if not left:
        return ()
    name = max(left, key=lambda n: left[n])
    op, steps = budget.too_long[name]
    largest = f"{'the largest, ' if len(left) > 1 else ''}node {name!r} ({op})"
    count = f"{len(left)} nodes read constants only, and are" if len(left) > 1 else "a node reads constants only, and is"
    value = budget.limits.of(FOLD_STEPS)
    return (
        f"{count} computed in every run: {largest} takes {_rough(steps)} steps,"
        f" all of folding has {value} (--limit {FOLD_STEPS.name}=N sets another number)",
    )


def _rough(steps: int) -> str:
    return f"{steps:.1e}" if steps < NEVER else "any number of"


def _all_nodes(graph: Graph) -> Iterator[Node]:
    for node in graph:
        yield node
        for inner in (*((node.body,) if node.body is not None else ()), *node.graphs.values()):
            yield from _all_nodes(inner)


def _fold_within(node: Node, graph: Graph) -> Sequence[Constant] | None:
    """The constants that take the place of the node's outputs; None where there are none within the budget, or the memory."""
    try:
        handles = _fold(node, graph)
    except MemoryError:
        return None
    if handles is None:
        return None
    grown = sum(h.stored_nbytes for h in handles) - _freed_nbytes(node, graph)
    if not graph.budget.has_room(grown):
        return None
    graph.budget.grow(grown)
    return handles


def _freed_nbytes(node: Node, graph: Graph) -> int:
    """Bytes of the constants that nothing reads any more once the node is gone."""
    read = {v for v in node.inputs if v is not None and v.constant is not None and len(v.users) == 1 and not graph.is_output(v)}
    return sum(v.constant.stored_nbytes for v in read if v.constant is not None)


def _fold(node: Node, graph: Graph) -> Sequence[Constant] | None:
    opdef = find(node.domain, node.op)
    if opdef is None or opdef.random or node.graphs or node.body is not None or _is_quantized_weight(node):
        return None
    if any(v is not None and v.producer is not None and _is_quantized_weight(v.producer) for v in node.inputs):
        return None  # a small one's contents are known, and would be stored as floats
    types = [v.type for v in node.outputs]
    if not types or not all(isinstance(t, TensorType) for t in types):
        return None
    known = [constant_handle(v) for v in node.outputs]
    if all(h is not None for h in known):
        return [h for h in known if h is not None]
    inputs = [constant_handle(v) for v in node.inputs]
    if any(h is None and v is not None for h, v in zip(inputs, node.inputs, strict=True)):
        return None
    told = sum(_nbytes(v.tensor) for v in node.outputs if v.tensor.is_static)
    if not graph.budget.has_room(told) and not graph.budget.has_room(told - _freed_nbytes(node, graph)):
        return None  # so that nothing is computed in vain
    large = any(_nbytes(v.tensor) > LARGEST_RESULT_NBYTES for v in node.outputs if v.tensor.is_static)
    if large and any(h is not None and h.steps >= RECIPE_STEPS.value for h in inputs):
        return None  # a recipe of so many steps is computed at once, and this one is too large for that
    handles = _RECIPES[node.op](node, inputs) if node.domain == "" and node.op in _RECIPES else None
    if handles is None and is_pointwise(node) and len(node.outputs) == 1:
        handles = _map(opdef, node, inputs, graph)
    return handles if handles is not None else _evaluate(opdef, node, inputs, graph)


def _check_types(node: Node, handles: Sequence[Constant]) -> None:
    for handle, value in zip(handles, node.outputs, strict=True):
        type = TensorType(handle.dtype, handle.shape)
        if value.tensor.dtype is not type.dtype or (value.tensor.is_static and value.tensor != type):
            raise TypeError(f"{node!r} was folded to {type}; its shape rule says {value.type}")


def _is_quantized_weight(node: Node) -> bool:
    """True for a DequantizeLinear of a matrix or kernel: the weight is worth more in its narrow type."""
    shape = dims(node.inputs[0]) if node.is_op("DequantizeLinear") else None
    return shape is not None and len(shape) >= 2


def _evaluate(opdef: OpDef, node: Node, inputs: Sequence[Constant | None], graph: Graph) -> Sequence[Constant] | None:
    """The results computed now; None when they, or what they are computed from, are too large for that."""
    if sum(h.stored_nbytes for h in inputs if h is not None and h.dtype is DType.STR) > LARGEST_STRINGS_NBYTES:
        return None
    size_in = sum(h.nbytes for h in inputs if h is not None)
    limit = min(_most_nbytes(size_in, graph), LARGEST_RESULT_NBYTES)
    if size_in > CHUNK_NBYTES or any(not v.tensor.is_static or _nbytes(v.tensor) > limit for v in node.outputs):
        return None
    arrays = [None if h is None else h.array() for h in inputs]
    steps = opdef.steps(arrays, [v.tensor for v in node.outputs], node.attrs)
    if not graph.budget.spend(steps, node.name, node.op):
        return None
    try:
        with np.errstate(all="ignore"):
            results = opdef.evaluate(arrays, node.attrs, n_outputs=len(node.outputs))
    except (MiniinferError, IndexError, ValueError, ArithmeticError):
        return None  # stays an operation, which says so where it is run: a branch that is never taken may hold it
    for result, value in zip(results, node.outputs, strict=False):
        expect_told(opdef.name, np.asarray(result), value.type, (f"node {node.name!r}",))
    return [constant(np.asarray(r)) for r, _ in zip(results, node.outputs, strict=False)]


def _most_nbytes(size_in: int, graph: Graph) -> int:
    """What a result may take that is made of so many bytes."""
    return max(SMALL_NBYTES, LARGEST_GROWTH * size_in, int(SMALL_PART * (graph.budget.model_nbytes or 0)))


def _map(opdef: OpDef, node: Node, inputs: Sequence[Constant | None], graph: Graph) -> Sequence[Constant] | None:
    """A recipe for an elementwise operation, unless broadcasting or a wider type makes the result much larger."""
    type = node.output.tensor
    sources = [h for h in inputs if h is not None]
    if len(sources) < len(inputs) or not sources or not type.is_static or type.shape is None:
        return None
    if _nbytes(type) > LARGEST_RESULT_NBYTES and sum(h.steps for h in sources) >= RECIPE_STEPS.value:
        return None
    if _nbytes(type) > _most_nbytes(sum(h.nbytes for h in sources), graph) and not all(isinstance(h, Filled) for h in sources):
        return None
    function = functools.partial(_call, opdef, dict(node.attrs))
    return [map_constants(function, sources, type.dtype, _static(type), node.op)]


def _call(opdef: OpDef, attrs: dict[str, Any], *blocks: Array) -> Array:
    with np.errstate(all="ignore"):
        return np.asarray(opdef.evaluate(blocks, attrs, n_outputs=1)[0])


# -- recipes for the operations that move elements -----------------------------------------------------------------------


def _same(node: Node, inputs: Sequence[Constant]) -> Sequence[Constant] | None:
    """The constant itself, where nothing is done to it: one of its own would be stored again."""
    return [inputs[0]] if node.output.tensor.dtype is inputs[0].dtype else None


def _transpose(node: Node, inputs: Sequence[Constant]) -> Sequence[Constant]:
    rank = len(inputs[0].shape)
    return [transpose_constant(inputs[0], node.attrs.get("perm") or tuple(reversed(range(rank))))]


def _reshape(node: Node, inputs: Sequence[Constant]) -> Sequence[Constant] | None:
    type = node.output.tensor
    return [reshape_constant(inputs[0], _static(type))] if type.is_static else None


def _concat(node: Node, inputs: Sequence[Constant]) -> Sequence[Constant]:
    return [concatenate_constants(inputs, node.attrs["axis"] % len(inputs[0].shape))]


def _split(node: Node, inputs: Sequence[Constant]) -> Sequence[Constant]:
    axis = node.attrs.get("axis", 0) % len(inputs[0].shape)
    parts, at = [], 0
    for value in node.outputs:
        shape = _static(value.tensor)
        parts.append(slice_constant(inputs[0], [at if i == axis else 0 for i in range(len(shape))], shape))
        at += shape[axis]
    return parts


def _slice(node: Node, inputs: Sequence[Constant]) -> Sequence[Constant] | None:
    source, type = inputs[0], node.output.tensor
    starts = known_ints(node.inputs[1])
    axes = known_ints(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] else None
    steps = known_ints(node.inputs[4]) if len(node.inputs) > 4 else None
    if starts is None or not type.is_static or (steps is not None and set(steps) != {1}):
        return None
    begin = [0] * len(source.shape)
    for axis, start in zip(axes or range(len(starts)), starts, strict=True):
        size = source.shape[axis]
        begin[axis] = min(max(start + size if start < 0 else start, 0), size)
    return [slice_constant(source, begin, _static(type))]


def _gather(node: Node, inputs: Sequence[Constant]) -> Sequence[Constant] | None:
    """A Gather of one index or of consecutive ones is a block of the source."""
    source, indices, type = inputs[0], concrete(node.inputs[1]), node.output.tensor
    if indices is None or indices.size == 0 or not type.is_static:
        return None
    axis = node.attrs.get("axis", 0) % len(source.shape)
    flat = indices.reshape(-1).astype(np.int64)
    flat = np.where(flat < 0, flat + source.shape[axis], flat)
    if not np.array_equal(flat, np.arange(flat[0], flat[0] + flat.size)) or flat[0] < 0 or flat[-1] >= source.shape[axis]:
        return None
    start = [int(flat[0]) if i == axis else 0 for i in range(len(source.shape))]
    block = slice_constant(source, start, [flat.size if i == axis else n for i, n in enumerate(source.shape)])
    return [reshape_constant(block, _static(type))]


def _constant_of_shape(node: Node, inputs: Sequence[Constant]) -> Sequence[Constant] | None:
    type = node.output.tensor
    value = node.attrs.get("value")
    fill = np.zeros((), numpy_dtype(type.dtype))[()] if value is None else np.asarray(value).reshape(-1)[0]
    return _filled(type, fill)


def _expand(node: Node, inputs: Sequence[Constant]) -> Sequence[Constant] | None:
    source, type = inputs[0], node.output.tensor
    if isinstance(source, Filled) or source.size == 1:
        return _filled(type, source.block(tuple(slice(0, 1) for _ in source.shape)).reshape(-1)[0])
    return None


def _filled(type: TensorType, value: Any) -> Sequence[Constant] | None:
    """One repeated element; large ones stay operations, for a plan would have to store them."""
    if not type.is_static or _nbytes(type) > LARGEST_RESULT_NBYTES:
        return None
    return [Filled(type.dtype, _static(type), value)] if type.shape else [constant(np.array(value, numpy_dtype(type.dtype)))]


def _static(type: TensorType) -> tuple[int, ...]:
    return tuple(d for d in type.shape or () if isinstance(d, int))


def _nbytes(type: TensorType) -> int:
    count = math.prod(_static(type))
    return count * STRING_NBYTES if type.dtype is DType.STR else type.dtype.nbytes(count)


_RECIPES: dict[str, Callable[[Node, Sequence[Any]], Sequence[Constant] | None]] = {
    "Cast": _same,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Flatten": _reshape,
    "Gather": _gather,
    "Identity": _same,
    "Reshape": _reshape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _reshape,
    "Transpose": _transpose,
    "Unsqueeze": _reshape,
}

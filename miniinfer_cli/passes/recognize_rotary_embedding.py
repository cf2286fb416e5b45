"""Decomposed rotary position embedding -> RotaryEmbedding, for heads [batch, heads, length, size].

    x * cos + rotate(x) * sin,  rotate(x) = Concat(-x2, x1),  x1 and x2 the halves of x        as transformers writes it
    Concat(x1 * cos - x2 * sin, x2 * cos + x1 * sin)                                            as others do

In the first form cos and sin are as long as a head and repeat their first half, which is what the node wants; that they do is
followed up to where they were joined. What is turned may be the first part of each head, the rest being joined on behind.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations, product

import numpy as np

from miniinfer_cli.ir import Dim, Graph, Node, Value
from miniinfer_cli.ops import insert
from miniinfer_cli.passes.cancel_reshapes import VIEWS
from miniinfer_cli.passes.operands import constant_handle, dims, known_ints, scalar, sole_user
from miniinfer_cli.passes.recipes import slice_constant
from miniinfer_cli.passes.reshape_targets import insert_reshape, reshape_target

_DEPTH = 12
_LARGEST = 1 << 22  # elements of a constant that are worth looking at


def recognize_rotary_embedding(graph: Graph) -> int:
    """Gives the number of RotaryEmbedding nodes put in or widened."""
    fired = 0
    for node in graph.nodes:
        if node in graph and node.is_op("Add"):
            fired += _rewrite(graph, node, _whole(node))
        elif node in graph and node.is_op("Concat") and _is_last(node, node.attrs["axis"]) and len(node.inputs) == 2:
            fired += _rewrite(graph, node, _by_halves(node)) or _widen(graph, node)
    return fired


@dataclass(frozen=True, slots=True)
class _Turned:
    """``x``, and the cosines and sines: for both halves of a head, or (``is_half``) for one."""

    x: Value
    cos: Value
    sin: Value
    is_half: bool


@dataclass(frozen=True, slots=True)
class _Half:
    """The first half of a tensor along its last axis: its shape, and how to build it."""

    shape: tuple[Dim, ...]
    build: Callable[[], Value]


def _rewrite(graph: Graph, node: Node, found: _Turned | None) -> bool:
    if found is None:
        return False
    cos, sin = (_cache(graph, found, angles, node) for angles in (found.cos, found.sin))
    if cos is None or sin is None:
        return False
    y = insert(graph, "RotaryEmbedding", found.x, cos.build(), sin.build(), before=node, out=node.output.name)
    graph.replace_node(node, [y])
    return True


# -- The two forms -----------------------------------------------------------------------------------------------------


def _whole(node: Node) -> _Turned | None:
    """Add(Mul(x, cos), Mul(rotate(x), sin)), the operands in any order."""
    for straight, turned in permutations(_factors(v) for v in node.inputs):
        for (x, cos), (rotated, sin) in product(straight, turned):
            if _rotated(rotated) is x:
                return _Turned(x, cos, sin, is_half=False)
    return None


def _by_halves(node: Node) -> _Turned | None:
    """Concat(Sub(Mul(x1, cos), Mul(x2, sin)), Add(Mul(x2, cos), Mul(x1, sin))), the factors in any order."""
    real, imaginary = (v.producer if v is not None else None for v in node.inputs)
    if real is None or imaginary is None or not real.is_op("Sub") or not imaginary.is_op("Add"):
        return None
    (straight, turned), (first, second) = (tuple(_factors(v) for v in n.inputs) for n in (real, imaginary))
    for (x1, cos), (x2, sin) in product(straight, turned):
        x = _whole_of(x1, x2)
        wanted = ((x2, cos), (x1, sin))
        if x is not None and any(a in first and b in second for a, b in permutations(wanted)):
            return _Turned(x, cos, sin, is_half=True)
    return None


def _widen(graph: Graph, node: Node) -> bool:
    """Concat(RotaryEmbedding(the first part of x), the rest of x) -> RotaryEmbedding with ``rotary_embedding_dim``."""
    turned, rest = node.inputs
    rotary = turned.producer if turned is not None else None
    if rotary is None or not rotary.is_op("RotaryEmbedding") or sole_user(graph, rotary.output) is not node:
        return False
    x, start, size = _part(rotary.inputs[0])
    y, follows, left = _part(rest)
    if x is None or y is not x or start or follows != size or (dims(x) or ())[-1] != size + left:
        return False
    if "rotary_embedding_dim" in rotary.attrs or len(dims(x) or ()) != 4:
        return False
    attrs = {**rotary.attrs, "rotary_embedding_dim": size}
    whole = insert(graph, "RotaryEmbedding", x, *rotary.inputs[1:], before=node, out=node.output.name, **attrs)
    graph.replace_node(node, [whole])
    return True


def _factors(value: Value | None) -> list[tuple[Value, Value]]:
    """The two factors of a product, in both orders; empty for anything else."""
    node = value.producer if value is not None else None
    a, b = node.inputs if node is not None and node.is_op("Mul") else (None, None)
    return [] if a is None or b is None else [(a, b), (b, a)]


def _rotated(value: Value) -> Value | None:
    """``x`` when ``value`` is Concat(-x2, x1) of its halves."""
    node = value.producer
    if node is None or not node.is_op("Concat") or not _is_last(node, node.attrs["axis"]) or len(node.inputs) != 2:
        return None
    minus, first = node.inputs
    negated = minus.producer if minus is not None else None
    return _whole_of(first, negated.inputs[0]) if negated is not None and negated.is_op("Neg") else None


def _whole_of(first: Value | None, second: Value | None) -> Value | None:
    """``x`` [batch, heads, length, size] when these are its halves along the last axis, in order."""
    x, start, size = _part(first)
    y, follows, rest = _part(second)
    shape = dims(x)
    if x is None or y is not x or shape is None or len(shape) != 4 or shape[-1] != size + rest:
        return None
    return x if start == 0 and follows == size == rest else None


def _part(value: Value | None) -> tuple[Value | None, int, int]:
    """A tensor, and the start and length of the part of its last axis that ``value`` is; (None, 0, 0) for no such part."""
    node, length = value.producer if value is not None else None, (dims(value) or (None,))[-1]
    size = (dims(node.inputs[0]) or (None,))[-1] if node is not None and node.inputs else None
    if node is None or not isinstance(length, int) or not isinstance(size, int):
        return None, 0, 0
    if node.is_op("Slice") and len(node.inputs) > 3:
        (start, *more), (axis, *_) = known_ints(node.inputs[1]) or (0, 0), known_ints(node.inputs[3]) or (0,)
        steps = known_ints(node.inputs[4]) if len(node.inputs) > 4 else (1,)
        if not more and _is_last(node, axis) and steps == (1,):
            return node.inputs[0], start % size if start != size else size, length
    if node.is_op("Split") and _is_last(node, node.attrs.get("axis", 0)):
        sizes = [(dims(v) or (None,))[-1] for v in node.outputs[: node.outputs.index(value) if value is not None else 0]]
        if all(isinstance(n, int) for n in sizes):
            return node.inputs[0], sum(n for n in sizes if isinstance(n, int)), length
    return None, 0, 0


def _is_last(node: Node, axis: int) -> bool:
    return axis in (-1, len(dims(node.outputs[0]) or ()) - 1)


# -- Cosines and sines -------------------------------------------------------------------------------------------------


def _cache(graph: Graph, found: _Turned, angles: Value, before: Node) -> _Half | None:
    """The cache [batch or 1, length, size / 2]; None when ``angles`` differ from head to head, or between the halves."""
    shape, x = dims(angles), dims(found.x)
    if shape is None or x is None or len(shape) > 4 or len(x) != 4:
        return None
    batch, heads, length, size = (1,) * (4 - len(shape)) + shape
    if batch not in (1, x[0]) or heads != 1 or length != x[2] or size != (x[3] // 2 if found.is_half else x[3]):
        return None
    half = _Half(shape, lambda: angles) if found.is_half else _first_half(graph, angles, before, _DEPTH)
    return None if half is None else _viewed(graph, half, (batch, length, x[3] // 2), before)


def _viewed(graph: Graph, half: _Half, shape: tuple[Dim, ...], before: Node) -> _Half | None:
    if half.shape == shape:
        return half
    if reshape_target(half.shape, shape) is None:
        return None

    def build() -> Value:
        value = half.build()
        reshaped = insert_reshape(graph, value, shape, before=before, out=value.name)
        if reshaped is None:
            raise ValueError(f"{value!r} cannot be asked to be {shape}")
        return reshaped

    return _Half(shape, build)


def _first_half(graph: Graph, value: Value, before: Node, depth: int) -> _Half | None:
    """The first half of ``value`` along the last axis when the second is the same; None when that is not known."""
    shape, node, handle = dims(value), value.producer, constant_handle(value)
    size = shape[-1] if shape else None
    if shape is None or not isinstance(size, int) or size % 2 or not depth:
        return None
    halved = (*shape[:-1], size // 2)
    if handle is not None:
        if handle.size > _LARGEST:
            return None
        data = handle.array()
        if not np.array_equal(data[..., : size // 2], data[..., size // 2 :]):
            return None
        part = slice_constant(handle, (0,) * len(handle.shape), (*handle.shape[:-1], size // 2))
        return _Half(halved, lambda: graph.add_constant(part, f"{value.name}_half"))
    if node is None or node.domain:
        return None
    if node.op == "Concat" and _is_last(node, node.attrs["axis"]):
        first, *others = node.inputs
        return _Half(halved, lambda: first) if first is not None and others == [first] else None
    operand = _operand_with_halves(node)
    inner = _first_half(graph, operand, before, depth - 1) if operand is not None else None
    if inner is None:
        return None
    if node.op in VIEWS:
        return _viewed(graph, inner, halved, before)

    def build() -> Value:
        half = inner.build()
        operands = [half if v is operand else v for v in node.inputs]
        return insert(graph, node.op, *operands, before=before, out=f"{value.name}_half", **node.attrs)

    return _Half(halved, build)


def _operand_with_halves(node: Node) -> Value | None:
    """The operand whose halves, each dealt with alike, the halves of the result are; None when there is no such one."""
    numbers = [v for v in node.inputs if scalar(v) is not None]
    if node.op in ("Mul", "Div", "Add", "Sub"):
        rest = [v for v in node.inputs if v not in numbers]
        return rest[0] if len(rest) == 1 and dims(rest[0]) == dims(node.output) else None
    operand = node.inputs[0]
    before, after = dims(operand), dims(node.output)
    if not before or not after:
        return None
    if node.op in VIEWS:
        keeps = after[-1] == before[-1]
    elif node.op == "Slice":
        axes = known_ints(node.inputs[3]) if len(node.inputs) > 3 else None
        keeps = axes is not None and not any(_is_last(node, a) for a in axes)
    elif node.op == "Gather":
        keeps = node.attrs.get("axis", 0) % len(before) < len(before) - 1
    else:
        keeps = node.op in ("Cos", "Sin", "Cast", "Neg")
    return operand if keeps else None

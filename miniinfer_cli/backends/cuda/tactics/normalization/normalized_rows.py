"""A region of a normalization, what is computed element by element around it, and rows that are looked up in tables or stacked.

embeddings:  Gather, Gather, Add, LayerNormalization        a residual:  Add, RMSNormalization, Cast
"""

from collections.abc import Sequence
from dataclasses import dataclass

from miniinfer_cli.backends.cuda.codegen.body import Body, body_of
from miniinfer_cli.backends.cuda.contract.site import static_shape
from miniinfer_cli.backends.cuda.contract.types import HOST_ONLY
from miniinfer_cli.backends.reference import static_tensor
from miniinfer_cli.ir import Graph, Node, TensorType, Value
from miniinfer_cli.ir.parts import copy_node
from miniinfer_cli.ops.inference import Types
from miniinfer_cli.ops.pointwise import is_pointwise

NORMALIZATIONS = ("LayerNormalization", "RMSNormalization")
_MOST_WEIGHT = 96  # operations for an element, about: a thread has up to 64 of them
_MOST_OPERANDS = 8
_MOST_PIECES = 4


@dataclass(frozen=True, slots=True)
class Stage:
    """Nodes in front of the norm, or behind it: their ``body``, and what its parameters and results are, as values of the region.

    With no ``body`` the one parameter is the result.
    """

    body: Body | None
    operands: tuple[Value, ...]
    results: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Stack:
    """A Concat of rows along an ``axis`` in front of theirs: of each piece the input of the region, and its shape in the result.

    An input of fewer elements is repeated, as an Expand between has it.
    """

    axis: int
    pieces: tuple[tuple[Value, tuple[int, ...]], ...]


@dataclass(frozen=True, slots=True)
class NormalizedRows:
    """The parts of a region: its norm, whose last axis has the rows; what looks rows up or stacks them, by result; the stages.

    ``before`` gives what the norm reads first, then what leaves the region of it; ``after`` reads what the norm makes.
    """

    norm: Node
    gathers: dict[Value, Node]
    stacks: dict[Value, Stack]
    before: Stage
    after: Stage

    @classmethod
    def of(cls, body: Graph, types: Types) -> "NormalizedRows | None":
        """The parts of such a body; None for any other."""
        norms = [n for n in body if n.is_op(*NORMALIZATIONS)]
        if len(norms) != 1 or not _is_of_rows(norms[0], types):
            return None
        (norm,) = norms
        x, y = norm.inputs[0], norm.output
        assert x is not None
        shape = static_shape(_tensor(x, types))
        gathers = {n.output: n for n in body if n.is_op("Gather")}
        if not all(_is_of_table(n, shape[-1], types) for n in gathers.values()):
            return None
        expands = {n.output: n for n in body if n.is_op("Expand")}
        stacks = {n.output: _stack(n, shape, expands, types) for n in body if n.is_op("Concat")}
        found = {v: s for v, s in stacks.items() if s is not None}
        if len(found) < len(stacks) or any(set(u.outputs) - {*found} for v in expands for u in v.users):
            return None
        rows = {*gathers, *found}
        others = [n for n in body if n is not norm and not rows.union(expands).intersection(n.outputs)]
        behind = _reached(y, others)
        front = [n for n in others if n not in behind]
        made = {y, *rows, *expands, *_made(others)}
        fixed = (
            *norm.inputs[1:],
            *(v for n in gathers.values() for v in n.inputs),
            *(v for s in found.values() for v, _ in s.pieces),
        )
        if not all(v in body.inputs for v in fixed if v is not None) or (not x.producer and x not in body.inputs):
            return None
        if any(v in made and v is not y for v in _read(behind) - _made(behind)):
            return None
        if not all(_fits(n, shape, types) for n in others):
            return None
        leaving = [v for v in body.outputs if v in made]
        if len(leaving) < len(body.outputs) or any((v in rows and v is not x) or v in expands for v in leaving):
            return None
        first = _stage(front, [x, *(v for v in leaving if v in _made(front) and v is not x)], types)
        last = _stage(behind, [v for v in leaving if v is y or v in _made(behind)], types)
        if first is None or last is None or not last.results or _weight(first) + _weight(last) > _MOST_WEIGHT:
            return None
        if len({*first.operands, *last.operands}) > _MOST_OPERANDS:
            return None
        return cls(norm, gathers, found, first, last)


def is_normalization(node: Node, types: Types) -> bool:
    """True for a norm over the last axis of something whose sizes are known, with a scale and a bias of one number an element."""
    return node.is_op(*NORMALIZATIONS) and _is_of_rows(node, types)


def _is_of_rows(norm: Node, types: Types) -> bool:
    tensors = [static_tensor(types.get(v, v.type)) for v in (*norm.inputs, *norm.outputs) if v is not None]
    if len(norm.outputs) != 1 or not all(t is not None and t.dtype not in HOST_ONLY for t in tensors):
        return False
    shape, *affine = (static_shape(t) for t in tensors[:-1] if t is not None)
    if not shape or 0 in shape or norm.attrs.get("axis", -1) not in (-1, len(shape) - 1):
        return False
    return all(s[-1:] == shape[-1:] and set(s[:-1]) <= {1} for s in affine)


def _is_of_table(gather: Node, length: int, types: Types) -> bool:
    """True when rows of this length are looked up: along the last axis but one of two, or of three (a table for each item)."""
    table, indices = (static_tensor(types.get(v, v.type)) if v is not None else None for v in gather.inputs)
    if table is None or indices is None:
        return False
    shape = static_shape(table)
    fits = len(shape) in (2, 3) and 0 not in shape and shape[-1] == length
    return fits and gather.attrs.get("axis", 0) in (len(shape) - 2, -2)


def _stack(node: Node, shape: tuple[int, ...], expands: dict[Value, Node], types: Types) -> Stack | None:
    """The Concat as a stack of rows of this shape; None where it is another."""
    axis = node.attrs["axis"] % len(shape)
    made = static_tensor(types.get(node.output, node.output.type))
    pieces: list[tuple[Value, tuple[int, ...]]] = []
    for value in node.inputs:
        kind = static_tensor(types.get(value, value.type)) if value is not None else None
        if value is None or kind is None or 0 in static_shape(kind):
            return None
        source = expands[value].inputs[0] if value in expands else value
        own = None if source is None else static_tensor(types.get(source, source.type))
        if source is None or own is None or static_shape(own)[-1:] != shape[-1:]:
            return None
        pieces.append((source, static_shape(kind)))
    if axis == len(shape) - 1 or not 2 <= len(pieces) <= _MOST_PIECES or made is None or static_shape(made) != shape:
        return None
    return Stack(axis, tuple(pieces))


def _fits(node: Node, shape: tuple[int, ...], types: Types) -> bool:
    """True for a pointwise operation with results of all rows, to which its operands broadcast."""
    if not is_pointwise(node) or len(node.outputs) != 1:
        return False
    made = static_tensor(types.get(node.output, node.output.type))
    return made is not None and static_shape(made) == shape


def _reached(value: Value, nodes: Sequence[Node]) -> list[Node]:
    """Those of the nodes, which are in order, that depend on the value."""
    found: list[Node] = []
    known = {value}
    for node in nodes:
        if known.intersection(v for v in node.inputs if v is not None):
            found.append(node)
            known.update(node.outputs)
    return found


def _read(nodes: Sequence[Node]) -> set[Value]:
    return {v for n in nodes for v in n.inputs if v is not None}


def _made(nodes: Sequence[Node]) -> set[Value]:
    return {v for n in nodes for v in n.outputs}


def _stage(nodes: Sequence[Node], results: Sequence[Value], types: Types) -> Stage | None:
    """The nodes as one function; None where they are none that a kernel computes."""
    if not nodes and len(results) <= 1:
        return Stage(None, tuple(results), tuple(results))
    graph = Graph("stage")
    if any(v.constant is not None and v.constant.size != 1 for v in _read(nodes)):
        return None
    made = _made(nodes)
    read = (v for n in nodes for v in n.inputs if v is not None and v.constant is None)
    outer = list(dict.fromkeys(v for v in (*read, *results) if v not in made))
    inner = {v: graph.add_input(v.name, types.get(v, v.type)) for v in outer}
    for node in nodes:
        copy_node(graph, node, inner)
    graph.set_outputs([inner[v] for v in results])
    body = body_of(graph, {inner[v]: types.get(v, v.type) for v in inner})
    return None if body is None else Stage(body, tuple(outer[i] for i in body.reads), tuple(results))


def _weight(stage: Stage) -> int:
    return 0 if stage.body is None else stage.body.weight


def _tensor(value: Value, types: Types) -> TensorType:
    kind = types.get(value, value.type)
    assert isinstance(kind, TensorType)
    return kind

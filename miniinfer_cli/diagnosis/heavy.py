"""The convolutions and products of a graph, those at the front of regions too: their sizes, operations and weights."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from miniinfer_cli.ir import Dim, Graph, Node, TensorType, Type, Value
from miniinfer_cli.ops import find
from miniinfer_cli.ops.pointwise import is_pointwise
from miniinfer_cli.ops.stored_numbers import only_moves

Types = Mapping[Value, Type | None]


@dataclass(frozen=True, slots=True)
class Heavy:
    """A convolution or matrix product: ``node`` of the graph, and the primitive ``anchor``, which may be inside its body.

    ``type``: of the first operand. ``channels_in`` and ``channels_out``: of each of its ``groups``. ``flops``: operations; 0
    where sizes are open. ``weights``: the second operand's type where it is a constant. ``given``: the first operand is an
    input of the graph, but for its layout and what was done to each element.
    """

    node: Node
    anchor: Node
    type: TensorType
    channels_in: int
    channels_out: int
    groups: int
    flops: int
    weights: TensorType | None
    given: bool

    @property
    def align(self) -> int:
        """Elements of its type that 16 bytes hold: what tensor cores and libraries want channels to be a multiple of."""
        return max(128 // self.type.dtype.bits, 1)

    @property
    def wasted(self) -> float:
        """The part of the multiplications that are on zeros once channels are filled up to that multiple."""
        full = _up(self.channels_in, self.align) * _up(self.channels_out, self.align)
        return 1 - self.channels_in * self.channels_out / full


def heavy_nodes(graph: Graph, types: Types) -> Iterator[Heavy]:
    """Every convolution and product of the graph, at its own level, whose channels are numbers."""
    for node in graph:
        anchor = next(iter(node.body), None) if node.body is not None else node
        if anchor is None or len(anchor.inputs) < 2:
            continue
        outer: dict[Value, Value | None] = dict(zip(node.body.inputs, node.inputs, strict=True)) if node.body is not None else {}

        def type_of(value: Value | None, outer: Mapping[Value, Value | None] = outer) -> TensorType | None:
            given = _outside(value, outer)
            kind = None if given is None or value is None else types.get(given, value.type)
            return kind if isinstance(kind, TensorType) and kind.shape is not None else None

        a, b = type_of(anchor.inputs[0]), type_of(anchor.inputs[1])
        result = type_of(anchor.output) if len(anchor.outputs) == 1 else None
        inside = node.body is not None and all(v is not anchor.outputs[0] for v in node.body.outputs)
        if inside and result is not None and not result.is_static and len(node.outputs) == 1:
            shown = types.get(node.output)  # an epilogue keeps the sizes, which are known here
            result = shown if isinstance(shown, TensorType) and shown.shape is not None else result
        if a is None or b is None or result is None or a.dtype.bits < 8:
            continue
        sizes = _sizes(anchor, a, b)
        if sizes is None:
            continue
        first, weights = _outside(anchor.inputs[0], outer), _outside(anchor.inputs[1], outer)
        held = weights is not None and weights.constant is not None
        given = first is not None and _is_given(first)
        yield Heavy(node, anchor, a, *sizes, _flops(anchor, a, b, result), b if held else None, given)


def elements(kind: Type | None) -> int:
    """Elements of a tensor; 0 where one of its sizes is open, and for what is no tensor."""
    if not isinstance(kind, TensorType) or kind.shape is None or not all(isinstance(d, int) for d in kind.shape):
        return 0
    return math.prod(d for d in kind.shape if isinstance(d, int))


def nbytes(kind: Type | None) -> int:
    """The bytes of these elements; see ``elements``."""
    return elements(kind) * kind.dtype.bits // 8 if isinstance(kind, TensorType) else 0


def _sizes(anchor: Node, a: TensorType, b: TensorType) -> tuple[int, int, int] | None:
    """Channels in and out of one group, and groups; None for what is neither convolution nor product."""
    opdef = find(anchor.domain, anchor.op)
    if opdef is None or not opdef.heavy or b.shape is None or len(b.shape) < 2:
        return None
    if "group" in opdef.attribute_names:
        group = int(anchor.attrs.get("group", 1))
        whole = _numbers(b.shape[0], b.shape[-1] if anchor.op.endswith("NHWC") else b.shape[1])
        if whole is None:
            return None
        first, second = whole
        return (first // group, second, group) if "Transpose" in anchor.op else (second, first // group, group)
    if anchor.is_op("MatMul", "Gemm"):
        whole = _numbers(*b.shape[-2:])
        if whole is None:
            return None
        return (whole[1], whole[0], 1) if anchor.attrs.get("transB") else (whole[0], whole[1], 1)
    return None


def _flops(anchor: Node, a: TensorType, b: TensorType, result: TensorType) -> int:
    opdef = find(anchor.domain, anchor.op)
    if opdef is None or opdef.flops is None or not (a.is_static and b.is_static and result.is_static):
        return 0
    return opdef.flops([a, b], [result], anchor.attrs)


def _outside(value: Value | None, outer: Mapping[Value, Value | None]) -> Value | None:
    """What a value of a region's body is outside, where it comes from there; otherwise itself."""
    return None if value is None else outer.get(value, value)


def _is_given(value: Value) -> bool:
    """True for an input of the graph, and for what is made of one in other order, or element by element."""
    while value.producer is not None and value.producer.inputs:
        node, first = value.producer, value.producer.inputs[0]
        if first is None or not (only_moves(node) or is_pointwise(node)):
            return False
        value = first
    return value.producer is None and value.constant is None


def _numbers(first: Dim, second: Dim) -> tuple[int, int] | None:
    return (first, second) if isinstance(first, int) and isinstance(second, int) else None


def _up(count: int, multiple: int) -> int:
    return -(-max(count, 1) // multiple) * multiple

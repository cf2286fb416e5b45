"""What a node does at least, by its types alone, and which ceiling of computing holds for it; for every backend."""

import math
from collections.abc import Iterator, Sequence

from miniinfer_cli.backends.ceilings import Rate, Unit
from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.reference import is_same_bytes, static_tensor
from miniinfer_cli.ir import DType, Node, TensorType, Type
from miniinfer_cli.ops.inference import infer_graph
from miniinfer_cli.ops.registry import find
from miniinfer_cli.ops.stored_numbers import dequantizing

_IN_F32 = frozenset({DType.F16, DType.BF16, DType.I8, DType.U8, DType.F8E4M3FN})
"""Numbers that a CPU multiplies as f32."""


def estimate_of(node: Node, operands: Sequence[Type | None], results: Sequence[Type | None]) -> Estimate:
    """Operands read once, results written once, and the operations of what is computed between them.

    A node that only moves elements reads those that it writes. Types whose size data decide count as nothing.
    """
    if is_same_bytes(node):
        return Estimate(0, 0)
    opdef = find(node.domain, node.op)
    written = sum(_nbytes(t) for t in results)
    if node.body is None and opdef is not None and opdef.moves:
        return Estimate(0, 2 * written + sum(_nbytes(t) for t in operands[1:] if _tells_places(t, operands[0])))
    return Estimate(_flops_of(node, operands, results), sum(_nbytes(t) for t in operands) + written)


def weights_nbytes_of(node: Node, results: Sequence[Type | None]) -> int:
    """Bytes of constants that it reads: of one that it picks elements from, no more than it writes."""
    opdef = find(node.domain, node.op)
    held = sum(_nbytes(v.type) for v in node.inputs if v is not None and v.constant is not None)
    return min(held, sum(_nbytes(t) for t in results)) if opdef is not None and opdef.moves and node.body is None else held


def rate_of(node: Node, *, tf32: bool, widens: bool) -> Rate:
    """The ceiling of the most that it does: that of products, where there are some in it.

    ``tf32``: products of f32 are of TF32. ``widens``: numbers of 16 and 8 bits are multiplied as f32, as on a CPU.
    """
    for within in _nodes_within(node):
        opdef = find(within.domain, within.op)
        if opdef is not None and opdef.flops is not None:
            return Rate(Unit.MATRIX, _multiplied(within, tf32, widens))
    kinds = [v.type.dtype for v in (*node.inputs, *node.outputs) if v is not None and isinstance(v.type, TensorType)]
    return Rate(Unit.VECTOR, "f64" if DType.F64 in kinds else "f32")


def _multiplied(node: Node, tf32: bool, widens: bool) -> str:
    value = node.inputs[0] if node.inputs else None
    source = dequantizing(value)
    if source is not None and not widens:  # within a region: multiplied as it is stored
        value = source.inputs[0]
    kind = None if value is None else value.type
    dtype = kind.dtype if isinstance(kind, TensorType) else DType.F32
    if dtype is DType.U8:
        dtype = DType.I8
    if dtype in _IN_F32 and not widens:
        return str(dtype)
    if dtype is DType.F64:
        return "f64"
    return "tf32" if tf32 and dtype is DType.F32 else "f32"


def _nodes_within(node: Node) -> Iterator[Node]:
    if node.body is None:
        yield node
        return
    for inner in node.body:
        yield from _nodes_within(inner)


def _flops_of(node: Node, operands: Sequence[Type | None], results: Sequence[Type | None]) -> int:
    if node.body is not None:
        types = infer_graph(node.body, operands)
        return sum(
            _flops_of(n, [None if v is None else types.get(v, v.type) for v in n.inputs], [types[v] for v in n.outputs])
            for n in node.body
        )
    opdef = find(node.domain, node.op)
    if opdef is None or opdef.moves or opdef.view:
        return 0
    written = [t for t in map(static_tensor, results) if t is not None]
    read = [static_tensor(t) for t in operands]
    if opdef.flops is not None:
        whole = len(written) == len(results) and all(s is not None or t is None for s, t in zip(read, operands, strict=True))
        return opdef.flops(read, written, node.attrs) if whole else 0
    return max((math.prod(_sizes(t)) for t in (*written, *read[:1]) if t is not None), default=0)


def _tells_places(operand: Type | None, moved: Type | None) -> bool:
    """True for an operand that is no part of the results: indices, not one more tensor that is put behind the first."""
    return isinstance(operand, TensorType) and isinstance(moved, TensorType) and operand.dtype is not moved.dtype


def _nbytes(kind: Type | None) -> int:
    tensor = static_tensor(kind)
    return 0 if tensor is None else tensor.dtype.nbytes(math.prod(_sizes(tensor)))


def _sizes(tensor: TensorType) -> tuple[int, ...]:
    return tuple(n for n in tensor.shape or () if isinstance(n, int))

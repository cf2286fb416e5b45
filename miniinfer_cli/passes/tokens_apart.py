"""Whether the new tokens of an inference stay apart: then fewer can be filled up to a bucket, and many be computed in chunks."""

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Dim, Graph, Node, TensorType, Value
from miniinfer_cli.ir.dims import names_in
from miniinfer_cli.ops.pointwise import is_pointwise

_ALIKE = ("Transpose", "Unsqueeze", "Squeeze", "Identity", "Cast", "Reshape", "Flatten", "Expand", "Shape", "Size", "Range",
          "RotaryEmbedding", "DequantizeLinear", "ConstantOfShape")  # fmt: skip
"""Operations that never mix what lies at two places of an axis, or compute of sizes alone."""
_ALONG_AXIS = ("Softmax", "LogSoftmax", "Split", "Concat", "Slice", "ArgMax", "ArgMin", "TopK", "ReduceMean", "ReduceSum",
               "ReduceMax", "ReduceMin", "ReduceL2", "ReduceSumSquare", "ReduceProd", "Pad", "Gather", "GatherElements",
               "CumSum", "OneHot")  # fmt: skip
"""Operations that mix along axes that they name."""


def expect_tokens_apart(graph: Graph, tokens: str) -> None:
    """Raises ModelError naming the first node that lets a new token see another one, but by attention over a cache."""
    for node in graph:
        if any(_mentions(v, tokens) for v in (*node.inputs, *node.outputs)) and not _keeps_apart(node, tokens):
            raise ModelError(
                f"{node.op} does more with the new tokens than to compute each by itself: they can be neither filled up nor cut",
                hint="fix their number (shapes), or export the model so that its outputs are those of all tokens",
            ).at(f"node {node.name!r}")


def _keeps_apart(node: Node, tokens: str) -> bool:
    if node.graphs or node.body is not None:
        return False
    if is_pointwise(node) or node.is_op(*_ALIKE):
        return True
    first = node.inputs[0] if node.inputs else None
    if node.is_op("MatMul"):
        a, b = node.inputs
        return not _at(a, -1, tokens) and not _at(b, -2, tokens)
    if node.is_op("LayerNormalization", "RMSNormalization"):
        shape = _shape(first)
        return not any(tokens in names_in(d) for d in shape[node.attrs.get("axis", -1) % max(len(shape), 1) :])
    if node.is_op("Attention"):  # keys and values are the caches: others do not have them
        return all(v is None or not _mentions(v, tokens) for v in node.inputs[1:3])
    if node.is_op("TensorScatter"):
        return True
    if node.is_op(*_ALONG_AXIS):
        return not any(_at(first, axis, tokens) for axis in _axes(node))
    return False


def _axes(node: Node) -> list[int]:
    """The axes along which the node mixes; all where that is not known."""
    first = node.inputs[0]
    everything = list(range(len(_shape(first))))
    if node.is_op("Slice"):
        axes = node.inputs[3] if len(node.inputs) > 3 else None
        return everything if axes is None else _contents(axes, everything)
    if node.is_op("Pad"):
        axes = node.inputs[3] if len(node.inputs) > 3 else None
        if axes is not None:
            return _contents(axes, everything)
        pads = node.inputs[1] if len(node.inputs) > 1 else None
        amounts = [] if pads is None else _contents(pads, [])
        rank = len(everything)
        return [i for i in everything if len(amounts) != 2 * rank or amounts[i] or amounts[rank + i]]
    if node.op.startswith("Reduce"):
        axes = node.inputs[1] if len(node.inputs) > 1 else None
        return everything if axes is None else _contents(axes, everything)
    if node.is_op("CumSum"):
        axis = node.inputs[1]
        return everything if axis is None else _contents(axis, everything)
    default = 0 if node.is_op("Gather", "GatherElements", "ArgMax", "ArgMin", "Concat", "Split") else -1
    return [int(node.attrs.get("axis", default))]


def _contents(value: Value, otherwise: list[int]) -> list[int]:
    known = value.tensor.concrete
    return otherwise if known is None else [int(i) for i in known.reshape(-1)]


def _shape(value: Value | None) -> tuple[Dim, ...]:
    kind = None if value is None else value.type
    return tuple(kind.shape) if isinstance(kind, TensorType) and kind.shape is not None else ()


def _at(value: Value | None, axis: int, tokens: str) -> bool:
    shape = _shape(value)
    return -len(shape) <= axis < len(shape) and tokens in names_in(shape[axis])


def _mentions(value: Value | None, tokens: str) -> bool:
    return any(tokens in names_in(d) for d in _shape(value))

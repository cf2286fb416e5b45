"""GroupNormalizationNHWC of ours: GroupNormalization with the channels last (InstanceNormalization: a group for each)."""

import numpy as np

from miniinfer_cli.ir import Array, Graph, Node, TensorType, Value
from miniinfer_cli.ops.insert import insert
from miniinfer_cli.ops.layout import channels_first, channels_last
from miniinfer_cli.ops.normalization import infer_group_normalization
from miniinfer_cli.ops.numerics import widen_half
from miniinfer_cli.ops.registry import OURS, define


def infer_group_normalization_nhwc(
    x: TensorType, scale: TensorType, bias: TensorType, *, num_groups: int, epsilon: float = 1e-5
) -> TensorType:
    """Same type as ``x``, which is [N, spatial..., C]; ``num_groups`` divides C."""
    first = x if x.shape is None or len(x.shape) < 2 else TensorType(x.dtype, (x.shape[0], x.shape[-1], *x.shape[1:-1]))
    infer_group_normalization(first, scale, bias, num_groups=num_groups)
    return TensorType(x.dtype, x.shape)


@widen_half
def group_normalization_nhwc(x: Array, scale: Array, bias: Array, *, num_groups: int, epsilon: float = 1e-5) -> Array:
    """(x - mean) / sqrt(var + epsilon) * scale + bias, the statistics over each sample's group of channels."""
    if not x.size:
        return x.copy()
    grouped = x.reshape(x.shape[0], -1, num_groups, x.shape[-1] // num_groups)
    centred = grouped - np.mean(grouped, axis=(1, 3), keepdims=True)
    centred /= np.sqrt(np.mean(np.square(centred), axis=(1, 3), keepdims=True) + x.dtype.type(epsilon))
    y: Array = centred.reshape(x.shape)
    y *= scale
    y += bias
    return y


def expand_group_normalization_nhwc(graph: Graph, node: Node) -> tuple[Value]:
    """GroupNormalization between two Transposes. Raises ValueError when the rank is not known."""
    x, *vectors = node.inputs
    if x is None or x.tensor.rank is None:
        raise ValueError(f"the rank of the input of {node!r} is not known")
    first = insert(graph, "Transpose", x, before=node, perm=channels_first(x.tensor.rank))
    y = insert(graph, "GroupNormalization", first, *vectors, before=node, **node.attrs)
    return (insert(graph, "Transpose", y, before=node, perm=channels_last(x.tensor.rank)),)


GROUP_NORMALIZATION_NHWC = define(
    "GroupNormalizationNHWC",
    domain=OURS,
    infer=infer_group_normalization_nhwc,
    reference=group_normalization_nhwc,
    expand=expand_group_normalization_nhwc,
)

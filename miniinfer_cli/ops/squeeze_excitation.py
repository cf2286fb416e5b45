"""SqueezeExcitation of ours: an image times a gate for each channel, which two small products make of the means of its pixels."""

from collections.abc import Mapping
from typing import Any

from miniinfer_cli.ir import Array, Dim, Graph, Node, TensorType, Value
from miniinfer_cli.ops.activation_expansions import HARD_SIGMOID_ALPHA
from miniinfer_cli.ops.excitation import BETA, excitation, infer_excitation
from miniinfer_cli.ops.flops import excitation_flops
from miniinfer_cli.ops.insert import insert
from miniinfer_cli.ops.numerics import widen_half
from miniinfer_cli.ops.products import ForEach
from miniinfer_cli.ops.registry import OURS, define
from miniinfer_cli.ops.shapes import same_dim


def infer_squeeze_excitation(
    x: TensorType,
    squeeze: TensorType,
    excite: TensorType,
    squeeze_bias: TensorType | None = None,
    excite_bias: TensorType | None = None,
    *,
    activation: str = "Relu",
    gate: str = "Sigmoid",
    alpha: float = HARD_SIGMOID_ALPHA,
    beta: float = BETA,
) -> TensorType:
    """``x`` [N,spatial...,C], ``squeeze`` [S,1...,C], ``excite`` [C,1...,S], biases [S] and [C]: gives what ``x`` is.

    Attributes as those of Excitation, whose ``x`` has the means of the pixels.
    """
    pooled = x
    if x.shape is not None:
        middle: tuple[Dim, ...] = (1,) * (len(x.shape) - 2)
        pooled = TensorType(x.dtype, (x.shape[0], *middle, x.shape[-1]))
    attrs: Mapping[str, Any] = {"activation": activation, "gate": gate, "alpha": alpha, "beta": beta}
    gates = infer_excitation(pooled, squeeze, excite, squeeze_bias, excite_bias, **attrs)
    if x.shape is not None and gates.shape is not None:
        same_dim("SqueezeExcitation", f"channels of {x}", x.shape[-1], gates.shape[-1])
    return TensorType(x.dtype, x.shape)


@widen_half
def squeeze_excitation(
    x: Array,
    squeeze: Array,
    excite: Array,
    squeeze_bias: Array | None = None,
    excite_bias: Array | None = None,
    *,
    activation: str = "Relu",
    gate: str = "Sigmoid",
    alpha: float = HARD_SIGMOID_ALPHA,
    beta: float = BETA,
    for_each: ForEach | None = None,
) -> Array:
    """x times Excitation of the means of its pixels; half-width floats are rounded once, at the end."""
    means = x.mean(axis=tuple(range(1, x.ndim - 1)), keepdims=True, dtype=x.dtype)
    attrs: Mapping[str, Any] = {"activation": activation, "gate": gate, "alpha": alpha, "beta": beta}
    gates: Array = excitation(means, squeeze, excite, squeeze_bias, excite_bias, **attrs, for_each=for_each)
    return x * gates


def expand_squeeze_excitation(graph: Graph, node: Node) -> tuple[Value]:
    """GlobalAveragePoolNHWC, Excitation, and Mul."""
    x, *others = node.inputs
    means = insert(graph, "GlobalAveragePoolNHWC", x, before=node, domain=OURS)
    gates = insert(graph, "Excitation", means, *others, before=node, domain=OURS, **node.attrs)
    return (insert(graph, "Mul", x, gates, before=node),)


SQUEEZE_EXCITATION = define(
    "SqueezeExcitation",
    domain=OURS,
    infer=infer_squeeze_excitation,
    reference=squeeze_excitation,
    expand=expand_squeeze_excitation,
    heavy=True,
    flops=excitation_flops,
)

"""Excitation of ours: the two small products of squeeze-and-excitation, from pooled channels to a gate for each channel."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, Graph, Node, TensorType, Value
from miniinfer_cli.ops import activation as activations
from miniinfer_cli.ops.activation_expansions import HARD_SIGMOID_ALPHA
from miniinfer_cli.ops.convolution import infer_conv_nhwc
from miniinfer_cli.ops.flops import excitation_flops
from miniinfer_cli.ops.insert import insert
from miniinfer_cli.ops.numerics import widen_half
from miniinfer_cli.ops.products import ForEach, multiply
from miniinfer_cli.ops.registry import OURS, define
from miniinfer_cli.ops.shapes import same_dim

ACTIVATIONS = {"Relu": activations.relu, "Swish": activations.swish, "HardSwish": activations.hard_swish}
"""What may follow the first product."""
GATES = ("Sigmoid", "HardSigmoid")
"""What may follow the second one."""
BETA = 0.5


def infer_excitation(
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
    """``x`` [N,1...,C], ``squeeze`` [S,1...,C], ``excite`` [K,1...,S], biases [S] and [K]: gives [N,1...,K].

    ``alpha`` and ``beta`` are those of a HardSigmoid.
    """
    for name, given, known in (("activation", activation, (*ACTIVATIONS,)), ("gate", gate, GATES)):
        if given not in known:
            raise ModelError(f"Excitation {name} is {given!r}, expected one of {', '.join(known)}")
    for operand in (x, squeeze, excite):
        for size in (operand.shape or ())[1:-1]:
            same_dim("Excitation", f"pixels of {operand}", size, 1)
    return infer_conv_nhwc(infer_conv_nhwc(x, squeeze, squeeze_bias), excite, excite_bias)


@widen_half
def excitation(
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
    """gate(activation(x squeeze + squeeze_bias) excite + excite_bias); half-width floats are rounded once, at the end."""
    hidden = ACTIVATIONS[activation](_product(x, squeeze, squeeze_bias, for_each))
    total = _product(hidden, excite, excite_bias, for_each)
    return activations.sigmoid(total) if gate == "Sigmoid" else activations.hard_sigmoid(total, alpha=alpha, beta=beta)


def _product(x: Array, weights: Array, bias: Array | None, for_each: ForEach | None) -> Array:
    """Of matrices whose rows are the first axes."""
    features, channels = weights.shape[0], weights.shape[-1]
    y = multiply(x.reshape(math.prod(x.shape[:-1]), channels), weights.reshape(features, channels).T, for_each=for_each)
    if bias is not None:
        y += bias
    return y.reshape(*x.shape[:-1], features)


def expand_excitation(graph: Graph, node: Node) -> tuple[Value]:
    """Two convolutions and what follows each."""
    x, squeeze, excite, *biases = node.inputs
    squeeze_bias, excite_bias = (*biases, None, None)[:2]
    hidden = insert(graph, "ConvNHWC", x, squeeze, squeeze_bias, before=node, domain=OURS)
    hidden = insert(graph, node.attrs.get("activation", "Relu"), hidden, before=node)
    total = insert(graph, "ConvNHWC", hidden, excite, excite_bias, before=node, domain=OURS)
    gate, limits = node.attrs.get("gate", "Sigmoid"), {k: v for k, v in node.attrs.items() if k in ("alpha", "beta")}
    return (insert(graph, gate, total, before=node, **(limits if gate == "HardSigmoid" else {})),)


def _work(inputs: Any, outputs: Any, attrs: Mapping[str, Any]) -> int:
    x, squeeze, excite = inputs[:3]
    if any(v is None for v in (x, squeeze, excite)):
        return 0
    return int(x.shape[0]) * (int(np.size(squeeze)) + int(np.size(excite)))


EXCITATION = define(
    "Excitation",
    domain=OURS,
    infer=infer_excitation,
    reference=excitation,
    expand=expand_excitation,
    work=_work,
    heavy=True,
    flops=excitation_flops,
)

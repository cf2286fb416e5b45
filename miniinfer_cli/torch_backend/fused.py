"""PyTorch's fused forms of attention, which no exporter takes, in the operations that they stand for."""

from typing import Any

import torch
from torch import fx
from torch.nn import functional


def write_out(graph: fx.Graph) -> None:
    """Has the fused forms in ``graph`` computed by functions that can be exported; a form with a mask is left as it is."""
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        if node.target is torch._transformer_encoder_layer_fwd and len(node.args) <= 20 and _is_plain(node.args[18:], node):
            node.target = _encoder_layer
            node.args = node.args[:18]
            node.kwargs = {}
        elif node.target is torch._native_multi_head_attention and len(node.args) >= 9 and not _of(node, 9, "mask"):
            weights = _of(node, 10, "need_weights", True)
            if not weights:
                node.target = _attention
                node.args = node.args[:9]
                node.kwargs = {}


def _of(node: fx.Node, place: int, name: str, default: Any = None) -> Any:
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


def _is_plain(masks: Any, node: fx.Node) -> bool:
    return all(m is None for m in masks[:1]) and node.kwargs.get("mask") is None


def _attention(
    query: Any, key: Any, value: Any, width: int, heads: int, in_weight: Any, in_bias: Any, out_weight: Any, out_bias: Any
) -> tuple[Any, None]:
    """``torch._native_multi_head_attention`` of [N,L,E], with no mask and no weights asked for."""
    parts = zip((query, key, value), in_weight.chunk(3), in_bias.chunk(3), strict=True)
    q, k, v = (functional.linear(x, w, b).unflatten(-1, (heads, width // heads)).transpose(1, 2) for x, w, b in parts)
    joined = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    return functional.linear(joined, out_weight, out_bias), None


def _encoder_layer(
    x: Any, width: int, heads: int, in_weight: Any, in_bias: Any, out_weight: Any, out_bias: Any, gelu: bool, norm_first: bool,
    eps: float, norm1_weight: Any, norm1_bias: Any, norm2_weight: Any, norm2_bias: Any, up_weight: Any, up_bias: Any,
    down_weight: Any, down_bias: Any,
) -> Any:  # fmt: skip
    """``torch._transformer_encoder_layer_fwd`` of [N,L,E], with no mask."""

    def norm(y: Any, weight: Any, bias: Any) -> Any:
        return functional.layer_norm(y, (width,), weight, bias, eps)

    def attention(y: Any) -> Any:
        return _attention(y, y, y, width, heads, in_weight, in_bias, out_weight, out_bias)[0]

    def feed_forward(y: Any) -> Any:
        wide = functional.linear(y, up_weight, up_bias)
        return functional.linear(functional.gelu(wide) if gelu else functional.relu(wide), down_weight, down_bias)

    if norm_first:
        x = x + attention(norm(x, norm1_weight, norm1_bias))
        return x + feed_forward(norm(x, norm2_weight, norm2_bias))
    x = norm(x + attention(x), norm1_weight, norm1_bias)
    return norm(x + feed_forward(x), norm2_weight, norm2_bias)

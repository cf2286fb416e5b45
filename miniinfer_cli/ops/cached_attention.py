"""CachedAttention of ours: heads are turned, keys and values written into a cache, and the queries attend to what it holds.

    CachedAttention(Q, K, V, past_key, past_value, write_indices, nonpad_kv_seqlen, cos, sin, ids)

What RotaryEmbedding of Q and of K, TensorScatter of K and of V along axis 2 and causal Attention give together: Y, present_key
and present_value. Heads are apart: [batch, heads, length, size].
"""

from typing import Any

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, Graph, Node, TensorType, Value
from miniinfer_cli.ops.attention import attention, infer_attention
from miniinfer_cli.ops.flops import attention_flops
from miniinfer_cli.ops.insert import insert
from miniinfer_cli.ops.products import ForEach
from miniinfer_cli.ops.registry import OURS, define
from miniinfer_cli.ops.rotary import infer_rotary_embedding, rotary_embedding
from miniinfer_cli.ops.scatter import infer_tensor_scatter, tensor_scatter
from miniinfer_cli.ops.shapes import expect_rank
from miniinfer_cli.ops.work import attention_work

ATTENDING = ("left_window_size", "nan_rows", "scale", "softcap")
"""The attributes that are Attention's; ``interleaved`` is RotaryEmbedding's."""


def infer_cached_attention(
    q: TensorType,
    k: TensorType,
    v: TensorType,
    past_key: TensorType,
    past_value: TensorType,
    write_indices: TensorType,
    nonpad_kv_seqlen: TensorType,
    cos: TensorType,
    sin: TensorType,
    ids: TensorType | None = None,
    *,
    interleaved: int = 0,
    left_window_size: int = -1,
    nan_rows: str = "hidden",
    scale: float | None = None,
    softcap: float = 0.0,
) -> tuple[TensorType, TensorType, TensorType]:
    """Y as ``q``, and the caches as they come. Raises ModelError for what one of the operations would not take."""
    for operand in (q, k, v):
        expect_rank("CachedAttention", operand, 4)
    for x in (q, k):
        infer_rotary_embedding(x, cos, sin, ids, interleaved=interleaved)
    keys = infer_tensor_scatter(past_key, k, write_indices, axis=2)
    values = infer_tensor_scatter(past_value, v, write_indices, axis=2)
    if nonpad_kv_seqlen.rank not in (None, 1):
        raise ModelError(f"CachedAttention expects lengths of rank 1, got {nonpad_kv_seqlen}")
    (y,) = infer_attention(
        q,
        keys,
        values,
        nonpad_kv_seqlen=nonpad_kv_seqlen,
        is_causal=1,
        left_window_size=left_window_size,
        nan_rows=nan_rows,
        scale=scale,
        softcap=softcap,
    )
    return y, keys, values


def cached_attention(
    q: Array,
    k: Array,
    v: Array,
    past_key: Array,
    past_value: Array,
    write_indices: Array,
    nonpad_kv_seqlen: Array,
    cos: Array,
    sin: Array,
    ids: Array | None = None,
    *,
    interleaved: int = 0,
    left_window_size: int = -1,
    nan_rows: str = "hidden",
    scale: float | None = None,
    softcap: float = 0.0,
    for_each: ForEach | None = None,
) -> tuple[Array, Array, Array]:
    """The three operations one after the other; turned heads are rounded to their type before they are written."""
    turned_q, turned_k = (rotary_embedding(x, cos, sin, ids, interleaved=interleaved) for x in (q, k))
    keys = tensor_scatter(past_key, turned_k, write_indices, axis=2)
    values = tensor_scatter(past_value, v, write_indices, axis=2)
    (y,) = attention(
        turned_q,
        keys,
        values,
        nonpad_kv_seqlen=nonpad_kv_seqlen,
        is_causal=1,
        left_window_size=left_window_size,
        nan_rows=nan_rows,
        scale=scale,
        softcap=softcap,
        for_each=for_each,
    )
    return y, keys, values


def expand_cached_attention(graph: Graph, node: Node) -> tuple[Value, ...]:
    """RotaryEmbedding twice, TensorScatter twice, and Attention."""
    operands: list[Any] = [*node.inputs, None]
    q, k, v, past_key, past_value, at, seen, cos, sin, ids = operands[:10]
    turning = {"interleaved": node.attrs.get("interleaved", 0)}
    q, k = (insert(graph, "RotaryEmbedding", x, cos, sin, ids, before=node, **turning) for x in (q, k))
    keys = insert(graph, "TensorScatter", past_key, k, at, before=node, axis=2)
    values = insert(graph, "TensorScatter", past_value, v, at, before=node, axis=2)
    attrs = {name: node.attrs[name] for name in ATTENDING if name in node.attrs}
    y = insert(graph, "Attention", q, keys, values, None, None, None, seen, before=node, is_causal=1, **attrs)
    return y, keys, values


CACHED_ATTENTION = define(
    "CachedAttention",
    domain=OURS,
    infer=infer_cached_attention,
    reference=cached_attention,
    expand=expand_cached_attention,
    work=lambda inputs, outputs, attrs: attention_work((inputs[0], inputs[3]), outputs[:1], attrs),
    heavy=True,
    flops=lambda operands, results, attrs: attention_flops((operands[0], operands[3]), results[:1], attrs),
)

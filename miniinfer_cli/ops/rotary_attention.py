"""RotaryAttention of ours: Attention whose queries, keys or both are first turned as RotaryEmbedding turns them.

    RotaryAttention(Q, K, V, attn_mask, past_key, past_value, nonpad_kv_seqlen, q_cos, q_sin, q_ids, k_cos, k_sin, k_ids)

The first seven operands are Attention's, and so are the attributes and the outputs, ``interleaved`` and ``rotary_embedding_dim``
apart, which hold for both sides. A side without cosines is not turned. Of keys the fresh ones are turned, not those of the past.
"""

from typing import Any

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, Graph, Node, TensorType, Value
from miniinfer_cli.ops.attention import attention, infer_attention
from miniinfer_cli.ops.flops import attention_flops
from miniinfer_cli.ops.insert import insert, insert_many
from miniinfer_cli.ops.products import ForEach
from miniinfer_cli.ops.registry import OURS, define
from miniinfer_cli.ops.rotary import infer_rotary_embedding, rotary_embedding
from miniinfer_cli.ops.work import attention_work

FIRST_ANGLES = 7
"""The number of ``q_cos``; the other angles follow."""
ROTARY = ("interleaved", "rotary_embedding_dim")
"""The attributes that are RotaryEmbedding's."""
_HEADS = "q_num_heads", "kv_num_heads"


def infer_rotary_attention(
    q: TensorType,
    k: TensorType,
    v: TensorType,
    attn_mask: TensorType | None = None,
    past_key: TensorType | None = None,
    past_value: TensorType | None = None,
    nonpad_kv_seqlen: TensorType | None = None,
    q_cos: TensorType | None = None,
    q_sin: TensorType | None = None,
    q_ids: TensorType | None = None,
    k_cos: TensorType | None = None,
    k_sin: TensorType | None = None,
    k_ids: TensorType | None = None,
    *,
    interleaved: int = 0,
    rotary_embedding_dim: int = 0,
    is_causal: int = 0,
    kv_num_heads: int = 0,
    left_window_size: int = -1,
    nan_rows: str = "hidden",
    q_num_heads: int = 0,
    qk_matmul_output_mode: int = 0,
    right_window_size: int = -1,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int | None = None,
    n_outputs: int = 1,
) -> tuple[TensorType, ...]:
    """As Attention's."""
    sides = (("q", q, (q_cos, q_sin, q_ids), q_num_heads), ("k", k, (k_cos, k_sin, k_ids), kv_num_heads))
    for name, x, (cosines, sines, ids), heads in sides:
        if (cosines is None) != (sines is None) or (cosines is None and ids is not None):
            raise ModelError(f"RotaryAttention takes {name}_cos and {name}_sin together, and {name}_ids with both")
        if cosines is not None and sines is not None:
            infer_rotary_embedding(
                x,
                cosines,
                sines,
                ids,
                interleaved=interleaved,
                num_heads=heads,
                rotary_embedding_dim=rotary_embedding_dim,
            )
    return infer_attention(
        q,
        k,
        v,
        attn_mask,
        past_key,
        past_value,
        nonpad_kv_seqlen,
        is_causal=is_causal,
        kv_num_heads=kv_num_heads,
        left_window_size=left_window_size,
        nan_rows=nan_rows,
        q_num_heads=q_num_heads,
        qk_matmul_output_mode=qk_matmul_output_mode,
        right_window_size=right_window_size,
        scale=scale,
        softcap=softcap,
        softmax_precision=softmax_precision,
        n_outputs=n_outputs,
    )


def rotary_attention(
    q: Array,
    k: Array,
    v: Array,
    attn_mask: Array | None = None,
    past_key: Array | None = None,
    past_value: Array | None = None,
    nonpad_kv_seqlen: Array | None = None,
    q_cos: Array | None = None,
    q_sin: Array | None = None,
    q_ids: Array | None = None,
    k_cos: Array | None = None,
    k_sin: Array | None = None,
    k_ids: Array | None = None,
    *,
    interleaved: int = 0,
    rotary_embedding_dim: int = 0,
    is_causal: int = 0,
    kv_num_heads: int = 0,
    left_window_size: int = -1,
    nan_rows: str = "hidden",
    q_num_heads: int = 0,
    qk_matmul_output_mode: int = 0,
    right_window_size: int = -1,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int | None = None,
    n_outputs: int = 1,
    for_each: ForEach | None = None,
) -> tuple[Array, ...]:
    """Attention of turned heads, which are rounded to their type before."""

    def turned(x: Array, cosines: Array | None, sines: Array | None, ids: Array | None, heads: int) -> Array:
        if cosines is None or sines is None:
            return x
        result: Array = rotary_embedding(
            x, cosines, sines, ids, interleaved=interleaved, num_heads=heads, rotary_embedding_dim=rotary_embedding_dim
        )
        return result

    return attention(
        turned(q, q_cos, q_sin, q_ids, q_num_heads),
        turned(k, k_cos, k_sin, k_ids, kv_num_heads),
        v,
        attn_mask,
        past_key,
        past_value,
        nonpad_kv_seqlen,
        is_causal=is_causal,
        kv_num_heads=kv_num_heads,
        left_window_size=left_window_size,
        nan_rows=nan_rows,
        q_num_heads=q_num_heads,
        qk_matmul_output_mode=qk_matmul_output_mode,
        right_window_size=right_window_size,
        scale=scale,
        softcap=softcap,
        softmax_precision=softmax_precision,
        n_outputs=n_outputs,
        for_each=for_each,
    )


def expand_rotary_attention(graph: Graph, node: Node) -> tuple[Value, ...]:
    """RotaryEmbedding for each side that is turned, and Attention."""
    operands: list[Any] = list(node.inputs)
    turning = {name: node.attrs[name] for name in ROTARY if name in node.attrs}
    for side in range(2):
        angles = (*operands, *(None,) * 6)[FIRST_ANGLES + 3 * side :][:3]
        if angles[0] is None:
            continue
        x = operands[side]
        heads = {"num_heads": node.attrs[_HEADS[side]]} if x.tensor.rank == 3 else {}
        operands[side] = insert(graph, "RotaryEmbedding", x, *angles, before=node, **turning, **heads)
    attrs = {name: value for name, value in node.attrs.items() if name not in ROTARY}
    outputs = len(node.outputs)
    return insert_many(graph, "Attention", *operands[:FIRST_ANGLES], n_outputs=outputs, before=node, **attrs)


ROTARY_ATTENTION = define(
    "RotaryAttention",
    domain=OURS,
    infer=infer_rotary_attention,
    reference=rotary_attention,
    expand=expand_rotary_attention,
    work=attention_work,
    heavy=True,
    flops=attention_flops,
)

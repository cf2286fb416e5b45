"""MultiHeadAttention, Attention and QAttention of com.microsoft."""

from collections.abc import Sequence

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Dim, Value
from miniinfer_cli.onnx_import.call import Call
from miniinfer_cli.onnx_import.contributed.heads import apart, batch_of, padding, scale_of, size_of, summed, together
from miniinfer_cli.onnx_import.contributed.quantized_products import scaled_product
from miniinfer_cli.onnx_import.registry import FLOAT, INT, INTS, contributed

_SCORES = {"mask_filter_value": FLOAT, "num_heads": INT, "scale": FLOAT, "unidirectional": INT}
_MERGED = {**_SCORES, "do_rotary": INT, "past_present_share_buffer": INT}
_AFTER_SOFTMAX = 3


@contributed(
    "MultiHeadAttention",
    _SCORES,
    (1, 10),
    (1, 4),
    required=("num_heads",),
    absent={8: "past_sequence_length", 9: "cache_indirection"},
)
def multi_head_attention(call: Call) -> Sequence[Value]:
    """Attention of projected queries, keys and values, apart, packed, or of a cache; masks are added to the scores."""
    query, heads = call.required(0), call.count("num_heads")
    q, k, v = _operands(call, query, heads)
    return _attention(
        call, (q, k, v), call.input(6), call.input(7), call.input(4), call.input(5), batch_of(call, query), stacked=False
    )


def _operands(call: Call, query: Value, heads: int) -> tuple[Value, Value, Value]:
    """Queries, keys and values as [batch, heads, length, size], with their biases."""
    key, value, bias = (call.input(i) for i in (1, 2, 3))
    rank = call.rank(query)
    if key is None and value is None:
        if rank != 5:
            raise ModelError(f"{call.op} without key and value needs a query of rank 5 (packed), got {query.type}")
        parts = [_flat(call, query, i) for i in range(3)]
    elif key is not None and value is None:
        if call.rank(key) != 5:
            raise ModelError(f"{call.op} without value needs a key of rank 5 (packed), got {key.type}")
        parts = [query, _flat(call, key, 0), _flat(call, key, 1)]
    elif key is not None and value is not None:
        parts = [query, key, value]
    else:
        raise ModelError(f"{call.op} has a value without a key")
    if bias is not None:
        at = 0
        for number, part in enumerate(parts):
            size = call.last_size(part) * (heads if call.rank(part) == 4 else 1)
            piece = call.emit("Slice", bias, *(call.integers([n], "bound") for n in (at, at + size)))
            at += size
            if call.rank(part) == 4:  # a cache: keys and values of an encoder, which have theirs
                continue
            parts[number] = call.emit("Add", part, piece)
    q, k, v = (part if call.rank(part) == 4 else apart(call, part, heads) for part in parts)
    return q, k, v


def _flat(call: Call, packed: Value, index: int) -> Value:
    """One of [batch, length, heads, n, size] as [batch, length, heads * size]."""
    bounds = (call.integers([n], "bound") for n in (index, index + 1, 3))
    return call.emit("Reshape", call.emit("Slice", packed, *bounds), call.integers([0, 0, -1], "hidden"))


@contributed(
    "Attention",
    {**_MERGED, "qkv_hidden_sizes": INTS, "rotary_embedding_dim": INT},
    (2, 7),
    (1, 2),
    required=("num_heads",),
    fixed={"do_rotary": 0, "past_present_share_buffer": 0},
    ignored=("rotary_embedding_dim",),
    absent={6: "past_sequence_length"},
)
def attention(call: Call) -> Sequence[Value]:
    """Attention of one product with merged weights, plus bias; masks are added to the scores."""
    x, bias = call.required(0), call.input(2)
    merged = call.emit("MatMul", x, call.required(1))
    if bias is not None:
        merged = call.emit("Add", merged, bias)
    return _merged_attention(call, x, merged, call.input(3), call.input(4), call.input(5))


@contributed(
    "QAttention",
    _MERGED,
    (5, 9),
    (1, 2),
    required=("num_heads",),
    fixed={"do_rotary": 0, "past_present_share_buffer": 0},
)
def qattention(call: Call) -> Sequence[Value]:
    """Attention of one MatMulInteger with merged weights, times both scales, plus bias."""
    x, weights, bias, *scales = (call.required(i) for i in range(5))
    merged = scaled_product(call, x, weights, (scales[0], scales[1]), (call.input(6), call.input(7)))
    return _merged_attention(call, x, call.emit("Add", merged, bias), call.input(5), call.input(8), None)


def _merged_attention(
    call: Call, x: Value, merged: Value, mask: Value | None, past: Value | None, bias: Value | None
) -> Sequence[Value]:
    total, heads = call.last_size(merged), call.count("num_heads")
    sizes = call.attrs.get("qkv_hidden_sizes") or [total // 3] * 3
    if sum(sizes) != total or len(sizes) != 3 or any(n % heads for n in sizes):
        raise ModelError(f"{call.op}: sizes {list(sizes)} of Q, K and V do not fit {total} columns and {heads} heads")
    parts = call.emits("Split", 3, merged, call.integers(sizes, "sizes"), axis=-1)
    q, k, v = (apart(call, part, heads) for part in parts)
    cached: list[Value | None] = [None, None]
    if past is not None:
        zero = call.integers([0], "axis")
        cached = [call.emit("Squeeze", half, zero) for half in call.emits("Split", 2, past, axis=0, num_outputs=2)]
    return _attention(call, (q, k, v), cached[0], cached[1], mask, bias, batch_of(call, x), stacked=True)


def _attention(
    call: Call,
    operands: tuple[Value, Value, Value],
    past_key: Value | None,
    past_value: Value | None,
    mask: Value | None,
    bias: Value | None,
    batch: Dim | None,
    *,
    stacked: bool,
) -> Sequence[Value]:
    """The outputs: Y, then keys and values with the past (``stacked``: as one tensor), then probabilities."""
    q, k, v = operands
    if (past_key is None) != (past_value is None):
        raise ModelError(f"{call.op} has a past key or a past value without the other")
    hidden = None
    if mask is not None:
        keys = size_of(call, k, 2)
        if past_key is not None:
            keys = call.emit("Add", keys, size_of(call, past_key, 2))
        hidden = padding(call, mask, batch, keys, call.dtype(q))
    wanted = len(call.outputs)
    count = 4 if wanted > 3 else 3 if wanted > 1 else 1
    causal = {"is_causal": 1} if call.attrs.get("unidirectional", 0) else {}
    probabilities = {"qk_matmul_output_mode": _AFTER_SOFTMAX} if count == 4 else {}
    y, *rest = call.emits(
        "Attention", count, q, k, v, summed(call, [hidden, bias]), past_key, past_value,
        **causal, **probabilities, **scale_of(call),
    )  # fmt: skip
    if stacked and rest:
        zero = call.integers([0], "axis")
        rest = [call.emit("Concat", *(call.emit("Unsqueeze", part, zero) for part in rest[:2]), axis=0)]
    return (together(call, y), *rest)[:wanted]

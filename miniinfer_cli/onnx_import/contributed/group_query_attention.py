"""GroupQueryAttention of com.microsoft: a step of a decoder with its cache, as a pure function: the past in, the present out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, Value, numpy_dtype
from miniinfer_cli.onnx_import.call import Call
from miniinfer_cli.onnx_import.contributed.heads import apart, positions, scale_of, size_of, together
from miniinfer_cli.onnx_import.registry import FLOAT, INT, STRING, contributed

_FORM = {
    "causal": INT, "do_rotary": INT, "k_norm_epsilon": FLOAT, "k_quant_type": STRING, "kv_cache_bit_width": INT,
    "kv_num_heads": INT, "local_window_size": INT, "num_heads": INT, "q_norm_epsilon": FLOAT, "qk_norm_epsilon": FLOAT,
    "qk_output": INT, "rotary_interleaved": INT, "scale": FLOAT, "sliding_window_cache": INT, "smooth_softmax": INT,
    "softcap": FLOAT, "v_quant_type": STRING,
}  # fmt: skip
_FIXED = {
    "k_quant_type": "NONE", "kv_cache_bit_width": 0, "qk_output": 0, "sliding_window_cache": 0, "v_quant_type": "NONE",
}  # fmt: skip


@contributed(
    "GroupQueryAttention",
    _FORM,
    (7, 17),
    (1, 4),
    required=("num_heads", "kv_num_heads"),
    fixed=_FIXED,
    absent={12: "k_scale", 13: "v_scale", 16: "query_seqlens"},
)
def group_query_attention(call: Call) -> Sequence[Value]:
    """Attention over the past with the new keys and values written into it (TensorScatter), RotaryEmbedding before that."""
    if len(call.outputs) > 3 and call.outputs[3]:
        raise ModelError(f"{call.op}: output 3 (output_qk) is not supported")
    wanted = len(call.outputs)
    q, k, v = _projected(call)
    q, k = (_normalized(call, x, which) for x, which in ((q, "q"), (k, "k")))
    step = _step(call, q, k)
    if call.attrs.get("do_rotary", 0):
        q, k = (_rotated(call, x, step) for x in (q, k))
    present_key, present_value = (_written(call, past, new, step) for past, new in ((call.input(3), k), (call.input(4), v)))
    y = _attended(call, q, present_key, present_value, step)
    return (together(call, y), present_key, present_value)[:wanted]


@dataclass(frozen=True)
class _Step:
    """Where the new tokens stand. ``new``: how many, ``capacity``: the length of the present, i64 vectors of one element.

    ``first`` is the position of the first new token in each row of the batch, ``total`` the number of tokens with the new ones.
    """

    new: Value
    capacity: Value
    first: Value
    total: Value


def _projected(call: Call) -> tuple[Value, Value, Value]:
    """Queries, keys and values as [batch, heads, length, size]; the three may come as one."""
    heads, kv_heads = call.count("num_heads"), call.count("kv_num_heads")
    if heads % kv_heads:
        raise ModelError(f"{call.op} num_heads is {heads}, expected a multiple of kv_num_heads, {kv_heads}")
    query, key, value = call.required(0), call.input(1), call.input(2)
    if key is None and value is None:
        size = call.last_size(query) // (heads + 2 * kv_heads)
        sizes = call.integers([heads * size, kv_heads * size, kv_heads * size], "sizes")
        query, key, value = call.emits("Split", 3, query, sizes, axis=-1)
    elif key is None or value is None:
        raise ModelError(f"{call.op} has a key or a value without the other")
    return apart(call, query, heads), apart(call, key, kv_heads), apart(call, value, kv_heads)


def _normalized(call: Call, x: Value, which: str) -> Value:
    """RMSNormalization of each head, where there are weights for it."""
    weight = call.input(14 if which == "q" else 15)
    if weight is None:
        return x
    epsilon = call.attrs.get(f"{which}_norm_epsilon", call.attrs.get("qk_norm_epsilon", 1e-6))
    return call.emit("RMSNormalization", x, weight, axis=-1, epsilon=epsilon)


def _step(call: Call, q: Value, k: Value) -> _Step:
    """A first prompt, whose tokens are all that there are, begins at 0, also where its rows are shorter (padded on the right)."""
    new = size_of(call, q, 2)
    longest = call.emit("Reshape", call.cast(call.required(6), DType.I64), call.integers([1], "one"))
    one = call.integers([1], "step")
    lengths = call.emit("Reshape", call.cast(call.required(5), DType.I64), call.integers([-1], "batch"))
    total = call.emit("Add", lengths, one)
    is_prompt = call.emit("Equal", new, longest)
    first = call.emit("Where", is_prompt, call.integers([0], "begin"), call.emit("Sub", total, new))
    past = call.input(3)
    if past is not None:
        held = size_of(call, past, 2)
        capacity = call.emit("Add", held, call.emit("Relu", call.emit("Sub", longest, held)))
    else:
        capacity = size_of(call, k, 2)
    return _Step(new, capacity, first, total)


def _rotated(call: Call, x: Value, step: _Step) -> Value:
    cos, sin = call.input(7), call.input(8)
    if cos is None or sin is None:
        raise ModelError(f"{call.op} with do_rotary needs cos_cache and sin_cache")
    ids = call.input(9)
    if ids is None:
        start = call.emit("Unsqueeze", step.first, call.integers([1], "axis"))
        ids = call.emit("Add", start, positions(call, step.new, "place"))
    size, turned = call.last_size(x), 2 * call.last_size(cos)
    part = {} if turned == size else {"rotary_embedding_dim": turned}
    return call.emit("RotaryEmbedding", x, cos, sin, ids, interleaved=call.attrs.get("rotary_interleaved", 0), **part)


def _written(call: Call, past: Value | None, new: Value, step: _Step) -> Value:
    """The present: the past, as long as there is room for, with ``new`` in its place."""
    if past is None:
        return new
    zeros = call.integers([0] * 6, "none")
    grown = call.emit("Sub", step.capacity, size_of(call, past, 2))
    pads = call.emit("Concat", zeros, grown, call.integers([0], "none"), axis=0)
    return call.emit("TensorScatter", call.emit("Pad", past, pads), new, step.first, axis=2)


def _attended(call: Call, q: Value, key: Value, value: Value, step: _Step) -> Value:
    """[batch, heads, length, size]. A window of n keys is a token's own and n - 1 in front of it."""
    causal, window = call.attrs.get("causal", 1), call.attrs.get("local_window_size", -1)
    if causal not in (0, 1) or (not causal and window != -1):
        raise ModelError(f"{call.op} causal is {causal} with local_window_size {window}")
    attrs = {**scale_of(call), "softcap": call.attrs.get("softcap", 0.0)}
    bias, sink = call.input(10), call.input(11)
    if sink is None and call.attrs.get("smooth_softmax", 0) == 1:
        sink = call.constant(np.zeros(call.count("num_heads"), numpy_dtype(call.dtype(q))), "sink")
    if sink is not None:
        return _with_sink(call, q, (key, value), step, (bias, sink), attrs)
    if causal:
        attrs |= {"is_causal": 1} | ({"left_window_size": window - 1} if window > 0 else {})
    # The last query stands at the last key that it is told of, whether it is padding or not.
    seen = call.emit("Add", step.first, step.new) if causal else step.total
    return call.emit("Attention", q, key, value, bias, None, None, seen, **attrs)


def _with_sink(
    call: Call, q: Value, cache: tuple[Value, Value], step: _Step, added: tuple[Value | None, Value], attrs: dict[str, float]
) -> Value:
    """Each head has a number whose exponential is part of the sum that probabilities are divided by: the score of one more key,
    which is 0, as its value is."""
    bias, sink = added
    dtype = call.dtype(q)
    place = positions(call, step.capacity, "key")
    queries = call.emit(
        "Add", _column(call, step.first), call.emit("Unsqueeze", positions(call, step.new, "query"), call.integers([1], "axis"))
    )
    if call.attrs.get("causal", 1):
        seen = call.emit("LessOrEqual", place, queries)
        if (window := call.attrs.get("local_window_size", -1)) > 0:
            oldest = call.emit("Sub", queries, call.integers([window - 1], "window"))
            seen = call.emit("And", seen, call.emit("GreaterOrEqual", place, oldest))
    else:
        seen = call.emit("Less", place, _column(call, step.total))
    zero, low = (call.constant(np.array(v, np.float32).astype(numpy_dtype(dtype)), "mask") for v in (0.0, -np.inf))
    mask = call.emit("Where", seen, zero, low)
    shape = call.emit("Concat", *(size_of(call, q, axis) for axis in (0, 1, 2)), step.capacity, axis=0)
    if bias is not None:
        missing = call.emit("Sub", step.capacity, size_of(call, bias, 3))
        pads = call.emit("Concat", call.integers([0] * 7, "none"), missing, axis=0)
        mask = call.emit("Add", mask, call.emit("Pad", bias, pads))
    mask = call.emit("Expand", mask, shape)
    column = call.emit("Concat", *(size_of(call, q, axis) for axis in (0, 1, 2)), call.integers([1], "one"), axis=0)
    heads = call.emit("Reshape", call.cast(sink, dtype), call.integers([1, -1, 1, 1], "heads"))
    mask = call.emit("Concat", mask, call.emit("Expand", heads, column), axis=3)
    pads = call.integers([0, 0, 0, 0, 0, 0, 1, 0], "one more")
    return call.emit("Attention", q, *(call.emit("Pad", x, pads) for x in cache), mask, **attrs)


def _column(call: Call, rows: Value) -> Value:
    return call.emit("Unsqueeze", rows, call.integers([1, 2, 3], "axes"))

"""Attention: scaled dot products of queries and keys, masked, through a softmax, times the values."""

import math

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, Dim, DType, Shape, TensorType, numpy_dtype
from miniinfer_cli.ops.attention_expansion import AFTER_BIAS, AFTER_SOFTCAP, AFTER_SOFTMAX, RAW, expand_attention
from miniinfer_cli.ops.element_types import REAL
from miniinfer_cli.ops.flops import attention_flops
from miniinfer_cli.ops.inference import UNKNOWN
from miniinfer_cli.ops.numerics import is_half
from miniinfer_cli.ops.products import ForEach, multiply
from miniinfer_cli.ops.registry import define
from miniinfer_cli.ops.shapes import broadcast, expect_rank, same_dim
from miniinfer_cli.ops.softmax import softmax_into
from miniinfer_cli.ops.type_codes import dtype_of_code, float_of_code
from miniinfer_cli.ops.work import attention_work

NAN_ROWS = ("hidden", "zero", "keep")


def infer_attention(
    q: TensorType,
    k: TensorType,
    v: TensorType,
    attn_mask: TensorType | None = None,
    past_key: TensorType | None = None,
    past_value: TensorType | None = None,
    nonpad_kv_seqlen: TensorType | None = None,
    *,
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
    """Y in the form of ``q``, then present_key, present_value and qk_matmul_output, always of rank 4."""
    _check_attributes(qk_matmul_output_mode, left_window_size, right_window_size, softmax_precision, nan_rows)
    if (past_key is None) != (past_value is None):
        raise ModelError("Attention takes past_key and past_value together, got only one of them")
    if past_key is not None and nonpad_kv_seqlen is not None:
        raise ModelError("Attention takes either past_key and past_value or nonpad_kv_seqlen, got both")
    untyped = (TensorType(q.dtype), TensorType(k.dtype), TensorType(v.dtype), TensorType(q.dtype))
    for operand in (q, k, v):
        expect_rank("Attention", operand, 3, 4)
    if q.shape is None or k.shape is None or v.shape is None:
        return untyped[:n_outputs]
    if not len(q.shape) == len(k.shape) == len(v.shape):
        raise ModelError(f"Attention expects Q, K and V of one rank, got {q}, {k} and {v}")
    batch, heads, queries, size = _split_heads("q_num_heads", q, q_num_heads)
    k_batch, kv_heads, keys, k_size = _split_heads("kv_num_heads", k, kv_num_heads)
    v_batch, v_heads, v_keys, v_size = _split_heads("kv_num_heads", v, kv_num_heads)
    for what, dim in (("Q and K", k_batch), ("Q and V", v_batch)):
        batch = same_dim("Attention", f"batch sizes of {what} differ", batch, dim)
    size = same_dim("Attention", "head sizes of Q and K differ", size, k_size)
    kv_heads = same_dim("Attention", "head counts of K and V differ", kv_heads, v_heads)
    keys = same_dim("Attention", "sequence lengths of K and V differ", keys, v_keys)
    if isinstance(heads, int) and isinstance(kv_heads, int) and (heads % kv_heads if kv_heads else heads):
        raise ModelError(f"Attention: {heads} query heads are no multiple of {kv_heads} key and value heads")
    total = _add_past(keys, past_key, past_value)
    scores = TensorType(q.dtype, (batch, heads, queries, total))
    if attn_mask is not None:
        _check_mask(attn_mask, scores)
    y: Shape = (batch, heads, queries, v_size) if len(q.shape) == 4 else (batch, queries, heads * v_size)
    return (
        TensorType(q.dtype, y),
        TensorType(k.dtype, (batch, kv_heads, total, size)),
        TensorType(v.dtype, (batch, kv_heads, total, v_size)),
        scores,
    )[:n_outputs]


def attention(
    q: Array,
    k: Array,
    v: Array,
    attn_mask: Array | None = None,
    past_key: Array | None = None,
    past_value: Array | None = None,
    nonpad_kv_seqlen: Array | None = None,
    *,
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
    """softmax(softcap(q @ k.T * scale) + mask) @ v per head; a query that may attend to no key gives zeros.

    ``q``, ``k``, ``v`` are [batch, heads, length, size], or [batch, length, heads * size] with the counts of heads given;
    several query heads may share one head of keys and values. Half-width inputs are computed in f32 and rounded at the
    outputs. Source: ONNX Attention-25.

    ``nan_rows`` is ours: what the probabilities of a query are where softmax gives NaN. "hidden": zeros where all keys are
    hidden, as ONNX has it; "zero": zeros in any case, as in a safe softmax; "keep": NaN in any case, as in a plain one.
    """
    four = q.ndim == 4
    # A rank-3 operand becomes a view with strided rows, which the matrix product takes as it is.
    present_key = _join(past_key, k if four else _heads_apart(k, kv_num_heads))
    present_value = _join(past_value, v if four else _heads_apart(v, kv_num_heads))
    queries = _wide(q if four else _heads_apart(q, q_num_heads))
    batch, _, length, size = queries.shape
    factor = 1 / math.sqrt(max(size, 1)) if scale is None else scale
    scores = grouped_matmul(queries * queries.dtype.type(factor), _wide(present_key).swapaxes(2, 3), for_each)
    kept = scores.copy() if n_outputs > 3 and qk_matmul_output_mode == RAW else None
    if softcap:
        scores /= scores.dtype.type(softcap)
        np.tanh(scores, out=scores)
        scores *= scores.dtype.type(softcap)
    if n_outputs > 3 and qk_matmul_output_mode == AFTER_SOFTCAP:
        kept = scores.copy()
    offset = _key_offset(length, past_key, nonpad_kv_seqlen)
    visible = visible_keys(length, scores.shape[3], offset, nonpad_kv_seqlen, is_causal, left_window_size, right_window_size)
    apply_mask(scores, attn_mask, visible)
    if n_outputs > 3 and qk_matmul_output_mode == AFTER_BIAS:
        kept = scores.copy()
    may_be_empty = nan_rows != "keep" and (attn_mask is not None or visible is not None)
    probabilities = masked_softmax(scores, softmax_precision, may_be_empty=may_be_empty)
    if nan_rows == "zero" and probabilities.size:
        probabilities[np.isnan(probabilities[..., 0])] = 0  # where one is NaN, all of the row are
    if n_outputs > 3 and qk_matmul_output_mode == AFTER_SOFTMAX:
        kept = probabilities
    y = grouped_matmul(probabilities, _wide(present_value), for_each)
    if not four:
        y = y.transpose(0, 2, 1, 3).reshape(batch, length, y.shape[1] * y.shape[3])
    y = y.astype(q.dtype, copy=False)
    if n_outputs == 1:
        return (y,)
    present = (np.ascontiguousarray(present_key), np.ascontiguousarray(present_value))
    return (y, *present[: n_outputs - 1]) if kept is None else (y, *present, kept.astype(q.dtype, copy=False))


def visible_keys(
    queries: int,
    keys: int,
    offset: Array,
    nonpad_kv_seqlen: Array | None,
    is_causal: int,
    left_window_size: int,
    right_window_size: int,
) -> Array | None:
    """Which key each query may see, apart from the mask input: bool that broadcasts to [batch, 1, queries, keys].

    Query i stands at position ``offset + i`` among the keys (``offset``: one number, or one per batch entry). None when
    every query sees every key.
    """
    position = np.arange(queries)[:, None] + offset.reshape(-1, 1, 1, 1)
    key = np.arange(keys)
    conditions = []
    if is_causal:
        conditions.append(key <= position)
    if left_window_size >= 0:
        conditions.append(key >= position - left_window_size)
    if right_window_size >= 0:
        conditions.append(key <= position + right_window_size)
    if nonpad_kv_seqlen is not None:
        conditions.append(key < nonpad_kv_seqlen.reshape(-1, 1, 1, 1))
    if not conditions:
        return None
    visible = conditions[0]
    for condition in conditions[1:]:
        visible = visible & condition
    return visible


def apply_mask(scores: Array, attn_mask: Array | None, visible: Array | None) -> None:
    """Adds the mask to ``scores`` in place; keys that a query may not see get minus infinity.

    ``attn_mask`` is bool (True: may be seen) or additive, and its last axis may be shorter than the keys: no query sees
    the keys beyond it.
    """
    if visible is not None:
        np.copyto(scores, -np.inf, where=~visible)
    if attn_mask is None:
        return
    if attn_mask.ndim and attn_mask.shape[-1] != scores.shape[-1]:
        scores[..., attn_mask.shape[-1] :] = -np.inf
        scores = scores[..., : attn_mask.shape[-1]]
    if attn_mask.dtype == np.bool_:
        np.copyto(scores, -np.inf, where=~attn_mask)
    else:
        np.add(scores, attn_mask.astype(scores.dtype, copy=False), out=scores)


def masked_softmax(scores: Array, precision: int | None, *, may_be_empty: bool) -> Array:
    """Softmax along the last axis in place of ``scores``, zeros for a row of minus infinities.

    ``precision`` (ONNX's number of a type, None: as it comes) is the type the softmax is computed in. ``may_be_empty``
    False promises that no such row is there.
    """
    working = scores if precision is None else _rounded(scores, dtype_of_code(precision))
    softmax_into(working, working, -1, zero_for_empty=may_be_empty)
    if precision is None:
        return working
    return _rounded(working, dtype_of_code(precision)).astype(scores.dtype, copy=False)


def grouped_matmul(left: Array, right: Array, for_each: ForEach | None = None) -> Array:
    """left @ right per head, where consecutive heads of ``left`` share one head of ``right``."""
    heads, shared = left.shape[1], right.shape[1]
    if heads == shared:
        return multiply(left, right, for_each=for_each)
    batch, _, rows, columns = left.shape
    grouped = left.reshape(batch, shared, heads // shared, rows, columns)
    return multiply(grouped, right[:, :, None], for_each=for_each).reshape(batch, heads, rows, right.shape[3])


def _rounded(x: Array, dtype: DType) -> Array:
    """``x`` with the values that ``dtype`` can hold, in f32 when that is narrower."""
    narrow = numpy_dtype(dtype)
    return x.astype(narrow).astype(np.float32) if dtype.is_half else x.astype(narrow, copy=False)


def _key_offset(queries: int, past_key: Array | None, nonpad_kv_seqlen: Array | None) -> Array:
    """The position of the first query among the keys: one number, or one per batch entry with an external cache."""
    if past_key is not None:
        return np.array(past_key.shape[2])
    return np.array(0) if nonpad_kv_seqlen is None else nonpad_kv_seqlen - queries


def _heads_apart(x: Array, heads: int) -> Array:
    """[batch, length, heads * size] as [batch, heads, length, size], a view."""
    batch, length, hidden = x.shape
    return x.reshape(batch, length, heads, hidden // heads).transpose(0, 2, 1, 3)


def _join(past: Array | None, new: Array) -> Array:
    return new if past is None else np.concatenate((past, new), axis=2)


def _wide(x: Array) -> Array:
    return x.astype(np.float32) if is_half(x) else x


def _split_heads(name: str, x: TensorType, heads: int) -> tuple[Dim, Dim, Dim, Dim]:
    """Batch, heads, length and head size of an operand of rank 3 or 4 with known rank."""
    shape = x.shape or ()
    if len(shape) == 4:
        batch, own, length, size = shape
        return batch, own, length, size
    batch, length, hidden = shape
    if heads < 1:
        raise ModelError(f"Attention needs {name} for inputs of rank 3 like {x}")
    if isinstance(hidden, int) and hidden % heads:
        raise ModelError(f"Attention {name} {heads} does not divide the last dimension of {x}")
    return batch, heads, length, hidden // heads


def _add_past(keys: Dim, past_key: TensorType | None, past_value: TensorType | None) -> Dim:
    if past_key is None or past_value is None:
        return keys
    expect_rank("Attention", past_key, 4)
    expect_rank("Attention", past_value, 4)
    if past_key.shape is None or past_value.shape is None:
        return UNKNOWN
    past = same_dim("Attention", "lengths of past_key and past_value differ", past_key.shape[2], past_value.shape[2])
    return keys + past


def _check_mask(mask: TensorType, scores: TensorType) -> None:
    """Raises ModelError unless the mask broadcasts to the scores, its last axis apart, which may be shorter."""
    if mask.shape is None or scores.shape is None:
        return
    last, keys = mask.shape[-1:], scores.shape[-1]
    if last and isinstance(last[0], int) and isinstance(keys, int) and last[0] > keys:
        raise ModelError(f"Attention attn_mask {mask} has more keys than the {keys} there are")
    leading = broadcast("Attention attn_mask", TensorType(mask.dtype, mask.shape[:-1]), TensorType(DType.F32, scores.shape[:-1]))
    if leading is not None and len(leading) != 3:
        raise ModelError(f"Attention attn_mask {mask} does not broadcast to the scores {scores}")


def _check_attributes(mode: int, left: int, right: int, precision: int | None, nan_rows: str) -> None:
    if mode not in range(4):
        raise ModelError(f"Attention qk_matmul_output_mode is {mode}, expected 0 to 3")
    for name, size in (("left_window_size", left), ("right_window_size", right)):
        if size < -1:
            raise ModelError(f"Attention {name} is {size}, expected -1 (no bound) or more")
    if nan_rows not in NAN_ROWS:
        raise ModelError(f"Attention nan_rows is {nan_rows!r}, expected one of {', '.join(NAN_ROWS)}")
    if precision is not None:
        float_of_code("Attention", "softmax_precision", precision)


ATTENTION = define(
    "Attention",
    infer=infer_attention,
    reference=attention,
    takes=(REAL,) * 6,
    expand=expand_attention,
    work=attention_work,
    heavy=True,
    flops=attention_flops,
)

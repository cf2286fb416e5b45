"""LinearAttention: attention whose memory is a matrix per head, updated token by token."""

import math

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, Dim, TensorType
from miniinfer_cli.ops.budget import check_time
from miniinfer_cli.ops.element_types import FLOATS, expect_dtype, same_dtype
from miniinfer_cli.ops.flops import linear_attention_flops
from miniinfer_cli.ops.inference import UNKNOWN
from miniinfer_cli.ops.numerics import is_half
from miniinfer_cli.ops.registry import define
from miniinfer_cli.ops.shapes import expect_rank, same_dim
from miniinfer_cli.ops.work import CALL, Attrs, Inputs, Outputs

OP = "LinearAttention"
RULES = ("linear", "gated", "delta", "gated_delta")


def infer_linear_attention(
    query: TensorType,
    key: TensorType,
    value: TensorType,
    past_state: TensorType | None = None,
    decay: TensorType | None = None,
    beta: TensorType | None = None,
    *,
    q_num_heads: int,
    kv_num_heads: int,
    update_rule: str = "gated_delta",
    scale: float = 0.0,
    chunk_size: int = 64,
) -> tuple[TensorType, TensorType]:
    """``query`` [B,T,Hq*dk], ``key`` [B,T,Hkv*dk], ``value`` [B,T,Hkv*dv], ``past_state`` [B,Hkv,dk,dv],
    ``decay`` [B,T,Hkv*dk] or [B,T,Hkv], ``beta`` [B,T,Hkv] or [B,T,1]: gives [B,T,Hq*dv] and the next state.

    Source: ONNX LinearAttention-27.
    """
    _check_rule(update_rule, decay is not None, beta is not None)
    if q_num_heads < 1 or kv_num_heads < 1 or q_num_heads % kv_num_heads:
        raise ModelError(f"{OP} q_num_heads {q_num_heads} is not a positive multiple of kv_num_heads {kv_num_heads}")
    dtype = same_dtype(OP, query, key, value, decay, beta)
    expect_dtype(OP, query, FLOATS)
    expect_dtype(OP, past_state, FLOATS)
    for operand in (query, key, value, decay, beta):
        if operand is not None:
            expect_rank(OP, operand, 3)
    batch, length, _ = query.shape or (UNKNOWN,) * 3
    for operand in (key, value, decay, beta):
        if operand is not None and operand.shape is not None:
            batch = same_dim(OP, f"batch of {query} and {operand}", batch, operand.shape[0])
            length = same_dim(OP, f"length of {query} and {operand}", length, operand.shape[1])
    key_width = same_dim(OP, "width of a query head and of a key head", _width(query, q_num_heads), _width(key, kv_num_heads))
    value_width = _width(value, kv_num_heads)
    _expect_width("decay", decay, kv_num_heads, key_width * kv_num_heads)
    _expect_width("beta", beta, kv_num_heads, 1)
    state: tuple[Dim, ...] = (batch, kv_num_heads, key_width, value_width)
    if past_state is not None and past_state.shape is not None:
        expect_rank(OP, past_state, 4)
        expected = TensorType(past_state.dtype, state)
        state = tuple(
            same_dim(OP, f"past_state {past_state} against {expected}", a, b)
            for a, b in zip(state, past_state.shape, strict=True)
        )
    out = TensorType(dtype, (state[0], length, state[3] * q_num_heads))
    return out, TensorType(dtype if past_state is None else past_state.dtype, state)


def linear_attention(
    query: Array,
    key: Array,
    value: Array,
    past_state: Array | None = None,
    decay: Array | None = None,
    beta: Array | None = None,
    *,
    q_num_heads: int,
    kv_num_heads: int,
    update_rule: str = "gated_delta",
    scale: float = 0.0,
    chunk_size: int = 64,
) -> tuple[Array, Array]:
    """For each token: the state decays, takes up key times value (less what it holds for that key), and is read by the query.

    Computed in f32, or f64 where the operands are. ``chunk_size`` only guides parallel implementations.
    """
    _check_rule(update_rule, decay is not None, beta is not None)
    batch, length, _ = query.shape
    queries = _heads(query, q_num_heads)
    queries = queries.reshape(length, batch, kv_num_heads, q_num_heads // kv_num_heads, queries.shape[-1])
    keys, values = _heads(key, kv_num_heads), _heads(value, kv_num_heads)
    key_width = keys.shape[-1]
    factors = None if decay is None else np.exp(_heads(decay, kv_num_heads))[..., None]  # [T,B,H,dk or 1,1]
    rates = None if beta is None else _heads(beta, beta.shape[2])  # [T,B,H or 1,1]
    state = np.zeros((batch, kv_num_heads, key_width, values.shape[-1]), keys.dtype)
    if past_state is not None:
        state[...] = past_state
    read = np.empty((*queries.shape[:-1], values.shape[-1]), keys.dtype)
    for t in range(length):
        check_time()
        if factors is not None:
            state *= factors[t]
        taken = values[t][..., None, :]
        if rates is not None:
            held = np.matmul(keys[t][..., None, :], state)
            taken = rates[t][..., None] * (taken - held)
        state += keys[t][..., None] * taken
        np.matmul(queries[t], state, out=read[t])
    read *= scale or 1 / math.sqrt(max(key_width, 1))
    out = np.moveaxis(read, 0, 1).reshape(batch, length, q_num_heads * values.shape[-1])
    return out.astype(query.dtype), state.astype(query.dtype if past_state is None else past_state.dtype)


def _check_rule(rule: str, has_decay: bool, has_beta: bool) -> None:
    if rule not in RULES:
        raise ModelError(f"{OP} update_rule is {rule!r}, expected one of {', '.join(RULES)}")
    for name, given, wanted in (("decay", has_decay, "gated" in rule), ("beta", has_beta, "delta" in rule)):
        if given != wanted:
            raise ModelError(f"{OP} update_rule {rule!r} {'needs' if wanted else 'takes no'} input {name}")


def _width(x: TensorType, heads: int) -> Dim:
    if x.shape is None:
        return UNKNOWN
    width = x.shape[2]
    if isinstance(width, int) and width % heads:
        raise ModelError(f"{OP} operand {x} does not divide into {heads} heads")
    return width // heads


def _expect_width(name: str, x: TensorType | None, *widths: Dim) -> None:
    if x is None or x.shape is None or not isinstance(x.shape[2], int) or not all(isinstance(w, int) for w in widths):
        return
    if x.shape[2] not in widths:
        raise ModelError(f"{OP} {name} is {x}, expected a last dimension of {' or '.join(map(str, widths))}")


def _heads(x: Array, heads: int) -> Array:
    """[B,T,H*D] as [T,B,H,D] in f32 or f64."""
    batch, length, width = x.shape
    wide = x.astype(np.float32) if is_half(x) else x
    return np.ascontiguousarray(wide.reshape(batch, length, heads, width // heads).swapaxes(0, 1))


def _work(inputs: Inputs, outputs: Outputs, attrs: Attrs) -> int:
    """For each token a few calls, and a few turns over the state."""
    query, key, value = inputs[:3]
    if query is None or key is None or value is None:
        return 0
    heads, held = attrs["q_num_heads"], attrs["kv_num_heads"]
    state = query.shape[0] * max(heads, held) * max(key.shape[2] // held, 1) * max(value.shape[2] // held, 1)
    return int(query.shape[1] * (8 * state + 30 * CALL))


LINEAR_ATTENTION = define(
    OP, infer=infer_linear_attention, reference=linear_attention, work=_work, heavy=True, flops=linear_attention_flops
)

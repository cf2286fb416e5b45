"""LinearAttention against its recurrence, one head and one token at a time."""

import itertools

import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, TensorType, symbol
from tests.ops.checked import array, infer, run

RULES = ["linear", "gated", "delta", "gated_delta"]
B, T, HQ, HKV, DK, DV = 2, 3, 4, 2, 3, 5


def operands(rule, *, per_key=False, shared_beta=False, with_state=False):
    rng = np.random.default_rng(0)
    decay = -rng.uniform(0, 1, (B, T, HKV * DK if per_key else HKV)) if "gated" in rule else None
    beta = rng.uniform(0, 1, (B, T, 1 if shared_beta else HKV)) if "delta" in rule else None
    state = rng.standard_normal((B, HKV, DK, DV)) if with_state else None
    q, k, v = (rng.standard_normal((B, T, width)) for width in (HQ * DK, HKV * DK, HKV * DV))
    return [q, k, v, state, decay, beta]


def by_the_recurrence(q, k, v, state, decay, beta, *, update_rule, scale=0.0):
    out, last = np.zeros((B, T, HQ * DV)), np.zeros((B, HKV, DK, DV))
    for b, head in itertools.product(range(B), range(HQ)):
        kv = head // (HQ // HKV)
        s = np.zeros((DK, DV)) if state is None else state[b, kv]
        for t in range(T):
            query, key = q[b, t, head * DK : (head + 1) * DK], k[b, t, kv * DK : (kv + 1) * DK]
            value = v[b, t, kv * DV : (kv + 1) * DV]
            if decay is not None:
                rates = decay[b, t, kv * DK : (kv + 1) * DK] if decay.shape[2] > HKV else decay[b, t, kv]
                s = s * np.exp(rates).reshape(-1, 1)
            if beta is not None:
                value = beta[b, t, min(kv, beta.shape[2] - 1)] * (value - s.T @ key)
            s = s + np.outer(key, value)
            out[b, t, head * DV : (head + 1) * DV] = (scale or 1 / np.sqrt(DK)) * (query @ s)
        last[b, kv] = s
    return out, last


ATTRS = {"q_num_heads": HQ, "kv_num_heads": HKV}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("per_key", "shared_beta", "with_state"), [(False, False, False), (True, True, True)])
@pytest.mark.parametrize("scale", [0.0, 0.25])
def test_recurrence(rule, per_key, shared_beta, with_state, scale):
    inputs = operands(rule, per_key=per_key, shared_beta=shared_beta, with_state=with_state)
    results = run("LinearAttention", *inputs, n_outputs=2, update_rule=rule, scale=scale, **ATTRS)
    for result, expected in zip(results, by_the_recurrence(*inputs, update_rule=rule, scale=scale), strict=True):
        np.testing.assert_allclose(result, expected, rtol=1e-12, atol=1e-12)


def test_the_state_joins_two_calls_into_one():
    q, k, v, _, decay, beta = operands("gated_delta")
    whole, last = run("LinearAttention", q, k, v, None, decay, beta, n_outputs=2, **ATTRS)
    first, state = run(
        "LinearAttention", *(x[:, :1].copy() for x in (q, k, v)), None, decay[:, :1], beta[:, :1], n_outputs=2, **ATTRS
    )
    rest = [x[:, 1:].copy() for x in (q, k, v)]
    second, final = run("LinearAttention", *rest, state, decay[:, 1:], beta[:, 1:], n_outputs=2, **ATTRS)
    np.testing.assert_allclose(np.concatenate([first, second], axis=1), whole, rtol=1e-12)
    np.testing.assert_allclose(final, last, rtol=1e-12)


@pytest.mark.parametrize(("dtype", "state_dtype"), [("float16", "float32"), ("bfloat16", "bfloat16"), ("float32", "float16")])
def test_half_floats_are_computed_in_f32_and_the_state_keeps_its_type(dtype, state_dtype):
    exact = operands("gated_delta", with_state=True)
    inputs = [array(x, state_dtype if i == 3 else dtype) for i, x in enumerate(exact)]
    out, state = run("LinearAttention", *inputs, n_outputs=2, **ATTRS)
    assert (out.dtype.name, state.dtype.name) == (dtype, state_dtype)
    wide = by_the_recurrence(*(x.astype(np.float64) for x in inputs), update_rule="gated_delta")
    for result, expected, name in zip((out, state), wide, (dtype, state_dtype), strict=True):
        np.testing.assert_allclose(result.astype(np.float64), expected, rtol=1.01 * {"float32": 1e-6}.get(name, 2**-8), atol=1e-5)


def f32(*shape):
    return TensorType(DType.F32, shape)


def test_shape_rule():
    b, t = symbol("b"), symbol("t")
    out, state = infer("LinearAttention", f32(b, t, 12), f32(b, t, 6), f32(b, t, 10), update_rule="linear", n_outputs=2, **ATTRS)
    assert (str(out), str(state)) == ("f32[b,t,20]", "f32[b,2,3,5]")
    unknown = TensorType(DType.F16)
    past = TensorType(DType.F32, (b, 2, 3, 5))
    out, state = infer("LinearAttention", unknown, unknown, unknown, past, update_rule="linear", n_outputs=2, **ATTRS)
    assert (str(out), str(state)) == ("f16[b,?y0.1,20]", "f32[b,2,3,5]")


QKV = (f32(1, 2, 12), f32(1, 2, 6), f32(1, 2, 10))


@pytest.mark.parametrize(
    ("inputs", "attrs", "message"),
    [
        (QKV, {}, "'gated_delta' needs input decay"),
        ((*QKV, None, f32(1, 2, 2)), {"update_rule": "linear"}, "'linear' takes no input decay"),
        ((*QKV, None, f32(1, 2, 2)), {}, "'gated_delta' needs input beta"),
        (QKV, {"update_rule": "other"}, "update_rule is 'other'"),
        (QKV, {"update_rule": "linear", "q_num_heads": 3}, "not a positive multiple of"),
        ((f32(1, 2, 13), *QKV[1:]), {"update_rule": "linear"}, "does not divide into 4 heads"),
        ((f32(1, 2, 16), *QKV[1:]), {"update_rule": "linear"}, "width of a query head .* 4 is not 3"),
        ((f32(2, 2, 12), *QKV[1:]), {"update_rule": "linear"}, "batch of .* 2 is not 1"),
        ((*QKV, f32(1, 2, 5, 3)), {"update_rule": "linear"}, "past_state .* 3 is not 5"),
        ((*QKV, None, f32(1, 2, 3)), {"update_rule": "gated"}, "decay is .* expected a last dimension of 2 or 6"),
        ((*QKV, None, None, f32(1, 2, 3)), {"update_rule": "delta"}, "beta is .* expected a last dimension of 2 or 1"),
    ],
)
def test_operands_that_do_not_fit_are_refused(inputs, attrs, message):
    with pytest.raises(ModelError, match=message):
        infer("LinearAttention", *inputs, n_outputs=2, **{**ATTRS, **attrs})

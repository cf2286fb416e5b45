"""Attention against a loop over batch entries, heads and queries in f64."""

import itertools
import math

import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, Graph, TensorType, symbol
from miniinfer_cli.ops import annotate, insert_many, lookup
from miniinfer_cli.ops.interpreter import interpret
from tests.ops.checked import FLOATS, array, infer, run, run_expanded

BATCH, HEADS, QUERIES, KEYS, SIZE, V_SIZE = 2, 4, 3, 5, 6, 7
RNG = np.random.default_rng(9)


def normal(*shape):
    return RNG.normal(0, 1, shape)


Q, K, V = normal(BATCH, HEADS, QUERIES, SIZE), normal(BATCH, HEADS, KEYS, SIZE), normal(BATCH, HEADS, KEYS, V_SIZE)
SHARED_K, SHARED_V = K[:, :2], V[:, :2]
PAST_K, PAST_V = normal(BATCH, HEADS, 4, SIZE), normal(BATCH, HEADS, 4, V_SIZE)
BOOL_MASK = np.array([[1, 1, 0, 1, 0], [0, 1, 1, 0, 1], [0, 0, 0, 1, 1]], bool)
BIAS = normal(QUERIES, KEYS)
SEEN = np.array([3, 5])  # valid keys of each batch entry


def by_loops(
    q,
    k,
    v,
    mask=None,
    past_key=None,
    past_value=None,
    nonpad=None,
    *,
    mode=0,
    is_causal=0,
    left=-1,
    right=-1,
    scale=None,
    cap=0.0,
):
    """Y, present_key, present_value and qk_matmul_output of 4-D operands, one query at a time."""
    if past_key is not None:
        k, v = np.concatenate([past_key, k], axis=2), np.concatenate([past_value, v], axis=2)
    batch, heads, queries, size = q.shape
    keys, group = k.shape[2], heads // k.shape[1]
    if mask is not None and mask.dtype.kind == "i":
        mask = mask.astype(float)
    if mask is not None and mask.shape[-1] < keys:
        hidden = np.zeros if mask.dtype == bool else lambda shape: np.full(shape, -np.inf)
        mask = np.concatenate([mask, hidden((*mask.shape[:-1], keys - mask.shape[-1])).astype(mask.dtype)], axis=-1)
    if mask is not None:
        mask = np.broadcast_to(mask, (batch, heads, queries, keys))
    y, qk = np.zeros((batch, heads, queries, v.shape[3])), np.zeros((batch, heads, queries, keys))
    for b, h, i in itertools.product(range(batch), range(heads), range(queries)):
        offset = past_key.shape[2] if past_key is not None else nonpad[b] - queries if nonpad is not None else 0
        raw = [float(np.dot(q[b, h, i], k[b, h // group, j])) * (scale or 1 / math.sqrt(size)) for j in range(keys)]
        capped = [cap * math.tanh(s / cap) if cap else s for s in raw]
        biased = []
        for j, s in enumerate(capped):
            seen = nonpad is None or j < nonpad[b]
            seen &= not is_causal or j <= i + offset
            seen &= (left < 0 or j >= i + offset - left) and (right < 0 or j <= i + offset + right)
            if mask is not None and mask.dtype == bool:
                seen &= bool(mask[b, h, i, j])
            elif mask is not None:
                s = s + float(mask[b, h, i, j])
            biased.append(s if seen else -math.inf)
        weights = [math.exp(s - max(biased)) if s > -math.inf else 0.0 for s in biased]
        shares = [w / sum(weights) if sum(weights) else 0.0 for w in weights]
        y[b, h, i] = sum(p * v[b, h // group, j] for j, p in enumerate(shares))
        qk[b, h, i] = (raw, capped, biased, shares)[mode]
    return y, k, v, qk


# name: operands after Q, K, V and attributes of the operation, and the same for the loop
CASES = {
    "plain": ((Q, K, V), {}, {}),
    "shared heads": ((Q, SHARED_K, SHARED_V), {}, {}),
    "one head for all": ((Q, K[:, :1], V[:, :1]), {"scale": 0.3}, {"scale": 0.3}),
    "bool mask": ((Q, K, V, BOOL_MASK), {}, {}),
    "bool mask per head": ((Q, K, V, normal(BATCH, HEADS, 1, KEYS) > -1), {}, {}),
    "bias": ((Q, K, V, BIAS), {}, {}),
    "bias per batch": ((Q, K, V, normal(BATCH, 1, QUERIES, KEYS)), {"softcap": 2.0}, {"cap": 2.0}),
    "bias with minus infinity": ((Q, K, V, np.where(BOOL_MASK, BIAS, -np.inf)), {}, {}),
    "bias for fewer keys": ((Q, K, V, BIAS[:, :3]), {}, {}),
    "bool mask for fewer keys": ((Q, K, V, BOOL_MASK[:, :4]), {}, {}),
    "integer bias": ((Q, K, V, (4 * BIAS).astype(np.int32)), {}, {}),
    "integer bias for fewer keys": ((Q, K, V, (4 * BIAS[:, :3]).astype(np.int64)), {}, {}),
    "bias for one key": ((Q, K, V, BIAS[:, :1]), {}, {}),
    "causal": ((Q, K, V), {"is_causal": 1}, {"is_causal": 1}),
    "causal with a bool mask": ((Q, K, V, BOOL_MASK), {"is_causal": 1}, {"is_causal": 1}),
    "causal with a bias": ((Q, K, V, BIAS), {"is_causal": 1}, {"is_causal": 1}),
    "past": ((Q, K, V, None, PAST_K, PAST_V), {}, {}),
    "causal after a past": ((Q, K[:, :, :3], V[:, :, :3], None, PAST_K, PAST_V), {"is_causal": 1}, {"is_causal": 1}),
    "past and shared heads": ((Q, SHARED_K, SHARED_V, None, PAST_K[:, :2], PAST_V[:, :2]), {}, {}),
    "past and bias": ((Q, K, V, normal(QUERIES, 9), PAST_K, PAST_V), {}, {}),
    "cache outside": ((Q, K, V, None, None, None, SEEN), {}, {}),
    "causal, cache outside": ((Q, K, V, None, None, None, SEEN), {"is_causal": 1}, {"is_causal": 1}),
    "causal, too few in the cache": ((Q, K, V, None, None, None, SEEN - 2), {"is_causal": 1}, {"is_causal": 1}),
    "window": (
        (Q, K, V, BIAS),
        {"left_window_size": 1, "right_window_size": 1},
        {"left": 1, "right": 1},
    ),
    "window behind": ((Q, K, V), {"is_causal": 1, "left_window_size": 1}, {"is_causal": 1, "left": 1}),
    "window, cache outside": ((Q, K, V, None, None, None, SEEN), {"left_window_size": 0}, {"left": 0}),
    "window after a past": (
        (Q, K, V, None, PAST_K, PAST_V),
        {"left_window_size": 2, "right_window_size": 0},
        {"left": 2, "right": 0},
    ),
}


def typed(operands, dtype):
    return [x if x is None or x.dtype.kind in "bi" else array(x, dtype) for x in operands]


def three_d(x):
    return x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", CASES)
def test_y(name, dtype):
    operands, attrs, loop_attrs = CASES[name]
    inputs = typed(operands, dtype)
    wide = [x.astype(np.float64) if x is not None and x.dtype.kind not in "bi" else x for x in inputs]
    expected = by_loops(*wide, **loop_attrs)[0]
    result = run("Attention", *inputs, **attrs).astype(np.float64)
    np.testing.assert_allclose(result, expected, rtol=4 * FLOATS[dtype], atol=min(16 * FLOATS[dtype], 1e-6))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("mode", [0, 1, 2, 3])
def test_other_outputs(name, mode):
    operands, attrs, loop_attrs = CASES[name]
    expected = by_loops(*operands, mode=mode, **loop_attrs)
    results = run("Attention", *operands, n_outputs=4, qk_matmul_output_mode=mode, **attrs)
    for result, want in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_three_dimensional_operands(name):
    (q, k, v, *rest), attrs, loop_attrs = CASES[name]
    y, present_key, present_value, _ = by_loops(q, k, v, *rest, **loop_attrs)
    heads = {"q_num_heads": q.shape[1], "kv_num_heads": k.shape[1]}
    results = run("Attention", *map(three_d, (q, k, v)), *rest, n_outputs=3, **attrs, **heads)
    for result, want in zip(results, (three_d(y), present_key, present_value), strict=True):
        np.testing.assert_allclose(result, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("rank", [3, 4])
@pytest.mark.parametrize("mode", [0, 1, 2, 3])
@pytest.mark.parametrize("name", CASES)
def test_expansion_gives_the_same(name, mode, rank, dtype):
    operands, attrs, _ = CASES[name]
    q, k, v, *rest = typed(operands, dtype)
    attrs = attrs | {"qk_matmul_output_mode": mode}
    if rank == 3:
        attrs = attrs | {"q_num_heads": q.shape[1], "kv_num_heads": k.shape[1]}
        q, k, v = map(three_d, (q, k, v))
    with np.errstate(invalid="ignore"):  # a row of minus infinities passes through Softmax on the way
        expanded = run_expanded("Attention", q, k, v, *rest, n_outputs=4, **attrs)
    results = run("Attention", q, k, v, *rest, n_outputs=4, **attrs)
    for result, other in zip(results, expanded, strict=True):
        np.testing.assert_allclose(other, result, rtol=40 * FLOATS[dtype], atol=40 * FLOATS[dtype])


def test_expansion_with_open_dimensions():
    batch, queries, past = symbol("batch"), symbol("queries"), symbol("past")
    graph = Graph("test")
    types = [
        TensorType(DType.F64, (batch, HEADS, queries, SIZE)),
        TensorType(DType.F64, (batch, 2, queries, SIZE)),
        TensorType(DType.F64, (batch, 2, queries, V_SIZE)),
        TensorType(DType.BOOL, (batch, 1, 1, symbol("seen"))),
        TensorType(DType.F64, (batch, 2, past, SIZE)),
        TensorType(DType.F64, (batch, 2, past, V_SIZE)),
    ]
    values = [graph.add_input(f"x{i}", t) for i, t in enumerate(types)]
    outputs = insert_many(graph, "Attention", *values, n_outputs=3, is_causal=1)
    node = outputs[0].producer
    graph.set_outputs(lookup("", "Attention").expand(graph, node))
    graph.remove(node)
    annotate(graph)
    mask = np.array([1, 0, 1, 1, 1, 1], bool).reshape(1, 1, 1, 6)[[0, 0]]
    arrays = [Q, SHARED_K[:, :, :3], SHARED_V[:, :, :3], mask, PAST_K[:, :2], PAST_V[:, :2]]
    for result, want in zip(interpret(graph, arrays), by_loops(*arrays, is_causal=1), strict=False):
        np.testing.assert_allclose(result, want, rtol=1e-12, atol=1e-12)


def test_softmax_in_another_precision():
    half = run("Attention", Q, K, V, softmax_precision=10)
    exact = run("Attention", Q, K, V)
    assert 1e-5 < np.abs(half - exact).max() < 1e-2
    q, k, v = (x.astype(np.float16) for x in (Q, K, V))
    np.testing.assert_allclose(run("Attention", q, k, v, softmax_precision=11), exact.astype(np.float16), rtol=5e-3, atol=5e-3)


def test_inputs_stay_as_they_are():
    operands = [Q, K, V, BIAS]
    before = [x.copy() for x in operands]
    run("Attention", *operands, n_outputs=4, qk_matmul_output_mode=2, is_causal=1, softcap=1.0)
    for x, copy in zip(operands, before, strict=True):
        np.testing.assert_array_equal(x, copy)


def test_shapes_with_open_dimensions():
    b, s, p = symbol("b"), symbol("s"), symbol("p")
    q, k = TensorType(DType.F16, (b, s, 768)), TensorType(DType.F16, (b, s, 256))
    past = TensorType(DType.F16, (b, 4, p, 64))
    types = infer("Attention", q, k, k, None, past, past, n_outputs=4, q_num_heads=12, kv_num_heads=4)
    assert types == (
        TensorType(DType.F16, (b, s, 768)),
        TensorType(DType.F16, (b, 4, p + s, 64)),
        TensorType(DType.F16, (b, 4, p + s, 64)),
        TensorType(DType.F16, (b, 12, s, p + s)),
    )
    unknown = TensorType(DType.F32)
    assert infer("Attention", unknown, unknown, unknown) == unknown
    assert infer("Attention", Q, K, V, unknown) == infer("Attention", Q, K, V)


@pytest.mark.parametrize(
    ("operands", "attrs", "message"),
    [
        ((Q, K, V, None, PAST_K), {}, "past_key and past_value together"),
        ((Q, K, V, None, PAST_K, PAST_V, SEEN), {}, "got both"),
        ((Q[0, 0], K, V), {}, "rank 3 or 4"),
        ((Q, three_d(K), V), {}, "of one rank"),
        ((three_d(Q), three_d(K), three_d(V)), {}, "needs q_num_heads"),
        ((three_d(Q), three_d(K), three_d(V)), {"q_num_heads": 5, "kv_num_heads": 4}, "q_num_heads 5 does not divide"),
        ((Q, K[:, :3], V[:, :3]), {}, "4 query heads are no multiple of 3"),
        ((Q, K, V[:, :2]), {}, "head counts of K and V differ: 4 is not 2"),
        ((Q, K[..., :5], V), {}, "head sizes of Q and K differ: 6 is not 5"),
        ((Q, K, V[:, :, :4]), {}, "sequence lengths of K and V differ: 5 is not 4"),
        ((Q[:1], K, V), {}, "batch sizes of Q and K differ: 1 is not 2"),
        ((Q, K, V, normal(QUERIES, 6)), {}, "more keys than the 5 there are"),
        ((Q, K, V, normal(2, KEYS)), {}, "do not broadcast"),
        ((Q, K, V, normal(2, 1, 1, 1, KEYS)), {}, "does not broadcast to the scores"),
        ((Q, K, V), {"qk_matmul_output_mode": 4}, "qk_matmul_output_mode is 4"),
        ((Q, K, V), {"left_window_size": -2}, "left_window_size is -2"),
        ((Q, K, V), {"softmax_precision": 7}, "softmax_precision is i64"),
    ],
)
def test_what_does_not_fit_is_refused(operands, attrs, message):
    with pytest.raises(ModelError, match=message):
        infer("Attention", *operands, **attrs)


@pytest.mark.parametrize("queries", [0, 3])
def test_nothing_in_the_batch_of_three_axes(queries):
    q, k, v = (np.zeros((0 if queries else 2, n, size), np.float32) for n, size in ((queries, 8), (4, 8), (4, 6)))
    y = run("Attention", q, k, v, q_num_heads=2, kv_num_heads=2)
    assert y.shape == (*q.shape[:2], 6)

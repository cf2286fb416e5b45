"""Attention on the emulated device: each way, beside the numpy reference."""

from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.backends.choosing import Estimate, Policy
from miniinfer_cli.backends.cuda.choice.deciding import lower
from miniinfer_cli.backends.cuda.contract.problems import AttentionProblem
from miniinfer_cli.backends.cuda.contract.site import Site
from miniinfer_cli.backends.cuda.contract.steps import LibraryCall, Lowered, Operand
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.tactics.attention.attention_form import Form
from miniinfer_cli.backends.cuda.tactics.attention.attention_heuristic import AttentionHeuristic
from miniinfer_cli.backends.cuda.tactics.attention.attention_tactics import attention_tactics
from miniinfer_cli.ir import Array, DType, TensorType, dtype_of
from tests.backends.cuda.harness import check_op, run_graph
from tests.backends.cuda.numpy_library import Library
from tests.backends.cuda.tactics.every_tactic import check_every_tactic
from tests.backends.nodes import make_graph, reference

F16, BF16, F32, F64 = np.float16, ml_dtypes.bfloat16, np.float32, np.float64
EXACT = Target(tf32=False, policy=Policy(disabled=frozenset({"warpgroups"})))
"""Where matrix instructions of whole warpgroups are left out, as on other GPUs."""
MASKED = Policy(forced={"y0": "cudnn with a mask"})
"""The library makes its mask though there are few keys."""
ROUNDED = 3e-3  # of TF32 operands
FUSED_HALF = {F16: 2e-3, BF16: 1.6e-2}  # probabilities are rounded, too


def heads(*shape: int, dtype: Any = F32, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def rows(x: Array) -> Array:
    """[batch, heads, length, size] as [batch, length, heads * size]."""
    return np.ascontiguousarray(x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1))


def qkv(batch: int, n: int, kv: int, queries: int, keys: int, size: int, v_size: int = 0, dtype: Any = F32) -> list[Array]:
    return [
        heads(batch, n, queries, size, dtype=dtype, seed=1),
        heads(batch, kv, keys, size, dtype=dtype, seed=2),
        heads(batch, kv, keys, v_size or size, dtype=dtype, seed=3),
    ]


def lowered(*operands: Array | None, target: Target = EXACT, n_outputs: int = 1, **attrs: Any) -> Lowered:
    """What the lowering makes of a node."""
    given = [a for a in operands if a is not None]
    graph = make_graph("Attention", operands, domain="", n_outputs=n_outputs, constants=(), body=None, attrs=attrs)
    (node,) = graph
    results = [TensorType(dtype_of(o), o.shape) for o in reference("Attention", *operands, n_outputs=n_outputs, **attrs)]
    types = tuple(None if a is None else TensorType(dtype_of(a), a.shape) for a in operands)
    assert len(given) == sum(t is not None for t in types)
    made = lower(Site(node, types, tuple(results), (None,) * len(types), target))
    assert made is not None and isinstance(made.work, Lowered)
    return made.work


# -- One pass ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "n", "kv", "queries", "keys", "size"),
    [(2, 2, 2, 20, 70, 64), (1, 6, 2, 9, 131, 16), (1, 1, 1, 1, 5, 16), (1, 40, 40, 70, 66, 16), (1, 2, 1, 33, 129, 12)],
)
def test_one_pass_is_the_reference(batch: int, n: int, kv: int, queries: int, keys: int, size: int) -> None:
    operands = qkv(batch, n, kv, queries, keys, size)
    assert lowered(*operands).tactic.startswith("fused")
    check_op("Attention", *operands, target=EXACT, tolerance=5e-6)


@pytest.mark.parametrize(("multiprocessors", "rows_of_a_block"), [(4, 64), (6, 32), (8, 16)])
@pytest.mark.parametrize("dtype", [F32, F16])
def test_rows_shared_out_so_that_the_device_is_busy(multiprocessors: int, rows_of_a_block: int, dtype: Any) -> None:
    operands = qkv(1, 2, 2, 70, 66, 16, dtype=dtype)
    target = replace(EXACT, multiprocessors=multiprocessors)
    assert lowered(*operands, target=target).tactic == f"fused {rows_of_a_block}x64"
    check_op("Attention", *operands, target=target, tolerance=5e-6 if dtype is F32 else 2e-3, is_causal=1)


def test_operands_rounded_to_tf32() -> None:
    operands = qkv(1, 2, 2, 20, 70, 64)
    check_op("Attention", *operands, tolerance=ROUNDED)
    (want,) = reference("Attention", *operands)
    graph = make_graph("Attention", operands, domain="", n_outputs=1, constants=(), body=None, attrs={})
    (got,) = run_graph(graph, operands, Target())
    assert np.abs(got - want).max() > 1e-5, "nothing was rounded"


@pytest.mark.parametrize("dtype", [F16, BF16])
@pytest.mark.parametrize("size", [(64, 32), (24, 16), (13, 9)])
def test_halves(dtype: Any, size: tuple[int, int]) -> None:
    for target in (EXACT, Target()):
        check_op("Attention", *qkv(2, 4, 2, 21, 70, *size, dtype=dtype), target=target, tolerance=FUSED_HALF[dtype])


@pytest.mark.parametrize("dtype", [F32, F16])
def test_wide_heads(dtype: Any) -> None:
    operands = qkv(1, 1, 1, 17, 40, 200, 256, dtype=dtype)
    assert lowered(*operands).tactic.startswith("fused")
    check_op("Attention", *operands, target=EXACT, tolerance=5e-6 if dtype is F32 else 2e-3)


def test_little_shared_memory() -> None:
    operands = qkv(1, 1, 1, 17, 40, 200, 256)
    small = Target(tf32=False, shared_nbytes=99 << 10)
    assert lowered(*operands, target=small).tactic == "fused 16x16"
    check_op("Attention", *operands, target=small, tolerance=5e-6)
    assert "softmax" in lowered(*operands, target=Target(shared_nbytes=48 << 10)).tactic


@pytest.mark.parametrize("size", [8, 5])
def test_rows_with_merged_heads(size: int) -> None:
    q, k, v = (rows(x) for x in qkv(2, 4, 2, 19, 30, size))
    check_op("Attention", q, k, v, target=EXACT, tolerance=5e-6, q_num_heads=4, kv_num_heads=2)


@pytest.mark.parametrize(
    "attrs",
    [
        {"is_causal": 1},
        {"left_window_size": 7},
        {"right_window_size": 0, "left_window_size": 3},
        {"is_causal": 1, "left_window_size": 20, "softcap": 0.7, "scale": 0.3},
    ],
)
def test_what_hides_keys(attrs: dict[str, Any]) -> None:
    check_op("Attention", *qkv(1, 2, 1, 90, 75, 16), target=EXACT, tolerance=5e-6, **attrs)


@pytest.mark.parametrize("shape", [(), (70,), (20, 70), (1, 70), (2, 20, 70), (3, 1, 1, 70), (3, 2, 20, 70), (1, 2, 20, 50)])
@pytest.mark.parametrize("kind", [np.bool_, F32])
def test_masks(shape: tuple[int, ...], kind: Any) -> None:
    rng = np.random.default_rng(5)
    if kind is np.bool_:
        mask: Array = np.asarray(rng.random(shape) < 0.5)
    else:
        mask = np.asarray(rng.standard_normal(shape), F32)
        mask = np.asarray(np.where(rng.random(shape) < 0.3, -np.inf, mask), F32)
    check_op("Attention", *qkv(3, 2, 2, 20, 70, 16), mask, target=EXACT, tolerance=5e-6)


@pytest.mark.parametrize(("dtype", "number"), [(F32, -1e9), (F32, np.finfo(F32).min), (BF16, ml_dtypes.finfo(BF16).min)])
def test_a_query_whose_keys_are_all_hidden_by_a_finite_number_gives_their_mean(dtype: Any, number: Any) -> None:
    mask = np.zeros((3, 300), dtype)
    mask[0], mask[1, 2:] = number, number
    tolerance = max(ROUNDED, FUSED_HALF.get(dtype, 0))
    check_op("Attention", *qkv(1, 2, 1, 3, 300, 16, dtype=dtype), mask, tolerance=tolerance)


@pytest.mark.parametrize("dtype", [F32, F16])
def test_a_query_that_sees_nothing_gives_zeros(dtype: Any) -> None:
    mask = np.ones((40, 30), np.bool_)
    mask[3] = mask[17] = mask[35] = False
    check_op("Attention", *qkv(1, 2, 2, 40, 30, 16, dtype=dtype), mask, target=EXACT, tolerance=2e-3)


@pytest.mark.parametrize("causal", [0, 1])
def test_lengths_of_an_external_cache(causal: int) -> None:
    lengths = np.array([3, 0, 40], np.int64)
    operands = (*qkv(3, 2, 1, 5, 40, 16), None, None, None, lengths)
    check_op("Attention", *operands, target=EXACT, tolerance=5e-6, is_causal=causal)


@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.parametrize("merged", [False, True])
def test_past_and_present(n_outputs: int, merged: bool) -> None:
    q, k, v = qkv(2, 4, 2, 6, 6, 16, 12)
    past = (heads(2, 2, 33, 16, seed=8), heads(2, 2, 33, 12, seed=9))
    attrs: dict[str, Any] = {"is_causal": 1}
    if merged:
        q, k, v = rows(q), rows(k), rows(v)
        attrs |= {"q_num_heads": 4, "kv_num_heads": 2}
    check_op("Attention", q, k, v, None, *past, n_outputs=n_outputs, target=EXACT, tolerance=5e-6, **attrs)


def test_a_past_with_long_indices(wide_indices: None) -> None:
    q, k, v = qkv(2, 2, 2, 6, 6, 16, dtype=F16)
    past = heads(2, 2, 33, 16, dtype=F16)
    check_op("Attention", q, k, v, None, past, past, n_outputs=3)


def test_an_empty_past() -> None:
    past = heads(1, 2, 0, 16)
    check_op("Attention", *qkv(1, 2, 2, 4, 4, 16), None, past, past, n_outputs=3, target=EXACT, tolerance=5e-6)


@pytest.mark.parametrize("dtype", [F32, F16, BF16])
def test_few_queries_and_many_keys_go_in_parts(dtype: Any) -> None:
    operands = qkv(1, 4, 2, 2, 300, 16, dtype=dtype)
    made = lowered(*operands)
    assert "parts" in made.tactic
    check_op("Attention", *operands, target=EXACT, tolerance=5e-6 if dtype is F32 else FUSED_HALF[dtype])


def test_parts_of_which_some_are_hidden() -> None:
    lengths = np.array([70, 0], np.int64)
    operands = (*qkv(2, 4, 1, 1, 300, 16, 12), None, None, None, lengths)
    assert "parts" in lowered(*operands, is_causal=1).tactic
    check_op("Attention", *operands, target=EXACT, tolerance=5e-6, is_causal=1)


def test_nan_and_infinity_stay_where_they_are() -> None:
    q, k, v = qkv(1, 1, 1, 20, 20, 16)
    q[0, 0, 3, 5] = np.nan
    check_op("Attention", q, k, v, target=EXACT, tolerance=5e-6)
    check_op("Attention", q, k, v, tolerance=ROUNDED)


# -- Rows of NaN -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nan_rows", ["hidden", "zero", "keep"])
@pytest.mark.parametrize("way", ["fused", "parts", "softmax", "library", "library with a mask"])
def test_what_rows_of_nan_give(way: str, nan_rows: str) -> None:
    dtype = F64 if way == "softmax" else F16
    queries, keys = (3, 300) if way == "parts" else (20, 40)
    q, k, v = qkv(2, 4, 2, queries, keys, 16, 12, dtype=dtype)
    q[0, 1, 2, 5] = np.nan
    v[1, 0, 4, 2], v[1, 1, 5, 3] = np.nan, np.inf
    if way != "library with a mask":  # which adds minus infinity to what is infinite
        k[1, 0, 7, 3] = np.inf
    mask = np.random.default_rng(3).random((2, 1, queries, keys)) < 0.9
    mask[0, 0, 1] = False
    operands = (q, k, v) if way == "library" else (q, k, v, mask)
    library = Library()
    target = library.target(policy=MASKED) if way == "library with a mask" else library.target() if way == "library" else EXACT
    assert way.split()[0] in lowered(*operands, target=target, nan_rows=nan_rows).tactic.replace("cudnn", "library")
    check_op("Attention", *operands, target=target, nan_rows=nan_rows)


def test_rows_of_nan_in_every_corner() -> None:
    """A guarded softmax against its primitives: each place of each operand that is not finite, and every query hidden."""
    q, k, v = qkv(1, 1, 1, 3, 4, 2, dtype=F64)
    mask = np.array([[True, False, True, True], [False] * 4, [True] * 4])
    for x in (q, k, v):
        for bad in (np.nan, np.inf, -np.inf):
            kept, x[0, 0, 1, 0] = x[0, 0, 1, 0], bad
            with np.errstate(all="ignore"):
                scores = np.where(mask, q @ k.swapaxes(2, 3), -np.inf)
                p = np.exp(scores - scores.max(axis=-1, keepdims=True))
                p /= p.sum(axis=-1, keepdims=True)
                plain, safe = p @ v, np.nan_to_num(p) @ v
            for nan_rows, want in (("keep", plain), ("zero", safe)):
                (got,) = reference("Attention", q, k, v, mask, scale=1.0, nan_rows=nan_rows)
                np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)
            x[0, 0, 1, 0] = kept


# -- In steps ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0, 1, 2, 3])
@pytest.mark.parametrize("dtype", [F32, F16])
def test_scores_handed_out(mode: int, dtype: Any) -> None:
    mask = np.random.default_rng(1).random((1, 1, 10, 40)) < 0.7
    operands = (*qkv(2, 4, 2, 10, 40, 16, dtype=dtype), mask)
    attrs: dict[str, Any] = {"softcap": 2.0, "qk_matmul_output_mode": mode}
    check_op("Attention", *operands, n_outputs=4, target=EXACT, tolerance=5e-6 if dtype is F32 else None, **attrs)


def test_f64_huge_heads_and_old_devices_go_in_steps() -> None:
    for operands, target in (
        (qkv(1, 2, 1, 10, 40, 16, dtype=F64), EXACT),
        (qkv(1, 2, 1, 10, 40, 304), EXACT),
        (qkv(1, 2, 1, 10, 40, 16), Target(arch=75, tf32=False)),
    ):
        assert "softmax" in lowered(*operands, target=target).tactic
        check_op("Attention", *operands, target=target, tolerance=1e-12 if operands[0].dtype == F64 else 5e-6, is_causal=1)


@pytest.mark.parametrize("precision", [DType.F16, DType.BF16, DType.F32, DType.F64])
def test_softmax_precision(precision: DType) -> None:
    code = {DType.F16: 10, DType.BF16: 16, DType.F32: 1, DType.F64: 11}[precision]
    tolerance = {DType.F16: 2e-3, DType.BF16: 2e-2}.get(precision, 5e-6)
    check_op("Attention", *qkv(1, 2, 2, 6, 20, 16), target=EXACT, tolerance=tolerance, softmax_precision=code)


@pytest.mark.parametrize("sizes", [(0, 2, 2, 3, 4, 8), (1, 2, 2, 0, 4, 8), (1, 2, 2, 3, 0, 8)])
@pytest.mark.parametrize("n_outputs", [1, 3, 4])
def test_nothing_to_attend_to(sizes: tuple[int, ...], n_outputs: int) -> None:
    batch, n, kv, queries, keys, size = sizes
    check_op("Attention", *qkv(batch, n, kv, queries, keys, size), n_outputs=n_outputs, target=EXACT)


# -- The library -------------------------------------------------------------------------------------------------------


def asked_of(library: Library) -> AttentionProblem:
    """The one problem that the library has solved."""
    (problem,) = set(library.accepted)
    assert isinstance(problem, AttentionProblem)
    return problem


def test_the_library_takes_rows_as_they_are() -> None:
    library = Library()
    q, k, v = (rows(x) for x in qkv(2, 4, 2, 10, 12, 16, dtype=F16))
    check_op("Attention", q, k, v, target=library.target(), q_num_heads=4, kv_num_heads=2)
    problem = asked_of(library)
    assert problem.q_strides == (640, 16, 64, 1) and problem.k_strides == (384, 16, 32, 1)
    assert problem.y_strides == problem.q_strides and not problem.causal and problem.mask_shape is None


def test_causal_order_from_the_first_key_is_the_library_s() -> None:
    library = Library()
    check_op("Attention", *qkv(1, 2, 2, 10, 10, 16, dtype=BF16), target=library.target(), is_causal=1)
    assert asked_of(library).causal
    for more in ({"softcap": 2.0}, {"left_window_size": 3}):
        library = Library()
        check_op("Attention", *qkv(1, 2, 2, 10, 10, 16, dtype=F16), target=library.target(), is_causal=1, **more)
        assert not library.accepted


@pytest.mark.parametrize("shape", [(10, 20), (2, 1, 1, 20), (2, 4, 10, 20), (1, 4, 1, 15)])
@pytest.mark.parametrize("kind", [np.bool_, F16])
def test_masks_are_made_dense_for_the_library(shape: tuple[int, ...], kind: Any) -> None:
    seen = np.random.default_rng(4).random(shape) < 0.7
    if shape[-2] > 1:
        seen[..., 3, :] = False  # a query without keys
    mask: Array = seen if kind is np.bool_ else np.where(seen, 0.5, -np.inf).astype(F16)
    library = Library()
    check_op("Attention", *qkv(2, 4, 2, 10, 20, 16, dtype=F16), mask, target=library.target(policy=MASKED))
    problem = asked_of(library)
    batch, n = (shape[0], shape[1]) if len(shape) == 4 else (1, 1)
    assert problem.mask_shape == (batch, n, 10, 20)


# A number that hides a key, of its own type or of the operands'; -6e4 is one that leaves the scores what they are in f32.
HIDING = [
    *((BF16, kind, number) for kind in (BF16, F32) for number in (-1e9, -1e30, np.finfo(F32).min, ml_dtypes.finfo(BF16).min)),
    *((F16, F32, number) for number in (-1e5, -1e9, np.finfo(F32).min)),
    *((F16, F16, number) for number in (-6e4, np.finfo(F16).min)),
]


@pytest.mark.parametrize(("dtype", "kind", "number"), HIDING)
@pytest.mark.parametrize("shape", [(6, 40), (2, 1, 6, 40), (1, 4, 6, 40)])
def test_rows_hidden_by_a_finite_number_are_right_with_the_library(
    shape: tuple[int, ...], dtype: Any, kind: Any, number: Any
) -> None:
    mask = np.zeros(shape, kind)
    mask[..., 0, :] = number  # all hidden alike
    mask[..., 1, 5:] = number
    mask[..., 2, :], mask[..., 2, 7:] = number, -np.inf  # some hidden for good
    mask[..., 3, :] = -np.inf
    library = Library()
    target = library.target(policy=MASKED)
    check_op("Attention", *qkv(2, 4, 2, 6, 40, 16, dtype=dtype), mask, target=target, tolerance=FUSED_HALF[dtype])
    assert asked_of(library).mask_shape is not None


def test_lengths_and_windows_go_into_the_library_s_mask() -> None:
    library = Library()
    lengths = np.array([3, 9], np.int64)
    operands = (*qkv(2, 4, 2, 10, 20, 16, dtype=F16), None, None, None, lengths)
    check_op("Attention", *operands, target=library.target(policy=MASKED), is_causal=1, left_window_size=4)
    problem = asked_of(library)
    assert problem.mask_shape == (2, 1, 10, 20) and not problem.causal


def test_a_library_that_refuses_leaves_it_to_our_kernels() -> None:
    refusing = Library(lambda problem: False)
    made = lowered(*qkv(1, 2, 2, 10, 10, 16, dtype=F16), target=refusing.target())
    assert refusing.asked and not any(isinstance(a, LibraryCall) for a in made.actions)


# -- Every tactic ------------------------------------------------------------------------------------------------------

TILES = ["fused 64x64", "fused 64x32", "fused 32x64", "fused 32x32", "fused 16x64", "fused 16x32", "fused 16x16"]


def test_every_tactic_attends_when_it_is_forced() -> None:
    operands = qkv(1, 4, 2, 20, 300, 16, 12, dtype=F16)
    library, first, *others = check_every_tactic("Attention", *operands, target=Library().target(), tolerance=2e-3)
    assert (library, first) == ("cudnn", "fused 16x64 in 2 parts")
    tiles = [key for key in (first, *others) if key.startswith("fused")]
    assert sorted(tiles) == sorted([*TILES, *(f"{key} in 2 parts" for key in TILES)])
    products = [("cublaslt", "gemm 64x64"), ("gemm 64x64", "gemm 64x64"), ("gemm 128x128", "gemm 128x128")]
    assert others[len(tiles) - 1 :] == [f"{a}, softmax, {b}" for a, b in products]


def test_every_tactic_attends_behind_a_past_and_hands_out_scores() -> None:
    q, k, v = qkv(1, 2, 2, 4, 4, 16, 12, dtype=F16)
    operands = q, k, v, None, heads(1, 2, 5, 16, dtype=F16), heads(1, 2, 5, 12, dtype=F16)
    keys = check_every_tactic("Attention", *operands, target=EXACT, tolerance=2e-3, is_causal=1)
    assert keys[0] == "fused 16x64" and set(TILES) < set(keys) and "gemm 64x64, softmax, gemm 64x64" in keys
    keys = check_every_tactic("Attention", *operands, n_outputs=4, target=EXACT, tolerance=2e-3)
    products = [("gemv_along_k", "gemv_along_n"), ("gemm 64x64", "gemm 64x64"), ("gemm 128x128", "gemm 128x128")]
    assert keys == [f"{a}, softmax, {b}" for a, b in products]


def form(**fields: Any) -> Form:
    sizes = {"batch": 2, "heads": 4, "kv_heads": 2, "queries": 6, "keys": 9, "size": 16, "v_size": 12}
    dense = ((1, 1, 1),) * 4
    return Form(
        **{"dtype": DType.F16, **sizes, "strides": dense, "scale": 1.0, "k": Operand.input(1), "v": Operand.input(2), **fields}
    )


@pytest.mark.parametrize(
    ("hidden", "pairs"),
    [
        ({}, 6 * 9),
        ({"causal": True}, 1 + 2 + 3 + 4 + 5 + 6),
        ({"causal": True, "offset": 2}, 3 + 4 + 5 + 6 + 7 + 8),
        ({"causal": True, "offset": 6}, 7 + 8 + 9 + 9 + 9 + 9),
        ({"right": 1, "left": 0}, 2 * 6),
        ({"left": 2, "causal": True}, 1 + 2 + 3 + 3 + 3 + 3),
        ({"left": 0}, 9 + 8 + 7 + 6 + 5 + 4),
    ],
)
def test_the_estimate_counts_the_pairs_that_are_seen(hidden: dict[str, Any], pairs: int) -> None:
    rows = 2 * (4 * 6 + 2 * 9)
    assert form(**hidden).estimate() == Estimate(2 * 4 * pairs * (2 * 28 + 5), rows * 28 * 2)


def test_thresholds_are_those_of_the_table() -> None:
    y, masked = Operand.output(0), form(causal=True, left=3)

    def first(of: Form, **table: int) -> str:
        target = Library().target(multiprocessors=1)
        offered = attention_tactics(of, y, target, table=AttentionHeuristic(**table))
        return offered[0].key

    assert [first(masked), first(masked, mask_pays=9), first(masked, mask_pays=10)] == [
        *("fused 16x64", "cudnn with a mask", "fused 16x64")
    ]
    wide = form(softcap=1.0, queries=70)
    assert [first(wide), first(wide, row_warps=2), first(wide, two_blocks=0), first(wide, two_blocks=14 << 10)] == [
        *("fused 64x64", "fused 32x64", "fused 64x64", "fused 64x32")
    ]
    long = form(softcap=1.0, batch=1, heads=2, queries=1, keys=400)
    assert [first(long, part_keys=n, part_blocks=b) for n, b in ((100, 8), (100, 2), (200, 8), (300, 8))] == [
        *("fused 16x64 in 4 parts", "fused 16x64", "fused 16x64 in 2 parts", "fused 16x64")
    ]


def test_what_a_target_lacks_is_said() -> None:
    made = {t.key: t for t in attention_tactics(form(), Operand.output(0), EXACT)}
    assert made["fused 64x64"].needs(Target(arch=75)) == "it needs sm_80"
    assert made["fused 64x64"].needs(Target(shared_nbytes=20 << 10)) == "it needs 22 KiB of shared memory"
    assert made["fused 64x64"].needs(Target()) == ""


def test_a_part_that_is_disabled_is_none_of_the_steps() -> None:
    target = Target(arch=75, tf32=False, policy=Policy(disabled=frozenset({"gemm 64x64"})))
    operands = qkv(1, 2, 1, 10, 40, 16)
    assert lowered(*operands, target=target).tactic == "gemm 128x128, softmax, gemm 128x128"
    check_op("Attention", *operands, target=target, tolerance=5e-6)


def test_of_a_cache_ours_comes_before_the_library() -> None:
    """The library would go through all of it, whatever is held."""
    library = Library()
    q, k = heads(1, 8, 1, 64, dtype=np.float16), heads(1, 2, 1024, 64, dtype=np.float16)
    held = lowered(q, k, k, None, None, None, np.array([9]), target=library.target(), is_causal=1)
    assert held.tactic.startswith("fused")

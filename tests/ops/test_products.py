"""Matrix products in parts: what is cut, that the parts are the whole, and that the bits do not depend on who does which."""

from typing import Any

import numpy as np
import pytest

from miniinfer_cli.ops import products
from miniinfer_cli.ops.products import even_count, in_buffers, multiply, product_cuts
from miniinfer_cli.ops.registry import lookup
from tests.ops.apart import Apart, Backwards


@pytest.mark.parametrize(
    ("batch", "rows", "inner", "columns", "threads", "parts"),
    [
        ((), 64, 64, 64, 8, 1),  # too little
        ((), 128, 768, 768, 2, 2),
        ((), 128, 768, 768, 1, 1),
        ((), 128, 768, 768, 4, 4),
        ((), 128, 768, 768, 64, 6),
        ((), 3136, 64, 64, 2, 2),
        ((), 3136, 576, 64, 2, 4),
        ((), 3136, 576, 64, 8, 16),
        ((), 1200, 600, 600, 2, 2),
        ((), 500, 600, 700, 4, 4),
        ((), 1, 768, 3072, 2, 2),  # a vector: what counts is reading the matrix
        ((), 1, 64, 64, 2, 1),
        ((), 196, 96, 576, 2, 2),
        ((1, 12), 128, 64, 128, 2, 4),
        ((1, 12), 128, 64, 128, 5, 3),
        ((1, 25), 256, 64, 256, 4, 8),
        ((3, 2), 256, 256, 512, 2, 4),
        ((3, 2), 256, 256, 512, 8, 8),
        ((16, 2), 256, 256, 512, 8, 16),
        ((2,), 0, 64, 64, 2, 1),
        ((0,), 640, 640, 640, 2, 1),
        ((), 640, 0, 640, 2, 1),
        ((), 4096, 4096, 4096, 16, 16),
    ],
)
def test_parts_cover_the_output_once(batch, rows, inner, columns, threads, parts):
    cuts = product_cuts(batch, rows, inner, columns, threads)
    assert len(cuts) == parts
    seen = np.zeros((*batch, rows, columns), np.uint8)
    for items, r, c in cuts:
        seen[(*items, r, c)] += 1
    assert (seen == 1).all()
    sizes = [seen[(*items, r, c)].size for items, r, c in cuts]
    assert max(sizes) * len(cuts) <= 1.2 * seen.size  # nobody waits long for who has most


def test_few_threads_share_the_parts_evenly():
    assert [even_count(n) for n in (0, 1, 2, 3, 4, 7, 8, 15, 16, 23, 24, 130)] == [1, 1, 2, 2, 4, 4, 8, 8, 16, 16, 24, 128]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((900, 300), (300, 500)),
        ((1, 1000), (1000, 2100)),
        ((2100, 1000), (1000, 1)),
        ((1, 12, 100, 64), (1, 12, 64, 300)),
        ((5, 1, 300, 100), (3, 100, 200)),
        ((300, 100), (7, 100, 400)),
        ((2, 3, 300, 200), (200, 300)),
        ((7,), (7, 3)),
        ((3, 4), (4, 5)),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_whoever_does_which_part_the_bits_are_the_same(a, b, dtype):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal(a).astype(dtype), rng.standard_normal(b).astype(dtype)
    expected = np.matmul(x.astype(np.float64), w.astype(np.float64))
    got = [multiply(x, w, for_each=each) for each in (Apart(3), Backwards(3))]
    out = np.full_like(got[0], np.nan)
    assert multiply(x, w, out, Apart(3)) is out
    assert got[0].dtype == dtype
    assert got[0].tobytes() == got[1].tobytes() == out.tobytes()
    np.testing.assert_allclose(got[0], expected, rtol=1e-3 if dtype is np.float32 else 1e-9, atol=1e-3)


def test_operands_and_outputs_may_be_views():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((300, 700)).T, rng.standard_normal((400, 300)).T
    out = np.zeros((700, 2, 400))
    multiply(x, w, out[:, 1], Apart(3))
    np.testing.assert_allclose(out[:, 1], x @ w)
    assert not out[:, 0].any()


def test_operations_that_multiply_share_their_products():
    """Those with heavy products take ``for_each``; it is no attribute of theirs."""
    names = "MatMul Gemm Einsum Attention FlexAttention RNN GRU LSTM Conv ConvTranspose DeformConv MatMulInteger QLinearMatMul"
    for name in f"{names} ConvInteger QLinearConv".split():
        domain = "ai.onnx.preview" if name == "FlexAttention" else ""
        definition = lookup(domain, name)
        assert "for_each" in definition._reference_names, name
        assert "for_each" not in definition.attribute_names


def shared(name, inputs, **attrs):
    """The outputs of an operation with threads, how many parts they were given, and the outputs without."""
    for_each = Apart(3)
    definition = lookup("", name)
    got = definition.evaluate(inputs, attrs, n_outputs=1, for_each=for_each)
    return got, for_each.parts, definition.evaluate(inputs, attrs, n_outputs=1)


@pytest.mark.parametrize(
    ("name", "shapes", "attrs"),
    [
        ("MatMul", [(3, 200, 300), (300, 400)], {}),
        ("Gemm", [(300, 500), (700, 300), (700,)], {"transA": 1, "transB": 1}),
        ("Einsum", [(4, 300, 100), (4, 100, 300)], {"equation": "bij,bjk->bik"}),
        ("Attention", [(1, 4, 200, 64)] * 3, {}),
        ("LSTM", [(40, 8, 128), (1, 1024, 128), (1, 1024, 256)], {"hidden_size": 256}),
        ("Conv", [(1, 64, 40, 40), (64, 64, 3, 3)], {"pads": [1, 1, 1, 1]}),
        ("ConvTranspose", [(1, 128, 40, 40), (128, 64, 2, 2)], {"strides": [2, 2]}),
        ("DeformConv", [(1, 64, 20, 20), (512, 64, 3, 3), (1, 18, 18, 18)], {}),
    ],
)
def test_references_with_threads(name, shapes, attrs):
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(s, dtype=np.float32) / 8 for s in shapes]
    got, parts, expected = shared(name, inputs, **attrs)
    assert parts and all(p > 1 for p in parts)
    for g, e in zip(got, expected, strict=True):
        np.testing.assert_allclose(g, e, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("name", ["MatMulInteger", "ConvInteger"])
def test_integers_with_threads_are_exact(name):
    rng = np.random.default_rng(0)
    shapes = [(300, 400), (400, 300)] if name == "MatMulInteger" else [(1, 64, 40, 40), (64, 64, 3, 3)]
    inputs = [rng.integers(0, 255, s).astype(np.uint8) for s in shapes]
    (got,), parts, (expected,) = shared(name, inputs)
    assert parts
    np.testing.assert_array_equal(got, expected)


def test_buffers_come_back_whatever_happens():
    made, done = [], []

    def ready(part, buffer):
        made.append((part, buffer))
        if part == 2:
            raise MemoryError
        return lambda: done.append(part)

    compute = in_buffers(3, 1, ready)
    for part in (0, 1, 0):
        compute(part)
    for _ in range(3):
        with pytest.raises(MemoryError):
            compute(2)
    compute(1)
    assert done == [0, 1, 0, 1]
    assert made == [(0, 0), (1, 0), (2, 0), (2, 0), (2, 0)]  # once for each, unless it failed
    many = in_buffers(1000, 1, lambda part, buffer: lambda: done.append(buffer))
    many(7)
    many(7)
    assert done[4:] == [0, 0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("rows", "pieces", "pieces_turned"), [(1, 0, 0), (2, 5, 5), (13, 17, 17), (17, 0, 33), (65, 0, 0)])
def test_few_rows_meet_a_large_matrix_in_pieces(dtype: Any, turned: bool, rows: int, pieces: int, pieces_turned: int) -> None:
    """In one call OpenBLAS packs both, which takes two to four times as long; results are those of one call."""
    rng = np.random.default_rng(rows)
    a = rng.standard_normal((rows, 1000)).astype(dtype)
    b = rng.standard_normal((1056, 1000)).astype(dtype).T if turned else rng.standard_normal((1000, 1056)).astype(dtype)
    found = products.pieces_of(a, b)
    assert len(found) == (pieces_turned if turned else pieces)
    out = np.full((rows, 1056), np.nan, dtype)
    products.prepare_product(a, b, out)()
    exact = a.astype(np.float64) @ b.astype(np.float64)
    np.testing.assert_allclose(out, exact, rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(products.multiply(a, b), out)
    assert products.multiply(a, b, out) is out


def test_what_goes_in_one_call() -> None:
    a, b = np.ones((2, 1000), np.float32), np.ones((1000, 1056), np.float32)
    assert products.pieces_of(a, b)
    assert not products.pieces_of(a[:, :400], b[:400]), "small enough that nothing is packed"
    assert not products.pieces_of(a.astype(np.int32), b.astype(np.int32))
    assert not products.pieces_of(np.ones((1000, 2), np.float32).T, b), "the rows of the first lie apart"
    assert not products.pieces_of(a[None], b)

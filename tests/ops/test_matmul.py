"""MatMul and Gemm: shapes, element types, and products in every combination of options."""

import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, TensorType, symbol
from miniinfer_cli.ops.matmul import matrix_product
from tests.ops.checked import FLOATS, array, infer, run

RNG = np.random.default_rng(0)
N, S = symbol("n"), symbol("s")


def f32(*shape):
    return TensorType(DType.F32, shape)


@pytest.mark.parametrize(
    ("a", "b", "equation"),
    [
        ((2, 3), (3, 4), "ik,kj->ij"),
        ((5, 2, 3), (3, 4), "nik,kj->nij"),
        ((6, 5, 2, 3), (3, 4), "mnik,kj->mnij"),
        ((2, 3), (5, 3, 4), "ik,nkj->nij"),
        ((6, 5, 2, 3), (6, 5, 3, 4), "mnik,mnkj->mnij"),
        ((3,), (3,), "k,k->"),
        ((3,), (3, 4), "k,kj->j"),
        ((2, 3), (3,), "ik,k->i"),
        ((5, 2, 3), (3,), "nik,k->ni"),
        ((3,), (5, 3, 4), "k,nkj->nj"),
        ((2, 0), (0, 4), "ik,kj->ij"),
        ((0, 2, 3), (3, 4), "nik,kj->nij"),
    ],
)
def test_matmul_of_every_rank(a, b, equation):
    x, y = RNG.standard_normal(a), RNG.standard_normal(b)
    np.testing.assert_allclose(run("MatMul", x, y), np.einsum(equation, x, y), rtol=1e-12)


def test_matmul_broadcasts_batches():
    x, y = RNG.standard_normal((6, 1, 2, 3)), RNG.standard_normal((5, 3, 4))
    np.testing.assert_allclose(run("MatMul", x, y), np.einsum("mik,nkj->mnij", x[:, 0], y), rtol=1e-12)


@pytest.mark.parametrize("shape", [(4, 5, 3), (5, 3)])
def test_matrix_product_writes_where_it_is_told(shape):
    x, y = RNG.standard_normal(shape), RNG.standard_normal((3, 2))
    for out in (np.empty((*shape[:-1], 2)), np.empty((*shape[:-1], 4))[..., ::2]):
        assert matrix_product(x, y, out) is out
        np.testing.assert_allclose(out, x @ y, rtol=1e-13)
    strided = np.moveaxis(RNG.standard_normal((3, *shape[:-1])), 0, -1)
    np.testing.assert_allclose(matrix_product(strided, y), strided @ y, rtol=1e-13)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("op", ["MatMul", "Gemm"])
def test_half_floats_are_summed_in_f32(op, dtype):
    a = np.ones((1, 300))
    a[0, 0] = 2048
    y = run(op, array(a, dtype), array(np.ones((300, 1)), dtype))
    assert float(y[0, 0]) == float(array(2048 + 299, dtype))


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint32", "uint64"])
def test_integers_are_exact_and_wrap_around(dtype):
    a = np.array([[2**30 + 1, 3]], dtype)
    expected = [[(2 * (2**30 + 1) + 9) % 2**32 - (2**32 if dtype == "int32" else 0)]] if "32" in dtype else [[2**31 + 11]]
    b = np.array([[2], [3]], dtype)
    assert run("MatMul", a, b).tolist() == expected
    assert run("Gemm", a, b).tolist() == expected


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("c_shape", [None, (), (1,), (4,), (2, 1), (1, 4), (2, 4)])
def test_gemm(trans_a, trans_b, c_shape):
    a, b = RNG.standard_normal((2, 3)), RNG.standard_normal((3, 4))
    c = None if c_shape is None else np.asarray(RNG.standard_normal(c_shape))
    operands = (a.T.copy() if trans_a else a, b.T.copy() if trans_b else b, *([] if c is None else [c]))
    attrs = {"transA": trans_a, "transB": trans_b}
    np.testing.assert_allclose(run("Gemm", *operands, **attrs), a @ b + (0 if c is None else c), rtol=1e-12)
    scaled = run("Gemm", *operands, alpha=0.5, beta=-2.0, **attrs)
    np.testing.assert_allclose(scaled, 0.5 * (a @ b) - (0 if c is None else 2 * c), rtol=1e-12)
    np.testing.assert_allclose(run("Gemm", *operands, beta=0.0, **attrs), a @ b, rtol=1e-12)


def test_gemm_of_integers_with_fractions_rounds_toward_zero():
    y = run("Gemm", np.array([[3]], np.int32), np.array([[1]], np.int32), np.array([5], np.int32), alpha=0.5, beta=0.5)
    assert y.tolist() == [[3]]


@pytest.mark.parametrize(
    ("op", "operands", "attrs", "expected"),
    [
        ("MatMul", (f32(N, S, 768), f32(768, 64)), {}, "f32[n,s,64]"),
        ("MatMul", (f32(N, 12, S, 64), f32(N, 12, 64, S)), {}, "f32[n,12,s,s]"),
        ("MatMul", (f32(N, 12, S, 64), f32(1, 1, 64, 7)), {}, "f32[n,12,s,7]"),
        ("MatMul", (f32(64), f32(N, 64, 3)), {}, "f32[n,3]"),
        ("MatMul", (f32(N, 3, 64), f32(64)), {}, "f32[n,3]"),
        ("MatMul", (f32(N), f32(N)), {}, "f32[]"),
        ("MatMul", (f32(2, N), f32(5, 4)), {}, "f32[2,4]"),
        ("MatMul", (TensorType(DType.F32), f32(5, 4)), {}, "f32[?]"),
        ("Gemm", (f32(N, 3), f32(3, 4), f32(4)), {}, "f32[n,4]"),
        ("Gemm", (f32(3, N), f32(4, 3), f32(1, 4)), {"transA": 1, "transB": 1}, "f32[n,4]"),
        ("Gemm", (f32(N, 3), f32(3, 4), f32(N, 4)), {}, "f32[n,4]"),
        ("Gemm", (TensorType(DType.F32), f32(3, 4)), {}, "f32[?y0.0,4]"),
    ],
)
def test_shape_rules(op, operands, attrs, expected):
    assert str(infer(op, *operands, **attrs)) == expected


@pytest.mark.parametrize(
    ("op", "operands", "attrs", "message"),
    [
        ("MatMul", (f32(2, 3), f32(4, 5)), {}, "inner dimensions of f32.2,3. and f32.4,5.: 3 is not 4"),
        ("MatMul", (f32(2, 2, 3), f32(3, 3, 5)), {}, "do not broadcast"),
        ("MatMul", (f32(), f32(3, 3)), {}, "takes vectors and matrices"),
        ("MatMul", (f32(3, 3), TensorType(DType.F64, (3, 3))), {}, "one element type"),
        ("MatMul", (TensorType(DType.I8, (3, 3)),) * 2, {}, "does not take an input i8"),
        ("Gemm", (f32(2, 3), f32(3, 5)), {"transA": 1}, "inner dimensions .* 2 is not 3"),
        ("Gemm", (f32(2, 3, 1), f32(3, 5)), {}, "rank 2"),
        ("Gemm", (f32(1, 3), f32(3, 5), f32(2, 5)), {}, "C f32.2,5. does not broadcast onto f32.1,5."),
        ("Gemm", (f32(2, 3), f32(3, 5), f32(1, 2, 5)), {}, "does not broadcast onto"),
        ("Gemm", (f32(2, 3), f32(3, 5), f32(4)), {}, "do not broadcast"),
    ],
)
def test_operands_that_do_not_fit_are_refused(op, operands, attrs, message):
    with pytest.raises(ModelError, match=message):
        infer(op, *operands, **attrs)

"""RotaryEmbedding against rotations written with complex numbers."""

import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, TensorType, symbol
from tests.ops.checked import FLOATS, array, infer, run, run_expanded

BATCH, HEADS, LENGTH, SIZE = 2, 3, 4, 8
RNG = np.random.default_rng(4)
X = RNG.normal(size=(BATCH, HEADS, LENGTH, SIZE))
IDS = np.array([[0, 1, 2, 3], [7, 2, 2, 5]])


def angles(size):
    """The angle of each pair at each of 10 positions."""
    return np.outer(np.arange(10), 10000.0 ** (-np.arange(0, size, 2) / size))


def rotated(x, theta, interleaved, turned):
    """Each pair of the first ``turned`` elements as a complex number times exp(i theta); theta is [batch, length, pairs]."""
    out = x.copy()
    first = slice(0, turned, 2) if interleaved else slice(0, turned // 2)
    second = slice(1, turned, 2) if interleaved else slice(turned // 2, turned)
    result = (x[..., first] + 1j * x[..., second]) * np.exp(1j * theta)[:, None]
    out[..., first], out[..., second] = result.real, result.imag
    return out


def three_d(x):
    return x.transpose(0, 2, 1, 3).reshape(BATCH, LENGTH, -1)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("with_ids", [True, False])
@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("dim", [0, 4])
@pytest.mark.parametrize("rank", [3, 4])
def test_rotation_and_its_expansion(dtype, with_ids, interleaved, dim, rank):
    theta = angles(dim or SIZE)
    picked = theta[IDS]
    cache = theta if with_ids else picked
    x, cos, sin = (array(v, dtype) for v in (X, np.cos(cache), np.sin(cache)))
    expected = rotated(x.astype(np.float64), picked, interleaved, dim or SIZE)
    attrs = {"interleaved": interleaved, "rotary_embedding_dim": dim}
    if rank == 3:
        x, expected, attrs = three_d(x), three_d(expected), attrs | {"num_heads": HEADS}
    inputs = [x, cos, sin, *([IDS] if with_ids else [])]
    result = run("RotaryEmbedding", *inputs, **attrs).astype(np.float64)
    # The cosines and sines are rounded to the element type as well.
    np.testing.assert_allclose(result, expected, rtol=4 * FLOATS[dtype], atol=8 * FLOATS[dtype])
    expanded = run_expanded("RotaryEmbedding", *inputs, **attrs).astype(np.float64)
    np.testing.assert_allclose(expanded, result, rtol=2 * FLOATS[dtype], atol=2 * FLOATS[dtype])


def test_a_strided_input_is_left_as_it_is():
    x = X.transpose(0, 1, 3, 2).copy().transpose(0, 1, 3, 2)
    before = x.copy()
    cache = angles(SIZE)
    strided = run("RotaryEmbedding", x, np.cos(cache), np.sin(cache), IDS)
    np.testing.assert_array_equal(strided, run("RotaryEmbedding", X, np.cos(cache), np.sin(cache), IDS))
    np.testing.assert_array_equal(x, before)
    three = np.asfortranarray(three_d(X))
    result = run("RotaryEmbedding", three, np.cos(cache), np.sin(cache), IDS, num_heads=HEADS)
    np.testing.assert_array_equal(result, three_d(strided))


def test_shapes_and_what_is_refused():
    b, s = symbol("b"), symbol("s")
    x = TensorType(DType.F16, (b, s, 512))
    cache, ids = TensorType(DType.F16, (100, 32)), TensorType(DType.I64, (b, s))
    assert infer("RotaryEmbedding", x, cache, cache, ids, num_heads=8) == x
    assert infer("RotaryEmbedding", TensorType(DType.F16), cache, cache, ids) == TensorType(DType.F16)
    with pytest.raises(ModelError, match="needs num_heads"):
        infer("RotaryEmbedding", x, cache, cache, ids)
    with pytest.raises(ModelError, match="rank 3 or 4"):
        infer("RotaryEmbedding", ids, cache, cache, ids)
    with pytest.raises(ModelError, match="sin_cache of rank 3 without position_ids"):
        infer("RotaryEmbedding", x, TensorType(DType.F16, (b, s, 32)), cache, num_heads=8)
    with pytest.raises(ModelError, match=r"turns 128 elements of each head, expected twice the last of f16\[100,32\]"):
        infer("RotaryEmbedding", x, cache, cache, ids, num_heads=4)
    with pytest.raises(ModelError, match="rotary_embedding_dim 64 is larger than the head size 32"):
        infer("RotaryEmbedding", x, cache, cache, ids, num_heads=16, rotary_embedding_dim=64)

"""CausalConvWithState: the filter, the state it carries, and its expansion."""

import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, TensorType, symbol
from tests.ops.checked import FLOATS, array, infer, run, run_expanded

RNG = np.random.default_rng(0)


def conv(*inputs, **attrs):
    return run("CausalConvWithState", *inputs, n_outputs=2, **attrs)


def test_each_output_sees_its_own_and_earlier_inputs():
    x, w = np.array([[[1.0, 2, 3, 4], [1, 1, 1, 1]]]), np.array([[[100.0, 10, 1]], [[1, 2, 3]]])
    y, state = conv(x, w, np.array([0.5, 0.0]))
    assert y.tolist() == [[[1.5, 12.5, 123.5, 234.5], [3, 5, 6, 6]]]
    assert state.tolist() == [[[3, 4], [1, 1]]]


@pytest.mark.parametrize("cut", [1, 2, 5])
def test_the_state_joins_two_calls_into_one(cut):
    x, w, b = RNG.standard_normal((2, 3, 7)), RNG.standard_normal((3, 1, 4)), RNG.standard_normal(3)
    whole, last = conv(x, w, b, activation="silu")
    first, state = conv(x[:, :, :cut].copy(), w, b, activation="silu")
    second, final = conv(x[:, :, cut:].copy(), w, b, state, activation="silu")
    np.testing.assert_allclose(np.concatenate([first, second], axis=2), whole, rtol=1e-13)
    np.testing.assert_array_equal(final, last)


@pytest.mark.parametrize("activation", ["none", "silu", "swish"])
def test_activation(activation):
    x, w = RNG.standard_normal((1, 2, 5)), RNG.standard_normal((2, 1, 3))
    plain, _ = conv(x, w)
    y, _ = conv(x, w, activation=activation)
    np.testing.assert_allclose(y, plain if activation == "none" else plain / (1 + np.exp(-plain)), rtol=1e-13)
    assert conv(np.array([[[-1e4]]]), np.ones((1, 1, 1)), activation="silu")[0].item() == 0


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("optional", [(), (True,), (False, True), (True, True)])
@pytest.mark.parametrize("activation", ["none", "silu"])
def test_expansion(kernel, optional, activation):
    x, w = RNG.standard_normal((2, 3, 4)), RNG.standard_normal((3, 1, kernel))
    values = (RNG.standard_normal(3), RNG.standard_normal((2, 3, kernel - 1)))
    inputs = (x, w, *(v if given else None for v, given in zip(values, optional, strict=False)))
    for expected, got in zip(
        conv(*inputs, activation=activation),
        run_expanded("CausalConvWithState", *inputs, n_outputs=2, activation=activation),
        strict=True,
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dtype", FLOATS)
def test_half_floats_are_summed_in_f32(dtype):
    x = np.ones((1, 1, 300))
    x[0, 0, 0] = 2048
    y, _ = conv(array(x, dtype), array(np.ones((1, 1, 300)), dtype))
    assert float(y[0, 0, -1]) == float(array(2048 + 299, dtype))


def f32(*shape):
    return TensorType(DType.F32, shape)


N, L = symbol("n"), symbol("l")


def test_shape_rule():
    y, state = infer("CausalConvWithState", f32(N, 8, L), f32(8, 1, 4), n_outputs=2)
    assert (str(y), str(state)) == ("f32[n,8,l]", "f32[n,8,3]")
    y, state = infer("CausalConvWithState", f32(N, 8, L), f32(8, 1, 4), None, f32(2, 8, 3), n_outputs=2)
    assert (str(y), str(state)) == ("f32[2,8,l]", "f32[2,8,3]")
    unknown = TensorType(DType.F32)
    y, state = infer("CausalConvWithState", unknown, f32(8, 1, 4), n_outputs=2)
    assert (str(y), str(state)) == ("f32[?y0.0,8,?y0.2]", "f32[?y1.0,8,3]")


@pytest.mark.parametrize(
    ("operands", "attrs", "message"),
    [
        ((f32(1, 8, 5), f32(7, 1, 4)), {}, "channels of input .* 8 is not 7"),
        ((f32(1, 8, 5), f32(8, 2, 4)), {}, "second dimension of weights"),
        ((f32(1, 8, 5), f32(8, 1, 4), f32(7)), {}, "channels of bias"),
        ((f32(1, 8, 5), f32(8, 1, 4), None, f32(1, 8, 4)), {}, "past_state .* 3 is not 4"),
        ((f32(1, 8), f32(8, 1, 4)), {}, "rank 3"),
        ((f32(1, 8, 5), f32(8, 1, 4)), {"activation": "relu"}, "activation is 'relu'"),
    ],
)
def test_operands_that_do_not_fit_are_refused(operands, attrs, message):
    with pytest.raises(ModelError, match=message):
        infer("CausalConvWithState", *operands, n_outputs=2, **attrs)

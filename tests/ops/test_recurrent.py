"""RNN, GRU and LSTM against their equations, one sequence and one step at a time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, TensorType, symbol
from tests.ops.checked import FLOATS, array, infer, run

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
COUNT = {"RNN": 1, "GRU": 2, "LSTM": 3}
DEFAULTS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}
# name: function of x, alpha and beta, and which of the two it has
FUNCTIONS = {
    "Relu": (lambda x, a, b: np.maximum(0, x), ""),
    "Tanh": (lambda x, a, b: np.tanh(x), ""),
    "Sigmoid": (lambda x, a, b: 0.5 * (1 + np.tanh(x / 2)), ""),
    "Affine": (lambda x, a, b: a * x + b, "ab"),
    "LeakyRelu": (lambda x, a, b: np.where(x >= 0, x, a * x), "a"),
    "ThresholdedRelu": (lambda x, a, b: np.where(x >= a, x, 0), "a"),
    "ScaledTanh": (lambda x, a, b: a * np.tanh(b * x), "ab"),
    "HardSigmoid": (lambda x, a, b: np.minimum(np.maximum(a * x + b, 0), 1), "ab"),
    "Elu": (lambda x, a, b: np.where(x >= 0, x, a * np.expm1(np.minimum(x, 0))), "a"),
    "Softsign": (lambda x, a, b: x / (1 + np.abs(x)), ""),
    "Softplus": (lambda x, a, b: np.logaddexp(0, x), ""),
}


@st.composite
def networks(draw, op):
    """Inputs of one node, all optional ones sometimes absent, and its attributes."""
    direction = draw(st.sampled_from(["forward", "reverse", "bidirectional"]))
    d = 2 if direction == "bidirectional" else 1
    h, batch, length, width = (draw(st.integers(1, 3)) for _ in range(4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    layout = draw(st.integers(0, 1))

    def optional(*shape):
        return rng.standard_normal(shape) if draw(st.booleans()) else None

    state = (batch, d, h) if layout else (d, batch, h)
    x = rng.standard_normal((batch, length, width) if layout else (length, batch, width))
    # Small weights, so that unbounded functions do not run away.
    w, r = 0.5 * rng.standard_normal((d, GATES[op] * h, width)), 0.3 * rng.standard_normal((d, GATES[op] * h, h))
    lens = rng.integers(1, length + 1, batch).astype(np.int32) if draw(st.booleans()) else None
    inputs = [x, w, r, optional(d, 2 * GATES[op] * h), lens, optional(*state)]
    attrs = {"direction": direction, "hidden_size": h, "layout": layout}
    if draw(st.booleans()):
        attrs["clip"] = 0.5
    if draw(st.booleans()):
        names = [draw(st.sampled_from(list(FUNCTIONS))) for _ in range(COUNT[op] * d)]
        kinds = "".join(FUNCTIONS[name][1] for name in names)
        attrs |= {"activations": names, "activation_alpha": rng.uniform(0.1, 1, kinds.count("a")).tolist()}
        attrs["activation_beta"] = rng.uniform(0.1, 1, kinds.count("b")).tolist()
    if op == "GRU":
        attrs["linear_before_reset"] = draw(st.integers(0, 1))
    if op == "LSTM":
        inputs += [optional(*state), optional(d, 3 * h)]
        attrs["input_forget"] = draw(st.integers(0, 1))
    return inputs, attrs


def functions_of(op, attrs, d):
    names = attrs.get("activations", DEFAULTS[op] * d)
    alphas, betas = iter(attrs.get("activation_alpha", [])), iter(attrs.get("activation_beta", []))
    made = []
    for name in names:
        function, has = FUNCTIONS[name]
        a, b = next(alphas) if "a" in has else None, next(betas) if "b" in has else None
        made.append(lambda x, f=function, a=a, b=b: f(x, a, b))
    return [made[i * COUNT[op] : (i + 1) * COUNT[op]] for i in range(d)]


def step_by_the_equations(op, x, h, c, w, r, b, p, functions, attrs):
    """ONNX's equations for one time step of one sequence: the new hidden and cell state."""
    size = len(h)

    def limit(v):
        return np.clip(v, -attrs["clip"], attrs["clip"]) if "clip" in attrs else v

    gates = GATES[op]
    wx = [w[i * size : (i + 1) * size] @ x + b[i * size : (i + 1) * size] for i in range(gates)]
    rh = [r[i * size : (i + 1) * size] @ h + b[(gates + i) * size : (gates + i + 1) * size] for i in range(gates)]
    if op == "RNN":
        return functions[0](limit(wx[0] + rh[0])), c
    if op == "GRU":
        f, g = functions
        z, reset = f(limit(wx[0] + rh[0])), f(limit(wx[1] + rh[1]))
        after = reset * rh[2] if attrs["linear_before_reset"] else r[2 * size :] @ (reset * h) + b[5 * size :]
        return (1 - z) * g(limit(wx[2] + after)) + z * h, c
    f, g, out = functions
    i = f(limit(wx[0] + rh[0] + p[:size] * c))
    forget = 1 - i if attrs["input_forget"] else f(limit(wx[2] + rh[2] + p[2 * size :] * c))
    new = forget * c + i * g(limit(wx[3] + rh[3]))
    return f(limit(wx[1] + rh[1] + p[size : 2 * size] * new)) * out(new), new


def by_the_equations(op, inputs, attrs):
    x, w, r, b, lens, h0, c0, p = [*inputs, *[None] * (8 - len(inputs))]
    if attrs["layout"]:
        x, h0, c0 = (None if v is None else v.swapaxes(0, 1) for v in (x, h0, c0))
    length, batch, _ = x.shape
    d, size = len(w), attrs["hidden_size"]
    y, last_h, last_c = np.zeros((length, d, batch, size)), np.zeros((d, batch, size)), np.zeros((d, batch, size))
    functions = functions_of(op, attrs, d)
    for way in range(d):
        bias = np.zeros(2 * GATES[op] * size) if b is None else b[way]
        peepholes = np.zeros(3 * size) if p is None else p[way]
        for n in range(batch):
            h = np.zeros(size) if h0 is None else h0[way, n]
            c = np.zeros(size) if c0 is None else c0[way, n]
            steps = list(range(length if lens is None else lens[n]))
            if attrs["direction"] == "reverse" or way == 1:
                steps.reverse()
            for t in steps:
                h, c = step_by_the_equations(op, x[t, n], h, c, w[way], r[way], bias, peepholes, functions[way], attrs)
                y[t, way, n] = h
            last_h[way, n], last_c[way, n] = h, c
    if attrs["layout"]:
        return y.transpose(2, 0, 1, 3), last_h.swapaxes(0, 1), last_c.swapaxes(0, 1)
    return y, last_h, last_c


@pytest.mark.parametrize("op", list(GATES))
@given(st.data())
@settings(max_examples=60, deadline=None)
def test_equations(op, data):
    inputs, attrs = data.draw(networks(op))
    n_outputs = 3 if op == "LSTM" else 2
    results = run(op, *inputs, n_outputs=n_outputs, **attrs)
    for result, expected in zip(results, by_the_equations(op, inputs, attrs), strict=False):
        np.testing.assert_allclose(result, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("op", list(GATES))
def test_fewer_outputs_and_trailing_inputs_left_out(op):
    rng = np.random.default_rng(0)
    x, w, r = (
        rng.standard_normal((4, 2, 3)),
        rng.standard_normal((1, GATES[op] * 2, 3)),
        rng.standard_normal((1, GATES[op] * 2, 2)),
    )
    y, last = run(op, x, w, r, n_outputs=2)
    np.testing.assert_array_equal(run(op, x, w, r), y)
    np.testing.assert_array_equal(last[0], y[-1, 0])


@pytest.mark.parametrize("dtype", [name for name in FLOATS if name not in ("float64", "float32")])
def test_half_floats_keep_their_states_in_f32(dtype):
    # Each step adds 1/512 to 1: a state rounded at every step would never move.
    x, one = np.full((256, 1, 1), 1 / 4096), np.ones((1, 1, 1))
    y, last = run(
        "RNN", *(array(v, dtype) for v in (x, one, one)), None, None, array(one, dtype), n_outputs=2, activations=["Relu"]
    )
    assert (y.dtype.name, float(last[0, 0, 0])) == (dtype, 1.0625)


def test_activation_parameters_default_to_those_of_the_operators():
    x, one = np.array([[[-1.0], [0.75]]]), np.ones((1, 1, 1))
    for name, expected in [
        ("LeakyRelu", [-0.01, 0.75]),
        ("ThresholdedRelu", [0, 0]),
        ("HardSigmoid", [0.3, 0.65]),
        ("Elu", [np.exp(-1) - 1, 0.75]),
        ("leakyrelu", [-0.01, 0.75]),
    ]:
        y = run("RNN", x, one, one, activations=[name])
        np.testing.assert_allclose(y[0, 0, :, 0], expected, rtol=1e-12)


def test_the_default_of_rnn_names_two_functions_for_one_direction():
    x, one = np.array([[[0.5]]]), np.ones((1, 1, 1))
    assert run("RNN", x, one, one, activations=["Tanh", "Relu"]).item() == np.tanh(0.5)


@pytest.mark.parametrize(("op", "gates"), [("RNN", 1), ("GRU", 3), ("LSTM", 4)])
@pytest.mark.parametrize(("length", "batch"), [(0, 2), (3, 0)])
def test_no_steps_and_no_rows(op, gates, length, batch):
    x, w, r = np.zeros((length, batch, 4)), np.ones((1, gates * 3, 4)), np.ones((1, gates * 3, 3))
    y, last = run(op, x, w, r, n_outputs=2)
    assert (y.shape, last.shape) == ((length, 1, batch, 3), (1, batch, 3))
    assert not last.any()


def test_large_inputs_saturate_without_a_warning():
    x, w, r = np.full((1, 1, 1), 1e5, np.float32), np.full((1, 4, 1), -1.0, np.float32), np.zeros((1, 4, 1), np.float32)
    assert run("LSTM", x, w, r).item() == 0


def f32(*shape):
    return TensorType(DType.F32, shape)


N, T = symbol("n"), symbol("t")


@pytest.mark.parametrize(
    ("op", "attrs", "expected"),
    [
        ("RNN", {}, ["f32[t,1,n,5]", "f32[1,n,5]"]),
        ("GRU", {"direction": "reverse"}, ["f32[t,1,n,5]", "f32[1,n,5]"]),
        ("LSTM", {"direction": "bidirectional"}, ["f32[t,2,n,5]", "f32[2,n,5]", "f32[2,n,5]"]),
    ],
)
def test_shape_rules(op, attrs, expected):
    d = int(expected[-1][4])
    x, w, r = f32(T, N, 3), f32(d, GATES[op] * 5, 3), f32(d, GATES[op] * 5, 5)
    assert [str(t) for t in infer(op, x, w, r, n_outputs=len(expected), **attrs)] == expected
    swapped = [str(t) for t in infer(op, f32(N, T, 3), w, r, n_outputs=2, layout=1, **attrs)]
    assert swapped == [f"f32[n,t,{d},5]", f"f32[n,{d},5]"]
    unknown = TensorType(DType.F32)
    assert str(infer(op, x, unknown, unknown, hidden_size=5, **attrs)) == expected[0]
    assert str(infer(op, unknown, w, r, **attrs)) == f"f32[?y0.0,{d},?y0.2,5]"


def test_a_symbolic_input_takes_its_sizes_from_elsewhere():
    y = infer("LSTM", f32(T, N, 3), f32(1, 20, 3), f32(1, 20, 5), None, TensorType(DType.I32, (N,)), f32(1, N, 5))
    assert str(y) == "f32[t,1,n,5]"


@pytest.mark.parametrize(
    ("op", "changed", "attrs", "message"),
    [
        ("LSTM", {0: f32(4, 3)}, {}, "rank 3"),
        ("LSTM", {1: f32(1, 20, 4)}, {}, "weights .* 4 is not 3"),
        ("LSTM", {1: f32(2, 20, 3)}, {}, "weights .* 2 is not 1"),
        ("LSTM", {2: f32(1, 15, 5)}, {}, "recurrence weights .* 15 is not 20"),
        ("LSTM", {3: f32(1, 20)}, {}, "bias .* 20 is not 40"),
        ("LSTM", {4: TensorType(DType.I64, (2,))}, {}, "does not take an input i64"),
        ("LSTM", {5: f32(2, 2, 5)}, {}, "initial state .* 2 is not 1"),
        ("LSTM", {7: f32(1, 10)}, {}, "peepholes .* 10 is not 15"),
        ("LSTM", {}, {"hidden_size": 6}, "hidden_size .* 6 is not 5"),
        ("LSTM", {}, {"direction": "both"}, "direction is 'both'"),
        ("LSTM", {}, {"layout": 2}, "layout is 2"),
        ("LSTM", {}, {"activations": ["Tanh"]}, "has 1 entries, forward needs 3"),
        ("LSTM", {}, {"activations": ["Tanh", "Tanh", "Sine"]}, "activation 'Sine'"),
        ("LSTM", {1: TensorType(DType.F16, (1, 20, 3))}, {}, "one element type"),
    ],
)
def test_operands_that_do_not_fit_are_refused(op, changed, attrs, message):
    operands = [f32(4, 2, 3), f32(1, 20, 3), f32(1, 20, 5), None, None, None, None, None]
    for i, type in changed.items():
        operands[i] = type
    while operands[-1] is None:
        operands.pop()
    with pytest.raises(ModelError, match=message):
        infer(op, *operands, **attrs)


@pytest.mark.parametrize("op", GATES)
def test_a_clip_of_0_is_none(op):
    rng = np.random.default_rng(1)
    inputs = [
        rng.standard_normal((2, 1, 3)),
        rng.standard_normal((1, GATES[op] * 2, 3)),
        rng.standard_normal((1, GATES[op] * 2, 2)),
    ]
    assert np.array_equal(run(op, *inputs, clip=0.0, hidden_size=2), run(op, *inputs, hidden_size=2))
    for clip in (-1.0, float("nan")):
        with pytest.raises(ModelError, match=f"{op} clip is {clip}, expected a number above 0, or 0 for none"):
            infer(op, *inputs, clip=clip, hidden_size=2)

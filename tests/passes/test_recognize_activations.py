"""recognize_activations: every way of writing a formula becomes its node; a formula with another number stays."""

import pytest

from miniinfer_cli.ir import Graph
from miniinfer_cli.passes.recognize_activations import recognize_activations
from miniinfer_cli.passes.remove_dead_nodes import remove_dead_nodes

CONSTANTS = """
  half: f32[] = const 0.5
  one: f32[] = const 1.0
  two: f32[1] = const [2.0]
  three: f32[] = const 3.0
  six: f32[] = const 6.0
  zero: f32[] = const 0.0
  root: f32[] = const 1.4142135
  rsqrt: f32[] = const 0.70710677
  inner: f32[] = const 0.7978846
  cubic: f32[] = const 0.044715
"""


def recognized(graph: Graph) -> int:
    """The pass, and what it leaves cleaned up."""
    fired = recognize_activations(graph)
    remove_dead_nodes(graph)
    return fired


GELU = [
    "a = Div(x, root) e = Erf(a) b = Add(e, one) c = Mul(x, b) y = Mul(c, half)",  # torch
    "a = Mul(x, rsqrt) e = Erf(a) b = Add(one, e) c = Mul(half, b) y = Mul(x, c)",
    "a = Div(x, root) e = Erf(a) b = Add(e, one) c = Mul(x, half) y = Mul(c, b)",
    "a = Div(x, root) e = Erf(a) b = Add(e, one) c = Mul(x, b) y = Div(c, two)",
    "a = Div(x, root) e = Erf(a) b = Mul(e, x) c = Add(b, x) y = Mul(c, half)",
    "a = Mul(x, rsqrt) e = Erf(a) b = Mul(x, half) c = Mul(b, e) y = Add(b, c)",
    "a = Mul(x, rsqrt) e = Erf(a) b = Mul(x, half) c = Mul(b, e) y = Sum(b, c)",
    "a = Mul(x, rsqrt) e = Erf(a) n = Neg(one) b = Sub(e, n) c = Mul(x, b) y = Mul(c, half)",
    "k: f32[] = const -0.5 a = Mul(x, rsqrt) e = Erf(a) b = Add(e, one) n = Neg(x) c = Mul(n, b) y = Mul(c, k)",
    "a = Mul(x, half) m = Mul(a, root) e = Erf(m) b = Add(e, one) c = Mul(x, b) y = Mul(c, half)",
]
GELU_TANH = [
    "p = Pow(x, three) a = Mul(p, cubic) b = Add(x, a) c = Mul(b, inner) t = Tanh(c) d = Add(t, one) e = Mul(x, half)"
    " y = Mul(e, d)",  # torch, HF gelu_new
    "m = Mul(x, inner) s = Mul(x, x) a = Mul(s, cubic) b = Add(a, one) c = Mul(m, b) t = Tanh(c) d = Add(one, t)"
    " e = Mul(x, half) y = Mul(e, d)",  # HF gelu_fast
    "p = Pow(x, two) q = Mul(p, x) a = Mul(cubic, q) b = Add(a, x) c = Mul(inner, b) t = Tanh(c) d = Add(t, one)"
    " e = Mul(d, x) y = Div(e, two)",
]
SILU = ["s = Sigmoid(x) y = Mul(x, s)", "s = Sigmoid(x) y = Mul(s, x)", "a = Mul(x, one) s = Sigmoid(a) y = Mul(x, s)"]
HARD_SWISH = [
    "h = HardSigmoid(x) {alpha=0.16666667, beta=0.5} y = Mul(x, h)",
    "a = Add(x, three) c = Clip(a, zero, six) b = Mul(x, c) y = Div(b, six)",
    "a = Add(three, x) c = Clip(a, zero, six) b = Div(c, six) y = Mul(b, x)",
    "a = Div(x, six) b = Add(a, half) c = Clip(b, zero, one) y = Mul(x, c)",
]
MISH = [
    "p = Softplus(x) t = Tanh(p) y = Mul(x, t)",
    "k: f32[] = const 20.0 p = Softplus(x) g = Greater(x, k) w = Where(g, x, p) t = Tanh(w) y = Mul(t, x)",
]
FORMS = [
    *[(body, "Gelu(x)") for body in GELU],
    *[(body, 'Gelu(x) {approximate="tanh"}') for body in GELU_TANH],
    *[(body, "Swish(x)") for body in SILU],
    ("k: f32[] = const 1.702 a = Mul(x, k) s = Sigmoid(a) y = Mul(x, s)", "Swish(x) {alpha=1.7020000219345093}"),  # CLIP
    ("a = Div(x, six) b = Mul(a, two) s = Sigmoid(b) y = Mul(x, s)", "Swish(x) {alpha=0.3333333333333333}"),
    *[(body, "HardSwish(x)") for body in HARD_SWISH],
    *[(body, "Mish(x)") for body in MISH],
]


@pytest.mark.parametrize(("body", "result"), FORMS)
def test_forms_that_exporters_and_people_write(rewrites, body, result):
    rewrites(
        recognized,
        f"graph main(x: f32[batch,seq,8]) {{ {CONSTANTS} {body} z = Relu(y) return z }}",
        f"graph main(x: f32[batch,seq,8]) {{ y = {result} z = Relu(y) return z }}",
        rtol=2e-6,
    )


@pytest.mark.parametrize(("dtype", "rtol"), [("f64", 1e-12), ("f16", 4e-3), ("bf16", 4e-2)])
@pytest.mark.parametrize(
    ("body", "result"), [(GELU[0], "Gelu(x)"), (GELU_TANH[0], 'Gelu(x) {approximate="tanh"}'), (HARD_SWISH[1], "HardSwish(x)")]
)
def test_coefficients_are_compared_as_closely_as_the_type_can_say(rewrites, dtype, rtol, body, result):
    exact = CONSTANTS.replace("1.4142135", "1.4142135623730951").replace("0.7978846", "0.7978845608028654")
    before = f"graph main(x: f32[batch,8]) {{ {exact} {body} return y }}".replace("f32", dtype)
    rewrites(recognized, before, f"graph main(x: {dtype}[batch,8]) {{ y = {result} return y }}", rtol=rtol)


@pytest.mark.parametrize(
    "body",
    [
        GELU[0].replace("root", "two"),
        GELU[0].replace("root", "k").replace("a =", "k: f32[] = const 1.41420 a ="),  # 1e-5 off
        GELU[0].replace("half", "one"),
        GELU[0].replace("Add(e, one)", "Add(e, half)"),
        GELU[0].replace("Add(e, one)", "Sub(e, one)"),
        GELU[0].replace("Mul(x, b)", "Mul(w, b)"),  # another factor
        GELU[0].replace("Mul(x, b)", "Mul(b, b)"),
        GELU[0].replace("Mul(c, half)", "Pow(c, half)"),
        GELU[0] + " z = Relu(e)",
        GELU[0] + " z = Relu(c)",
        GELU_TANH[0].replace("cubic", "half"),
        GELU_TANH[0].replace("inner", "k").replace("p =", "k: f32[] = const 0.7979 p =", 1),
        GELU_TANH[0].replace("three", "two"),
        GELU_TANH[0].replace("three", "one"),
        GELU_TANH[0].replace("Pow(x, three)", "Pow(w, three)"),
        GELU_TANH[0] + " z = Relu(t)",
        "a = Mul(x, rsqrt) t = Tanh(a) b = Add(t, one) c = Mul(x, b) y = Mul(c, half)",
        "s = Sigmoid(w) y = Mul(x, s)",
        "s = Sigmoid(x) a = Mul(s, s) y = Mul(a, x)",
        "s = Sigmoid(x) y = Add(x, s)",
        "s = Sigmoid(x) y = Mul(x, s) z = Relu(s)",
        "a = Add(x, one) s = Sigmoid(a) y = Mul(x, s)",
        "k: f32[8] = const [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0] a = Mul(x, k) s = Sigmoid(a) y = Mul(x, s)",
        "k: f32[3,1,1] = const fill 1.5 a = Mul(r, k) s = Sigmoid(a) y = Mul(r, s)",  # repeats its input
        "h = HardSigmoid(x) y = Mul(x, h)",
        "h = HardSigmoid(x) {alpha=0.16666667, beta=0.4} y = Mul(x, h)",
        "a = Add(x, three) c = Clip(a, zero, six) b = Mul(x, c) y = Div(b, three)",
        "a = Add(x, three) c = Clip(a, zero, three) b = Mul(x, c) y = Div(b, six)",
        "a = Add(x, three) c = Clip(a, -, six) b = Mul(x, c) y = Div(b, six)",
        "a = Add(x, two) c = Clip(a, zero, six) b = Mul(x, c) y = Div(b, six)",
        "a = Div(x, six) b = Add(a, one) c = Clip(b, zero, one) y = Mul(x, c)",
        "p = Softplus(w) t = Tanh(p) y = Mul(x, t)",
        "p = Softplus(x) t = Tanh(p) y = Add(x, t)",
        "k: f32[] = const 10.0 p = Softplus(x) g = Greater(x, k) v = Where(g, x, p) t = Tanh(v) y = Mul(t, x)",
        "k: f32[] = const 20.0 p = Softplus(x) g = Less(x, k) v = Where(g, x, p) t = Tanh(v) y = Mul(t, x)",
        "k: f32[] = const 20.0 p = Softplus(x) g = Greater(w, k) v = Where(g, x, p) t = Tanh(v) y = Mul(t, x)",
        "k: f32[] = const 20.0 p = Softplus(x) g = Greater(x, k) v = Where(g, p, x) t = Tanh(v) y = Mul(t, x)",
    ],
)
def test_a_formula_that_is_not_quite_it_stays(leaves, body):
    z = "" if "z =" in body else "z = Relu(y)"
    inputs = "x: f32[batch,1,8], w: f32[batch,1,8], r: f32[1,1,8]"
    leaves(recognize_activations, f"graph main({inputs}) {{ {CONSTANTS} {body} {z} return y, z }}")


def test_a_graph_output_inside_stays(leaves):
    body = GELU[0]
    leaves(recognize_activations, f"graph main(x: f32[batch,8]) {{ {CONSTANTS} {body} return y, e }}")
    leaves(recognize_activations, f"graph main(x: f32[batch,8]) {{ {CONSTANTS} {body} return y, c }}")


def test_what_feeds_the_formula_may_be_read_elsewhere(rewrites):
    rewrites(
        recognized,
        f"graph main(x: f32[batch,8]) {{ {CONSTANTS} {GELU[2]} z = Relu(c) v = Relu(a) return y, z, v }}",
        """graph main(x: f32[batch,8]) {
          half: f32[] = const 0.5 root: f32[] = const 1.4142135 a = Div(x, root) c = Mul(x, half)
          y = Gelu(x) z = Relu(c) v = Relu(a) return y, z, v }""",
        rtol=1e-6,
    )


def test_long_sums_of_sums_end_soon(graph_of):
    doubled = " ".join(f"a{i + 1} = Add(a{i}, a{i})" for i in range(60)).replace("a0", "x")
    body = f"{doubled} a = Mul(x, rsqrt) e = Erf(a) y = Mul(e, a60)"
    assert recognize_activations(graph_of(f"graph main(x: f32[8]) {{ {CONSTANTS} {body} return y }}")) == 0

"""The patterns that passes look for, around constants of odd ranks and odd numbers: optimized, they compute the same."""

import re
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from miniinfer_cli.errors import MiniinferError
from miniinfer_cli.ir import Graph
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.passes.pipeline import optimize
from tests.fuzz.opening import SCALE
from tests.passes.graphs import read_graph, run_graph

# <name=numbers> is a constant of these numbers whose shape is drawn; x is [2,2,4,3], r its rows [2,3], i an image [1,2,4,3].
_GELU = "d = Div(x, <c=1.4142135>) e = Erf(d) f = Add(e, <o=1>) g = Mul(x, f) y = Mul(g, <h=0.5>)"
_TANH = (
    "p = Pow(x, <n=3>) a = Mul(p, <c=0.044715>) b = Add(x, a) e = Mul(b, <k=0.7978846>) t = Tanh(e) f = Add(<o=1>, t) "
    "g = Mul(x, f) y = Mul(<h=0.5>, g)"
)
_CENTRED = "m = ReduceMean(x, axis) d = Sub(x, m) q = Pow(d, <two=2>) v1 = ReduceMean(q, axis) o = Add(v1, <e=1e-5>) s = Sqrt(o)"
_ATTENTION = "kt = Transpose(x) {perm=[0, 1, 3, 2]} q = MatMul(x, kt)"
PATTERNS = {
    "product, bias, factor": "p = MatMul(r, w) a = Add(p, <b=1,2>) y = Mul(a, <c=3,4>)",
    "product, one bias, quotient": "p = MatMul(r, w) a = Add(<b=1>, p) y = Div(a, <c=4>)",
    "product, factor, bias": "p = MatMul(r, w) a = Mul(<c=2>, p) y = Sub(a, <b=1,2>)",
    "gemm": "p = Gemm(r, w, <b=1,2>) {beta=0.5} y = Mul(p, <c=3>)",
    "gemm of one": "p = Gemm(r, w, <b=2>) {alpha=0.5, beta=3.0} y = Mul(p, <c=3,4>)",
    "convolution": "p = Conv(i, k) a = Mul(p, <c=3,4>) y = Add(a, <b=1,2>)",
    "convolution of one": "p = Conv(i, k) a = Add(p, <b=2>) y = Div(<c=0.5>, a)",
    "transposed convolution": "p = ConvTranspose(i, k) a = Div(p, <c=3,4>) y = Sub(a, <b=1>)",
    "convolution with a residual": "p = Conv(i, k) a = Add(p, i) e = Relu(a) y = Mul(e, <c=1,2>)",
    "merged projections": "p = MatMul(r, w) q = MatMul(r, u) a = Add(p, <b=1,2>) e = Add(<d=3,4>, q) y = Mul(a, e)",
    "Gelu": _GELU,
    "Gelu by tanh": _TANH,
    "Swish": "a = Mul(x, <c=1.5>) s = Sigmoid(a) y = Mul(x, s)",
    "HardSwish": "a = Add(x, <c=3>) b = Clip(a, zero, six) d = Mul(x, b) y = Div(d, <s=6>)",
    "Mish": "s = Softplus(x) g = Greater(x, <t=20>) w1 = Where(g, x, s) t = Tanh(w1) y = Mul(x, t)",
    "LayerNormalization": f"{_CENTRED} n = Div(d, s) a = Mul(n, <g=1,2,3>) y = Add(a, <b=1,2,3>)",
    "LayerNormalization of one": f"{_CENTRED} n = Div(d, s) a = Mul(<g=2>, n) y = Add(a, <b=3>)",
    "RMSNormalization": "q = Mul(x, x) v1 = ReduceMean(q, axis) w1 = Add(<e=1e-6>, v1) s = Pow(w1, <p=-0.5>) n = Mul(x, s) "
    "y = Mul(n, <g=1,2,3>)",
    "RMSNormalization by one over": "q = Pow(x, <two=2>) v1 = ReduceMean(q, axis) w1 = Add(v1, <e=1e-6>) s = Sqrt(w1) "
    "t = Div(<one=1>, s) n = Mul(x, t) y = Mul(n, <g=2>)",
    "Attention": f"{_ATTENTION} s = Mul(q, <c=0.5>) m = Add(s, <m0=1,2,3,0>) p = Softmax(m) y = MatMul(p, x)",
    "Attention scaled before": "a = Mul(x, <c=0.5>) kt = Transpose(x) {perm=[0, 1, 3, 2]} b = Div(kt, <d=2>) q = MatMul(a, b) "
    "p = Softmax(q) n = IsNaN(p) g = Where(n, <z=0>, p) y = MatMul(g, x)",
    "Attention with a softcap": f"{_ATTENTION} a = Div(q, <c=5>) t = Tanh(a) s = Mul(<d=5>, t) p = Softmax(s) y = MatMul(p, x)",
    "Attention selected": f"{_ATTENTION} s = Where(c, q, <f=-inf>) p = Softmax(s) y = MatMul(p, x)",
    "identities": "a = Mul(x, <o=1>) b = Div(a, <p=1>) c1 = Sub(b, <z=0>) d = Pow(c1, <q=1>) y = Add(d, <n=-0>)",
    "a chain of constants": "a = Add(<a0=1,2,3>, <a1=4>) b = Mul(a, <a2=2>) c1 = Reshape(b, minus) y = Mul(x, <a3=1,2,3>) "
    "z0 = ReduceSum(c1)",
    "on one column": "p = MatMul(one, v) a = Add(p, <b=1>) e = Mul(a, <c=2>) f = Sub(e, <d=0>) y = Mul(f, <g=1>)",
    "max and min": "a = Max(x, <l=-1>) b = Min(a, <u=1>, <v=0,1,2>) y = Where(few, b, <w1=3>)",
}
_FIXED = """
  w: f32[3,2] = const [1, 2, -1, 0.5, 3, -2] u: f32[3,2] = const [0.5, 1, 2, -1, 1, 1] k: f32[2,2,1,1] = const [1, -2, 0.5, 3]
  axis: i64[1] = const [-1] zero: f32[] = const 0 six: f32[] = const 6 minus: i64[1] = const [-1]
  v: f32[1,1] = const [2] c: bool[4] = const [true, false, true, true] few: bool[3] = const [true, false, true]
"""
_CONSTANT = re.compile(r"<(\w+)=([^>]+)>")
_AXES = st.sampled_from([(0, 0), (1, 0), (0, 1), (0, 2), (2, 0), (1, 2), (0, 3), (4, 0)])  # of size 1: in front, and behind


def _text(body: str, declare: Callable[[str, list[str]], str]) -> str:
    """The graph of ``body``, its constants as ``declare(name, numbers)`` writes them."""
    declared: list[str] = []

    def take(match: re.Match[str]) -> str:
        declared.append(declare(f"n_{match[1]}", match[2].split(",")))
        return f"n_{match[1]}"

    nodes = _CONSTANT.sub(take, body)
    inputs = "x: f32[2,2,4,3], r: f32[2,3], i: f32[1,2,4,3], one: f32[2,1]"
    return f"graph main({inputs}) {{ {_FIXED} {' '.join(declared)} {nodes} return y }}"


def _plain(body: str) -> str:
    """Single numbers of rank 0, vectors along the channels of a convolution, or along the last axis."""
    behind = (1, 1) if "Conv" in body else ()

    def declare(name: str, numbers: list[str]) -> str:
        return f"{name}: f32[] = const {numbers[0]}" if len(numbers) == 1 else _array(name, numbers, (len(numbers), *behind))

    return _text(body, declare)


def _array(name: str, numbers: Sequence[str], shape: Sequence[int]) -> str:
    return f"{name}: f32[{','.join(map(str, shape))}] = const [{', '.join(numbers)}]"


@st.composite
def _odd(draw: st.DrawFn, body: str) -> str:
    """A shape is drawn for each constant; a single number may have rank 0, too, and may be none at all."""

    def declare(name: str, numbers: list[str]) -> str:
        front, behind = draw(_AXES)
        kind = draw(st.sampled_from(["axes", "axes", "rank 0", "rank 0", "nothing"])) if len(numbers) == 1 else "axes"
        if kind == "rank 0":
            return f"{name}: f32[] = const {numbers[0]}"
        return _array(name, [], (0,)) if kind == "nothing" else _array(name, numbers, (*[1] * front, len(numbers), *[1] * behind))

    return _text(body, declare)


def _read(text: str) -> Graph | None:
    """None where the shapes drawn do not fit."""
    try:
        return read_graph(text)
    except MiniinferError:
        return None


@pytest.mark.parametrize("body", PATTERNS.values(), ids=PATTERNS.keys())
def test_constants_of_odd_ranks(body: str) -> None:
    @settings(max_examples=8 * SCALE, derandomize=SCALE == 1, database=None, suppress_health_check=list(HealthCheck))
    @given(_odd(body))
    def check(text: str) -> None:
        graph = _read(text)
        if graph is None:
            return
        (before,) = run_graph(graph)
        optimize(graph, 2, check=True)
        (after,) = run_graph(graph)
        assert (after.dtype, after.shape) == (before.dtype, before.shape)
        np.testing.assert_allclose(after, before, rtol=2e-5, atol=2e-5)

    check()


# Numbers so large that the pieces overflow are left out: what is one operation then overflows later, or not at all.
SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-38, 3.0, -3.0, 20.0, 1e4, -1e4], np.float32)


@pytest.mark.parametrize("body", PATTERNS.values(), ids=PATTERNS.keys())
def test_numbers_that_are_none(body: str) -> None:
    before, after = read_graph(_plain(body)), read_graph(_plain(body))
    optimize(after, 2)
    rng = np.random.default_rng(0)
    kinds = range(3 * len(SPECIAL))  # each number in one place, everywhere, and among others; one of the three in turn
    for kind in kinds if SCALE > 1 else [k for k in kinds if k % 3 == k // 3 % 3]:
        inputs = [(rng.standard_normal(v.tensor.shape) + 0.1).astype(np.float32) for v in before.inputs]
        for x in inputs:
            places = (np.arange(x.size) == rng.integers(x.size), np.full(x.size, True), rng.random(x.size) < 0.3)[kind % 3]
            x.reshape(-1)[places] = SPECIAL[kind // 3] if kind % 3 < 2 else rng.choice(SPECIAL, places.sum())
        with np.errstate(all="ignore"):
            (want,), (got,) = interpret(before, inputs), interpret(after, inputs)
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4, err_msg=str(inputs))

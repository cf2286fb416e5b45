"""The join "normalized_product": which normalizations it takes, and its results on the emulated device beside the same apart."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.backends.choosing import Policy
from miniinfer_cli.backends.cuda.choice.joining import joins_of
from miniinfer_cli.backends.cuda.choice.tactics import tactics
from miniinfer_cli.backends.cuda.contract.site import Site
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.joins.normalized_product import KEY
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.backends.cuda.tactics.products.few_tokens import WAY
from miniinfer_cli.backends.cuda.tactics.products.large_products import LARGE
from miniinfer_cli.backends.cuda.tactics.products.normalized_product import _factor
from miniinfer_cli.ir import DType, Graph, Node, TensorType, numpy_dtype
from miniinfer_cli.ir.constants import constant
from miniinfer_cli.ops import insert
from miniinfer_cli.ops.inference import infer_graph
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.passes.fuse_matmul import fuse_matmul
from tests.backends.cuda.performing import perform_program
from tests.graph_text import typed_graph

POST = """
graph main(a: f16[2,10,72], r: f16[2,10,128]) {
  p = MatMul(a, wp)
  q = Add(p, bp)
  s = Add(q, r)
  h = LayerNormalization(s, g, b) {epsilon=0.001}
  c = MatMul(h, wc)
  d = Add(c, bc)
  y = Gelu(d)
  o = MatMul(y, wo)
  e = Add(o, h)
  return e
}
"""
PRE = POST.replace("e = Add(o, h)", "e = Add(o, s)")
WEIGHTS = {"wp": (72, 128), "bp": (128,), "g": (128,), "b": (128,), "wc": (128, 136), "bc": (136,), "wo": (136, 128)}
DTYPES = {"f16": np.float16, "bf16": ml_dtypes.bfloat16, "f32": np.float32}


def graph_of(text: str, *exchanged: tuple[str, str], dtype: str = "f16", wide: bool = False, by: Any = None) -> Graph:
    """The graph, with constants, ``by`` the names of which numbers are added; ``wide``: in f64, of the same numbers."""
    for old, new in exchanged:
        assert old in text, old
        text = text.replace(old, new)
    random, kind = np.random.default_rng(3), "f64" if wide else dtype
    head, *lines = text.replace("f16[", f"{kind}[").strip().splitlines()
    numbers = {name: random.standard_normal(shape) / (8 if name[0] == "w" else 1) for name, shape in WEIGHTS.items()}
    numbers["g"] = 1 + numbers["g"] / 4
    for name, more in (by or {}).items():
        numbers[name] = numbers[name] + more
    used = [name for name in WEIGHTS if any(f"{name}{mark}" in line for line in lines for mark in ("),", ")", ","))]
    listed = "".join(f", {name}: {kind}[{','.join(map(str, WEIGHTS[name]))}]" for name in used)
    graph = typed_graph("\n".join([head.replace(") {", f"{listed}) {{"), *lines]))
    for value in graph.inputs[-len(used) :]:
        array = numbers[value.name].astype(DTYPES[dtype]).astype(numpy_dtype(value.tensor.dtype))
        graph.replace_uses(value, graph.add_constant(array, f"{value.name}_"))
        graph.remove_input(value)
    fuse_matmul(graph)
    return graph


def found(graph: Graph, target: Target | None = None) -> list[str]:
    types = infer_graph(graph, [v.type for v in graph.inputs])
    return [join.label for join in joins_of(graph, types, target or Target()) if join.key == KEY]


def run(graph: Graph, given: list[Any], policy: Policy) -> tuple[list[Any], list[str]]:
    """The results as f64, and the kinds of steps."""
    program = make_program(graph, [v.type for v in graph.inputs], Target(policy=policy))
    dtypes = [numpy_dtype(v.tensor.dtype) for v in graph.inputs]
    arrays = [a.astype(dtype) for a, dtype in zip(given, dtypes, strict=True)]
    kinds = [step.kind.removeprefix("miniinfer.") for step in program.steps]
    return [np.asarray(a).astype(np.float64) for a in perform_program(program, arrays, Target(policy=policy))], kinds


def errors(text: str, *exchanged: tuple[str, str], dtype: str = "f16", by: Any = None) -> tuple[float, float]:
    """How far results are from exact ones, joined and apart."""
    graph, wide = (graph_of(text, *exchanged, dtype=dtype, wide=w, by=by) for w in (False, True))
    random = np.random.default_rng(1)
    given = [random.standard_normal(v.tensor.shape).astype(DTYPES[dtype]).astype(np.float64) for v in wide.inputs]  # type: ignore[arg-type]
    exact = interpret(wide, given)
    tokens = {n.name: next(iter(keys(graph, n))) for n in graph if "MatMul" in n.op}
    joined, kinds = run(graph, given, Policy(forced={next(n.name for n in graph if "Norm" in n.op): KEY}))
    assert kinds[:2] == ["FusedMatMul", "NormalizedProduct"], kinds
    apart, kinds = run(graph, given, Policy(forced=tokens))
    assert "NormalizedProduct" not in kinds and len(kinds) == len(graph)

    def error(results: list[Any]) -> float:
        return max(float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in zip(results, exact, strict=True))

    return error(joined), error(apart)


def keys(graph: Graph, node: Node) -> list[str]:
    """Of the tactics by which the kernel for few tokens does all of a node."""
    kinds = tuple(None if v is None else v.type for v in node.inputs)
    handles = tuple(None if v is None else v.constant for v in node.inputs)
    site = Site(node, kinds, tuple(v.type for v in node.outputs), handles, Target())
    return [t.key for t in tactics(site) if t.key.startswith(WAY) and t.claims in (None, len(node.body or ()))]


LIMITS = {"f16": 2e-3, "bf16": 2e-2}


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
@pytest.mark.parametrize("text", [POST, PRE])
def test_types_and_places_of_the_normalization(text: str, dtype: str) -> None:
    joined, apart = errors(text, dtype=dtype)
    np.testing.assert_array_less(joined, min(LIMITS[dtype], 1.2 * apart))


NORM = "h = LayerNormalization(s, g, b) {epsilon=0.001}"
FORMS: dict[str, tuple[tuple[str, str], ...]] = {
    "no shift": ((NORM, "h = LayerNormalization(s, g)"),),
    "by the mean of squares": ((NORM, "h = RMSNormalization(s, g) {epsilon=0.1}"),),
    "products alone": (
        ("  q = Add(p, bp)\n  s = Add(q, r)\n", ""),
        ("p = MatMul", "s = MatMul"),
        ("  d = Add(c, bc)\n  y = Gelu(d)\n", ""),
        ("c = MatMul", "y = MatMul"),
    ),
    "everything is read": (("return e", "return e, s, y, h"),),
    "what follows each pointwise": (("q = Add(p, bp)", "t = Add(p, bp)\n  q = Tanh(t)"), ("y = Gelu(d)", "y = Mul(d, d)")),
    "a product of a matrix": (
        ("a: f16[2,10,72], r: f16[2,10,128]", "a: f16[20,72], r: f16[20,128]"),
        ("p = MatMul(a, wp)\n  q = Add(p, bp)", "q = Gemm(a, wp, bp)"),
        ("c = MatMul(h, wc)\n  d = Add(c, bc)", "d = Gemm(h, wc, bc) {alpha=0.5}"),
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_forms(name: str) -> None:
    joined, apart = errors(POST, *FORMS[name])
    np.testing.assert_array_less(joined, min(LIMITS["f16"], 1.2 * apart))


@pytest.mark.parametrize(("text", "by"), [(POST, {"bp": 150.0}), (PRE, {"g": 60.0})], ids=["kept", "alone"])
def test_products_of_many_tokens(text: str, by: dict[str, Any]) -> None:
    text = text.replace("[2,10,", "[8,130,")
    graph, wide = (graph_of(text, wide=w, by=by) for w in (False, True))
    random = np.random.default_rng(1)
    given = [random.standard_normal(v.tensor.shape).astype(np.float16).astype(np.float64) for v in wide.inputs]  # type: ignore[arg-type]
    exact = interpret(wide, given)
    norm = next(n.name for n in graph if "Norm" in n.op)
    program = make_program(graph, [v.type for v in graph.inputs], Target(policy=Policy(forced={norm: KEY})))
    assert all(step.tactic.startswith(LARGE) for step in program.steps[:2])
    (joined, _), (apart, kinds) = (run(graph, given, policy) for policy in (Policy(forced={norm: KEY}), Policy()))
    assert "LayerNormalization" in kinds
    joined_error, apart_error = (np.linalg.norm(r[0] - exact[0]) for r in (joined, apart))
    assert joined_error < 1.2 * apart_error


ONE = np.eye(128)[5]
HARD: dict[str, dict[str, Any]] = {
    "a mean of a hundred deviations": {"bp": 150.0},
    "a channel a thousand deviations away": {"bp": 1500 * ONE},
    "both": {"bp": 150.0 + 1500 * ONE},
    "large scales": {"g": 60.0},
    "scales of one channel": {"g": 900 * ONE},
}


@pytest.mark.parametrize("name", HARD)
def test_rows_that_are_hard_to_normalize(name: str) -> None:
    """At most a fifth more than the error of the same nodes apart."""
    for text in (POST, PRE):
        joined, apart = errors(text, by=HARD[name])
        np.testing.assert_array_less(joined, 1.2 * apart)


@pytest.mark.parametrize(
    "exchanged",
    [
        (("a: f16[2,10,72]", "a: f32[2,10,72]"), ("r: f16", "r: f32")),
        ((NORM, "h, m = LayerNormalization(s, g, b)"), ("return e", "return e, m")),
        ((NORM, "h = LayerNormalization(s, g, b) {axis=1}"),),
        ((NORM, "h = LayerNormalization(s, g, b) {stash_type=10}"),),
        ((NORM, "h = LayerNormalization(s, r)"),),
        ((NORM, "h = LpNormalization(s)"),),
        (("s = Add(q, r)", "t = Add(q, r)\n  s = Transpose(t) {perm=[1, 0, 2]}"), ("e = Add(o, h)", "e = Neg(o)")),
        (("c = MatMul(h, wc)", "z = Neg(h)\n  c = MatMul(z, wc)"),),
        (("c = MatMul(h, wc)", "c = MatMul(h, h) {}"), ("d = Add(c, bc)", "d = Neg(c)")),
        (("a: f16[2,10,72]", "a: f16[1,8,72]"), ("r: f16[2,10,128]", "r: f16[1,8,128]")),  # too few rows
        (("a: f16[2,10,72]", "a: f16[n,10,72]"), ("r: f16[2,10,128]", "r: f16[n,10,128]")),  # nobody knows how many
        (("return e", "z = Neg(h)\n  return z, e"), ("c = MatMul", "x = Neg(h)\n  k = Add(x, h)\n  c = MatMul")),
    ],
)
def test_near_misses(exchanged: Any) -> None:
    text = POST
    if "r: f32" in dict(exchanged).values():
        assert found(graph_of(text, *exchanged, dtype="f32")) == []
    elif "MatMul(h, h)" in str(exchanged):
        text = text.replace("[2,10,128]", "[128,128]").replace("[2,10,72]", "[128,72]")
        text = text.replace("  o = MatMul(y, wo)\n  e = Add(o, h)\n", "  e = Relu(y)\n")
        assert found(graph_of(text, *exchanged)) == []
    else:
        assert found(graph_of(text, *exchanged)) == []


def test_where_it_is_offered() -> None:
    graph = graph_of(POST)
    assert len(found(graph)) == 1
    for arch in (80, 89, 100):
        assert found(graph, Target(arch=arch)) == []


def test_it_is_taken_unasked_where_both_products_are_the_kernels_anyway() -> None:
    def gain_us(rows: int, features: int, *, kept: bool = False, width: int = 256) -> float:
        graph = Graph("main")
        x = graph.add_input("x", TensorType(DType.F16, (rows, width)))
        (w, v), (g, b) = (np.zeros((width, n), np.float16) for n in (width, features)), np.zeros((2, width), np.float16)
        y = insert(graph, "MatMul", x, graph.add_constant(w))
        y = insert(graph, "LayerNormalization", y, graph.add_constant(g), graph.add_constant(b))
        graph.set_outputs([insert(graph, "MatMul", y, graph.add_constant(v)), *([insert(graph, "Neg", y)] if kept else [])])
        (join,) = joins_of(graph, infer_graph(graph, [v.type for v in graph.inputs]), Target())
        return join.gain_us

    assert gain_us(64, 512) > gain_us(64, 512, kept=True) > 0
    assert gain_us(216, 512) == gain_us(64, 128) == 0
    assert gain_us(8192, 3072, width=768) > 0 > gain_us(1024, 3072, width=768)
    assert gain_us(8192, 3075, width=768) == 0  # rows that are no whole vectors


def test_scales_of_more_than_one_are_taken_down() -> None:
    for numbers, factor in (((0.5, -1.0), 1.0), ((3.0, -5.0), 0.125), ((8.0,), 0.125), ((np.inf,), 1.0), ((), 1.0)):
        assert _factor(constant(np.array(numbers, np.float16))) == factor

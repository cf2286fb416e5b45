"""Joins on a GPU: results against f64, and against the same nodes apart."""

from typing import Any

import numpy as np
import pytest

import miniinfer_cli
from miniinfer_cli.ir import DType, Graph, TensorType, numpy_dtype, symbol
from miniinfer_cli.ops import OURS, insert
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.ops.registry import lookup
from miniinfer_cli.passes.fuse_conv import fuse_conv
from miniinfer_cli.passes.fuse_matmul import fuse_matmul
from miniinfer_cli.passes.fuse_pointwise import fuse_pointwise
from miniinfer_cli.planning.freeze import freeze
from tests.backends.cuda.joins.test_row_product import Layer
from tests.graph_text import typed_graph

ROWS = """
graph main(a: {t}[1,{m},768], r: {t}[1,{m},768], {weights}) {{
  p = MatMul(a, wp)
  s = Add(p, r)
  h = {norm}
  c = MatMul(h, wc)
  y = Gelu(c)
  o = MatMul(y, wo)
  e = Add(o, {residual})
  return e
}}
"""
"""Products about a normalization, whose residual is what is normalized, or the normalized rows."""
WEIGHTS = "wp: {t}[768,768], g: {t}[768], b: {t}[768], wc: {t}[768,{n}], wo: {t}[{n},768]"
LIMITS = {DType.F32: 1e-6, DType.F16: 1e-3, DType.BF16: 8e-3}
SIZES = [(1, 1152, 48), (1, 96, 4), (3, 50, 7), (64, 960, 240), (8, 672, 28)]


def pair(channels: int, squeezed: int, dtype: DType, gate: str) -> tuple[Graph, list[Any]]:
    """Two products with what follows each, as the optimizer leaves them, and their weights and biases."""
    random, graph, kept = np.random.default_rng((channels, squeezed)), Graph("pair"), []
    value = graph.add_input("x", TensorType(dtype, (symbol("n"), 1, 1, channels)))
    for out, come, then in ((squeezed, channels, "Relu"), (channels, squeezed, gate)):
        operands = [random.normal(0, come**-0.5, (out, 1, 1, come)), random.normal(0, 1, out)]
        kept += [a.astype(numpy_dtype(dtype)) for a in operands]
        value = insert(graph, "ConvNHWC", value, *map(graph.add_constant, kept[-2:]), domain=OURS)
        value = insert(graph, then, value)
    graph.set_outputs([value], ["y"])
    assert fuse_conv(graph) == 2
    return graph, kept


@pytest.mark.parametrize("dtype", [DType.F32, DType.F16, DType.BF16])
@pytest.mark.parametrize("pdl", [True, False])
@pytest.mark.parametrize("gate", ["Sigmoid", "HardSigmoid"])
def test_squeeze_and_excitation(dtype: DType, pdl: bool, gate: str) -> None:
    for images, channels, squeezed in SIZES:
        graph, (squeeze, first, excite, second) = pair(channels, squeezed, dtype, gate)
        name = graph.nodes[0].name
        with miniinfer_cli.load(freeze(graph), "cuda:0", tactics={name: "excitation"}, pdl=pdl) as engine:
            for seed in range(5):
                x = np.random.default_rng(seed).standard_normal((images, 1, 1, channels)).astype(numpy_dtype(dtype))
                (got,) = engine.run({"x": x}).values()
                wide = [a.astype(np.float64) for a in (x, squeeze, excite, first, second)]
                (want,) = lookup(OURS, "Excitation").evaluate(wide, {"activation": "Relu", "gate": gate}, n_outputs=1)
                assert np.linalg.norm(got - want) <= LIMITS[dtype] * np.linalg.norm(want)
            (step,) = engine.program([x]).steps
            assert step.kind == "miniinfer.Excitation" and step.choice is not None and step.choice.join is not None


IMAGES = (((112, 112), 32, 8), ((56, 55), 96, 4), ((28, 28), 240, 10), ((14, 14), 672, 28), ((7, 7), 1152, 48))
"""Pixels, channels and squeezed values of EfficientNet-B0."""


@pytest.mark.parametrize("dtype", [DType.F32, DType.F16, DType.BF16])
@pytest.mark.parametrize("pdl", [True, False])
@pytest.mark.parametrize(("sizes", "channels", "squeezed"), IMAGES)
def test_whole_squeeze_and_excitation(sizes: tuple[int, int], channels: int, squeezed: int, dtype: DType, pdl: bool) -> None:
    """Of one image and of many, several times behind each other, with the same bits each time."""
    random, kind = np.random.default_rng(channels), numpy_dtype(dtype)
    shapes = ((squeezed, 1, 1, channels), (squeezed,), (channels, 1, 1, squeezed), (channels,))
    scales = (3 * channels**-0.5, 1, 3 * squeezed**-0.5, 1)
    squeeze, first, excite, second = ((random.standard_normal(s) * by).astype(kind) for s, by in zip(shapes, scales, strict=True))
    graph = Graph("squeezed")
    x = value = graph.add_input("x", TensorType(dtype, (symbol("n"), *sizes, channels)))
    value = insert(graph, "GlobalAveragePoolNHWC", value, domain=OURS)
    for weights, bias, then in ((squeeze, first, "Relu"), (excite, second, "Sigmoid")):
        value = insert(graph, "ConvNHWC", value, graph.add_constant(weights), graph.add_constant(bias), domain=OURS)
        value = insert(graph, then, value)
    graph.set_outputs([insert(graph, "Mul", x, value)], ["y"])
    assert fuse_conv(graph) == 2
    name = graph.nodes[0].name
    with miniinfer_cli.load(freeze(graph), "cuda:0", tactics={name: "squeeze_excitation"}, pdl=pdl) as engine:
        for images in (1, 3, 40):
            given = (np.random.default_rng(images).standard_normal((images, *sizes, channels)) + 0.5).astype(kind)
            (got,) = engine.run({"x": given}).values()
            wide = [a.astype(np.float64) for a in (given, squeeze, excite, first, second)]
            (want,) = lookup(OURS, "SqueezeExcitation").evaluate(wide, {}, n_outputs=1)
            assert np.linalg.norm(got - want) <= LIMITS[dtype] * np.linalg.norm(want)
            for _ in range(20):
                np.testing.assert_array_equal(engine.run({"x": given})["y"], got)
            (step,) = engine.program([given]).steps
            assert step.kind == "miniinfer.SqueezeExcitation" and step.choice is not None and step.choice.join is not None


@pytest.mark.parametrize("residual", ["s", "h"])
@pytest.mark.parametrize("norm", ["LayerNormalization(s, g, b)", "RMSNormalization(s, g)"])
@pytest.mark.parametrize(("m", "n", "dtype"), [(128, 3072, "f16"), (197, 2304, "f16"), (64, 1024, "bf16"), (4096, 3072, "f16")])
def test_normalized_products(m: int, n: int, dtype: str, norm: str, residual: str) -> None:
    """At most a fifth more than the error of the nodes apart, of rows far from zero with one channel far from the others."""
    random, kind = np.random.default_rng(m), numpy_dtype(DType(dtype))
    arrays = [random.standard_normal(v.tensor.shape) for v in typed(m, n, "f64", norm, residual).inputs]
    arrays = [x / 28 if x.shape[0] != 1 and x.ndim > 1 else x for x in arrays]
    arrays[1] += 30 + 300 * np.eye(768)[5]
    arrays = [x.astype(kind) for x in arrays]
    (exact,) = interpret(typed(m, n, "f64", norm, residual), [x.astype(np.float64) for x in arrays])
    graph = typed(m, n, dtype, norm, residual)
    for value, array in list(zip(graph.inputs, arrays, strict=True))[2:]:
        graph.replace_uses(value, graph.add_constant(array, f"{value.name}_"))
        graph.remove_input(value)
    fuse_matmul(graph)
    name = next(node.name for node in graph if "Normalization" in node.op)
    plan, errors = freeze(graph), []
    for options in ({"tactics": {name: "normalized_product"}}, {"disable_tactics": ["normalized_product"]}):
        results = set()
        for pdl in (True, False):
            with miniinfer_cli.load(plan, "cuda:0", pdl=pdl, **options) as engine:
                for _ in range(3):
                    (got,) = engine.run({"a": arrays[0], "r": arrays[1]}).values()
                    results.add(got.tobytes())
        assert len(results) == 1
        errors.append(np.linalg.norm(got.astype(np.float64) - exact) / np.linalg.norm(exact))
    assert errors[0] < 1.2 * errors[1]


def typed(m: int, n: int, dtype: str, norm: str, residual: str) -> Graph:
    """The graph, nothing of it fused."""
    return typed_graph(ROWS.format(m=m, t=dtype, norm=norm, residual=residual, weights=WEIGHTS.format(n=n, t=dtype)))


@pytest.mark.parametrize("rows", [(1, 1), (2, 1)])
@pytest.mark.parametrize(("dtype", "nibbles"), [(np.float16, False), (np.float16, True), (np.float32, True)])
def test_row_products(rows: tuple[int, ...], dtype: Any, nibbles: bool) -> None:
    """A gated layer of a decoder, near to the references, and the same bits whoever begins early."""
    layer = Layer(rows, dtype, nibbles=nibbles, sizes=(2048, 5632))
    graph = layer.finished()
    (want,) = interpret(graph, layer.feeds)
    results = set()
    for pdl in (True, False):
        with miniinfer_cli.load(freeze(graph), "cuda:0", pdl=pdl) as engine:
            for _ in range(3):
                (got,) = engine.run({"x": layer.feeds[0]}).values()
                results.add(got.tobytes())
            assert any(step.kind == "miniinfer.RowProduct" for step in engine.program(layer.feeds).steps)
    assert len(results) == 1
    error = np.linalg.norm(got.astype(np.float64) - want) / np.linalg.norm(want.astype(np.float64))
    assert error < (2e-3 if dtype is np.float16 else 5e-6)


EMBEDDED = """
graph main(words: DTYPE[97,W], ids: i64[n,5], kinds: DTYPE[2,W], types: i64[n,5], places: DTYPE[5,W], g: DTYPE[W], b: DTYPE[W]) {
  w = Gather(words, ids)
  k = Gather(kinds, types)
  s = Add(w, k)
  t = Add(s, places)
  y = LayerNormalization(t, g, b)
  c = Cast(y) {to=1}
  r = Add(t, t)
  return c, r
}
"""


@pytest.mark.parametrize("dtype", [DType.F32, DType.F16, DType.BF16])
@pytest.mark.parametrize("pdl", [True, False])
def test_normalizations_with_what_stands_around_them(dtype: DType, pdl: bool) -> None:
    random = np.random.default_rng(3)
    for width, batch in ((64, 3), (768, 1), (768, 200), (1501, 2), (2048, 25)):
        graph = typed_graph(EMBEDDED.replace("DTYPE", dtype.value).replace("W", str(width)))
        assert fuse_pointwise(graph) == 1
        plan = freeze(graph)
        shapes = {"words": (97, width), "kinds": (2, width), "places": (5, width), "g": (width,), "b": (width,)}
        given = {name: random.standard_normal(shape).astype(numpy_dtype(dtype)) for name, shape in shapes.items()}
        given |= {"ids": random.integers(-97, 97, (batch, 5)), "types": random.integers(0, 2, (batch, 5))}
        with miniinfer_cli.load(plan, "cuda:0", pdl=pdl) as engine:
            got = engine.run(given)
            steps = [s.kind for s in engine.program(engine.check(given)).steps]
        assert steps == ["miniinfer.FusedNormalization"]
        exact = typed_graph(EMBEDDED.replace("DTYPE", "f64").replace("W", str(width)).replace("{to=1}", "{to=11}"))
        wide = [a.astype(np.float64) if a.dtype.kind != "i" else a for a in (given[v.name] for v in exact.inputs)]
        for g, w in zip(got.values(), interpret(exact, wide), strict=True):
            assert np.linalg.norm(g.astype(np.float64) - w) <= LIMITS[dtype] * np.linalg.norm(w)


STACKED = """
graph main(c: f16[1,1,768], x: f16[n,196,768], places: f16[197,768], g: f16[768], b: f16[768]) {
  last: i64[2] = const [1, 768]
  all = Shape(x) {start=0, end=1}
  sizes = Concat(all, last) {axis=0}
  e = Expand(c, sizes)
  j = Concat(e, x) {axis=1}
  s = Add(j, places)
  y = LayerNormalization(s, g, b)
  return s, y
}
"""


@pytest.mark.parametrize("batch", [1, 5, 64])
def test_a_token_in_front_of_the_patches_of_each_image(batch: int) -> None:
    random, graph = np.random.default_rng(batch), typed_graph(STACKED)
    shapes = [tuple(batch if d == "n" else d for d in map(_size, v.tensor.shape or ())) for v in graph.inputs]
    given = {v.name: random.standard_normal(s).astype(np.float16) for v, s in zip(graph.inputs, shapes, strict=True)}
    with miniinfer_cli.load(freeze(graph), "cuda:0") as engine:
        got = engine.run(given)
        steps = [s.kind for s in engine.program(engine.check(given)).steps]
    assert steps == ["miniinfer.FusedNormalization"]
    exact = typed_graph(STACKED.replace("f16", "f64"))
    for g, w in zip(got.values(), interpret(exact, [a.astype(np.float64) for a in given.values()]), strict=True):
        assert np.linalg.norm(g.astype(np.float64) - w) <= LIMITS[DType.F16] * np.linalg.norm(w)


def _size(dim: Any) -> Any:
    return dim if isinstance(dim, int) else str(dim)

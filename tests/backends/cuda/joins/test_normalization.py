"""The join "normalization": which nodes it takes, and that they give the same results on the emulated device."""

from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.choosing import Policy
from miniinfer_cli.backends.cuda.choice.joining import joins_of
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.builder.building import build_plan, read_model
from miniinfer_cli.builder.options import BuildOptions
from miniinfer_cli.ir import Graph, TensorType, numpy_dtype
from miniinfer_cli.ir.dims import evaluate
from miniinfer_cli.ops.inference import infer_graph
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.passes.fuse_pointwise import fuse_pointwise
from miniinfer_cli.passes.pipeline import optimize
from sample_models.catalogue import generate, sample_inputs
from sample_models.request import Request
from tests.backends.cuda.harness import checked_kinds
from tests.backends.cuda.performing import perform_program
from tests.graph_text import typed_graph
from tests.passes.quantized_graphs import assert_within_a_step

EMBEDDED = """
graph main(words: f32[11,40], ids: i64[2,3], kinds: f32[2,40], types: i32[2,3], places: f32[3,40], g: f32[40], b: f32[40]) {
  w = Gather(words, ids)
  k = Gather(kinds, types)
  s = Add(w, k)
  t = Add(s, places)
  y = LayerNormalization(t, g, b)
  return y
}
"""
RESIDUAL = """
graph main(x: f16[2,5,64], r: f16[2,5,64], g: f32[64]) {
  s = Add(x, r)
  c = Cast(s) {to=1}
  y = RMSNormalization(c, g)
  z = Cast(y) {to=10}
  return s, z
}
"""
MODULATED = """
graph main(x: f32[2,6,24], g: f32[24], b: f32[24], scale: f32[2,1,24], shift: f32[2,1,24], gate: f32[2,6,1], r: f32[2,6,24]) {
  y = LayerNormalization(x, g, b)
  m = Mul(y, scale)
  a = Add(m, shift)
  h = Mul(a, gate)
  z = Add(r, h)
  return z
}
"""


def fused(text: str, *exchanged: tuple[str, str]) -> Graph:
    for old, new in exchanged:
        assert old in text
        text = text.replace(old, new)
    graph = typed_graph(text)
    fuse_pointwise(graph)
    return graph


def found(graph: Graph) -> list[str]:
    types = infer_graph(graph, [v.type for v in graph.inputs])
    return [join.label for join in joins_of(graph, types, Target())]


def arrays_of(graph: Graph) -> list[Any]:
    """Numbers for the inputs; indices from the last row back to the first, and counted from the end."""
    rng, given = np.random.default_rng(1), []
    for value in graph.inputs:
        kind = value.tensor
        shape = tuple(int(d) for d in kind.shape or ())  # type: ignore[call-overload]
        if kind.dtype.is_float:
            given.append((rng.standard_normal(shape) * 2 + 1).astype(numpy_dtype(kind.dtype)))
        else:
            given.append(rng.integers(-2, 2, shape).astype(numpy_dtype(kind.dtype)))
    return given


def check(graph: Graph, *more: str, tolerance: float | None = None) -> None:
    """All of the graph in one step, and ``more``, with the results of the references."""
    assert checked_kinds(graph, arrays_of(graph), Target(), tolerance) == [*more, "miniinfer.FusedNormalization"]


@pytest.mark.parametrize("dtype", ["f64", "f32", "f16", "bf16"])
@pytest.mark.parametrize("text", [EMBEDDED, MODULATED])
def test_types(text: str, dtype: str) -> None:
    stash = " {stash_type=11}" if dtype == "f64" else ""
    graph = fused(text, ("f32", dtype), ("g, b)", f"g, b){stash}"))
    # What is computed in one kernel is rounded where it leaves it, by the references at each step.
    check(graph, tolerance={"f64": 1e-12, "f32": 5e-6, "f16": 5e-3, "bf16": 4e-2}[dtype])


@pytest.mark.parametrize(
    "exchanged",
    [
        (("return y", "return t, y"),),  # what follows adds the sum again
        (("  s = Add(w, k)\n  t = Add(s, places)", "  t = Add(w, k)"),),
        (("places: f32[3,40]", "places: f32[40]"),),
        (("places: f32[3,40]", "places: f32[2,1,1]"),),
        (("kinds: f32[2,40]", "kinds: f32[2,1]"), ("  k = Gather(kinds, types)\n", ""), ("(w, k)", "(w, w)")),
        (("types: i32[2,3]", "types: i32[2,1]"),),
        (("ids: i64[2,3]", "ids: i32[6]"), ("types: i32[2,3]", "types: i64[6]"), ("[3,40]", "[6,40]")),
        (("ids: i64[2,3]", "ids: i64[1,1]"), ("types: i32[2,3]", "types: i32[1,1]"), ("[3,40]", "[1,40]")),
        (("LayerNormalization(t, g, b)", "RMSNormalization(t, g) {epsilon=0.5}"),),
        (("LayerNormalization(t, g, b)", "LayerNormalization(t, g) {axis=2}"),),
        (("words, ids)", "words, ids) {axis=-2}"),),
        (("40", "1500"),),  # several loads a thread
        (("40", "1501"),),
        (("40", "7"),),
        (("40", "1"), ("t, g, b)", "t, g, b) {epsilon=0.5}")),
    ],
)
def test_sums_of_embeddings(exchanged: Any) -> None:
    check(fused(EMBEDDED, *exchanged), tolerance=1e-5)


def test_rows_of_one_table_and_their_norm() -> None:
    text = (
        "graph main(words: f32[9,24], ids: i64[2,5], g: f32[24]) {\n"
        "  w = Gather(words, ids)\n  y = RMSNormalization(w, g)\n  return y, w\n}"
    )
    check(fused(text), tolerance=5e-6)
    check(fused(text.replace("y, w", "y")), tolerance=5e-6)


@pytest.mark.parametrize("index", ["i32[3,2]", "i64[1,1]", "i64[7]"])
@pytest.mark.parametrize(("batch", "size"), [(1, 6), (3, 6), (3, 1)])
def test_rows_of_a_table_for_each_item(batch: int, size: int, index: str) -> None:
    """As windows of an image are looked up, in front of what is added to them and normalized; others may read them as well."""
    shape = f"[{batch},{index.partition('[')[2]}".replace("]", ",40]")
    text = (
        f"graph main(x: f32[{batch},{size},40], at: {index}, r: f32{shape}, g: f32[40], b: f32[40]) {{\n"
        "  w = Gather(x, at) {axis=1}\n  s = Add(r, w)\n  y = LayerNormalization(s, g, b)\n  return y\n}"
    )
    alone = (("  s = Add(r, w)\n", ""), ("(s, g, b)", "(w, g, b)"))
    for exchanged in ((), (("return y", "return y, s"),), alone, (*alone, ("return y", "return y, w")), (("axis=1", "axis=-2"),)):
        graph = fused(text, *exchanged)
        given = [np.clip(a, -size, size - 1) if a.dtype.kind == "i" else a for a in arrays_of(graph)]
        assert checked_kinds(graph, given, Target(), 5e-6) == ["miniinfer.FusedNormalization"]


@pytest.mark.parametrize("rows", ["x: f32[6,3,40]", "x: f32[2,6,3,40]"])
def test_other_slices_are_no_rows_of_a_table(rows: str) -> None:
    text = f"graph main({rows}, at: i64[5], g: f32[40]) {{\n  w = Gather(x, at)\n  y = RMSNormalization(w, g)\n  return y\n}}"
    assert checked_kinds(fused(text), arrays_of(fused(text)), Target(), 5e-6) == ["Gather", "RMSNormalization"]


def test_known_positions_are_read_where_they_lie() -> None:
    lines = "  at: i64[3] = const [2, 3, 4]\n  places = Gather(table, at)\n  w = Gather(words, ids)"
    graph = fused(EMBEDDED, ("places: f32[3,40]", "table: f32[9,40]"), ("  w = Gather(words, ids)", lines))
    check(graph, tolerance=5e-6)
    # Places that lie unequally far apart are looked up like any other.
    graph = fused(EMBEDDED, ("places: f32[3,40]", "table: f32[9,40]"), ("  w = Gather(words, ids)", lines.replace("4]", "0]")))
    assert found(graph) == ["places + w + k + s + y"]
    check(graph, tolerance=5e-6)


STACKED = """
graph main(c: f32[1,1,40], x: f32[3,6,40], places: f32[7,40], g: f32[40], b: f32[40]) {
  sizes: i64[3] = const [3, 1, 40]
  e = Expand(c, sizes)
  j = Concat(e, x) {axis=1}
  s = Add(j, places)
  y = LayerNormalization(s, g, b)
  return s, y
}
"""


@pytest.mark.parametrize(
    "exchanged",
    [
        (),
        (("return s, y", "return y"),),
        (("Concat(e, x)", "Concat(x, e)"),),
        (("Concat(e, x)", "Concat(e, x, e)"), ("[7,40]", "[8,40]")),
        (("c: f32[1,1,40]", "c: f32[40]"),),
        (("c: f32[1,1,40]", "c: f32[3,2,40]"), ("  e = Expand(c, sizes)\n", ""), ("(e, x)", "(c, x)"), ("[7,40]", "[8,40]")),
        (("x: f32[3,6,40]", "x: f32[5,1,40]"), ("[3, 1, 40]", "[2, 1, 40]"), ("axis=1", "axis=0"), ("[7,40]", "[1,40]")),
        (("  s = Add(j, places)\n", ""), ("places: f32[7,40], ", ""), ("(s, g", "(j, g"), ("return s, y", "return j, y")),
        (("3,6,40]", "2,2,6,40]"), ("c: f32[1", "c: f32[1,1"), ("i64[3]", "i64[4]"), ("[3, 1", "[2, 2, 1"), ("=1}", "=2}")),
    ],
)
def test_stacks_of_rows(exchanged: Any) -> None:
    """As of a token in front of the patches of each image."""
    check(fused(STACKED, *exchanged), tolerance=5e-6)


@pytest.mark.parametrize(
    "exchanged",
    [
        (
            ("axis=1", "axis=-1"),
            ("x: f32[3,6,40]", "x: f32[3,1,6]"),
            ("[7,40]", "[1,46]"),
            ("g: f32[40]", "g: f32[46]"),
            ("b: f32[40]", "b: f32[46]"),
        ),
        (("Concat(e, x)", "Concat(e, x, e, e, e)"), ("[7,40]", "[10,40]")),
    ],
)
def test_other_stacks_are_made_before(exchanged: Any) -> None:
    graph = fused(STACKED, *exchanged)
    assert found(graph) == ["s + y"]
    check(graph, "Expand", "Concat", tolerance=5e-6)


def test_what_others_read_of_a_stack_stays_a_step() -> None:
    graph = fused(STACKED, ("return s, y", "return s, y, e"))
    assert found(graph) == ["j + s + y"]
    check(graph, "Expand", tolerance=5e-6)


@pytest.mark.parametrize(
    "exchanged",
    [
        (),
        (("return s, z", "return z"),),
        (("return s, z", "return s, c, z"),),
        (("  z = Cast(y) {to=10}\n", ""), ("s, z", "s, y")),
        (("r: f16[2,5,64]", "r: f16[64]"),),
        (("r: f16[2,5,64]", "r: f16[5,1]"),),
        (("RMSNormalization(c, g)", "LayerNormalization(c, g) {stash_type=1}"),),
        (("return s, z", "return s, z, y"),),
    ],
)
def test_residuals_and_casts(exchanged: Any) -> None:
    check(fused(RESIDUAL, *exchanged), tolerance=2e-3)


def test_behind_a_norm_alone() -> None:
    check(fused(MODULATED), tolerance=5e-6)
    check(fused(MODULATED, ("24", "8200"), ("2,6,", "1,1,"), ("[2,1,", "[1,1,")), tolerance=1e-5)


def test_indices_of_64_bits(wide_indices: None) -> None:
    check(fused(EMBEDDED, ("return y", "return t, y")), tolerance=5e-6)
    check(fused(MODULATED), tolerance=5e-6)


def test_many_rows() -> None:
    check(fused(EMBEDDED, ("2,3]", "300,5]"), ("places: f32[3,40]", "places: f32[300,1,40]")), tolerance=5e-6)


@pytest.mark.parametrize(
    "exchanged",
    [
        (("g: f32[40], b: f32[40]", "g: f32[3,40], b: f32[3,40]"),),  # a scale for each row
        (("t, g, b)", "t, g, b) {axis=1}"), ("g: f32[40], b: f32[40]", "g: f32[3,40], b: f32[3,40]")),
        (("40", "60000"),),  # longer than registers hold
        (("  y = LayerNormalization(t, g, b)\n", "  y, m = LayerNormalization(t, g, b)\n"), ("return y", "return y, m")),
        (("ids: i64[2,3]", "ids: i64[n,3]"), ("types: i32[2,3]", "types: i32[n,3]")),  # a size that nobody knows
        (("ids: i64[2,3]", "ids: i64[0,3]"), ("types: i32[2,3]", "types: i32[0,3]")),
    ],
)
def test_near_misses(exchanged: Any) -> None:
    assert found(fused(EMBEDDED, *exchanged)) == []


def test_a_table_of_one_column_is_looked_up_before() -> None:
    graph = fused(EMBEDDED, ("kinds: f32[2,40]", "kinds: f32[2,1]"))
    assert found(graph) == ["s + y"]
    check(graph, "Gather", "Gather", tolerance=5e-6)


def test_what_others_read_of_a_table_stays_a_step() -> None:
    graph = fused(EMBEDDED, ("return y", "return y, w"))
    assert found(graph) == ["k + s + y"]
    check(graph, "Gather", tolerance=5e-6)


def test_a_result_that_is_wanted_sooner_keeps_the_reader_apart() -> None:
    text = RESIDUAL.replace("z = Cast(y) {to=10}", "n = ReduceSum(s) {keepdims=1}\n  z = Add(y, n)").replace("f16", "f32")
    text = text.replace("  c = Cast(s) {to=1}\n", "").replace("(c, g)", "(s, g)")
    graph = fused(text)
    assert found(graph) == ["s + y", "y + z"]


def run_apart(graph: Graph, types: list[TensorType]) -> list[str]:
    policy = Policy(disabled=frozenset({"normalization"}))
    return [s.kind for s in make_program(graph, types, Target(policy=policy)).steps]


@pytest.mark.parametrize(("name", "saved", "count"), [("bert_base", 3, 1), ("gpt2", 2, 1)])
def test_networks_begin_with_one_step(name: str, saved: int, count: int) -> None:
    model = generate(name, Request("batch", "seq", small=True), dtype="f16", seed=1)
    graph, _ = read_model(model)
    optimize(graph)
    shapes = [tuple(evaluate(d, {"batch": 2, "seq": 6}) for d in v.tensor.shape or ()) for v in graph.inputs]
    types = [TensorType(v.tensor.dtype, s) for v, s in zip(graph.inputs, shapes, strict=True)]  # type: ignore[arg-type]
    program = make_program(graph, types, Target())
    kinds = [s.kind for s in program.steps]
    assert kinds.count("miniinfer.FusedNormalization") == count
    assert len(run_apart(graph, types)) - len(kinds) == saved
    given = [np.random.default_rng(0).integers(0, 2, s) for s in shapes]
    for got, want in zip(perform_program(program, given, Target()), interpret(graph, given), strict=True):
        assert np.linalg.norm(got.astype(np.float64) - want) < 1e-2 * np.linalg.norm(want.astype(np.float64))


QUANTIZED = """
graph main(x: f32[2,5,64], r: f32[2,5,64], g: f32[64], b: f32[64]) {
  t = Add(x, r)
  y = LayerNormalization(t, g, b)
  s: f32[] = const 0.07
  z: i8[] = const 3
  q = QuantizeLinear(y, s, z)
  return q
}
"""


@pytest.mark.parametrize(
    "exchanged",
    {
        "alone": (),
        "bytes without a sign": (("z: i8", "z: u8"),),
        "8-bit floats": (("z: i8[] = const 3", "z: f8e4m3fn[] = const 0.0"),),
        "beside rows that others read": (("return q", "n = Neg(y)\n  return q, n"),),
        "beside rows that leave": (("return q", "return y, q"),),
        "beside the sum, too": (("return q", "return t, q"),),
        "smoothed": (("b: f32[64])", "b: f32[64], c: f32[64])"), ("  s:", "  m = Mul(y, c)\n  s:"), ("(y, s, z)", "(m, s, z)")),
    }.values(),
)  # fmt: skip
def test_what_is_quantized_leaves_the_same_kernel(exchanged: tuple[tuple[str, str], ...]) -> None:
    graph = fused(QUANTIZED, *exchanged)
    given, target = arrays_of(graph), Target()
    program = make_program(graph, [v.type for v in graph.inputs], target)
    wanted = interpret(graph, given)
    for got, want in zip(perform_program(program, given, target), wanted, strict=True):
        assert_within_a_step(got, want)
    others = ["Neg"] if "Neg" in str(exchanged) else []
    assert [s.kind for s in program.steps] == ["miniinfer.FusedNormalization", *others]


def test_scales_of_each_channel_are_another_step() -> None:
    graph = fused(
        QUANTIZED.replace("[2,5,64]", "[10,64]"),
        ("s: f32[] = const 0.07", "s: f32[64] = const large \"mapped s\""), ("z: i8[] = const 3\n", ""), ("(y, s, z)", "(y, s)"),
    )  # fmt: skip
    program = make_program(graph, [v.type for v in graph.inputs], Target())
    assert [s.kind for s in program.steps] == ["miniinfer.FusedNormalization", "QuantizeLinear"]


@pytest.mark.parametrize("name", ["bert_base", "vit_b16", "gpt2"])
def test_a_transformer_of_integers_has_few_more_steps_than_one_of_floats(name: str) -> None:
    model = generate(name, Request(small=True))
    feeds = [sample_inputs(model, {"batch": 2, "seq": 16}, seed) for seed in range(2)]
    steps = []
    for options in (BuildOptions(), BuildOptions(int8=True, calibrate=feeds)):
        built = build_plan(model, None, options)
        known = {"batch": 2, "seq": 16}
        types = [TensorType(v.tensor.dtype, tuple(evaluate(d, known) for d in v.tensor.shape or ())) for v in built.graph.inputs]
        steps.append(len(make_program(built.graph, types, Target()).steps))
    assert steps[1] <= 1.2 * steps[0]

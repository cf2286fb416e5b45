"""Views with offsets and strides: who reads them, when a copy is made instead, and that results are the references'."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.choosing import Policy
from miniinfer_cli.backends.cuda.contract.problems import AttentionProblem, MatmulProblem
from miniinfer_cli.backends.cuda.contract.program import DeviceStep, library_calls
from miniinfer_cli.backends.cuda.contract.site import Site
from miniinfer_cli.backends.cuda.contract.steps import Launch
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.making import draft
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.passes.fuse_conv import fuse_conv
from miniinfer_cli.passes.fuse_matmul import fuse_matmul
from miniinfer_cli.passes.fuse_pointwise import fuse_pointwise
from tests.backends.cuda.graph_runs import kinds, run, some, views
from tests.backends.cuda.numpy_library import Library
from tests.backends.cuda.performing import perform_program
from tests.backends.nodes import assert_close
from tests.emulation.engine import open_emulated, plan_of
from tests.graph_text import typed_graph
from tests.passes.graphs import read_graph

MERGED = """
graph main(x: f16[2,5,96], m: f16[2,5,32]) {
  sizes: i64[3] = const [32, 32, 32]
  p = Mul(x, x)
  q, k, v = Split(p, sizes) {axis=2}
  a = Attention(q, k, v) {q_num_heads=2, kv_num_heads=2}
  y = Add(a, m)
  return y
}
"""


def test_a_merged_projection_is_read_by_attention_where_it_lies() -> None:
    program = run(MERGED)
    assert kinds(program) == ["Mul", "Attention", "Add"]
    assert views(program) == [(0, (480, 96, 1)), (64, (480, 96, 1)), (128, (480, 96, 1))]


def test_the_library_gets_the_strides_of_the_merged_projection() -> None:
    program = run(MERGED, Library().target())
    (call,) = library_calls(program.steps)
    assert isinstance(call.problem, AttentionProblem)
    assert (call.problem.q_strides, call.problem.k_strides, call.problem.y_strides) == (
        (480, 16, 96, 1),
        (480, 16, 96, 1),
        (160, 16, 32, 1),
    )
    assert [program.behind_root(o).offset for o in call.operands] == [0, 64, 128, 0]
    assert len({program.behind_root(o).number for o in call.operands}) == 2


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"[2,5,96]": "[2,5,90]", "32, 32, 32": "30, 30, 30", "[2,5,32]": "[2,5,30]"}, "Split"),  # rows that begin anywhere
        ({"return y": "return y, k"}, "Split"),  # an output is dense, and computed where it leaves
        (
            {"y = Add(a, m)": "c = CumSum(k, zero)\n  b = Add(a, m)\n  y = Add(b, c)", "  p =": "  zero: i64[] = const 0\n  p ="},
            "Split",
        ),
        ({"y = Add(a, m)": "b = Add(a, k)\n  y = Add(b, m)"}, ""),  # who computes element by element reads rows
    ],
)
def test_a_piece_is_copied_unless_everybody_reads_it_where_it_lies(change: dict[str, str], found: str) -> None:
    text = MERGED
    for old, new in change.items():
        text = text.replace(old, new)
    program = run(text)
    assert ("Split" in kinds(program)) is bool(found)
    assert not found or not any(s.strides for s in program.slots)


HALVES = {
    "Gather": "  sizes: i64[4] = const [0, 0, 2, 32]\n  zero: i64[] = const 0\n  one: i64[] = const 1\n"
    "  r = Reshape(m, sizes)\n  p = Gather(r, zero) {axis=2}\n  q = Gather(r, one) {axis=2}",
    "Split": "  half: i64[2] = const [32, 32]\n  p, q = Split(m, half) {axis=2}",
    "Slice": "  none: i64[1] = const [0]\n  half: i64[1] = const [32]\n  all: i64[1] = const [64]\n  two: i64[1] = const [2]\n"
    "  p = Slice(m, none, half, two)\n  q = Slice(m, half, all, two)",
}


@pytest.mark.parametrize("spelling", HALVES)
@pytest.mark.parametrize("gate", ["Swish(p)", "Gelu(q)"])
def test_a_gate_reads_both_halves_of_one_product_where_they_lie(spelling: str, gate: str) -> None:
    other = "q" if "(p)" in gate else "p"
    text = f"graph main(x: f16[2,5,24], w: f16[24,64], b: f16[64]) {{\n  n = MatMul(x, w)\n  m = Add(n, b)\n{HALVES[spelling]}\n"
    graph = typed_graph(f"{text}  s = {gate}\n  y = Mul(s, {other})\n  return y\n}}")
    fuse_matmul(graph)
    fuse_pointwise(graph)
    target = Target()
    program = make_program(graph, [v.type for v in graph.inputs], target)
    assert [s.kind for s in program.steps] == ["miniinfer.FusedMatMul", "miniinfer.FusedPointwise"]
    random = np.random.default_rng(2)
    given = [random.standard_normal(s).astype(np.float16) for s in ((2, 5, 24), (24, 64), (64,))]
    (got,), (want,) = perform_program(program, given, target), interpret(graph, given)
    assert_close(got, want, 2e-2)


@pytest.mark.parametrize(("size", "moved"), [("2", []), ("1", ["Expand"])])
def test_what_is_repeated_once_is_no_work(size: str, moved: list[str]) -> None:
    text = f"graph main(x: f16[{size},3,8]) {{\n  s: i64[3] = const [2, 3, 1]\n  a = Neg(x)\n  b = Expand(a, s)\n"
    assert kinds(run(f"{text}  c = CumSum(b, axis)\n  return c\n}}".replace("  s:", "  axis: i64[] = const 1\n  s:"))) == [
        "Neg", *moved, "CumSum",
    ]  # fmt: skip


HALF_OF_AN_IMAGE = """
graph main(x: f16[2,6,7,128], z: f16[2,6,7,64]) {
  k: f16[64,TAPS,64] = const large "mapped k"
  b: f16[64] = const large "mapped b"
  sizes: i64[2] = const [64, 64]
  p = Neg(x)
  one, two = Split(p, sizes) {axis=3}
  c = miniinfer.ConvNHWC(two, k, b) {pads=[PAD, PAD, PAD, PAD]}
  r = Swish(c)
  y = Add(r, z)
  d = miniinfer.ConvNHWC(one, k) {pads=[PAD, PAD, PAD, PAD]}
  return y, d
}
"""


@pytest.mark.parametrize("taps", ["1,1", "3,3"])
@pytest.mark.parametrize(("arch", "moved"), [(90, []), (80, ["Split"])])
def test_convolutions_read_some_channels_of_an_image_where_they_lie(arch: int, moved: list[str], taps: str) -> None:
    graph = read_graph(HALF_OF_AN_IMAGE.replace("TAPS", taps).replace("PAD", str(int(taps[0]) // 2)))
    fuse_conv(graph)
    target = Target(arch=arch)
    program = make_program(graph, [v.type for v in graph.inputs], target)
    assert [
        k for k in kinds(program) if k not in ("Neg", "miniinfer.FusedConv", "miniinfer.ConvNHWC", "miniinfer.FusedPointwise")
    ] == moved
    given = some(graph)
    for got, want in zip(perform_program(program, given, target), interpret(graph, given), strict=True):
        assert_close(got, want, 2e-2)


@pytest.mark.parametrize("taps", ["1,1", "3,3"])
def test_every_way_of_a_convolution_has_channels_of_an_image(taps: str) -> None:
    """Those that cannot read them where they lie copy them first."""
    graph = read_graph(HALF_OF_AN_IMAGE.replace("TAPS", taps).replace("PAD", str(int(taps[0]) // 2)))
    offered: list[str] = []

    def watch(site: Site, tactics: Sequence[Tactic], decision: Any) -> None:
        if site.node.name == "d":
            offered.extend(t.key for t in tactics if not t.problems)

    make_program(graph, [v.type for v in graph.inputs], Target(arch=90, watch=watch))
    given = some(graph)
    wanted = interpret(graph, given)
    assert len({key.partition(" ")[0] for key in offered}) > 2
    for key in list(dict.fromkeys(offered))[:: max(1, len(offered) // 8)]:
        target = Target(arch=90, policy=Policy(forced={"d": key}))
        program = make_program(graph, [v.type for v in graph.inputs], target)
        assert "Split" not in kinds(program)
        assert_close(perform_program(program, given, target)[1], wanted[1], 2e-2)


def test_heads_that_were_reshaped_and_transposed_are_read_where_they_lie() -> None:
    text = """
graph main(x: f16[2,5,96]) {
  sizes: i64[3] = const [32, 32, 32]
  heads: i64[4] = const [0, 0, 2, 16]
  p = Mul(x, x)
  q, k, v = Split(p, sizes) {axis=2}
  q4 = Reshape(q, heads)
  k4 = Reshape(k, heads)
  v4 = Reshape(v, heads)
  qt = Transpose(q4) {perm=[0, 2, 1, 3]}
  kt = Transpose(k4) {perm=[0, 2, 1, 3]}
  vt = Transpose(v4) {perm=[0, 2, 1, 3]}
  a = Attention(qt, kt, vt)
  return a
}
"""
    program = run(text)
    assert kinds(program) == ["Mul", "Attention"]
    assert (128, (480, 16, 96, 1)) in views(program)


@pytest.mark.parametrize("library", [False, True])
def test_products_read_rows_and_columns_through_strides(library: bool) -> None:
    text = """
graph main(x: f16[3,7,48], w: f16[16,9], g: f16[3,24,16]) {
  sizes: i64[3] = const [16, 16, 16]
  p = Mul(x, x)
  a, b, c = Split(p, sizes) {axis=2}
  g2 = Neg(g)
  gt = Transpose(g2) {perm=[0, 2, 1]}
  bt = Transpose(b) {perm=[0, 2, 1]}
  one = MatMul(a, w)
  two = MatMul(c, gt)
  three = MatMul(a, bt)
  return one, two, three
}
"""
    asked = Library()
    program = run(text, asked.target() if library else None)
    assert kinds(program) == ["Mul", "Neg", "MatMul", "MatMul", "MatMul"]
    if library:
        one, two, three = (c.problem for c in library_calls(program.steps))
        assert isinstance(one, MatmulProblem) and (one.m, one.lda, one.transpose_a) == (21, 48, False)
        assert isinstance(two, MatmulProblem) and (two.lda, two.stride_a, two.ldb, two.transpose_b) == (48, 336, 16, True)
        assert isinstance(three, MatmulProblem) and (three.ldb, three.stride_b, three.transpose_b) == (48, 336, True)


@pytest.mark.parametrize("library", [False, True])
def test_a_product_reads_one_row_of_each_matrix(library: bool) -> None:
    text = """
graph main(x: f16[3,7,16], w: f16[16,24]) {
  at: i64[1] = const [2]
  to: i64[1] = const [3]
  axis: i64[1] = const [1]
  p = Neg(x)
  a = Slice(p, at, to, axis)
  y = MatMul(a, w)
  return y
}
"""
    program = run(text, Library().target() if library else None)
    assert kinds(program) == ["Neg", "MatMul"]
    for call in library_calls(program.steps):
        assert isinstance(call.problem, MatmulProblem) and (call.problem.m, call.problem.lda, call.problem.batch) == (3, 112, 1)


def test_a_region_behind_a_product_reads_its_factor_through_strides() -> None:
    text = """
graph main(x: f16[3,7,32], w: f16[16,9], b: f16[9]) {
  sizes: i64[2] = const [16, 16]
  p = Mul(x, x)
  l, r = Split(p, sizes) {axis=2}
  y = miniinfer.FusedMatMul(r, w, b)
    body: graph FusedMatMul(r: f16[3,7,16], w: f16[16,9], b: f16[9]) {
      m = MatMul(r, w)
      s = Add(m, b)
      t = Relu(s)
      return t
    }
  z = Mul(l, l)
  return y, z
}
"""
    program = run(text, Library().target())
    assert kinds(program) == ["Mul", "miniinfer.FusedMatMul", "Mul"]
    (call,) = library_calls(program.steps)
    assert isinstance(call.problem, MatmulProblem) and call.problem.lda == 32 and call.problem.bias


def test_a_gate_and_what_it_gates_are_read_where_they_lie() -> None:
    text = """
graph main(x: f16[3,7,32], w: f16[16]) {
  sizes: i64[2] = const [16, 16]
  p = Mul(x, x)
  l, r = Split(p, sizes) {axis=2}
  s = Sigmoid(r)
  y = Mul(l, s)
  z = Add(r, w)
  return y, z
}
"""
    program = run(text)
    assert kinds(program) == ["Mul", "Sigmoid", "Mul", "Add"]


@pytest.mark.parametrize(
    "also",
    [
        "row = Slice(p, zero, one, zero)",  # the first rows, which are read again for each of the others
        "row = Transpose(p) {perm=[1, 0, 2]}",  # as many, in another order
    ],
)
def test_what_is_read_otherwise_besides_is_not_overwritten(also: str) -> None:
    text = f"""
graph main(x: f32[4,4,8]) {{
  zero: i64[1] = const [0]
  one: i64[1] = const [1]
  p = Mul(x, x)
  {also}
  y = Add(p, row)
  z = Neg(y)
  return z
}}
"""
    program = run(text)
    assert kinds(program) == ["Mul", "Add", "Neg"]
    first, second, _ = program.steps
    places = program.layout.offsets
    assert places[second.writes[0]] != places[first.writes[0]]  # type: ignore[union-attr]
    with open_emulated(plan_of(text)) as engine:
        x = some(typed_graph(text))[0]
        assert_close(engine.run({"x": x})["z"], interpret(typed_graph(text), [x])[0])


def test_pieces_along_the_first_axis_are_dense_to_everybody() -> None:
    text = """
graph main(x: f32[8,6]) {
  sizes: i64[2] = const [4, 4]
  axis: i64[] = const 1
  p = Mul(x, x)
  a, b = Split(p, sizes) {axis=0}
  c = CumSum(b, axis)
  d = Softmax(a) {axis=0}
  return c, d
}
"""
    program = run(text)
    assert kinds(program) == ["Mul", "CumSum", "Softmax"]
    assert views(program) == [(0, None), (96, None)]


def test_pieces_that_begin_at_odd_places_are_copied() -> None:
    text = """
graph main(x: f16[5,7]) {
  sizes: i64[2] = const [2, 3]
  p = Neg(x)
  a, b = Split(p, sizes) {axis=0}
  c = Neg(a)
  d = Neg(b)
  return c, d
}
"""
    assert kinds(run(text)) == ["Neg", "Split", "Neg", "Neg"]


def test_a_slice_with_a_step_forwards_may_be_a_view_and_backwards_is_a_copy() -> None:
    text = """
graph main(x: f16[2,6,16], w: f16[16,9]) {
  first: i64[1] = const [FIRST]
  last: i64[1] = const [LAST]
  step: i64[1] = const [STEP]
  axis: i64[1] = const [1]
  p = Neg(x)
  a = Slice(p, first, last, axis, step)
  y = MatMul(a, w)
  return y
}
"""
    forwards = text.replace("FIRST", "1").replace("LAST", "6").replace("STEP", "2")
    program = run(forwards)
    assert kinds(program) == ["Neg", "MatMul"] and views(program) == [(32, (96, 32, 1))]
    backwards = text.replace("FIRST", "5").replace("LAST", "0").replace("STEP", "-2")
    assert kinds(run(backwards)) == ["Neg", "Slice", "MatMul"]


def test_a_copy_of_a_piece_reads_it_through_strides() -> None:
    text = """
graph main(x: f16[2,6,32]) {
  sizes: i64[2] = const [16, 16]
  first: i64[1] = const [5]
  last: i64[1] = const [0]
  step: i64[1] = const [-2]
  axis: i64[1] = const [1]
  p = Neg(x)
  a, b = Split(p, sizes) {axis=2}
  c = Slice(b, first, last, axis, step)
  y = Neg(c)
  z = Neg(a)
  return y, z
}
"""
    assert kinds(run(text)) == ["Neg", "Slice", "Neg", "Neg"]


def test_pieces_are_put_together_from_where_they_lie() -> None:
    """A rolled image; three of its rows, and others of an operand of its own."""
    text = """
graph main(x: f16[2,7,16], z: f16[2,1,16]) {
  zero: i64[1] = const [0]
  three: i64[1] = const [3]
  seven: i64[1] = const [7]
  two: i64[1] = const [2]
  axis: i64[1] = const [1]
  p = Neg(x)
  a = Slice(p, three, seven, axis)
  b = Slice(p, zero, three, axis)
  rolled = Concat(a, b) {axis=1}
  c = Slice(p, zero, seven, axis, two)
  d = Neg(z)
  other = Concat(c, d) {axis=1}
  y = Neg(rolled)
  w = Neg(other)
  return y, w
}
"""
    program = run(text)
    assert kinds(program) == ["Neg", "Concat", "Neg", "Concat", "Neg", "Neg"]
    assert [s.tactic for s in program.steps if s.kind == "Concat"] == ["concat", "copies of views"]


@pytest.mark.parametrize("dtype", ["f16", "f32", "i8"])
@pytest.mark.parametrize("axis", [1, 3])
def test_parts_of_others_are_put_together_in_one_launch(dtype: str, axis: int) -> None:
    """Channels of an image that are read by half, of different widths, beside some of a tensor of their own; and rows."""
    text = f"""
graph main(x: {dtype}[2,6,5,96], z: {dtype}[2,6,5,16]) {{
  sizes: i64[3] = const [32, 48, 16]
  lines: i64[2] = const [2, 4]
  p = Abs(x)
  a, b, c = Split(p, sizes) {{axis=3}}
  f, g = Split(p, lines) {{axis=1}}
  d = Abs(z)
  e = {"Concat(b, d, a, c)" if axis == 3 else "Concat(g, f, p)"} {{axis={axis}}}
  y = Abs(e)
  return y
}}
"""
    program = run(text)
    assert kinds(program) == ["Abs", "Abs", "Concat", "Abs"]
    (concat,) = (s for s in program.steps if s.kind == "Concat" and isinstance(s, DeviceStep))
    assert [a.kernel.name for a in concat.actions if isinstance(a, Launch)] == ["join_apart"]


def test_a_piece_that_is_turned_is_turned_by_itself() -> None:
    text = """
graph main(x: f16[2,16,24], z: f16[2,3,16]) {
  p = Neg(x)
  a = Transpose(p) {perm=[0, 2, 1]}
  d = Neg(z)
  c = Concat(a, d) {axis=1}
  y = Neg(c)
  return y
}
"""
    assert kinds(run(text)) == ["Neg", "Transpose", "Neg", "Concat", "Neg"]


def test_moved_and_repeated_pieces_are_read_through_strides() -> None:
    text = """
graph main(x: f32[2,1,20,96]) {
  sizes: i64[3] = const [32, 32, 32]
  shape: i64[4] = const [2, 3, 20, 32]
  often: i64[4] = const [1, 2, 1, 2]
  p = Neg(x)
  a, b, c = Split(p, sizes) {axis=3}
  t = Transpose(a) {perm=[0, 3, 1, 2]}
  e = Expand(b, shape)
  r = Tile(c, often)
  return t, e, r
}
"""
    program = run(text)
    assert kinds(program) == ["Neg", "Transpose", "Expand", "Tile"]
    assert {s.tactic.split()[0] for s in program.steps if s.kind == "Transpose"} == {"tiles"}


def test_the_index_reaches_over_the_whole_of_which_a_piece_is_read(wide_from: Callable[[int], None]) -> None:
    text = """
graph main(x: f32[9,64]) {
  sizes: i64[2] = const [32, 32]
  p = Neg(x)
  a, b = Split(p, sizes) {axis=1}
  y = Exp(a)
  z = Transpose(b) {perm=[1, 0]}
  return y, z
}
"""
    wide_from(300)  # more than there are in a piece, fewer than it spans
    program = run(text)
    assert kinds(program) == ["Neg", "Exp", "Transpose"]
    assert [dict(k.defines)["MI_INDEX"] for k in program.kernels] == ["long long"] * len(program.kernels)


def test_what_a_reader_refuses_after_all_is_copied_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draft, "find_reading", lambda node: None)
    program = run(MERGED.replace("y = Add(a, m)", "b = Add(a, k)\n  y = Add(b, m)"))
    assert kinds(program) == ["Mul", "Copy", "Copy", "Copy", "Attention", "Add", "Add"]
    assert [s.label for s in program.steps if s.kind == "Copy"] == ["a", "a", "a"]


@pytest.mark.parametrize("key", ["fused 16x64", "gemm 64x64, softmax, gemm 64x64", "gemv_along_k, softmax, gemv_along_n"])
def test_every_way_of_attention_reads_a_merged_projection(key: str) -> None:
    program = run(MERGED, Target(tf32=False, policy=Policy(forced={"a": key})), tolerance=4e-3)
    assert kinds(program) == ["Mul", "Attention", "Add"]


def test_attention_over_pieces_joins_them_with_the_past() -> None:
    text = MERGED.replace("m: f16[2,5,32])", "m: f16[2,5,32], pk: f16[2,2,3,16], pv: f16[2,2,3,16])")
    text = text.replace("a = Attention(q, k, v)", "a, nk, nv = Attention(q, k, v, -, pk, pv)").replace(
        "return y", "return y, nk, nv"
    )
    assert kinds(run(text)) == ["Mul", "Attention", "Add"]

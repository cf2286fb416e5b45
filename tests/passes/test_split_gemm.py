"""split_gemm: a fully connected layer has one form, MatMul and Add, whatever the Gemm said."""

import pytest

from miniinfer_cli.ir import DType, Numerics
from miniinfer_cli.passes.remove_dead_nodes import remove_dead_nodes
from miniinfer_cli.passes.split_gemm import split_gemm


def test_constant_weights_are_transposed_while_building(rewrites):
    rewrites(
        split_gemm,
        """graph main(x: f32[batch,300]) {
          w: f32[200,300] = const large "mapped w"
          b: f32[200] = const large "mapped b"
          y = Gemm(x, w, b) {transB=1} @/fc/Gemm
          return y
        }""",
        """graph main(x: f32[batch,300]) {
          w_1: f32[300,200] = const large "transposed [1,0] of mapped w"
          y_product = MatMul(x, w_1) @/fc/Gemm
          b: f32[200] = const large "mapped b"
          y = Add(y_product, b) @/fc/Gemm
          return y
        }""",
        rtol=1e-5,
    )


def test_factors_go_into_the_constants(rewrites):
    rewrites(
        split_gemm,
        """graph main(x: f32[batch,2]) {
          w: f32[2,3] = const [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
          b: f32[3] = const [1.0, 2.0, 3.0]
          y = Gemm(x, w, b) {alpha=0.5, beta=2.0}
          return y
        }""",
        """graph main(x: f32[batch,2]) {
          w_1: f32[2,3] = const [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
          y_product = MatMul(x, w_1) @y
          b_1: f32[3] = const [2.0, 4.0, 6.0]
          y = Add(y_product, b_1)
          return y
        }""",
        rtol=1e-6,
    )


def test_a_computed_bias_is_scaled_at_run_time(rewrites):
    rewrites(
        split_gemm,
        """graph main(x: f32[batch,2], y: f32[2,3], c: f32[3]) {
          z = Gemm(x, y, c) {beta=2.0}
          return z
        }""",
        """graph main(x: f32[batch,2], y: f32[2,3], c: f32[3]) {
          z_product = MatMul(x, y) @z
          beta: f32[] = const 2.0
          c_scaled = Mul(c, beta)
          z = Add(z_product, c_scaled)
          return z
        }""",
        rtol=1e-6,
    )


def test_a_bias_times_zero_is_none(rewrites):
    rewrites(
        split_gemm,
        "graph main(x: f32[batch,2], y: f32[2,3], c: f32[3]) { z = Gemm(x, y, c) {beta=0.0} return z }",
        "graph main(x: f32[batch,2], y: f32[2,3], c: f32[3]) { z = MatMul(x, y) return z }",
        rtol=1e-6,
    )


STAYING = {
    "a computed factor is transposed": "z = Gemm(x, y) {transB=1} return z",
    "the other one": "z = Gemm(y, x) {transA=1} return z",
    "a computed factor is scaled": "z = Gemm(x, x) {alpha=2.0} return z",
    "shared weights are scaled": 'w: f32[3,3] = const large "mapped w" z = Gemm(x, w) {alpha=2.0} return z, w',
}  # fmt: skip


@pytest.mark.parametrize("body", STAYING.values(), ids=STAYING.keys())
def test_what_only_a_gemm_does_for_nothing_stays_one(leaves, body):
    leaves(split_gemm, f"graph main(x: f32[3,3], y: f32[3,3]) {{ {body} }}")


def test_integers_are_not_scaled(leaves, rewrites):
    leaves(split_gemm, "graph main(x: i32[2,2], y: i32[2,2]) { z = Gemm(x, y) {alpha=2.0} return z }")
    leaves(split_gemm, "graph main(x: i32[2,2], y: i32[2,2]) { z = Gemm(x, y, y) {beta=2.0} return z }")
    rewrites(
        split_gemm,
        "graph main(x: i32[2,2], y: i32[2,2]) { z = Gemm(x, y) return z }",
        "graph main(x: i32[2,2], y: i32[2,2]) { z = MatMul(x, y) return z }",
    )


def test_a_shared_weight_is_transposed_once_per_reader_and_not_scaled(graph_of, outputs_of):
    graph = graph_of(
        """graph main(x: f32[batch,4]) {
          w: f32[4,4] = const large "mapped w"
          y = Gemm(x, w) {transB=1}
          z = Gemm(y, w)
          return z
        }"""
    )
    (before,) = outputs_of(graph)
    assert split_gemm(graph) == 2
    remove_dead_nodes(graph)
    assert [n.op for n in graph] == ["MatMul", "MatMul"]
    assert abs(outputs_of(graph)[0] - before).max() < 1e-5


@pytest.mark.parametrize(("half", "split"), [(None, True), (DType.BF16, True), (DType.F16, False)])
@pytest.mark.parametrize("factors", ["alpha=1e6", "beta=1e6"])
def test_what_constants_are_going_to_be_stored_in_has_to_hold_them(graph_of, half, split, factors):
    graph = graph_of(f"""graph main(x: f32[3,2]) {{
      w: f32[2,3] = const [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
      b: f32[3] = const [1.0, 2.0, 3.0]
      y = Gemm(x, w, b) {{{factors}}}
      return y
    }}""")
    graph.numerics = None if half is None else Numerics(half)
    assert split_gemm(graph) == split

"""sink_movements: layers on rearranged sequences are done on the sequences as they come."""

import pytest

from miniinfer_cli.passes.remove_dead_nodes import remove_dead_nodes
from miniinfer_cli.passes.sink_movements import sink_movements


def test_a_layer_on_flattened_rows_is_done_on_the_sequence(rewrites):
    rewrites(
        sink_movements,
        """graph main(x: f32[batch,seq,40]) {
          flat: i64[2] = const [-1, 40]
          rows = Reshape(x, flat)
          w: f32[40,36] = const large "mapped w"
          y = MatMul(rows, w)
          b: f32[36] = const large "mapped b"
          z = Add(b, y)
          r = Relu(z)
          s = Shape(x) {end=2}
          n: i64[1] = const [36]
          back = Concat(s, n) {axis=0}
          out = Reshape(r, back)
          n2 = Neg(out)
          return n2, s
        }""",
        """graph main(x: f32[batch,seq,40]) {
          w: f32[40,36] = const large "mapped w"
          y_rows = MatMul(x, w) @y
          b: f32[36] = const large "mapped b"
          z_rows = Add(b, y_rows) @z
          r_rows = Relu(z_rows) @r
          s = Shape(x) {end=2}
          n: i64[1] = const [36]
          back = Concat(s, n) {axis=0}
          n2 = Neg(r_rows)
          return n2, s
        }""",
        rtol=1e-5,
    )


def test_an_axis_of_size_one_is_kept_for_the_residual(rewrites):
    rewrites(
        sink_movements,
        """graph main(x: f32[1,seq,2]) {
          flat: i64[2] = const [-1, 2]
          rows = Reshape(x, flat)
          w: f32[2,2] = const [1, 2, 3, 4]
          y = MatMul(rows, w)
          back: i64[3] = const [1, -1, 2]
          out = Reshape(y, back)
          z = Add(out, x)
          return z
        }""",
        """graph main(x: f32[1,seq,2]) {
          w: f32[2,2] = const [1, 2, 3, 4]
          y_rows = MatMul(x, w) @y
          z = Add(y_rows, x)
          return z
        }""",
        rtol=1e-6,
    )


def test_rows_that_are_transposed_before_and_behind_are_not(rewrites):
    rewrites(
        sink_movements,
        """graph main(x: f32[batch,seq,2]) {
          t = Transpose(x) {perm=[1, 0, 2]}
          w: f32[2,2] = const [1, 2, 3, 4]
          y = MatMul(t, w)
          g: f32[2] = const [1, 2]
          l = LayerNormalization(y, g) {axis=2}
          p = Softmax(l)
          back = Transpose(p) {perm=[1, 0, 2]}
          z = Add(back, x)
          return z
        }""",
        """graph main(x: f32[batch,seq,2]) {
          w: f32[2,2] = const [1, 2, 3, 4]
          y_rows = MatMul(x, w) @y
          g: f32[2] = const [1, 2]
          l_rows = LayerNormalization(y_rows, g) {axis=-1} @l
          p_rows = Softmax(l_rows) @p
          z = Add(p_rows, x)
          return z
        }""",
        rtol=1e-5,
    )


def test_the_heads_of_attention_merge_without_a_detour(rewrites):
    rewrites(
        sink_movements,
        """graph main(x: f32[batch,2,seq,4], skip: f32[batch,seq,3]) {
          t = Transpose(x) {perm=[2, 0, 1, 3]}
          flat: i64[2] = const [-1, 8]
          rows = Reshape(t, flat)
          w: f32[8,3] = const fill 0.5
          y = MatMul(rows, w)
          s = Shape(skip)
          order: i64[3] = const [1, 0, 2]
          sizes = Gather(s, order)
          back = Reshape(y, sizes)
          out = Transpose(back) {perm=[1, 0, 2]}
          z = Add(out, skip)
          return z, sizes
        }""",
        """graph main(x: f32[batch,2,seq,4], skip: f32[batch,seq,3]) {
          rows_rows_cut = Transpose(x) {perm=[0, 2, 1, 3]}
          rows_rows_shape: i64[3] = const [0, 0, 8]
          rows_rows = Reshape(rows_rows_cut, rows_rows_shape)
          w: f32[8,3] = const fill 0.5
          y_rows = MatMul(rows_rows, w) @y
          s = Shape(skip)
          order: i64[3] = const [1, 0, 2]
          sizes = Gather(s, order)
          z = Add(y_rows, skip)
          return z, sizes
        }""",
        rtol=1e-5,
    )


def test_a_split_of_the_columns_is_passed_too(rewrites):
    rewrites(
        sink_movements,
        """graph main(x: f32[batch,seq,2]) {
          t = Transpose(x) {perm=[1, 0, 2]}
          w: f32[2,4] = const [1, 2, 3, 4, 5, 6, 7, 8]
          y = MatMul(t, w)
          p, q = Split(y) {axis=2, num_outputs=2}
          a = Transpose(p) {perm=[1, 2, 0]}
          b = Transpose(q) {perm=[1, 0, 2]}
          return a, b
        }""",
        """graph main(x: f32[batch,seq,2]) {
          w: f32[2,4] = const [1, 2, 3, 4, 5, 6, 7, 8]
          y_rows = MatMul(x, w) @y
          p_rows, p_rows_1 = Split(y_rows) {axis=-1, num_outputs=2} @p
          a_1 = Transpose(p_rows) {perm=[0, 2, 1]}
          return a=a_1, b=p_rows_1
        }""",
        rtol=1e-6,
    )


def test_a_rearrangement_that_two_layers_read_goes_with_the_second(graph_of, outputs_of):
    graph = graph_of(
        """graph main(x: f32[batch,seq,2]) {
          t = Transpose(x) {perm=[1, 0, 2]}
          w: f32[2,2] = const [1, 2, 3, 4]
          y = MatMul(t, w)
          a = Transpose(y) {perm=[1, 2, 0]}
          v: f32[2,2] = const [4, 3, 2, 1]
          z = MatMul(t, v)
          b = Transpose(z) {perm=[1, 2, 0]}
          return a, b
        }"""
    )
    before = outputs_of(graph)
    assert sink_movements(graph) == 2
    remove_dead_nodes(graph)
    assert [n.op for n in graph] == ["MatMul", "Transpose", "MatMul", "Transpose"]
    for expected, actual in zip(before, outputs_of(graph), strict=True):
        assert abs(expected - actual).max() < 1e-5


ROWS = "flat: i64[2] = const [-1, 4] rows = Reshape(x, flat) w: f32[4,4] = const fill 0.5"
BACK = "s: i64[3] = const [2, -1, 4] z = Reshape(y, s) return z"
STAYING = {
    "nothing brings the shape back": f"{ROWS} y = MatMul(rows, w) return y",
    "another shape comes": f"{ROWS} y = MatMul(rows, w) s: i64[3] = const [3, -1, 4] z = Reshape(y, s) return z",
    "the rows are mixed": f"{ROWS} m = MatMul(rows, w) y = Softmax(m) {{axis=0}} {BACK}",
    "the other operand has rows": f"{ROWS} m = MatMul(rows, w) y = Add(m, r) {BACK}",
    "the result has another reader": f"{ROWS} y = MatMul(rows, w) n = Neg(y) {BACK}, n",
    "the rows are the columns": f"{ROWS} y = MatMul(r2, rows) s: i64[3] = const [2, -1, 4] z = Reshape(y, s) return z",
    "no layer is passed": f"{ROWS} y = Relu(rows) {BACK}",
    "the rows are cut": "flat: i64[2] = const [2, 12] rows = Reshape(x, flat) v: f32[12,4] = const fill 0.5 y = MatMul(rows, v) "
    "s: i64[2] = const [4, 2] z = Reshape(y, s) return z",
    "the rows themselves are transposed": "t = Transpose(x) {perm=[0, 2, 1]} w: f32[3,3] = const fill 0.5 y = MatMul(t, w) "
    "z = Transpose(y) {perm=[0, 2, 1]} return z",
}  # fmt: skip


@pytest.mark.parametrize("body", STAYING.values(), ids=STAYING.keys())
def test_rearrangements_stay_where_nothing_is_gained(leaves, body):
    leaves(sink_movements, f"graph main(x: f32[2,3,4], r: f32[6,4], r2: f32[4,6]) {{ {body} }}")


def test_windows_stay_in_front_of_a_layer_whose_heads_attention_reads_where_they_lie(leaves):
    leaves(
        sink_movements,
        """graph main(x: f32[batch,6,4]) {
          cut: i64[4] = const [0, 2, 3, 4]
          a = Reshape(x, cut)
          b = Transpose(a) {perm=[0, 2, 1, 3]}
          w: f32[4,24] = const large "mapped w"
          y = MatMul(b, w)
          sizes: i64[2] = const [12, 12]
          q, k = Split(y, sizes) {axis=-1}
          s: i64[5] = const [0, 3, 2, 3, 4]
          q5 = Reshape(q, s)
          k5 = Reshape(k, s)
          qh = Transpose(q5) {perm=[0, 1, 3, 2, 4]}
          kh = Transpose(k5) {perm=[0, 1, 3, 2, 4]}
          return qh, kh
        }""",
    )

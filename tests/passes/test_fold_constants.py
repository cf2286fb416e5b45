"""fold_constants: shape arithmetic and small results are computed, large ones become recipes or stay."""

import numpy as np

from miniinfer_cli.ir.constants import MappedConstant, Sliced, Transposed
from miniinfer_cli.passes.fold_constants import fold_constants


def test_shape_arithmetic_of_static_dimensions_is_computed(rewrites):
    rewrites(
        fold_constants,
        """graph main(x: f32[2,3,4]) {
          s = Shape(x)
          i: i64[1] = const [2]
          last = Gather(s, i)
          rest: i64[1] = const [-1]
          target = Concat(rest, last) {axis=0}
          y = Reshape(x, target)
          return y
        }""",
        """graph main(x: f32[2,3,4]) {
          target: i64[2] = const [-1, 4]
          y = Reshape(x, target)
          return y
        }""",
        fired=3,
    )


def test_shape_arithmetic_of_symbolic_dimensions_stays(leaves):
    leaves(
        fold_constants,
        """graph main(x: f32[batch,3,4]) {
          s = Shape(x)
          i: i64[1] = const [0]
          first = Gather(s, i)
          rest: i64[1] = const [-1]
          target = Concat(first, rest) {axis=0}
          y = Reshape(x, target)
          return y
        }""",
    )


def test_the_known_part_of_a_symbolic_shape_is_computed(rewrites):
    rewrites(
        fold_constants,
        """graph main(x: f32[batch,3,4]) {
          s = Shape(x)
          i: i64[] = const 2
          last = Gather(s, i)
          return last
        }""",
        """graph main(x: f32[batch,3,4]) {
          s = Shape(x)
          last: i64[] = const 4
          return last
        }""",
    )


def test_several_outputs_fold_together(rewrites):
    rewrites(
        fold_constants,
        """graph main() {
          c: i64[4] = const [1, 2, 3, 4]
          a, b = Split(c) {axis=0, num_outputs=2}
          return a, b
        }""",
        """graph main() {
          a: i64[2] = const [1, 2]
          b: i64[2] = const [3, 4]
          return a, b
        }""",
    )


def test_large_weights_that_are_moved_become_recipes(rewrites):
    graph = rewrites(
        fold_constants,
        """graph main() {
          w: f32[300,200] = const large "mapped w"
          v: f32[300,100] = const large "mapped v"
          t = Transpose(w) {perm=[1, 0]}
          minus: i64[2] = const [-1, 50]
          r = Reshape(w, minus)
          j = Concat(w, v) {axis=-1}
          starts: i64[1] = const [-150]
          ends: i64[1] = const [9223372036854775807]
          axes: i64[1] = const [1]
          s = Slice(w, starts, ends, axes)
          p, q = Split(w) {axis=0, num_outputs=2}
          three: i64[] = const 3
          g = Gather(w, three) {axis=1}
          return t, r, j, s, p, q, g
        }""",
        """graph main() {
          t: f32[200,300] = const large "transposed [1,0] of mapped w"
          r: f32[1200,50] = const large "mapped w"
          j: f32[300,300] = const large "concatenated on 1 of (mapped w; mapped v)"
          s: f32[300,150] = const large "sliced at [0,50] of mapped w"
          p: f32[150,200] = const large "sliced at [0,0] of mapped w"
          q: f32[150,200] = const large "sliced at [150,0] of mapped w"
          g: f32[300] = const large "array 00000000"
          return t, r, j, s, p, q, g
        }""".replace("00000000", crc_of_column_3()),
        fired=6,
    )
    handles = [v.constant for v in graph.outputs]
    assert [type(h) for h in handles[:2]] == [Transposed, MappedConstant]
    assert isinstance(handles[3], Sliced)


def crc_of_column_3() -> str:
    import zlib

    data = np.random.default_rng(sum(b"w")).standard_normal((300, 200)) + 0.1
    return f"{zlib.crc32(np.ascontiguousarray(data.astype(np.float32)[:, 3]).tobytes()):08x}"

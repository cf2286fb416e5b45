"""sink_transposes: Transposes go down through elementwise operations where they get fewer, and stay where they would not."""

import pytest

from miniinfer_cli.passes.sink_transposes import sink_transposes


def test_two_equal_transposes_become_one_behind(rewrites):
    rewrites(
        sink_transposes,
        """graph main(a: f32[2,3,5], b: f32[2,3,5]) {
          p = Transpose(a) {perm=[1, 2, 0]}
          q = Transpose(b) {perm=[1, 2, 0]}
          y = Add(p, q)
          return y
        }""",
        """graph main(a: f32[2,3,5], b: f32[2,3,5]) {
          p = Transpose(a) {perm=[1, 2, 0]}
          q = Transpose(b) {perm=[1, 2, 0]}
          y_1 = Add(a, b)
          y = Transpose(y_1) {perm=[1, 2, 0]}
          return y
        }""",
    )


def test_a_transpose_meets_the_next_and_constants_follow(rewrites):
    rewrites(
        sink_transposes,
        """graph main(a: f32[batch,h,w,3]) {
          p = Transpose(a) {perm=[0, 3, 1, 2]}
          c: f32[3,1,1] = const [1.0, 2.0, 3.0]
          m = Mul(p, c)
          half: f32[] = const 0.5
          y = Add(m, half)
          z = Transpose(y) {perm=[0, 2, 3, 1]}
          return z
        }""",
        """graph main(a: f32[batch,h,w,3]) {
          p = Transpose(a) {perm=[0, 3, 1, 2]}
          c_1: f32[1,1,1,3] = const [1.0, 2.0, 3.0]
          m_1 = Mul(a, c_1)
          m = Transpose(m_1) {perm=[0, 3, 1, 2]}
          half: f32[] = const 0.5
          y_1 = Add(m_1, half)
          y = Transpose(y_1) {perm=[0, 3, 1, 2]}
          z = Transpose(y) {perm=[0, 2, 3, 1]}
          return z
        }""",
        fired=2,
    )


STAYING = {
    "no transpose follows": "graph main(a: f32[2,3]) { p = Transpose(a) {perm=[1, 0]} y = Exp(p) return y }",
    "other permutations": """graph main(a: f32[2,2,2], b: f32[2,2,2]) {
        p = Transpose(a) {perm=[1, 0, 2]} q = Transpose(b) {perm=[2, 0, 1]} y = Add(p, q) return y }""",
    "another operand as it is": """graph main(a: f32[2,3], b: f32[3,2]) {
        p = Transpose(a) {perm=[1, 0]} y = Add(p, b) z = Transpose(y) {perm=[1, 0]} return z }""",
    "the transposes are needed anyway": """graph main(a: f32[2,3], b: f32[2,3]) {
        p = Transpose(a) {perm=[1, 0]} q = Transpose(b) {perm=[1, 0]} y = Add(p, q) return y, p, q }""",
    "the result is larger": """graph main(a: f32[1,3], b: f32[3,1]) {
        p = Transpose(a) {perm=[1, 0]} c: f32[1,5] = const fill 2.0 y = Mul(p, c) z = Transpose(y) {perm=[1, 0]} return z }""",
    "not elementwise": "graph main(a: f32[2,3]) { p = Transpose(a) {perm=[1, 0]} y = Softmax(p) z = Transpose(y) return z }",
    "a branch on the way": """graph main(a: f32[2,3]) {
        p = Transpose(a) {perm=[1, 0]} y = Exp(p) z = Transpose(y) {perm=[1, 0]} w = Neg(y) return z, w }""",
}  # fmt: skip


@pytest.mark.parametrize("text", STAYING.values(), ids=STAYING.keys())
def test_transposes_stay_where_nothing_is_gained(leaves, text):
    leaves(sink_transposes, text)

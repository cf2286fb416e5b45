"""remove_identities takes operations that give back their input exactly, and leaves those that only nearly do."""

import pytest

from miniinfer_cli.passes.remove_identities import remove_identities

SAME = {
    "identity": "y = Identity(x)",
    "dropout": "y = Dropout(x)",
    "dropout not training": "p: f32[] = const 0.5 t: bool[] = const false y = Dropout(x, p, t)",
    "cast to its own type": "y = Cast(x) {to=1}",
    "slice of everything": "a: i64[1] = const [0] e: i64[1] = const [9223372036854775807] y = Slice(x, a, e)",
    "slice with steps of one": "a: i64[1] = const [0] e: i64[1] = const [4] i: i64[1] = const [1] y = Slice(x, a, e, i, i)",
    "pad by nothing": "p: i64[4] = const [0, 0, 0, 0] y = Pad(x, p)",
    "reshape to its own shape": "s: i64[2] = const [-1, 4] y = Reshape(x, s)",
    "flatten of a matrix": "y = Flatten(x)",
    "expand to its own shape": "s: i64[2] = const [1, 4] y = Expand(x, s)",
    "tile once": "s: i64[2] = const [1, 1] y = Tile(x, s)",
    "transpose of nothing": "y = Transpose(x) {perm=[0, 1]}",
    "concat of one": "y = Concat(x) {axis=1}",
    "sum of one": "y = Sum(x)",
    "split into one": "y = Split(x) {axis=1, num_outputs=1}",
    "clip without bounds": "y = Clip(x)",
    "times one": "o: f32[] = const 1.0 y = Mul(x, o)",
    "one times": "o: f32[1] = const [1.0] y = Mul(o, x)",
    "divided by one": "o: f32[4] = const fill 1.0 y = Div(x, o)",
    "to the power of one": "o: f32[] = const 1.0 y = Pow(x, o)",
    "plus minus zero": "z: f32[] = const -0.0 y = Add(x, z)",
    "minus zero": "z: f32[] = const 0.0 y = Sub(x, z)",
    "resize by one": "s: f32[2] = const [1.0, 1.0] y = Resize(x, -, s) {mode=\"linear\"}",
    "where true": "c: bool[1] = const [true] z: f32[] = const 0.0 y = Where(c, x, z)",
    "where false": "c: bool[1] = const [false] z: f32[] = const 0.0 y = Where(c, z, x)",
}  # fmt: skip


@pytest.mark.parametrize("body", SAME.values(), ids=SAME.keys())
def test_what_changes_nothing_goes(rewrites, body):
    rewrites(
        remove_identities,
        f"graph main(x: f32[batch,4]) {{ {body} r = Neg(y) return r, y }}",
        "graph main(x: f32[batch,4]) { r = Neg(x) return r, y=x }",
    )


@pytest.mark.parametrize(
    ("dtype", "code", "wider"), [("f16", 10, 1), ("bf16", 16, 1), ("f32", 1, 11), ("i32", 6, 7), ("bool", 9, 6)]
)
def test_a_cast_back_from_a_type_that_holds_every_value_goes(rewrites, dtype, code, wider):
    start = f"graph main(x: {dtype}[batch,4]) {{ w = Cast(x) {{to={wider}}}"
    rewrites(
        remove_identities,
        f"{start} y = Cast(w) {{to={code}}} z = Identity(y) v = Cast(w) {{to=3}} return z, v }}",
        f"{start} v = Cast(w) {{to=3}} return z=x, v }}",
        fired=2,
    )


CHANGED = {
    "cast": "y = Cast(x) {to=11}",
    "cast to a narrower type and back": "w = Cast(x) {to=10} y = Cast(w) {to=1}",
    "cast to a wider type and to another": "w = Cast(x) {to=11} y = Cast(w) {to=10}",
    "dropout in training": "r: f32[] = const 0.5 t: bool[] = const true y = Dropout(x, r, t)",
    "dropout whose mask is read": "y, m = Dropout(x) n = Not(m)",
    "a slice": "a: i64[1] = const [1] e: i64[1] = const [4] i: i64[1] = const [1] y = Slice(x, a, e, i)",
    "a flip": "a: i64[1] = const [3] e: i64[1] = const [-9] i: i64[1] = const [1] "
    "s: i64[1] = const [-1] y = Slice(x, a, e, i, s)",
    "a shift by padding": "p: i64[4] = const [0, 1, 0, -1] y = Pad(x, p)",
    "another shape": "s: i64[2] = const [4, -1] y = Reshape(x, s)",
    "a broadcast": "s: i64[3] = const [3, 1, 1] y = Expand(x, s)",
    "a transpose": "y = Transpose(x)",
    "a concat": "y = Concat(x, x) {axis=1}",
    "times a broadcasting one": "o: f32[3,1,1] = const fill 1.0 y = Mul(x, o)",
    "times two": "o: f32[] = const 2.0 y = Mul(x, o)",
    "plus zero": "z: f32[] = const 0.0 y = Add(x, z)",
    "minus minus zero": "z: f32[] = const -0.0 y = Sub(x, z)",
    "one divided by": "o: f32[] = const 1.0 y = Div(o, x)",
    "zero minus": "o: f32[] = const 0.0 y = Sub(o, x)",
    "one to the power of": "o: f32[] = const 1.0 y = Pow(o, x)",
    "a resize that crops": "s: f32[2] = const [1.0, 1.0] r: f32[4] = const [0.0, 0.5, 1.0, 1.0] "
    'y = Resize(x, r, s) {coordinate_transformation_mode="tf_crop_and_resize"}',
    "where some": "c: bool[4] = const [true, true, false, true] z: f32[] = const 0.0 y = Where(c, x, z)",
    "where true but broadcast": "c: bool[3,1,1] = const [true, true, true] z: f32[] = const 0.0 y = Where(c, x, z)",
    "clip": "z: f32[] = const 0.0 y = Clip(x, z)",
    "split in two": "y, z = Split(x) {axis=1, num_outputs=2}",
    "squares of single elements": "a: i64[1] = const [0] u = Unsqueeze(x, a) y = ReduceSumSquare(u, a)",
}  # fmt: skip


@pytest.mark.parametrize("body", CHANGED.values(), ids=CHANGED.keys())
def test_what_changes_something_stays(graph_of, body):
    extra = ", n" if "n = Not" in body else ""
    graph = graph_of(f"graph main(x: f32[batch,4]) {{ {body} return y{extra} }}")
    assert remove_identities(graph) == 0


def test_adding_an_integer_zero_is_exact(rewrites):
    rewrites(
        remove_identities,
        "graph main(i: i64[batch]) { z: i64[] = const 0 y = Add(z, i) n = Neg(y) return n }",
        "graph main(i: i64[batch]) { n = Neg(i) return n }",
    )


def test_logic_with_a_neutral_constant_goes(rewrites):
    rewrites(
        remove_identities,
        """graph main(a: bool[batch]) {
          t: bool[] = const true
          b = And(a, t)
          f: bool[] = const false
          c = Or(f, b)
          d = Not(c)
          return d
        }""",
        "graph main(a: bool[batch]) { d = Not(a) return d }",
        fired=2,
    )


def test_a_reduction_over_axes_of_size_one_goes(rewrites):
    rewrites(
        remove_identities,
        """graph main(x: f32[batch,1,4]) {
          a: i64[1] = const [1]
          y = ReduceMean(x, a) {keepdims=1}
          z = ReduceMax(y, a) {keepdims=0}
          return z
        }""",
        """graph main(x: f32[batch,1,4]) {
          a: i64[1] = const [1]
          z = ReduceMax(x, a) {keepdims=0}
          return z
        }""",
    )


def test_squeeze_and_unsqueeze_of_nothing_go(rewrites):
    rewrites(
        remove_identities,
        "graph main(x: f32[3,4]) { none: i64[0] = const [] y = Unsqueeze(x, none) z = Squeeze(y) w = Neg(z) return w }",
        "graph main(x: f32[3,4]) { w = Neg(x) return w }",
        fired=2,
    )


def test_an_identity_of_a_sequence_goes(graph_of):
    graph = graph_of("graph main(s: seq(f32[2])) { t = Identity(s) n = SequenceLength(t) return n }")
    assert remove_identities(graph) == 1
    assert [n.op for n in graph] == ["SequenceLength"]

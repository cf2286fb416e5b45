"""positions: what counts up along an axis is known as such, compared, and never guessed."""

import numpy as np
import pytest

from miniinfer_cli.ir import symbol
from miniinfer_cli.ir.dim_text import parse_dim
from miniinfer_cli.ir.dims import evaluate
from miniinfer_cli.passes.positions import Affine, affine, difference, least
from tests.passes.graphs import SIZES, read_graph, run_graph

# Sizes and counts that the graphs below start from: n = seq, b = batch, up = 0, 1 ... seq - 1.
START = """
  s = Shape(x) {start=1, end=2}
  t = Shape(x) {start=0, end=1}
  n = Squeeze(s)
  b = Squeeze(t)
  zero: i64[] = const 0
  one: i64[] = const 1
  two: i64[] = const 2
  first: i64[1] = const [0]
  second: i64[1] = const [1]
  last: i64[1] = const [-1]
  end: i64[1] = const [9223372036854775807]
  up = Range(zero, n, one)
  row = Unsqueeze(up, first)
  column = Unsqueeze(up, last)
  batches = Range(zero, b, one)
"""


def graph_of(body: str):
    return read_graph(f"graph main(x: f32[batch,seq], k: i64[seq]) {{ {START} {body} return y }}")


@pytest.mark.parametrize(
    ("body", "offset", "strides"),
    [
        ("y = Identity(up)", "0", {-1: "1"}),
        ("y = Range(two, n, two)", "2", {-1: "2"}),
        ("y = Identity(row)", "0", {-1: "1"}),
        ("y = Identity(column)", "0", {-2: "1"}),
        ("p: i64[4] = const [1, 1, -1, 1] y = Reshape(up, p)", "0", {-2: "1"}),
        ("y = Transpose(column) {perm=[1, 0]}", "0", {-1: "1"}),
        ("y = Transpose(row)", "0", {-2: "1"}),
        ("a = Unsqueeze(row, last) y = Transpose(a) {perm=[1, 2, 0]}", "0", {-3: "1"}),
        ("c = Concat(t, s) {axis=0} y = Expand(row, c)", "0", {-1: "1"}),
        ("c = Concat(t, s) {axis=0} y = Expand(two, c)", "2", {}),
        ("y = Cast(up) {to=6}", "0", {-1: "1"}),
        ("y = Add(row, column)", "0", {-1: "1", -2: "1"}),
        ("y = Sub(two, up)", "2", {-1: "-1"}),
        ("y = Mul(row, n)", "0", {-1: "seq"}),
        ("w = Mul(up, two) y = Mul(two, w)", "0", {-1: "4"}),
        ("a = Unsqueeze(batches, last) m = Mul(a, n) y = Add(m, row)", "0", {-2: "seq", -1: "1"}),
        ("y = Slice(up, second, end, first)", "1", {-1: "1"}),
        ("s3: i64[1] = const [2] y = Slice(up, second, end, first, s3)", "1", {-1: "2"}),
        ("y = Slice(up, second, end)", "1", {-1: "1"}),
        ("y = Slice(row, second, end, last)", "1", {-1: "1"}),
        ("p: i64[1] = const [-1] y = Concat(p, up) {axis=0}", "-1", {-1: "1"}),
        ("more = Add(up, n) y = Concat(up, more) {axis=0}", "0", {-1: "1"}),
        ("y: i64[2,3] = const [5, 7, 9, 8, 10, 12]", "5", {-1: "2", -2: "3"}),
        ("y: i64[3] = const [4, 4, 4]", "4", {}),
        ("a = Sub(up, up) y = CumSum(a, zero)", "0", {}),
        ("a = Sub(up, up) y = Gather(a, k)", "0", {}),
        ("y = Equal(up, up)", "1", {}),
        ("y = Equal(up, n)", "0", {}),
        ("y = GreaterOrEqual(up, zero)", "1", {}),
        ("y = Less(up, zero)", "0", {}),
        ("y = Less(up, n)", "1", {}),
        ("y = LessOrEqual(n, up)", "0", {}),
        ("a = GreaterOrEqual(up, zero) y = Not(a)", "0", {}),
        ("a = GreaterOrEqual(up, zero) y = Cast(a) {to=7}", "1", {}),
        ("a = GreaterOrEqual(up, zero) c = Less(column, n) y = And(a, c)", "1", {}),
    ],
)
def test_counts_are_known_and_right(body, offset, strides):
    graph = graph_of(body)
    found = affine(graph.outputs[0])
    assert found is not None
    assert (found.offset, dict(found.strides)) == (parse_dim(offset), {a: parse_dim(s) for a, s in strides.items()})
    (actual,) = run_graph(graph)
    expected = np.full(actual.shape, evaluate(found.offset, SIZES))
    for axis, stride in found.strides.items():
        expected += (np.arange(actual.shape[axis]) * evaluate(stride, SIZES)).reshape(-1, *(1,) * (-axis - 1))
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize(
    "body",
    [
        "y = Identity(k)",  # the contents of an input
        "y = Mul(row, column)",
        "y = Gather(up, k)",
        "c = Concat(t, s) {axis=0} e = Expand(row, c) y = Reshape(e, last)",  # starts again in each row
        "y = Slice(up, last, end)",  # where it starts depends on the size
        "l: i64[1] = const [-9223372036854775807] y = Slice(up, last, l, first, last)",  # backwards
        "l: i64[1] = const [3] y = Slice(up, l, first, first, last)",
        "y = Expand(up, t)",  # as many as there are batches, which may not be as many
        "y = Concat(up, up) {axis=0}",  # starts again
        "z = Sub(row, row) y = Concat(row, z) {axis=0}",  # one row that counts, one that does not
        "more = Add(up, two) y = Concat(up, more) {axis=0}",  # overlaps
        "a = Add(row, two) y = Concat(row, a, row) {axis=0}",
        "y = Cast(up) {to=3}",  # wraps around
        "y = Cast(up) {to=1}",  # no integer
        "a = Sub(up, up) c = Add(a, one) y = CumSum(c, zero)",
        "y = Greater(up, zero)",
        "y = Equal(row, column)",
        "y = Equal(zero, up)",
        "y = Equal(n, two)",
        "y = LessOrEqual(n, two)",
        "y: i64[2,2] = const [0, 1, 1, 3]",
        "y: i64[3] = const [0, 1, 3]",
    ],
)
def test_what_is_not_such_a_count_is_not_taken_for_one(body):
    assert affine(graph_of(body).outputs[0]) is None


def test_two_counts_whose_lengths_may_differ_are_not_compared():
    # One of batch and seq may be 1, and its only index is then repeated along the other.
    graph = graph_of("y = Identity(k)")
    values = {value.name: value for value in graph.values()}
    assert difference(values["up"], values["batches"]) is None
    assert difference(values["up"], values["row"]) == Affine(0)
    assert difference(values["row"], values["column"]) == Affine(0, {-1: 1, -2: -1})
    assert difference(values["up"], values["k"]) is None


@pytest.mark.parametrize(
    ("count", "shape", "lowest"),
    [
        (Affine(3), (4,), 3),
        (Affine(-2, {-1: 1}), (symbol("seq"),), -2),
        (Affine(symbol("seq") - 1, {-1: -1}), (symbol("seq"),), 0),
        (Affine(0, {-1: -2}), (4,), -6),
        (Affine(0, {-1: -1}), (symbol("seq"),), None),
    ],
)
def test_the_least_of_a_count(count, shape, lowest):
    assert least(count, shape) == lowest


@pytest.mark.parametrize("items", [[2**40, -(2**63)], [-(2**63), 2**63 - 1], [-(2**63), 0], [0, 2**62, -(2**63)]])
def test_positions_beyond_every_size_are_not_followed(items):
    assert affine(graph_of(f"y: i64[{len(items)}] = const {items}").outputs[0]) is None

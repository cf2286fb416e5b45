"""If, Loop and Scan: graphs given as text, their types, and what they compute."""

import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, SequenceType, TensorType, symbol
from miniinfer_cli.ir.text import parse_graph
from miniinfer_cli.ops import infer_outputs
from miniinfer_cli.ops.interpreter import interpret
from tests.graph_text import typed_graph

N = symbol("n")
F32 = DType.F32

IF = """
graph main(c: bool[], x: f32[n,4], y: f32[n,4]) {
  r: ? = If(c, x, y)
    then_branch: graph then(a, b) {
      s = Add(a, b)
      return s
    }
    else_branch: graph other(a, b) {
      s = Concat(a, b) {axis=0}
      return s
    }
  return r
}
"""

FIBONACCI = """
graph main(m: i64[], c: bool[], a: i64[1], b: i64[1], limit: i64[1]) {
  x, y, all = Loop(m, c, a, b, limit) {n_captures=1}
    body: graph body(i, going, p, q, top) {
      s = Add(p, q)
      more = Less(s, top)
      flag = Squeeze(more)
      return flag, q, s, p
    }
  return x, y, all
}
"""

GROWING = """
graph main(m: i64[], x: f32[n,2]) {
  last, sums = Loop(m, -, x, x) {n_captures=1}
    body: graph body(i, going, grown, piece) {
      axes: i64[1] = const [0]
      more = Concat(grown, piece) {axis=0}
      sum = ReduceSum(grown, axes) {keepdims=0}
      return going, more, sum
    }
  return last, sums
}
"""

RUNNING = """
graph main(init: f32[3], x: f32[n,3], bias: f32[3]) {
  final, sums, products = Scan(init, x, bias) {num_scan_inputs=1, n_captures=1}
    body: graph body(state, element, shift) {
      next = Add(state, element)
      shifted = Add(next, shift)
      product = Mul(next, element)
      return next, shifted, product
    }
  return final, sums, products
}
"""


def types_of(text, *replaced):
    graph = parse_graph(text)
    types = [v.type for v in graph.inputs]
    for index, type in replaced:
        types[index] = type
    return infer_outputs(graph, types)


def tensor(*shape, dtype=F32):
    return TensorType(dtype, shape)


def known(value, dtype=DType.BOOL):
    return TensorType(dtype, np.shape(value), np.asarray(value))


def is_open(dim):
    return not isinstance(dim, int) and str(dim).startswith("?")


class TestIf:
    def test_runs_the_branch_that_is_asked_for(self):
        x, y = np.ones((2, 4), np.float32), np.full((2, 4), 2, np.float32)
        graph = parse_graph(IF)
        (taken,) = interpret(graph, [np.array(True), x, y])
        np.testing.assert_array_equal(taken, x + y)
        (other,) = interpret(graph, [np.array([False]), x, y])
        np.testing.assert_array_equal(other, np.concatenate([x, y]))

    def test_has_the_type_that_both_branches_share(self):
        (both,) = types_of(IF)
        assert both.dtype is F32
        assert is_open(both.shape[0])
        assert both.shape[1] == 4

    def test_has_the_type_of_the_branch_where_the_condition_is_known(self):
        assert types_of(IF, (0, known(True))) == (tensor(N, 4),)
        assert types_of(IF, (0, known(False))) == (tensor(2 * N, 4),)

    def test_keeps_contents_that_both_branches_know_alike(self):
        text = """
        graph main(c: bool[], x: f32[n,4]) {
          r = If(c, x)
            then_branch: graph then(a) {
              s = Shape(a)
              return s
            }
            else_branch: graph other(a) {
              t = Neg(a)
              s = Shape(t)
              return s
            }
          return r
        }
        """
        (shape,) = types_of(text)
        assert shape.known.tolist() == [N, 4]

    def test_open_dimensions_of_the_two_branches_are_not_one(self):
        text = """
        graph main(c: bool[], x: f32[n], y: f32[n]) {
          r, s = If(c, x, y)
            then_branch: graph then(a, b) {
              v = NonZero(a)
              w = NonZero(b)
              return v, w
            }
            else_branch: graph other(a, b) {
              v = NonZero(b)
              w = NonZero(a)
              return v, w
            }
          z = Shape(r)
          u = Shape(s)
          e = Sub(z, u)
          return r, s, e
        }
        """
        r, s, difference = types_of(text)
        assert r.shape[1] != s.shape[1]
        assert difference.known.tolist()[1] != 0

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("c: bool[]", "c: bool[2]", r"condition of one bool, got bool\[2\]"),
            ("c: bool[]", "c: i64[]", "condition of one bool, got i64"),
            ("s = Concat(a, b) {axis=0}", "s = Cast(a) {to=7}", r"element types differ .*f32\[n,4\] and i64\[n,4\]"),
            ("s = Concat(a, b) {axis=0}", "s = SequenceConstruct(a, b)", "kinds of value differ"),
            ("return s\n    }\n    else", "return s, a\n    }\n    else", "2 outputs in then_branch and 1 in else_branch"),
        ],
    )
    def test_branches_that_do_not_fit_are_refused(self, old, new, message):
        assert old in IF
        with pytest.raises(ModelError, match=message):
            types_of(IF.replace(old, new, 1))


class TestLoop:
    def run(self, m, going=True, limit=1000):
        graph = parse_graph(FIBONACCI)
        one = np.array([1])
        return interpret(graph, [np.array(m), np.array(going), one, one, np.array([limit])])

    def test_stops_after_the_trip_count(self):
        x, y, terms = self.run(5)
        assert (x.tolist(), y.tolist(), terms.tolist()) == ([8], [13], [[1], [1], [2], [3], [5]])

    def test_stops_when_the_condition_fails(self):
        x, y, terms = self.run(100, limit=10)
        assert (x.tolist(), y.tolist(), terms.tolist()) == ([8], [13], [[1], [1], [2], [3], [5]])

    def test_without_rounds_gives_what_it_got(self):
        for m, going in ((0, True), (5, False)):
            x, y, terms = self.run(m, going)
            assert (x.tolist(), y.tolist()) == ([1], [1])
            assert (terms.shape, terms.dtype) == ((0, 1), np.int64)

    def test_without_a_trip_count_the_condition_ends_it(self):
        graph = parse_graph(FIBONACCI.replace("Loop(m, c,", "Loop(-, -,"))
        one = np.array([1])
        _, y, _ = interpret(graph, [np.array(0), np.array(True), one, one, np.array([100])])
        assert y.tolist() == [144]

    def test_counts_its_rounds_from_zero(self):
        text = """
        graph main(m: i64[]) {
          rounds = Loop(m, -)
            body: graph body(i, going) {
              same = Identity(i)
              return going, same
            }
          return rounds
        }
        """
        (rounds,) = interpret(parse_graph(text), [np.array(4)])
        np.testing.assert_array_equal(rounds, np.arange(4))

    def test_a_carried_value_that_changes_has_open_contents_and_sizes(self):
        x, y, terms = types_of(FIBONACCI, (2, known([1], DType.I64)))
        assert x == y == TensorType(DType.I64, (1,))
        assert x.known is None
        assert is_open(terms.shape[0])
        assert terms.shape[1] == 1
        last, sums = types_of(GROWING)
        assert is_open(last.shape[0])
        assert last.shape[1] == sums.shape[1] == 2

    def test_a_carried_value_that_stays_keeps_its_size_and_contents(self):
        text = FIBONACCI.replace("return flag, q, s, p", "return flag, p, q, s")
        x, _, _ = types_of(text, (2, known([7], DType.I64)))
        assert x.known.tolist() == [7]

    def test_the_trip_count_is_the_length_where_nothing_else_ends_it(self):
        _, sums = types_of(GROWING, (0, known(6, DType.I64)))
        assert sums == tensor(6, 2)
        _, sums = types_of(GROWING, (0, TensorType(DType.I64, (), np.array(N, object))))
        assert sums == tensor(N, 2)
        _, sums = types_of(GROWING, (0, known(-1, DType.I64)))
        assert sums == tensor(0, 2)
        *_, terms = types_of(FIBONACCI, (0, known(6, DType.I64)), (1, known(True)))
        assert is_open(terms.shape[0])

    def test_the_rank_of_a_carried_value_may_change(self):
        text = GROWING.replace("more = Concat(grown, piece) {axis=0}", "more = Unsqueeze(piece, axes)").replace(
            "sum = ReduceSum(grown, axes) {keepdims=0}", "sum = Neg(piece)"
        )
        assert types_of(text)[0] == TensorType(F32)
        last, _ = interpret(parse_graph(text), [np.array(2), np.ones((3, 2), np.float32)])
        assert last.shape == (1, 3, 2)

    def test_sequences_are_carried(self):
        text = """
        graph main(m: i64[], x: f32[n,2]) {
          none = SequenceEmpty() {dtype=1}
          many = Loop(m, -, none, x) {n_captures=1}
            body: graph body(i, going, list, piece) {
              more = SequenceInsert(list, piece)
              return going, more
            }
          y = ConcatFromSequence(many) {axis=0}
          return many, y
        }
        """
        many, _ = types_of(text)
        assert many == SequenceType(TensorType(F32))
        x = np.ones((1, 2), np.float32)
        _, y = interpret(parse_graph(text), [np.array(3), x])
        np.testing.assert_array_equal(y, np.ones((3, 2), np.float32))

    def test_without_rounds_a_carried_sequence_tells_the_sizes(self):
        text = """
        graph main(m: i64[], xs: seq(f32[n])) {
          last, firsts = Loop(m, -, xs)
            body: graph body(i, going, list) {
              zero: i64[] = const 0
              first = SequenceAt(list, zero)
              return going, list, first
            }
          return last, firsts
        }
        """
        _, firsts = interpret(parse_graph(text), [np.array(0), [np.ones(3, np.float32)]])
        assert (firsts.shape, firsts.dtype) == ((0, 3), np.float32)

    def test_the_body_is_annotated_with_what_holds_in_every_round(self):
        body = typed_graph(GROWING).nodes[0].graphs["body"]
        _, _, grown, piece = (v.type for v in body.inputs)
        assert piece == tensor(N, 2)
        assert not isinstance(grown.shape[0], int)
        assert grown.shape[0] != N
        assert body.nodes[0].outputs[0].type.shape == (grown.shape[0] + N, 2)

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("body(i, going, p, q, top)", "body(i, going, p, q, top, odd)", "gives its body 5 inputs, the body takes 6"),
            ("return flag, q, s, p", "return flag, q", "carries values into 3 outputs of its body, the body has 2"),
            ("s = Add(p, q)", "s = Cast(p) {to=1}", "element types differ"),
            ("c: bool[]", "c: f32[]", "condition of one bool"),
        ],
    )
    def test_bodies_that_do_not_fit_are_refused(self, old, new, message):
        text = FIBONACCI.replace(old, new, 1)
        if "Cast" in new:
            text = text.replace("more = Less(s, top)", "more = Less(p, top)")
        with pytest.raises(ModelError, match=message):
            types_of(text)


class TestScan:
    X = np.arange(12, dtype=np.float32).reshape(4, 3)
    INIT, BIAS = np.ones(3, np.float32), np.full(3, 10, np.float32)

    def expected(self, x):
        states = self.INIT + np.cumsum(x, axis=0)
        return (states[-1], states + 10, states * x)

    def check(self, text, x, expected):
        for result, want in zip(interpret(parse_graph(text), [self.INIT, x, self.BIAS]), expected, strict=True):
            np.testing.assert_array_equal(result, want)

    def test_carries_the_state_and_stacks_the_rest(self):
        self.check(RUNNING, self.X, self.expected(self.X))

    def test_reads_and_fills_from_the_end(self):
        backwards = self.X[::-1]
        final, sums, products = self.expected(backwards)
        text = RUNNING.replace("{num_scan", "{scan_input_directions=[1], scan_output_directions=[0, 1], num_scan")
        self.check(text, self.X, (final, sums, products[::-1]))

    def test_scans_along_other_axes(self):
        final, sums, products = self.expected(self.X)
        text = RUNNING.replace("f32[n,3]", "f32[3,n]").replace(
            "{num_scan", "{scan_input_axes=[-1], scan_output_axes=[1, -1], num_scan"
        )
        self.check(text, np.ascontiguousarray(self.X.T), (final, sums.T, products.T))
        assert types_of(text) == (tensor(3), tensor(3, N), tensor(3, N))

    def test_without_elements(self):
        empty = np.zeros((0, 3), np.float32)
        self.check(RUNNING, np.zeros((0, 3), np.float32), (self.INIT, empty, empty))

    def test_types(self):
        assert types_of(RUNNING) == (tensor(3), tensor(N, 3), tensor(N, 3))

    def test_an_element_is_without_its_axis(self):
        text = """
        graph main(x: f32[2,n,5], y: f32[7,3,n]) {
          a, b = Scan(x, y) {num_scan_inputs=2, scan_input_axes=[1, 2], scan_output_axes=[2, -2]}
            body: graph body(p, q) {
              c = Neg(p)
              d = Neg(q)
              return c, d
            }
          return a, b
        }
        """
        assert types_of(text) == (tensor(2, 5, N), tensor(7, N, 3))
        x, y = np.ones((2, 4, 5), np.float32), np.ones((7, 3, 4), np.float32)
        a, b = interpret(parse_graph(text), [x, y])
        assert (a.shape, b.shape) == ((2, 5, 4), (7, 4, 3))

    def test_a_scanned_input_of_unknown_shape(self):
        *_, sums, _ = types_of(RUNNING, (1, TensorType(F32)))
        assert sums.dtype is F32
        assert sums.shape is None

    def test_inputs_of_two_lengths_are_refused(self):
        text = """
        graph main(x: f32[3], y: f32[4]) {
          z = Scan(x, y) {num_scan_inputs=2}
            body: graph body(a, b) {
              c = Add(a, b)
              return c
            }
          return z
        }
        """
        with pytest.raises(ModelError, match="lengths of the scanned inputs differ: 3 is not 4"):
            types_of(text)

    def test_more_scanned_inputs_than_inputs_are_refused(self):
        with pytest.raises(ModelError, match="num_scan_inputs is 3, expected 1 to 2"):
            types_of(RUNNING.replace("num_scan_inputs=1", "num_scan_inputs=3"))


def test_nested_loops_with_outer_captures():
    text = """
    graph main(m: i64[], x: f32[n]) {
      y = Loop(m, -, x, m, x) {n_captures=2}
        body: graph outer(i, going, state, count, step) {
          next = Loop(count, -, state, step) {n_captures=1}
            body: graph inner(j, go, value, add) {
              sum = Add(value, add)
              return go, sum
            }
          return going, next
        }
      return y
    }
    """
    (y,) = interpret(parse_graph(text), [np.array(3), np.array([1.0, 2.0])])
    np.testing.assert_array_equal(y, [10, 20])
    assert types_of(text) == (tensor(N),)


CARRYING_NOTHING = """
graph main(m: i64[], x: f32[3]) {
  last, all = OP
    body: graph body(HEAD) {
      total = Add(sum, sum)
      return TAIL
    }
  return last, all
}
"""


@pytest.mark.parametrize(
    ("op", "head", "tail", "number"),
    [
        ("Scan(-, x) {num_scan_inputs=1}", "sum, next", "total, next", 0),
        ("Loop(m, -, -, x) {n_captures=1}", "i, going, sum, x", "going, total, x", 2),
        ("SequenceMap(x, -)", "sum, other", "total, other", 1),
    ],
)
def test_what_a_body_reads_may_not_be_left_out(op: str, head: str, tail: str, number: int) -> None:
    text = CARRYING_NOTHING.replace("OP", op).replace("HEAD", head).replace("TAIL", tail)
    if op.startswith("SequenceMap"):
        text = text.replace("x: f32[3]", "x: seq(f32[3])")
    with pytest.raises(ModelError, match=f"{op[:4]}.* needs input {number}, which is left out"):
        typed_graph(text)

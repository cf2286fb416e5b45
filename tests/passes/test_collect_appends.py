"""collect_appends: what a Loop appends in every round is collected, and joined once behind it."""

import numpy as np
import pytest

from miniinfer_cli.devices.opening import load
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.passes.collect_appends import collect_appends
from miniinfer_cli.passes.pipeline import optimize
from miniinfer_cli.planning.freeze import freeze
from tests.emulation.engine import open_emulated
from tests.passes.graphs import read_graph


def test_pieces_of_one_shape_become_a_scanned_output(rewrites):
    rewrites(
        collect_appends,
        """graph main(x: f32[3,4], start: f32[2,4]) {
          m: i64[] = const 5
          y, s = Loop(m, -, start, x) {n_captures=1}
            body: graph body(i: i64[], going: bool[], acc: f32[n,4], x: f32[3,4]) {
              u = Neg(x)
              more = Concat(acc, u) {axis=0}
              return going, more, x
            }
          return y, s
        }""",
        """graph main(x: f32[3,4], start: f32[2,4]) {
          m: i64[] = const 5
          s: f32[5,3,4], pieces: f32[5,3,4] = Loop(m, -, x) {n_captures=1} @y
            body: graph body(i: i64[], going: bool[], x: f32[3,4]) {
              u: f32[3,4] = Neg(x)
              return going, x, piece=u
            }
          pieces_shape: i64[2] = const [-1, 4]
          reshape: f32[15,4] = Reshape(pieces, pieces_shape)
          y: f32[17,4] = Concat(start, reshape) {axis=0} @more
          return y, s
        }""",
        improves_types=True,
    )


def test_along_a_later_axis_the_rounds_are_moved_there(rewrites):
    rewrites(
        collect_appends,
        """graph main(x: f32[3,4], start: f32[3,2]) {
          m: i64[] = const 5
          y = Loop(m, -, start, x) {n_captures=1}
            body: graph body(i: i64[], going: bool[], acc: f32[3,n], x: f32[3,4]) {
              u = Neg(x)
              more = Concat(acc, u, x) {axis=-1}
              return going, more
            }
          return y
        }""",
        """graph main(x: f32[3,4], start: f32[3,2]) {
          m: i64[] = const 5
          pieces: f32[5,3,8] = Loop(m, -, x) {n_captures=1} @y
            body: graph body(i: i64[], going: bool[], x: f32[3,4]) {
              u: f32[3,4] = Neg(x)
              piece: f32[3,8] = Concat(u, x) {axis=-1}
              return going, piece_1=piece
            }
          transpose: f32[3,5,8] = Transpose(pieces) {perm=[1, 0, 2]}
          pieces_shape: i64[2] = const [3, -1]
          reshape: f32[3,40] = Reshape(transpose, pieces_shape)
          y: f32[3,42] = Concat(start, reshape) {axis=1} @more
          return y
        }""",
        improves_types=True,
    )


def test_pieces_of_other_shapes_become_a_sequence(rewrites):
    rewrites(
        collect_appends,
        """graph main(x: f32[3,4], start: f32[2,4]) {
          m: i64[] = const 3
          y, z = Loop(m, -, start, x, x) {n_captures=1}
            body: graph body(i: i64[], going: bool[], acc: f32[n,4], kept: f32[3,4], x: f32[3,4]) {
              zero: i64[1] = const [0]
              end = Unsqueeze(i, zero)
              u = Slice(x, zero, end, zero)
              more = Concat(acc, u) {axis=0}
              less = Sub(kept, x)
              return going, more, less
            }
          return y, z
        }""",
        """graph main(x: f32[3,4], start: f32[2,4]) {
          sequenceconstruct: seq(f32[2,4]) = SequenceConstruct(start)
          m: i64[] = const 3
          pieces: seq(f32[?,4]), z: f32[3,4] = Loop(m, -, sequenceconstruct, x, x) {n_captures=1} @y
            body: graph body(i: i64[], going: bool[], acc: seq(f32[?,4]), kept: f32[3,4], x: f32[3,4]) {
              zero: i64[1] = const [0]
              end: i64[1] = Unsqueeze(i, zero)
              u: f32[?u.0,4] = Slice(x, zero, end, zero)
              more: seq(f32[?,4]) = SequenceInsert(acc, u)
              less: f32[3,4] = Sub(kept, x)
              return going, more, less
            }
          y: f32[?y.0,4] = ConcatFromSequence(pieces) {axis=0, new_axis=0} @more
          return y, z
        }""",
        improves_types=True,
    )


def test_sizes_that_only_the_joined_tensor_tells_stay_known(rewrites):
    rewrites(
        collect_appends,
        """graph main(x: f32[3,4], start: f32[2,4], k: i64[1]) {
          m: i64[] = const 3
          y = Loop(m, -, start, x, k) {n_captures=2}
            body: graph body(i: i64[], going: bool[], acc: f32[n,4], x: f32[3,4], k: i64[1]) {
              zero: i64[1] = const [0]
              axes: i64[2] = const [0, 1]
              from: i64[2] = const [0, 0]
              four: i64[1] = const [4]
              size = Clip(k, four, four)
              to = Concat(four, size) {axis=0}
              u = Slice(x, from, to, axes)
              more = Concat(acc, u) {axis=0}
              return going, more
            }
          return y
        }""",
        """graph main(x: f32[3,4], start: f32[2,4], k: i64[1]) {
          sequenceconstruct: seq(f32[2,4]) = SequenceConstruct(start)
          m: i64[] = const 3
          pieces: seq(f32[?,?]) = Loop(m, -, sequenceconstruct, x, k) {n_captures=2} @y
            body: graph body(i: i64[], going: bool[], acc: seq(f32[?,?]), x: f32[3,4], k: i64[1]) {
              four: i64[1] = const [4]
              size: i64[1] = Clip(k, four, four)
              to: i64[2] = Concat(four, size) {axis=0}
              from: i64[2] = const [0, 0]
              axes: i64[2] = const [0, 1]
              u: f32[?u.0,?u.1] = Slice(x, from, to, axes)
              more: seq(f32[?,?]) = SequenceInsert(acc, u)
              return going, more
            }
          y_1: f32[?y_1.0,?y_1.1] = ConcatFromSequence(pieces) {axis=0, new_axis=0} @more
          joined_shape: i64[2] = const [0, 4]
          y: f32[?y_1.0,4] = Reshape(y_1, joined_shape) @more_sizes
          return y
        }""",
        improves_types=True,
    )


LOOP = """graph main(m: i64[], x: f32[3,4], start: f32[2,4]) {
  y, z = Loop(m, -, start, start, x) {n_captures=1}
    body: graph body(i: i64[], going: bool[], acc: f32[n,4], other: f32[k,4], x: f32[3,4]) {
      zero: i64[1] = const [0]
      end = Unsqueeze(i, zero)
      u = Slice(x, zero, end, zero)
      BODY
    }
  return y, z
}"""

OTHERS = {
    "read besides": "more = Concat(acc, u) {axis=0} t = ReduceSum(acc, zero) o = Add(other, t) return going, more, o",
    "its result read besides": "more = Concat(acc, u) {axis=0} t = ReduceSum(more, zero) o = Add(other, t) return going, more, o",
    "returned twice": "more = Concat(acc, u) {axis=0} return going, more, again=more",
    "returned as it was": "more = Concat(acc, u) {axis=0} return going, more, acc",
    "put behind": "more = Concat(u, acc) {axis=0} return going, more, other",
    "joined with itself": "more = Concat(acc, acc) {axis=0} return going, more, other",
    "appended to another": "a = Concat(other, u) {axis=0} b = Concat(acc, u) {axis=0} return going, a, b",
    "joined with nothing": "more = Concat(acc) {axis=0} return going, more, other",
    "added to": "more = Add(acc, acc) return going, more, other",
}


@pytest.mark.parametrize("what", OTHERS)
def test_what_is_more_than_appended_to_stays(what: str, leaves):
    leaves(collect_appends, LOOP.replace("BODY", OTHERS[what]))


BOTH = {
    "gathered first": """v = Neg(x)
      more = Concat(acc, u, v) {axis=0}
      rest = Concat(other, v, x) {axis=0}
      return going, more, rest""",
    "scanned first": """v = Neg(x)
      more = Concat(acc, v, x) {axis=0}
      rest = Concat(other, u, v) {axis=0}
      return going, more, rest""",
}


@pytest.mark.parametrize("order", BOTH)
@pytest.mark.parametrize("rounds", [0, 1, 5])
def test_both_kinds_in_one_loop(rounds: int, order: str):
    graph = read_graph(LOOP.replace("BODY", BOTH[order]))
    rng = np.random.default_rng(rounds)
    inputs = [np.array(rounds), rng.random((3, 4), np.float32), rng.random((2, 4), np.float32)]
    want = interpret(graph, inputs)
    assert collect_appends(graph) == 2
    (loop,) = (n for n in graph if n.op == "Loop")
    gathered, scanned = loop.outputs
    assert (str(gathered.type), scanned.tensor.shape[1:]) == ("seq(f32[?,4])", (6, 4))
    for got, expected in zip(interpret(graph, inputs), want, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_a_scanned_piece_with_no_elements_has_no_shape_to_tell(outputs_of, graph_of):
    """A Reshape to [-1, 0] could not say how many rounds there were: such pieces become a sequence."""
    graph = graph_of(LOOP.replace("f32[3,4]", "f32[3,0]").replace(",4]", ",0]").replace("BODY", BOTH["scanned first"]))
    want = outputs_of(graph)
    assert collect_appends(graph) == 2
    assert sum(n.op == "ConcatFromSequence" for n in graph) == 2
    for got, expected in zip(outputs_of(graph), want, strict=True):
        assert got.shape == expected.shape


def test_loops_within_loops(outputs_of, graph_of):
    graph = graph_of(
        """graph main(x: f32[3,4], start: f32[2,4]) {
          m: i64[] = const 3
          y = Loop(m, -, start, x, m) {n_captures=2}
            body: graph body(i: i64[], going: bool[], acc: f32[n,4], x: f32[3,4], m: i64[]) {
              inner = Loop(m, -, x, x) {n_captures=1}
                body: graph inner(j: i64[], on: bool[], grown: f32[k,4], x: f32[3,4]) {
                  more = Concat(grown, x) {axis=0}
                  return on, more
                }
              all = Concat(acc, inner) {axis=0}
              return going, all
            }
          return y
        }"""
    )
    (want,) = outputs_of(graph)
    optimize(graph, 1, check=True)
    (got,) = outputs_of(graph)
    np.testing.assert_array_equal(got, want)
    loops = [n for n in graph if n.op == "Loop"]
    loops += [n for n in loops[0].graphs["body"] if n.op == "Loop"]
    assert [str(v.type) for n in loops for v in n.outputs] == ["seq(f32[?,4])", "f32[3,3,4]"]


PASTED = """graph main(m: i64[], sizes: i64[100], x: f32[3,4], start: f32[2,4]) {
  y = Loop(m, -, start, x, sizes) {n_captures=2}
    body: graph body(i: i64[], going: bool[], acc: f32[n,4], x: f32[3,4], sizes: i64[100]) {
      zero: i64[1] = const [0]
      size = Gather(sizes, i) {axis=0}
      end = Unsqueeze(size, zero)
      u = Slice(x, zero, end, zero)
      more = Concat(acc, u) {axis=0}
      return going, more
    }
  return y
}"""


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_body_has_one_program_whatever_came_before(device: str):
    """As masks are pasted: which box it is, and how large, is data."""
    graph = read_graph(PASTED)
    rng = np.random.default_rng(0)
    feeds = {"m": np.array(20), "sizes": rng.integers(0, 4, 100)}
    feeds |= {"x": rng.random((3, 4), np.float32), "start": rng.random((2, 4), np.float32)}
    (want,) = interpret(graph, list(feeds.values()))
    collect_appends(graph)
    plan = freeze(graph)
    with load(plan, "cpu") if device == "cpu" else open_emulated(plan) as engine, engine.create_context() as context:
        for _ in range(2):
            np.testing.assert_array_equal(context.run(feeds)["y"], want)
        nested = context._device._nested
        assert len(nested._made if device == "cpu" else nested.model._nested) == 1

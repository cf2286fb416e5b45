"""If, Loop and Scan whose bodies run on the device, against the processor."""

import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from tests.backends.cuda.checked_runs import check, keep_from_device
from tests.emulation.engine import open_emulated, plan_of

X = np.array([[1, -2, 3], [4, 5, -6]], np.float32)
TRUE, FALSE = np.array(True), np.array(False)

IF = """
graph main(x: f32[n,3], c: bool[]) {
  a = Neg(x)
  y = If(c, a, x)
    then_branch: graph then(p, q) {
      r = Add(p, p)
      return r
    }
    else_branch: graph other(p, q) {
      return q
    }
  z = Exp(y)
  return y, z
}
"""

LOOP = """
graph main(x: f32[n,3], m: i64[], c: bool[]) {
  a = Neg(x)
  v, s = Loop(m, c, a, x) {n_captures=1}
    body: graph body(i, going, v, k) {
      limit: f32[] = const 30.0
      u = Add(v, k)
      t = Mul(u, k)
      most = ReduceMax(u) {keepdims=0}
      on = Less(most, limit)
      return on, u, t
    }
  w = Exp(v)
  return v, w, s
}
"""

GROWING = """
graph main(m: i64[], x: f32[n,2]) {
  y = Neg(x)
  last, sums = Loop(m, -, y, y) {n_captures=1}
    body: graph body(i, going, grown, piece) {
      axes: i64[1] = const [0]
      more = Concat(grown, piece) {axis=0}
      sum = ReduceSum(grown, axes) {keepdims=0}
      return going, more, sum
    }
  z = Neg(sums)
  return last, sums, z
}
"""

COUNTED = """
graph main(x: f32[n,3]) {
  m: i64[] = const 4
  v, s = Loop(m, -, x)
    body: graph body(i, going, v) {
      yes: bool[] = const true
      u = Mul(v, v)
      f = Cast(i) {to=1}
      t = Add(u, f)
      return yes, u, t
    }
  z = Neg(s)
  return z, s, v
}
"""

RUNNING = """
graph main(init: f32[3], x: f32[n,3], bias: f32[3]) {
  a = Neg(x)
  final, sums, products = Scan(init, a, bias) {num_scan_inputs=1, n_captures=1 DIRECTIONS}
    body: graph body(state, element, shift) {
      next = Add(state, element)
      shifted = Add(next, shift)
      product = Mul(state, element)
      return next, shifted, product
    }
  z = Exp(sums)
  w = Neg(products)
  return final, sums, products, z, w
}
"""

NESTED = """
graph main(x: f32[n,3], m: i64[]) {
  y = Loop(m, -, x, m) {n_captures=1}
    body: graph outer(i, going, v, inner_count) {
      w = Loop(inner_count, -, v)
        body: graph inner(j, on, u) {
          t = Neg(u)
          return on, t
        }
      two: i64[] = const 2
      zero: i64[] = const 0
      rest = Mod(i, two)
      odd = Equal(rest, zero)
      s = If(odd, w, v)
        then_branch: graph then(p, q) {
          r = Add(p, q)
          return r
        }
        else_branch: graph other(p, q) {
          r = Sub(p, q)
          r2 = Exp(r)
          return r2
        }
      return going, s
    }
  z = Abs(y)
  return y, z
}
"""

SHAPED = """
graph main(x: f32[n], m: i64[], counts: i64[3,1]) {
  zero: i64[1] = const [0]
  first: f32[0] = const []
  y = Loop(m, -, first, x, counts) {n_captures=2}
    body: graph body(i, going, joined, all, ends) {
      start: i64[1] = const [0]
      end = Gather(ends, i) {axis=0}
      part = Slice(all, start, end)
      more = Concat(joined, part) {axis=0}
      return going, more
    }
  return y
}
"""


def loop_inputs(m: int, c: np.ndarray = TRUE, first: float = 0.0) -> dict:
    return {"x": X + np.float32(first), "m": np.array(m), "c": c}


def scan_inputs(shape: tuple[int, int], seed: int) -> dict:
    rng = np.random.default_rng(seed)
    return {k: rng.standard_normal(s).astype(np.float32) for k, s in (("init", 3), ("x", shape), ("bias", 3))}


def test_branches(emulated):
    copies = check(emulated, IF, *({"x": X + np.float32(t), "c": c} for t, c in enumerate((TRUE, FALSE, TRUE))))[0]
    assert copies["sends"] == 0


def test_branches_of_different_shapes(emulated):
    text = IF.replace("r = Add(p, p)\n", "r = Concat(p, q) {axis=0}\n")
    check(emulated, text, *({"x": X + np.float32(t), "c": c} for t, c in enumerate((TRUE, FALSE, TRUE))))


@pytest.mark.parametrize("m", [0, 1, 2, 5, 100, -3])
def test_loops(emulated, m: int):
    check(emulated, LOOP, loop_inputs(m), loop_inputs(3, first=0.5), loop_inputs(m, FALSE))


@pytest.mark.parametrize("m", [0, 1, 6])
def test_what_a_loop_carries_may_grow(emulated, m: int):
    x = X[:, :2]
    check(
        emulated,
        GROWING,
        {"m": np.array(m), "x": x},
        {"m": np.array(2), "x": np.repeat(x, 200, 0)},
        {"m": np.array(m), "x": x + 1},
    )


def test_what_a_counted_loop_collects_never_leaves_the_device(emulated):
    copies, _ = check(emulated, COUNTED, {"x": X}, {"x": X * np.float32(0.5)})
    # The condition is known, so that only the outputs that are no device step's go to the host: two fetches.
    assert copies["sends"] == 0


@pytest.mark.parametrize(
    "directions",
    [
        "",
        ", scan_input_directions=[1]",
        ", scan_output_directions=[1, 0]",
        ", scan_input_directions=[1], scan_output_directions=[0, 1]",
        ", scan_output_axes=[1, 0]",
        ", scan_output_axes=[-1, 1], scan_output_directions=[1, 1]",
    ],
)
@pytest.mark.parametrize("n", [0, 1, 4])
def test_scans(emulated, directions: str, n: int):
    check(emulated, RUNNING.replace(" DIRECTIONS", directions), *(scan_inputs((n, 3), seed) for seed in range(2)))


def test_a_scan_along_another_axis(emulated):
    text = RUNNING.replace(" DIRECTIONS", ", scan_input_axes=[1]").replace("x: f32[n,3]", "x: f32[3,n]")
    check(emulated, text, *(scan_inputs((3, 5), seed) for seed in range(2)))


@pytest.mark.parametrize("m", [0, 1, 3])
def test_control_flow_within_control_flow(emulated, m: int):
    check(emulated, NESTED, {"x": X * np.float32(0.1), "m": np.array(m)}, {"x": -X * np.float32(0.1), "m": np.array(2)})


def test_contents_that_decide_the_shapes_of_a_body(emulated):
    x = np.arange(8, dtype=np.float32)
    counts = np.array([[2], [5], [0]])
    check(
        emulated, SHAPED, {"x": x, "m": np.array(3), "counts": counts}, {"x": x, "m": np.array(2), "counts": counts[::-1].copy()}
    )


def test_computed_contents_that_decide_the_shapes_of_a_body(emulated):
    text = SHAPED.replace("  y = Loop", "  some = Abs(counts)\n  y = Loop").replace("x, counts) {n", "x, some) {n")
    x = np.arange(8, dtype=np.float32)
    for_each = [{"x": x, "m": np.array(3), "counts": np.array([[a], [-b], [0]])} for a, b in ((2, 5), (1, 7), (8, 3))]
    check(emulated, text, *for_each)


@pytest.mark.parametrize("text", [LOOP, COUNTED])
def test_host_steps_in_a_body(emulated, monkeypatch, text: str):
    keep_from_device(monkeypatch, "Mul")
    inputs = (loop_inputs(3), loop_inputs(2, first=1.5)) if text == LOOP else ({"x": X}, {"x": -X})
    check(emulated, text, *inputs)


def test_a_body_whose_sizes_depend_on_data(emulated):
    text = """
graph main(x: f32[n,3], m: i64[]) {
  y = Loop(m, -, x)
    body: graph body(i, going, v) {
      z = NonZero(v)
      t = Transpose(z) {perm=[1, 0]}
      g = GatherND(v, t)
      one: i64[1] = const [1]
      u = Unsqueeze(g, one)
      w = Concat(u, u, u) {axis=1}
      return going, w
    }
  return y
}
"""
    sparse = np.where(np.arange(6).reshape(2, 3) % 2, X, 0).astype(np.float32)
    check(emulated, text, {"x": sparse, "m": np.array(2)}, {"x": X, "m": np.array(1)})


def test_bodies_are_captured_too(emulated):
    with open_emulated(plan_of(LOOP), emulated) as engine, engine.create_context() as context:
        for _ in range(3):
            context.run(loop_inputs(4))
        nested = context._device._nested
        assert nested.runner.captures == 1
        assert context.arena_nbytes >= nested.arena_nbytes


def test_nothing_is_allocated_by_rounds_whose_shapes_were_seen(emulated):
    with open_emulated(plan_of(LOOP), emulated) as engine, engine.create_context() as context:
        for _ in range(4):
            context.run(loop_inputs(4))
        before = emulated.allocations
        for _ in range(10):
            context.run(loop_inputs(6))
        assert emulated.allocations == before


def test_an_error_in_a_body_names_the_way_to_it(emulated):
    text = LOOP.replace("u = Add(v, k)", "s = SequenceConstruct(v, k)\n      u: f32[n,3] = SequenceAt(s, i)")
    with open_emulated(plan_of(text), emulated) as engine, engine.create_context() as context:
        for _ in range(2):
            with pytest.raises(ModelError, match="node 'v': node 'u': SequenceAt"):
                context.run({"x": np.zeros((2, 3), np.float32), "m": np.array(9), "c": TRUE})
            assert context.run({"x": np.zeros((2, 3), np.float32), "m": np.array(1), "c": TRUE})["v"].tolist() == [[0] * 3] * 2


def test_views_of_what_the_host_made_are_no_steps(emulated):
    text = """
graph main(c: bool[], x: f32[2,3]) {
  two: i64[2] = const [3, 2]
  flat: i64[1] = const [-1]
  y = If(c, x)
    then_branch: graph a(x) {
      u = Neg(x)
      return u
    }
    else_branch: graph b(x) {
      v = Abs(x)
      return v
    }
  r = Reshape(y, two)
  f = Reshape(r, flat)
  t = Transpose(r) {perm=[1,0]}
  return t, r, f
}
"""
    x = np.arange(-3, 3, dtype=np.float32).reshape(2, 3)
    given = [{"c": np.array(c), "x": x + k} for c in (True, False) for k in (0, 1)]
    _, hosted = check(emulated, text, *given)
    assert hosted == []

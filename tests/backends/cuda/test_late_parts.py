"""Late parts on the emulated device: computed there once their sizes are known, for whatever sizes come."""

import threading

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.making import maker as making
from miniinfer_cli.errors import ModelError
from miniinfer_cli.ops.interpreter import interpret
from tests.emulation.engine import open_emulated, plan_of
from tests.graph_text import typed_graph
from tests.late_graphs import CHOSEN, TEXTS, chain, feeds


def expected(text: str, given: dict) -> list[np.ndarray]:
    return [np.asarray(a) for a in interpret(typed_graph(text), list(given.values()))]


@pytest.mark.parametrize("name", TEXTS)
def test_the_references_results_for_all_sizes(emulated, name: str):
    text = TEXTS[name]
    with open_emulated(plan_of(text), emulated) as engine, engine.create_context() as context:
        for rows, seed in ((5, 0), (5, 0), (5, 1), (9, 2), (5, 0), (1, 3), (1, 4), (5, 5), (9, 2), (9, 2)):
            given = feeds(name, rows, seed)
            for got, want in zip(context.run(given).values(), expected(text, given), strict=True):
                assert (got.dtype, got.shape) == (want.dtype, want.shape)
                np.testing.assert_allclose(got, want, rtol=1e-6)
        steps = engine.program(engine.check(given)).steps
        assert [s.tactic for s in steps].count("late") == 1
        hosted = {"around": ["b"], "reshaped": ["y"]}  # little to do; and what needs contents, not sizes
        assert [s.label for s in steps if s.tactic == "host"] == hosted.get(name, [])


def test_a_late_part_in_a_loop(emulated):
    text = """
graph main(m: i64[], x: f32[n,3], w: f32[3,3]) {
  last = Loop(m, -, x, w) {n_captures=1}
    body: graph body(i, going, state, weight) {
      zero: f32[] = const 0.0
      end: i64[1] = const [-1]
      first: i64[1] = const [0]
      top = ReduceMax(state, end) {keepdims=0}
      p = Greater(top, zero)
      c = NonZero(p)
      f = Reshape(c, end)
      g = Gather(state, f)
      y = MatMul(g, weight)
      s = ReduceSum(y, first) {keepdims=1}
      next = Sub(state, s)
      return going, next
    }
  return last
}
"""
    random = np.random.default_rng(0)
    given = {
        "m": np.array(5),
        "x": random.integers(-3, 4, (6, 3)).astype(np.float32),
        "w": np.eye(3, dtype=np.float32)[::-1].copy(),
    }
    with open_emulated(plan_of(text), emulated) as engine:
        for _ in range(3):
            np.testing.assert_array_equal(engine.run(given)["last"], expected(text, given)[0])


def test_two_are_under_way_with_sizes_of_their_own(emulated):
    with open_emulated(plan_of(CHOSEN), emulated) as engine, engine.create_context() as context:
        given = [feeds("chosen", 4 + n % 3, n) for n in range(9)]
        futures = [context.enqueue(x) for x in given]
        for future, x in zip(futures, given, strict=True):
            for got, want in zip(future.result().values(), expected(CHOSEN, x), strict=True):
                np.testing.assert_array_equal(got, want)


def test_nothing_chosen(emulated):
    with open_emulated(plan_of(CHOSEN), emulated) as engine:
        given = {"x": np.ones((4, 3), np.float32), "w": np.ones((3, 4), np.float32)}
        r, f = engine.run(given).values()
        assert (r.shape, f.shape) == ((0, 4), (0,))


def test_only_a_count_and_results_come_to_the_host(emulated):
    with open_emulated(plan_of(CHOSEN), emulated) as engine, engine.create_context() as context:
        given = feeds("chosen", 64, 0)
        context.run(given)
        before = engine.stats()["host_copies"]
        r, f = context.run(given).values()
        after = engine.stats()["host_copies"]
        assert after["fetched_nbytes"] - before["fetched_nbytes"] == 8 + r.nbytes + f.nbytes
        assert after["sent_nbytes"] == before["sent_nbytes"]


def test_a_chosen_part_in_pieces_is_fetched(emulated):
    """The coordinates of rank 2 lie in two rows, each cut to the count."""
    text = """
graph main(x: f32[n,3], w: f32[2,4]) {
  i = NonZero(x)
  t = Transpose(i) {perm=[1,0]}
  c = Cast(t) {to=1}
  y = MatMul(c, w)
  return y
}
"""
    with open_emulated(plan_of(text), emulated) as engine:
        x = np.array([[1, 0, 0], [0, 2, 3], [0, 0, 4], [0, 0, 0]], np.float32)
        w = np.arange(8, dtype=np.float32).reshape(2, 4)
        (y,) = engine.run({"x": x, "w": w}).values()
        np.testing.assert_array_equal(y, np.argwhere(x).astype(np.float32) @ w)


def test_sizes_that_come_again_are_not_lowered_again(emulated, monkeypatch):
    made = []
    make = making.make_program
    with open_emulated(plan_of(CHOSEN), emulated) as engine, engine.create_context() as context:
        monkeypatch.setattr(
            "miniinfer_cli.backends.cuda.models.model.make_program",
            lambda *given, **more: made.append(given) or make(*given, **more),
        )
        given = [feeds("chosen", 6, seed) for seed in range(3)]
        chosen = {len(expected(CHOSEN, x)[1]) for x in given}
        for x in given * 3:
            context.run(x)
        assert len(made) == 1 + len(chosen)  # the whole, and the part for each number of rows


def test_late_parts_are_timed_as_one_step(emulated):
    with open_emulated(plan_of(CHOSEN), emulated) as engine, engine.create_context() as context:
        given = feeds("chosen", 5, 0)
        times: list[int] = []
        arrays = list(engine.check(given))
        program = engine.program(arrays)
        context.run(given)
        outputs = context._device.execute(program, arrays, times)
        assert len(times) == len(program.steps)
        np.testing.assert_array_equal(outputs[0], expected(CHOSEN, given)[0])


def test_large_inputs_are_read_where_they_are(emulated):
    """Given as arrays of the host, they are on the device already when a part reads them."""
    given = feeds("chosen", 64, 0)
    text = CHOSEN.replace("g = Gather(a, f)", "g = Gather(x, f)")
    with open_emulated(plan_of(text), emulated) as engine, engine.create_context() as context:
        context.run(given)
        del emulated.copies[:]
        context.run(given)
        sent = [nbytes for way, nbytes in emulated.copies if way == "to device"]
        assert sum(sent) < 1.5 * (given["x"].nbytes + given["w"].nbytes) + 512


def test_what_shapes_tell_is_no_late_copy(emulated):
    text = """
graph main(x: f32[n,3], w: f32[3,4]) {
  last: i64[1] = const [-1]
  s = Shape(x)
  z = Expand(last, s)
  c = Cast(z) {to=1}
  i = NonZero(x)
  j = Gather(i, last)
  f = Reshape(j, last)
  d = Add(x, c)
  g = Gather(d, f)
  h = Gather(z, f)
  k = Cast(h) {to=1}
  q = Add(g, k)
  y = MatMul(q, w)
  return y
}
"""
    with open_emulated(plan_of(text), emulated) as engine:
        for rows in (3, 4, 5, 6):
            given = {"x": np.eye(rows, 3, dtype=np.float32), "w": np.ones((3, 4), np.float32)}
            np.testing.assert_array_equal(engine.run(given)["y"], expected(text, given)[0])
        assert engine.stats()["weights"]["late_copies"] == 0


def test_a_part_in_the_making_stops_nobody_else(emulated, monkeypatch):
    make = making.make_program
    begun, go_on = threading.Event(), threading.Event()

    def slow(*given, **more):
        if threading.current_thread().name == "slow":
            begun.set()
            assert go_on.wait(30)
        return make(*given, **more)

    with open_emulated(plan_of(CHOSEN), emulated) as engine:
        known, new = feeds("chosen", 5, 0), feeds("chosen", 9, 2)
        with engine.create_context() as one, engine.create_context() as other:
            one.run(known)
            engine.program(engine.check(new))  # the outer one is there: only the part is missing
            monkeypatch.setattr("miniinfer_cli.backends.cuda.models.model.make_program", slow)
            results = []
            thread = threading.Thread(target=lambda: results.append(other.run(new)), name="slow")
            thread.start()
            assert begun.wait(30)
            np.testing.assert_array_equal(one.run(known)["r"], expected(CHOSEN, known)[0])
            go_on.set()
            thread.join()
            np.testing.assert_array_equal(results[0]["r"], expected(CHOSEN, new)[0])


def test_many_sizes_in_turn_are_bound_once(emulated):
    with open_emulated(plan_of(CHOSEN), emulated) as engine, engine.create_context() as context:
        given = []
        for chosen in range(1, 21):
            x = np.ones((20, 3), np.float32)
            x[:chosen] = -1
            given.append({"x": x, "w": np.ones((3, 4), np.float32)})
        for _ in range(3):
            for x in given:
                assert context.run(x)["f"].shape == (int((x["x"][:, 0] < 0).sum()),)
        nested = context._device._nested
        captures = nested.runner.captures
        for x in given:
            context.run(x)
        assert nested.runner.captures == captures >= 20


def test_long_chains_of_choices(emulated):
    text = chain(60)
    given = {"x": np.float32([[1, 0], [-1, -2], [0, 3]]), "w": np.eye(2, dtype=np.float32)}
    with open_emulated(plan_of(text), emulated) as engine:
        np.testing.assert_array_equal(engine.run(given)["y59"], given["x"][[0, 2]])


def test_a_fault_within_a_part_names_its_node(emulated):
    with open_emulated(plan_of(CHOSEN.replace("w: f32[3,4]", "w: f32[k,4]")), emulated) as engine:
        with pytest.raises(ModelError, match="'y'"):
            engine.run({"x": -np.ones((4, 3), np.float32), "w": np.ones((2, 4), np.float32)})
        given = feeds("chosen", 5, 0)
        np.testing.assert_array_equal(engine.run(given)["r"], expected(CHOSEN, given)[0])

"""What a Batcher computes on the CPU: results, sizes, padding, figures; and how it begins and is closed."""

import threading

import numpy as np
import pytest

import miniinfer_cli
from engine_format import DimensionRange
from miniinfer_cli import Batcher
from miniinfer_cli.devices.opening import load
from miniinfer_cli.errors import BatcherClosed, OutOfMemoryError, UsageError
from miniinfer_cli.ir.constants import constant
from miniinfer_cli.planning.freeze import freeze
from miniinfer_cli.runtime.context import Context
from miniinfer_cli.serving import workers
from tests.emulation.engine import open_emulated, plan_of
from tests.graph_text import typed_graph
from tests.serving.staged import DOUBLE, WAIT_S, Staged, open_cpu, row, rows


@pytest.fixture
def engine():
    with open_cpu() as opened:
        yield opened


@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize("contexts", [1, 3])
def test_each_request_has_the_result_of_its_own_rows(device, contexts):
    text = "graph main(x: f32[n,3], k: i64[n]) {\n  y = Neg(x)\n  m = Neg(k)\n  return y, m\n}"
    opened = open_cpu(text) if device == "cpu" else open_emulated(plan_of(text))
    with opened as engine, Batcher(engine, 8, 1, contexts=contexts) as batcher:
        given = [{"x": np.full((n % 3 + 1, 3), n, np.float32), "k": np.arange(n % 3 + 1) + 10 * n} for n in range(30)]
        futures = [batcher.submit(inputs) for inputs in given]
        for inputs, future in zip(given, futures, strict=True):
            found = future.result(WAIT_S)
            assert list(found) == ["y", "m"]
            np.testing.assert_array_equal(found["y"], -inputs["x"])
            np.testing.assert_array_equal(found["m"], -inputs["k"])
            assert (found["y"].dtype, found["m"].dtype) == (np.float32, np.int64)


def test_on_a_gpu_requests_are_put_together_in_memory_that_it_copies_from(monkeypatch):
    given = []
    original = Context.staging_buffers
    monkeypatch.setattr(Context, "staging_buffers", lambda self, shapes: given.append(original(self, shapes)) or given[-1])
    with open_emulated(plan_of(DOUBLE)) as engine, Batcher(engine, 4, 1e6, batch_sizes=[4]) as batcher:
        assert batcher.stats()["contexts"] == 2
        found = batcher.submit(rows(1, 2, 3)), batcher.submit(row(7))
        assert [f.result(WAIT_S)["y"][:, 0].tolist() for f in found] == [[2, 4, 6], [14]]
        ((buffer,),) = given
        assert buffer.shape == (4, 3)


def test_what_waits_is_computed_together(engine):
    staged = Staged(engine)
    staged.gate.clear()
    with Batcher(staged, 4, 0) as batcher:
        first = batcher.submit(row(0))
        staged.expect_entered()
        later = [batcher.submit(row(n)) for n in range(1, 7)]
        staged.gate.set()
        assert [f.result(WAIT_S)["y"].tolist() for f in [first, *later]] == [[[2 * n, 2, 4]] for n in range(7)]
    assert staged.batches == [[0], [1, 2, 3, 4], [5, 6]]


def test_a_full_batch_does_not_wait(engine):
    with Batcher(engine, 3, 1e6) as batcher:
        futures = [batcher.submit(row(n)) for n in range(3)]
        assert [f.result(WAIT_S)["y"][0, 0] for f in futures] == [0, 2, 4]


def test_a_batch_that_is_not_full_waits_for_the_delay(engine):
    with Batcher(engine, 3, 30) as batcher:
        batcher.submit(row(1)).result(WAIT_S)
        assert 0.03 <= batcher.stats()["queue_s"] < 5
        assert batcher.stats()["latency_ms_sum"] >= 30


def test_batches_are_padded_to_sizes_that_there_are(engine):
    staged = Staged(engine)
    with Batcher(staged, 8, 1, batch_sizes=[4, 8]) as batcher:
        assert batcher.batch_sizes == (4, 8)
        assert batcher.submit(rows(5, 6, 7)).result(WAIT_S)["y"][:, 0].tolist() == [10, 12, 14]
        assert batcher.submit(row(9)).result(WAIT_S)["y"].shape == (1, 3)
        stats = batcher.stats()
    assert staged.batches == [[5, 6, 7, 7], [9, 9, 9, 9]]
    assert (stats["batches"], stats["rows"], stats["rows_of_padding"], stats["mean_batch"]) == (2, 4, 4, 2)


def test_a_plan_of_a_fixed_batch_is_filled_up():
    with open_cpu(DOUBLE.replace("[n,3]", "[4,3]")) as engine, Batcher(Staged(engine), max_delay_ms=0) as batcher:
        assert batcher.batch_sizes == (4,)
        assert batcher.submit(rows(1, 2)).result(WAIT_S)["y"].tolist() == [[2, 2, 4], [4, 2, 4]]
        assert batcher.submit(rows(1, 2, 3, 4)).result(WAIT_S)["y"].shape == (4, 3)
        with pytest.raises(UsageError, match="a batch has 4 at most"):
            batcher.submit(rows(1, 2, 3, 4, 5))


def test_the_least_size_of_a_plan_is_filled_up():
    with open_cpu(DOUBLE, [DimensionRange("n", 3, 4, 6)]) as engine, Batcher(engine, max_delay_ms=0) as batcher:
        assert batcher.submit(row(1)).result(WAIT_S)["y"].tolist() == [[2, 2, 4]]


def test_requests_of_other_shapes_are_padded_together_and_cut():
    text = "graph main(x: f32[n,s], w: i64[n,s]) {\n  y = Neg(x)\n  z = Concat(w, w) {axis=1}\n  return y, z\n}"
    with open_cpu(text) as opened:
        staged = Staged(opened)
        staged.gate.clear()
        with Batcher(staged, 4, 0, pad={"s": [4, 8]}, pad_values={"w": -1}) as batcher:
            blocking = batcher.submit({"x": np.zeros((1, 8), "f"), "w": np.zeros((1, 8), np.int64)})
            staged.expect_entered()
            given = [
                {"x": np.full((n, s), 10 * s + n, "f"), "w": np.full((n, s), s)} for s, n in ((2, 1), (4, 2), (3, 1), (5, 1))
            ]
            futures = [batcher.submit(g) for g in given]
            staged.gate.set()
            for inputs, future in zip(given, futures, strict=True):
                found = future.result(WAIT_S)
                np.testing.assert_array_equal(found["y"], -inputs["x"])
                length = inputs["w"].shape[1]  # of both parts the second begins behind the padding of the first
                expected = np.full((len(inputs["w"]), 4 if length <= 4 else 8), -1)
                expected[:, :length] = length
                np.testing.assert_array_equal(found["z"], np.concatenate([expected, expected], 1)[:, : 2 * length])
                assert all(a.flags.c_contiguous for a in found.values())
            assert blocking.result(WAIT_S)["y"].shape == (1, 8)
    assert staged.batches == [[0], [21, 42, 42, 31], [51]]


def test_the_batch_may_lie_along_another_axis():
    text = "graph main(x: f32[t,n,2], z: f32[n]) {\n  y = Neg(x)\n  w = Neg(z)\n  return y, w\n}"
    with open_cpu(text) as engine, Batcher(engine, 8, 1, batch_dim="n", batch_sizes=[8]) as batcher:
        given = [{"x": np.random.default_rng(n).random((3, n, 2), np.float32), "z": np.full(n, n, np.float32)} for n in (1, 2, 3)]
        futures = [batcher.submit(g) for g in given]
        for inputs, future in zip(given, futures, strict=True):
            np.testing.assert_array_equal(future.result(WAIT_S)["y"], -inputs["x"])
            np.testing.assert_array_equal(future.result(WAIT_S)["w"], -inputs["z"])


def test_inputs_with_a_default_have_it_in_every_batch():
    graph = typed_graph("graph main(w: f32[3], x: f32[n,3]) {\n  y = Mul(x, w)\n  return y\n}")
    graph.defaults["w"] = constant(np.array([1, 2, 3], np.float32))
    with load(freeze(graph), "cpu") as engine, Batcher(engine, 4, 1) as batcher:
        futures = [batcher.submit(row(n)) for n in range(4)]
        assert [f.result(WAIT_S)["y"].tolist() for f in futures] == [[[n, 2, 6]] for n in range(4)]


def test_texts_are_batched_too():
    text = "graph main(x: str[n,2], z: str[n,2]) {\n  y = Concat(x, z) {axis=1}\n  return y\n}"
    with open_cpu(text) as engine, Batcher(engine, 4, 1) as batcher:
        futures = [batcher.submit({"x": [[f"a{n}", "b"]], "z": np.array([["c", "d"]], object)}) for n in range(4)]
        assert [f.result(WAIT_S)["y"].tolist() for f in futures] == [[[f"a{n}", "b", "c", "d"]] for n in range(4)]


@pytest.mark.parametrize(
    "text", ["graph main(x: f32[n,3]) {\n  return x\n}", "graph main(x: f32[n,3]) {\n  y = Identity(x)\n  return y\n}"]
)
def test_results_stay_what_they_are_when_others_are_computed(text):
    with open_cpu(text) as engine, Batcher(engine, 4, 0, batch_sizes=[4]) as batcher:
        found = [next(iter(batcher.submit(row(n)).result(WAIT_S).values())) for n in range(6)]
        assert [a[0, 0] for a in found] == [*range(6)]
        found[0][...] = 99
        assert found[1][0, 0] == 1


def test_priorities_and_buckets_reach_the_queue(engine):
    text = "graph main(x: f32[n,s]) {\n  y = Neg(x)\n  return y\n}"
    with open_cpu(text) as opened:
        staged = Staged(opened)
        staged.gate.clear()
        with Batcher(staged, 4, 0, priorities=2, raise_after_ms=1e6) as batcher:
            first = batcher.submit(row(0))
            staged.expect_entered()
            futures = [batcher.submit(row(n, 3 + n % 2), priority=int(n > 4)) for n in range(1, 9)]
            staged.gate.set()
            [f.result(WAIT_S) for f in [first, *futures]]
    assert staged.batches == [[0], [5, 7, 1, 3], [6, 8, 2, 4]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_batch": 0}, "max_batch: expected a whole number from 1 on, got 0"),
        ({"max_batch": 2.0}, "max_batch: expected a whole number"),
        ({"max_queue": 0}, "max_queue: expected"),
        ({"contexts": -1}, "contexts: expected"),
        ({"contexts": True}, "contexts: expected"),
        ({"priorities": 0}, "priorities: expected"),
        ({"max_delay_ms": -0.1}, "max_delay_ms: expected milliseconds, got -0.1"),
        ({"max_delay_ms": float("nan")}, "max_delay_ms: expected milliseconds, got nan"),
        ({"max_delay_ms": "2"}, "max_delay_ms: expected milliseconds"),
        ({"raise_after_ms": 0}, "raise_after_ms: expected milliseconds, got 0"),
        ({"overload": "drop"}, "overload: expected 'reject' or 'block', got 'drop'"),
        ({"pad_values": {"z": 1}}, "pad_values: there is no input 'z'\n  hint: the inputs are x"),
        ({"batch_sizes": [0]}, r"batch_sizes: 0 rows are not among those allowed \(1 or more\)"),
        ({"batch_sizes": 4}, "batch_sizes: expected whole numbers, got 4"),
        ({"batch_sizes": [2.0]}, "batch_sizes: expected whole numbers"),
        ({"pad": [4]}, r"pad: expected sizes by dimension, got \[4\]"),
        ({"batch_dim": 3}, "batch_dim: not all inputs have a dimension 3"),
    ],
)
def test_wrong_arguments(engine, arguments, message):
    with pytest.raises(UsageError, match=message):
        Batcher(engine, **arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"priority": 2}, "priority: expected 0 to 1, got 2"),
        ({"priority": -1}, "priority: expected 0 to 1, got -1"),
        ({"priority": 0.5}, "priority: expected"),
        ({"deadline_s": 0}, "deadline_s: expected seconds above 0, got 0"),
        ({"deadline_s": float("nan")}, "deadline_s: expected seconds above 0"),
        ({"deadline_s": "1"}, "deadline_s: expected"),
    ],
)
def test_wrong_options_of_a_request(engine, options, message):
    with Batcher(engine, priorities=2) as batcher:
        with pytest.raises(UsageError, match=message):
            batcher.submit(row(1), **options)
        assert sum(batcher.stats()["requests"].values()) == 0


def test_inputs_are_checked_before_they_wait(engine):
    with Batcher(engine, 4) as batcher, pytest.raises(UsageError, match="4 is not 3"):
        batcher.submit({"x": np.zeros((1, 4), np.float32)})


def test_closing_computes_what_waits(engine):
    staged = Staged(engine)
    batcher = Batcher(staged, 2, 1e6)
    futures = [batcher.submit(row(n)) for n in range(5)]
    batcher.close()
    batcher.close()
    assert [f.result(0)["y"][0, 0] for f in futures] == [0, 2, 4, 6, 8]
    assert [c.closed for c in staged.contexts] == [True]
    with pytest.raises(BatcherClosed, match="the batcher is closed\n  hint: make another Batcher"):
        batcher.submit(row(1))
    assert batcher.stats()["requests"] == {"result": 5, "error": 0, "cancelled": 0, "deadline": 0, "rejected": 0, "closed": 1}


def test_closing_without_draining_computes_what_has_begun(engine):
    staged = Staged(engine)
    staged.gate.clear()
    batcher = Batcher(staged, 1, 0)
    futures = [batcher.submit(row(n)) for n in range(3)]
    staged.expect_entered()
    closing = threading.Thread(target=lambda: batcher.close(drain=False))
    closing.start()
    for future in futures[1:]:
        with pytest.raises(BatcherClosed, match="closed while the request waited"):
            future.result(WAIT_S)
    staged.gate.set()
    closing.join(WAIT_S)
    assert futures[0].result(0)["y"][0, 0] == 0
    assert (staged.batches, staged.contexts[0].closed) == ([[0]], True)


def test_a_with_block_that_fails_does_not_compute_what_waits(engine):
    def fail():
        with Batcher(engine, 8, 1e6) as batcher:
            sent.append(batcher.submit(row(1)))
            raise KeyError

    sent = []
    with pytest.raises(KeyError):
        fail()
    assert isinstance(sent[0].exception(0), BatcherClosed)


def test_one_that_was_never_used_leaves_nothing(engine):
    staged = Staged(engine)
    before = threading.active_count()
    with Batcher(staged, contexts=3) as batcher:
        assert threading.active_count() == before
        assert repr(batcher) == f"<Batcher of {staged!r}: up to 32 rows>"
    assert [c.closed for c in staged.contexts] == [True] * 3
    assert "closed" in repr(batcher)


def test_contexts_that_were_made_are_let_go_when_one_cannot_be(engine):
    staged = Staged(engine)
    make = staged.create_context

    def create_context():
        if len(staged.contexts) == 2:
            raise OutOfMemoryError("no room for a third")
        return make()

    staged.create_context = create_context
    with pytest.raises(OutOfMemoryError, match="no room for a third"):
        Batcher(staged, contexts=3)
    assert [c.closed for c in staged.contexts] == [True, True]


def test_a_thread_that_cannot_be_started_is_told_and_tried_again(engine, monkeypatch):
    started = []

    def start_thread(thread):
        started.append(thread)
        if len(started) == 2:
            raise MemoryError("can't start new thread")
        thread.start()

    monkeypatch.setattr(workers, "start_thread", start_thread)
    with Batcher(engine, 1, 0, contexts=2) as batcher:
        with pytest.raises(OutOfMemoryError, match="a thread of the batcher cannot be started: can't start new thread"):
            batcher.submit(row(1))
        assert batcher.submit(row(2)).result(WAIT_S)["y"][0, 0] == 4
    assert [t.name for t in started] == ["miniinfer-batch-0", "miniinfer-batch-1", "miniinfer-batch-1"]


def test_stats_tell_how_requests_and_batches_went(engine):
    with Batcher(engine, 4, 1) as batcher:
        [f.result(WAIT_S) for f in [batcher.submit(row(n)) for n in range(4)]]
        stats = batcher.stats()
    assert stats["requests"]["result"] == stats["requests_computed"] == stats["rows"] == 4
    assert stats["batches"] >= 1
    assert stats["mean_batch"] == 4 / stats["batches"]
    assert sum(stats["latency_ms"].values()) == 4
    assert stats["latency_ms_sum"] / 1e3 >= stats["execution_s"] > 0
    assert stats["latency_ms_sum"] / 1e3 >= stats["queue_s"] > 0
    assert (stats["queued"], stats["running"], stats["outside"], stats["contexts"]) == (0, 0, 0, 1)


def test_it_is_there_without_being_imported():
    assert miniinfer_cli.Batcher is Batcher
    with pytest.raises(AttributeError, match="no attribute 'Bather'"):
        _ = miniinfer_cli.Bather

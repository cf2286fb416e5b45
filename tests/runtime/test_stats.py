"""Counters of an engine, and the histogram of latencies."""

import threading

import numpy as np
import pytest

from miniinfer_cli.errors import DeviceError, ModelError
from miniinfer_cli.runtime.engine import Engine
from miniinfer_cli.runtime.stats import BOUNDS_MS, Stats
from tests.emulation.engine import open_emulated, plan_of
from tests.emulation.stream import EmulatedEvent


def test_bounds_are_1_2_5_per_decade():
    assert BOUNDS_MS == (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


@pytest.mark.parametrize(
    ("ms", "bucket"),
    [(0.0, "0.01"), (0.01, "0.01"), (0.0100001, "0.02"), (1, "1"), (1.5, "2"), (5000, "5000"), (5000.1, "inf"), (1e9, "inf")],
)
def test_a_latency_falls_into_the_first_bucket_that_holds_it(ms: float, bucket: str):
    stats = Stats()
    stats.add_latency(ms)
    assert stats.snapshot() == {"inferences": 1, "failures": 0, "latency_ms_sum": ms, "latency_ms": {bucket: 1}}


def test_threads_lose_no_count():
    stats = Stats()

    def work() -> None:
        for _ in range(500):
            stats.add_latency(0.3)
            stats.count("failures")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = stats.snapshot()
    assert (found["inferences"], found["failures"], found["latency_ms"]) == (2000, 2000, {"0.5": 2000})
    assert found["latency_ms_sum"] == pytest.approx(600)


def test_a_failed_inference_counts_once(monkeypatch):
    def refuse(self) -> None:
        raise DeviceError("fell over")

    with open_emulated(plan_of("graph main(a: f32[n]) {\n  b = Neg(a)\n  return b\n}")) as engine:
        with engine.create_context() as context:
            future = context.enqueue({"a": np.ones(2, np.float32)})
            with monkeypatch.context() as patch:
                patch.setattr(EmulatedEvent, "synchronize", refuse)
                for _ in range(3):
                    with pytest.raises(DeviceError, match="fell over"):
                        future.result()
        assert engine.stats()["failures"] == 1


@pytest.mark.parametrize("open_on", [lambda plan: Engine(plan, "cpu"), open_emulated])
def test_an_engine_counts_runs_futures_and_failures(open_on):
    one, two = np.ones(1, np.float32), np.ones(2, np.float32)
    with open_on(plan_of("graph main(a: f32[n], b: f32[m]) {\n  c = Add(a, b)\n  return c\n}")) as engine:
        with engine.create_context() as context:
            context.run({"a": one, "b": one})
            future = context.enqueue({"a": two, "b": two})
            assert engine.stats()["inferences"] == 1
            for _ in range(2):
                assert future.result()["c"].tolist() == [2, 2]
            for act in (context.run, context.enqueue):
                with pytest.raises(ModelError, match="do not broadcast"):
                    act({"a": two, "b": np.ones(3, np.float32)})
        found = engine.stats()
        assert (found["inferences"], found["failures"], found["programs_made"], found["programs"]) == (2, 2, 2, 2)
        assert sum(found["latency_ms"].values()) == 2

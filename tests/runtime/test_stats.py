"""Counters of an engine, and the histogram of latencies."""

import itertools
import math
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniinfer_cli.devices.opening import load
from miniinfer_cli.errors import DeviceError, ModelError
from miniinfer_cli.runtime.stats import BOUNDS_MS, Stats
from tests.emulation.engine import open_emulated, plan_of
from tests.emulation.stream import EmulatedEvent


def test_bounds_are_sixteen_to_the_octave():
    assert (BOUNDS_MS[0], BOUNDS_MS[-1], len(BOUNDS_MS)) == (2.0**-7, 2.0**16, 1 + 16 * 23)
    for below, above in itertools.pairwise(BOUNDS_MS):
        octave = math.floor(math.log2(below))
        assert above - below == 2.0 ** (octave - 4)
    assert [b for b in BOUNDS_MS if 1 <= b <= 2] == [1 + n / 16 for n in range(17)]


@pytest.mark.parametrize(
    ("ms", "bucket"),
    [
        (0.0, "0.0078125"),
        (0.0078125, "0.0078125"),
        (0.00782, "0.00830078125"),
        (1, "1"),
        (1.01, "1.0625"),
        (1.0625, "1.0625"),
        (1.97, "2"),
        (2.01, "2.125"),
        (65536, "65536"),
        (65537, "inf"),
        (1e9, "inf"),
    ],
)
def test_a_latency_falls_into_the_first_bucket_that_holds_it(ms: float, bucket: str):
    stats = Stats()
    stats.add_latency(ms)
    assert stats.snapshot() == {"inferences": 1, "failures": 0, "latency_ms_sum": ms, "latency_ms": {bucket: 1}}


def test_the_names_of_buckets_are_their_bounds():
    stats = Stats()
    for bound in BOUNDS_MS:
        stats.add_latency(bound)
    assert [float(name) for name in stats.snapshot()["latency_ms"]] == list(BOUNDS_MS)


@given(st.lists(st.floats(0.0079, 65000), min_size=1, max_size=200), st.sampled_from([50, 90, 99, 100]))
def test_a_percentile_off_the_bounds_is_a_sixteenth_too_high_at_most(latencies: list[float], percent: int):
    stats = Stats()
    for ms in latencies:
        stats.add_latency(ms)
    rank = math.ceil(percent / 100 * len(latencies))
    counts = stats.snapshot()["latency_ms"]
    reached = itertools.accumulate(counts.values())
    found = next(float(bound) for bound, count in zip(counts, reached, strict=True) if count >= rank)
    true = sorted(latencies)[rank - 1]
    assert true <= found <= true * (1 + 1 / 16)


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
    assert (found["inferences"], found["failures"], found["latency_ms"]) == (2000, 2000, {"0.3125": 2000})
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


@pytest.mark.parametrize("open_on", [lambda plan: load(plan, "cpu"), open_emulated])
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

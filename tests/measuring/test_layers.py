"""Layers and the account of an inference: figures from times, estimates and ceilings, with no device."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from miniinfer_cli.backends.ceilings import Bound, Ceilings, Rate, Roofline, Unit
from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.interface import StepRound, TimedBy
from miniinfer_cli.measuring.account import Synchronized, account_of, summed_up
from miniinfer_cli.measuring.layers import Layer, layers_of

F16 = Rate(Unit.MATRIX, "f16")
CEILINGS = Ceilings("a gpu", {"matrix f16": 800.0}, memory_gbps=4000.0, cache_nbytes=50_000_000, cache_gbps=8000.0, step_us=1.0)


def step(estimate: Estimate | None = None, weights_nbytes: int = 0, rate: Rate | None = F16) -> Any:
    return SimpleNamespace(
        label="n",
        kind="Gemm",
        tactic="t",
        choice=None,
        estimate=estimate,
        rate=rate,
        weights_nbytes=weights_nbytes,
        origins=("a", "b"),
    )


def program_of(*steps: Any, activation_nbytes: int = 1 << 30) -> Any:
    nothing = [()] * len(steps)
    return SimpleNamespace(
        steps=steps, launched_kernels=lambda: nothing, sources=lambda: nothing, activation_nbytes=activation_nbytes
    )


def test_the_roofline_is_the_longer_of_both_times():
    compute = CEILINGS.roofline(Estimate(8 * 10**11, 10**8), F16)
    assert compute == Roofline(1.0, 10**8 / 4e12 * 1e3) and compute.bound is Bound.COMPUTE and compute.least_ms == 1.0
    memory = CEILINGS.roofline(Estimate(10**9, 4 * 10**9), F16)
    assert memory is not None and memory.bound is Bound.MEMORY and memory.least_ms == pytest.approx(1.0)
    assert CEILINGS.roofline(Estimate(0, 0), F16) is None


def test_numbers_that_were_not_measured_leave_the_bytes():
    found = CEILINGS.roofline(Estimate(10**15, 4 * 10**9), Rate(Unit.MATRIX, "f64"))
    assert found == Roofline(None, 1.0) and found.bound is Bound.MEMORY
    assert CEILINGS.roofline(Estimate(0, 4 * 10**9), None) == Roofline(0.0, 1.0)


def test_what_fits_into_the_cache_comes_from_there_but_for_weights():
    small = Estimate(0, 40_000_000)
    assert CEILINGS.roofline(small, None) == Roofline(0.0, 0.005)
    assert CEILINGS.roofline(small, None, weights_nbytes=20_000_000) == Roofline(0.0, 0.005 + 0.0025)
    assert CEILINGS.roofline(small, None, weights_nbytes=20_000_000, in_cache=True) == Roofline(0.0, 0.005)
    assert CEILINGS.roofline(Estimate(0, 60_000_000), None) == Roofline(0.0, 0.015), "larger than the cache"


def test_ceilings_go_there_and_back_and_nothing_else_does():
    document = CEILINGS.to_json()
    assert Ceilings.from_json(document) == CEILINGS
    for broken in (
        None,
        [],
        {},
        {**document, "device": 3},
        {**document, "tflops": {"matrix f16": "x"}},
        {**document, "memory_gbps": 0},
        {**document, "cache_nbytes": -1},
        {**document, "launch_us": True},
        {**document, "memory_gbps": float("nan")},
    ):
        assert Ceilings.from_json(broken) is None, broken


def test_layers_have_medians_shares_rates_and_gaps():
    program = program_of(step(Estimate(8 * 10**11, 10**6)), step())
    rounds = [
        StepRound(TimedBy.CLOCK, (2e6, 1e6), (0, 3e3)),
        StepRound(TimedBy.CLOCK, (4e6, 3e6), (0, 1e3)),
        StepRound(TimedBy.CLOCK, (3e6, 1e6), (0, 2e3)),
    ]
    first, second = layers_of(program, rounds, CEILINGS)
    assert (first.median_ms, first.min_ms, first.max_ms, first.share, first.gap_ms) == (3.0, 2.0, 4.0, 0.75, 0.0)
    assert (second.median_ms, second.share, second.gap_ms) == (1.0, 0.25, 0.002)
    assert (first.tflops, first.efficiency, first.bound) == (pytest.approx(800 / 3), pytest.approx(1 / 3), Bound.COMPUTE)
    assert (second.tflops, second.gbps, second.efficiency, second.bound) == (None, None, None, None)
    assert first.to_json()["origins"] == ["a", "b"]
    assert first.to_json()["roofline"] == {
        "compute_ms": 1.0,
        "memory_ms": 0.000125,
        "bound_by": "compute",
        "fraction": pytest.approx(1 / 3),
    }
    assert layers_of(program, rounds)[0].roofline is None, "no ceilings"


def test_in_a_replay_the_launch_is_told_apart_by_the_ceilings():
    program = program_of(step(), step(), step())
    rounds = [StepRound(TimedBy.REPLAY, (5e3, 600.0, 0.0)), StepRound(TimedBy.REPLAY, (7e3, 800.0, 0.0))]
    layers = layers_of(program, rounds, CEILINGS)
    assert [layer.gap_ms for layer in layers] == [0.001, pytest.approx(0.0006), 0.0], "never longer than the step"
    assert [layer.median_ms for layer in layers] == [pytest.approx(0.005), pytest.approx(0.0001), 0.0]
    assert [(layer.gap_ms, layer.median_ms) for layer in layers_of(program, rounds)] == [
        (None, 0.006),
        (None, 0.0007),
        (None, 0.0),
    ]


def test_an_event_between_kernels_is_taken_off_as_the_ceilings_have_it():
    slow = replace(CEILINGS, event_us=1.5)
    program = program_of(step(), step(), step())
    (first, second, third) = layers_of(program, [StepRound(TimedBy.REPLAY, (5e3, 1200.0, 0.0), event_ns=1000)], slow)
    assert (first.gap_ms, first.median_ms) == (pytest.approx(0.001), pytest.approx(0.0035))
    assert (second.gap_ms, second.median_ms) == (pytest.approx(0.0007), pytest.approx(0.0))
    assert (third.gap_ms, third.median_ms) == (0.0, 0.0)
    enqueued = [StepRound(TimedBy.STREAM, (5e3, 1200.0, 0.0), (4e3, 2e3, 0.0), event_ns=1000)]
    told = [(layer.median_ms, layer.gap_ms) for layer in layers_of(program, enqueued, slow)]
    assert told == [pytest.approx((0.0045, 0.0045)), pytest.approx((0.0007, 0.0025)), (0.0, 0.0)]
    pieces = layers_of(program, [StepRound(TimedBy.PIECES, (5e3, 1200.0, 0.0), event_ns=1000)], slow)
    assert [(layer.median_ms, layer.gap_ms) for layer in pieces] == [(0.005, None), (0.0012, None), (0.0, None)]


def test_a_model_that_fits_is_taken_to_stay_in_the_cache():
    program = program_of(step(Estimate(0, 40_000_000), weights_nbytes=40_000_000), activation_nbytes=1000)
    rounds = [StepRound(TimedBy.CLOCK, (1e6,))]
    assert [layers_of(program, rounds, CEILINGS, weights_nbytes=n)[0].roofline for n in (40_000_000, 50_000_000)] == [
        Roofline(0.0, 0.005),
        Roofline(0.0, 0.01),
    ]
    both = {"weights_nbytes": 40_000_000, "bindings_nbytes": 10_000_000}
    assert layers_of(program, rounds, CEILINGS, **both)[0].roofline == Roofline(0.0, 0.01), "with inputs and outputs it does not"


def layer(median_ms: float, gap_ms: float | None) -> Layer:
    return Layer("n", "Relu", "t", None, None, median_ms, median_ms, median_ms, gap_ms=gap_ms)


def test_the_parts_of_an_inference_add_up():
    account = account_of([layer(1.0, 0.1), layer(2.0, None)], TimedBy.REPLAY, Synchronized(9, 4.5, 0.25, 3.5, 0.25, 0.2))
    assert dict(account.rows()) == pytest.approx(
        {
            "launch": 0.2,
            "copies in": 0.25,
            "layers": 3.0,
            "gaps": 0.1,
            "unexplained": 0.4,
            "copies out": 0.25,
            "synchronization": 0.3,
        }
    )
    assert sum(ms for _, ms in account.rows()) == pytest.approx(account.whole_ms) == 4.5
    assert account.to_json()["gaps_ms"] == 0.1 and account.to_json()["unexplained_ms"] == pytest.approx(0.4)


def test_a_launch_that_the_device_hides_is_none():
    account = account_of([layer(4.0, 0.0)], TimedBy.STREAM, Synchronized(9, 3.6, 0.0, 3.5, 0.0, 2.0))
    assert (account.launch_ms, account.synchronization_ms) == (pytest.approx(0.1), 0.0)
    assert account.unexplained_ms == -0.5, "looking into it took longer"
    assert account_of([], TimedBy.STREAM, Synchronized(9, 3.4, 0.0, 3.5, 0.0, 2.0)).whole_ms == 3.5


def test_medians_of_each_part():
    assert summed_up([3, 1, 2], [(1, 2, 3), (2, 3, 4), (0, 1, 9)], []) == Synchronized(3, 2, 1, 2, 4, 0.0)

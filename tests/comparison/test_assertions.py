"""What may be asserted of times: forms, and when a measurement holds, fails, or cannot tell."""

import random

import pytest

from miniinfer_cli.comparison.assertions import UNDISTURBED, Disturbed, Outcome, parse_latency, parse_throughput
from miniinfer_cli.comparison.intervals import t_below, t_quantile
from miniinfer_cli.measuring.metrics import Samples

NOISE = random.Random(0)
TIMES = [4 + abs(NOISE.gauss(0, 0.1)) for _ in range(1000)]


@pytest.mark.parametrize(
    ("text", "figure", "limit_ms", "or_equal"),
    [
        ("p99<5ms", "p99", 5.0, False),
        ("P99.9 <= 500us", "p99.9", 0.5, True),
        ("median<2", "median", 2.0, False),
        ("mean<0.1s", "mean", 100.0, False),
        ("max<1.5e3ms", "max", 1500.0, False),
        ("p100<1", "p100", 1.0, False),
    ],
)
def test_forms_of_latencies(text, figure, limit_ms, or_equal):
    bound = parse_latency(text)
    assert (bound.text, bound.figure, bound.limit_ms, bound.or_equal) == (text, figure, pytest.approx(limit_ms), or_equal)


@pytest.mark.parametrize("text", ["", "p99", "p99>5ms", "p0<5", "p101<5", "p99<-5", "p99<5min", "p99<nan", "q<5", "p99<5ms ms"])
def test_other_forms_of_latencies(text):
    with pytest.raises(ValueError, match=r"is not of the form p99<5ms|is above 0 and at most 100"):
        parse_latency(text)


def test_forms_of_throughputs():
    plain, samples = parse_throughput(">2000"), parse_throughput(" >= 6.4e4 samples/s")
    assert (plain.limit, plain.or_equal, plain.samples) == (2000, False, False)
    assert (samples.limit, samples.or_equal, samples.samples) == (64000, True, True)
    for text in ("2000", "<2000", ">", ">2000ms", ">-1"):
        with pytest.raises(ValueError, match="is not of the form >2000"):
            parse_throughput(text)


def outcome(text, times=TIMES, disturbed=UNDISTURBED):
    return parse_latency(text).check(times, disturbed).outcome


HEAT = Disturbed(("heat",), 3.0)


def test_latencies():
    assert [outcome(t) for t in ("p99<5ms", "median<4.2", "mean<4.2", "min<4.1", "max<5")] == [Outcome.HELD] * 5
    assert [outcome(t) for t in ("p99<4.1ms", "median<4", "mean<4.01", "min<4", "max<4.1")] == [Outcome.FAILED] * 5
    assert outcome("p99<5ms", disturbed=HEAT) is Outcome.HELD
    assert outcome("p99<4.1ms", disturbed=HEAT) is Outcome.CANNOT_TELL


def test_what_disturbs_explains_so_much_and_no_more():
    """Latencies are 4 ms and some; with heat they may be 4/3 ms in truth."""
    assert [outcome(f"{figure}<1.5ms", disturbed=HEAT) for figure in ("p99", "median", "mean", "min")] == [
        Outcome.CANNOT_TELL
    ] * 4
    assert [outcome(f"{figure}<1.2ms", disturbed=HEAT) for figure in ("p99", "median", "mean", "min")] == [Outcome.FAILED] * 4
    told = parse_latency("p99<1us").check(TIMES, HEAT)
    assert (told.outcome, told.why.endswith("inferences; heat, which explains a factor of 3 at most")) == (Outcome.FAILED, True)
    # A stall makes the slowest as slow as it likes: it is the one in the middle that tells.
    stalled = [0.9] * 900 + [900.0] * 100
    assert [outcome(f"{figure}<1ms", stalled, HEAT) for figure in ("p99", "mean", "max")] == [Outcome.CANNOT_TELL] * 3
    assert outcome("p99<0.2ms", stalled, HEAT) is Outcome.FAILED
    assert outcome("p99<1us", disturbed=Disturbed(("everything was taken",))) is Outcome.CANNOT_TELL


def test_workers_that_were_all_disturbed():
    workers, bound = [TIMES[:100]] * 5, parse_latency("p50<1us")
    assert bound.check_workers(workers, HEAT).outcome is Outcome.FAILED
    assert parse_latency("p50<3ms").check_workers(workers, HEAT).outcome is Outcome.CANNOT_TELL
    assert parse_latency("p50<3ms").check_workers(workers).outcome is Outcome.FAILED
    assert parse_throughput(">1e6").check_workers([4.0] * 5, 1, HEAT).outcome is Outcome.FAILED
    assert parse_throughput(">700").check_workers([4.0] * 5, 1, HEAT).outcome is Outcome.CANNOT_TELL


@pytest.mark.parametrize("figure", ["p50", "p90", "mean"])
def test_a_limit_close_to_the_figure_cannot_be_told(figure):
    value = parse_latency(f"{figure}<1").of(TIMES).value
    found = parse_latency(f"{figure}<{value:.6f}").check(TIMES)
    assert found.outcome is Outcome.CANNOT_TELL
    assert "measure longer" in found.why
    assert found.measured == pytest.approx(value)
    assert outcome(f"{figure}<{value * 1.05:.6f}") is Outcome.HELD
    assert outcome(f"{figure}<{value * 0.95:.6f}") is Outcome.FAILED


def test_too_few_inferences_for_a_percentile():
    few = TIMES[:50]
    assert outcome("p99<100ms", few) is Outcome.CANNOT_TELL
    assert parse_latency("p99<100ms").check(few).why.endswith("and may be anything from 4.2228 ms on: measure longer")
    assert outcome("p99<1ms", few) is Outcome.FAILED
    assert outcome("p90<100ms", few) is Outcome.HELD
    assert outcome("p99<100ms", TIMES[:100]) is Outcome.HELD
    assert outcome("mean<100ms", few[:1]) is Outcome.CANNOT_TELL


def test_equal():
    assert outcome("max<=4ms", [4.0] * 5) is Outcome.HELD
    assert outcome("max<4ms", [4.0] * 5) is Outcome.FAILED
    assert parse_throughput(">=250").check(Samples((4.0,) * 5, (4.0,) * 5, 0.02), 1).outcome is Outcome.HELD
    assert parse_throughput(">250").check(Samples((4.0,) * 5, (4.0,) * 5, 0.02), 1).outcome is Outcome.FAILED


def test_throughputs():
    measured = Samples(tuple(TIMES), tuple(TIMES), sum(TIMES) / 1e3)

    def check(text, batch=8, disturbed=UNDISTURBED):
        return parse_throughput(text).check(measured, batch, disturbed)

    rate = 1000 / (sum(TIMES) / 1e3)
    assert check(f">{rate * 0.97:.3f}").outcome is Outcome.HELD
    assert check(f">{rate * 1.03:.3f}").outcome is Outcome.FAILED
    assert check(f">{rate * 1.03:.3f}", disturbed=HEAT).outcome is Outcome.CANNOT_TELL
    assert check(f">{rate * 3.1:.3f}", disturbed=HEAT).outcome is Outcome.FAILED
    assert check(f">{rate:.3f}").outcome is Outcome.CANNOT_TELL
    assert check(f">{rate * 7.8:.3f}samples/s").outcome is Outcome.HELD
    assert check(f">{rate * 7.8:.3f}samples/s", batch=None).measured is None


def test_a_throughput_that_stalls_is_never_nothing():
    """One batch of twenty with a stall, of all that was measured: it may have been half as much, not none."""
    times = (*[1.0] * 119, 800.0)
    measured, rate = Samples(times, times, sum(times) / 1e3), 120 / (sum(times) / 1e3)
    assert parse_throughput(">0.01").check(measured, 1).outcome is Outcome.HELD
    for factor in (0.6, 5.0):
        assert parse_throughput(f">{rate * factor:.3f}").check(measured, 1).outcome is Outcome.CANNOT_TELL
    assert parse_throughput(f">{rate * 9:.3f}").check(measured, 1).outcome is Outcome.FAILED  # no batch was as fast
    assert [outcome(f"mean<{limit}ms", times) for limit in (0.9, 1.1)] == [Outcome.FAILED, Outcome.CANNOT_TELL]


def test_students_distribution():
    for degrees, value in ((1, 63.656741), (2, 9.924843), (7, 3.499483), (10, 3.169273), (30, 2.749996)):
        assert t_quantile(0.995, degrees) == pytest.approx(value, abs=1e-5)
        assert t_below(value, degrees) == pytest.approx(0.995)
    for part, degrees in ((0.5, 3), (1.0, 3), (0.9, 0)):
        with pytest.raises(ValueError, match="no quantile"):
            t_quantile(part, degrees)

"""The summary's figures against hand-computed ones."""

import pytest

from miniinfer_cli.runtime.metrics import Distribution, Samples, distribution, nearest_rank, summarize


def test_percentiles_are_by_nearest_rank():
    ordered = [float(i) for i in range(1, 11)]
    assert [nearest_rank(ordered, p) for p in (0.1, 10, 10.1, 50, 90, 95, 99, 100)] == [1, 1, 2, 5, 9, 10, 10, 10]
    assert nearest_rank([7.0], 99) == 7.0


@pytest.mark.parametrize("percent", [0, -1, 100.5])
def test_a_percentile_outside_its_range_is_refused(percent):
    with pytest.raises(ValueError, match="outside"):
        nearest_rank([1.0], percent)


def test_distribution():
    d = distribution([4.0, 1.0, 2.0, 9.0], (75, 99))
    assert d == Distribution(1.0, 9.0, 4.0, 2.0, ((75, 4.0), (99, 9.0)))
    assert d.to_json() == {"min": 1.0, "max": 9.0, "mean": 4.0, "median": 2.0, "p75": 4.0, "p99": 9.0}


def test_a_distribution_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        distribution([])


def test_summary():
    summary = summarize(Samples((2.0, 2.0), (3.0, 3.0), 0.01), batch=8, percentiles=(90,))
    assert summary.to_json() == {
        "iterations": 2,
        "streams": 1,
        "throughput_qps": 200.0,
        "samples_per_second": 1600.0,
        "latency_ms": {"min": 2.0, "max": 2.0, "mean": 2.0, "median": 2.0, "p90": 2.0},
        "end_to_end_latency_ms": {"min": 3.0, "max": 3.0, "mean": 3.0, "median": 3.0, "p90": 3.0},
        "total_host_walltime_s": 0.01,
        "total_compute_time_s": 0.004,
        "hints": [],
    }


def test_hints_show_the_numbers_behind_them():
    unsteady = summarize(Samples((1.0, 3.0), (1.0, 3.0), 1.0), None)
    assert unsteady.hints == (
        "compute time varies by 50.0 % of its mean of 2.000 ms (more than 2.5 %): the clock is unsteady, or other work shares"
        " this machine",
    )
    streams = summarize(Samples((2.0, 2.0), (2.0, 2.0), 1.0, streams=4), None)
    assert streams.hints == (
        "4 streams run at once: a latency of 2.000 ms includes waiting for the others; look at the throughput",
    )
    assert summarize(Samples((100.0, 102.0), (1.0, 1.0), 1.0), None).hints == ()

"""The summary's figures against hand-computed ones."""

import pytest

from miniinfer_cli.measuring.metrics import Distribution, Samples, distribution, nearest_rank, summarize


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
    assert d == Distribution(1.0, 9.0, 4.0, 3.0, ((75, 4.0), (99, 9.0)))
    assert d.to_json() == {"min": 1.0, "max": 9.0, "mean": 4.0, "median": 3.0, "p75": 4.0, "p99": 9.0}


@pytest.mark.parametrize(
    ("times", "median"), [([3.0], 3.0), ([1.0, 2.0], 1.5), ([9.0, 1.0, 2.0], 2.0), ([1.0, 2.0, 4.0, 8.0], 3.0)]
)
def test_the_median_of_an_even_count_is_the_mean_of_the_middle_two(times, median):
    d = distribution(times, (50,))
    assert d.median == median
    assert d.percentiles[0][1] in times  # nearest rank


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


def test_an_empty_batch_has_no_samples():
    assert summarize(Samples((2.0,), (3.0,), 0.01), batch=0).to_json()["samples_per_second"] == 0.0


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


def device_samples(**more) -> Samples:
    """A GPU's: 1 ms of computing, and copies and enqueuing that do not matter."""
    rows = {"compute_ms": (1.0, 1.0), "copies_in_ms": (0.1, 0.1), "copies_out_ms": (0.2, 0.2), "enqueue_ms": (0.05, 0.05), **more}
    return Samples((1.3, 1.3), (1.5, 1.5), 0.1, **rows)


def test_rows_of_a_device():
    summary = summarize(device_samples(), batch=4, percentiles=(90,))
    assert summary.hints == ()
    found = summary.to_json()
    assert {k: v["median"] for k, v in found.items() if isinstance(v, dict)} == {
        "latency_ms": 1.3,
        "end_to_end_latency_ms": 1.5,
        "enqueue_time_ms": 0.05,
        "h2d_latency_ms": 0.1,
        "gpu_compute_time_ms": 1.0,
        "d2h_latency_ms": 0.2,
    }
    assert (found["total_compute_time_s"], found["total_host_walltime_s"], found["throughput_qps"]) == (0.002, 0.1, 20.0)
    without = summarize(device_samples(copies_in_ms=(), copies_out_ms=()), batch=None)
    assert list(without.rows) == ["Enqueue time", "GPU compute time"]


@pytest.mark.parametrize(
    ("more", "hint"),
    [
        (
            {"enqueue_ms": (0.81, 0.81)},
            "launch-bound: enqueuing takes 0.8100 ms, computing 1.0000 ms; use the CUDA graph, or a larger batch",
        ),
        (
            {"enqueue_ms": (0.9, 0.9), "captured": True},
            "launch-bound: enqueuing takes 0.9000 ms, computing 1.0000 ms; use a larger batch",
        ),
        ({"copies_in_ms": (1.0, 1.0)}, "transfer-bound: copying the inputs takes 1.0000 ms, computing 1.0000 ms"),
        ({"copies_out_ms": (2.5, 2.5)}, "transfer-bound: copying the outputs takes 2.5000 ms, computing 1.0000 ms"),
        (
            {"compute_ms": (0.97, 1.03)},
            "compute time varies by 3.0 % of its mean of 1.000 ms (more than 2.5 %): the clock is unsteady, or other work shares"
            " this machine",
        ),
        ({"streams": 2}, "2 streams run at once: a latency of 1.000 ms includes waiting for the others; look at the throughput"),
    ],
)
def test_a_hint_of_a_device_has_both_numbers(more: dict, hint: str):
    assert summarize(device_samples(**more), None).hints == (hint,)


def test_streams_explain_what_they_cost():
    of_streams = summarize(device_samples(streams=4, captured=True, enqueue_ms=(0.9, 0.9), compute_ms=(0.5, 1.5)), None)
    assert [hint.split(";")[0].split(":")[0] for hint in of_streams.hints] == ["launch-bound", "4 streams run at once"]
    assert "enqueue in turn" in of_streams.hints[0]


@pytest.mark.parametrize("more", [{"enqueue_ms": (0.8, 0.8)}, {"copies_in_ms": (0.99, 0.99)}, {"compute_ms": (0.98, 1.02)}])
def test_no_hint_before_there_is_need(more: dict):
    assert summarize(device_samples(**more), None).hints == ()

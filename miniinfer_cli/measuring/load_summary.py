"""What a load came to: latencies from when requests were due, what they waited and were computed for, goodput, drops."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from miniinfer_cli.measuring.load import Load, Scenario
from miniinfer_cli.measuring.load_log import LoadLog
from miniinfer_cli.measuring.metrics import DEFAULT_PERCENTILES, Distribution, Samples, distribution, nearest_rank

KEPT = 0.99
"""A server keeps to its budget with so large a part of all that came; MLPerf's number."""
_BEHIND = 0.97  # throughput, as a part of the rate that came, below which the queue grew all the time
_LATE_MS = 1.0  # the latest percent of requests was sent so late, or so large a part of the median latency: it is told
_LATE_PART = 0.1
_MLPERF = {Scenario.SINGLE_STREAM: 90.0, Scenario.MULTI_STREAM: 99.0, Scenario.SERVER: 99.0}  # percentiles of latency

Times = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Metric:
    """The figure by which MLPerf judges a scenario."""

    name: str
    value: float
    unit: str


@dataclass(frozen=True, slots=True)
class LoadSummary:
    """The figures of a load. ``issued`` requests are ``completed``, ``dropped``, or ``unfinished`` as they were interrupted.

    ``latency``: of queries, from when they were due to the end of their last request. ``queueing``: of requests, from when they
    were due to when somebody began with them; ``service``: from there to their end. ``sent_late``: how much later than due they
    were sent. ``most_waiting``: the longest queue, in requests. ``within_budget``: requests of queries that kept to the budget.
    None where there is nothing to tell: ``OFFLINE`` has no latencies, and only ``SERVER`` has the last but one and two.
    """

    load: Load
    batch: int | None
    issued: int
    completed: int
    dropped: int
    unfinished: int
    walltime_s: float
    throughput_qps: float
    latency: Distribution | None
    queueing: Distribution | None
    service: Distribution | None
    sent_late: Distribution | None
    most_waiting: int | None
    budget_ms: float | None
    within_budget: int | None
    metric: Metric | None
    hints: tuple[str, ...]

    @property
    def goodput_qps(self) -> float | None:
        """Requests a second that kept to the budget; None without one."""
        if self.within_budget is None:
            return None
        return self.within_budget / self.walltime_s if self.walltime_s > 0 else 0.0

    @property
    def kept(self) -> bool | None:
        """Whether the budget was kept to, by as many as MLPerf wants; None without a budget."""
        if self.within_budget is None:
            return None
        return self.within_budget >= KEPT * (self.issued - self.unfinished) and self.completed > 0

    def to_json(self) -> dict[str, Any]:
        """The figures with stable keys; see docs/results.md."""

        def row(times: Distribution | None) -> dict[str, float] | None:
            return None if times is None else times.to_json()

        return {
            "scenario": str(self.load.scenario),
            "requests": {
                "issued": self.issued,
                "completed": self.completed,
                "dropped": self.dropped,
                "unfinished": self.unfinished,
            },
            "offered_qps": self.load.rate,
            "throughput_qps": self.throughput_qps,
            "samples_per_second": None if self.batch is None else self.throughput_qps * self.batch,
            "latency_ms": row(self.latency),
            "queueing_ms": row(self.queueing),
            "service_ms": row(self.service),
            "sent_late_ms": row(self.sent_late),
            "most_waiting": self.most_waiting,
            "within_budget": self.within_budget,
            "goodput_qps": self.goodput_qps,
            "budget_kept": self.kept,
            "mlperf": None if self.metric is None else {"metric": self.metric.name, "value": self.metric.value},
            "total_host_walltime_s": self.walltime_s,
            "hints": list(self.hints),
        }


def summarize_load(
    load: Load,
    log: LoadLog,
    batch: int | None,
    *,
    budget_ms: float | None = None,
    percentiles: Sequence[float] = DEFAULT_PERCENTILES,
    advice: str = "",
) -> LoadSummary:
    """The summary of what ``log`` has of ``load``; there may be nothing in it. ``batch``: samples of each request.

    ``advice``: what may compute more, for where too much comes.
    """
    due, sent, begun, ended = (np.array(column[: log.sent_count]) for column in (log.due, log.sent, log.begun, log.ended))
    done = ~np.isnan(ended)
    walltime_s = max(log.stopped - log.started, 0.0)
    count = int(done.sum())
    throughput = count / walltime_s if walltime_s > 0 else 0.0

    def row(times_s: Times) -> Distribution | None:
        return distribution((times_s * 1e3).tolist(), percentiles) if times_s.size else None

    latencies = _query_latencies(load, due, ended) if load.scenario is not Scenario.OFFLINE else np.empty(0)
    within = None if budget_ms is None else int((latencies * 1e3 <= budget_ms).sum()) * load.width
    is_server = load.scenario is Scenario.SERVER
    queued = np.delete(np.arange(len(due)), log.dropped)
    summary = LoadSummary(
        load=load,
        batch=batch,
        issued=len(due),
        completed=count,
        dropped=len(log.dropped),
        unfinished=len(due) - count - len(log.dropped),
        walltime_s=walltime_s,
        throughput_qps=throughput,
        latency=row(latencies),
        queueing=None if load.scenario is Scenario.OFFLINE else row((begun - due)[done]),
        service=row((ended - begun)[done]),
        sent_late=row(sent - due) if is_server else None,
        most_waiting=_longest_queue(sent[queued], begun[queued]) if is_server else None,
        budget_ms=budget_ms,
        within_budget=within,
        metric=_metric(load, latencies, throughput * (batch or 1), "samples/s" if batch else "qps"),
        hints=(),
    )
    if not is_server or not count:
        return summary
    span_s, late_ms = float(due[-1]) - log.started, nearest_rank(np.sort((sent - due) * 1e3).tolist(), 99.0)
    return replace(summary, hints=tuple(_hints(summary, span_s, late_ms, advice)))


def asserted_times(load: Load, log: LoadLog) -> tuple[tuple[float, ...], Samples]:
    """What may be asserted of: the latency of each query in ms, and how long each request was computed for.

    A query that was dropped counts as one that took as long as the whole measurement.
    """
    due, begun, ended = (np.array(column[: log.sent_count]) for column in (log.due, log.begun, log.ended))
    walltime_s = max(log.stopped - log.started, 1e-9)
    latencies = _query_latencies(load, due, ended) if load.scenario is not Scenario.OFFLINE else np.empty(0)
    service = (ended - begun)[~np.isnan(ended)]
    times = ((latencies * 1e3).tolist(), [walltime_s * 1e3] * len(log.dropped), (service * 1e3).tolist())
    return (*times[0], *times[1]), Samples(tuple(times[2]), (), walltime_s)


def _query_latencies(load: Load, due: Times, ended: Times) -> Times:
    """Of each query whose requests have all ended, in seconds."""
    whole = len(due) // load.width * load.width
    ends = ended[:whole].reshape(-1, load.width).max(axis=1)  # NaN where one of them has not
    times = ends - due[: whole : load.width]
    return np.asarray(times[~np.isnan(times)])


def _longest_queue(sent: Times, begun: Times) -> int:
    """The most requests that had been sent and not begun, at once."""
    if not sent.size:
        return 0
    begins = np.sort(begun[~np.isnan(begun)])
    sends = np.sort(sent)
    return int((np.arange(1, len(sends) + 1) - np.searchsorted(begins, sends, side="right")).max())


def _metric(load: Load, latencies: Times, rate: float, unit: str) -> Metric | None:
    if load.scenario is Scenario.OFFLINE:
        return Metric(f"{unit} of one query", rate, unit)
    if not latencies.size:
        return None
    percent = _MLPERF[load.scenario]
    return Metric(f"p{percent:g} of latency", nearest_rank(sorted((latencies * 1e3).tolist()), percent), "ms")


def _hints(summary: LoadSummary, span_s: float, late_ms: float, advice: str) -> Iterator[str]:
    """``span_s``: from the beginning to when the last request was due; ``late_ms``: the latest percent was sent so late."""
    assert summary.latency is not None, "there are requests with a result"
    came = summary.issued / span_s
    if not summary.unfinished and (summary.dropped or summary.throughput_qps < _BEHIND * came):
        full = f", and {summary.dropped} requests found it full" if summary.dropped else ""
        yield (
            f"overload: {came:.1f} requests a second came, {summary.throughput_qps:.1f} were computed; the queue grew to"
            f" {summary.most_waiting}{full}: {advice or 'a lower rate is kept up with'}"
        )
    if late_ms > max(_LATE_MS, _LATE_PART * summary.latency.median):
        yield (
            f"requests were sent late: 1 % by {late_ms:.3f} ms or more, beside a median latency of"
            f" {summary.latency.median:.3f} ms, which counts from when they were due: who sends shares the processors, and"
            " Python, with what computes"
        )

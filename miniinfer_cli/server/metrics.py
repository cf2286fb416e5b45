"""The figures of a server in Prometheus' text format; with Triton's names besides, where they are asked for."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry

from miniinfer_cli.server.figures import (
    BOUNDS_S,
    CANCELLED,
    CLOSED,
    DEADLINE,
    ERROR,
    INVALID,
    REJECTED,
    RESULT,
    BatchTotals,
    Times,
)
from miniinfer_cli.server.repository import Repository, ServedPlan
from miniinfer_cli.serving.workers import PHASES

_LABELS = ("model", "version")
_TRITON_REASONS = {
    CANCELLED: "CANCELED",
    ERROR: "BACKEND",
    REJECTED: "REJECTED",
    DEADLINE: "REJECTED",
    CLOSED: "REJECTED",
    INVALID: "OTHER",
}


class Metrics:
    """What ``/metrics`` answers. ``statuses``: answers by status of HTTP. ``triton_names``: also as Triton calls it."""

    def __init__(self, repository: Repository, statuses: Mapping[int, int], *, triton_names: bool = False) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Collector(repository, statuses, triton_names))

    def text(self) -> tuple[bytes, str]:
        """The figures now, and the type of this text."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST


class _Collector(Collector):
    def __init__(self, repository: Repository, statuses: Mapping[int, int], triton_names: bool) -> None:
        self._repository = repository
        self._statuses = statuses
        self._triton_names = triton_names

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        plans = [(served, served.totals()) for served in self._repository]
        responses = CounterMetricFamily("miniinfer_http_responses", "Answers to requests of all kinds.", labels=("code",))
        for status, count in self._statuses.items():
            responses.add_metric([str(status)], count)
        yield responses
        yield from _own(plans)
        if self._triton_names:
            yield from _tritons(plans)


_Plans = Sequence[tuple[ServedPlan, BatchTotals]]


def _own(plans: _Plans) -> Iterator[Metric]:
    requests = CounterMetricFamily("miniinfer_requests", "Requests to infer, by how they ended.", labels=(*_LABELS, "outcome"))
    reloads = CounterMetricFamily("miniinfer_reloads", "Times that a plan was taken again.", labels=(*_LABELS, "outcome"))
    for served, _ in plans:
        for outcome, count in served.figures.outcomes.items():
            requests.add_metric([served.name, served.version, outcome], count)
        for outcome, count in served.figures.reloads.items():
            reloads.add_metric([served.name, served.version, outcome], count)
    yield requests
    yield reloads
    for name, text, times in (
        ("miniinfer_request_seconds", "From the head of a request to its answer.", lambda s: s.figures.request_s),
        ("miniinfer_queue_seconds", "From a request's queueing to its batch's beginning.", lambda s: s.figures.queue_s),
        ("miniinfer_execution_seconds", "From a batch's beginning to a request's result.", lambda s: s.figures.execution_s),
        (
            "miniinfer_answer_seconds",
            "From a request's result to its answer, within its execution.",
            lambda s: s.figures.answer_s,
        ),
    ):
        yield _histogram(name, text, plans, times)
    sizes = HistogramMetricFamily("miniinfer_batch_rows", "Rows of the batches that were computed.", labels=_LABELS)
    for served, totals in plans:
        bounds = [1 << n for n in range(max(served.current.most_rows - 1, 1).bit_length() + 1)]
        counts = [(str(b), sum(c for rows, c in totals.by_rows.items() if rows <= b)) for b in bounds]
        sizes.add_metric([served.name, served.version], [*counts, ("+Inf", totals.batches)], totals.rows)
    yield sizes
    phases = CounterMetricFamily(
        "miniinfer_batch_phase_seconds", "What workers did with batches, in seconds of all.", labels=(*_LABELS, "phase")
    )
    for served, totals in plans:
        for phase in PHASES:
            phases.add_metric([served.name, served.version, phase], totals.phases_s[phase])
    yield phases
    for name, text, value in (
        ("miniinfer_queue_depth", "Requests that wait.", lambda t: t.queued),
        ("miniinfer_running_requests", "Requests that are computed.", lambda t: t.running),
    ):
        yield _gauge(name, text, plans, value)


def _tritons(plans: _Plans) -> Iterator[Metric]:
    failures = Metric("nv_inference_request_failure", "Failed requests, by reason.", "unknown")
    for served, _ in plans:
        reasons = Counter[str]()
        for outcome, reason in _TRITON_REASONS.items():
            reasons[reason] += served.figures.outcomes[outcome]
        for reason, count in reasons.items():
            failures.add_sample(failures.name, {"model": served.name, "version": served.version, "reason": reason}, count)
    yield failures
    counts: tuple[tuple[str, str, Callable[[ServedPlan, BatchTotals], float]], ...] = (
        ("request_success", "Requests with a result.", lambda s, t: s.figures.outcomes[RESULT]),
        ("request_duration_us", "Microseconds of requests with a result.", lambda s, t: s.figures.request_s.sum_s * 1e6),
        ("count", "Rows that were computed.", lambda s, t: t.rows),
        ("exec_count", "Batches that were computed.", lambda s, t: t.batches),
        ("queue_duration_us", "Microseconds that requests waited.", lambda s, t: s.figures.queue_s.sum_s * 1e6),
        (
            "compute_infer_duration_us",
            "Microseconds that requests were computed.",
            lambda s, t: s.figures.execution_s.sum_s * 1e6,
        ),
    )
    for name, text, value in counts:
        yield _untyped(f"nv_inference_{name}", text, plans, value)
    yield _gauge("nv_inference_pending_request_count", "Requests that wait.", plans, lambda t: t.queued)


def _untyped(name: str, text: str, plans: _Plans, value: Callable[[ServedPlan, BatchTotals], float]) -> Metric:
    """A counter of Triton's, whose names do not end in _total: so Prometheus' format cannot call it a counter."""
    made = Metric(name, text, "unknown")
    for served, totals in plans:
        made.add_sample(name, {"model": served.name, "version": served.version}, value(served, totals))
    return made


def _gauge(name: str, text: str, plans: _Plans, value: Callable[[BatchTotals], float]) -> Metric:
    made = GaugeMetricFamily(name, text, labels=_LABELS)
    for served, totals in plans:
        made.add_metric([served.name, served.version], value(totals))
    return made


def _histogram(name: str, text: str, plans: _Plans, of: Callable[[ServedPlan], Times]) -> Metric:
    made = HistogramMetricFamily(name, text, labels=_LABELS)
    for served, _ in plans:
        times, below = of(served), 0
        buckets: list[Any] = []
        for bound, count in zip([*map(str, BOUNDS_S), "+Inf"], times.buckets, strict=True):
            below += count
            buckets.append((bound, below))
        made.add_metric([served.name, served.version], buckets, times.sum_s)
    return made

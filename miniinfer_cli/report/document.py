"""A document of measured results (docs/results.md) as records: what reports are made of.

What a document lacks is None or empty here, and the section that would show it is left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from miniinfer_cli.errors import UsageError
from miniinfer_cli.fields import Fields
from miniinfer_cli.report.findings import Account, Finding, read_account, read_findings, read_tried

KINDS = ("run", "profile", "sweep", "load")


@dataclass(frozen=True, slots=True)
class Node:
    """One step of a program, with what was measured of it; ``number`` is its place in the program.

    ``reads``: the numbers of the nodes whose results it reads. ``rate``: what computes, in which numbers (``matrix f16``).
    ``flops``, ``nbytes``: what it does at least. ``bound_by``, ``fraction``: which ceiling of the device it is nearer to, and how
    near: 1 is at it.
    """

    number: int
    label: str
    operation: str
    how: str
    chosen_by: str | None
    median_ms: float
    min_ms: float | None
    max_ms: float | None
    gap_ms: float | None
    flops: int | None
    nbytes: int | None
    rate: str | None
    reads: tuple[int, ...]
    origins: tuple[str, ...]
    bound_by: str | None
    fraction: float | None

    @property
    def numbers(self) -> str | None:
        """In which numbers it computes: ``f16``, ``tf32``."""
        return None if self.rate is None else self.rate.rpartition(" ")[2]


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What the device does at best: 1e9 bytes of memory a second, and 1e9 operations a second by the rate of nodes."""

    memory_gbps: float
    gflops: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many latencies lie in each of the ranges of ``width_ms`` from ``from_ms`` on; ``beyond``: in none of them."""

    from_ms: float
    width_ms: float
    counts: tuple[int, ...]
    beyond: int


@dataclass(frozen=True, slots=True)
class Span:
    """Something that took time on a track of a stream, for one inference; ``node``: the number of a node, where it is one."""

    stream: int
    track: str
    name: str
    inference: int
    begin_us: float
    length_us: float
    node: int | None


@dataclass(frozen=True, slots=True)
class Point:
    """One setting of a sweep, measured."""

    streams: int
    batch: int | None
    throughput_qps: float
    samples_per_second: float | None
    p50_ms: float
    p99_ms: float

    @property
    def load(self) -> int:
        """Samples that are under way at once."""
        return self.streams * (self.batch or 1)

    @property
    def rate(self) -> float:
        """Samples per second, or inferences where there is no batch."""
        return self.throughput_qps if self.samples_per_second is None else self.samples_per_second


@dataclass(frozen=True, slots=True)
class Sweep:
    """The settings of a sweep: those measured, and in words those that were not; and what came out, by its name."""

    points: tuple[Point, ...]
    unmeasured: tuple[tuple[str, str], ...]
    chosen: Mapping[str, Point]


@dataclass(frozen=True, slots=True)
class Result:
    """One document. ``rows``: distributions in ms by the name of their row. ``facts``: what was run, how and where, in groups."""

    kind: str
    plan: str
    device: str
    device_name: str
    date: str
    figures: Mapping[str, float]
    rows: Mapping[str, Mapping[str, float]]
    hints: tuple[str, ...]
    notes: tuple[str, ...]
    nodes: tuple[Node, ...]
    histogram: Histogram | None
    spans: tuple[Span, ...]
    clock_error_us: float
    sweep: Sweep | None
    ceilings: Ceilings | None
    account: Account | None
    findings: tuple[Finding, ...]
    tried: tuple[tuple[str, str], ...]
    facts: Mapping[str, Sequence[tuple[str, str]]]


_ROWS = {
    "latency_ms": "Latency",
    "end_to_end_latency_ms": "End-to-end latency",
    "enqueue_time_ms": "Enqueue time",
    "h2d_latency_ms": "H2D latency",
    "gpu_compute_time_ms": "GPU compute time",
    "d2h_latency_ms": "D2H latency",
    "queueing_ms": "Queueing",
    "service_ms": "Service",
    "sent_late_ms": "Sent later than due",
}
_FIGURES = (
    *("throughput_qps", "samples_per_second", "iterations", "streams", "batch", "weights_bytes", "arena_bytes"),
    *("activation_bytes", "nodes_sum_ms", "total_host_walltime_s", "total_compute_time_s", "offered_qps", "goodput_qps"),
)


def read_result(document: Any) -> Result:
    """The records of a document of a kind in KINDS. Raises UsageError for another one, and where a key is of the wrong kind."""
    fields = Fields(document)
    kind = fields.text("kind")
    if kind not in KINDS:
        of = "holds no results of miniinfer" if kind is None else f"is of kind {kind!r}, of which no report can be made"
        hint = f"give a document of kind {', '.join(KINDS[:-1])} or {KINDS[-1]}"
        raise UsageError(of, hint=hint)
    histogram, timeline = fields.object("latency_histogram"), fields.object("timeline")
    rows = {name: found.numbers() for key, name in _ROWS.items() if (found := fields.object(key)) is not None}
    device = fields.text("device") or ""
    # A CPU has no name of its own: the host knows what it is.
    named = fields.object("host") if device == "cpu" else fields.object("device_facts")
    conditions = fields.object("conditions")
    nodes = tuple(_node(n, found) for n, found in enumerate(fields.objects("nodes")))
    return Result(
        kind=kind,
        plan=fields.text("plan") or "",
        device=device,
        device_name=(named and named.text("processor" if device == "cpu" else "name")) or device,
        date=fields.text("date") or "",
        figures={key: value for key in _FIGURES if (value := fields.amount(key)) is not None},
        rows=rows,
        hints=(*fields.texts("hints"), *(() if conditions is None else conditions.texts("flags"))),
        notes=fields.texts("notes"),
        nodes=nodes,
        histogram=None if histogram is None else _histogram(histogram),
        spans=() if timeline is None else tuple(_span(found, len(nodes)) for found in timeline.objects("spans")),
        clock_error_us=(timeline and timeline.amount("clock_error_us")) or 0.0,
        sweep=_sweep(fields) if kind == "sweep" else None,
        ceilings=_ceilings(fields.object("ceilings")),
        account=read_account(fields),
        findings=read_findings(fields),
        tried=read_tried(fields),
        facts=_facts(fields),
    )


def _node(number: int, found: Fields) -> Node:
    roofline, join = found.object("roofline"), found.object("join")
    how = found.text("tactic") or ""
    key = None if join is None else join.text("key")
    return Node(
        number=number,
        label=found.text("node") or f"node {number}",
        operation=found.text("operation") or "",
        how=how if key is None else f"{key}: {how}",
        chosen_by=found.text("chosen_by"),
        median_ms=found.amount("median_ms") or 0.0,
        min_ms=found.amount("min_ms"),
        max_ms=found.amount("max_ms"),
        gap_ms=found.amount("gap_ms"),
        flops=found.count("flops"),
        nbytes=found.count("bytes"),
        rate=found.text("rate"),
        reads=tuple(n for n in found.counts("reads") if n < number),
        origins=found.texts("origins"),
        bound_by=None if roofline is None else roofline.text("bound_by"),
        fraction=None if roofline is None else roofline.amount("fraction"),
    )


def _ceilings(found: Fields | None) -> Ceilings | None:
    bandwidth = None if found is None else found.amount("memory_gbps")
    tflops = None if found is None else found.object("tflops")
    return Ceilings(bandwidth, {k: 1e3 * v for k, v in tflops.numbers().items() if v}) if bandwidth and tflops else None


def _histogram(found: Fields) -> Histogram | None:
    begin, width, counts = found.amount("from_ms"), found.amount("width_ms"), found.counts("counts")
    return Histogram(begin, width, counts, found.count("beyond") or 0) if begin is not None and width and counts else None


def _span(found: Fields, nodes: int) -> Span:
    node = found.count("node")
    return Span(
        stream=found.count("stream") or 0,
        track=found.text("track") or "",
        name=found.text("name") or "",
        inference=found.count("inference") or 0,
        begin_us=found.amount("begin_us") or 0.0,
        length_us=found.amount("length_us") or 0.0,
        node=node if node is not None and node < nodes else None,
    )


def _sweep(fields: Fields) -> Sweep:
    points: dict[tuple[int, int | None], Point] = {}
    unmeasured = []
    for found in fields.objects("points"):
        setting = (found.count("streams") or 1, found.count("batch"))
        rate, p50, p99 = (found.amount(k) for k in ("throughput_qps", "p50_ms", "p99_ms"))
        if rate is not None and p50 is not None and p99 is not None:
            points[setting] = Point(*setting, rate, found.amount("samples_per_second"), p50, p99)
        else:
            told = f"{found.text('status') or 'not measured'}: {found.text('reason') or 'no reason told'}"
            batch = "" if setting[1] is None else f", batch {setting[1]}"
            unmeasured.append((f"streams {setting[0]}{batch}", told))
    names = {"best": "best", "best_within_budget": "best within the budget", "knee": "knee"}
    chosen = {}
    for key, name in names.items():
        found_setting = fields.object(key)
        if found_setting is not None:
            point = points.get((found_setting.count("streams") or 1, found_setting.count("batch")))
            if point is not None:
                chosen[name] = point
    return Sweep(tuple(points.values()), tuple(unmeasured), chosen)


def _facts(fields: Fields) -> dict[str, list[tuple[str, str]]]:
    """What was run, how and where, in groups of names and values for a reader."""
    plan = [(name, value) for key, name in _PLAN.items() if (value := fields.shown(key)) is not None]
    plan += [(f"input {b.text('name')}", _binding(b)) for b in fields.objects("inputs")]
    plan += [(f"output {b.text('name')}", _binding(b)) for b in fields.objects("outputs")]
    groups = {"Plan": plan}
    for key, name in _GROUPS.items():
        found = fields.object(key)
        groups[name] = [] if found is None else [(k.replace("_", " "), v) for k, v in found.pairs() if v]
    return {name: group for name, group in groups.items() if group}


_GROUPS = {
    "requests": "Requests",
    "served": "Served",
    "device_facts": "Device",
    "gpu_state": "GPU after the measurement",
    "host": "Host",
    "versions": "Versions",
    "settings": "Settings",
}
_PLAN = {
    "plan": "file",
    "plan_digest": "digest",
    "plan_producer": "built by",
    "weights_bytes": "bytes of weights",
    "batch": "batch",
    "device": "ran on",
}


def _binding(found: Fields) -> str:
    parts = (found.text("type"), found.shown("shape"), found.text("source"))
    return " · ".join(p for p in parts if p)

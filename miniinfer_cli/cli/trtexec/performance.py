"""The times of whole inferences as trtexec tells them: averages of some, then the performance summary."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from miniinfer_cli.cli.measuring import Measured
from miniinfer_cli.cli.progress import Extent
from miniinfer_cli.cli.report import Printer
from miniinfer_cli.cli.trtexec.log import Log, number
from miniinfer_cli.measuring.metrics import Distribution, Samples, distribution

_SHOWN = 200  # averages that are printed at the beginning, and at the end


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of the summary. A CPU has no copies and no queue: theirs are 0, and all of its time is computing."""

    throughput_qps: float
    latency: Distribution
    enqueue: Distribution
    h2d: Distribution
    compute: Distribution
    d2h: Distribution
    walltime_s: float
    compute_s: float

    @classmethod
    def of(cls, measured: Measured, percentiles: Sequence[float]) -> "Rows":
        """Those of what was measured."""
        summary = measured.summary
        none = distribution((0.0,), percentiles)
        names = ("Enqueue time", "H2D latency", "GPU compute time", "D2H latency")
        enqueue, h2d, compute, d2h = (summary.rows.get(name) for name in names)
        return cls(
            summary.throughput_qps, summary.latency, enqueue or none, h2d or none, compute or summary.latency, d2h or none,
            summary.walltime_s, summary.compute_s,
        )  # fmt: skip

    def distributions(self) -> dict[str, Distribution]:
        """Those in ms, as they are printed."""
        named = (self.latency, self.enqueue, self.h2d, self.compute, self.d2h)
        return dict(zip(("Latency", "Enqueue Time", "H2D Latency", "GPU Compute Time", "D2H Latency"), named, strict=True))

    def to_json(self) -> dict[str, Any]:
        """The same figures with stable keys, those of ``run --json`` where that has them."""
        keys = ("latency_ms", "enqueue_time_ms", "h2d_latency_ms", "gpu_compute_time_ms", "d2h_latency_ms")
        return {
            "throughput_qps": self.throughput_qps,
            **{key: row.to_json() for key, row in zip(keys, self.distributions().values(), strict=True)},
            "total_host_walltime_s": self.walltime_s,
            "total_gpu_compute_time_s": self.compute_s,
        }


class Watch(Printer):
    """Prints nothing, and notes how far the measuring came: how many inferences of each stage, and when a stage began."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.counts: dict[str, int] = {}
        self.begun: dict[str, float] = {}

    @contextmanager
    def progress(self, extents: Mapping[str, Extent]) -> Iterator[Any]:
        """See Printer."""

        def note(stage: str, done: int) -> None:
            if stage not in self.begun:
                self.begun[stage] = perf_counter()
            self.counts[stage] = done

        yield note

    @property
    def warmup_ms(self) -> float:
        """Milliseconds from the beginning of the warm-up to the first inference that was measured, or to now."""
        return (self.begun.get("inferences", perf_counter()) - self.begun.get("warm-up", perf_counter())) * 1e3


def print_trace(log: Log, samples: Samples, count: int) -> None:
    """The mean of each ``count`` inferences; of what is left over only where that is all there is."""
    total = len(samples.latency_ms)
    compute, enqueue = samples.compute_ms or samples.latency_ms, samples.enqueue_ms or (0.0,)
    log.banner("Trace details")
    log.info(f"Trace averages of {count} runs:")
    size = min(count, total)
    starts = range(0, total - size + 1, size)
    for place, start in enumerate(starts):
        if _SHOWN <= place < len(starts) - _SHOWN:
            if place == _SHOWN:
                log.info(f"... Omitting {len(starts) - 2 * _SHOWN} lines")
            continue
        part = slice(start, start + size)
        log.info(
            f"Average on {size} runs - GPU latency: {number(_mean(compute[part]))} ms - Host latency:"
            f" {number(_mean(samples.latency_ms[part]))} ms (enqueue {number(_mean(enqueue))} ms)"
        )


def print_summary(log: Log, rows: Rows, hints: Sequence[str]) -> None:
    """The performance summary, then what is to be said of it."""
    log.banner("Performance summary")
    log.info(f"Throughput: {number(rows.throughput_qps)} qps")
    for name, row in rows.distributions().items():
        figures = [("min", row.minimum), ("max", row.maximum), ("mean", row.mean), ("median", row.median)]
        figures += [(f"percentile({p:g}%)", value) for p, value in row.percentiles]
        log.info(f"{name}: " + ", ".join(f"{what} = {number(value)} ms" for what, value in figures))
    log.info(f"Total Host Walltime: {number(rows.walltime_s)} s")
    log.info(f"Total GPU Compute Time: {number(rows.compute_s)} s")
    for hint in hints:
        log.warning(f"* {hint}")
    log.info()


def times_to_json(samples: Samples) -> list[dict[str, float]]:
    """Every inference, its points in time in ms from the first call after warm-up.

    Durations are measured on the device. Points are told from when the call began and when its result was there, phase before
    phase: what a phase waited stands in front of the first.
    """
    count = len(samples.latency_ms)
    none = (0.0,) * count
    enqueue = _mean(samples.enqueue_ms) if samples.enqueue_ms else 0.0
    columns = zip(
        samples.started_ms, samples.end_to_end_ms, samples.copies_in_ms or none, samples.compute_ms or samples.latency_ms,
        samples.copies_out_ms or none, samples.latency_ms, strict=True,
    )  # fmt: skip
    found = []
    for started, whole, h2d, compute, d2h, latency in columns:
        end = started + whole
        begin_d2h = end - d2h
        begin_compute = begin_d2h - compute
        found.append({
            "startEnqMs": started, "endEnqMs": started + enqueue,
            "startH2dMs": begin_compute - h2d, "endH2dMs": begin_compute,
            "startComputeMs": begin_compute, "endComputeMs": begin_d2h,
            "startD2hMs": begin_d2h, "endD2hMs": end,
            "h2dMs": h2d, "computeMs": compute, "d2hMs": d2h, "latencyMs": latency,
        })  # fmt: skip
    return sorted(found, key=lambda one: one["startEnqMs"])


def _mean(times: Sequence[float]) -> float:
    return sum(times) / len(times)

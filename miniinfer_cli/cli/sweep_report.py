"""What a sweep found: the settings that were measured, those that were left out and why, the best ones, and the knee."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from miniinfer_cli.cli.report import Printer, print_state, results_head
from miniinfer_cli.measuring.sweep import KNEE_GAIN, Sweep
from miniinfer_cli.measuring.sweep_points import Point, Reading, Setting


@dataclass(frozen=True, slots=True)
class SweepResult:
    """A sweep that is over, or was interrupted. ``has_batch``: throughput is of samples, not of inferences alone."""

    sweep: Sweep
    has_batch: bool
    interrupted: bool

    @property
    def unit(self) -> str:
        """Of throughput."""
        return "samples/s" if self.has_batch else "qps"

    def told(self, setting: Setting) -> str:
        """A setting in words."""
        return f"streams {setting.streams}" + (f", batch {setting.batch}" if self.has_batch else "")

    def left_out(self) -> dict[Setting, str]:
        """Why each setting was not measured that was not."""
        known = {p.setting for p in self.sweep.points} | self.sweep.failed.keys()
        return {s: self._why(s) for s in self.sweep.settings if s not in known}

    def _why(self, setting: Setting) -> str:
        wall = self.sweep.wall(setting)
        if wall is not None:
            return f"as large as {self.told(wall)}, which failed"
        if self.interrupted:
            return "interrupted before"
        used = len(self.sweep.points) + len(self.sweep.failed)
        return f"beyond the {used} that the search took" if used >= self.sweep.most else "promised no more"


def print_sweep(printer: Printer, result: SweepResult, plan: Path, gpu_state: Mapping[str, Any]) -> None:
    """The table of what was measured, and the conclusions."""
    sweep, left_out = result.sweep, result.left_out()
    printer.section("Sweep")
    batch = ("batch",) if result.has_batch else ()
    rows = [
        (
            *(p.setting.streams, *((p.setting.batch,) if batch else ()), p.throughput, p.p50_ms, p.p99_ms, len(p.readings)),
            ", ".join(_names(sweep, p)),
        )
        for p in sweep.points
    ]
    printer.table(("streams", *batch, result.unit, "p50 ms", "p99 ms", "times", "it is"), rows)
    for setting, failed in sorted(sweep.failed.items()):
        printer.line(f"Failed: {result.told(setting)}: {failed.why}")
    if result.interrupted:
        printer.line("Interrupted: what was measured so far is shown")
    printer.line(f"Measured: {len(sweep.settings) - len(left_out)} of {len(sweep.settings)} settings")
    for why in dict.fromkeys(left_out.values()):
        printer.line(f"Not measured, {why}: {_listed(result, [s for s, reason in left_out.items() if reason == why])}")
    best, knee = sweep.best, sweep.knee
    if best is None or knee is None:
        return
    printer.line(f"Best: {_figures(result, best)}")
    if sweep.budget_ms is not None:
        within = sweep.best_within_budget
        fastest = min(sweep.points, key=lambda p: p.p99_ms)
        none = f"nothing measured; the least p99 is {fastest.p99_ms:.4f} ms, of {result.told(fastest.setting)}"
        printer.line(f"Best within {sweep.budget_ms:g} ms: {none if within is None else _figures(result, within)}")
    gain = f"{KNEE_GAIN * 100:g} %"
    printer.line(f"Knee: {_figures(result, knee)}: the least load from which nothing measured gives {gain} more")
    flags = f"--streams {best.setting.streams}" + (f" --batch {best.setting.batch}" if batch and len(sweep.batches) > 1 else "")
    for name, axis, value in (("streams", sweep.streams, best.setting.streams), ("batch", sweep.batches, best.setting.batch)):
        if len(axis) > 1 and value == axis[-1]:
            printer.line(f"hint: the best has the largest value of --{name}: larger ones may be better still")
    printer.line(f"hint: miniinfer profile {plan} {flags} times its nodes")
    print_state(printer, gpu_state)


def sweep_to_json(result: SweepResult, identity: Mapping[str, Any], gpu_state: Mapping[str, Any]) -> dict[str, Any]:
    """The same with stable keys, as docs/results.md describes a document of the kind ``sweep``."""
    sweep, left_out = result.sweep, result.left_out()
    points = {p.setting: p for p in sweep.points}

    def described(setting: Setting) -> dict[str, Any]:
        point, failed = points.get(setting), sweep.failed.get(setting)
        return {
            **_place(result, setting),
            "status": "measured" if point is not None else "failed" if failed is not None else "left out",
            "reason": failed.why if failed is not None else left_out.get(setting),
            **_rates(result, setting, None if point is None else point.throughput),
            "p50_ms": None if point is None else point.p50_ms,
            "p99_ms": None if point is None else point.p99_ms,
            "readings": [] if point is None else [_reading(result, setting, r) for r in point.readings],
        }

    def place(point: Point | None) -> dict[str, Any] | None:
        return None if point is None else _place(result, point.setting)

    return {
        **results_head("sweep"),
        **identity,
        "interrupted": result.interrupted,
        "points": [described(s) for s in sweep.settings],
        "best": place(sweep.best),
        "best_within_budget": place(sweep.best_within_budget),
        "knee": place(sweep.knee),
        "knee_gain": KNEE_GAIN,
        "gpu_state": gpu_state,
    }


def _place(result: SweepResult, setting: Setting) -> dict[str, Any]:
    return {"streams": setting.streams, "batch": setting.batch if result.has_batch else None}


def _rates(result: SweepResult, setting: Setting, throughput: float | None) -> dict[str, Any]:
    return {
        "throughput_qps": None if throughput is None else throughput / setting.batch,
        "samples_per_second": throughput if result.has_batch else None,
    }


def _reading(result: SweepResult, setting: Setting, reading: Reading) -> dict[str, Any]:
    return {
        **_rates(result, setting, reading.throughput),
        "p50_ms": reading.p50_ms,
        "p99_ms": reading.p99_ms,
        **reading.more,
    }


def _names(sweep: Sweep, point: Point) -> list[str]:
    named = [("best", sweep.best), ("knee", sweep.knee)]
    if sweep.budget_ms is not None:
        named.insert(1, (f"best within {sweep.budget_ms:g} ms", sweep.best_within_budget))
    return [name for name, p in named if p is not None and p.setting == point.setting]


def _figures(result: SweepResult, point: Point) -> str:
    latency = f"p50 {point.p50_ms:.4f} ms, p99 {point.p99_ms:.4f} ms"
    return f"{result.told(point.setting)}: {point.throughput:.2f} {result.unit}, {latency}"


def _listed(result: SweepResult, settings: Sequence[Setting]) -> str:
    """By number of streams, with their batches."""
    if not result.has_batch:
        return f"streams {', '.join(str(s.streams) for s in settings)}"
    by_streams: dict[int, list[str]] = {}
    for s in settings:
        by_streams.setdefault(s.streams, []).append(str(s.batch))
    return "; ".join(f"streams {streams}, batch {', '.join(batches)}" for streams, batches in by_streams.items())

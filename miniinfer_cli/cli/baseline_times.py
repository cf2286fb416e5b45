"""A plan measured beside a baseline: raced with a plan side by side, or its fresh workers beside times that were taken before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from miniinfer_cli.cli.measuring import Bench
from miniinfer_cli.cli.report import Printer
from miniinfer_cli.cli.sides import Side
from miniinfer_cli.cli.verdicts import described_verdict, verdict_told
from miniinfer_cli.comparison.alone import measure_alone
from miniinfer_cli.comparison.baselines import TIME, Found, judge_found
from miniinfer_cli.comparison.messages import Job
from miniinfer_cli.comparison.pair_tests import Verdict
from miniinfer_cli.comparison.processors import Pool
from miniinfer_cli.comparison.race import Rules, race
from miniinfer_cli.comparison.workers import Worker, WorkerProcess
from miniinfer_cli.measuring.conditions import slowdowns

_BUDGET_S = 30.0  # for the workers, or as long as the plan itself is measured
_WARMUP_S = 0.1
_MARGIN = 0.02


@dataclass(frozen=True, slots=True)
class Beside:
    """What came out: of which ``figure`` of each process, and what was ``measured``, in words."""

    side: Side
    figure: str
    verdict: Verdict
    measured: str
    notes: Sequence[str]

    def print(self, printer: Printer) -> None:
        """The verdict on the plan, beside the baseline as A."""
        printer.section("Baseline")
        printer.line(f"Baseline: {self.side.file} ({self.side.kind})")
        printer.line(f"Measured: {self.measured}")
        for note in self.notes:
            printer.line(f"hint: {note}")
        printer.line(f"Verdict: {verdict_told(self.verdict, 'the plan', 'the baseline')}")

    def to_json(self) -> dict[str, Any]:
        """Stable keys."""
        return {
            "file": str(self.side.file),
            "is": str(self.side.kind),
            "figure": self.figure,
            "times": described_verdict(self.verdict),
            "notes": list(self.notes),
        }


def measure_beside(
    side: Side, found: Found | None, bench: Bench, feeds: Mapping[str, Any], identity: Mapping[str, Any], printer: Printer
) -> Beside:
    """The plan of ``bench``, which is closed, beside ``side``, on the ``feeds`` of A, the baseline, and of B.

    ``found``: times of the baseline that were taken before. ``identity``: where the plan ran.
    """
    wanted = bench.wanted
    cores, on_cpu = identity["host"]["cores"], identity["device"] == "cpu"
    threads = wanted.streams * identity["device_facts"].get("threads", 1)
    budget_s = max(_BUDGET_S, wanted.schedule.duration_s)
    plans = {"A": side.file, "B": wanted.plan}

    def start(letter: str) -> Worker:
        plan = str(plans[letter].absolute())
        rest = (tuple(wanted.plugins), [feeds[letter]], wanted.streams, wanted.schedule.transfers, _WARMUP_S)
        return WorkerProcess(str(plans[letter]), Job(plan, identity["device"], wanted.gpu, *rest))

    with printer.share() as show:
        if found is None:
            processors = Pool.available() if on_cpu else Pool()
            rules = Rules(budget_s, None, _MARGIN, cores, threads, on_cpu, processors)
            raced = race(start, 1, rules, lambda part: show("beside the baseline", part))
            if raced.interrupted:
                raise KeyboardInterrupt
            told = f"{len(raced.clean)} pairs of workers in {raced.seconds:.1f} s"
            return Beside(side, TIME, raced.verdicts[0], told, raced.conditions.flags)
        alone = measure_alone(
            lambda: start("B"), budget_s, cores=cores, threads=threads, on_cpu=on_cpu,
            progress=lambda part: show("workers", part),
        )  # fmt: skip
    verdict, figure = judge_found(found.measurement, alone.measurement, _MARGIN)
    told = f"{len(alone.times_ms)} workers in {alone.seconds:.1f} s, by the {figure}"
    if alone.disturbed:
        told += f"; {alone.disturbed} more were disturbed by other work, and do not count"
    slow = [f"the GPU was slowed down: {', '.join(reasons)}" for state in alone.states if (reasons := slowdowns(state))]
    return Beside(side, figure, verdict, told, list(dict.fromkeys(slow)))

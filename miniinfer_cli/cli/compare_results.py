"""``compare`` with results of measurements: times that were taken before, beside others, or beside fresh workers of now."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from miniinfer_cli.cli.asserting import Asserts
from miniinfer_cli.cli.compare_sides import Case, Ran, run_sides
from miniinfer_cli.cli.compare_times import job_of, threads_of
from miniinfer_cli.cli.compare_wanted import CompareWanted
from miniinfer_cli.cli.report import Printer
from miniinfer_cli.cli.sides import Kind, Side
from miniinfer_cli.cli.verdicts import described_verdict, verdict_told
from miniinfer_cli.comparison.alone import Alone, measure_alone
from miniinfer_cli.comparison.assertions import Asserted
from miniinfer_cli.comparison.baselines import Found, judge_found, machine_differences, setting_differences
from miniinfer_cli.comparison.pair_tests import Verdict
from miniinfer_cli.comparison.workers import WorkerProcess
from miniinfer_cli.errors import UsageError


@dataclass(frozen=True, slots=True)
class Apart:
    """Two sides whose times were taken at different times; ``ran``: the side that ran now, if one did."""

    ran: Sequence[Ran]
    case: Case
    verdict: Verdict
    measured: str
    notes: Sequence[str]

    def print(self, printer: Printer) -> None:
        """The verdict, and what is not the same on both sides."""
        printer.section("Times")
        printer.line(f"Measured: {self.measured}")
        for note in self.notes:
            printer.line(f"note: not the same: {note}")
        printer.line(f"Verdict: {verdict_told(self.verdict)}")

    def case_to_json(self) -> dict[str, Any]:
        """The one case, with stable keys."""
        case = self.case
        times = {**described_verdict(self.verdict)}
        return {"label": case.label, "inputs": list(case.inputs), "batch": case.batch, "notes": list(self.notes), "times": times}

    def check(self, asserts: Asserts) -> list[Asserted]:
        """How the assertion on the change ended."""
        return asserts.check_regression(self.verdict)


def compare_results(sides: Sequence[Side], folder: Path, wanted: CompareWanted, printer: Printer) -> Apart:
    """Compares times, at least one of whose ``sides`` is results. Raises UsageError where they were measured otherwise."""
    found: list[Found] = []
    ran: Sequence[Ran] = ()
    case, told = Case("", {}, ()), []
    for side in sides:
        if side.kind is Kind.RESULTS:
            found.append(_read(side))
            measurement = found[-1].measurement
            told.append(f"{side.letter} {max(len(measurement.workers_ms), len(measurement.latencies_ms))} before")
        else:
            compared = run_sides([side], folder, wanted, printer)
            ran, case = compared.ran, compared.cases[0]
            alone = _alone(ran[0], wanted, printer)
            shapes = {i["name"]: i["shape"] for i in case.inputs}
            identity = ran[0].identity
            where = (
                identity["device"],
                identity["device_facts"],
                identity["host"],
                identity["versions"],
                wanted.settings(),
                shapes,
            )
            found.append(Found(alone.measurement, *where))
            disturbed = f" ({alone.disturbed} more were disturbed by other work)" if alone.disturbed else ""
            told.append(f"{side.letter} {len(alone.times_ms)} now{disturbed}")
    a, b = found
    others = setting_differences(a, b, ("A", "B"))
    if others:
        raise UsageError(f"A and B were measured otherwise: {'; '.join(others)}", hint="compare what was measured alike")
    verdict, figure = judge_found(a.measurement, b.measurement, wanted.margin)
    return Apart(ran, case, verdict, f"processes: {', '.join(told)}, by the {figure}", machine_differences(a, b, ("A", "B")))


def _read(side: Side) -> Found:
    try:
        return Found.of(side.results())
    except ValueError as error:
        raise UsageError(str(error), hint="measure it again with --json").at(str(side.file)) from None


def _alone(ran: Ran, wanted: CompareWanted, printer: Printer) -> Alone:
    job = job_of(ran, wanted)
    with printer.share() as show:
        return measure_alone(
            lambda: WorkerProcess(ran.side.letter, job), wanted.duration_s, cores=ran.identity["host"]["cores"],
            threads=threads_of([ran], wanted), on_cpu=ran.identity["device"] == "cpu",
            progress=lambda part: show("workers", part),
        )  # fmt: skip

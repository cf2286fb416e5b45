"""The times of both sides of ``compare``: the race, its report, and JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from miniinfer_cli.cli.asserting import Asserts
from miniinfer_cli.cli.compare_sides import Case, Compared, Ran
from miniinfer_cli.cli.compare_wanted import CompareWanted
from miniinfer_cli.cli.report import Printer
from miniinfer_cli.cli.verdicts import described_verdict, verdict_told
from miniinfer_cli.comparison.assertions import Asserted
from miniinfer_cli.comparison.messages import Job
from miniinfer_cli.comparison.processors import Pool
from miniinfer_cli.comparison.race import Raced, Rules, Start, race
from miniinfer_cli.comparison.workers import Worker, WorkerProcess
from miniinfer_cli.measuring.metrics import Distribution, distribution


@dataclass(frozen=True, slots=True)
class Times:
    """The race of two sides, and the cases that they ran in."""

    raced: Raced
    cases: Sequence[Case]

    def check(self, asserts: Asserts) -> list[Asserted]:
        """How the assertions on B ended; each holds where it holds in every case. Nothing where the race was interrupted."""
        found: list[Asserted] = []
        raced = self.raced
        if raced.interrupted:
            return found
        pairs = raced.clean or raced.pairs
        for number, case in enumerate(self.cases):
            label = case.label if len(self.cases) > 1 else ""
            latencies, times_ms = [p.latencies_ms[number]["B"] for p in pairs], [p.times_ms[number]["B"] for p in pairs]
            conditions = None if raced.clean else raced.conditions
            found += asserts.check_workers(latencies, times_ms, case.batch, raced.verdicts[number], label, conditions)
        return found


def job_of(ran: Ran, wanted: CompareWanted) -> Job:
    """What the workers of a side do."""
    rest = (tuple(wanted.plugins), ran.feeds, wanted.streams, wanted.transfers, wanted.warmup_ms / 1e3)
    return Job(str(ran.plan.absolute()), ran.identity["device"], wanted.gpu, *rest)


def threads_of(ran: Sequence[Ran], wanted: CompareWanted) -> int:
    """The threads that a worker computes with, at most."""
    return wanted.streams * max(int(r.identity["device_facts"].get("threads", 1)) for r in ran)


def race_sides(compared: Compared, wanted: CompareWanted, printer: Printer) -> Times:
    """Races both, as long as is wanted."""
    jobs = {ran.side.letter: job_of(ran, wanted) for ran in compared.ran}

    def start(letter: str) -> Worker:
        return WorkerProcess(letter, jobs[letter])

    with printer.share() as show:
        raced = run_race(start, len(compared.cases), compared.ran, wanted, lambda part: show("pairs of workers", part))
    return Times(raced, compared.cases)


def run_race(start: Start, cases: int, ran: Sequence[Ran], wanted: CompareWanted, progress: Any) -> Raced:
    """A race by what is wanted, of sides that ran."""
    on_cpu = [r.identity["device"] == "cpu" for r in ran]
    cores, threads = ran[0].identity["host"]["cores"], threads_of(ran, wanted)
    processors = Pool.available() if all(on_cpu) else Pool()  # on a GPU they are the host's, which takes what is idle
    rules = Rules(wanted.duration_s, wanted.pairs, wanted.margin, cores, threads, any(on_cpu), processors)
    return race(start, cases, rules, progress)


def print_times(printer: Printer, times: Times) -> None:
    """How long an inference takes on each side, and the verdict, in every case."""
    raced = times.raced
    printer.section("Times")
    if raced.interrupted:
        printer.line("Interrupted: what was measured so far is shown")
    lost = len(raced.pairs) - len(raced.clean)
    left_out = f"; {lost} more were disturbed by other work, and do not count" if lost else ""
    printer.line(f"Measured: {len(raced.clean)} pairs of workers in {raced.seconds:.1f} s{left_out}")
    for number, case in enumerate(times.cases):
        if case.label:
            printer.line(f"Inputs: {case.label}")
        rows = [_row(raced, number, letter, case) for letter in "AB" if raced.clean]
        if rows:
            printer.table(("side", "ms an inference", "least", "most", "latency p50", "latency p99", "per second"), rows)
        printer.line(f"Verdict: {verdict_told(raced.verdicts[number])}")
    clocks = raced.sm_clocks_mhz()
    if clocks:
        printer.line("SM clock: " + ", ".join(f"{side} {mhz:.0f} MHz" for side, mhz in clocks.items()))
    for flag in raced.conditions.flags:
        printer.line(f"hint: {flag}")


def describe_times(times: Times, number: int) -> dict[str, Any]:
    """The times of one case with stable keys."""
    raced, v = times.raced, times.raced.verdicts[number]
    return {
        **described_verdict(v),
        "a": _described(raced, number, "A"),
        "b": _described(raced, number, "B"),
    }


def describe_race(raced: Raced) -> dict[str, Any]:
    """What holds of all cases, with stable keys."""
    return {
        "seconds": raced.seconds,
        "pairs": len(raced.pairs),
        "disturbed_pairs": len(raced.pairs) - len(raced.clean),
        "ended_early": raced.early,
        "interrupted": raced.interrupted,
        "sm_clock_mhz": {side.lower(): mhz for side, mhz in raced.sm_clocks_mhz().items()},
        "conditions": raced.conditions.to_json(),
    }


def _latency(raced: Raced, number: int, letter: str) -> Distribution:
    return distribution([t for p in raced.clean for t in p.latencies_ms[number][letter]])


def _described(raced: Raced, number: int, letter: str) -> Mapping[str, Any] | None:
    workers = raced.times_ms(number, letter)
    if not workers:
        return None
    return {
        "time_ms": distribution(workers).median,
        "workers_ms": workers,
        "latency_medians_ms": [distribution(p.latencies_ms[number][letter]).median for p in raced.clean],
        "latency_ms": _latency(raced, number, letter).to_json(),
    }


def _row(raced: Raced, number: int, letter: str, case: Case) -> tuple[str, ...]:
    workers = distribution(raced.times_ms(number, letter))
    latency = _latency(raced, number, letter)
    p99 = dict(latency.percentiles)[99.0]
    rate = 1e3 / workers.median
    samples = f" ({rate * case.batch:.2f} samples)" if case.batch not in (None, 0, 1) else ""
    figures = (workers.median, workers.minimum, workers.maximum, latency.median, p99)
    return letter, *(f"{f:.4f}" for f in figures), f"{rate:.2f}{samples}"

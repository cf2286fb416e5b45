"""``--baseline`` and ``--assert-regression`` of run and profile: what a plan is measured beside, and whether that can be used."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from miniinfer_cli.cli import flags
from miniinfer_cli.cli.asserting import Asserts, regression_flag
from miniinfer_cli.cli.measuring import Bench, identity_of
from miniinfer_cli.cli.outputs import Source
from miniinfer_cli.cli.report import Printer
from miniinfer_cli.cli.sides import Kind, Side, fitting, look_at, opened_plan
from miniinfer_cli.comparison.assertions import Asserted
from miniinfer_cli.comparison.baselines import Found, Measurement, machine_differences, setting_differences
from miniinfer_cli.errors import MiniinferError, ModelError, PlanFileError, UsageError

if TYPE_CHECKING:
    from miniinfer_cli.cli.baseline_times import Beside

_HINT = "measure both side by side: --baseline PLAN takes the plan itself, on any machine"


def baseline_flags(command: flags.Command) -> flags.Command:
    """What to measure beside; gives the command ``baseline``, a path or None."""
    text = "Compare the time with that of this plan, side by side, or with results that --json wrote on such a machine."
    return flags.together(regression_flag, click.option("--baseline", type=flags.PATH, metavar="FILE|PLAN", help=text))(command)


@dataclass(frozen=True, slots=True)
class Baseline:
    """What the plan is measured beside; ``found``: the times of results, None for a plan."""

    side: Side
    found: Found | None

    def sources(self) -> Sequence[Source]:
        """The files that it is read from."""
        return [Source(self.side.file, "the baseline")]

    def fitting(self, bench: Bench) -> Mapping[str, Any]:
        """The inputs of ``bench`` as the baseline takes them. Raises UsageError where its plan cannot be measured beside this."""
        if self.found is None:
            return _fitting(self.side.file, bench)
        now = found_of(bench)
        others = machine_differences(self.found, now)
        if others:
            raise _unusable(self.side.file, f"it is of another machine: {'; '.join(others)}", _HINT)
        others = setting_differences(self.found, now)
        if others:
            raise _unusable(
                self.side.file, f"it was measured otherwise: {'; '.join(others)}", "measure the same, or give another"
            )
        return bench.feeds

    def measure(self, bench: Bench, feeds: Mapping[str, Any], identity: Mapping[str, Any], printer: Printer) -> "Beside":
        """Fresh processes of the plan of ``bench``, which is closed, beside the baseline's; ``identity`` is what it was.

        ``feeds``: the inputs as the baseline takes them.
        """
        from miniinfer_cli.cli.baseline_times import measure_beside  # late: brings the builder, which a run does not need

        return measure_beside(self.side, self.found, bench, {"A": feeds, "B": bench.feeds}, identity, printer)


def measured_beside(
    beside: Baseline | None,
    fitted: Mapping[str, Any] | None,
    bench: Bench,
    identity: Mapping[str, Any],
    asserts: Asserts,
    printer: Printer,
) -> "tuple[Beside | None, list[Asserted]]":
    """What came out beside the baseline, printed, and how the assertion on it ended; nothing without a baseline.

    ``fitted``: what ``fitting`` gave; the rest as ``measure`` has it.
    """
    if beside is None or fitted is None:
        return None, []
    found = beside.measure(bench, fitted, identity, printer)
    found.print(printer)
    return found, asserts.check_regression(found.verdict)


def read_baseline(path: Path | None, asserts: Asserts) -> Baseline | None:
    """The baseline of a flag. Raises UsageError for one that cannot be used, and for an assertion that wants one."""
    if path is None:
        if asserts.regression is not None:
            raise UsageError(
                "--assert-regression: there is nothing to compare with", hint="add --baseline FILE, or --baseline PLAN"
            )
        return None
    try:
        side = look_at("A", path)
        if side.kind is Kind.PLAN:
            return Baseline(side, None)
        if side.kind is Kind.RESULTS:
            return Baseline(side, Found.of(side.results()))
    except ValueError as error:
        raise _unusable(path, str(error), "measure it again with --json") from None
    except MiniinferError as error:
        raise _unusable(path, error.message, error.hint) from None
    hint = "build the model first: miniinfer build MODEL -o PLAN" if side.kind is Kind.MODEL else _HINT
    raise _unusable(path, "it is neither a plan nor results of a measurement", hint)


def expect_no_baseline() -> None:
    """Raises UsageError where the running command was given a baseline, or an assertion that wants one."""
    given = flags.typed(("baseline", "assert_regression"))
    if given:
        hint = "leave them out, or measure one setting, as --streams 4 --batch 8"
        raise UsageError(f"{' and '.join(given)}: neither a sweep nor a load is compared", hint=hint)


def expect_one_device(beside: Baseline | None, names: Sequence[str]) -> None:
    """Raises UsageError where several GPUs were to be compared with a baseline."""
    if beside is not None and len(names) > 1:
        told = f"--baseline: what {', '.join(names)} come to together is not compared"
        raise UsageError(told, hint="compare on one of them: --device cuda:0")


def found_of(bench: Bench) -> Found:
    """Where and how the plan of ``bench`` is measured; no times."""
    identity: Mapping[str, Any] = identity_of(bench)
    shapes = {i["name"]: i["shape"] for i in identity["inputs"]}
    where = (identity["device"], identity["device_facts"], identity["host"], identity["versions"])
    return Found(Measurement((), ()), *where, identity["settings"], shapes)


def _fitting(path: Path, bench: Bench) -> Mapping[str, Any]:
    try:
        with opened_plan(path, bench.wanted) as engine:
            feeds = fitting(engine, bench.feeds)
            engine.check(feeds)
            return feeds
    except (PlanFileError, UsageError, ModelError) as error:
        raise _unusable(path, error.message, error.hint) from None


def _unusable(path: Path, why: str, hint: str) -> MiniinferError:
    return UsageError(f"it cannot be a baseline: {why}", hint=hint).at(f"--baseline {path}")

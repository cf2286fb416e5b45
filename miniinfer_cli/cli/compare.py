"""``miniinfer compare``: two sides beside each other, what they compute and how long it takes."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from miniinfer_cli.cli import flags
from miniinfer_cli.cli.asserting import Asserts, assert_flags, expect_held, print_assertions, regression_flag
from miniinfer_cli.cli.compare_report import describe_outputs, describe_side, expect_agreement, print_outputs
from miniinfer_cli.cli.compare_sides import Compared, run_sides
from miniinfer_cli.cli.compare_times import Times, describe_race, describe_times, print_times, race_sides
from miniinfer_cli.cli.compare_wanted import CompareWanted, compare_flags
from miniinfer_cli.cli.outputs import Output, check_outputs
from miniinfer_cli.cli.report import Printer, results_head, write_json
from miniinfer_cli.cli.sides import Kind, Side, look_at
from miniinfer_cli.comparison.assertions import Asserted
from miniinfer_cli.errors import UsageError
from miniinfer_cli.plugins import load_plugins


@click.command("compare")
@compare_flags
@regression_flag
@assert_flags
@flags.report_flags("what came out")
def command(wanted: CompareWanted, asserts: Asserts, printer: Printer, json_file: Path | None) -> None:
    """Compare A and B: plans, ONNX models, and outputs that run --output saved.

    Both compute the same inputs, and the outputs of B are compared with those of A. Then fresh processes of both, in pairs, are
    timed in turns until the times tell which is faster, or that they are equal. Assertions are on B, beside A.
    """
    date = datetime.now(UTC).isoformat(timespec="seconds")
    a, b = sides = look_at("A", wanted.files[0]), look_at("B", wanted.files[1])
    check_outputs([Output("--json", json_file, json=True)], wanted.sources(sides))
    _expect_comparable(a, b, wanted)
    timed = wanted.times and a.runs and b.runs
    if not timed:
        asserts.expect_none("no times are compared", "give two plans or models, without --no-times")
    load_plugins(wanted.plugins)
    asserted: list[Asserted] = []
    times: Times | None = None
    with TemporaryDirectory(prefix="miniinfer-compare-") as folder:
        compared = run_sides(sides, Path(folder), wanted, printer)
        if wanted.outputs:
            print_outputs(printer, compared.outputs)
        if timed:
            times = race_sides(compared, wanted, printer)
            print_times(printer, times)
            asserted = times.check(asserts)
    print_assertions(printer, asserted)
    if json_file is not None:
        write_json(json_file, {**results_head("compare"), "date": date, **_document(sides, compared, times, asserted, wanted)})
    expect_agreement(compared.outputs, sides)
    expect_held(asserted, asserts.strict, str(b.file))


def _document(
    sides: Sequence[Side], compared: Compared, times: Times | None, asserted: Sequence[Asserted], wanted: CompareWanted
) -> dict[str, Any]:
    cases = []
    for number, case in enumerate(compared.cases):
        outputs = describe_outputs(compared.outputs[number]) if wanted.outputs else None
        timed = None if times is None else describe_times(times, number)
        cases.append({"label": case.label, "inputs": list(case.inputs), "batch": case.batch, **(outputs or {}), "times": timed})
    return {
        **{side.letter.lower(): describe_side(side, compared) for side in sides},
        "settings": wanted.settings(),
        "cases": cases,
        "race": None if times is None else describe_race(times.raced),
        "assertions": [one.to_json() for one in asserted],
    }


def _expect_comparable(a: Side, b: Side, wanted: CompareWanted) -> None:
    """Raises UsageError for two sides that have nothing in common."""
    for side in (a, b):
        if side.kind is Kind.RESULTS:
            raise UsageError("results hold no outputs", hint="give plans, ONNX models, or what run --output saved").at(
                str(side.file)
            )
    saved = next((side for side in (a, b) if side.kind is Kind.OUTPUTS), None)
    if saved is not None and len(wanted.shapes) > 1:
        raise UsageError(f"--shapes: {saved.letter} are outputs of one set of sizes", hint="give one set of sizes")
    if not (a.runs or b.runs):
        given = flags.typed(("inputs", "shapes", "batch", "device", "device_a", "device_b"))
        if given:
            raise UsageError(f"{', '.join(given)}: both sides are {Kind.OUTPUTS}, and nothing is run", hint="leave it out")

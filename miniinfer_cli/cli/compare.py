"""``miniinfer compare``: two sides beside each other, what they compute and how long it takes."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from miniinfer_cli.cli import flags
from miniinfer_cli.cli.asserting import Asserts, assert_flags, expect_held, print_assertions, regression_flag
from miniinfer_cli.cli.compare_layers import compare_per_layer
from miniinfer_cli.cli.compare_nodes import case_to_look_into, kept_nodes, time_nodes, with_nodes
from miniinfer_cli.cli.compare_report import describe_outputs, describe_side, expect_agreement, print_outputs
from miniinfer_cli.cli.compare_results import compare_results
from miniinfer_cli.cli.compare_sides import CaseOutputs, Compared, Ran, run_sides
from miniinfer_cli.cli.compare_times import Times, describe_race, describe_times, print_times, race_sides
from miniinfer_cli.cli.compare_wanted import CompareWanted, compare_flags
from miniinfer_cli.cli.outputs import Output, check_outputs
from miniinfer_cli.cli.pictures import report_flag, write_report
from miniinfer_cli.cli.report import Printer, results_head, write_json
from miniinfer_cli.cli.sides import Kind, Side, look_at
from miniinfer_cli.errors import UsageError
from miniinfer_cli.plugins import load_plugins


@click.command("compare")
@compare_flags
@regression_flag
@assert_flags
@report_flag
@flags.report_flags("what came out")
def command(wanted: CompareWanted, asserts: Asserts, report: Path | None, printer: Printer, json_file: Path | None) -> None:
    """Compare A and B: plans, ONNX models, outputs that run --output saved, and results that --json wrote.

    Both compute the same inputs, and the outputs of B are compared with those of A. Then fresh processes of both, in pairs, are
    timed in turns until the times tell which is faster, or that they are equal. Of results the times are those of then.
    Assertions are on B, beside A.
    """
    date = datetime.now(UTC).isoformat(timespec="seconds")
    a, b = sides = look_at("A", wanted.files[0]), look_at("B", wanted.files[1])
    check_outputs([Output("--json", json_file, json=True), Output("--report", report)], wanted.sources(sides))
    _expect_comparable(a, b, wanted)
    of_before = Kind.RESULTS in (a.kind, b.kind)
    if not (wanted.times and (of_before or (a.runs and b.runs))):
        asserts.expect_none("no times are compared", "give two plans or models, without --no-times")
    if of_before and (asserts.latency or asserts.throughput):
        hint = "give --assert-regression, or assert of a run: miniinfer run PLAN --assert-latency ..."
        raise UsageError("--assert-latency and --assert-throughput: one side is results, not measured now", hint=hint)
    load_plugins(wanted.plugins)
    outputs: Sequence[CaseOutputs] = ()
    interrupted = False
    with TemporaryDirectory(prefix="miniinfer-compare-") as folder:
        if of_before:
            apart = compare_results(sides, Path(folder), replace(wanted, outputs=False), printer)
            apart.print(printer)
            asserted = apart.check(asserts)
            found = {**_sides(sides, apart.ran), "cases": [apart.case_to_json()], "race": None, "per_layer": None}
            if report is not None:
                found = with_nodes(found, {**kept_nodes(sides), **time_nodes(apart.ran, wanted, 0, printer)}, apart.case)
        else:
            compared = run_sides(sides, Path(folder), wanted, printer)
            outputs = compared.outputs
            if wanted.outputs:
                print_outputs(printer, outputs)
            layers = compare_per_layer(compared, wanted, printer) if wanted.per_layer else None
            if layers is not None:
                layers.print(printer)
            times = race_sides(compared, wanted, printer) if wanted.times and a.runs and b.runs else None
            if times is not None:
                print_times(printer, times)
            asserted = [] if times is None else times.check(asserts)
            found = {**_found(sides, compared, times), "per_layer": None if layers is None else layers.to_json()}
            interrupted = times is not None and times.raced.interrupted
            if report is not None and not interrupted:
                number = 0 if times is None else case_to_look_into(times.raced.verdicts)
                found = with_nodes(found, time_nodes(compared.ran, wanted, number, printer), compared.cases[number])
    print_assertions(printer, asserted)
    rest = {"settings": wanted.settings(), "assertions": [one.to_json() for one in asserted]}
    document = {**results_head("compare"), "date": date, **found, **rest}
    if json_file is not None:
        write_json(json_file, document)
    if report is not None:
        write_report(report, document)
    if interrupted:
        raise KeyboardInterrupt
    expect_agreement(outputs, sides)
    expect_held(asserted, asserts.strict, str(b.file))


def _sides(sides: Sequence[Side], ran: Sequence[Ran]) -> dict[str, Any]:
    return {side.letter.lower(): describe_side(side, ran) for side in sides}


def _found(sides: Sequence[Side], compared: Compared, times: Times | None) -> dict[str, Any]:
    cases = []
    for number, case in enumerate(compared.cases):
        outputs = describe_outputs(compared.outputs[number]) if compared.outputs else {}
        timed = None if times is None else describe_times(times, number)
        cases.append({"label": case.label, "inputs": list(case.inputs), "batch": case.batch, **outputs, "times": timed})
    return {**_sides(sides, compared.ran), "cases": cases, "race": None if times is None else describe_race(times.raced)}


def _expect_comparable(a: Side, b: Side, wanted: CompareWanted) -> None:
    """Raises UsageError for two sides that have nothing in common."""
    kinds = {a.kind, b.kind}
    if kinds == {Kind.RESULTS, Kind.OUTPUTS}:
        raise UsageError("results hold no outputs, and saved outputs no times", hint="give a plan or a model beside one of them")
    if Kind.RESULTS in kinds and not wanted.times:
        raise UsageError("--no-times: results hold nothing else", hint="leave it out")
    if wanted.per_layer and not (a.runs and b.runs):
        raise UsageError("--per-layer: what was computed before has no layers", hint="give two plans or models")
    before = next((side for side in (a, b) if side.kind in (Kind.OUTPUTS, Kind.RESULTS)), None)
    if before is not None and len(wanted.shapes) > 1:
        raise UsageError(f"--shapes: {before.letter} is {before.kind} of one set of sizes", hint="give one set of sizes")
    if not (a.runs or b.runs):
        given = flags.typed(("inputs", "shapes", "batch", "device", "device_a", "device_b"))
        if given:
            raise UsageError(f"{', '.join(given)}: both sides were computed before, and nothing is run", hint="leave it out")

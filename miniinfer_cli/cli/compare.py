"""``miniinfer compare``: two sides beside each other, what they compute."""

from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from miniinfer_cli.cli import flags
from miniinfer_cli.cli.compare_report import describe_case, describe_side, expect_agreement, print_outputs
from miniinfer_cli.cli.compare_sides import run_sides
from miniinfer_cli.cli.compare_wanted import CompareWanted, compare_flags
from miniinfer_cli.cli.outputs import Output, check_outputs
from miniinfer_cli.cli.report import Printer, results_head, write_json
from miniinfer_cli.cli.sides import Kind, Side, look_at
from miniinfer_cli.errors import UsageError
from miniinfer_cli.plugins import load_plugins


@click.command("compare")
@compare_flags
@flags.report_flags("what came out")
def command(wanted: CompareWanted, printer: Printer, json_file: Path | None) -> None:
    """Compare A and B: plans, ONNX models, and outputs that run --output saved.

    Both compute the same inputs, and the outputs of B are compared with those of A.
    """
    date = datetime.now(UTC).isoformat(timespec="seconds")
    a, b = sides = look_at("A", wanted.files[0]), look_at("B", wanted.files[1])
    check_outputs([Output("--json", json_file, json=True)], wanted.sources(sides))
    _expect_comparable(a, b, wanted)
    load_plugins(wanted.plugins)
    with TemporaryDirectory(prefix="miniinfer-compare-") as folder:
        compared = run_sides(sides, Path(folder), wanted, printer)
    print_outputs(printer, compared.outputs)
    if json_file is not None:
        document: dict[str, Any] = {
            **results_head("compare"),
            "date": date,
            **{side.letter.lower(): describe_side(side, compared) for side in sides},
            "settings": wanted.settings(),
            "cases": [describe_case(found) for found in compared.outputs],
        }
        write_json(json_file, document)
    expect_agreement(compared.outputs, sides)


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

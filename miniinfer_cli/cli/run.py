"""``miniinfer run``: measures a plan, prints the performance summary, and gives what the plan computes."""

from pathlib import Path
from typing import Any

import click
import numpy as np

from miniinfer_cli.cli import flags
from miniinfer_cli.cli.asserting import Asserts, assert_flags, expect_held, print_assertions
from miniinfer_cli.cli.baseline import baseline_flags, expect_one_device, measured_beside, read_baseline
from miniinfer_cli.cli.feeds import top_entries, write_arrays
from miniinfer_cli.cli.measuring import opened
from miniinfer_cli.cli.outputs import Output, check_outputs
from miniinfer_cli.cli.report import Printer, write_json
from miniinfer_cli.cli.wanted import Wanted, measuring_flags
from miniinfer_cli.devices.several import device_names
from miniinfer_cli.errors import UsageError
from miniinfer_cli.measuring.metrics import Samples, distribution

_TOP_ROWS = 8  # rows of an output whose largest entries are printed


@click.command("run")
@measuring_flags
@click.option("--avg-runs", type=click.IntRange(1), help="Also print the mean latency of each so many inferences.")
@click.option("--output", "output_file", type=flags.PATH, help="Save the outputs to this .npz file.")
@click.option("--top-k", type=click.IntRange(1), help="Print the K largest entries of each row of each output.")
@click.option("--export-times", type=flags.PATH, help="Write every inference's times (ms) as JSON; - for standard output.")
@flags.trace_flag
@baseline_flags
@assert_flags
@flags.report_flags("the summary")
def command(
    wanted: Wanted, avg_runs: int | None, output_file: Path | None, top_k: int | None, export_times: Path | None,
    trace: Path | None, baseline: Path | None, asserts: Asserts, printer: Printer, json_file: Path | None,
) -> None:  # fmt: skip
    """Run PLAN and print the performance summary.

    It runs for at least --iterations inferences on each stream, and --duration seconds. Inputs that no --input names get
    seeded random values: floats in [-1, 1), integers 0 or 1.
    """
    if wanted.swept is not None:
        several = " and ".join(flags.typed(("streams", "batches")))
        raise UsageError(f"{several}: run measures one setting", hint="miniinfer profile PLAN takes several, and finds the best")
    written = [
        Output("--output", output_file),
        Output("--json", json_file, json=True),
        Output("--export-times", export_times, json=True),
        Output("--trace", trace, json=True),
    ]
    beside = read_baseline(baseline, asserts)
    expect_one_device(beside, device_names(wanted.device))
    check_outputs(written, [*wanted.sources(), *(beside.sources() if beside is not None else ())])
    printer.quiet = printer.quiet or "-" in (str(export_times), str(trace))  # JSON on standard output stands there alone
    with opened(wanted, printer) as bench:
        fitted = None if beside is None else beside.fitting(bench)
        if output_file is not None or top_k is not None:
            with bench.engine.create_context() as context:  # gone before anything is measured
                outputs = context.run(bench.feeds)
            if top_k is not None:
                _print_top(printer, outputs, top_k)
            if output_file is not None:
                with printer.stages() as stage:
                    stage("write outputs")
                    write_arrays(output_file, outputs)
        measured = bench.measure(printer)
        timeline = None if trace is None else bench.timeline(printer)
        asserted = asserts.check(measured.samples, bench.batch, measured.conditions)
    if avg_runs is not None:
        _print_averages(printer, measured.samples, avg_runs)
    measured.print(printer)
    compared, of_baseline = measured_beside(beside, fitted, bench, measured.identity, asserts, printer)
    asserted += of_baseline
    print_assertions(printer, asserted)
    if json_file is not None:
        rest = {"assertions": [one.to_json() for one in asserted], "baseline": None if compared is None else compared.to_json()}
        write_json(json_file, {**measured.to_json("run"), **rest})
    if export_times is not None:
        write_json(export_times, measured.times_to_json())
    if trace is not None and timeline is not None:
        write_json(trace, measured.trace_to_json(timeline))
    expect_held(asserted, asserts.strict, str(wanted.plan))


def _print_top(printer: Printer, outputs: dict[str, Any], k: int) -> None:
    for name, value in outputs.items():
        if not isinstance(value, np.ndarray) or value.dtype == object or value.dtype.kind == "c":
            raise UsageError(f"--top-k: output {name!r} is not a tensor of real numbers")
        rows = top_entries(value, k)
        for number, entries in enumerate(rows[:_TOP_ROWS]):
            printer.line(f"Top {k} of {name}[{number}]: " + ", ".join(f"{i} ({v:.4f})" for i, v in entries))
        if len(rows) > _TOP_ROWS:
            printer.line(f"Top {k} of {name}: {len(rows) - _TOP_ROWS} more rows not shown")


def _print_averages(printer: Printer, samples: Samples, count: int) -> None:
    for start in range(0, len(samples.latency_ms), count):
        part = samples.latency_ms[start : start + count]
        printer.line(f"Average of {len(part)} from inference {start}: latency = {distribution(part).mean:.4f} ms")

"""``miniinfer profile``: where the time of a plan goes, layer by layer, and how several streams share the machine."""

from pathlib import Path

import click

from miniinfer_cli.cli import flags
from miniinfer_cli.cli.asserting import Asserts, assert_flags, expect_held, print_assertions
from miniinfer_cli.cli.baseline import baseline_flags, expect_no_baseline, expect_one_device, measured_beside, read_baseline
from miniinfer_cli.cli.diagnosing import diagnose, diagnosis_flag, print_diagnosis
from miniinfer_cli.cli.layer_report import print_layers
from miniinfer_cli.cli.layering import layered
from miniinfer_cli.cli.load_wanted import LoadWanted, load_flags
from miniinfer_cli.cli.measuring import opened
from miniinfer_cli.cli.outputs import Output, check_outputs
from miniinfer_cli.cli.pictures import Pictures, picture_flags, write_report
from miniinfer_cli.cli.report import Printer, results_head, write_json
from miniinfer_cli.cli.sweeping import SweepWanted, profile_sweep, sweep_flags
from miniinfer_cli.cli.under_load import profile_load
from miniinfer_cli.cli.wanted import Wanted, measuring_flags
from miniinfer_cli.devices.several import device_names
from miniinfer_cli.errors import UsageError
from miniinfer_cli.report.figures import size_of


@click.command("profile")
@measuring_flags
@click.option("--top", type=click.IntRange(1), default=30, show_default=True, help="Show so many nodes, the slowest first.")
@picture_flags
@load_flags
@click.option("--no-ceilings", is_flag=True, help="Compare with nothing: do not measure what the device can do at best.")
@click.option(
    "--export-profile", type=flags.PATH, help="Write each node with its times of all rounds (ms) as JSON; - is standard output."
)
@diagnosis_flag
@sweep_flags
@baseline_flags
@assert_flags
@flags.report_flags("the summary and the nodes, the sweep, or the load,")
def command(
    wanted: Wanted,
    pictures: Pictures,
    load: LoadWanted | None,
    sweep: SweepWanted,
    top: int,
    no_ceilings: bool,
    export_profile: Path | None,
    diagnosed: bool,
    baseline: Path | None,
    asserts: Asserts,
    printer: Printer,
    json_file: Path | None,
) -> None:
    """Time each node of PLAN, beside the whole; or find the best of several settings; or measure under load.

    PLAN is measured like run does; then each of its nodes is timed over --iterations more inferences on one context, beside what
    the device can do, and the parts of an inference are told. With several values of --streams or --batch, settings are measured
    instead, until the best and the knee are found. With --qps or --scenario requests come as MLPerf has them, and what they wait
    is measured, too.
    """
    if load is not None or wanted.swept is not None:
        expect_no_baseline()
        if export_profile is not None:
            what = "requests under load time" if load is not None else "a sweep times"
            raise UsageError(f"--export-profile: {what} no layers", hint="give one setting, and neither --qps nor --scenario")
    if load is not None:
        profile_load(wanted, load, asserts, printer, json_file, pictures.report)
        return
    if wanted.swept is not None:
        asserts.expect_none("a sweep measures several settings", "assert at one of them, as --streams 4 --batch 8")
        profile_sweep(wanted, wanted.swept, sweep, printer, json_file, pictures.report)
        return
    named = (("--json", json_file), ("--export-profile", export_profile))
    beside = read_baseline(baseline, asserts)
    expect_one_device(beside, device_names(wanted.device))
    read = [*wanted.sources(), *(beside.sources() if beside is not None else ())]
    check_outputs([*(Output(*one, json=True) for one in named), *pictures.outputs()], read)
    printer.quiet = printer.quiet or "-" in (str(pictures.trace), str(export_profile))  # JSON stands there alone
    with opened(wanted, printer) as bench:
        fitted = None if beside is None else beside.fitting(bench)
        measured = bench.measure(printer)
        profile = layered(bench, printer, ceilings=not no_ceilings)
        timeline = bench.timeline(printer) if pictures.need_timeline else None
        program = bench.engine.program(bench.arrays)
        asserted = asserts.check(measured.samples, bench.batch, measured.conditions)
        diagnosis = diagnose(bench, measured, profile, printer) if diagnosed and not bench.others else None
    if bench.others:
        printer.line(f"note: nodes are those of {bench.engine.device} while it runs alone; several GPUs are given no diagnosis")
    print_layers(printer, profile, top, measured.summary)
    printer.line(
        f"Activations: {size_of(program.arena_nbytes)} in the arena of each stream"
        f" ({size_of(program.activation_nbytes)} if no memory were shared)"
    )
    measured.print(printer)
    if diagnosis is not None:
        print_diagnosis(printer, diagnosis)
    compared, of_baseline = measured_beside(beside, fitted, bench, measured.identity, asserts, printer)
    asserted += of_baseline
    print_assertions(printer, asserted)
    told = {"account": profile.account.to_json(), "ceilings": None if profile.ceilings is None else profile.ceilings.to_json()}
    memory = {"arena_bytes": program.arena_nbytes, "activation_bytes": program.activation_nbytes}
    nodes, total = [layer.to_json() for layer in profile.layers], sum(layer.median_ms for layer in profile.layers)
    recorded = {} if timeline is None else {"timeline": timeline.to_json()}
    rest = {**memory, "nodes_sum_ms": total, "nodes": nodes, **told, **recorded, "assertions": [a.to_json() for a in asserted]}
    rest["baseline"] = None if compared is None else compared.to_json()
    found = {} if diagnosis is None else diagnosis.to_json()
    document = {**measured.to_json("profile"), **rest, **found}
    if json_file is not None:
        write_json(json_file, document)
    if export_profile is not None:
        write_json(export_profile, {**results_head("layers"), **measured.identity, **told, "nodes": profile.rounds_to_json()})
    if pictures.trace is not None and timeline is not None:
        write_json(pictures.trace, measured.trace_to_json(timeline))
    if pictures.report is not None:
        write_report(pictures.report, document)
    expect_held(asserted, asserts.strict, str(wanted.plan))

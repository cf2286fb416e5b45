"""``miniinfer build``: an ONNX model in, a plan out, with a report of what was done to it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from engine_format.records import DimensionRange
from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.builder.building import Built, build_plan, finished
from miniinfer_cli.builder.options import BuildOptions
from miniinfer_cli.builder.precision import AUTO
from miniinfer_cli.builder.targets import targets_for
from miniinfer_cli.cli import flags
from miniinfer_cli.cli.best import Best, best_flags, describe_best, print_best, search_best
from miniinfer_cli.cli.outputs import Output, check_outputs
from miniinfer_cli.cli.placing import place_for_report
from miniinfer_cli.cli.precision import chosen_types, describe_kept, precision_flags, print_kept, search
from miniinfer_cli.cli.quantizing import Quantizing, expect_samples, print_quantized, quantizing_flags, search_float
from miniinfer_cli.cli.report import Printer, describe_ranges, write_json
from miniinfer_cli.cli.sources import key_source, model_source, model_sources
from miniinfer_cli.cli.tuning import describe_tuning, tune_and_report, tuning_flags
from miniinfer_cli.cli.verifying import Check, describe_verification, expect_verified, print_verification, verify_flags
from miniinfer_cli.devices.models import expect_gpu_named
from miniinfer_cli.devices.placement import Placement, Unplaced
from miniinfer_cli.devices.tuning import TuningOptions
from miniinfer_cli.errors import UsageError, refused
from miniinfer_cli.ir import Graph
from miniinfer_cli.planning.ranges import all_ranges
from miniinfer_cli.report.figures import size_of
from miniinfer_cli.runtime.cache_folder import cache_options
from miniinfer_cli.verification import Verification
from miniinfer_cli.wording import as_flags


@click.command("build")
@click.argument("model", type=flags.PATH)
@click.option("-o", "--output", type=flags.PATH, help="The plan to write. Default: MODEL with the ending .plan.")
@flags.shapes_flag("--shapes", "Fix the sizes of an input's named dimensions. May be repeated.")
@flags.shapes_flag("--min-shapes", "The smallest sizes of an input that the plan must accept.")
@flags.shapes_flag("--opt-shapes", "The sizes of an input to tune for, and the default of run.")
@flags.shapes_flag("--max-shapes", "The largest sizes of an input that the plan must accept.")
@click.option(
    "--opt-level", type=click.IntRange(0, 3), default=2, show_default=True,
    help="0: as little as possible; 1: clean up and fold; 2: fuse and choose layouts; 3: search longer (nothing yet).",
)  # fmt: skip
@click.option("--disable-pass", "disable_passes", multiple=True, metavar="NAME", help="Leave out a pass. May be repeated.")
@click.option(
    "--mark-output",
    "mark_outputs",
    multiple=True,
    metavar="NODE",
    help="Return what this node (or value) computes as well. May be repeated.",
)
@click.option(
    "--start-at", multiple=True, metavar="VALUE",
    help="Make this value an input, and leave out what only leads to it; VALUE:i64[batch,seq] tells its type. May be repeated.",
)  # fmt: skip
@click.option(
    "--overridable", multiple=True, metavar="NAME",
    help="Keep this input, which has an initializer, as an input with that as its default. May be repeated.",
)  # fmt: skip
@click.option(
    "--state", multiple=True, metavar="INPUT:OUTPUT",
    help="Keep this output as the input of a context's next inference, beginning with zeros. May be repeated.",
)  # fmt: skip
@click.option(
    "--kv-cache", type=click.IntRange(1, (1 << 31) - 1), metavar="ROWS",
    help="Keep caches of keys and values of so many rows (past_key_values.* and present.*, or those of --state that grow).",
)  # fmt: skip
@click.option(
    "--no-tf32",
    "tf32",
    flag_value=False,
    default=True,
    type=bool,
    help="On a GPU, compute f32 products in f32, not in TF32 on the tensor cores.",
)
@precision_flags
@quantizing_flags
@best_flags
@click.option(
    "--arch", "archs", multiple=True, metavar="sm_90",
    help="Compile the kernels for this GPU architecture into the plan, with no GPU. May be repeated.",
)  # fmt: skip
@click.option(
    "--sign-key", type=flags.PATH,
    help="Sign what --arch compiles and --tune finds with the key in this file (see run --trust-key); by default your own.",
)  # fmt: skip
@tuning_flags(None)
@click.option("--tune-device", default="auto", show_default=True, metavar="auto|cuda:N", help="The GPU that --tune times on.")
@verify_flags
@click.option("--dry-run", is_flag=True, help="Build and report, but write no plan.")
@click.option("--verbose", "-v", is_flag=True, help="List every pass, also those that found nothing.")
@flags.plugin_flag
@flags.limit_flag
@flags.report_flags("the report")
def command(
    model: Path, output: Path | None, shapes: Any, min_shapes: Any, opt_shapes: Any, max_shapes: Any, opt_level: int,
    disable_passes: tuple[str, ...], mark_outputs: tuple[str, ...], start_at: tuple[str, ...], overridable: tuple[str, ...],
    state: tuple[str, ...], kv_cache: int | None,
    tf32: bool,
    precision: str | None, keep_fp32: tuple[str, ...], io_types: tuple[tuple[str, str], ...],
    quantizing: Quantizing, best: Best, archs: tuple[str, ...], sign_key: Path | None, tuning: TuningOptions | None, tune_device:
    str, check: Check, dry_run: bool, verbose: bool, plugins: tuple[str, ...],
    limits: dict[str, int], printer: Printer, json_file: Path | None,
) -> None:  # fmt: skip
    """Build the ONNX file MODEL into a plan."""
    source = model_source(model)
    target = _target(model, source, output, dry_run)
    if not best.wanted:
        expect_samples(quantizing)
    if check.per_layer and (state or kv_cache is not None):
        raise UsageError(
            "--per-layer and --state or --kv-cache exclude each other",
            hint="what the model computes anew the plan has kept: build without states to see where an error grows",
        )
    written = [Output("--output", target, seekable=True), Output("--json", json_file, json=True)]
    written.append(Output("--calibration-cache", quantizing.cache, seekable=True))
    if tuning is not None:
        written.append(Output("--timing-cache", tuning.timing_cache, seekable=True))
        _expect_tunable(dry_run, tune_device)
    check_outputs(written, [*model_sources(model, inputs=check.inputs, plugins=plugins), *key_source(sign_key)])
    options = BuildOptions(
        shapes=flags.merged(shapes, "--shapes"),
        min_shapes=flags.merged(min_shapes, "--min-shapes"),
        opt_shapes=flags.merged(opt_shapes, "--opt-shapes"),
        max_shapes=flags.merged(max_shapes, "--max-shapes"),
        opt_level=opt_level,
        disable_passes=disable_passes,
        mark_outputs=mark_outputs,
        overridable=overridable,
        start_at=start_at,
        state=state,
        kv_cache=kv_cache,
        plugins=plugins,
        tf32=tf32,
        precision=precision,
        keep_fp32=keep_fp32,
        io_types=chosen_types(io_types),
        limits=limits,
    )
    options = quantizing.added_to(options)
    searched, searched_float, found_best = None, None, None
    compile_into = targets_for(archs, sign_key)
    feeds: dict[str, Any] = {}

    def read_feeds(graph: Graph, constants: Collection[str]) -> Mapping[str, Any]:
        feeds.update(check.feeds(graph, constants))
        return feeds

    if best.wanted:
        found_best = search_best(printer, source, options, best, check, read_feeds)
        options = found_best.options
        precision, quantizing = options.precision, quantizing.chosen(options)
    if quantizing.searches:
        searched_float = search_float(printer, source, options)
        options = replace(options, keep_float=(*searched_float.given, *searched_float.found.nodes))
    if AUTO in options.keep_fp32 and precision is not None:
        searched = search(printer, source, options, check)
        options = replace(options, keep_fp32=(*searched.given, *searched.found.nodes))
    with printer.stages() as stage:
        if found_best is not None:
            built = finished(found_best.built, target, stage, compile_into)
        else:
            built = build_plan(source, target, options, stage, compile_into, read_feeds)
    placement = place_for_report(built.graph, {r.name: r for r in built.plan.ranges})
    ranges = all_ranges(built.graph, built.plan.ranges)
    if found_best is not None:
        print_best(printer, found_best)
    if searched is not None:
        searched.print(printer)
    if searched_float is not None:
        searched_float.print(printer)
    _print_report(printer, built, model, target, placement, ranges, verbose, precision)
    plan, tuned = built.plan, None
    if tuning is not None and target is not None:
        settings = DeviceOptions(limits=limits, **cache_options())
        tuned = tune_and_report(printer, target, None, tune_device, replace(tuning, sign_key=sign_key), settings)
        plan = tuned.tuned.plan
        printer.line(f"Plan: {target} ({size_of(_nbytes(target))})")
    if sign_key is not None and not archs and tuning is None:
        printer.line("Note: --sign-key signed nothing: it signs what --arch compiles and --tune finds")
    verification, growth = None, None
    if check.wanted:
        with printer.stages() as stage:
            stage("verify")
            verification = check.of(source, plan, options, feeds)
        print_verification(printer, verification)
        differs = not all(o.ok for o in verification.outputs)
        narrowed = (precision is not None or quantizing.told is not None) and built.graph.states is None
        if verification.compared and (check.per_layer or (differs and narrowed)):
            growth = check.growth(source, plan, options, verification, feeds, printer)
            growth.print(printer)
    if json_file is not None:
        document = _document(built, model, target, verification, placement, ranges)
        document["layers"] = None if growth is None else growth.to_json()
        document["precision"] = quantizing.told or precision
        document["half"] = precision if quantizing.told else None
        document["kept_fp32"] = describe_kept(built.kept)
        document["best"] = None if found_best is None else describe_best(found_best)
        document["kept_fp32_search"] = None if searched is None else searched.to_json()
        document["keep_float_search"] = None if searched_float is None else searched_float.to_json()
        write_json(json_file, {**document, "tuning": None if tuned is None else describe_tuning(tuned)})
    if tuned is not None and tuned.tuned.interrupted:
        raise KeyboardInterrupt
    if verification is not None:
        expect_verified(verification, model, () if growth is None else growth.at_fault, quantizing.told or precision)


def _expect_tunable(dry_run: bool, device: str) -> None:
    """Raises UsageError where there will be no plan to tune, DeviceError where there is no GPU: before anything takes time."""
    if dry_run:
        raise UsageError("--tune and --dry-run exclude each other", hint="leave one of them out: what is tuned is written")
    expect_gpu_named(device)


def _target(model: Path, source: Path | bytes, output: Path | None, dry_run: bool) -> Path | None:
    """Where the plan goes; None when none is to be written."""
    if dry_run or output is not None or model.is_dir():  # a folder is no model, and whoever reads it says so
        return None if dry_run else output
    if isinstance(source, bytes):
        raise UsageError("the model comes through a pipe, so the plan needs a name", hint="give -o FILE").at(str(model))
    return model.parent / f"{model.stem}.plan"


def _print_report(
    printer: Printer,
    built: Built,
    model: Path,
    target: Path | None,
    placement: Placement | Unplaced,
    ranges: Sequence[DimensionRange],
    verbose: bool,
    precision: str | None,
) -> None:
    printer.line(f"Model: {model}")
    for note in built.notes:
        printer.line(f"Note: {note}")
    printer.section("Passes")
    passes = built.report.passes
    rows = [(p.name, p.fired, p.seconds * 1e3) for p in passes if p.fired or verbose]
    if rows:
        printer.table(("pass", "fired", "ms"), rows)
    idle = len(passes) - len(rows)
    if idle:
        printer.line(f"{idle} {'pass' if idle == 1 else 'passes'} found nothing to do (--verbose lists them)")
    before, after = built.nodes
    printer.line(f"Nodes: {before} -> {after}")
    for sizes in ranges:
        printer.line(f"Dimension: {sizes}")
    if built.quantized is not None:
        print_quantized(printer, built, precision or "f32")
    if precision is not None:
        print_kept(printer, built, precision)
    printer.line("Time: " + ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in built.seconds.items()))
    for line in placement.lines():
        printer.line(as_flags(line))
    weights = f"{size_of(built.plan.weights_nbytes)} of weights"
    if target is None:
        printer.line(f"Plan: nothing was written (--dry-run; {weights})")
    else:
        printer.line(f"Plan: {target} ({size_of(_nbytes(target))}, {weights})")


def _nbytes(target: Path) -> int:
    """The size of the plan that was written."""
    try:
        return target.stat().st_size
    except OSError as error:
        raise refused(error, f"cannot be read: {error.strerror}", target) from None


def _document(
    built: Built,
    model: Path,
    target: Path | None,
    verification: Verification | None,
    placement: Placement | Unplaced,
    ranges: Sequence[DimensionRange],
) -> dict[str, Any]:
    return {
        "model": str(model),
        "notes": list(built.notes),
        "plan": None if target is None else str(target),
        "plan_bytes": None if target is None else _nbytes(target),
        "weights_bytes": built.plan.weights_nbytes,
        "nodes_before": built.nodes[0],
        "nodes_after": built.nodes[1],
        "dimensions": describe_ranges(ranges),
        "seconds": built.seconds,
        "passes": [{"name": p.name, "fired": p.fired, "seconds": p.seconds} for p in built.report.passes],
        "gpu": placement.to_json(),
        "verification": None if verification is None else describe_verification(verification),
    }

"""``miniinfer profile``: where the time of a plan goes, node by node, and how several streams share the machine."""

from collections import defaultdict
from pathlib import Path

import click

from miniinfer_cli.cli import flags
from miniinfer_cli.cli.asserting import Asserts, assert_flags, expect_held, print_assertions
from miniinfer_cli.cli.measuring import opened
from miniinfer_cli.cli.outputs import Output, check_outputs
from miniinfer_cli.cli.progress import Extent
from miniinfer_cli.cli.report import Printer, human_bytes, write_json
from miniinfer_cli.cli.sweeping import SweepWanted, profile_sweep, sweep_flags
from miniinfer_cli.cli.under_load import LoadWanted, load_flags, profile_load
from miniinfer_cli.cli.wanted import Wanted, measuring_flags
from miniinfer_cli.measuring.layers import Layer, layers_of
from miniinfer_cli.measuring.metrics import Summary
from miniinfer_cli.measuring.step_times import time_steps


@click.command("profile")
@measuring_flags
@click.option("--top", type=click.IntRange(1), default=30, show_default=True, help="Show so many nodes, the slowest first.")
@flags.trace_flag
@load_flags
@sweep_flags
@assert_flags
@flags.report_flags("the summary and the nodes, the sweep, or the load,")
def command(
    wanted: Wanted, trace: Path | None, load: LoadWanted | None, sweep: SweepWanted, top: int, asserts: Asserts,
    printer: Printer, json_file: Path | None,
) -> None:  # fmt: skip
    """Time each node of PLAN, beside the whole; or find the best of several settings; or measure under load.

    PLAN is measured like run does; then each of its nodes is timed over --iterations more inferences on one context. With
    several values of --streams or --batch, settings are measured instead, until the best and the knee are found. With --qps or
    --scenario requests come as MLPerf has them, and what they wait is measured, too.
    """
    if load is not None:
        profile_load(wanted, load, asserts, printer, json_file)
        return
    if wanted.swept is not None:
        asserts.expect_none("a sweep measures several settings", "assert at one of them, as --streams 4 --batch 8")
        profile_sweep(wanted, wanted.swept, sweep, printer, json_file)
        return
    check_outputs([Output("--json", json_file, json=True), Output("--trace", trace, json=True)], wanted.sources())
    printer.quiet = printer.quiet or str(trace) == "-"  # JSON on standard output stands there alone
    with opened(wanted, printer) as bench:
        measured = bench.measure(printer)
        with printer.progress({"nodes": Extent(wanted.schedule.iterations)}) as progress:
            rounds = time_steps(bench.engine, bench.arrays, wanted.schedule.iterations, progress)
        timeline = None if trace is None else bench.timeline(printer)
        program = bench.engine.program(bench.arrays)
        asserted = asserts.check(measured.samples, bench.batch, measured.conditions)
        steps = layers_of(program, rounds, weights_nbytes=bench.engine.plan.weights_nbytes)
    _print_steps(printer, steps, top)
    _print_kinds(printer, steps)
    _print_sum(printer, steps, measured.summary)
    memory = {"arena_bytes": program.arena_nbytes, "activation_bytes": program.activation_nbytes}
    printer.line(
        f"Activations: {human_bytes(program.arena_nbytes)} in the arena of each stream"
        f" ({human_bytes(program.activation_nbytes)} if no memory were shared)"
    )
    measured.print(printer)
    print_assertions(printer, asserted)
    if json_file is not None:
        nodes, total = [s.to_json() for s in steps], sum(s.median_ms for s in steps)
        rest = {**memory, "nodes_sum_ms": total, "nodes": nodes, "assertions": [one.to_json() for one in asserted]}
        write_json(json_file, {**measured.to_json("profile"), **rest})
    if trace is not None and timeline is not None:
        write_json(trace, measured.trace_to_json(timeline))
    expect_held(asserted, asserts.strict, str(wanted.plan))


def _print_steps(printer: Printer, steps: list[Layer], top: int) -> None:
    total = sum(s.median_ms for s in steps) or 1.0
    printer.section("Time by node")
    slowest = sorted(steps, key=lambda s: -s.median_ms)[:top]
    # On a CPU there is nothing to choose, and in a plan that nobody tuned no time that was measured then.
    chosen, tuned = any(s.chooser for s in steps), any(s.tuned_us is not None for s in steps)
    known = any(s.estimate is not None for s in steps)
    rates = ("GB/s", "GFLOP/s") if known else ()
    columns = ("node", "operation", "how", *(("chosen by",) * chosen), *(("tuned us",) * tuned), *rates, "median ms", "%")
    rows = []
    for s in slowest:
        time_us = "" if s.tuned_us is None else f"{s.tuned_us:.1f}"
        told = (s.label, s.kind, s.how, *((s.choosers,) * chosen), *((time_us,) * tuned), *(_rates(s) if known else ()))
        rows.append((*told, s.median_ms, 100 * s.median_ms / total))
    printer.table(columns, rows)
    if len(steps) > top:
        rest = total - sum(s.median_ms for s in slowest)
        printer.line(f"{len(steps) - top} more nodes: {rest:.4f} ms")
    for step in slowest:
        for kernel in (k for k in step.kernels if k.local_nbytes):
            printer.line(f"Local memory: {human_bytes(kernel.local_nbytes)} a thread, by kernel {kernel.kernel} of {step.label}")


def _rates(layer: Layer) -> tuple[str, str]:
    """GB and 1e9 operations a second; empty where nobody knows."""
    gbps, tflops = layer.gbps, layer.tflops
    return ("", "") if gbps is None or tflops is None else (f"{gbps:.0f}", f"{1e3 * tflops:.0f}")


def _print_sum(printer: Printer, steps: list[Layer], summary: Summary) -> None:
    """Times of nodes are medians of a run of their own, each with a look at the clock: they need not add up."""
    total, whole = sum(s.median_ms for s in steps), summary.latency.median
    others = summary.streams - 1
    other = f", which shared the machine with {others} more stream{'s' * (others > 1)}" if others else ""
    printer.line(
        f"Sum of the nodes: {total:.4f} ms, timed one by one; median latency of a whole inference: {whole:.4f} ms{other}"
        f" (difference {total - whole:+.4f} ms)"
    )


def _print_kinds(printer: Printer, steps: list[Layer]) -> None:
    total = sum(s.median_ms for s in steps) or 1.0
    kinds: dict[str, list[float]] = defaultdict(list)
    for step in steps:
        kinds[step.kind].append(step.median_ms)
    printer.section("Time by operation")
    ordered = sorted(kinds.items(), key=lambda item: -sum(item[1]))
    rows = [(kind, len(times), sum(times), 100 * sum(times) / total) for kind, times in ordered]
    printer.table(("operation", "nodes", "sum ms", "%"), rows)

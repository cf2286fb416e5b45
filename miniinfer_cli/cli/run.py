"""``miniinfer run``: opens a plan, runs it for a while, and prints the performance summary."""

from pathlib import Path
from typing import Any

import click
import numpy as np

from miniinfer_cli.cli import flags
from miniinfer_cli.cli.feeds import feeds_for, top_entries, write_arrays
from miniinfer_cli.cli.report import Printer, human_bytes, print_state, print_summary, write_json
from miniinfer_cli.errors import UsageError
from miniinfer_cli.plugins import load_plugins
from miniinfer_cli.runtime.benchmark import Schedule, measure
from miniinfer_cli.runtime.devices import DeviceOptions
from miniinfer_cli.runtime.engine import Engine, load
from miniinfer_cli.runtime.metrics import Samples, distribution, summarize
from miniinfer_cli.runtime.placement import placement_of

_TOP_ROWS = 8  # rows of an output whose largest entries are printed


@click.command("run")
@flags.plan_argument
@flags.feed_flags
@flags.schedule_flags
@click.option("--avg-runs", type=click.IntRange(1), help="Also print the mean latency of each so many inferences.")
@click.option("--output", "output_file", type=click.Path(path_type=Path), help="Save the outputs to this .npz file.")
@click.option("--top-k", type=click.IntRange(1), help="Print the K largest entries of each row of each output.")
@click.option("--export-times", type=click.Path(path_type=Path), help="Write every inference's times (ms) to this JSON file.")
@flags.device_flag
@flags.gpu_flags
@flags.transfers_flag
@flags.plugin_flag
@flags.quiet_flag
def command(
    plan: Path, inputs: tuple[tuple[str, Path], ...], shapes: Any, seed: int, iterations: int, warmup: float, duration: float,
    streams: int, percentiles: tuple[float, ...], json_file: Path | None, avg_runs: int | None, output_file: Path | None,
    top_k: int | None, export_times: Path | None, device: str, gpu: DeviceOptions, transfers: bool,
    plugins: tuple[str, ...], quiet: bool,
) -> None:  # fmt: skip
    """Run PLAN for at least --iterations inferences and --duration seconds, and print the performance summary.

    Inputs that no --input names get seeded random values: floats in [-1, 1), integers 0 or 1.
    """
    printer = Printer(quiet or str(json_file) == "-")
    load_plugins(plugins)
    with load(plan, device, gpu) as engine:
        feeds = feeds_for(engine, inputs, flags.merged(shapes, "--shapes"), seed)
        arrays = engine.check(feeds)
        describe(printer, engine, plan, feeds)
        describe_program(printer, engine, arrays)
        if output_file is not None or top_k is not None:
            with engine.create_context() as context:  # gone before anything is measured
                outputs = context.run(feeds)
            if top_k is not None:
                _print_top(printer, outputs, top_k)
            if output_file is not None:
                write_arrays(output_file, outputs)
        with printer.progress(iterations, "inferences") as progress:
            samples = measure(
                engine, arrays, Schedule(iterations, warmup, duration, transfers), streams=streams, progress=progress
            )
        state = engine.model.state()
    summary = summarize(samples, batch_of(arrays), percentiles)
    if avg_runs is not None:
        _print_averages(printer, samples, avg_runs)
    print_summary(printer, summary)
    print_state(printer, state)
    if json_file is not None:
        write_json(json_file, {"plan": str(plan), "device": engine.device, **summary.to_json(), "gpu_state": state})
    if export_times is not None:
        pairs = zip(samples.latency_ms, samples.end_to_end_ms, strict=True)
        write_json(export_times, [{"latency_ms": c, "end_to_end_ms": e} for c, e in pairs])


def describe(printer: Printer, engine: Engine, plan: Path, feeds: dict[str, Any]) -> None:
    """What is run, where, on what."""
    printer.line(f"Plan: {plan} ({human_bytes(engine.plan.weights_nbytes)} of weights)")
    printer.line(f"Device: {engine.device}")
    for b in engine.inputs:
        value = feeds[b.name]
        got = "x".join(map(str, value.shape)) if isinstance(value, np.ndarray) else type(value).__name__
        printer.line(f"Input: {b} <- {got or 'scalar'}")
    for b in engine.outputs:
        printer.line(f"Output: {b}")


def describe_program(printer: Printer, engine: Engine, arrays: list[Any]) -> None:
    """On a GPU: what runs there, what does not, and why."""
    if engine.device == "cpu":
        return
    for note in engine.notes:
        printer.line(f"note: {note}")
    for line in placement_of(engine.program(list(arrays)).plan).lines():  # type: ignore[attr-defined]
        printer.line(line)
    w = engine.stats()["weights"]
    rate = w["nbytes"] / max(w["preload_s"], 1e-9) / 1e9
    printer.line(
        f"Weights: {w['tensors']} tensors, {human_bytes(w['nbytes'])} in {w['preload_s'] * 1e3:.1f} ms ({rate:.1f} GB/s);"
        f" look-ups: {w['preloaded_hits']} preloaded, {w['derived_hits']} derived, {w['late_copies']} late copies"
    )


def batch_of(arrays: list[Any]) -> int | None:
    """The leading size that all inputs with a shape share; None when they do not."""
    sizes = {a.shape[0] for a in arrays if isinstance(a, np.ndarray) and a.ndim}
    return sizes.pop() if len(sizes) == 1 else None


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

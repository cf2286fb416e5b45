"""Tuning on the command line: the flags that ``tune`` and ``build`` share, and the report of what came out."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click

from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.builder.tuning import Written, tune_into
from miniinfer_cli.cli import flags
from miniinfer_cli.cli.flag_values import SizesParam
from miniinfer_cli.cli.report import Printer
from miniinfer_cli.devices.tuning import Aim, Change, Level, Point, TuningOptions
from miniinfer_cli.errors import UsageError

_SHOWN = 20  # changes in a report; JSON has all


def tuning_flags(default: Level | None) -> Callable[[flags.Command], flags.Command]:
    """How to tune; gives the command ``tuning``, TuningOptions, or None where ``--tune`` is not given and there is no default."""

    def decorate(command: flags.Command) -> flags.Command:
        @functools.wraps(command)
        def with_tuning(
            *args: Any,
            level: Level | None,
            tune_at: tuple[tuple[str, tuple[int, ...]], ...],
            aim: Aim | None,
            timing_cache: Path | None,
            **kwargs: Any,
        ) -> Any:
            if level is None:
                unheeded = flags.typed(("tune_at", "aim", "timing_cache"))
                if unheeded:
                    raise UsageError(f"{', '.join(unheeded)}: nothing is tuned", hint="add --tune fast, or --tune full")
                return command(*args, tuning=None, **kwargs)
            at: dict[str, tuple[int, ...]] = {}
            for name, sizes in tune_at:
                at[name] = (*at.get(name, ()), *sizes)
            tuning = TuningOptions(level=level, at=at, aim=aim or "latency", timing_cache=timing_cache)
            return command(*args, tuning=tuning, **kwargs)

        cache = "Take what was found before from this file, and add what is found now; it may serve several plans and GPUs."
        return flags.together(
            click.option("--tune", "level", type=click.Choice(get_args(Level)), default=default, show_default=default is not None,
                         help="Time on the GPU which tactics are fastest: fast tries some 8 for each kind of node, full all."),
            click.option("--tune-at", type=SizesParam(), multiple=True, metavar=SizesParam.name,
                         help="Tune for these sizes of a dimension as well, not for the optimal ones alone. May be repeated."),
            click.option("--tune-for", "aim", type=click.Choice(get_args(Aim)),
                         help="Time one inference at a time (latency, the default), or four (throughput)."),
            flags.timing_cache_flag(cache),
        )(with_tuning)  # fmt: skip

    return decorate


def tune_and_report(
    printer: Printer, plan: Path, output: Path | None, device: str, options: TuningOptions, settings: DeviceOptions
) -> Written:
    """Tunes the plan file, and prints what came out."""
    with printer.share() as progress:
        written = tune_into(plan, output, device, options, settings, progress)
    tuned = written.tuned
    printer.line(f"GPU: {tuned.gpu}")
    for point in tuned.points:
        _print_point(printer, point)
    if tuned.interrupted:
        printer.line("Interrupted: what was found so far is kept")
    printer.line(f"Tuning: {tuned.seconds:.1f} s")
    return written


def describe_tuning(written: Written) -> dict[str, Any]:
    """The same with stable keys; docs/tuning.md describes them."""
    tuned = written.tuned
    return {
        "gpu": tuned.gpu,
        "seconds": tuned.seconds,
        "interrupted": tuned.interrupted,
        "changed": tuned.changed,
        "points": [
            {
                "sizes": dict(p.sizes),
                "signatures": p.signatures,
                "rejected": p.rejected,
                "seconds": p.seconds,
                "untuned_us": p.untuned_us,
                "tuned_us": p.tuned_us,
                "dropped": p.dropped,
                "changes": [_describe_change(p, c) for c in p.changes],
            }
            for p in tuned.points
        ],
    }


def _describe_change(point: Point, change: Change) -> dict[str, Any]:
    return {
        "nodes": list(change.labels),
        "before": change.before.candidate.name,
        "after": change.after.candidate.name,
        "before_us": change.before.time_us,
        "after_us": change.after.time_us,
        "kept": change.kept and not point.dropped,
    }


def _print_point(printer: Printer, point: Point) -> None:
    sizes = ", ".join(f"{name} = {size}" for name, size in point.sizes.items())
    printer.section(f"Tuned at {sizes}" if sizes else "Tuned")
    kept = [c for c in point.changes if c.kept]
    if kept:
        rows = [
            (c.labels[0], len(c.labels), c.before.candidate.key, c.after.candidate.key, c.before.time_us, c.after.time_us)
            for c in sorted(kept, key=lambda c: -(c.before.time_us - c.after.time_us) * len(c.labels))
        ]
        printer.table(("node", "alike", "before", "after", "before us", "after us"), rows[:_SHOWN])
        if len(rows) > _SHOWN:
            printer.line(f"{len(rows) - _SHOWN} more")
    rejected = f", {point.rejected} candidates were wrong or not reproducible" if point.rejected else ""
    printer.line(
        f"Tried: {point.signatures} kinds of nodes; {len(point.changes)} are faster in another way alone, {len(kept)} in the plan"
        f"{rejected}"
    )
    if point.untuned_us is None or point.tuned_us is None:
        printer.line("Whole plan: nothing is faster than what the heuristic chooses")
    elif point.dropped:
        told = f"{point.untuned_us:.1f} us untuned, {point.tuned_us:.1f} us tuned"
        printer.line(f"Whole plan: {told}: not faster beyond chance, so nothing of this is kept")
    else:
        ratio = point.untuned_us / point.tuned_us
        printer.line(f"Whole plan: {point.untuned_us:.1f} -> {point.tuned_us:.1f} us ({ratio:.3f} times as fast)")

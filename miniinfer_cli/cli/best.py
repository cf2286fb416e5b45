"""The fastest element types of a build: the flags of ``--best``, the search, and what is told of it."""

import functools
from dataclasses import dataclass
from typing import Any

import click

from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.builder.options import BuildOptions
from miniinfer_cli.cli import flags
from miniinfer_cli.cli.report import Printer
from miniinfer_cli.cli.verifying import Check
from miniinfer_cli.devices.models import expect_device
from miniinfer_cli.errors import MiniinferError, UsageError
from miniinfer_cli.runtime.cache_folder import cache_options
from miniinfer_cli.verification.best import BestFound, find_best, types_of
from miniinfer_cli.verification.keeping import ReadFeeds

ESTIMATED = "no GPU is here, so times are estimates: the least that the steps take on one H200"
_FLAGS = {"f32": "no flag", "f16": "--fp16", "bf16": "--bf16", "int8": "--int8", "fp8": "--fp8"}


@dataclass(frozen=True, slots=True)
class Best:
    """What the flags ask for: whether to look for the fastest types, where to time them, and what they may be off by."""

    wanted: bool
    device: str
    tolerance: float | None


def best_flags(command: flags.Command) -> flags.Command:
    """Whether to look for the fastest element types; gives the command ``best``, a Best."""

    @functools.wraps(command)
    def with_best(*args: Any, best: bool, best_device: str | None, best_tolerance: float | None, **kwargs: Any) -> Any:
        for flag, given in (("--best-device", best_device), ("--best-tolerance", best_tolerance)):
            if given is not None and not best:
                raise UsageError(f"{flag} is for --best, which is not asked for", hint="give --best")
        if best_device is not None:
            try:
                expect_device(best_device)
            except MiniinferError as error:
                raise error.at("--best-device") from None
        return command(*args, best=Best(best, best_device or "auto", best_tolerance), **kwargs)

    return flags.together(
        click.option("--best", is_flag=True,
                     help="Build in f32, f16 or bf16, with --calibrate in int8 or fp8 as well, alone"
                     " and with 16 bits: whichever is fastest and right enough."),
        click.option("--best-device", metavar="auto|cpu|cuda:N",
                     help="Where --best measures times; auto with no GPU estimates them for an H200.  [default: auto]"),
        click.option("--best-tolerance", type=click.FloatRange(min=0, min_open=True), metavar="R",
                     help="The relative error that --best allows.  [default: what --verify allows of each type]"),
    )(with_best)  # fmt: skip


def search_best(
    printer: Printer, source: Any, options: BuildOptions, best: Best, check: Check, read_feeds: ReadFeeds
) -> BestFound:
    """Builds the model in all types, on the samples, or the inputs that ``read_feeds`` gives."""
    with printer.stages() as stage:
        return find_best(
            source, options, read_feeds, device=best.device, tolerance=best.tolerance, shapes=check.shapes, seed=check.seed,
            device_options=DeviceOptions(**cache_options()), progress=stage,
        )  # fmt: skip


def print_best(printer: Printer, found: BestFound) -> None:
    """All forms, which one is taken, and the flag that asks for it."""
    printer.section("Best element types")
    printer.line(f"Times: measured on {found.device}, in turns" if found.device else f"Times: {ESTIMATED}")
    if found.guessed:
        names = ", ".join(map(repr, found.guessed))
        printer.line(f"Note: errors are a guess: random numbers stood for {names}; give --calibrate, or --input NAME=FILE")
    printer.table(("type", "ms", "off by", "allowed", "why not"), best_rows(found))
    asked = " ".join(_FLAGS[name] for name in types_of(found.precision) if name)
    printer.line(f"Taken: {found.precision} ({asked})")


def best_rows(found: BestFound) -> list[tuple[str, str, str, str, str]]:
    """A row for each form."""
    return [
        (
            f.precision,
            "" if f.time_ms is None else f"{f.time_ms:.4f}",
            "" if f.error is None else f"{f.error.relative:.2e}",
            "" if f.error is None else f"{f.error.tolerance:.0e}",
            f.reason,
        )
        for f in found.forms
    ]


def describe_best(found: BestFound) -> dict[str, Any]:
    """The same with stable keys; ``device`` is null where times are estimates."""
    return {
        "precision": found.precision,
        "device": found.device,
        "guessed_inputs": list(found.guessed),
        "forms": [
            {
                "precision": f.precision,
                "ms": f.time_ms,
                "relative_error": None if f.error is None else f.error.relative,
                "allowed": None if f.error is None else f.error.tolerance,
                "reason": f.reason,
            }
            for f in found.forms
        ],
    }

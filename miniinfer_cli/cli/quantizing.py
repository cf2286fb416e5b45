"""Numbers of 8 bits of a build: its flags, the search for what keeps f32, and what is told of both."""

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.builder.building import Built
from miniinfer_cli.builder.calibration.calibrate import Method
from miniinfer_cli.builder.options import BuildOptions
from miniinfer_cli.builder.precision import AUTO
from miniinfer_cli.cli import flags
from miniinfer_cli.cli.precision import KeepSearch, print_kept_nodes
from miniinfer_cli.cli.report import Printer
from miniinfer_cli.errors import UsageError
from miniinfer_cli.ir.quantization import FORMATS, FP8, INT8
from miniinfer_cli.runtime.cache_folder import cache_options
from miniinfer_cli.verification.floating import find_float


@dataclass(frozen=True, slots=True)
class Quantizing:
    """What the flags ask for: in which ``format`` (``int8``, ``fp8``) products multiply, or their weights alone are stored.

    And what keeps f32. ``format`` is None where neither is asked for.
    """

    format: str | None
    calibrate: Path | None
    method: str
    cache: Path | None
    keep: tuple[str, ...]
    smooth_quant: float | None
    weight_only: str | None
    group_size: int | None

    def added_to(self, options: BuildOptions) -> BuildOptions:
        """``options`` with these."""
        return replace(
            options, int8=self.format == INT8.name, fp8=self.format == FP8.name, calibrate=self.calibrate,
            calibration_method=self.method, calibration_cache=self.cache, keep_float=self.keep, smooth_quant=self.smooth_quant,
            weight_only=self.weight_only, group_size=self.group_size,
        )  # fmt: skip

    def chosen(self, options: BuildOptions) -> "Quantizing":
        """The same with the format that ``options`` have in the end."""
        return replace(self, format=next((name for name in FORMATS if getattr(options, name)), None))

    @property
    def told(self) -> str | None:
        """What is asked for in a word, for reports."""
        return self.format or (None if self.weight_only is None else f"{self.weight_only} weights")

    @property
    def searches(self) -> bool:
        """Whether the nodes that keep f32 are to be found."""
        return self.format is not None and AUTO in self.keep


def quantizing_flags(command: flags.Command) -> flags.Command:
    """Whether to multiply numbers of 8 bits, and by which scales; gives the command ``quantizing``."""

    @functools.wraps(command)
    def with_formats(
        *args: Any, int8: bool, fp8: bool, calibrate: Path | None, calibration_method: str, calibration_cache: Path | None,
        keep_float: tuple[str, ...], smooth_quant: float | None, weight_only: str | None, group_size: str | None, **kwargs: Any,
    ) -> Any:  # fmt: skip
        size = None if group_size is None else int(group_size)
        if int8 and fp8:
            raise UsageError("--int8 and --fp8 exclude each other", hint="leave one of them out")
        format = INT8.name if int8 else FP8.name if fp8 else None
        found = Quantizing(format, calibrate, calibration_method, calibration_cache, keep_float, smooth_quant, weight_only, size)
        return command(*args, quantizing=found, **kwargs)

    return flags.together(
        click.option("--int8", is_flag=True,
                     help="Multiply 8-bit integers by constant weights (docs/precision.md); wants --calibrate or a cache."),
        click.option("--fp8", is_flag=True,
                     help="Multiply 8-bit floats (E4M3), in attention, too (docs/precision.md); wants --calibrate or a cache."),
        click.option("--calibrate", type=flags.PATH, metavar="DIR|FILE",
                     help="Samples of the inputs: .npz files of arrays by input name, or .npy files where there is one input."),
        click.option("--calibration-method", default=Method().name, show_default=True,
                     metavar="minmax|percentile[:P]|entropy|mse", help="How scales follow from the values on the samples."),
        click.option("--calibration-cache", type=flags.PATH, metavar="FILE",
                     help="Take scales from this file, and write those there that it lacks; files of TensorRT are read as well."),
        click.option("--keep-float", "keep_float", multiple=True, metavar="NODE|OP|auto",
                     help="With --int8, --fp8 or --weight-only, keep f32 in this node of the model, or in all of this operation;"
                     " with --int8 and --fp8 auto finds nodes by running the model on the samples. May be repeated."),
        click.option("--smooth-quant", type=click.FloatRange(0, 1), metavar="ALPHA",
                     help="Move so much of the outliers of activations into weights, channel by channel (SmoothQuant);"
                     " 0.5 is usual."),
        click.option("--weight-only", type=click.Choice(["int8", "int4"]),
                     help="Store the weights of matrix products alone as integers; they are multiplied as f32."),
        click.option("--group-size", type=click.Choice(["32", "64", "128"]),
                     help="With --weight-only, rows of a column that share a scale.  [default: 128 for int4, all for int8]"),
    )(with_formats)  # fmt: skip


def search_float(printer: Printer, source: Any, options: BuildOptions) -> KeepSearch:
    """Looks for the products that have to keep f32, on the samples."""
    given = tuple(word for word in options.keep_float if word != AUTO)
    with printer.stages() as stage:
        found = find_float(source, options, device_options=DeviceOptions(**cache_options()), progress=stage)
    return KeepSearch("--keep-float", "Products that have to keep f32", found, given)


def print_quantized(printer: Printer, built: Built, rest: str) -> None:
    """How many products multiply numbers of 8 bits, and which do not, but are as the ``rest`` of the nodes, and why."""
    done = built.quantized
    assert done is not None
    printer.section(f"Element types: {done.told}")
    kept, count = done.kept, done.products
    verb = ("has" if count == 1 else "have") if done.weights else "multiplies" if count == 1 else "multiply"
    printer.line(f"Products: {count} {verb} {done.told}, {len(kept)} keep{'s' * (len(kept) == 1)} {rest}")
    if done.smoothed:
        printer.line(f"Smoothed: {done.smoothed} value{'s' * (done.smoothed != 1)}, channel by channel")
    print_kept_nodes(printer, kept, rest)


def expect_samples(quantizing: Quantizing) -> None:
    """Raises UsageError where there is neither a sample nor a cache to take scales from, before the model is read."""
    if quantizing.format is not None and quantizing.calibrate is None and quantizing.cache is None:
        raise UsageError(
            f"--{quantizing.format} has nothing to calibrate with",
            hint="give --calibrate FOLDER, or --calibration-cache FILE of an earlier one",
        )

"""8-bit integers of a build: its flags, the search for what keeps f32, and what is told of both."""

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.builder.building import BuildOptions, Built
from miniinfer_cli.builder.calibration.calibrate import Method
from miniinfer_cli.builder.precision import AUTO
from miniinfer_cli.cli import flags
from miniinfer_cli.cli.precision import print_found
from miniinfer_cli.cli.report import Printer
from miniinfer_cli.errors import UsageError
from miniinfer_cli.runtime.cache_folder import cache_options
from miniinfer_cli.verification.floating import FloatFound, find_float


@dataclass(frozen=True, slots=True)
class Int8:
    """What the flags ask for: whether products multiply integers, or their weights alone are such, and what keeps f32."""

    wanted: bool
    calibrate: Path | None
    method: str
    cache: Path | None
    keep: tuple[str, ...]
    weight_only: str | None
    group_size: int | None

    def added_to(self, options: BuildOptions) -> BuildOptions:
        """``options`` with these."""
        return replace(
            options, int8=self.wanted, calibrate=self.calibrate, calibration_method=self.method, calibration_cache=self.cache,
            keep_float=self.keep, weight_only=self.weight_only, group_size=self.group_size,
        )  # fmt: skip

    @property
    def told(self) -> str | None:
        """What is asked for in a word, for reports."""
        return "int8" if self.wanted else None if self.weight_only is None else f"{self.weight_only} weights"

    @property
    def searches(self) -> bool:
        """Whether the nodes that keep f32 are to be found."""
        return self.wanted and AUTO in self.keep


def int8_flags(command: flags.Command) -> flags.Command:
    """Whether to multiply 8-bit integers, and by which scales; gives the command ``int8``, an Int8."""

    @functools.wraps(command)
    def with_int8(
        *args: Any, int8: bool, calibrate: Path | None, calibration_method: str, calibration_cache: Path | None,
        keep_float: tuple[str, ...], weight_only: str | None, group_size: str | None, **kwargs: Any,
    ) -> Any:  # fmt: skip
        size = None if group_size is None else int(group_size)
        found = Int8(int8, calibrate, calibration_method, calibration_cache, keep_float, weight_only, size)
        return command(*args, int8=found, **kwargs)

    return flags.together(
        click.option("--int8", is_flag=True,
                     help="Multiply 8-bit integers by constant weights (docs/precision.md); wants --calibrate or a cache."),
        click.option("--calibrate", type=flags.PATH, metavar="DIR|FILE",
                     help="Samples of the inputs: .npz files of arrays by input name, or .npy files where there is one input."),
        click.option("--calibration-method", default=Method().name, show_default=True,
                     metavar="minmax|percentile[:P]|entropy|mse", help="How scales follow from the values on the samples."),
        click.option("--calibration-cache", type=flags.PATH, metavar="FILE",
                     help="Take scales from this file, and write those there that it lacks; files of TensorRT are read as well."),
        click.option("--keep-float", "keep_float", multiple=True, metavar="NODE|OP|auto",
                     help="With --int8 or --weight-only, keep f32 in this node of the model, or in all of this operation; with"
                     " --int8 auto finds nodes by running the model on the samples. May be repeated."),
        click.option("--weight-only", type=click.Choice(["int8", "int4"]),
                     help="Store the weights of matrix products alone as integers; they are multiplied as f32."),
        click.option("--group-size", type=click.Choice(["32", "64", "128"]),
                     help="With --weight-only, rows of a column that share a scale.  [default: 128 for int4, all for int8]"),
    )(with_int8)  # fmt: skip


@dataclass(frozen=True, slots=True)
class FloatSearch:
    """What ``--keep-float auto`` found, and what was given beside it."""

    found: FloatFound
    given: tuple[str, ...]

    def print(self, printer: Printer) -> None:
        """The nodes, as flags that may be given again."""
        printer.section("Products that have to keep f32")
        print_found(printer, self.found, "--keep-float", self.given)

    def to_json(self) -> dict[str, Any]:
        """Stable keys."""
        return {
            "nodes": list(self.found.nodes),
            "trials": self.found.trials,
            "relative_errors": {o.name: o.relative for o in self.found.outputs},
        }


def search_float(printer: Printer, source: Any, options: BuildOptions) -> FloatSearch:
    """Looks for the products that have to keep f32, on the samples."""
    given = tuple(word for word in options.keep_float if word != AUTO)
    with printer.stages() as stage:
        found = find_float(source, options, device_options=DeviceOptions(**cache_options()), progress=stage)
    return FloatSearch(found, given)


def print_quantized(printer: Printer, built: Built) -> None:
    """How many products multiply integers, and which keep f32, and why."""
    assert built.int8 is not None
    printer.section(f"Element types: {built.int8.told}")
    kept, count = built.int8.kept, built.int8.products
    own = (f"have {built.int8.told}", f"has {built.int8.told}") if built.int8.weights else ("multiply int8", "multiplies int8")
    printer.line(f"Products: {count} {own[count == 1]}, {len(kept)} keep{'s' * (len(kept) == 1)} f32")
    if kept:
        printer.table(("node", "operation", "why it keeps f32"), [(k.node, k.op, k.reason) for k in kept])


def expect_samples(int8: Int8) -> None:
    """Raises UsageError where there is neither a sample nor a cache to take scales from, before the model is read."""
    if int8.wanted and int8.calibrate is None and int8.cache is None:
        raise UsageError(
            "--int8 has nothing to calibrate with", hint="give --calibrate FOLDER, or --calibration-cache FILE of an earlier one"
        )

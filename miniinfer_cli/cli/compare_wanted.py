"""What to compare, and how: the flags of ``compare``."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.cli import flags
from miniinfer_cli.cli.asserting import Parsed
from miniinfer_cli.cli.batch_flag import MOST_BATCH
from miniinfer_cli.cli.flag_values import FiniteRange
from miniinfer_cli.cli.outputs import Source
from miniinfer_cli.cli.sides import Side
from miniinfer_cli.cli.sources import cache_source, key_source, sources
from miniinfer_cli.cli.verifying import shape_sets
from miniinfer_cli.cli.wanted import Wanted
from miniinfer_cli.comparison.assertions import parse_percent
from miniinfer_cli.comparison.outputs import Closeness
from miniinfer_cli.comparison.pair_tests import MOST_PAIRS
from miniinfer_cli.errors import UsageError
from miniinfer_cli.measuring.benchmark import Schedule


@dataclass(frozen=True, slots=True)
class CompareWanted:
    """What to compare, and how. ``files`` and ``devices``: of A and of B; ``shapes``: a set for each case.

    ``closeness``: what elements may be off by; None where the table of tolerances decides. ``outputs`` and ``times``: whether
    these are compared; ``per_layer``: and where outputs begin to differ. ``duration_s``: for all pairs of workers; ``pairs``: so
    many instead; ``margin``: what does not matter.
    """

    files: tuple[Path, Path]
    devices: tuple[str, str]
    inputs: Sequence[tuple[str, Path]]
    shapes: Sequence[Mapping[str, Sequence[int]]]
    seed: int
    batch: int | None
    batch_dim: str | None
    streams: int
    transfers: bool
    closeness: Closeness | None
    outputs: bool
    per_layer: bool
    times: bool
    duration_s: float
    pairs: int | None
    warmup_ms: float
    margin: float
    gpu: DeviceOptions
    gpu_flags: Sequence[str]
    plugins: Sequence[str]

    def of(self, number: int, shapes: Mapping[str, Sequence[int]]) -> Wanted:
        """What is wanted of one side, A (0) or B (1), in one case, as ``run`` has it."""
        schedule = Schedule(transfers=self.transfers)
        return Wanted(
            self.files[number], self.inputs, shapes, self.seed, schedule, self.streams, self.batch, self.batch_dim, None, (),
            self.devices[number], self.gpu, self.gpu_flags, self.plugins,
        )  # fmt: skip

    def sources(self, sides: Sequence[Side]) -> Iterator[Source]:
        """The files that comparing reads. Imports the plugins."""
        for side in sides:
            yield from side.sources(self.plugins)
        yield from sources(self.files[0], inputs=self.inputs)
        yield from key_source(self.gpu.trust_key)
        yield from cache_source(self.gpu.timing_cache)

    def settings(self) -> dict[str, Any]:
        """Every flag that bears on what is compared, by stable keys."""
        return {
            "devices": list(self.devices),
            "seed": self.seed,
            "shapes": [{name: list(shape) for name, shape in shapes.items()} for shapes in self.shapes],
            "batch": self.batch,
            "batch_dim": self.batch_dim,
            "streams": self.streams,
            "data_transfers": self.transfers,
            "rtol": None if self.closeness is None else self.closeness.rtol,
            "atol": None if self.closeness is None else self.closeness.atol,
            "outputs": self.outputs,
            "per_layer": self.per_layer,
            "times": self.times,
            "duration_s": self.duration_s,
            "pairs": self.pairs,
            "warmup_ms": self.warmup_ms,
            "equal_within": self.margin,
            "threads": self.gpu.threads,
            "cuda_graph": self.gpu.cuda_graph,
            "overlap": self.gpu.overlap,
            "pdl": self.gpu.pdl,
            "scheduling": self.gpu.scheduling,
        }


def compare_flags(command: flags.Command) -> flags.Command:
    """What to compare, and how; gives the command ``wanted``, a CompareWanted."""

    @functools.wraps(command)
    def with_wanted(
        *args: Any, a: Path, b: Path, device: str, device_a: str | None, device_b: str | None,
        inputs: tuple[tuple[str, Path], ...], shapes: tuple[dict[str, tuple[int, ...]], ...], seed: int, batch: int | None,
        batch_dim: str | None, streams: int, transfers: bool, rtol: float | None, atol: float | None, no_outputs: bool,
        per_layer: bool, no_times: bool, duration: float, pairs: int | None, warmup: float, equal_within: float,
        gpu: DeviceOptions, threads: int | None, bounds: Mapping[str, Any], plugins: tuple[str, ...], limits: dict[str, int],
        **kwargs: Any,
    ) -> Any:  # fmt: skip
        if batch_dim is not None and batch is None:
            raise UsageError("--batch-dim: there is no --batch that would set it", hint="add --batch N")
        if no_outputs and no_times:
            raise UsageError("--no-outputs and --no-times leave nothing to compare", hint="leave one of them out")
        if no_outputs and per_layer:
            raise UsageError("--no-outputs and --per-layer exclude each other", hint="leave one of them out")
        closeness = None if rtol is None and atol is None else Closeness(rtol or 0.0, atol or 0.0)
        options = replace(gpu, threads=threads, limits=limits, **bounds)
        wanted = CompareWanted(
            (a, b), (device_a or device, device_b or device), inputs, shape_sets(shapes) or [{}], seed, batch, batch_dim,
            streams, transfers, closeness, not no_outputs, per_layer, not no_times, duration, pairs, warmup, equal_within,
            options, flags.typed((*flags.GPU_FLAGS, "transfers")), plugins,
        )  # fmt: skip
        return command(*args, wanted=wanted, **kwargs)

    tolerance = FiniteRange(0)
    return flags.together(
        click.argument("a", type=flags.PATH),
        click.argument("b", type=flags.PATH),
        flags.input_flag("Read an input from .npy, .npz, .pb (a TensorProto) or raw little-endian bytes. May be repeated."),
        flags.shapes_flag("--shapes", "Sizes of inputs left to random values. May be repeated: an input that is given again"
                          " begins another set of sizes."),
        flags.seed_flag("Seed of the random inputs."),
        click.option("--batch", type=click.IntRange(1, MOST_BATCH), metavar="N",
                     help="Set the first dimension that all inputs share."),
        click.option("--batch-dim", metavar="NAME", help="The named dimension that --batch sets."),
        click.option("--streams", type=click.IntRange(1, flags.MOST_STREAMS), default=1, show_default=True,
                     help="Run so many contexts at once over one copy of the weights."),
        click.option("--rtol", type=tolerance, help="Each element of B may be off by --atol and so many times that of A."),
        click.option("--atol", type=tolerance, help="The same as a number. With neither, a table by element types decides."),
        click.option("--per-layer", is_flag=True, help="Find the first node of the ONNX model whose result differs."),
        click.option("--no-outputs", is_flag=True, help="Leave the outputs out: compare times alone."),
        click.option("--no-times", is_flag=True, help="Leave the times out: compare outputs alone."),
        click.option("--duration", type=FiniteRange(0, min_open=True), default=30.0, show_default=True, metavar="S",
                     help="Measure pairs of workers for so many seconds at most."),
        click.option("--pairs", type=click.IntRange(2, MOST_PAIRS), metavar="N",
                     help="Measure so many pairs of workers, whatever time that takes."),
        click.option("--warmup", type=FiniteRange(0), default=100.0, show_default=True, metavar="MS",
                     help="Warm each worker up for so many milliseconds (at least one inference)."),
        click.option("--equal-within", type=Parsed("2%", parse_percent), default="2%", show_default=True, metavar="2%",
                     help="The change of the time that does not matter."),
        flags.device_flag,
        click.option("--device-a", metavar="auto|cpu|cuda:N", help="Where to run A, where that is not --device."),
        click.option("--device-b", metavar="auto|cpu|cuda:N", help="Where to run B, where that is not --device."),
        flags.threads_flag, flags.bound_flags, flags.gpu_flags, flags.transfers_flag, flags.plugin_flag, flags.limit_flag,
    )(with_wanted)  # fmt: skip

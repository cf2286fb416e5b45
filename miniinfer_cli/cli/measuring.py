"""Measuring a plan, for run and profile: it is opened and described, its inputs are made, it is measured and summed up."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from miniinfer_cli.cli import flags
from miniinfer_cli.cli.feeds import feeds_for
from miniinfer_cli.cli.outputs import Source
from miniinfer_cli.cli.report import Printer, human_bytes, print_state, print_summary
from miniinfer_cli.cli.sources import sources
from miniinfer_cli.plugins import load_plugins
from miniinfer_cli.runtime.benchmark import Schedule, measure
from miniinfer_cli.runtime.devices import DeviceOptions
from miniinfer_cli.runtime.engine import Engine, load
from miniinfer_cli.runtime.metrics import Samples, Summary, summarize
from miniinfer_cli.runtime.placement import placement_of


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to measure, and how: the flags that run and profile share."""

    plan: Path
    inputs: Sequence[tuple[str, Path]]
    shapes: Mapping[str, Sequence[int]]
    seed: int
    schedule: Schedule
    streams: int
    percentiles: tuple[float, ...]
    device: str
    gpu: DeviceOptions
    plugins: Sequence[str]

    def sources(self) -> Iterator[Source]:
        """The files that measuring reads. Imports the plugins."""
        return sources(self.plan, inputs=self.inputs, plugins=self.plugins)


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured. ``state`` is the GPU's, right after; empty on a CPU."""

    plan: Path
    device: str
    samples: Samples
    summary: Summary
    state: Mapping[str, Any]

    def print(self, printer: Printer) -> None:
        """The performance summary, and the state of the GPU."""
        print_summary(printer, self.summary)
        print_state(printer, self.state)

    def to_json(self) -> dict[str, Any]:
        """The same with stable keys."""
        return {"plan": str(self.plan), "device": self.device, **self.summary.to_json(), "gpu_state": self.state}


@dataclass(frozen=True, slots=True)
class Bench:
    """A plan opened on its device, and its inputs: ``feeds`` by name, ``arrays`` as the engine takes them."""

    wanted: Wanted
    engine: Engine
    feeds: dict[str, Any]
    arrays: list[Any]

    def measure(self, printer: Printer) -> Measured:
        """Runs it as long as is wanted."""
        wanted = self.wanted
        with printer.progress(wanted.schedule.iterations, "inferences") as progress:
            samples = measure(self.engine, self.arrays, wanted.schedule, streams=wanted.streams, progress=progress)
        state = self.engine.model.state()
        summary = summarize(samples, _batch_of(self.arrays), wanted.percentiles)
        return Measured(wanted.plan, self.engine.device, samples, summary, state)


def measuring_flags(command: flags.Command) -> flags.Command:
    """What to measure, and how; gives the command ``wanted``, a Wanted."""

    @functools.wraps(command)
    def with_wanted(
        *args: Any, plan: Path, inputs: tuple[tuple[str, Path], ...], shapes: Any, seed: int, iterations: int, warmup: float,
        duration: float, streams: int, percentiles: tuple[float, ...], device: str, gpu: DeviceOptions, transfers: bool,
        plugins: tuple[str, ...], **kwargs: Any,
    ) -> Any:  # fmt: skip
        schedule = Schedule(iterations, warmup, duration, transfers)
        sizes = flags.merged(shapes, "--shapes")
        wanted = Wanted(plan, inputs, sizes, seed, schedule, streams, percentiles, device, gpu, plugins)
        return command(*args, wanted=wanted, **kwargs)

    return flags.together(
        flags.plan_argument, flags.feed_flags, flags.schedule_flags, flags.device_flag, flags.gpu_flags, flags.transfers_flag,
        flags.plugin_flag,
    )(with_wanted)  # fmt: skip


@contextmanager
def opened(wanted: Wanted, printer: Printer) -> Iterator[Bench]:
    """The plan on its device, and its inputs; both are told to the user."""
    load_plugins(wanted.plugins)
    with load(wanted.plan, wanted.device, wanted.gpu) as engine:
        feeds = feeds_for(engine, wanted.inputs, wanted.shapes, wanted.seed)
        bench = Bench(wanted, engine, feeds, engine.check(feeds))
        _print_bench(printer, bench)
        _print_program(printer, bench)
        yield bench


def _print_bench(printer: Printer, bench: Bench) -> None:
    """What is run, where, on what."""
    engine = bench.engine
    printer.line(f"Plan: {bench.wanted.plan} ({human_bytes(engine.plan.weights_nbytes)} of weights)")
    printer.line(f"Device: {engine.device}")
    for b in engine.inputs:
        value = bench.feeds[b.name]
        got = "x".join(map(str, value.shape)) if isinstance(value, np.ndarray) else type(value).__name__
        printer.line(f"Input: {b} <- {got or 'scalar'}")
    for b in engine.outputs:
        printer.line(f"Output: {b}")


def _print_program(printer: Printer, bench: Bench) -> None:
    """On a GPU: what runs there, what does not, and why."""
    engine = bench.engine
    if engine.device == "cpu":
        return
    for note in engine.notes:
        printer.line(f"note: {note}")
    for line in placement_of(engine.program(bench.arrays).plan).lines():  # type: ignore[attr-defined]
        printer.line(line)
    w = engine.stats()["weights"]
    rate = w["nbytes"] / max(w["preload_s"], 1e-9) / 1e9
    printer.line(
        f"Weights: {w['tensors']} tensors, {human_bytes(w['nbytes'])} in {w['preload_s'] * 1e3:.1f} ms ({rate:.1f} GB/s);"
        f" look-ups: {w['preloaded_hits']} preloaded, {w['derived_hits']} derived, {w['late_copies']} late copies"
    )


def _batch_of(arrays: Sequence[Any]) -> int | None:
    """The leading size that all inputs with a shape share; None when they do not."""
    sizes = {a.shape[0] for a in arrays if isinstance(a, np.ndarray) and a.ndim}
    return sizes.pop() if len(sizes) == 1 else None

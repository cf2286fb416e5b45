"""What to measure, and how: the flags that run and profile share."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.cli import flags
from miniinfer_cli.cli.batch_flag import batch_flags
from miniinfer_cli.cli.outputs import Source
from miniinfer_cli.cli.sources import cache_source, key_source, sources
from miniinfer_cli.errors import UsageError
from miniinfer_cli.measuring.benchmark import Schedule


@dataclass(frozen=True, slots=True)
class Swept:
    """What ``--streams`` and ``--batch`` give where one of them gives several values; no batches: there is no ``--batch``."""

    streams: tuple[int, ...]
    batches: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to measure, and how: the flags that run and profile share. ``gpu_flags``: those given that only a GPU heeds.

    ``streams`` and ``batch`` are what is measured; the least that is, where settings are ``swept``.
    """

    plan: Path
    inputs: Sequence[tuple[str, Path]]
    shapes: Mapping[str, Sequence[int]]
    seed: int
    schedule: Schedule
    streams: int
    batch: int | None
    batch_dim: str | None
    swept: Swept | None
    percentiles: tuple[float, ...]
    device: str
    gpu: DeviceOptions
    gpu_flags: Sequence[str]
    plugins: Sequence[str]

    def sources(self) -> Iterator[Source]:
        """The files that measuring reads. Imports the plugins."""
        yield from sources(self.plan, inputs=self.inputs, plugins=self.plugins)
        yield from key_source(self.gpu.trust_key)
        yield from cache_source(self.gpu.timing_cache)


def measuring_flags(command: flags.Command) -> flags.Command:
    """What to measure, and how; gives the command ``wanted``, a Wanted."""

    @functools.wraps(command)
    def with_wanted(
        *args: Any, plan: Path, inputs: tuple[tuple[str, Path], ...], shapes: Any, seed: int, iterations: int, warmup: float,
        duration: float, streams: tuple[int, ...], batches: tuple[int, ...] | None, batch_dim: str | None,
        percentiles: tuple[float, ...], device: str, gpu: DeviceOptions, transfers: bool, threads: int | None,
        bounds: Mapping[str, Any], plugins: tuple[str, ...], limits: dict[str, int], **kwargs: Any,
    ) -> Any:  # fmt: skip
        schedule = Schedule(iterations, warmup, duration, transfers)
        sizes = flags.merged(shapes, "--shapes")
        gpu_flags = flags.typed((*flags.GPU_FLAGS, "transfers"))
        options = replace(gpu, threads=threads, limits=limits, **bounds)
        if batch_dim is not None and batches is None:
            raise UsageError("--batch-dim: there is no --batch that would set it", hint="add --batch N")
        swept = Swept(streams, batches or ()) if len(streams) > 1 or len(batches or ()) > 1 else None
        least = (streams[0], batches[0] if batches else None, batch_dim, swept)
        wanted = Wanted(plan, inputs, sizes, seed, schedule, *least, percentiles, device, options, gpu_flags, plugins)
        return command(*args, wanted=wanted, **kwargs)

    return flags.together(
        flags.plan_argument, flags.feed_flags, flags.schedule_flags, batch_flags, flags.devices_flag, flags.threads_flag,
        flags.bound_flags, flags.gpu_flags, flags.transfers_flag, flags.plugin_flag, flags.limit_flag,
    )(with_wanted)  # fmt: skip


def settings_of(wanted: Wanted) -> dict[str, Any]:
    """Every flag that bears on what is measured, by stable keys."""
    schedule, gpu = wanted.schedule, wanted.gpu
    return {
        "device": wanted.device,
        "iterations": schedule.iterations,
        "warmup_ms": schedule.warmup_ms,
        "duration_s": schedule.duration_s,
        "streams": wanted.streams,
        "batch": wanted.batch,
        "batch_dim": wanted.batch_dim,
        "percentiles": wanted.percentiles,
        "seed": wanted.seed,
        "shapes": wanted.shapes,
        "data_transfers": schedule.transfers,
        "threads": gpu.threads,
        "time_limit_s": gpu.time_limit,
        "memory_limit_bytes": gpu.memory_limit,
        "cuda_graph": gpu.cuda_graph,
        "overlap": gpu.overlap,
        "pdl": gpu.pdl,
        "scheduling": gpu.scheduling,
        "ignore_targets": gpu.ignore_targets,
        "trust_targets": "never" if gpu.ignore_targets else gpu.trust_targets,
        "timing_cache": None if gpu.timing_cache is None else str(gpu.timing_cache),
        "tactics": dict(gpu.tactics),
        "disable_tactics": list(gpu.disable_tactics),
        "nvtx": gpu.nvtx,
        "plugins": wanted.plugins,
        "limits": gpu.limits,
    }

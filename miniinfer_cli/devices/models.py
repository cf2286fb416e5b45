"""From a device's name to a model loaded on it."""

import os
from collections.abc import Mapping
from typing import Any

from miniinfer_cli.backends.cuda.models.opening import FORKED, driver_fault, expect_gpu, open_model
from miniinfer_cli.backends.interface import DeviceOptions, LoadedModel
from miniinfer_cli.errors import DeviceError, UsageError
from miniinfer_cli.ir import Graph
from miniinfer_cli.wording import Wording

EVERY_GPU = "cuda:all"


def load_model(
    graph: Graph,
    device: str,
    options: DeviceOptions,
    recorded: Mapping[str, Any],
    beside: LoadedModel | None = None,
) -> LoadedModel:
    """Loads ``graph`` on ``auto`` (a GPU where one can be used), ``cpu`` or ``cuda:N``.

    ``recorded`` are the options that the plan was built with. ``beside``: a model of the same plan on another GPU, whose weights
    are copied rather than read once more. A GPU that only a fork keeps from use is no reason for ``auto`` to
    take the CPU: whoever started the process so should know. Raises DeviceError when the device is not there, UsageError
    for other words.
    """
    gpu = gpu_of(device)
    if gpu is None:
        # Late: a run on a GPU pays for none of this.
        from miniinfer_cli.backends.cpu.device import CpuModel
        from miniinfer_cli.backends.cpu.thread_count import thread_count

        return CpuModel(graph, thread_count(options.threads, os.environ))
    return open_model(graph, gpu, options, tf32=bool(recorded.get("tf32", True)), beside=beside)


def expect_device(device: str) -> None:
    """Raises what ``load_model`` would for a device that is not there, before there is anything to load."""
    gpu = gpu_of(device)
    if gpu is not None:
        expect_gpu(gpu)


def load_gpu_model(
    graph: Graph, device: str, options: DeviceOptions, recorded: Mapping[str, Any], beside: LoadedModel | None = None
) -> LoadedModel:
    """``load_model`` on a GPU. Raises DeviceError where ``device`` is none here."""
    expect_gpu_named(device)
    return load_model(graph, device, options, recorded, beside)


def expect_gpu_named(device: str) -> None:
    """Raises DeviceError where ``device`` is no GPU that can be used here, before there is anything to load."""
    gpu = gpu_of(device)
    if gpu is None:
        reason = driver_fault() if device == "auto" else f"{device} is none"
        raise DeviceError(
            f"tuning needs an NVIDIA GPU: {reason}",
            hint=Wording(
                "tune where the plan is to run; build(archs=[...]) compiles kernels without a GPU",
                flags="tune where the plan is to run; miniinfer build --arch compiles kernels without a GPU",
            ),
        )
    expect_gpu(gpu)


def gpu_of(device: str) -> int | None:
    """The number of the GPU that ``device`` means here; None for the CPU. Raises UsageError for other words."""
    kind, colon, number = device.partition(":")
    if device == "cpu" or (device == "auto" and driver_fault() not in (None, FORKED)):
        return None
    if device in ("auto", "cuda") or (kind == "cuda" and colon and number.isdecimal()):
        return int(number or 0)
    plain = device.lower()
    meant = f"cuda:{device}" if device.isdecimal() else "cuda:0" if plain in ("gpu", "cuda:") else plain
    known = meant in ("auto", "cpu", "cuda") or (meant.startswith("cuda:") and meant[5:].isdecimal())
    if device == EVERY_GPU or "," in device:
        several = Wording(
            f"an engine is on one device; a Batcher takes several: Batcher(engine, devices={device!r})",
            flags="run, profile and serve take several GPUs",
        )
        raise UsageError(f"device {device!r} names several devices, and one is wanted here", hint=several)
    hint = f"did you mean {meant}?" if known and meant != device else "miniinfer devices lists what there is"
    raise UsageError(f"device {device!r} is not one of auto, cpu, cuda:N", hint=hint)


def gpu_fault() -> str | None:
    """Why no GPU can be used here, in one line; None when one can."""
    return driver_fault()

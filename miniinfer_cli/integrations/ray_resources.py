"""What Ray gave the actor that this runs in: a device, and threads."""

from collections.abc import Mapping
from typing import Any

import ray

from miniinfer_cli.errors import UsageError


def assigned(device: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The device that ``auto`` means here, and the ``options`` of ``load`` with the threads of a CPU.

    Ray lets an actor see its own GPUs alone, so that the first of these is ``cuda:0`` whichever it is. Raises UsageError where
    there are several.
    """
    found = ray.get_runtime_context()
    if device == "auto":
        gpus = found.get_accelerator_ids().get("GPU", [])
        if len(gpus) > 1:
            hint = "num_gpus=1 and more actors, or more replicas; or name the GPU: device='cuda:0'"
            raise UsageError(f"Ray gave this actor {len(gpus)} GPUs, and an engine is on one", hint=hint)
        device = "cuda:0" if gpus else "cpu"
    chosen = dict(options)
    if device == "cpu":
        chosen.setdefault("threads", max(1, int(found.get_assigned_resources().get("CPU", 0))))
    return device, chosen

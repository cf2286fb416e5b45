"""miniinfer builds an ONNX model into a plan and runs the plan on a GPU or a CPU.

    plan = miniinfer_cli.build("model.onnx", "model.plan")
    with miniinfer_cli.load("model.plan") as engine:
        outputs = engine.run({"x": array})

Nothing heavy is imported until one of the two is called.
"""

from __future__ import annotations

from miniinfer_cli.version import VERSION

TYPE_CHECKING = False  # as type checkers know it; the module typing would be half of what this one loads
if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

    from engine_format import Plan
    from miniinfer_cli.runtime.engine import Engine

__version__ = VERSION
__all__ = ["__version__", "build", "load"]


def build(
    model: Any, output: str | Path | None = None, *, archs: Sequence[str] = (), sign_key: str | Path | None = None, **options: Any
) -> Plan:
    """Builds ``model`` (a path, bytes or an onnx.ModelProto) into a plan, and writes it when ``output`` is given.

    ``options`` are the fields of ``miniinfer_cli.builder.building.BuildOptions``: shapes, min_shapes, opt_shapes, max_shapes
    (input name to sizes), opt_level, disable_passes, mark_outputs, overridable, plugins, tf32, limits. ``archs``: compile the
    kernels for these GPU architectures (``["sm_90"]``) into the plan, signed with the key in the file ``sign_key``, or the
    user's own.
    Raises miniinfer_cli.errors.ModelError with everything that is wrong with the model, UsageError for what is wrong with the
    arguments.
    """
    from miniinfer_cli.builder.building import build_with  # late: brings onnx

    if not archs and sign_key is None:
        return build_with(model, output, options)
    from miniinfer_cli.builder.targets import targets_of  # late: brings the CUDA backend

    return build_with(model, output, options, targets_of(archs, sign_key))


def load(source: str | Path | Plan, device: str = "auto", **options: Any) -> Engine:
    """Opens the plan ``source`` (a path, or what ``build`` returned) on ``device``: ``auto``, ``cpu`` or ``cuda:N``.

    ``options`` are the fields of ``miniinfer_cli.backends.interface.DeviceOptions``: cuda_graph, overlap, scheduling, nvtx,
    time_limit (seconds of one inference), memory_limit (bytes that it allocates), trust_targets (``auto``, ``always`` or
    ``never``), trust_key (docs/security.md), ignore_targets, tactics (node to key) and disable_tactics (docs/tuning.md), cache
    (the folder for compiled kernels; by default the user's cache folder), kernel_cache_mib and tactic_cache_mib (what its files
    may take), threads (what a CPU computes one inference with; by default as the environment says, or as there are processors),
    and limits (docs/security.md). Raises
    miniinfer_cli.errors.PlanFileError, DeviceError, and UsageError for what is wrong with the arguments.
    """
    from miniinfer_cli.devices.opening import load_with  # late: brings numpy and the operations

    return load_with(source, device, options)

"""miniinfer builds an ONNX model into a plan and runs the plan on a GPU or a CPU.

    plan = miniinfer_cli.build("model.onnx", "model.plan")
    with miniinfer_cli.load("model.plan") as engine:
        outputs = engine.run({"x": array})

``Batcher(engine)`` computes the requests of many callers in batches. Nothing heavy is imported until one of these is asked for.
"""

from __future__ import annotations

from miniinfer_cli.version import VERSION

TYPE_CHECKING = False  # as type checkers know it; the module typing would be half of what this one loads
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from engine_format import Plan
    from miniinfer_cli.runtime.engine import Engine
    from miniinfer_cli.serving.batcher import Batcher

__version__ = VERSION
__all__ = ["Batcher", "__version__", "build", "load", "tune"]


def __getattr__(name: str) -> Any:
    """``Batcher``, which is imported when it is first asked for."""
    if name != "Batcher":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from miniinfer_cli.serving.batcher import Batcher  # late: brings numpy and the operations

    globals()[name] = Batcher
    return Batcher


def build(
    model: Any,
    output: str | Path | None = None,
    *,
    archs: Sequence[str] = (),
    sign_key: str | Path | None = None,
    tuning: Mapping[str, Any] | None = None,
    **options: Any,
) -> Plan:
    """Builds ``model`` (a path, bytes or an onnx.ModelProto) into a plan, and writes it when ``output`` is given.

    ``options`` are the fields of ``miniinfer_cli.builder.options.BuildOptions``: shapes, min_shapes, opt_shapes, max_shapes
    (input name to sizes), opt_level, disable_passes, mark_outputs, start_at, overridable, plugins, tf32, precision (``f16`` or
    ``bf16``), keep_fp32, io_types, int8, fp8, calibrate, calibration_method, calibration_cache, keep_float, smooth_quant,
    weight_only, group_size (docs/precision.md), own_sizes (inputs may differ in sizes of one name), state, kv_cache
    (docs/state.md), limits. ``archs``: compile kernels for these GPU architectures (``["sm_90"]``) into the plan, signed with the
    key in the file ``sign_key``, or the user's own. ``tuning``: what to give ``tune``, which then tunes the plan; ``{}`` tunes as
    by itself. Raises miniinfer_cli.errors.ModelError with everything that is wrong with the model, UsageError for what is wrong
    with the arguments.
    """
    from miniinfer_cli.builder.building import build_with  # late: brings onnx

    compile_into = None
    if archs or sign_key is not None:
        from miniinfer_cli.builder.targets import targets_of  # late: brings the CUDA backend

        compile_into = targets_of(archs, sign_key)
    plan = build_with(model, output, options, compile_into)
    if tuning is None:
        return plan
    signing = {} if sign_key is None else {"sign_key": sign_key}
    return tune(plan if output is None else output, **{**signing, **tuning})


def tune(source: str | Path | Plan, output: str | Path | None = None, device: str = "auto", **options: Any) -> Plan:
    """Times on a GPU (``device``) which tactics are fastest for the plan ``source``, and gives the plan that holds them.

    A plan given by its path is written to ``output``, or over itself; what ``build`` returned in memory is written to ``output``
    alone. ``options``: level (``fast`` or ``full``), at (dimension to sizes that are tuned for beside the optimal ones), aim
    (``latency`` or ``throughput``), timing_cache (a file of what was found before, which is added to), sign_key; and those of
    ``load``. Raises miniinfer_cli.errors.DeviceError where there is no GPU, and UsageError for what is wrong with the arguments.
    """
    from miniinfer_cli.builder.tuning import tune_with  # late: brings the CUDA backend

    return tune_with(source, output, device, options)


def load(source: str | Path | Plan, device: str = "auto", **options: Any) -> Engine:
    """Opens the plan ``source`` (a path, or what ``build`` returned) on ``device``: ``auto``, ``cpu`` or ``cuda:N``.

    ``options`` are the fields of ``miniinfer_cli.backends.interface.DeviceOptions``: cuda_graph, overlap, pdl, scheduling, nvtx,
    time_limit (seconds of one inference), memory_limit (bytes that it allocates), trust_targets (``auto``, ``always`` or
    ``never``), trust_key (docs/security.md), ignore_targets, tactics (node to key), disable_tactics and timing_cache
    (docs/tuning.md), cache (the folder for compiled kernels; by default the user's cache folder), kernel_cache_mib and
    tactic_cache_mib (what its files may take), threads (what a CPU computes one inference with; by default as the environment
    says, or as there are processors), and limits (docs/security.md). Raises
    miniinfer_cli.errors.PlanFileError, DeviceError, and UsageError for what is wrong with the arguments.
    """
    from miniinfer_cli.devices.head_start import head_start  # late: what follows takes as long as what it begins

    with head_start(source, device, options.get("scheduling", "auto")):
        from miniinfer_cli.devices.opening import load_with  # late: brings numpy and the operations

        return load_with(source, device, options)

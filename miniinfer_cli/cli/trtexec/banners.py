"""What was asked for, and on what it runs, as trtexec tells it before it begins."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from miniinfer_cli import __version__
from miniinfer_cli.cli.trtexec.log import Log, number
from miniinfer_cli.cli.trtexec.options import Options
from miniinfer_cli.cli.trtexec.values import Shapes

_ENABLED = {True: "Enabled", False: "Disabled"}
_SPELT = {"f32": "fp32", "f16": "fp16", "bf16": "bf16"}
_PRECISIONS = {None: "FP32", "f16": "FP32+FP16", "bf16": "FP32+BF16"}


def _permitted(options: Options) -> str:
    """The types that may be taken."""
    if options.best:
        return "FP32+FP16+BF16" + ("+INT8+FP8" if options.scales else "")
    return _PRECISIONS[options.precision] + (f"+{options.format.upper()}" if options.scales else "")


def print_options(log: Log, options: Options) -> None:
    """The banners of what was asked for."""
    log.info(
        f"miniinfer {__version__}, not TensorRT: the flags of trtexec {options.dialect.release}, with its defaults"
        f" ({options.dialect.why})"
    )
    exports = options.exports
    sections: Mapping[str, Mapping[str, Any]] = {
        "Model": {"Format": "*" if options.onnx is None else "ONNX", "Model": _text(options.onnx), "Output": ""},
        "Build": {
            "Precision": _permitted(options),
            "Calibration": _text(options.scales),
            "LayerPrecisions": ",".join(f"{name}:fp32" for name in options.kept),
            "TF32": _ENABLED[options.tf32],
            "Optimization level": options.level,
            "Save engine": _text(options.save),
            "Load engine": _text(options.load),
            "Profiling verbosity": options.verbosity,
            "timingCacheFile": _text(options.timing_cache),
            "Skip inference": _ENABLED[options.skip],
            "Input(s)s format": _formats(options.inputs_as),
            "Output(s)s format": _formats(options.outputs_as),
            "Input build shapes": _bounds(options),
        },
        "System": {"Device": options.device.removeprefix("cuda:"), "Plugins": " ".join(options.plugins)},
        "Inference": {
            "Batch": "Explicit" if options.batch is None else options.batch,
            "Input inference shapes": _shapes(options.shapes or options.opt_shapes),
            "Iterations": options.iterations,
            "Duration": f"{number(options.duration_s)}s (+ {number(options.warmup_ms)}ms warm up)",
            "Inference Streams": options.streams,
            "ExposeDMA": _ENABLED[not options.overlap],
            "Data transfers": _ENABLED[options.transfers],
            "Spin-wait": _ENABLED[options.spin],
            "CUDA Graph": _ENABLED[options.graph],
            "Separate profiling": _ENABLED[options.separate],
            "Inputs": ", ".join(f"{name}<-{path}" for name, path in options.files),
        },
        "Reporting": {
            "Verbose": _ENABLED[options.verbose],
            "Averages": f"{options.averages} inferences",
            "Percentiles": ",".join(map(number, options.percentiles)),
            "Dump output": _ENABLED[options.dump_output],
            "Profile": _ENABLED[options.profiles],
            "Export timing to JSON file": _text(exports.times),
            "Export output to JSON file": _text(exports.output),
            "Export profile to JSON file": _text(exports.profile),
            "Export summary to JSON file": _text(exports.summary),
        },
    }
    for title, rows in sections.items():
        log.info(f"=== {title} Options ===")
        for key, value in rows.items():
            log.info(f"{key}: {value}".rstrip())


def print_device(log: Log, rows: Mapping[str, str]) -> None:
    """The banner of the device; ``rows`` as ``devices.facts.rows_of`` has them."""
    log.banner("Device Information")
    for key, value in rows.items():
        log.info(f"{key}: {value}")
    log.info()


def _text(path: Path | None) -> str:
    return "" if path is None else str(path)


def _formats(types: tuple[str | None, ...]) -> str:
    return ",".join("as it is" if kind is None else f"{_SPELT[kind]}:chw" for kind in types) or "fp32:CHW"


def _shapes(shapes: Shapes) -> str:
    return ",".join(f"{name}={_by_x(shape)}" for name, shape in shapes.items()) or "model"


def _bounds(options: Options) -> str:
    names = dict.fromkeys([*options.min_shapes, *options.opt_shapes, *options.max_shapes])
    parts = [
        f"{name}={'+'.join(_by_x(s[name]) for s in (options.min_shapes, options.opt_shapes, options.max_shapes) if name in s)}"
        for name in names
    ]
    return ",".join(parts) or _shapes(options.shapes)


def _by_x(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"

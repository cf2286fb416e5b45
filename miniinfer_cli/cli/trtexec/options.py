"""What a command line of trtexec asks for, as one record."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from miniinfer_cli.cli.trtexec import values
from miniinfer_cli.cli.trtexec.arguments import Arguments
from miniinfer_cli.errors import UsageError
from miniinfer_cli.measuring.metrics import DEFAULT_PERCENTILES

VARIABLE = "MINIINFER_TRTEXEC"
_LEVELS = {0: 0, 1: 1, 2: 2, 3: 2, 4: 3, 5: 3}
_MOST_STREAMS = 256
_ONLY_IN_11 = ("includeDataTransfers", "noCudaGraph", "noSpinWait")


@dataclass(frozen=True, slots=True)
class Dialect:
    """The version whose defaults hold: ``release`` as its users write it, ``number`` as the first line has it."""

    release: str
    number: str
    why: str
    bare: bool
    """Transfers are left out, graphs and spinning are on, until a flag says otherwise."""


_NO_SCALES = (
    "give --calib=FILE: miniinfer build {flag} --calibrate FOLDER --calibration-cache FILE makes one;"
    " a model that holds QuantizeLinear and DequantizeLinear is built without {flag}"
)


@dataclass(frozen=True, slots=True)
class Exports:
    """The files to write; None where one is not wanted."""

    times: Path | None
    profile: Path | None
    layers: Path | None
    output: Path | None
    summary: Path | None


@dataclass(frozen=True, slots=True)
class Options:
    """Everything that is asked for. ``save`` is the plan to write, ``load`` the one to open in the place of building ``onnx``.

    ``precision``: f16 or bf16 where one is permitted; ``best``: all are, and what is fastest is to be taken; ``scales``: the
    file of those by which 8-bit numbers of this ``format`` are multiplied, None for none. ``inputs_as`` and ``outputs_as``:
    element types by their order, None for what keeps its own. Shapes hold names in any spelling that trtexec has, ``*`` too
    (``values.spread``).
    """

    dialect: Dialect
    onnx: Path | None
    load: Path | None
    save: Path | None
    min_shapes: values.Shapes
    opt_shapes: values.Shapes
    max_shapes: values.Shapes
    shapes: values.Shapes
    precision: str | None
    best: bool
    format: str
    scales: Path | None
    kept: tuple[str, ...]
    inputs_as: tuple[str | None, ...]
    outputs_as: tuple[str | None, ...]
    tf32: bool
    level: int
    verbosity: str
    plugins: tuple[str, ...]
    timing_cache: Path | None
    skip: bool
    version_only: bool
    time_opening: bool
    device: str
    batch: int | None
    files: tuple[tuple[str, Path], ...]
    iterations: int
    warmup_ms: float
    duration_s: float
    streams: int
    overlap: bool
    transfers: bool
    graph: bool
    spin: bool
    separate: bool
    verbose: bool
    averages: int
    percentiles: tuple[float, ...]
    dump_profile: bool
    dump_layers: bool
    dump_output: bool
    exports: Exports

    @property
    def profiles(self) -> bool:
        """Whether layers are timed."""
        return self.dump_profile or self.exports.profile is not None

    @property
    def tells_layers(self) -> bool:
        """Whether the layers are printed, or written."""
        return self.dump_layers or self.exports.layers is not None

    @property
    def reports_whole(self) -> bool:
        """Whether the times of whole inferences are printed."""
        return self.separate or not self.profiles


def dialect_of(arguments: Arguments, environment: Mapping[str, str] | None = None) -> Dialect:
    """Version 11 where a flag is given that only it has, or the environment says so; else version 10."""
    given = (os.environ if environment is None else environment).get(VARIABLE, "")
    found = [name for name in _ONLY_IN_11 if name in arguments]
    if found:
        return Dialect("11.1", "110100", f"--{found[0]} is of that version", True)
    if given.partition(".")[0] == "11":
        return Dialect("11.1", "110100", f"{VARIABLE} says so", True)
    return Dialect("10.16", "101600", f"{VARIABLE}=11 takes version 11", False)


def options_of(arguments: Arguments, dialect: Dialect) -> Options:
    """What the command line asks for. Raises UsageError for flags that are refused, or contradict each other, and for values."""
    arguments.expect_done()
    given = arguments.text
    onnx, load, save = (_path(given(name)) for name in ("onnx", "loadEngine", "saveEngine"))
    if load is not None and save is not None:
        raise UsageError("--loadEngine and --saveEngine exclude each other", hint="a plan that is loaded is there already")
    if load is None and onnx is None:
        raise UsageError("there is no model", hint="give --onnx=MODEL to build one, or --loadEngine=PLAN")
    if arguments.on("getPlanVersionOnly") and load is None:
        raise UsageError("--getPlanVersionOnly: there is no plan", hint="give --loadEngine=PLAN")
    kept = values.kept_layers("layerPrecisions", arguments.entries("layerPrecisions"))
    constraints = ("prefer", "obey", "none")
    if values.word("precisionConstraints", given("precisionConstraints") or "prefer", constraints) == "none":
        kept = ()
    if arguments.on("stronglyTyped") and arguments.on("fp16", "bf16"):
        raise UsageError("--stronglyTyped and --fp16 or --bf16 exclude each other", hint="leave one of them out")
    format = "fp8" if arguments.on("fp8") else "int8"
    best = arguments.on("best")
    scales = _path(given("calib")) if arguments.on("int8", "fp8", "best") else None
    if not best and arguments.on("int8", "fp8") and scales is None and load is None:
        raise UsageError(f"--{format}: there are no scales, and none are made up", hint=_NO_SCALES.format(flag=f"--{format}"))
    shapes = {name: values.shapes(name, arguments.entries(name)) for name in ("minShapes", "optShapes", "maxShapes", "shapes")}
    streams = values.count("infStreams", given("infStreams", "streams") or "1", 1)
    if streams > _MOST_STREAMS:
        raise UsageError(f"--infStreams: {streams} is more than {_MOST_STREAMS}", hint="give fewer streams")
    batch = given("batch")
    return Options(
        dialect=dialect,
        onnx=onnx,
        load=load,
        save=save,
        min_shapes=shapes["minShapes"],
        opt_shapes=shapes["optShapes"],
        max_shapes=shapes["maxShapes"],
        shapes=shapes["shapes"],
        precision=None if best else "f16" if arguments.on("fp16") else "bf16" if arguments.on("bf16") else None,
        best=best,
        format=format,
        scales=scales,
        kept=kept,
        inputs_as=values.io_types("inputIOFormats", given("inputIOFormats") or ""),
        outputs_as=values.io_types("outputIOFormats", given("outputIOFormats") or ""),
        tf32=not arguments.on("noTF32"),
        level=_level(given("builderOptimizationLevel")),
        verbosity=values.word(
            "profilingVerbosity", given("profilingVerbosity") or "detailed", ("detailed", "layer_names_only", "none", "default")
        ),
        plugins=_plugins(arguments),
        timing_cache=_path(given("timingCacheFile")),
        skip=arguments.on("skipInference", "buildOnly"),
        version_only=arguments.on("getPlanVersionOnly"),
        time_opening=arguments.on("timeDeserialize"),
        device=_device(given("device")),
        batch=None if batch is None else values.count("batch", batch, 1),
        files=values.files("loadInputs", arguments.entries("loadInputs")),
        iterations=values.count("iterations", given("iterations") or "10", 1),
        warmup_ms=values.amount("warmUp", given("warmUp") or "200"),
        duration_s=values.amount("duration", given("duration") or "3"),
        streams=streams,
        overlap=not arguments.on("exposeDMA"),
        transfers=arguments.on("includeDataTransfers") or not (dialect.bare or arguments.on("noDataTransfers")),
        graph=not arguments.on("noCudaGraph") and (dialect.bare or arguments.on("useCudaGraph")),
        spin=not arguments.on("noSpinWait") and (dialect.bare or arguments.on("useSpinWait")),
        separate=arguments.on("separateProfileRun"),
        verbose=arguments.on("verbose"),
        averages=values.count("avgRuns", given("avgRuns") or "10", 1),
        percentiles=values.percentiles("percentile", given("percentile") or ",".join(f"{p:g}" for p in DEFAULT_PERCENTILES)),
        dump_profile=arguments.on("dumpProfile"),
        dump_layers=arguments.on("dumpLayerInfo"),
        dump_output=arguments.on("dumpOutput"),
        exports=Exports(
            *(_export(arguments, f"export{what}") for what in ("Times", "Profile", "LayerInfo", "Output", "Summary"))
        ),
    )


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _export(arguments: Arguments, name: str) -> Path | None:
    if arguments.text(name) == "-":
        raise UsageError(f"--{name}: standard output has the log", hint="give a file")
    return _path(arguments.text(name))


def _level(text: str | None) -> int:
    level = 3 if text is None else values.count("builderOptimizationLevel", text, 0)
    if level not in _LEVELS:
        raise UsageError(f"--builderOptimizationLevel: {level} is above 5", hint="write a level from 0 to 5")
    return _LEVELS[level]


def _plugins(arguments: Arguments) -> tuple[str, ...]:
    given = [v for name in ("plugins", "staticPlugins", "dynamicPlugins") for v in arguments.values.get(name, ()) if v]
    modules = [part for value in given for part in value.split(",")]
    for module in modules:
        if module.endswith((".so", ".dll")) or "/" in module:
            raise UsageError(
                f"--plugins: {module!r} cannot be loaded",
                hint="a plugin is a Python module that defines the operation, given by its name (docs/plugins.md)",
            )
    return tuple(modules)


def _device(text: str | None) -> str:
    if text is None:
        return "auto"
    return text if text == "cpu" else f"cuda:{values.count('device', text.removeprefix('cuda:'), 0)}"

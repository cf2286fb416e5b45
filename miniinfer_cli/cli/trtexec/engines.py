"""The plan of a run: built as the flags say, or loaded; and the inputs that it is to be measured with."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine_format import Plan
from engine_format.timing_cache import MAGIC as TIMING_MAGIC
from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.builder.building import Built, build_plan, finished, import_for
from miniinfer_cli.builder.options import BuildOptions
from miniinfer_cli.cli.batch_flag import batch_dimension
from miniinfer_cli.cli.best import ESTIMATED, best_rows
from miniinfer_cli.cli.feeds import read_inputs
from miniinfer_cli.cli.measuring import Bench
from miniinfer_cli.cli.outputs import is_regular
from miniinfer_cli.cli.sources import model_source
from miniinfer_cli.cli.trtexec import values
from miniinfer_cli.cli.trtexec.log import Log, number
from miniinfer_cli.cli.trtexec.options import Options
from miniinfer_cli.cli.wanted import Wanted
from miniinfer_cli.devices.opening import load
from miniinfer_cli.errors import ModelError, PlanFileError, UsageError, refused
from miniinfer_cli.ir import TensorType, Value
from miniinfer_cli.ir.dims import names_in
from miniinfer_cli.measuring.benchmark import Schedule
from miniinfer_cli.plugins import load_plugins
from miniinfer_cli.runtime.bindings import Binding
from miniinfer_cli.runtime.cache_folder import cache_options
from miniinfer_cli.runtime.engine import Engine
from miniinfer_cli.runtime.plan_files import open_plan
from miniinfer_cli.runtime.trust import key_in_environment
from miniinfer_cli.verification.best import find_best

_TENSORRT = (b"ftrt", b"ptrt")
"""How an engine of TensorRT begins."""


@dataclass(frozen=True, slots=True)
class Source:
    """What is measured: a plan in memory, or the file of one; ``nbytes`` of the file, or of the weights alone.

    ``built_s``: seconds that building it took; None where it is loaded.
    """

    plan: Plan | Path
    nbytes: int
    built_s: float | None = None


def build(log: Log, options: Options, model: Path) -> Source:
    """Builds the model as the flags say, and tells how. Raises what ``build_plan`` raises."""
    log.info("Start parsing network model.")
    read = model_source(model)
    asked = _build_options(options, read)
    started = time.perf_counter()
    try:
        if options.best:
            built = finished(_best(log, options, read, asked), options.save, log.detail)
        else:
            built = build_plan(read, options.save, asked, log.detail)
    except ModelError as error:
        if asked.precision is None:
            raise
        built = build_plan(read, options.save, replace(asked, precision=None, keep_fp32=()), log.detail)
        log.warning(f"{asked.precision} was permitted, and cannot be used: {error.in_flags().splitlines()[0]}")
    seconds = time.perf_counter() - started
    log.info(f"Finished parsing network model. Parse time: {number(built.seconds['import'])}")
    for note in built.notes:
        log.info(f"Note: {note}")
    for one in built.report.passes:
        log.detail(f"Pass {one.name}: {one.fired} rewrites in {number(one.seconds * 1e3)} ms")
    log.detail(f"Nodes: {built.nodes[0]} -> {built.nodes[1]}")
    for node in built.kept:
        log.detail(f"Keeps f32: {node.node}: {node.reason}")
    nbytes = built.plan.weights_nbytes if options.save is None else _nbytes(options.save)
    log.info(f"Created engine with size: {number(nbytes / 2**20)} MiB")
    log.info(f"Engine built in {number(seconds)} sec.")
    return Source(built.plan if options.save is None else options.save, nbytes, seconds)


def _best(log: Log, options: Options, model: Path | bytes, asked: BuildOptions) -> Built:
    """The model in the element types that are fastest on the device, told form by form."""
    device_options = DeviceOptions(**cache_options())
    found = find_best(model, asked, device=options.device, device_options=device_options, progress=log.detail)
    log.info(f"--best: times are measured on {found.device}" if found.device else f"--best: {ESTIMATED}")
    for precision, ms, off, allowed, reason in best_rows(found):
        error = f", off by {off} (allowed {allowed})" if off else ""
        log.info(f"--best: {precision}: {f'{ms} ms' if ms else 'not built'}{error}{f': {reason}' if reason else ''}")
    log.info(f"--best: {found.precision} is taken")
    return found.built


def existing(path: Path) -> Source:
    """The plan in a file. Raises PlanFileError for one of TensorRT; opening it tells the rest."""
    nbytes = 0
    with suppress(OSError), path.open("rb") as file:
        if file.read(4) in _TENSORRT:
            raise PlanFileError(
                "is an engine of TensorRT, which holds code of NVIDIA's for one GPU and one release: it cannot be run here",
                hint="build a plan from the ONNX model: --onnx=MODEL --saveEngine=PLAN",
            ).at(str(path))
        nbytes = os.fstat(file.fileno()).st_size
    return Source(path, nbytes)


def tell_version(log: Log, path: Path) -> None:
    """Who built the plan. Raises PlanFileError where it is none."""
    existing(path)
    with open_plan(path) as plan:
        log.info(f"Plan was created by: {plan.report.producer}")


@contextmanager
def opened(log: Log, options: Options, source: Source) -> Iterator[tuple[Bench, float]]:
    """The plan on its device with its inputs, as a bench, and the seconds that opening it took. Raises what ``load`` raises."""
    load_plugins(options.plugins)
    gpu = _device_options(log, options)
    started = time.perf_counter()
    with load(source.plan, options.device, gpu) as engine:
        seconds = time.perf_counter() - started
        log.info(f"Loaded engine with size: {number(source.nbytes / 2**20)} MiB")
        log.info(f"Engine deserialized in {number(seconds)} sec.")
        for note in engine.notes:
            log.info(f"Note: {note}")
        yield _bench(log, options, source, engine, gpu), seconds


def _bench(log: Log, options: Options, source: Source, engine: Engine, gpu: DeviceOptions) -> Bench:
    ranks = {b.name: None if b.shape is None else len(b.shape) for b in engine.inputs}
    shapes = values.spread(options.shapes, ranks)
    for name, shape in values.spread(options.opt_shapes, ranks).items():
        if name in dict(options.files) and name not in shapes and _open_sizes(engine, name) > 1:
            shapes[name] = shape  # raw bytes tell one size
    given = read_inputs(engine.inputs, options.files, shapes, engine.constant_inputs)
    schedule = Schedule(options.iterations, options.warmup_ms, options.duration_s, options.transfers)
    about = source.plan if isinstance(source.plan, Path) else options.onnx or Path()
    wanted = Wanted(
        plan=about, inputs=options.files, shapes=shapes, seed=0, schedule=schedule, streams=options.streams,
        batch=_batch(log, options, engine), batch_dim=None, swept=None, percentiles=options.percentiles, device=options.device,
        gpu=gpu, gpu_flags=(), plugins=options.plugins,
    )  # fmt: skip
    bench = Bench.of(wanted, engine, given)
    for binding in engine.inputs:
        _tell_input(log, options, bench, binding)
    for output in engine.outputs:
        log.info(f"Output binding for {output.name} with dimensions {_dimensions(output.shape)} is created.")
    return bench


def _tell_input(log: Log, options: Options, bench: Bench, binding: Binding) -> None:
    name, array = binding.name, bench.feeds[binding.name]
    sizes = _dimensions(getattr(array, "shape", None))
    file = dict(options.files).get(name)
    told = name in bench.shapes or file is not None or bench.wanted.batch is not None
    dims = binding.type.shape if isinstance(binding.type, TensorType) and binding.type.shape is not None else ()
    if not told and {n for d in dims for n in names_in(d)} - set(bench.engine.ranges):
        log.warning(f"The sizes of input {name} are open, and no shapes were given for it: it is {sizes}")
    log.info(f"Using values loaded from {file} for input {name}" if file else f"Using random values for input {name}")
    log.info(f"Input binding for {name} with dimensions {sizes} is created.")


def _batch(log: Log, options: Options, engine: Engine) -> int | None:
    """What --batch sets; None, with a warning, where the batch is fixed."""
    if options.batch is None:
        return None
    dimension = batch_dimension(engine.inputs, None)
    if dimension.fixed not in (None, options.batch):
        log.warning(f"--batch={options.batch} changes nothing: the batch of the model is fixed at {dimension.fixed}")
        return None
    return options.batch


def _build_options(options: Options, model: Path | bytes) -> BuildOptions:
    names: dict[str, int | None] = {}
    spelt = (options.min_shapes, options.opt_shapes, options.max_shapes, options.shapes)
    io_types: dict[str, str] = {}
    if any(values.EVERY in s for s in spelt) or options.inputs_as or options.outputs_as:
        graph, _, _ = import_for(model, BuildOptions(plugins=options.plugins))
        names = {v.name: _rank(v) for v in graph.inputs}
        io_types = {
            **_typed("inputIOFormats", list(names), options.inputs_as),
            **_typed("outputIOFormats", list(graph.output_names), options.outputs_as),
        }
    least, best, most, run = (values.spread(s, names) for s in spelt)
    bounds = _completed(least, best, most)
    fixed = {name: low for name, (low, middle, high) in bounds.items() if low == middle == high}
    free = {name: three for name, three in bounds.items() if name not in fixed}
    quantizes = options.scales is not None and not options.best
    return BuildOptions(
        shapes=fixed if bounds else run,
        min_shapes={name: low for name, (low, _, _) in free.items()},
        opt_shapes={name: middle for name, (_, middle, _) in free.items()},
        max_shapes={name: high for name, (_, _, high) in free.items()},
        opt_level=options.level,
        plugins=options.plugins,
        tf32=options.tf32,
        precision=options.precision,
        keep_fp32=options.kept if options.precision is not None or options.best else (),
        int8=quantizes and options.format == "int8",
        fp8=quantizes and options.format == "fp8",
        calibration_cache=options.scales,
        keep_float=options.kept if options.scales is not None else (),
        io_types=io_types,
    )


def _completed(
    least: values.Shapes, best: values.Shapes, most: values.Shapes
) -> dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
    """Three shapes for each input that has any: a smallest that is missing is the optimum, and so on."""
    found = {}
    for name in dict.fromkeys([*least, *best, *most]):
        low, middle, high = (part.get(name) for part in (least, best, most))
        any_of = next(s for s in (middle, high, low) if s is not None)
        found[name] = (
            low if low is not None else any_of,
            middle if middle is not None else any_of,
            high if high is not None else any_of,
        )
    return found


def _typed(flag: str, names: list[str], types: tuple[str | None, ...]) -> dict[str, str]:
    """Element types by name: one for all, or one for each in order."""
    if not types:
        return {}
    if len(types) not in (1, len(names)):
        raise UsageError(f"--{flag}: {len(types)} formats for {len(names)} tensors", hint=f"they are {', '.join(names)}")
    each = types * len(names) if len(types) == 1 else types
    return {name: kind for name, kind in zip(names, each, strict=True) if kind is not None}


def _device_options(log: Log, options: Options) -> DeviceOptions:
    return DeviceOptions(
        cuda_graph=options.graph,
        overlap=options.overlap,
        scheduling="spin" if options.spin else "auto",
        trust_key=key_in_environment(),
        timing_cache=_timing_cache(log, options.timing_cache),
        nvtx="NVTX_INJECTION64_PATH" in os.environ,
        **cache_options(),
    )


def _timing_cache(log: Log, path: Path | None) -> Path | None:
    """The file, where it is a timing cache of ours; None, with a warning, where it is not there, or TensorRT's."""
    if path is None:
        return None
    why = "is not there"
    if is_regular(path):
        with suppress(OSError), path.open("rb") as file:
            if file.read(len(TIMING_MAGIC)) == TIMING_MAGIC:
                return path
        why = "is none of miniinfer's, and stays as it is"
    log.warning(f"--timingCacheFile={path} {why}: miniinfer tune PLAN --timing-cache FILE writes one")
    return None


def _nbytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise refused(error, f"cannot be read: {error.strerror}", path) from None


def _open_sizes(engine: Engine, name: str) -> int:
    shape = next((b.shape for b in engine.inputs if b.name == name), None)
    return sum(isinstance(d, str) for d in shape or ())


def _rank(value: Value) -> int | None:
    kind = value.type
    return len(kind.shape) if isinstance(kind, TensorType) and kind.shape is not None else None


def _dimensions(shape: Any) -> str:
    return "unknown" if shape is None else "x".join(str(d) if isinstance(d, int) else "-1" for d in shape) or "scalar"


def facts_of(source: Source, opened_s: float | None) -> Mapping[str, Any]:
    """The plan as the summary has it."""
    file = str(source.plan) if isinstance(source.plan, Path) else None
    return {"file": file, "bytes": source.nbytes, "build_s": source.built_s, "deserialize_s": opened_s}

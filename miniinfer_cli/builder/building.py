"""From an ONNX model to a plan: import, optimize, freeze, compile, write. The work behind ``miniinfer build`` and ``build()``."""

import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from engine_format import DimensionRange, Plan, PlanError, write_plan
from miniinfer_cli.builder.options import BuildOptions, checked
from miniinfer_cli.builder.precision import ask_for, expect_done, notes_on, recorded_precision, retype
from miniinfer_cli.builder.quantizing import Done, ask_for_integers, quantize, recorded_integers
from miniinfer_cli.builder.states import ask_for_states, keep_asked
from miniinfer_cli.errors import ModelError, PlanFileError, UsageError, unknown_option, unwritable
from miniinfer_cli.ir import Graph, KeptNode, TensorType
from miniinfer_cli.limits import Limits, chosen_limits
from miniinfer_cli.onnx_import import import_with_info
from miniinfer_cli.passes.constant_growth import expect_modest_growth
from miniinfer_cli.passes.driver import Report
from miniinfer_cli.passes.fold_constants import note_unfolded
from miniinfer_cli.passes.pipeline import optimize, optimize_around
from miniinfer_cli.planning.freeze import freeze
from miniinfer_cli.planning.ranges import assume_ranges, dimension_ranges, fix_shapes
from miniinfer_cli.plugins import load_plugins

CompileInto = Callable[[Plan, Graph], Plan]
"""Gives a plan sections of compiled kernels. The graph is the plan's."""
_TELL_S = 0.25  # seconds between two words on how far the writing is


@dataclass(frozen=True, slots=True)
class Built:
    """A plan, the optimized graph that is in it, and how it came about.

    ``seconds`` maps each stage to its time; ``nodes`` counts before and after.
    ``notes``: what is formally wrong with the model but was taken as meant, which is in the plan's metadata, too; and what of
    constants would take too long to fold.
    ``kept``: the nodes that keep f32 in a build in 16 bits, else the products that do where others are of 8 bits; ``quantized``:
    what became of the latter.
    """

    plan: Plan
    graph: Graph
    report: Report
    seconds: dict[str, float]
    nodes: tuple[int, int]
    notes: tuple[str, ...] = ()
    kept: tuple[KeptNode, ...] = ()
    quantized: Done | None = None


# What other tools call by these names, and where it is here.
_ELSEWHERE = {
    **dict.fromkeys(("fp16", "half"), "give precision='f16'"),
    "bf16": "give precision='bf16'",
    "dtype": "give precision='f16' or 'bf16'",
    "best": "ask miniinfer_cli.verification.best.find_best(model, options), and build with the options that it finds",
    "device": "a plan is built for no device: give it to load(plan, device)",
}


def build_with(
    model: Any, output: str | Path | None, options: Mapping[str, Any], compile_into: CompileInto | None = None
) -> Plan:
    """Like ``build_plan``, with the fields of BuildOptions by name. Raises UsageError for options that it does not have."""
    known = [*(f.name for f in fields(BuildOptions)), "archs", "sign_key"]
    for name in options:
        if name not in known:
            raise unknown_option("build", name, known, _ELSEWHERE.get(name, ""))
    return build_plan(model, output, BuildOptions(**options), compile_into=compile_into).plan


def build_plan(
    model: Any,
    output: str | Path | None,
    options: BuildOptions,
    progress: Callable[[str], None] = lambda stage: None,
    compile_into: CompileInto | None = None,
    imported: Callable[[Graph, Collection[str]], object] = lambda graph, constants: None,
) -> Built:
    """Builds ``model`` (a path, bytes or an onnx.ModelProto), and writes the plan when ``output`` is given.

    ``progress`` is told each stage as it begins, and how far the writing of a large plan is. ``compile_into`` gives the plan
    with compiled kernels, before it is written. ``imported`` is told the model's graph, sizes fixed as asked for, and its inputs
    that are constants, before anything takes time.
    Raises ModelError for the model's faults, UsageError for the options', OutOfMemoryError when the disk is full, and what
    ``compile_into`` raises; then no file is left behind.
    """
    options = checked(options)
    if output is not None and not isinstance(output, (str, os.PathLike)):
        raise UsageError(f"build: expected a path to write to, got {type(output).__name__}")
    if output is not None and isinstance(model, (str, os.PathLike)) and _same_file(model, output):
        raise UsageError("the plan would overwrite the model", hint="give it another name").at(str(output))
    clock = _Clock(progress)
    clock.start("import")
    graph, metadata, ranges = _imported(model, options)
    imported(graph, metadata.constant_inputs)
    before = len(graph)
    caches = ask_for_states(graph, options.state, options.kv_cache)
    numerics = ask_for(graph, options.precision, options.keep_fp32)
    asked = ask_for_integers(graph, options)
    retype(graph, options.io_types)
    clock.start("optimize")
    done: Done | None = None

    def calibrate(early: Graph) -> None:
        nonlocal done
        assert asked is not None
        clock.start("calibrate" if asked.weights is None else "quantize")
        done = quantize(early, asked, ranges, progress)
        clock.start("optimize")

    def between(early: Graph) -> None:
        if caches is not None:
            told.extend(keep_asked(early, caches, None if numerics is None else numerics.half))
        if asked is not None:
            calibrate(early)

    told: list[str] = []
    passes = (options.opt_level, tuple(options.disable_passes))
    plain = asked is None and caches is None
    report = optimize(graph, *passes) if plain else optimize_around(graph, between, *passes)
    _expect_modest_growth(graph, model)
    if numerics is not None:
        expect_done(graph, numerics)
    clock.start("freeze")
    recorded = _recorded(options) | recorded_integers(done, asked, options.keep_float)
    recorded |= recorded_precision(numerics, options.keep_fp32, options.io_types)
    if done is not None and numerics is not None:
        recorded |= {"precision": done.told, "half": str(numerics.half)}
    plan = freeze(graph, metadata=metadata, ranges=ranges, options=recorded, passes=_fired(report))
    clock.stop()
    notes = (*metadata.notes, *told, *note_unfolded(graph), *(() if numerics is None else notes_on(graph, numerics)))
    kept = tuple(numerics.kept) if numerics is not None else done.kept if done is not None else ()
    built = Built(plan, graph, report, clock.seconds, (before, len(graph)), notes, kept, done)
    return finished(built, output, progress, compile_into)


def finished(
    built: Built,
    output: str | Path | None,
    progress: Callable[[str], None] = lambda stage: None,
    compile_into: CompileInto | None = None,
) -> Built:
    """The same with compiled kernels, and written, as ``build_plan`` does it in the end; raises what that raises of these."""
    clock, plan = _Clock(progress), built.plan
    if compile_into is not None:
        clock.start("compile")
        plan = compile_into(plan, built.graph)
    if output is not None:
        clock.start("write")
        _write(plan, Path(output), progress)
    clock.stop()
    return replace(built, plan=plan, seconds={**built.seconds, **clock.seconds})


def import_for(model: Any, options: BuildOptions) -> tuple[Graph, Collection[str], tuple[DimensionRange, ...]]:
    """The graph of a model as ``build_plan`` optimizes it, its inputs that are constants, and the ranges of its dimensions."""
    graph, metadata, ranges = _imported(model, checked(options))
    return graph, metadata.constant_inputs, ranges


def _imported(model: Any, options: BuildOptions) -> tuple[Graph, Any, tuple[DimensionRange, ...]]:
    load_plugins(options.plugins)
    limits = chosen_limits(options.limits)
    graph, metadata = read_model(
        model, options.mark_outputs, options.overridable, limits, own_sizes=options.own_sizes, start_at=options.start_at
    )
    _expect_modest_growth(graph, model)  # before anything looks at a constant that is larger than its file says
    if options.shapes:
        fix_shapes(graph, options.shapes)
        _expect_fitting_defaults(graph)
    ranges = dimension_ranges(graph, options.min_shapes, options.opt_shapes, options.max_shapes)
    if ranges:
        assume_ranges(graph, ranges)
    return graph, metadata, ranges


def read_model(
    model: Any,
    mark_outputs: Sequence[str] = (),
    overridable: Sequence[str] = (),
    limits: Limits | None = None,
    *,
    own_sizes: bool = False,
    start_at: Sequence[str] = (),
) -> tuple[Graph, Any]:
    """The graph of a model as imported, not optimized, and the model's metadata."""
    marked, inputs = tuple(mark_outputs), tuple(overridable)
    return import_with_info(
        model, mark_outputs=marked, overridable=inputs, limits=limits, own_sizes=own_sizes, start_at=tuple(start_at)
    )


def _expect_modest_growth(graph: Graph, model: Any) -> None:
    try:
        expect_modest_growth(graph)
    except ModelError as error:
        raise error.at(Path(model).name if isinstance(model, (str, os.PathLike)) else "model") from None


def _expect_fitting_defaults(graph: Graph) -> None:
    """Raises UsageError where ``shapes`` fix an input at other sizes than its default has."""
    for value in graph.inputs:
        default = graph.defaults.get(value.name)
        shape = value.type.shape if isinstance(value.type, TensorType) else None
        if default is not None and any(d != n for d, n in zip(shape or (), default.shape, strict=False) if isinstance(d, int)):
            found = TensorType(default.dtype, default.shape)
            raise UsageError(f"shapes: the overridable input {value.name!r} is {value.type} then, its default is {found}")


def _same_file(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    try:
        return Path(one).samefile(other)
    except OSError:
        return False  # one of them is not there, or cannot be looked at: opening it says so


def _write(plan: Plan, path: Path, progress: Callable[[str], None]) -> None:
    told = time.monotonic()

    def tell(written: int, of: int) -> None:
        nonlocal told
        if time.monotonic() - told >= _TELL_S:
            progress(f"write {100 * written // of} %")
            told = time.monotonic()

    try:
        write_plan(plan, path, tell)
    except PlanError as error:
        raise PlanFileError(str(error)).at(str(path)) from error
    except OSError as error:
        raise unwritable(error, path, if_full="no part of the plan was left behind") from None


def _recorded(options: BuildOptions) -> dict[str, Any]:
    """The options that shape the plan, as the plan records them."""
    return {
        "opt_level": options.opt_level,
        "disable_passes": sorted(options.disable_passes),
        "tf32": options.tf32,
        "mark_outputs": list(options.mark_outputs),
        "start_at": list(options.start_at),
        "shapes": {k: list(v) for k, v in sorted(options.shapes.items())},
    }


def _fired(report: Report) -> dict[str, int]:
    return {p.name: p.fired for p in report.passes}


class _Clock:
    def __init__(self, progress: Callable[[str], None]) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress
        self._stage = ""
        self._since = 0.0

    def start(self, stage: str) -> None:
        self.stop()
        self._progress(stage)
        self._stage, self._since = stage, time.perf_counter()

    def stop(self) -> None:
        if self._stage:
            self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + time.perf_counter() - self._since
            self._stage = ""

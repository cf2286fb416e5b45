"""From an ONNX model to a plan: import, optimize, freeze, compile, write. The work behind ``miniinfer build`` and ``build()``."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine_format import Plan, PlanError, write_plan
from miniinfer_cli.errors import PlanFileError, UsageError, unwritable
from miniinfer_cli.ir import Graph
from miniinfer_cli.onnx_import import import_with_info
from miniinfer_cli.passes.driver import Report
from miniinfer_cli.passes.pipeline import optimize
from miniinfer_cli.planning.freeze import freeze
from miniinfer_cli.planning.ranges import Shapes, dimension_ranges, fix_shapes
from miniinfer_cli.plugins import load_plugins


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What ``miniinfer build`` may be told, apart from where to read and write.

    ``shapes`` fixes named dimensions; ``min_shapes``, ``opt_shapes`` and ``max_shapes`` bound them; each maps input names
    to sizes. ``opt_level`` is 0 to 3. ``disable_passes`` names passes to leave out, ``mark_outputs`` nodes (or values) of
    the model whose results become outputs too, ``plugins`` modules to import first.
    ``tf32``: a GPU may round the operands of f32 products to 11 bits, as its tensor cores take them.
    """

    shapes: Shapes = field(default_factory=dict)
    min_shapes: Shapes = field(default_factory=dict)
    opt_shapes: Shapes = field(default_factory=dict)
    max_shapes: Shapes = field(default_factory=dict)
    opt_level: int = 2
    disable_passes: Sequence[str] = ()
    mark_outputs: Sequence[str] = ()
    plugins: Sequence[str] = ()
    tf32: bool = True


@dataclass(frozen=True, slots=True)
class Built:
    """A plan and how it came about. ``seconds`` maps each stage to its time; ``nodes`` counts before and after.

    ``notes``: what is formally wrong with the model but was taken as meant; they are in the plan's metadata, too.
    """

    plan: Plan
    report: Report
    seconds: dict[str, float]
    nodes: tuple[int, int]
    notes: tuple[str, ...] = ()


def build_plan(
    model: Any,
    output: str | Path | None,
    options: BuildOptions,
    progress: Callable[[str], None] = lambda stage: None,
    compile_into: Callable[[Plan], Plan] | None = None,
) -> Built:
    """Builds ``model`` (a path, bytes or an onnx.ModelProto), and writes the plan when ``output`` is given.

    ``progress`` is told each stage as it begins; ``compile_into`` gives the plan with compiled kernels, before it is written.
    Raises ModelError for the model's faults, UsageError for the options', OutOfMemoryError when the disk is full, and what
    ``compile_into`` raises; then no file is left behind.
    """
    if not 0 <= options.opt_level <= 3:
        raise UsageError(f"optimization level {options.opt_level} is outside [0, 3]")
    load_plugins(options.plugins)
    clock = _Clock(progress)
    clock.start("import")
    graph, metadata = read_model(model, options.mark_outputs)
    if options.shapes:
        fix_shapes(graph, options.shapes)
    ranges = dimension_ranges(graph, options.min_shapes, options.opt_shapes, options.max_shapes)
    before = len(graph)
    clock.start("optimize")
    report = optimize(graph, options.opt_level, tuple(options.disable_passes))
    clock.start("freeze")
    plan = freeze(graph, metadata=metadata, ranges=ranges, options=_recorded(options), passes=_fired(report))
    if compile_into is not None:
        clock.start("compile")
        plan = compile_into(plan)
    if output is not None:
        clock.start("write")
        plan = _write(plan, Path(output))
    clock.stop()
    return Built(plan, report, clock.seconds, (before, len(graph)), metadata.notes)


def read_model(model: Any, mark_outputs: Sequence[str] = ()) -> tuple[Graph, Any]:
    """The graph of a model as imported, not optimized, and the model's metadata."""
    return import_with_info(model, mark_outputs=tuple(mark_outputs))


def _write(plan: Plan, path: Path) -> Plan:
    try:
        write_plan(plan, path)
    except PlanError as error:
        raise PlanFileError(str(error)).at(str(path)) from error
    except OSError as error:
        raise unwritable(error, path, if_full="no part of the plan was left behind") from None
    return plan


def _recorded(options: BuildOptions) -> dict[str, Any]:
    """The options that shape the plan, as the plan records them."""
    return {
        "opt_level": options.opt_level,
        "disable_passes": sorted(options.disable_passes),
        "tf32": options.tf32,
        "mark_outputs": list(options.mark_outputs),
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
            self.seconds[self._stage] = time.perf_counter() - self._since
            self._stage = ""

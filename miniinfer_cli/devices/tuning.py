"""Tunes a plan on a GPU: opens it as any engine, lets the backend try tactics at the sizes asked for, and stores the best."""

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from engine_format import Plan, StoredKernel, TacticRecord, TargetSection
from engine_format.records import DimensionRange
from engine_format.signing import sign
from miniinfer_cli.backends.cuda.choice.stored import add_to_timing_cache, gpu_of, read_timing_cache, records_for
from miniinfer_cli.backends.cuda.contract.steps import Kernel
from miniinfer_cli.backends.cuda.loading.target_sections import source_digest
from miniinfer_cli.backends.cuda.models.model import CudaModel
from miniinfer_cli.backends.cuda.tuning.candidates import FAST, FULL, Effort
from miniinfer_cli.backends.cuda.tuning.clock import Clock, DeviceClock
from miniinfer_cli.backends.cuda.tuning.tuner import Aim, Change, Point, Tuner
from miniinfer_cli.backends.interface import DEFAULT_OPTIONS, DeviceOptions, LoadModel
from miniinfer_cli.devices.models import load_gpu_model
from miniinfer_cli.errors import UsageError
from miniinfer_cli.ir import TensorType
from miniinfer_cli.ir.dims import names_in
from miniinfer_cli.runtime.engine import Engine
from miniinfer_cli.runtime.random_inputs import random_inputs
from miniinfer_cli.runtime.trust import read_key, user_key
from miniinfer_cli.wording import Wording

__all__ = ["Aim", "Change", "Level", "Point", "Tuned", "TuningOptions", "expect_tuning_options", "tune_plan", "tuning_points"]

Level = Literal["fast", "full"]
_EFFORTS: Mapping[str, Effort] = {"fast": FAST, "full": FULL}
_MOST_POINTS = 64
"""Sets of sizes that one call tunes for."""
Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class TuningOptions:
    """How to tune. ``level``: how much is tried. ``at``: sizes of dimensions by name, beside the optimum of every range.

    ``aim``: what is timed, one inference at a time or four. ``sign_key``: a file with the key that signs what is stored; None
    for the user's own. ``timing_cache``: a file of what was found before, which is taken as it is, and added to.
    """

    level: Level = "fast"
    at: Mapping[str, Sequence[int]] = field(default_factory=dict)
    aim: Aim = "latency"
    sign_key: Path | None = None
    timing_cache: Path | None = None


@dataclass(frozen=True, slots=True)
class Tuned:
    """A plan with what was found best on a GPU, and how that came about."""

    plan: Plan
    points: tuple[Point, ...]
    gpu: str
    seconds: float

    @property
    def interrupted(self) -> bool:
        """True when the search was ended before its time."""
        return any(p.interrupted for p in self.points)

    @property
    def changed(self) -> bool:
        """True when something was put into the plan."""
        return any(not p.dropped and any(r.chosen_by == "timed" for r in p.records) for p in self.points)


def expect_tuning_options(options: TuningOptions) -> None:
    """Raises UsageError for values of another kind."""
    for name, words in (("level", get_args(Level)), ("aim", get_args(Aim))):
        if getattr(options, name) not in words:
            raise UsageError(f"tune: {name}: expected one of {', '.join(words)}, got {getattr(options, name)!r}")
    if not isinstance(options.at, Mapping):
        raise UsageError(f"tune: at: expected a dict of dimensions and lists of sizes, got {options.at!r}")
    for name, sizes in options.at.items():
        if isinstance(sizes, str) or not isinstance(sizes, Sequence) or not all(type(s) is int and s >= 0 for s in sizes):
            raise UsageError(f"tune: at: expected a list of sizes for {name!r}, got {sizes!r}")


def tune_plan(
    plan: Plan,
    device: str = "auto",
    options: TuningOptions = TuningOptions(),
    device_options: DeviceOptions = DEFAULT_OPTIONS,
    progress: Progress = lambda what, part: None,
    *,
    load: LoadModel | None = None,
    effort: Effort | None = None,
    clock: Clock | None = None,
) -> Tuned:
    """The plan with a section for the GPU, in place of one that was there; with none where nothing was faster.

    What was tuned before for other sizes stays. An interruption keeps what was found. Raises DeviceError where there is no GPU,
    UsageError for sizes that the plan does not take.
    """
    expect_tuning_options(options)
    started = time.monotonic()
    key = None if options.sign_key is None else read_key(options.sign_key)
    cached = () if options.timing_cache is None else read_timing_cache(options.timing_cache)
    with Engine(plan, device, load=load or load_gpu_model, options=device_options) as engine:
        model = engine.model
        assert isinstance(model, CudaModel), "a GPU was loaded on"
        gpu = gpu_of(model.gpu)
        known = {r.signature: r for r in records_for(cached, model.gpu.arch, gpu)}
        tuner = Tuner(model, effort or _EFFORTS[options.level], clock or DeviceClock(), aim=options.aim, known=known)
        points: list[Point] = []
        places = tuning_points(engine, options.at)
        for number, sizes in enumerate(places):
            arrays = _inputs_at(engine, sizes)
            graph, types = engine.graph_for(arrays)
            prefix = f"{', '.join(f'{n} = {s}' for n, s in sizes.items())}: " if len(places) > 1 else ""

            def tell(what: str, part: float, number: int = number, prefix: str = prefix) -> None:
                progress(prefix + what, (number + part) / len(places))

            point = tuner.tune(graph, types, engine.whole_inputs(arrays), tell)
            point.sizes = sizes
            points.append(point)
            tuner.know(point)
            if point.interrupted:
                break
        tuned = Tuned(plan, tuple(points), gpu.name, time.monotonic() - started)
        section = _section(model, points)
        if options.timing_cache is not None and points:
            records = {r.signature: r for p in points for r in p.records}
            add_to_timing_cache(options.timing_cache, model.gpu.arch, gpu, list(records.values()))
    if not tuned.changed:
        return replace(tuned, seconds=time.monotonic() - started)
    section = _with_older(section, plan)
    key = user_key(make=True) if key is None else key
    signed = section if key is None else sign(section, key)
    return replace(tuned, plan=plan.with_target(signed), seconds=time.monotonic() - started)


def tuning_points(engine: Engine, at: Mapping[str, Sequence[int]]) -> list[dict[str, int]]:
    """Sizes by dimension: the optimum of every range, then each combination of those asked for, others at their optimum.

    Raises UsageError for names that the inputs do not have, and sizes outside their ranges.
    """
    shapes = [b.type.shape or () for b in engine.inputs if isinstance(b.type, TensorType)]
    names = list(dict.fromkeys(n for shape in shapes for d in shape for n in sorted(names_in(d))))
    optimum = {n: engine.ranges[n].optimum if n in engine.ranges else 1 for n in names}
    for name, sizes in at.items():
        if name not in optimum:
            known = f"the plan's are {', '.join(names)}" if names else "the plan has none: all its sizes are fixed"
            raise _wrong_size(f"there is no dimension {name!r}", known)
        allowed = engine.ranges.get(name)
        for size in sizes:
            if allowed is not None and not allowed.minimum <= size <= allowed.maximum:
                told = f"{name} = {size} is outside [{allowed.minimum}, {allowed.largest}], the sizes that the plan takes"
                raise _wrong_size(told, "build the plan for a wider range")
    asked = [dict(zip(at, sizes, strict=True)) for sizes in itertools.product(*at.values())]
    points = list({tuple((optimum | a).items()): optimum | a for a in ({}, *asked)}.values())
    if len(points) > _MOST_POINTS:
        raise _wrong_size(f"{len(points)} sets of sizes, and at most {_MOST_POINTS} are tuned for", "give fewer sizes")
    return points


def _wrong_size(told: str, hint: str) -> UsageError:
    return UsageError(Wording(f"at: {told}", flags=f"--tune-at: {told}"), hint=hint)


def _inputs_at(engine: Engine, sizes: Mapping[str, int]) -> list[Any]:
    ranges = {name: DimensionRange(name, 0, size, size) for name, size in sizes.items()}
    given: dict[str, Any] = {b.name: b.default for b in engine.inputs if b.default is not None}
    for b in engine.inputs:  # a number of rounds: of a loop without any nothing would be met
        if isinstance(b.type, TensorType) and b.type.shape == () and b.type.dtype.is_integer:
            given.setdefault(b.name, np.ones((), b.dtype))
    return engine.check(random_inputs(engine.inputs, ranges, {}, given, 0))


def _section(model: CudaModel, points: Sequence[Point]) -> TargetSection:
    """What the points keep, with the kernels that it launches and those of the whole programs."""
    kernels: dict[Kernel, int] = {}
    for kernel in (k for p in points for k in (*p.kernels, *(k for ks in p.launched.values() for k in ks))):
        kernels.setdefault(kernel, len(kernels))
    records: dict[str, TacticRecord] = {}
    for point in points:
        for record in point.records:
            launched = tuple(kernels[k] for k in point.launched.get(record.signature, ()))
            records.setdefault(record.signature, replace(record, kernels=launched))
    code = model.functions.code(list(kernels))
    stored = tuple(StoredKernel(k.name, source_digest(k), c) for k, c in zip(kernels, code, strict=True))
    makers = sorted({m.partition(" ") for r in records.values() for m in r.maker.split("; ") if " " in m})
    ordered = tuple(records[s] for s in sorted(records))
    libraries = {name: version for name, _, version in makers}
    return TargetSection(f"sm_{model.gpu.arch}", libraries, kernels=stored, gpu=gpu_of(model.gpu), records=ordered)


def _with_older(section: TargetSection, plan: Plan) -> TargetSection:
    """The section with what the one that it replaces holds for other signatures, as far as the same libraries made that."""
    for older in plan.targets:
        if not section.replaces(older) or any(older.libraries.get(n, v) != v for n, v in section.libraries.items()):
            continue
        known = {r.signature for r in section.records}
        kernels = {k.source: k for k in section.kernels}
        numbers = {source: n for n, source in enumerate(kernels)}
        kept = []
        for record in (r for r in older.records if r.signature not in known):
            sources = [older.kernels[n] for n in record.kernels]
            for kernel in sources:
                if kernels.setdefault(kernel.source, kernel) is kernel:
                    numbers.setdefault(kernel.source, len(numbers))
            kept.append(replace(record, kernels=tuple(numbers[k.source] for k in sources)))
        records = sorted((*section.records, *kept), key=lambda r: r.signature)
        libraries = {**older.libraries, **section.libraries}
        return replace(section, libraries=libraries, kernels=tuple(kernels.values()), records=tuple(records))
    return section

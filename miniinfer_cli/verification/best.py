"""find_best: in which element types a model is fastest and right enough, by building it in each, running it, and timing it."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from miniinfer_cli.backends.interface import DEFAULT_OPTIONS, DeviceOptions
from miniinfer_cli.builder.building import Built, build_plan
from miniinfer_cli.builder.calibration.cache import read_cache
from miniinfer_cli.builder.calibration.calibrate import NO_DATA
from miniinfer_cli.builder.calibration.data import reread, sampled_feeds
from miniinfer_cli.builder.options import BuildOptions
from miniinfer_cli.builder.precision import AUTO, HALVES
from miniinfer_cli.devices.estimating import estimated_ms
from miniinfer_cli.devices.opening import load
from miniinfer_cli.errors import ModelError, UsageError
from miniinfer_cli.ir import DType, dtype_of
from miniinfer_cli.ir.quantization import FORMATS, FP8, INT8
from miniinfer_cli.runtime.engine import Engine
from miniinfer_cli.verification.comparison import OF_BUILDS, OutputError, compare, tolerance_of, worst_of
from miniinfer_cli.verification.keeping import ReadFeeds, run_somewhere
from miniinfer_cli.verification.trials import Shapes
from miniinfer_cli.verification.verify import as_types
from miniinfer_cli.wording import Wording, joined

_RUNS = 4  # pieces of the samples that each form is run on
_WARMUPS = 3
_ROUNDS = 25
_TIME_S = 10.0  # of all timed rounds together
_OWN = "f32"
"""The form without any flag: what is of f32 stays so, and what is not, too."""
WITH = " with "
"""Between the two types of a form of 8 bits in which all else is of 16."""


@dataclass(frozen=True, slots=True)
class Form:
    """A model built in these element types. ``time_ms``: of an inference; ``error``: of the worst output against f32.

    ``reason``: why it cannot be taken, in words; empty where it may be.
    """

    precision: str
    time_ms: float | None
    error: OutputError | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class BestFound:
    """The form that is fastest of those that may be taken, the ``options`` that build it, and all that were looked at.

    ``built``: it, with nothing compiled or written (``building.finished``). ``device``: where times were measured; None where
    they are estimates for one H200. ``guessed``: inputs that were drawn.
    """

    precision: str
    options: BuildOptions
    built: Built
    forms: tuple[Form, ...]
    device: str | None
    guessed: tuple[str, ...]


def find_best(
    model: Any,
    options: BuildOptions,
    read_feeds: ReadFeeds = lambda graph, constants: {},
    *,
    device: str = "auto",
    tolerance: float | None = None,
    shapes: Sequence[Shapes] = (),
    seed: int = 0,
    device_options: DeviceOptions = DEFAULT_OPTIONS,
    progress: Callable[[str], None] = lambda text: None,
) -> BestFound:
    """Builds ``model`` in f32, f16 and bf16, with samples or a cache of scales in int8 and fp8 with each of these, and takes the
    fastest.

    Only forms are taken whose outputs are off from f32's by ``tolerance`` at most (None: by what ``verify_plan`` allows of each).
    They are run on samples where ``options.calibrate`` has any, else on what ``read_feeds`` gives and random numbers, and timed
    in turns on ``device``. On ``auto`` with no GPU times are estimates for one H200: the least that the steps there take.
    ``options`` name no precision; its ``keep_fp32`` is for forms with 16 bits, its ``keep_float`` for those with 8. A form that
    cannot be built is told with its reason, and not taken. Raises UsageError for options that do not go together, and what
    building in f32 raises.
    """
    _expect_free(options)
    options = replace(options, calibrate=reread(options.calibrate))
    exact = build_plan(model, None, _as(options, _OWN), imported=(given := _Given(read_feeds)).read)
    built: dict[str, Built] = {_OWN: exact}
    reasons: dict[str, str] = {}
    for name in _candidates(options):
        progress(f"best: build in {name}")
        try:
            _expect_fitting_cache(options, name)
            built[name] = build_plan(model, None, _as(options, name))
        except ModelError as error:
            reasons[name] = error.in_flags().partition("\n")[0]
    with ExitStack() as stack:
        engines = {name: stack.enter_context(load(b.plan, device, device_options)) for name, b in built.items()}
        first = engines[_OWN]
        feeds, guessed = _feeds(first, options, given.feeds, shapes, seed, exact)
        results = {}
        for name, engine in engines.items():
            progress(f"best: compare {name}")
            results[name] = [engine.run(as_types(f, {b.name: b.type for b in engine.inputs})) for f in feeds]
        errors = {name: _worst(name, results[name], results[_OWN], tolerance) for name in engines if name != _OWN}
        measured = first.device != "cpu" or device == "cpu"
        where = first.device if measured else None
        times = _measured(engines, feeds[0], progress) if measured else _estimated(built, options.tf32)
    forms = [Form(_OWN, times[_OWN], None)]
    for name in _candidates(options):
        off, reason = errors.get(name), reasons.get(name, "")
        if off is not None and not off.ok:
            reason = f"output {off.name!r} is off by more than is allowed{f': {off.reason}' if off.reason else ''}"
        elif off is not None and off.says_nothing:
            reason = f"the outputs show nothing: {off.name!r} is {off.says_nothing}"
        forms.append(Form(name, times.get(name), off, reason))
    taken = min((f for f in forms if not f.reason and f.time_ms is not None), key=lambda f: f.time_ms or 0.0, default=forms[0])
    own = _as(options, taken.precision)
    return BestFound(taken.precision, own, built[taken.precision], tuple(forms), where, guessed)


class _Given:
    """The inputs that are given, as read when the model is imported."""

    def __init__(self, read_feeds: ReadFeeds) -> None:
        self._read_feeds = read_feeds
        self.feeds: Mapping[str, Any] = {}

    def read(self, graph: Any, constants: Any) -> None:
        """See ``build_plan``'s ``imported``."""
        self.feeds = self._read_feeds(graph, constants)


def _expect_free(options: BuildOptions) -> None:
    choices = (
        (options.precision, Wording("precision", flags="--fp16 or --bf16")),
        *((getattr(options, name), Wording(name, flags=f"--{name}")) for name in FORMATS),
        (options.weight_only, Wording("weight_only", flags="--weight-only")),
    )
    for given, told in choices:
        if given:
            both = joined(" and ", [Wording("find_best", flags="--best"), told])
            raise UsageError(joined(" ", [both, "exclude each other"]), hint="leave one of them out")
    if AUTO in (*options.keep_fp32, *options.keep_float):
        raise UsageError(
            Wording("best takes no 'auto': name the nodes", flags="--best goes with no auto of --keep-fp32 and --keep-float"),
            hint="name the nodes that are to keep f32",
        )
    for name in () if _has_scales(options) else ("keep_float", "smooth_quant"):
        if getattr(options, name) not in (None, (), []):
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(
                Wording(f"{name} is for int8 and fp8, which are not tried: there are no scales",
                        flags=f"{flag} is for --int8 and --fp8, which --best does not try: there are no scales"),
                hint=NO_DATA,
            )  # fmt: skip
    if options.calibrate is not None and options.calibration_cache is not None:
        raise UsageError(
            Wording(
                "best calibrates for int8 and for fp8, and calibration_cache is of one of them",
                flags="--best --calibrate finds scales of int8 and of fp8, and --calibration-cache holds those of one",
            ),
            hint="leave one of them out",
        )


def _candidates(options: BuildOptions) -> tuple[str, ...]:
    halves = tuple(map(str, HALVES))
    if not _has_scales(options):
        return halves
    return (*halves, *FORMATS, *(f"{narrow}{WITH}{half}" for narrow in FORMATS for half in halves))


def types_of(form: str) -> tuple[str, str | None]:
    """By a form's name, what products multiply, and what all else is stored in where that is another type."""
    own, _, half = form.partition(WITH)
    return own, half or None


def _has_scales(options: BuildOptions) -> bool:
    """Whether forms of 8 bits can be tried."""
    return options.calibrate is not None or options.calibration_cache is not None


def _as(options: BuildOptions, precision: str) -> BuildOptions:
    """The options of a build in ``precision``, without those that are for others alone."""
    own, half = types_of(precision)
    if own in FORMATS:
        kept = options.keep_fp32 if half else ()
        return replace(options, precision=half, keep_fp32=kept, int8=own == INT8.name, fp8=own == FP8.name)
    bare = replace(options, calibrate=None, calibration_cache=None, keep_float=(), smooth_quant=None)
    return replace(bare, keep_fp32=()) if precision == _OWN else replace(bare, precision=precision)


def _expect_fitting_cache(options: BuildOptions, name: str) -> None:
    """Raises ModelError, as for any form that cannot be built, where the cache is one of other numbers."""
    own, _ = types_of(name)
    if own in FORMATS and options.calibration_cache is not None:
        try:
            read_cache(Path(options.calibration_cache), FORMATS[own])
        except UsageError as error:
            raise ModelError(str(error)) from None


def _feeds(
    engine: Engine, options: BuildOptions, given: Mapping[str, Any], shapes: Sequence[Shapes], seed: int, exact: Built
) -> tuple[list[Mapping[str, Any]], tuple[str, ...]]:
    """What all forms are run on, and the inputs that were drawn."""
    if options.calibrate is not None:
        return sampled_feeds(options.calibrate, exact.graph.inputs, exact.plan.ranges, _RUNS), ()
    feeds, _ = run_somewhere(engine, given, shapes, seed)
    return [feeds], tuple(b.name for b in engine.inputs if b.name not in given and b.default is None)


def _worst(
    name: str, results: Sequence[Mapping[str, Any]], expected: Sequence[Mapping[str, Any]], tolerance: float | None
) -> OutputError:
    """The output that is furthest off, of those of floats where there are any, those of all feeds one behind the other."""
    own, _ = types_of(name)
    allowed = tolerance if tolerance is not None else OF_BUILDS.get(own) or tolerance_of({DType.F32, DType(own)})
    floats = [n for n, v in expected[0].items() if isinstance(v, np.ndarray) and dtype_of(v).is_float]
    errors = []
    for output in floats or expected[0]:
        if not floats:
            errors += [compare(output, r[output], e[output], allowed) for r, e in zip(results, expected, strict=True)]
            continue
        got, want = (np.concatenate([np.ravel(np.asarray(r[output], np.float32)) for r in side]) for side in (results, expected))
        found = compare(output, got, want, allowed)
        # ``compare`` allows an f32 what its type does, where that is more.
        errors.append(replace(found, ok=found.ok and found.relative <= allowed, tolerance=allowed))
    return worst_of(errors)


def _measured(engines: Mapping[str, Engine], feeds: Mapping[str, Any], progress: Callable[[str], None]) -> dict[str, float]:
    """Milliseconds of an inference that is waited for, the median of rounds in which all take their turn."""
    progress("best: time")
    own = {name: as_types(feeds, {b.name: b.type for b in e.inputs}) for name, e in engines.items()}
    times: dict[str, list[float]] = {name: [] for name in engines}
    deadline = time.monotonic() + _TIME_S
    for number in range(_WARMUPS + _ROUNDS):
        for name, engine in engines.items():
            begun = time.perf_counter()
            engine.run(own[name])
            if number >= _WARMUPS:
                times[name].append(1e3 * (time.perf_counter() - begun))
        if number > _WARMUPS and time.monotonic() > deadline:
            break
    return {name: statistics.median(found) for name, found in times.items()}


def _estimated(built: Mapping[str, Built], tf32: bool) -> dict[str, float]:
    """The same as one H200 takes at least."""
    try:
        return {name: estimated_ms(b.graph, {r.name: r for r in b.plan.ranges}, tf32=tf32) for name, b in built.items()}
    except ModelError as error:
        raise error.at("best: times cannot be estimated") from None

"""find_float: which products of a model have to keep f32 so that the others may multiply numbers of 8 bits, by running it."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from engine_format.records import DimensionRange
from miniinfer_cli.backends.interface import DEFAULT_OPTIONS, DeviceOptions
from miniinfer_cli.builder.building import import_for
from miniinfer_cli.builder.calibration.data import reread, sampled_feeds
from miniinfer_cli.builder.options import BuildOptions
from miniinfer_cli.builder.precision import AUTO
from miniinfer_cli.builder.quantizing import ask_for_integers, calibrated
from miniinfer_cli.builder.states import ask_for_states, keep_asked
from miniinfer_cli.devices.opening import load
from miniinfer_cli.errors import CheckFailed, UsageError
from miniinfer_cli.ir import Array, Graph, dtype_of
from miniinfer_cli.ir.quantization import KeepFloat, NumberFormat
from miniinfer_cli.passes.pipeline import optimize_in_f32, optimize_narrowed
from miniinfer_cli.passes.precision.choose_quantized import choose_quantized
from miniinfer_cli.passes.precision.quantize_floats import quantize_floats
from miniinfer_cli.planning.freeze import freeze
from miniinfer_cli.verification.comparison import OF_BUILDS, OutputError, compare
from miniinfer_cli.wording import Wording

TIME_S = 900.0
_RUNS = 4  # pieces of the samples that each trial is run on
_Outputs = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class FloatFound:
    """``nodes``: of the model, that have to keep f32; ``trials``: how often it was run; ``outputs``: how far off each is then."""

    nodes: tuple[str, ...]
    trials: int
    outputs: tuple[OutputError, ...]


def find_float(
    model: Any,
    options: BuildOptions,
    *,
    device: str = "cpu",
    device_options: DeviceOptions = DEFAULT_OPTIONS,
    time_s: float = TIME_S,
    progress: Callable[[str], None] = lambda text: None,
) -> FloatFound:
    """Finds the products that cost most when they multiply numbers of 8 bits, and keeps as many as it takes to be within
    tolerance.

    Each is tried alone on some of ``options.calibrate``; then the fewest of those that are furthest off keep f32 with which every
    output is within the tolerance that ``verify_plan`` has for these. ``options.keep_float`` do in any case. Raises CheckFailed
    where no number of them suffices, or ``time_s`` seconds; UsageError where there is nothing to calibrate with.
    """
    if options.calibrate is None:
        raise UsageError(
            _auto("'auto' runs the model on samples, and none are given"),
            hint=Wording("give calibrate=FOLDER or samples", flags="give --calibrate FOLDER"),
        )
    deadline = time.monotonic() + time_s
    trial = _Trial.of(model, options, device, device_options, progress)
    alone: dict[str, float] = {}
    for number, name in enumerate(trial.names):
        if time.monotonic() > deadline:
            raise CheckFailed(_auto(f"{time_s:g} s did not suffice to try {len(trial.names)} products"), hint=_WAY_OUT)
        progress(f"keep-float: product {number + 1} of {len(trial.names)}")
        alone[name] = _worst(trial.errors([n for n in trial.names if n != name])).relative
    ranked = sorted(trial.names, key=lambda name: -alone[name])
    found = {0: trial.errors(())}
    if _holds(found[0]):
        return FloatFound((), len(alone) + 1, found[0])
    low, high = 0, len(ranked)  # to keep so many of the worst does not suffice, and does
    while high - low > 1:
        middle = (low + high) // 2
        found[middle] = trial.errors(ranked[:middle])
        low, high = (low, middle) if _holds(found[middle]) else (middle, high)
    if high == len(ranked):
        worst = _worst(found[low])
        raise CheckFailed(
            _auto(
                f"with all products but {ranked[-1]!r} in f32, output {worst.name!r} is off by {worst.relative:.2e}"
                f" (allowed {worst.tolerance:.0e})"
            ),
            hint=_WAY_OUT,
        )
    order = {name: i for i, name in enumerate(trial.names)}
    nodes = tuple(trial.names[name] for name in sorted(ranked[:high], key=order.__getitem__))
    return FloatFound(nodes, len(alone) + len(found), found[high])


def _auto(told: str) -> Wording:
    return Wording(f"keep_float: {told}", flags=f"--keep-float: {told}")


_WAY_OUT = Wording(
    "give samples that suit the model, or leave int8 or fp8 out", flags="give samples that suit the model, or leave the flag out"
)


@dataclass(frozen=True)
class _Trial:
    """A model ready to be quantized in many ways, and run on the same inputs. ``early``: its graph before that.

    ``names``: of its products, with the name of the model's node that each computes.
    """

    early: Graph
    names: Mapping[str, str]
    scales: Mapping[str, float]
    keep: KeepFloat
    format: NumberFormat
    options: BuildOptions
    ranges: Sequence[DimensionRange]
    feeds: Sequence[Mapping[str, Any]]
    expected: _Outputs
    device: str
    device_options: DeviceOptions

    @classmethod
    def of(
        cls, model: Any, options: BuildOptions, device: str, device_options: DeviceOptions, progress: Callable[[str], None]
    ) -> "_Trial":
        keep = tuple(word for word in options.keep_float if word != AUTO)
        own = replace(options, keep_float=keep, precision=None, keep_fp32=())  # what is not of 8 bits is of f32 here
        graph, _, ranges = import_for(model, own)
        caches = ask_for_states(graph, own.state, own.kv_cache)
        asked = ask_for_integers(graph, own)
        assert asked is not None  # int8 or fp8 is asked for
        optimize_in_f32(graph, own.opt_level, own.disable_passes)
        if caches is not None:
            keep_asked(graph, caches, None)
        samples = reread(own.calibrate)
        found = calibrated(graph, replace(asked, data=samples), ranges, progress)
        feeds = sampled_feeds(samples, graph.inputs, ranges, _RUNS)
        names = {n.name: (*n.origins, n.name)[0] for n in found.chosen.products}
        trial = cls(graph, names, found.scales, asked.keep, asked.format, own, ranges, feeds, {}, device, device_options)
        return replace(trial, expected=trial._run(tuple(names)))

    def errors(self, kept: Sequence[str]) -> tuple[OutputError, ...]:
        """How far off each output is with these products in f32."""
        got = self._run(kept)
        return tuple(compare(name, got[name], expected, OF_BUILDS[self.format.name]) for name, expected in self.expected.items())

    def _run(self, kept: Sequence[str]) -> _Outputs:
        """The outputs of floats, those of all feeds one behind the other."""
        graph = self.early.copy()
        chosen = choose_quantized(graph, self.keep, self.format).without(set(kept))
        if chosen.products:
            quantize_floats(graph, chosen, self.scales)
        optimize_narrowed(graph, self.options.opt_level, self.options.disable_passes)
        plan = freeze(graph, ranges=self.ranges, options={"tf32": False})
        with load(plan, self.device, self.device_options) as engine:
            results = [engine.run(feeds) for feeds in self.feeds]
        names = [n for n, v in results[0].items() if isinstance(v, np.ndarray) and dtype_of(v).is_float]
        return {n: np.concatenate([np.ravel(r[n]) for r in results]) for n in names}


def _holds(outputs: Sequence[OutputError]) -> bool:
    return all(o.ok for o in outputs)


def _worst(outputs: Sequence[OutputError]) -> OutputError:
    return max(outputs, key=lambda o: (not o.ok, o.relative))

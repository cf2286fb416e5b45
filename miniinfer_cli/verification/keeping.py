"""find_kept: which nodes of a model have to keep f32 so that the rest may be of 16 bits, by running it."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from engine_format.records import DimensionRange
from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.builder.building import import_for
from miniinfer_cli.builder.options import BuildOptions
from miniinfer_cli.builder.precision import ask_for
from miniinfer_cli.builder.states import ask_for_states, keep_asked
from miniinfer_cli.devices.opening import load
from miniinfer_cli.errors import CheckFailed, InputDataError, OutOfMemoryError, UsageError
from miniinfer_cli.ir import DType, Graph, Numerics, dtype_of
from miniinfer_cli.passes.driver import with_subgraphs
from miniinfer_cli.passes.pipeline import FUSING, optimize_in_f32, optimize_narrowed
from miniinfer_cli.passes.precision.narrow_floats import ask
from miniinfer_cli.planning.freeze import freeze
from miniinfer_cli.runtime.bindings import defaults_of
from miniinfer_cli.runtime.engine import Engine
from miniinfer_cli.runtime.random_inputs import random_inputs
from miniinfer_cli.verification.comparison import OutputError, compare, tolerance_of
from miniinfer_cli.verification.keep_search import search_kept
from miniinfer_cli.verification.trials import Shapes, trials

MOST_KEPT = 64
"""Nodes that may be found; a model that needs more is not one for 16 bits."""
TIME_S = 900.0

ReadFeeds = Callable[[Graph, Collection[str]], Mapping[str, Any]]
"""The inputs that are given, for a model's graph and its inputs that are constants."""


@dataclass(frozen=True, slots=True)
class KeptFound:
    """``nodes``: of the model, that have to keep f32. ``guessed``: the inputs that were drawn, so that it is a guess.

    ``trials``: how often the model was run. ``outputs``: how far off each is with these nodes kept.
    """

    nodes: tuple[str, ...]
    guessed: tuple[str, ...]
    trials: int
    outputs: tuple[OutputError, ...]


def find_kept(
    model: Any,
    options: BuildOptions,
    read_feeds: ReadFeeds = lambda graph, constants: {},
    *,
    device: str = "cpu",
    shapes: Sequence[Shapes] = (),
    seed: int = 0,
    device_options: DeviceOptions | None = None,
    time_s: float = TIME_S,
    progress: Callable[[str], None] = lambda text: None,
) -> KeptFound:
    """Runs ``model`` in ``options.precision`` on ``device`` again and again, against f32, and finds nodes that have to keep f32.

    ``options.keep_fp32`` keep it in any case. Inputs that ``read_feeds`` does not give are drawn by ``seed``, in the first sizes
    of ``shapes`` or sizes of our own. Raises CheckFailed where ``MOST_KEPT`` nodes or ``time_s`` seconds do not suffice, or where
    f32 throughout differs, too; UsageError for inputs that the model does not take.
    """
    if options.precision is None:
        raise UsageError("precision: expected 'f16' or 'bf16' to look for what keeps f32, got None")
    trial = _Trial.of(model, options, read_feeds, device, shapes, seed, device_options or DeviceOptions())
    progress("keep-fp32: weights")
    lost = {origin for w in trial.narrowed(frozenset())[1].lost for origin in w.origins[:1]}
    searched = search_kept(
        trial.names, trial.holds, lost, MOST_KEPT, time.monotonic() + time_s,
        lambda asked, kept: progress(f"keep-fp32: trial {asked + 1}, {kept} nodes kept"),
    )  # fmt: skip
    if not searched.found:
        raise _not_found(trial, searched.kept, searched.trials, time_s)
    return KeptFound(searched.kept, trial.guessed, searched.trials, trial.errors(frozenset(searched.kept)))


@dataclass(frozen=True)
class _Trial:
    """A model ready to be narrowed in many ways, and run on the same inputs. ``early``: its graph before that.

    ``expected``: its outputs in f32; of floats alone where there are any, for the largest of many numbers says little of them.
    """

    early: Graph
    names: Sequence[str]
    ranges: Sequence[DimensionRange]
    options: BuildOptions
    own: Numerics
    feeds: Mapping[str, Any]
    expected: Mapping[str, Any]
    guessed: tuple[str, ...]
    device: str
    device_options: DeviceOptions

    @classmethod
    def of(
        cls, model: Any, options: BuildOptions, read_feeds: ReadFeeds, device: str, shapes: Sequence[Shapes], seed: int,
        device_options: DeviceOptions,
    ) -> "_Trial":  # fmt: skip
        named = [word for word in options.keep_fp32 if word != "auto"]
        graph, constants, ranges = import_for(model, replace(options, keep_fp32=()))
        given = read_feeds(graph, constants)
        caches = ask_for_states(graph, options.state, options.kv_cache)
        own = ask_for(graph, options.precision, named)
        assert own is not None  # a precision is asked for
        names = [n.name for g in with_subgraphs(graph) for n in g]
        optimize_in_f32(graph, options.opt_level, options.disable_passes)
        if caches is not None:
            keep_asked(graph, caches, None)  # in f32 here, whatever they are stored in
        exact = graph.copy()
        ask(exact, None)
        optimize_narrowed(exact, options.opt_level, options.disable_passes)
        with load(freeze(exact, ranges=ranges, options={"tf32": False}), device, device_options) as engine:
            feeds, expected = run_somewhere(engine, given, shapes, seed)
            guessed = tuple(b.name for b in engine.inputs if b.name not in given and b.default is None)
        floats = {n: v for n, v in expected.items() if isinstance(v, np.ndarray) and dtype_of(v).is_float}
        return cls(graph, names, ranges, options, own, feeds, floats or expected, guessed, device, device_options)

    def narrowed(self, kept: frozenset[str]) -> tuple[Graph, Numerics]:
        """The graph, and what came of it, with these nodes kept in f32, besides those that were asked for.

        Without regions, so that every result is rounded: a region rounds once on one device and in two places on another.
        """
        graph = self.early.copy()
        numerics = Numerics(self.own.half, self.own.kept_nodes | kept, self.own.kept_ops)
        ask(graph, numerics)
        optimize_narrowed(graph, self.options.opt_level, (*self.options.disable_passes, *FUSING))
        return graph, numerics

    def errors(self, kept: frozenset[str]) -> tuple[OutputError, ...]:
        """How far off each output is."""
        plan = freeze(self.narrowed(kept)[0], ranges=self.ranges, options={"tf32": self.options.tf32})
        with load(plan, self.device, self.device_options) as engine:
            got = engine.run(self.feeds)
        allowed = tolerance_of({DType.F32, self.own.half})
        return tuple(compare(name, got[name], expected, allowed) for name, expected in self.expected.items())

    def holds(self, kept: frozenset[str]) -> bool:
        """Whether every output is within the tolerance of the type."""
        return all(o.ok for o in self.errors(kept))


def run_somewhere(
    engine: Engine, given: Mapping[str, Any], shapes: Sequence[Shapes], seed: int
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Inputs, and what f32 makes of them, at the first sizes that the model takes."""
    known = defaults_of([b for b in engine.inputs if b.name not in given]) | dict(given)
    fault: Exception | None = None
    for trial in trials(engine.inputs, engine.ranges, known, shapes):
        try:
            feeds = random_inputs(engine.inputs, engine.ranges, trial.shapes, known, seed)
            return feeds, engine.run(feeds)
        except (InputDataError, OutOfMemoryError) as error:
            fault = fault or error
    raise fault or UsageError("the model takes none of the sizes that were tried")


def _not_found(trial: _Trial, kept: Sequence[str], asked: int, time_s: float) -> CheckFailed:
    errors = trial.errors(frozenset(kept))
    worst = max(errors, key=lambda o: (not o.ok, o.relative))
    own = f"{len(kept)} nodes in f32" if kept else "no node in f32 but by rule"
    told = (
        f"after {asked} trials, with {own}, output {worst.name!r} is off by {worst.relative:.2e} (allowed {worst.tolerance:.0e})"
    )
    return CheckFailed(
        f"keep_fp32: no {MOST_KEPT} nodes or {time_s:g} s suffice: {told}{f': {worst.reason}' if worst.reason else ''}",
        hint="give inputs that suit the model, build it in bf16, or keep whole operations in f32",
    )

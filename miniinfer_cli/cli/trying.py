"""Trials of a diagnosis: a change is made, and measured in turn with the run as it is, within some seconds all told."""

import gc
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from miniinfer_cli.cli.measuring import Bench
from miniinfer_cli.devices.machine import available_processors
from miniinfer_cli.devices.opening import load
from miniinfer_cli.diagnosis.change import Change
from miniinfer_cli.diagnosis.findings import WORTH_TELLING, Advice
from miniinfer_cli.diagnosis.trials import LEAST_PAIRS, Trial, advice_of, is_hopeless
from miniinfer_cli.diagnosis.variants import BuiltAs, changed_graph
from miniinfer_cli.errors import MiniinferError
from miniinfer_cli.limits import chosen_limits
from miniinfer_cli.measuring.benchmark import Schedule, measure
from miniinfer_cli.measuring.conditions import CpuTimes, foreign_cores, is_crowded
from miniinfer_cli.planning.freeze import freeze
from miniinfer_cli.planning.thaw import thaw
from miniinfer_cli.runtime.engine import Engine
from miniinfer_cli.shortage import memory_ran_out

_MOST_S = 6.0  # of all trials of a run of the usual length, as far as that can be told beforehand
_USUAL_S = 3.0  # of a run: flags.py has the default of --duration
_PAIRS = 4
_SEGMENT_S = 0.12  # of one measurement, beside its warm-up, which is one inference at least
_SLOW_MS = 100.0  # inferences that take longer are measured one by one, others two at least
_WARM_UP_MS = 20.0
_PLAIN = 0.6  # a gain that shows even where others disturb the comparisons
_GRACE_S = 1.5  # that the least comparisons of one whose engine is open may take, if no time is left
_OPENING_S = 0.3  # seconds that opening another engine is taken to cost; the first tells better
_REBUILDING_S = 1.5  # the same on a GPU, where the graph changes and new kernels are compiled


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of a trial: the advice, where it helps; ``gain``: the part of the time that it saved (None: not measured)."""

    trial: Trial
    advice: Advice | None
    gain: float | None
    reason: str = ""

    def __str__(self) -> str:
        gain = [] if self.gain is None else [f"{100 * self.gain:+.0f} %"]
        return f"{self.trial.name} ({', '.join([*gain, *([self.reason] if self.reason else [])])})"


def trial_seconds(duration_s: float) -> float:
    """Seconds that the trials of a run of that length may take: less behind a short one, more behind a long one."""
    return _MOST_S * max(min(duration_s, 1.0), duration_s / _USUAL_S)


def try_all(bench: Bench, trials: Sequence[Trial], wall_ms: float, most_s: float) -> Iterator[Tried]:
    """Makes each trial, as long as there is time; ``wall_ms``: of one inference, as it was measured."""
    until = time.monotonic() + most_s
    opening_s = _OPENING_S
    for trial in trials:
        change = trial.change
        scale = 1.0 if change.batch is None else change.batch / change.was
        segment_s = max(_SEGMENT_S, (1 + _inferences(wall_ms)) * wall_ms / 1e3 * bench.wanted.streams)
        expected_s = max(opening_s, _REBUILDING_S if change.rebuilds and bench.engine.device != "cpu" else 0.0)
        if time.monotonic() + expected_s + segment_s * (1 + max(scale, 1.0)) > until:
            yield Tried(trial, None, None, "no time left")
            continue
        begun = time.monotonic()
        try:
            with _changed(bench, change) as other:
                opening_s = max(opening_s, time.monotonic() - begun)
                before = CpuTimes.now()
                pairs = _pairs(bench, other, change, wall_ms, until)
                foreign = foreign_cores(before, CpuTimes.now())
        except MiniinferError as error:
            yield Tried(trial, None, None, f"cannot be: {str(error).splitlines()[0]}")
            continue
        except Exception as error:
            if not memory_ran_out(error):
                raise
            yield Tried(trial, None, None, "memory ran out")
            continue
        advice = advice_of(trial, pairs, None if change.pinned else wall_ms)
        gain = statistics.median(1 - after / before for before, after in pairs)
        if advice is not None and _is_disturbed(bench, change, gain, foreign):
            yield Tried(trial, None, gain, "too much other work on the processors to tell")
            continue
        unsure = advice is None and gain >= WORTH_TELLING
        reason = "too unsteady to tell" if len(pairs) >= LEAST_PAIRS else "too little time to tell"
        yield Tried(trial, advice, gain, reason if unsure else "")


def _is_disturbed(bench: Bench, change: Change, gain: float, foreign: float | None) -> bool:
    """True where what others do on a CPU (``foreign`` processors) may be what the comparisons show.

    A large gain shows all the same, but not that of more threads or streams, which take processors from others.
    """
    on_cpu = bench.engine.device == "cpu"
    own = bench.wanted.streams * int(bench.engine.model.facts().get("threads", 1))
    if not on_cpu or not is_crowded(foreign, available_processors(), own, on_cpu):
        return False
    return gain < _PLAIN or change.streams is not None or "threads" in change.options


def _inferences(wall_ms: float) -> int:
    """Of a measurement, at least, where one takes so long."""
    return 1 if wall_ms > _SLOW_MS else 2


def _pairs(bench: Bench, other: Bench, change: Change, wall_ms: float, until: float) -> list[tuple[float, float]]:
    """Milliseconds of an inference as it is and with the change, in turn; as many pairs as there is time for, one at least.

    On a GPU, the change has run before, which compiles its kernels; it then gets the pairs without which nothing can be claimed,
    where these take no more than a moment.
    """
    if bench.engine.device != "cpu" and not change.pinned:
        measure(other.engine, other.arrays, Schedule(1, 0, 0, other.wanted.schedule.transfers), streams=other.wanted.streams)
    count = _inferences(wall_ms)
    pairs: list[tuple[float, float]] = []
    begun = time.monotonic()
    with _uncollected():
        for _ in range(_PAIRS):
            if change.pinned:
                pair = _synchronized_ms(bench, pinned=False), _synchronized_ms(bench, pinned=True)
            else:
                part = 1.0 if change.batch is None else change.was / change.batch  # as many samples as the run has
                pair = _wall_ms(bench, count), _wall_ms(other, count) * part
            pairs.append(pair)
            now = time.monotonic()
            end = max(until, begun + _GRACE_S) if len(pairs) < LEAST_PAIRS else until
            if is_hopeless(pair) or now + (now - begun) / len(pairs) > end:
                break
    return pairs


@contextmanager
def _uncollected() -> Iterator[None]:
    """Garbage is collected before, and not within: there is much of it behind a change, and it takes longer than a comparison."""
    collects = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _wall_ms(bench: Bench, count: int) -> float:
    schedule = Schedule(count, _WARM_UP_MS, _SEGMENT_S, bench.wanted.schedule.transfers)
    samples = measure(bench.engine, bench.arrays, schedule, streams=bench.wanted.streams)
    return samples.walltime_s / len(samples.latency_ms) * 1e3


def _synchronized_ms(bench: Bench, *, pinned: bool) -> float:
    """Milliseconds of an inference that somebody waits for, whose inputs lie in arrays of the caller's own, or are ``pinned``."""
    shapes = {b.name: a.shape for b, a in zip(bench.engine.inputs, bench.arrays, strict=True) if isinstance(a, np.ndarray)}
    with bench.engine.create_context() as context:
        for turn in range(2):  # a first one to warm up
            begun, count = time.perf_counter(), 0
            while count < 2 or time.perf_counter() - begun < _SEGMENT_S * turn:
                arrays = list(bench.arrays)
                if pinned:
                    buffers = context.staging_buffers(shapes)
                    arrays = [a if b is None else b for a, b in zip(arrays, buffers, strict=True)]
                context.run_arrays(arrays, commit=False)
                count += 1
        return (time.perf_counter() - begun) / count * 1e3


@contextmanager
def _changed(bench: Bench, change: Change) -> Iterator[Bench]:
    """The bench with the change; what was opened for it is closed behind it."""
    wanted = replace(
        bench.wanted,
        streams=bench.wanted.streams if change.streams is None else change.streams,
        batch=bench.wanted.batch if change.batch is None else change.batch,
        gpu=replace(bench.wanted.gpu, **change.options),
    )
    if not change.rebuilds and not change.options:
        yield Bench.of(wanted, bench.engine, bench.given) if change.batch is not None else replace(bench, wanted=wanted)
        return
    with _engine(bench, change, wanted.gpu) as engine:
        if change.uint8 or change.fixed:
            yield replace(bench, wanted=wanted, engine=engine, arrays=_as_taken(bench, engine))
        else:
            yield replace(bench, wanted=wanted, engine=engine, arrays=engine.check(bench.feeds))


def _as_taken(bench: Bench, engine: Engine) -> list[Any]:
    """The bench's inputs, converted to the types that the changed graph takes."""
    feeds = {}
    for binding, new in zip(bench.engine.inputs, engine.inputs, strict=True):
        value = bench.feeds[binding.name]
        kind = new.dtype
        feeds[new.name] = value if kind is None or not isinstance(value, np.ndarray) else value.astype(kind, copy=False)
    return engine.check(feeds)


def _engine(bench: Bench, change: Change, options: Any) -> Engine:
    if not change.rebuilds:
        return load(bench.wanted.plan, bench.engine.device, options)
    plan = bench.engine.plan
    recorded = dict(plan.report.options)
    graph, types = thaw(plan, chosen_limits(options.limits)), bench.engine.graph_for(bench.arrays)[1]
    changed = changed_graph(graph, change, types, BuiltAs.of(recorded))
    if change.tf32 is not None:
        recorded["tf32"] = change.tf32
    return load(freeze(changed, ranges=() if change.fixed else plan.ranges, options=recorded), bench.engine.device, options)

"""Two versions of a whole program against each other: replayed in turns, on contexts of their own, with the same inputs."""

import contextlib
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from miniinfer_cli.backends.cuda.contexts.context import CudaContext
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.loading.loaded_program import LoadedProgram
from miniinfer_cli.backends.cuda.models.model import CudaModel
from miniinfer_cli.backends.cuda.tuning.clock import Clock

LEAST_GAIN_US = 0.2
"""Of each step that changed."""
_LEAST_PAIRS = 12
"""Before a version that is no better is given up."""
_WARM = 3  # inferences: as they are, captured, captured with events
_BURST = 2  # inferences of each stream between two looks at the host's clock


@dataclass(frozen=True, slots=True)
class Verdict:
    """How two versions compare: medians in microseconds, the mean gain of pairs, and its standard error."""

    before_us: float
    after_us: float
    gain_us: float
    error_us: float

    def is_gain(self, steps: int = 0) -> bool:
        """True when the second is faster, beyond chance, by enough for so many steps that changed."""
        return self.gain_us > max(LEAST_GAIN_US * steps, 2 * self.error_us)


@contextlib.contextmanager
def made_for(model: CudaModel, target: Target) -> Iterator[None]:
    """While it lasts, the programs of branches and bodies, which are made when they are met, are made for this target."""
    before, model.target = model.target, target
    try:
        yield
    finally:
        model.target = before


class Version:
    """A program for a target, on contexts of its own, ready to be replayed; a context. ``streams``: inferences at a time."""

    def __init__(self, program: LoadedProgram, model: CudaModel, target: Target, inputs: Sequence[Any], streams: int) -> None:
        self.program = program
        self._model = model
        self._target = target
        self._inputs = inputs
        with contextlib.ExitStack() as stack:
            stack.callback(program.close)
            self._contexts: list[CudaContext] = []
            for _ in range(streams):
                context = CudaContext(model, replace(model.options, overlap=False))
                stack.callback(context.close)
                self._contexts.append(context)
            with made_for(model, target):
                for context in self._contexts:
                    context.enqueue(program, inputs, on_device=True).wait()
                    for _ in range(_WARM):
                        context.replay(program, inputs, timed=streams == 1).wait()
            self._close = stack.pop_all()

    def sample(self, clock: Clock) -> float:
        """Microseconds of an inference: of the device; with several streams, of the host, for each of all that ran."""
        with made_for(self._model, self._target):
            return clock.plan_us(self.program.made, self._measured_us())

    def _measured_us(self) -> float:
        if len(self._contexts) == 1:
            pending = self._contexts[0].replay(self.program, self._inputs, timed=True)
            pending.wait()
            assert pending.times_ms is not None
            return pending.times_ms[1] * 1e3
        started = time.perf_counter()
        for _ in range(_BURST):
            for context in self._contexts:
                context.replay(self.program, self._inputs)
        for context in self._contexts:
            context.synchronize()
        return (time.perf_counter() - started) * 1e6 / (_BURST * len(self._contexts))

    def close(self) -> None:
        """Gives contexts and program back; may be called twice."""
        self._close.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def compare(before: Version, after: Version, clock: Clock, pairs: int, steps: int = 0) -> Verdict:
    """Replays both in turns, so many pairs; fewer where the second is surely no gain for so many steps that changed."""
    times: list[tuple[float, float]] = []
    for number in range(pairs):
        if number % 2:
            second = after.sample(clock)
            times.append((before.sample(clock), second))
        else:
            first = before.sample(clock)
            times.append((first, after.sample(clock)))
        if len(times) >= _LEAST_PAIRS and _is_hopeless(_verdict(times), steps):
            break
    return _verdict(times)


def _verdict(times: Sequence[tuple[float, float]]) -> Verdict:
    gains = [a - b for a, b in times]
    error = statistics.stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else math.inf
    before, after = (statistics.median(column) for column in zip(*times, strict=True))
    return Verdict(before, after, statistics.fmean(gains), error)


def _is_hopeless(verdict: Verdict, steps: int) -> bool:
    """True when even three standard errors more would be too little."""
    return verdict.gain_us + 3 * verdict.error_us < LEAST_GAIN_US * steps

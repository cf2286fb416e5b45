"""A site's candidates, each by itself: checked against the heuristic's choice, then timed against each other."""

import contextlib
import logging
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from miniinfer_cli.backends.choosing import Policy
from miniinfer_cli.backends.cuda.contract.program import CudaProgram
from miniinfer_cli.backends.cuda.contract.steps import Kernel
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.loading.loaded_program import LoadedProgram
from miniinfer_cli.backends.cuda.loading.sharing import Shared
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.backends.cuda.tuning.candidates import Candidate, Effort, RecordsOf, Tunable
from miniinfer_cli.backends.cuda.tuning.checking import Comparisons
from miniinfer_cli.backends.cuda.tuning.clock import Clock
from miniinfer_cli.backends.cuda.tuning.rig import Captures, Rig, is_timeable
from miniinfer_cli.errors import DeviceError, MiniinferError

_HOPELESS = 3.0
"""A candidate that takes so many times as long as the best is timed no further."""
_ENQUEUED_US = 200.0
"""What takes less, as it is enqueued, may be as slow as that because of the host."""
_CLOSE = 1.03
_SURVIVORS = 3
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Trial:
    """A candidate, and the program that computes its site in its way."""

    candidate: Candidate
    made: CudaProgram


@dataclass(frozen=True, slots=True)
class Timed:
    """A candidate, the microseconds that it took, the library's workspace that it needs, and the kernels that it launches."""

    candidate: Candidate
    time_us: float
    workspace_nbytes: int
    kernels: tuple[Kernel, ...]


@dataclass(frozen=True, slots=True)
class Rejected:
    """A candidate that may not be taken, and why."""

    candidate: Candidate
    reason: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a site's candidates came to: the heuristic's choice, those worth trying in the plan, fastest first, and those that
    may not be taken."""

    reference: Timed
    survivors: tuple[Timed, ...]
    rejected: tuple[Rejected, ...]

    @property
    def gains(self) -> tuple[Timed, ...]:
        """Those that are faster alone than the heuristic's choice, the fastest first."""
        return tuple(t for t in self.survivors if t.time_us < self.reference.time_us)

    @property
    def best(self) -> Timed:
        """The fastest alone."""
        return self.gains[0] if self.gains else self.reference


def make_trials(tuned: Tunable, candidates: Sequence[Candidate], target: Target, model: Shared) -> list[Trial]:
    """Programs of the site alone, for each candidate that is taken there; none where the site cannot be timed by itself."""
    graph, types = tuned.alone()
    trials: list[Trial] = []
    for candidate in candidates:
        table = RecordsOf({tuned.signature: candidate.record(tuned.signature)})
        policy = Policy(disabled=target.policy.disabled, table=table)
        try:
            made = make_program(graph, types, replace(target, policy=policy, watch=None), model.weights.holds)
        except MiniinferError as error:
            _LOG.debug("%s: %s cannot be made alone: %s", tuned.signature, candidate.name, error.message)
            continue
        if table.refused or not table.asked or not is_timeable(made):
            if not trials and candidate is candidates[0]:
                return []  # nothing to check the others against
            continue
        trials.append(Trial(candidate, made))
    return trials


def try_site(
    tuned: Tunable, trials: Sequence[Trial], model: Shared, compare: Comparisons, effort: Effort, clock: Clock, lanes: int
) -> Outcome | None:
    """Checks and times the trials, the first of which is the heuristic's choice; None where that cannot be timed.

    Raises OutOfMemoryError.
    """
    with contextlib.ExitStack() as stack:
        programs: list[LoadedProgram] = []
        for trial in trials:
            programs.append(LoadedProgram(trial.made, model))
            stack.callback(programs[-1].close)
        rig = stack.enter_context(Rig(model, programs, lanes=lanes, most_copies=effort.copies))
        rejected: list[Rejected] = []
        sound: list[tuple[Candidate, LoadedProgram]] = []
        least_us = 0.0
        for trial, program in zip(trials, programs, strict=True):
            try:
                once_us = min(rig.run(program, number) for number in range(2))
                reason = _fault(rig, program, compare, is_reference=not sound)
            except DeviceError as error:
                once_us, reason = 0.0, error.message
            if reason and not sound:
                return None
            if reason:
                _LOG.info("%s: %s is not taken: %s", tuned.labels[0], trial.candidate.name, reason)
                rejected.append(Rejected(trial.candidate, reason))
            elif not sound or once_us <= _HOPELESS * max(least_us, _ENQUEUED_US):
                sound.append((trial.candidate, program))
                least_us = once_us if len(sound) == 1 else least_us
        times = _race(rig, sound, effort, clock, stack.callback)
    if not times or times[0].candidate is not trials[0].candidate:
        return None
    reference, *others = times
    ranked = sorted(others, key=lambda t: t.time_us)
    best = min(t.time_us for t in times)
    survivors = [t for n, t in enumerate(ranked) if n < _SURVIVORS or t.time_us <= best * _CLOSE]
    return Outcome(reference, tuple(survivors), tuple(rejected))


def _fault(rig: Rig, program: LoadedProgram, compare: Comparisons, *, is_reference: bool) -> str:
    """What is wrong with a candidate's results; nothing where it may be taken. The reference's are put aside."""
    if not compare.equal(program.made, rig.results(0), rig.results(1)):
        return "its results differ from run to run"
    if is_reference:
        rig.keep()
        return "" if compare.equal(program.made, rig.kept, rig.kept) else "the results of random inputs are no numbers"
    return compare.difference(program.made, rig.results(0), rig.kept)


def _race(
    rig: Rig,
    sound: Sequence[tuple[Candidate, LoadedProgram]],
    effort: Effort,
    clock: Clock,
    at_end: Callable[[Callable[[], None]], object],
) -> list[Timed]:
    """Medians of interleaved replays, in the order given; what is hopeless after the first one is left out."""
    probe = rig.capture(sound[0][1], 1)
    if probe is None:
        return []
    rig.replay(probe)
    copies = rig.copies_for(rig.replay(probe))
    probe.close()
    running: list[tuple[Candidate, LoadedProgram, Captures, list[float]]] = []
    for candidate, program in sound:
        captures = rig.capture(program, copies)
        if captures is not None:
            at_end(captures.close)
            rig.replay(captures)  # which loads what is loaded at first use
            running.append((candidate, program, captures, []))
    for number in range(effort.rounds):
        for candidate, _, captures, times in running:
            times.append(clock.trial_us(candidate.name, rig.replay(captures)))
        if number == 0:
            best = min(times[0] for *_, times in running)
            running = [r for n, r in enumerate(running) if n == 0 or r[3][0] <= _HOPELESS * best]
    return [Timed(c, statistics.median(times), p.workspace_nbytes, p.made.kernels) for c, p, _, times in running]

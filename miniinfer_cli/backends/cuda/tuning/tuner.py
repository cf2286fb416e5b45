"""Tunes a model on its device for one set of input sizes: tries each site's candidates, then races the winners in the plan."""

import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from engine_format import RecordChooser, TacticRecord
from miniinfer_cli.backends.choosing import Policy
from miniinfer_cli.backends.cuda.contract.steps import Kernel
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.loading.loaded_program import LoadedProgram
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.backends.cuda.models.model import CudaModel
from miniinfer_cli.backends.cuda.tuning.candidates import (
    Effort,
    RecordsOf,
    Sites,
    Tunable,
    TunedSite,
    collect_sites,
    nodes_of_bodies,
)
from miniinfer_cli.backends.cuda.tuning.checking import Comparisons
from miniinfer_cli.backends.cuda.tuning.clock import Clock, Progress
from miniinfer_cli.backends.cuda.tuning.joins import TunedJoin, collect_joins
from miniinfer_cli.backends.cuda.tuning.race import LEAST_GAIN_US, Version, compare
from miniinfer_cli.backends.cuda.tuning.trials import Outcome, Timed, Trial, make_trials, try_site
from miniinfer_cli.errors import OutOfMemoryError
from miniinfer_cli.ir import Graph, Type

Aim = Literal["latency", "throughput"]
_LANES = {"latency": 1, "throughput": 4}
_LOG = logging.getLogger(__name__)
# How much of all the work each part is taken to be, for the bar.
_PREPARING, _TRYING, _RACING = 0.25, 0.55, 0.2


@dataclass(frozen=True, slots=True)
class Change:
    """Nodes of one signature that something is faster for alone than the heuristic's choice; whether the plan was faster, too."""

    labels: tuple[str, ...]
    before: Timed
    after: Timed
    kept: bool


@dataclass(slots=True)
class Point:
    """What tuning for one set of sizes came to. ``records`` are of every signature that was timed; those kept choose.

    ``untuned_us``, ``tuned_us``: medians of the whole program; None where they were not compared. ``dropped``: the tuned program
    was not faster, so nothing is kept.
    """

    sizes: Mapping[str, int] = field(default_factory=dict)
    signatures: int = 0
    untuned_us: float | None = None
    tuned_us: float | None = None
    dropped: bool = False
    interrupted: bool = False
    rejected: int = 0
    seconds: float = 0.0
    changes: list[Change] = field(default_factory=list)
    records: list[TacticRecord] = field(default_factory=list)
    kernels: tuple[Kernel, ...] = ()
    """Of the program with what is kept."""
    launched: dict[str, tuple[Kernel, ...]] = field(default_factory=dict)
    """The kernels of records that choose, by signature."""


class Tuner:
    """Tunes one model. ``known`` are records that need not be found again (of a timing cache), by signature."""

    def __init__(
        self,
        model: CudaModel,
        effort: Effort,
        clock: Clock,
        *,
        aim: Aim = "latency",
        known: Mapping[str, TacticRecord] | None = None,
    ) -> None:
        self._model = model
        self._effort = effort
        self._clock = clock
        self._lanes = _LANES[aim]
        self._known = dict(known or {})
        policy = Policy(disabled=model.target.policy.disabled)
        self._target: Target = replace(model.target, policy=policy, watch=None)

    def tune(self, graph: Graph, types: Sequence[Type | None], inputs: Sequence[Any], progress: Progress) -> Point:
        """The point of these sizes; ``inputs`` are arrays of them. An interruption (KeyboardInterrupt) ends the search, and what
        was found so far is compared as a whole.

        Raises what making and running the program raises.
        """
        started = time.monotonic()
        self._model.gpu.make_current()
        job = _Job(graph, types, inputs, progress)
        point = Point()
        try:
            progress("looking at the nodes", 0.0)
            sites: list[Tunable] = [*collect_joins(job.graph, job.types, self._target), *self._sites(job)]
            known = self._known_of(sites)
            job.adopted = {s: r for s, r in known.items() if r.chosen_by is RecordChooser.TIMED}
            prepared = self._prepare(job, [s for s in sites if s.signature not in known])
            point.signatures = len(prepared) + len(job.adopted)
            self._try_all(job, prepared)
        except KeyboardInterrupt:
            point.interrupted = True
        with self._version(job, {}) as untuned:
            if point.interrupted:  # nothing more is tried: what is faster alone goes into the comparison
                job.kept = {s: outcome.best for s, (_, outcome) in job.found.items() if outcome.gains}
            else:
                try:
                    self._race_in_plan(job, untuned)
                except KeyboardInterrupt:
                    point.interrupted = True
            progress("comparing the whole", _PREPARING + _TRYING + _RACING)
            self._compare_whole(job, untuned, point)
        self._sum_up(job, point)
        point.seconds = time.monotonic() - started
        return point

    def _sites(self, job: "_Job") -> list[TunedSite]:
        """Those of the program, and of the branches and bodies that an inference meets; never of late parts."""
        found = {s.signature: s for s in collect_sites(job.graph, job.types, self._target, self._model.weights.holds)}
        bodies = nodes_of_bodies(job.graph)
        if bodies:
            table = RecordsOf({})  # of its own: programs of bodies that are there already are not made again
            within = Sites(replace(self._target, policy=replace(self._target.policy, table=table)), bodies)
            made = make_program(job.graph, job.types, within.target, self._model.weights.holds)
            with Version(LoadedProgram(made, self._model), self._model, within.target, job.inputs, 1):
                found = within.found | found
        return list(found.values())

    def know(self, point: Point) -> None:
        """Takes what a point came to as known, so that other sizes do not find it again."""
        self._known |= {r.signature: r for r in point.records}

    def _known_of(self, sites: Sequence[Tunable]) -> dict[str, TacticRecord]:
        """What is known of the sites, and fits still; a record of another maker is found anew."""
        known: dict[str, TacticRecord] = {}
        for site in sites:
            record = self._known.get(site.signature)
            if record is None:
                continue
            reason = site.fits(record, self._target)
            if not reason:
                known[site.signature] = record
            else:
                _LOG.info("%s: what is known of it is passed over: %s", site.labels[0], reason)
        return known

    def _prepare(self, job: "_Job", sites: Sequence[Tunable]) -> list[tuple[Tunable, list[Trial]]]:
        """The sites that have something to try, with their trials; all kernels are compiled at once, by all processors."""
        prepared: list[tuple[Tunable, list[Trial]]] = []
        for number, site in enumerate(sites):
            job.progress(f"preparing {site.labels[0]}", _PREPARING * number / len(sites) / 2)
            candidates = site.candidates(self._target, self._model.libraries, self._effort)
            trials = make_trials(site, candidates, self._target, self._model) if len(candidates) > 1 else []
            if len(trials) > 1:
                prepared.append((site, trials))
        job.progress("compiling", _PREPARING / 2)
        with Comparisons(self._model, self._target) as comparing:
            kernels = [k for _, trials in prepared for t in trials for k in (*t.made.kernels, *comparing.kernels(t.made))]
        self._model.functions.prepare(list(dict.fromkeys(kernels)))
        return prepared

    def _try_all(self, job: "_Job", prepared: Sequence[tuple[Tunable, list[Trial]]]) -> None:
        with Comparisons(self._model, self._target) as comparing:
            for number, (site, trials) in enumerate(prepared):
                job.progress(f"timing {site.labels[0]}", _PREPARING + _TRYING * number / len(prepared))
                try:
                    outcome = try_site(site, trials, self._model, comparing, self._effort, self._clock, self._lanes)
                except OutOfMemoryError as error:
                    _LOG.info("%s is not tuned: %s", site.labels[0], error.message)
                    continue
                if outcome is not None:
                    job.found[site.signature] = site, outcome

    def _race_in_plan(self, job: "_Job", untuned: Version) -> None:
        """Keeps what the plan is faster with: each signature's best is tried with all of its nodes at once, the slowest first.

        Joins come before tactics; what a join that is kept takes out of the plan is not tried. What is beyond the effort is
        kept when it is faster alone, by as much.
        """
        ordered = sorted(job.found.items(), key=lambda item: -item[1][1].reference.time_us * len(item[1][0].labels))
        gaining = [(signature, site, outcome) for signature, (site, outcome) in ordered if outcome.gains]
        joins = [g for g in gaining if isinstance(g[1], TunedJoin)]
        sites = [g for g in gaining if not isinstance(g[1], TunedJoin)]
        most, gone = self._effort.races, set[str]()
        raced, others = [*joins[:most], *sites[:most]], [*joins[most:], *sites[most:]]
        current = self._version(job, job.records()) if job.adopted else untuned
        with contextlib.ExitStack() as held:  # what is current, but for the untuned version
            if current is not untuned:
                held.enter_context(current)
            for number, (signature, site, outcome) in enumerate(raced):
                if gone.issuperset(site.labels):
                    continue
                job.progress(f"racing {site.labels[0]}", _PREPARING + _TRYING + _RACING * number / len(raced))
                for timed in outcome.gains[: self._effort.raced_each]:
                    with contextlib.ExitStack() as tried:
                        try:
                            version = self._version(job, job.records() | {signature: _record(timed, signature)})
                        except OutOfMemoryError as error:  # of two versions at a time; what was found so far stands
                            _LOG.info("%s is not raced: %s", site.labels[0], error.message)
                            continue
                        tried.enter_context(version)
                        steps = len(site.labels)
                        if compare(current, version, self._clock, self._effort.pairs, steps).is_gain(steps):
                            job.kept[signature] = timed
                            gone.update(site.gone(timed.candidate.key) if isinstance(site, TunedJoin) else ())
                            held.close()
                            held.push(tried.pop_all())
                            current = version
                            break
        for signature, site, outcome in others:
            if not gone.issuperset(site.labels) and outcome.reference.time_us - outcome.best.time_us > LEAST_GAIN_US:
                job.kept[signature] = outcome.best

    def _compare_whole(self, job: "_Job", untuned: Version, point: Point) -> None:
        """Times the tuned program against the untuned one; keeps nothing where that is not faster."""
        point.kernels = self._kernels_of(untuned)
        if job.kept or job.adopted:
            with self._version(job, job.records()) as tuned:
                verdict = compare(untuned, tuned, self._clock, 2 * self._effort.pairs)
                point.untuned_us, point.tuned_us = verdict.before_us, verdict.after_us
                point.dropped = not verdict.is_gain()
                if not point.dropped:
                    point.kernels = self._kernels_of(tuned)
        if point.dropped:
            job.kept, job.adopted = {}, {}

    def _kernels_of(self, version: Version) -> tuple[Kernel, ...]:
        """What the version launches, and what makes its weights in other forms."""
        made = version.program.made
        derived = dict.fromkeys(s.derived for s in made.slots if s.derived is not None)
        programs = [made, *(self._model.program_of(d) for d in derived)]
        return tuple(dict.fromkeys(k for p in programs for k in p.kernels))

    def _sum_up(self, job: "_Job", point: Point) -> None:
        """Records of all that was timed, and what changed."""
        point.records = list(job.adopted.values())
        for signature, (site, outcome) in job.found.items():
            kept, reference = job.kept.get(signature), outcome.reference
            point.rejected += len(outcome.rejected)
            if kept is None and point.interrupted and outcome.gains:
                pass  # whether the plan is faster with it, nobody knows
            elif kept is None:
                point.records.append(replace(self._stored(reference, signature), chosen_by=RecordChooser.HEURISTIC))
            else:
                point.records.append(self._stored(kept, signature))
                point.launched[signature] = kept.kernels
            if outcome.gains:
                point.changes.append(Change(tuple(site.labels), reference, kept or outcome.best, kept is not None))

    def _stored(self, timed: Timed, signature: str) -> TacticRecord:
        """The record as files are to have it, with all that helps a library to prepare its way again."""
        record, candidate = _record(timed, signature), timed.candidate
        if candidate.problem is None:
            return record
        variant = self._model.libraries.to_record(candidate.problem, candidate.variant)
        return record if variant is None else replace(record, opaque=variant.opaque)

    def _version(self, job: "_Job", records: Mapping[str, TacticRecord]) -> Version:
        """The program that these records choose, ready to be replayed."""
        target = replace(self._target, policy=replace(self._target.policy, table=RecordsOf(records)))
        made = make_program(job.graph, job.types, target, self._model.weights.holds)
        return Version(LoadedProgram(made, self._model), self._model, target, job.inputs, self._lanes)


@dataclass(slots=True)
class _Job:
    """A point while it is tuned. ``found``: sites and what their candidates came to; ``kept``: what the plan is faster with."""

    graph: Graph
    types: Sequence[Type | None]
    inputs: Sequence[Any]
    progress: Progress
    adopted: dict[str, TacticRecord] = field(default_factory=dict)
    found: dict[str, tuple[Tunable, Outcome]] = field(default_factory=dict)
    kept: dict[str, Timed] = field(default_factory=dict)

    def records(self) -> dict[str, TacticRecord]:
        """What chooses so far."""
        return self.adopted | {signature: _record(timed, signature) for signature, timed in self.kept.items()}


def _record(timed: Timed, signature: str) -> TacticRecord:
    return replace(timed.candidate.record(signature), time_us=timed.time_us, workspace_nbytes=timed.workspace_nbytes)

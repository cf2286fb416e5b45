"""Runs mutants: which tests reach each, whether one of these fails, and what has survived."""

import json
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial, wraps
from pathlib import Path
from typing import Any

import pytest

from tests.mutants.forked_tests import Answer, Failure, Job, in_children, run_tests
from tests.mutants.mutant import Family, Mutant

_LONGEST_S = 1800.0  # for the tests of one file as they are
_PATIENCE = (300.0, 10.0)  # seconds for a mutant's tests, and for each second that all of the file took


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a mutant: ``killed``, ``survived``, or ``none`` where there is nothing that could be changed so."""

    mutant: str
    state: str
    why: str
    tests: int = 0


def hunt(
    families: Mapping[str, Family],
    mutants: Sequence[Mutant],
    items: Sequence[pytest.Item],
    workers: int,
    tell: Callable[[Outcome], None],
) -> None:
    """Runs every mutant against those tests of its files that reach it, and tells what became of each.

    A mutant is run as soon as it is known what the tests of its files reach, so that a hunt that is stopped has told something.
    """
    by_file: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        by_file[item.nodeid.partition("::")[0]].append(item)
    for mutant in (m for m in mutants if not m.files):
        tell(Outcome(mutant.name, "survived", "no test file names it"))
    waiting = [m for m in mutants if m.files]
    jobs: deque[Job] = deque()
    for file in dict.fromkeys(f for m in waiting for f in m.files):
        entries = sorted({(m.family, m.entry) for m in waiting if file in m.files})
        jobs.append(Job(file, _Watch(by_file[file], entries, families), _LONGEST_S))
    reached: dict[tuple[str, str], set[str]] = defaultdict(set)
    seconds: dict[str, float] = {}
    attempts: dict[str, _Attempt] = {}
    for job, answer in in_children(jobs, workers):
        if job.name in attempts:
            tell(_outcome(attempts[job.name], answer))
            continue
        if "died" in answer or answer["failures"]:
            pytest.exit(f"{job.name} fails as it is: {answer.get('died') or answer['failures'][0]}", returncode=2)
        seconds[job.name] = answer["seconds"]
        print(f"{job.name} as it is: {answer['seconds']:.1f} s", flush=True)
        for family, entry, tests in answer["reached"]:
            reached[(family, entry)].update(tests)
        ready = [m for m in waiting if all(f in seconds for f in m.files)]
        waiting = [m for m in waiting if m not in ready]
        for mutant in ready:
            names = reached[(mutant.family, mutant.entry)]
            mine = [i for f in mutant.files for i in by_file[f] if i.nodeid in names]
            if not mine:
                tell(Outcome(mutant.name, "survived", f"no test of {', '.join(mutant.files)} reaches it"))
                continue
            attempts[mutant.name] = _Attempt(mutant, mine, families)
            limit = _PATIENCE[0] + _PATIENCE[1] * sum(seconds[f] for f in mutant.files)
            jobs.appendleft(Job(mutant.name, attempts[mutant.name], limit))


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One mutant and its tests, in a child."""

    mutant: Mutant
    items: list[pytest.Item]
    families: Mapping[str, Family]

    def __call__(self) -> Answer:
        family, applied = self.families[self.mutant.family], [0]

        def note() -> None:
            applied[0] += 1

        family.substitute(self.mutant.entry, lambda function: family.changed(self.mutant.entry, self.mutant.way, function, note))
        failures = run_tests(self.items, lambda f: f.on_numbers or not self.mutant.on_numbers)
        return {"applied": applied[0], "failures": [asdict(f) for f in failures]}


def _outcome(attempt: _Attempt, answer: Answer) -> Outcome:
    mutant, count = attempt.mutant, len(attempt.items)
    if "died" in answer:
        return Outcome(mutant.name, "survived", f"the tests died or did not end: {answer['died'][-300:]}", count)
    failures = [Failure(**f) for f in answer["failures"]]
    deadly = [f for f in failures if f.on_numbers or not mutant.on_numbers]
    if deadly:
        return Outcome(mutant.name, "killed", deadly[0].test, count)
    if failures:
        return Outcome(
            mutant.name, "survived", f"no numbers differ, though {failures[0].test} fails: {failures[0].message}", count
        )
    if not answer["applied"]:
        if mutant.way in attempt.families[mutant.family].may_not_apply:
            return Outcome(mutant.name, "none", "nothing to change", count)
        return Outcome(mutant.name, "survived", "no test has anything that is changed", count)
    return Outcome(mutant.name, "survived", f"{count} tests reach it and pass", count)


@dataclass(frozen=True, slots=True)
class _Watch:
    """The tests of one file as they are, in a child that notes what they reach."""

    items: list[pytest.Item]
    entries: list[tuple[str, str]]
    families: Mapping[str, Family]

    def __call__(self) -> Answer:
        reached: dict[tuple[str, str], dict[str, None]] = {e: {} for e in self.entries}
        current = [""]
        for key in self.entries:
            family = self.families[key[0]]
            family.substitute(key[1], partial(_noting, family=family, tests=reached[key], current=current))
        start = time.monotonic()

        def begin(test: str) -> None:
            current[0] = test

        failures = run_tests(self.items, lambda f: True, begin)
        found = [(family, entry, list(tests)) for (family, entry), tests in reached.items()]
        return {"failures": [asdict(f) for f in failures], "reached": found, "seconds": time.monotonic() - start}


def _noting(function: Callable[..., Any], family: Family, tests: dict[str, None], current: list[str]) -> Callable[..., Any]:
    @wraps(function)  # its module tells by which lowering a tactic was listed
    def call(*arguments: Any, **options: Any) -> Any:
        answer = function(*arguments, **options)
        if family.did(answer):
            tests[current[0]] = None
        return answer

    return call


class Record:
    """Outcomes in a file, by mutant. What was killed is not run again; survivors are."""

    def __init__(self, path: Path, *, fresh: bool) -> None:
        self._path = path
        self.outcomes: dict[str, Outcome] = {}
        if path.exists() and not fresh:
            self.outcomes = {o["mutant"]: Outcome(**o) for o in json.loads(path.read_text())}

    def is_done(self, mutant: Mutant) -> bool:
        """True when the mutant was killed, or cannot be."""
        found = self.outcomes.get(mutant.name)
        return found is not None and found.state != "survived"

    def add(self, outcome: Outcome) -> None:
        """Keeps an outcome, and writes all of them."""
        self.outcomes[outcome.mutant] = outcome
        self._path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self._path.with_suffix(".part")
        unfinished.write_text(json.dumps([asdict(o) for o in self.outcomes.values()], indent=1))
        unfinished.replace(self._path)

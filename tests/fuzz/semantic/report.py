"""What a run came to, in one file of JSON that is true at any moment of the run, and a few lines of it for the console."""

import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fuzz.semantic.cases import NBYTES, SECONDS, Outcome, general

_SEEDS = 5  # told of every kind of fault
_WORST = 5  # slowest and largest cases that are told
EVERY_S = 2.0
"""The file is written anew."""


@dataclass
class _Group:
    """Cases that are alike: how many, and the first seeds."""

    count: int = 0
    seeds: list[int] = field(default_factory=list)
    example: str = ""

    def add(self, seed: int, example: str = "") -> None:
        self.count += 1
        self.example = self.example or example
        if len(self.seeds) < _SEEDS:
            self.seeds.append(seed)


@dataclass
class _Kind:
    """The figures of one kind of case."""

    count: int = 0
    compared: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    codes: dict[str, Counter[int]] = field(default_factory=dict)
    slowest: list[tuple[float, int]] = field(default_factory=list)
    largest: list[tuple[int, int]] = field(default_factory=list)
    seeds: list[list[int]] = field(default_factory=list)
    bad: dict[str, _Group] = field(default_factory=dict)
    differences: dict[str, dict[str, _Group]] = field(default_factory=dict)
    excused: dict[str, _Group] = field(default_factory=dict)

    def add(self, outcome: Outcome) -> None:
        self.count += 1
        self.compared += outcome.compared
        for command, code in zip(outcome.commands, outcome.codes, strict=True):
            self.codes.setdefault(command, Counter())[code] += 1
        self.slowest = sorted([*self.slowest, (round(outcome.seconds, 2), outcome.seed)], reverse=True)[:_WORST]
        self.largest = sorted([*self.largest, (outcome.peak_nbytes, outcome.seed)], reverse=True)[:_WORST]
        _extend(self.seeds, outcome.seed)
        faults = list(faults_of(outcome))
        self.outcomes["bad" if faults else "differs" if outcome.difference else _ending(outcome)] += 1
        for fault, example in faults:
            self.bad.setdefault(fault, _Group()).add(outcome.seed, example)
        if outcome.difference:
            told = self.differences.setdefault(outcome.operations, {})
            told.setdefault(general(outcome.difference), _Group()).add(outcome.seed, outcome.difference)
        if outcome.excuse:
            self.excused.setdefault(outcome.excuse, _Group()).add(outcome.seed)

    def to_json(self, name: str) -> dict[str, Any]:
        def grouped(groups: dict[str, _Group]) -> list[dict[str, Any]]:
            ordered = sorted(groups.items(), key=lambda item: -item[1].count)
            return [{"what": what, **vars(group), "again": _again(name, group.seeds[0])} for what, group in ordered]

        return {
            "cases": self.count,
            "seeds_done": self.seeds,
            "outcomes": dict(self.outcomes.most_common()),
            "exit_codes": {command: {str(c): n for c, n in sorted(codes.items())} for command, codes in self.codes.items()},
            "slowest_build_or_open_s": [{"seconds": s, "seed": seed} for s, seed in self.slowest],
            "largest_peak_of_build_or_open": [{"bytes": n, "seed": seed} for n, seed in self.largest],
            "bad": grouped(self.bad),
            "compared_with_onnxruntime": self.compared,
            "differences": {operations: grouped(told) for operations, told in sorted(self.differences.items())},
            "differences_that_are_not_ours": grouped(self.excused),
        }


class Report:
    """Takes outcomes; ``path``, if there is one, gets the file anew every two seconds, whole each time."""

    def __init__(self, kinds: Sequence[str], path: Path | None, **settings: Any) -> None:
        self.kinds = {kind: _Kind() for kind in kinds}
        self._path = path
        self._settings = settings
        self._started = self._written = time.monotonic()

    def add(self, outcome: Outcome) -> None:
        """Counts it."""
        self.kinds[outcome.kind].add(outcome)
        if time.monotonic() - self._written > EVERY_S:
            self.write("running")

    @property
    def clean(self) -> bool:
        """Whether no promise was broken, and every difference is known."""
        return not any(kind.bad or kind.differences for kind in self.kinds.values())

    def write(self, state: str) -> None:
        """The file. ``state``: running, finished, out of time, or interrupted."""
        self._written = time.monotonic()
        if self._path is None:
            return
        beside = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        beside.write_text(json.dumps(self.to_json(state), indent=1) + "\n")
        beside.replace(self._path)

    def to_json(self, state: str) -> dict[str, Any]:
        """All figures, with stable keys."""
        return {
            "state": state,
            "seconds": round(time.monotonic() - self._started, 1),
            **self._settings,
            "limits": {"seconds": SECONDS, "bytes": NBYTES},
            "kinds": {name: kind.to_json(name) for name, kind in self.kinds.items()},
        }

    def lines(self) -> Iterator[str]:
        """For the console: a few figures, then every kind of fault and of difference with a seed."""
        seconds = time.monotonic() - self._started
        for name, kind in self.kinds.items():
            outcomes = ", ".join(f"{what} {count}" for what, count in kind.outcomes.most_common())
            yield f"{name}: {kind.count} cases in {seconds:.0f} s ({kind.count / max(seconds, 1e-9):.1f} a second): {outcomes}"
            if kind.count:
                (slow, slow_seed), (large, large_seed) = kind.slowest[0], kind.largest[0]
                yield f"  slowest {slow:.1f} s (seed {slow_seed}), largest {large >> 20} MiB (seed {large_seed})"
            for what, group in sorted(kind.bad.items(), key=lambda item: -item[1].count):
                yield f"  BAD {group.count}: {what} (seed {group.seeds[0]})"
            for operations, told in kind.differences.items():
                for group in told.values():
                    yield f"  DIFFERS {group.count}: {operations}: {group.example} (seed {group.seeds[0]})"
            if name == "models":
                excused = sum(group.count for group in kind.excused.values())
                yield f"  compared with ONNX Runtime {kind.compared}, of these differ for reasons of its own {excused}"


def faults_of(outcome: Outcome) -> Iterator[tuple[str, str]]:
    """The promises that are broken: what is alike in all such cases, and the words of this one."""
    wrong = [(command, code) for command, code in zip(outcome.commands, outcome.codes, strict=True) if code not in range(7)]
    for command, code in wrong:
        yield f"{command} ended with {code}: {outcome.signature}", ""
    if outcome.signature and not wrong:
        yield outcome.signature, ""
    if outcome.unhinted:
        yield f"no hint: {outcome.unhinted}", ""
    if outcome.seconds > SECONDS:
        yield f"more than {SECONDS:g} s to build or open", f"{outcome.seconds:.1f} s"
    if outcome.peak_nbytes > NBYTES:
        yield f"more than {NBYTES >> 20} MiB to build or open", f"{outcome.peak_nbytes >> 20} MiB"


def _ending(outcome: Outcome) -> str:
    """What became of a case that broke no promise."""
    if not any(outcome.codes):
        return "ran"
    how = {
        1: "nothing to verify", 2: "refused as wrong use", 3: "refused as a model", 4: "refused as a plan", 5: "no device",
        6: "beyond a limit",
    }  # fmt: skip
    code = outcome.codes[-1]
    return f"{outcome.commands[-1]}: {how.get(code, f'exit {code}')}"


def _extend(ranges: list[list[int]], seed: int) -> None:
    """Adds ``seed`` to sorted ranges, each of a first and a last seed."""
    for number, (first, last) in enumerate(ranges):
        if seed == last + 1:
            ranges[number][1] = seed
            if number + 1 < len(ranges) and ranges[number + 1][0] == seed + 1:
                ranges[number][1] = ranges.pop(number + 1)[1]
            return
        if seed < first:
            ranges.insert(number, [seed, seed]) if seed != first - 1 else ranges[number].__setitem__(0, seed)
            return
    ranges.append([seed, seed])


def _again(kind: str, seed: int) -> str:
    return f"python -m tests.fuzz.semantic --kind {kind} --seed {seed}"

"""What went on while something was measured: the work of others on the processors, a GPU that was slowed down, a drift."""

import itertools
import math
import os
import statistics
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_STAT = Path("/proc/stat")
_IDLE = (3, 4, 8, 9)  # columns of a processor in /proc/stat that are no work (idle, iowait), or are counted twice (guests)
_SOME = 0.1  # processors: less foreign work than any machine does by itself
_SHARE = 0.1  # of the processors: foreign work from which times of a CPU mean less
_SHORTEST_S = 0.2  # the system counts in hundredths of a second: in less time it tells nothing
_POWER_CAP = "power cap"  # what a large GPU under load is at for as long as one likes
_FAULTS = ("hardware slowdown", "software thermal slowdown", "hardware thermal slowdown", "power brake")
_SHARED = 3.0  # times longer that times become at most by caches, memory, clock and core that others use, too
_CLOCKS = 10.0  # times longer at most on a GPU that is slowed down
_BATCHES = 12  # of the times in their order, that a drift is looked for in
_DRIFT = 0.02  # the least drift worth a word, as a part
_DRIFT_DEVIATIONS = 3.3  # of Kendall's score: one series in a thousand that does not drift is said to


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """A moment: seconds on a clock, and seconds that the processors of this process have been busy; None where nobody tells.

    ``own_s``: those of them that were this process's.
    """

    at_s: float
    busy_s: float | None
    own_s: float

    @classmethod
    def now(cls) -> "CpuTimes":
        """This moment."""
        return cls(time.monotonic(), busy_seconds(), time.process_time())


def busy_seconds(stat: Path = _STAT, cpus: Collection[int] | None = None) -> float | None:
    """Seconds that ``cpus``, by default those that this process may use, have been busy, or taken away by a hypervisor.

    None where the system does not tell.
    """
    if cpus is None:
        cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    wanted = {f"cpu{n}" for n in cpus}
    try:
        rows = [line.split() for line in stat.read_text().splitlines() if line.startswith("cpu")]
        ticks = [sum(int(t) for i, t in enumerate(row[1:]) if i not in _IDLE) for row in rows if row[0] in wanted]
        return sum(ticks) / os.sysconf("SC_CLK_TCK") if len(ticks) == len(wanted) and any(ticks) else None
    except (OSError, ValueError):
        return None


def foreign_cores(before: CpuTimes, after: CpuTimes, others_s: float = 0.0) -> float | None:
    """Processors that were busy with the work of others between two moments; None where nobody tells, or they are too close.

    ``others_s``: seconds of other processes that count as ours.
    """
    if before.busy_s is None or after.busy_s is None or after.at_s - before.at_s < _SHORTEST_S:
        return None
    foreign_s = after.busy_s - before.busy_s - (after.own_s - before.own_s) - others_s
    return max(0.0, foreign_s / (after.at_s - before.at_s))


def is_crowded(foreign: float | None, cores: int, own_threads: int, on_cpu: bool) -> bool:
    """Whether ``foreign`` processors' worth of the work of others bears on what ``own_threads`` measure.

    They do where both together want more than the ``cores`` that there are. What a CPU computes (``on_cpu``) they slow down
    earlier: they share its caches, its memory and its clock.
    """
    if foreign is None:
        return False
    return foreign > max(cores - own_threads, _SOME) or (on_cpu and foreign > max(_SHARE * cores, _SOME))


def drift_of(times: Sequence[float]) -> float | None:
    """The change from the first to the last quarter of ``times``, as a part, where they grow or shrink all along; else None."""
    if len(times) < _BATCHES:
        return None
    bounds = [len(times) * i // _BATCHES for i in range(_BATCHES + 1)]
    medians = [statistics.median(times[a:b]) for a, b in itertools.pairwise(bounds)]
    score = sum((b > a) - (b < a) for i, a in enumerate(medians) for b in medians[i + 1 :])
    deviation = (_BATCHES * (_BATCHES - 1) * (2 * _BATCHES + 5) / 18) ** 0.5
    quarter = _BATCHES // 4
    first, last = statistics.fmean(medians[:quarter]), statistics.fmean(medians[-quarter:])
    change = last / first - 1 if first > 0 else 0.0
    return change if abs(score) > _DRIFT_DEVIATIONS * deviation and abs(change) > _DRIFT else None


def slowdowns(state: Mapping[str, Any]) -> tuple[str, ...]:
    """Why a GPU in this state (``LoadedModel.state``) is slower than it could be; not what somebody set on purpose."""
    return tuple(reason for reason in state.get("throttle_reasons") or () if reason in (_POWER_CAP, *_FAULTS))


@dataclass(frozen=True, slots=True)
class Conditions:
    """What went on while something was measured.

    ``foreign_cores``: processors busy with the work of others, None where nobody tells; ``crowded``: they bear on the times.
    ``slowdowns``: why the GPU was slower than it could be. ``other_processes``: those on the GPU, None where nobody tells.
    ``drift``: the change of the times from beginning to end, as a part; None where there is none. ``own_threads``: those that
    computed what was measured.
    """

    cores: int
    foreign_cores: float | None = None
    crowded: bool = False
    slowdowns: tuple[str, ...] = ()
    other_processes: int | None = None
    drift: float | None = None
    own_threads: int = 1

    @property
    def times_longer(self) -> float:
        """How many times longer disturbances may have made an inference in the middle; infinite where nothing was left."""
        longer = 1.0
        if self.crowded:
            left = self.cores - (self.foreign_cores or 0.0)
            longer *= _SHARED * max(1.0, self.own_threads / left) if left > 0 else math.inf
        return longer * (_CLOCKS if any(reason in _FAULTS for reason in self.slowdowns) else 1.0)

    @property
    def disturbances(self) -> tuple[str, ...]:
        """What made times longer than they are, in words. A power cap does not: such a GPU is no faster at other times."""
        told = []
        if self.crowded:
            told.append(f"foreign load: other work took {self.foreign_cores:.2f} of {self.cores} processors meanwhile")
        faults = [reason for reason in self.slowdowns if reason in _FAULTS]
        return (*told, *([f"the GPU was slowed down: {', '.join(faults)}"] if faults else []))

    @property
    def flags(self) -> tuple[str, ...]:
        """All that makes times mean less, in words."""
        told = list(self.disturbances)
        if _POWER_CAP in self.slowdowns:
            told.append("the GPU was at its power cap")
        if self.other_processes:
            told.append(f"{self.other_processes} other process{'es' * (self.other_processes > 1)} on the GPU")
        if self.drift is not None:
            told.append(f"drift: from beginning to end times changed by {100 * self.drift:+.1f} %")
        return tuple(told)

    def to_json(self) -> dict[str, Any]:
        """Stable keys; ``foreign_cores`` in processors, ``drift`` as a part."""
        return {
            "cores": self.cores,
            "foreign_cores": self.foreign_cores,
            "slowdowns": list(self.slowdowns),
            "other_processes": self.other_processes,
            "drift": self.drift,
            "flags": list(self.flags),
        }


def conditions_of(
    foreign: float | None, state: Mapping[str, Any], times: Sequence[float], *, cores: int, own_threads: int, on_cpu: bool
) -> Conditions:
    """The conditions under which ``times`` were measured, in their order. ``state``: the GPU's; empty on a CPU."""
    others = state.get("other_processes")
    return Conditions(
        cores=cores,
        foreign_cores=foreign,
        crowded=is_crowded(foreign, cores, own_threads, on_cpu),
        slowdowns=slowdowns(state),
        other_processes=None if others is None else len(others),
        drift=drift_of(times),
        own_threads=own_threads,
    )

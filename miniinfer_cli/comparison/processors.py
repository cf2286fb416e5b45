"""The processors that both workers of a pair compute on: the same ones, since processors differ, and so do their neighbours.

Two threads of one core share it, with whoever has the other one; on a virtual machine that may be a stranger, and nothing tells.
Workers that are measured in turns can have the same processors without being in each other's way.
"""

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_TOPOLOGY = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
_THREADS = Path("/proc/self/task")


@dataclass(frozen=True, slots=True)
class Pool:
    """Processors to choose from; the first ``cores`` of them are of different cores. Empty where nothing is to be chosen."""

    cpus: tuple[int, ...] = ()
    cores: int = 0

    @classmethod
    def available(cls, topology: str = _TOPOLOGY) -> "Pool":
        """Those that this process may use; empty where no process can choose."""
        if not hasattr(os, "sched_setaffinity"):
            return cls()
        met: dict[str, int] = {}
        ranked = []
        for cpu in sorted(os.sched_getaffinity(0)):
            core = core_of(cpu, topology)
            met[core] = met.get(core, -1) + 1
            ranked.append((met[core], cpu))
        return cls(tuple(cpu for _, cpu in sorted(ranked)), len(met))

    def of_pair(self, number: int, threads: int) -> tuple[int, ...]:
        """Those for a pair of this ``number``, of workers of so many ``threads``; none where these want all that there are.

        They lie as far apart as may be, on cores of their own if there are enough, and the next pair has others.
        """
        if threads >= len(self.cpus):
            return ()
        pool = self.cpus[: self.cores] if threads <= self.cores else self.cpus
        return tuple(pool[(number + n * len(pool) // threads) % len(pool)] for n in range(threads))


def stay_on(cpus: Sequence[int]) -> None:
    """Every thread of this process computes on these processors from now on, as far as it may."""
    with contextlib.suppress(OSError):
        threads = [int(entry.name) for entry in _THREADS.iterdir()] if _THREADS.is_dir() else [0]
        for thread in threads:
            with contextlib.suppress(OSError):  # it has ended, or it may not
                os.sched_setaffinity(thread, cpus)


def core_of(cpu: int, topology: str = _TOPOLOGY) -> str:
    """What tells the core of a processor from others; its own number where nobody tells."""
    try:
        return Path(topology.format(cpu)).read_text().strip()
    except OSError:
        return str(cpu)

"""What a device can do at best, as it was measured; and the least time that work takes under these ceilings."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from typing import Any, Self

from miniinfer_cli.backends.choosing import Estimate


class Unit(StrEnum):
    """What computes."""

    MATRIX = "matrix"
    """Products and convolutions: the matrix units of a GPU, the matrix library of a CPU."""
    VECTOR = "vector"
    """Everything else."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Which ceiling of computing holds for a step: what computes, in which numbers (``f16``, ``tf32``, ``f32``, ``i8`` ...)."""

    unit: Unit
    numbers: str

    def __str__(self) -> str:
        return f"{self.unit} {self.numbers}"


class Bound(StrEnum):
    """Which of two ceilings a step is nearer to."""

    COMPUTE = "compute"
    MEMORY = "memory"


@dataclass(frozen=True, slots=True)
class Roofline:
    """The least milliseconds that a step's operations take at the peak rate, and its bytes at the bandwidth where they lie.

    ``compute_ms`` is None where the peak of its numbers was not measured.
    """

    compute_ms: float | None
    memory_ms: float

    @property
    def least_ms(self) -> float:
        """The longer of the two: no way of doing it takes less."""
        return max(self.compute_ms or 0.0, self.memory_ms)

    @property
    def bound(self) -> Bound:
        """Which of the two is the longer."""
        return Bound.COMPUTE if (self.compute_ms or 0.0) > self.memory_ms else Bound.MEMORY


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What one device was measured to do at best. GB/s are 1e9 bytes a second; a copy counts what it reads and what it writes.

    ``device`` tells the device, and what its speed hangs on: nothing else is to be compared with these figures. ``tflops``: 1e12
    operations a second by the text of a Rate. ``cache_nbytes``: of the last cache before memory, ``cache_gbps`` its bandwidth.
    ``step_us``: what one more step costs at least, however small (a kernel in a graph; the runtime's part on a CPU).
    ``event_us``: what an event that takes times costs between two kernels of a graph.
    ``threads``: of a CPU, how many computed. What only a GPU has is None on a CPU; what could not be measured is None or missing.
    """

    device: str
    tflops: Mapping[str, float]
    memory_gbps: float
    cache_nbytes: int = 0
    cache_gbps: float | None = None
    step_us: float | None = None
    event_us: float | None = None
    launch_us: float | None = None
    graph_launch_us: float | None = None
    graph_launch_and_wait_us: float | None = None
    h2d_pinned_gbps: float | None = None
    d2h_pinned_gbps: float | None = None
    h2d_pageable_gbps: float | None = None
    threads: int | None = None

    def peak_tflops(self, rate: Rate | None) -> float | None:
        """1e12 operations a second at this rate; None where it was not measured."""
        return None if rate is None else self.tflops.get(str(rate))

    def roofline(
        self, estimate: Estimate, rate: Rate | None, *, weights_nbytes: int = 0, in_cache: bool = False
    ) -> Roofline | None:
        """The least time for an estimate; None where it neither computes nor moves anything.

        ``weights_nbytes`` of its bytes are constants: the rest of the model has driven them out of the cache since the last
        inference, unless all of it fits (``in_cache``). Others come from the cache where they fit into it.
        """
        if not estimate.flops and not estimate.nbytes:
            return None
        peak = self.peak_tflops(rate)
        compute_ms = 0.0 if not estimate.flops else None if not peak else estimate.flops / peak / 1e9
        weights = 0 if in_cache else min(weights_nbytes, estimate.nbytes)
        others = estimate.nbytes - weights
        cached = self.cache_gbps is not None and (in_cache or others <= self.cache_nbytes)
        fastest = max(self.cache_gbps or 0.0, self.memory_gbps) if cached else self.memory_gbps
        return Roofline(compute_ms, (weights / self.memory_gbps + others / fastest) / 1e6)

    def at_best(self, other: "Ceilings") -> "Ceilings":
        """Each figure the better of two measurements of one device: what else runs meanwhile only makes them worse."""
        rates = {r: max(c.tflops[r] for c in (self, other) if r in c.tflops) for r in {**other.tflops, **self.tflops}}
        better = {f.name: _better(f.name, getattr(self, f.name), getattr(other, f.name)) for f in fields(self)}
        return replace(self, **{**better, "device": self.device, "threads": self.threads, "tflops": rates})

    def to_json(self) -> dict[str, Any]:
        """The figures by name."""
        return {**asdict(self), "tflops": dict(self.tflops)}

    @classmethod
    def from_json(cls, document: Any) -> Self | None:
        """What ``to_json`` gave; None for anything else, as a file of another release may hold."""
        if not isinstance(document, Mapping):
            return None
        known: dict[str, Any] = {f.name: document.get(f.name) for f in fields(cls)}
        tflops, memory = known["tflops"], known["memory_gbps"]
        if not isinstance(known["device"], str) or not isinstance(tflops, Mapping) or not all(map(_is_positive, tflops.values())):
            return None
        rest = [value for name, value in known.items() if name not in ("device", "tflops", "memory_gbps", "cache_nbytes")]
        if not _is_positive(memory) or not all(value is None or _is_positive(value) for value in rest):
            return None
        cache = known["cache_nbytes"]
        return cls(**known) if type(cache) is int and cache >= 0 else None


def _better(name: str, one: Any, other: Any) -> Any:
    """Of two figures, None where neither is there: the smaller one of times, else the larger one."""
    known = [figure for figure in (one, other) if isinstance(figure, (int, float))]
    if not known:
        return one
    return min(known) if name.endswith("_us") else max(known)


def _is_positive(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < 1e18

"""Layers: what each step of a program took, beside what it computes, and what the device could do at best."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from miniinfer_cli.backends.ceilings import Bound, Ceilings, Rate, Roofline
from miniinfer_cli.backends.choosing import Choice, Estimate
from miniinfer_cli.backends.interface import LaunchedKernel, Program, StepRound, TimedBy


@dataclass(frozen=True, slots=True)
class Layer:
    """One step: the node's name, its operation, how it runs, and the median, least and most milliseconds it took.

    ``choice``: who chose that, over what; ``estimate``: what it does at least. None where nobody chose, or knows.
    ``kernels``: those that it launches on a GPU. ``origins``: the nodes of the ONNX model that it computes, by name.
    ``rate``: which ceiling of computing holds for it. ``weights_nbytes``: bytes of constants that it reads. ``gap_ms``: the
    median of what passes in front of it while nothing computes; None where that could not be told. ``share``: its part of the
    sum of all layers, from 0 to 1. ``roofline``: its least time under the device's ceilings; None where these, or what it does,
    are not known.
    """

    label: str
    kind: str
    tactic: str
    choice: Choice | None
    estimate: Estimate | None
    median_ms: float
    min_ms: float
    max_ms: float
    kernels: Sequence[LaunchedKernel] = ()
    origins: tuple[str, ...] = ()
    rate: Rate | None = None
    weights_nbytes: int = 0
    gap_ms: float | None = None
    share: float = 0.0
    reads: tuple[int, ...] = ()
    """The places in the program of the layers whose results it reads."""
    roofline: Roofline | None = None

    @property
    def chooser(self) -> str:
        """Who chose how it runs, in a word; empty where nobody did."""
        return "" if self.choice is None else str(self.choice.chosen_by)

    @property
    def choosers(self) -> str:
        """The same behind who chose the join, where that is another."""
        join = None if self.choice is None else self.choice.join
        return ", ".join(dict.fromkeys([str(join.chosen_by), self.chooser] if join is not None else [self.chooser]))

    @property
    def how(self) -> str:
        """How it runs; behind the key of a join, where it does the work of several nodes."""
        return self.tactic if self.choice is None else self.choice.how

    @property
    def tuned_us(self) -> float | None:
        """What the tactic took when it was tuned, in microseconds; None where nobody timed it."""
        return None if self.choice is None else self.choice.time_us

    @property
    def tflops(self) -> float | None:
        """1e12 operations a second that the estimate comes to in the median time."""
        return None if self.estimate is None or not self.median_ms else self.estimate.flops / self.median_ms / 1e9

    @property
    def gbps(self) -> float | None:
        """1e9 bytes a second that the estimate comes to in the median time."""
        return None if self.estimate is None or not self.median_ms else self.estimate.nbytes / self.median_ms / 1e6

    @property
    def efficiency(self) -> float | None:
        """The least time under the ceilings as a part of the median time: 1 is as fast as the device can."""
        return None if self.roofline is None or not self.median_ms else self.roofline.least_ms / self.median_ms

    @property
    def bound(self) -> Bound | None:
        """Which of the two ceilings it is nearer to; None where they are not known."""
        return None if self.roofline is None else self.roofline.bound

    def to_json(self) -> dict[str, Any]:
        """The layer with stable keys."""
        return {
            "node": self.label,
            "origins": list(self.origins),
            "operation": self.kind,
            "reads": list(self.reads),
            "tactic": self.tactic,
            "chosen_by": self.chooser or None,
            "tuned_us": self.tuned_us,
            "join": self._join(),
            "refused": [asdict(r) for r in self.choice.refused] if self.choice is not None else [],
            "flops": None if self.estimate is None else self.estimate.flops,
            "bytes": None if self.estimate is None else self.estimate.nbytes,
            "weights_bytes": self.weights_nbytes,
            "median_ms": self.median_ms,
            "min_ms": self.min_ms,
            "max_ms": self.max_ms,
            "gap_ms": self.gap_ms,
            "share": self.share,
            "tflops": self.tflops,
            "gbps": self.gbps,
            "rate": None if self.rate is None else str(self.rate),
            "roofline": self._roofline(),
            "kernels": [
                {"kernel": k.kernel, "registers": k.registers, "local_bytes": k.local_nbytes, "shared_bytes": k.shared_nbytes}
                for k in self.kernels
            ],
        }

    def _join(self) -> dict[str, Any] | None:
        join = None if self.choice is None else self.choice.join
        if join is None:
            return None
        return {"key": join.key, "chosen_by": str(join.chosen_by), "nodes": list(join.nodes), "tuned_us": join.time_us}

    def _roofline(self) -> dict[str, Any] | None:
        if self.roofline is None:
            return None
        least = {"compute_ms": self.roofline.compute_ms, "memory_ms": self.roofline.memory_ms}
        return {**least, "bound_by": str(self.roofline.bound), "fraction": self.efficiency}


def layers_of(
    program: Program,
    rounds: Sequence[StepRound],
    ceilings: Ceilings | None = None,
    *,
    weights_nbytes: int = 0,
    bindings_nbytes: int = 0,
) -> list[Layer]:
    """The layers of a program in its order, by at least one round of it.

    ``weights_nbytes`` of the whole model, and ``bindings_nbytes`` of its inputs and outputs, decide whether all that an inference
    touches stays in the device's cache.
    """
    gaps, within_ms = _gaps_ms(rounds, ceilings)
    columns = [[max(t / 1e6 - less, 0.0) for t in column] for column, less in zip(_columns(rounds), within_ms, strict=True)]
    medians = [statistics.median(column) for column in columns]
    total = sum(medians)
    touched_nbytes = weights_nbytes + program.activation_nbytes + bindings_nbytes
    in_cache = ceilings is not None and touched_nbytes <= ceilings.cache_nbytes
    return [
        Layer(
            *(step.label, step.kind, step.tactic, step.choice, step.estimate),
            *(median, min(column), max(column)),
            kernels,
            origins=step.origins,
            rate=step.rate,
            weights_nbytes=step.weights_nbytes,
            gap_ms=gap,
            share=median / total if total else 0.0,
            reads=tuple(reads),
            roofline=None
            if ceilings is None or step.estimate is None
            else ceilings.roofline(step.estimate, step.rate, weights_nbytes=step.weights_nbytes, in_cache=in_cache),
        )
        for step, kernels, reads, column, median, gap in zip(
            program.steps, program.launched_kernels(), program.sources(), columns, medians, gaps, strict=True
        )
    ]


def _columns(rounds: Sequence[StepRound]) -> list[tuple[float, ...]]:
    """Nanoseconds of each step in all rounds."""
    return list(zip(*(r.steps_ns for r in rounds), strict=True))


def _gaps_ms(rounds: Sequence[StepRound], ceilings: Ceilings | None) -> tuple[list[float | None], list[float]]:
    """The gap in front of each step, None where it could not be told; and what is to be taken off the step's own times; in ms.

    Between kernels an event takes longer than with no work around it, by the ceilings; this is taken off. In a replay no event
    tells a launch from the work: a step is taken to wait as long as the launch of a kernel that does nothing takes there.
    """
    last = rounds[-1]
    event_us = None if ceilings is None else ceilings.event_us
    in_graph = last.way in (TimedBy.REPLAY, TimedBy.STREAM) and last.event_ns > 0
    longer_ms = max(event_us / 1e3 - last.event_ns / 1e6, 0.0) if in_graph and event_us is not None else 0.0
    within = [min(longer_ms, min(column) / 1e6) for column in _columns(rounds)]
    measured = [r.gaps_ns for r in rounds if r.gaps_ns is not None]
    if measured:
        found = [statistics.median(column) / 1e6 for column in zip(*measured, strict=True)]
        return [gap + less if gap else gap for gap, less in zip(found, within, strict=True)], within
    step_us = None if ceilings is None else ceilings.step_us
    if last.way is not TimedBy.REPLAY or step_us is None:
        return [None] * len(within), within
    gaps = [min(step_us / 1e3, min(column) / 1e6 - less) for column, less in zip(_columns(rounds), within, strict=True)]
    return [*gaps], [gap + less for gap, less in zip(gaps, within, strict=True)]

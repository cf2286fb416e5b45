"""Where the time of an inference goes: its layers, what lies between them, and what the host takes around them."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from miniinfer_cli.backends.ceilings import Ceilings
from miniinfer_cli.backends.interface import StepRound, TimedBy
from miniinfer_cli.measuring.layers import Layer


@dataclass(frozen=True, slots=True)
class Synchronized:
    """Inferences that somebody waited for one by one: medians in ms over ``count`` of them.

    ``wall_ms``: from the call to the result in the caller's hands, by the host's clock. ``copies_in_ms``, ``compute_ms`` and
    ``copies_out_ms``: the device's part, by events on a GPU. ``enqueue_ms``: the host's time to enqueue one; 0 where the call
    computes.
    """

    count: int
    wall_ms: float
    copies_in_ms: float
    compute_ms: float
    copies_out_ms: float
    enqueue_ms: float


@dataclass(frozen=True, slots=True)
class Account:
    """The parts of one inference that somebody waits for, in ms, by ``count`` of them. They add up to ``whole_ms``.

    ``layers_ms`` and ``gaps_ms``: sums over the layers, timed as ``way`` says. ``launch_ms``: what the host takes to enqueue it,
    as far as nothing computes meanwhile; ``synchronization_ms``: until the host has noticed the end, and whatever else it does
    around the device's work. ``unexplained_ms``: the computation as a whole, timed without looking into it, beyond layers and
    gaps; below zero where looking into it takes longer.
    """

    way: TimedBy
    count: int
    whole_ms: float
    copies_in_ms: float
    layers_ms: float
    gaps_ms: float
    copies_out_ms: float
    launch_ms: float
    synchronization_ms: float
    compute_ms: float

    @property
    def unexplained_ms(self) -> float:
        """Of the computation, what is in no layer and in no gap."""
        return self.compute_ms - self.layers_ms - self.gaps_ms

    def rows(self) -> list[tuple[str, float]]:
        """The parts in the order in which they happen, and what is left; they add up to the whole."""
        return [
            ("launch", self.launch_ms),
            ("copies in", self.copies_in_ms),
            ("layers", self.layers_ms),
            ("gaps", self.gaps_ms),
            ("unexplained", self.unexplained_ms),
            ("copies out", self.copies_out_ms),
            ("synchronization", self.synchronization_ms),
        ]

    def to_json(self) -> dict[str, Any]:
        """The account with stable keys."""
        head = {"timed_by": str(self.way), "inferences": self.count, "whole_ms": self.whole_ms}
        return {**head, **{f"{name.replace(' ', '_')}_ms": ms for name, ms in self.rows()}}


def account_of(layers: Sequence[Layer], way: TimedBy, whole: Synchronized) -> Account:
    """Where the time of the inferences that were waited for goes."""
    device_ms = whole.copies_in_ms + whole.compute_ms + whole.copies_out_ms
    around_ms = max(whole.wall_ms - device_ms, 0.0)
    launch_ms = min(whole.enqueue_ms, around_ms)
    return Account(
        way=way,
        count=whole.count,
        whole_ms=device_ms + around_ms,
        copies_in_ms=whole.copies_in_ms,
        layers_ms=sum(layer.median_ms for layer in layers),
        gaps_ms=sum(layer.gap_ms or 0.0 for layer in layers),
        copies_out_ms=whole.copies_out_ms,
        launch_ms=launch_ms,
        synchronization_ms=around_ms - launch_ms,
        compute_ms=whole.compute_ms,
    )


@dataclass(frozen=True, slots=True)
class LayerProfile:
    """A program layer by layer, in its order: what each took in ``rounds``, and how that makes up an inference."""

    layers: Sequence[Layer]
    rounds: Sequence[StepRound]
    account: Account
    ceilings: Ceilings | None

    def rounds_to_json(self) -> list[dict[str, Any]]:
        """Every layer with what it took in each round, in ms, as it was timed: with its launch, where that is within."""
        columns = zip(*(r.steps_ns for r in self.rounds), strict=True)
        return [
            {**layer.to_json(), "times_ms": [ns / 1e6 for ns in column]}
            for layer, column in zip(self.layers, columns, strict=True)
        ]


def summed_up(
    wall_ms: Sequence[float], device_ms: Sequence[tuple[float, float, float]], enqueue_ms: Sequence[float]
) -> Synchronized:
    """Medians of what each inference took; ``device_ms`` has copies in, computation and copies out of each."""
    copies_in, compute, copies_out = (statistics.median(column) for column in zip(*device_ms, strict=True))
    return Synchronized(
        len(wall_ms), statistics.median(wall_ms), copies_in, compute, copies_out, statistics.median(enqueue_ms or [0.0])
    )

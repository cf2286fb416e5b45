"""What a diagnosis says: findings and remarks, each with the numbers that prove it, and what may be done about it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from miniinfer_cli.wording import as_flags

WORTH_TELLING = 0.15
"""The part of the time from which on a gain is claimed."""

Basis = Literal["measured", "computed"]


class Kind(StrEnum):
    """What bounds a run or a layer: what would have to be faster, or less, for it to take less time."""

    COMPUTE = "compute"
    """The arithmetic units."""
    MEMORY = "memory"
    """The bandwidth of the device's memory."""
    TRANSFER = "transfer"
    """Copies between host and device."""
    LAUNCH = "launch"
    """What each step costs however small it is: launches on a GPU, calls on a CPU."""
    SYNCHRONIZATION = "synchronization"
    """Waiting for the device, and handing results over, between two inferences."""
    HOST_STEP = "host step"
    """Steps that a reference computes on the host."""
    BALANCED = "balanced"
    """No single one of these."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A number that proves a claim: what it is of, its value, and its unit (empty for a count)."""

    what: str
    value: float
    unit: str = ""

    def __str__(self) -> str:
        number = f"{self.value:,.0f}".replace(",", " ") if self.value == int(self.value) else f"{self.value:.3g}"
        if abs(self.value) >= 1000 and self.value != int(self.value):
            number = f"{self.value:.0f}"
        return f"{self.what} {number}{' ' + self.unit if self.unit else ''}"

    def to_json(self) -> dict[str, Any]:
        """Keys ``what``, ``value``, ``unit``."""
        return {"what": self.what, "value": self.value, "unit": self.unit}


@dataclass(frozen=True, slots=True)
class Gain:
    """What an advice is worth: milliseconds of one inference now, and with the advice, both at the batch of the run.

    ``of``: what these milliseconds are. ``throughput``: of the wall time over the inferences in it; ``latency``: of one
    inference by itself. ``basis``: both were measured, or the second was computed from measured figures.
    """

    before_ms: float
    after_ms: float
    basis: Basis
    of: Literal["throughput", "latency"] = "throughput"

    @property
    def saved_ms(self) -> float:
        """Milliseconds of an inference that it saves."""
        return self.before_ms - self.after_ms

    @property
    def share(self) -> float:
        """The same as a part of the time now."""
        return self.saved_ms / self.before_ms if self.before_ms > 0 else 0.0

    def __str__(self) -> str:
        per = "an inference" if self.of == "latency" else "an inference of wall time"
        return f"saves {self.saved_ms:.4g} ms of {self.before_ms:.4g} ms {per} ({100 * self.share:.0f} %, {self.basis})"


@dataclass(frozen=True, slots=True)
class Advice:
    """What may be done: ``what`` in a sentence, ``how``: the flag, or the change of the model; a Wording where it names one.

    ``gain``: None where none is claimed. ``name``: a word or two for it, stable. ``flags``: of ``command``, where flags are all
    that it takes; one that is to be left out has False. ``note``: what it costs, or on what it hangs. ``names``: the inputs or
    outputs that it is about.
    """

    what: str
    how: str
    gain: Gain | None = None
    name: str = ""
    command: Literal["build", "run"] | None = None
    flags: Mapping[str, str | bool] = field(default_factory=dict)
    note: str = ""
    names: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The same with stable keys; times are in ms."""
        gain = self.gain
        return {
            "name": self.name or None,
            "what": self.what,
            "how": as_flags(self.how),
            "command": self.command,
            "flags": dict(self.flags),
            "names": list(self.names),
            "gain_ms": None if gain is None else gain.saved_ms,
            "before_ms": None if gain is None else gain.before_ms,
            "after_ms": None if gain is None else gain.after_ms,
            "basis": None if gain is None else gain.basis,
            "of": None if gain is None else gain.of,
            "note": self.note,
        }


@dataclass(frozen=True, slots=True)
class Finding:
    """What bounds ``of`` (``run``, or the name of a layer), the numbers that prove it, and what may be done about it."""

    kind: Kind
    of: str
    text: str
    evidence: tuple[Figure, ...]
    advice: tuple[Advice, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The same with stable keys."""
        return {
            "kind": str(self.kind),
            "of": self.of,
            "text": self.text,
            "evidence": [f.to_json() for f in self.evidence],
            "advice": [a.to_json() for a in self.advice],
        }


@dataclass(frozen=True, slots=True)
class Remark:
    """What a graph says with no run: the ``rule`` that finds it, the nodes or bindings it is about, numbers, and the advice.

    ``on``: where it costs time, ``gpu``, or ``any`` device.
    """

    rule: str
    nodes: tuple[str, ...]
    text: str
    evidence: tuple[Figure, ...]
    advice: Advice
    on: Literal["any", "gpu"] = "any"

    def to_json(self) -> dict[str, Any]:
        """The same with stable keys."""
        return {
            "rule": self.rule,
            "on": self.on,
            "nodes": list(self.nodes),
            "text": self.text,
            "evidence": [f.to_json() for f in self.evidence],
            "what": self.advice.what,
            "how": as_flags(self.advice.how),
        }

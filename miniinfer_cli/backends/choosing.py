"""Who chooses among the tactics of a node, what was chosen, and what that costs at least: the records that reports show."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from engine_format import TacticRecord


class Chooser(StrEnum):
    """Who chose a tactic."""

    HEURISTIC = "heuristic"
    """The order in which a family lists its tactics, known with no device."""
    FORCED = "forced"
    """The user, by node and key."""
    PLAN = "plan"
    """A tactic record of the plan, made for this GPU."""
    PLAN_NEAR = "plan (near)"
    """The same, of a product or batch of nearly as many rows."""
    CACHE = "timing cache"
    """A tactic record of the timing cache."""
    CACHE_NEAR = "timing cache (near)"
    """The same, of nearly as many rows."""
    TRIAL = "trial"
    """The tuner, while it tries one way after the other."""


@dataclass(frozen=True, slots=True)
class Found:
    """A tactic record that a table has for a signature, and who chooses when it is taken."""

    record: TacticRecord
    chooser: Chooser


class Table(Protocol):
    """Tactic records by signature."""

    def find(self, signature: str) -> Iterable[Found]:
        """What there is for the signature, what is to be tried first at the front."""

    def pass_over(self, found: Found, reason: str) -> None:
        """Notes that a record was found and cannot be taken."""


class NoTable:
    """A table without records."""

    def find(self, signature: str) -> Iterable[Found]:
        """Nothing."""
        return ()

    def pass_over(self, found: Found, reason: str) -> None:
        """Nothing was found."""


NO_TABLE = NoTable()


@dataclass(frozen=True, slots=True)
class Policy:
    """The heuristic takes the first tactic of a list that may be taken; ``table``, ``forced`` and ``disabled`` bend it.

    ``table``: tactics found best for what a node computes, taken where they may be. ``forced``: the key of the tactic for a node,
    by the node's name. ``disabled``: keys that nobody may take; one that is a word stands for all tactics of that word (``gemm``
    for ``gemm 64x64 in 4 parts``).
    """

    forced: Mapping[str, str] = field(default_factory=dict)
    disabled: frozenset[str] = frozenset()
    table: Table = NO_TABLE

    def disables(self, key: str) -> bool:
        """True when the tactic of this key may not be taken."""
        return key in self.disabled or key.split(" ", 1)[0].rstrip(",") in self.disabled


HEURISTIC = Policy()
"""Nobody bends the heuristic."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A tactic that stood before the chosen one in its list, and why it was not taken."""

    key: str
    reason: str


@dataclass(frozen=True, slots=True)
class Joined:
    """The join by which a step does the work of several nodes of the graph, ``nodes``: its key, and who chose it.

    ``time_us``: what these nodes took so when they were tuned; None where nobody timed it.
    """

    key: str
    chosen_by: Chooser
    nodes: tuple[str, ...]
    time_us: float | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """What a step does, by the key of its tactic; who chose it, and what was refused before it.

    ``time_us``: the median that the tactic took when it was tuned; None where nobody timed it. ``join``: whose part the step is,
    where it is of a join.
    """

    key: str
    chosen_by: Chooser = Chooser.HEURISTIC
    refused: tuple[Refused, ...] = ()
    time_us: float | None = None
    join: Joined | None = None

    @property
    def how(self) -> str:
        """The key, behind that of the join."""
        return self.key if self.join is None else f"{self.join.key}: {self.key}"


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a tactic does at least: ``flops``, operations on whole numbers among them, and ``nbytes`` that it reads and writes."""

    flops: int
    nbytes: int

    def __add__(self, other: "Estimate") -> "Estimate":
        """What one and the other do, one after the other."""
        return Estimate(self.flops + other.flops, self.nbytes + other.nbytes)

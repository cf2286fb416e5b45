"""Who chooses among the tactics of a node, what was chosen, and what that costs at least: the records that reports show."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Chooser(StrEnum):
    """Who chose a tactic."""

    HEURISTIC = "heuristic"
    """The order in which a family lists its tactics, known with no device."""
    FORCED = "forced"
    """The user, by node and key."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The heuristic takes the first tactic of a list that may be taken; ``forced`` and ``disabled`` bend it.

    ``forced``: the key of the tactic for a node, by the node's name. ``disabled``: keys that nobody may take; one that is a word
    stands for all tactics of that word (``gemm`` for ``gemm 64x64 in 4 parts``).
    """

    forced: Mapping[str, str] = field(default_factory=dict)
    disabled: frozenset[str] = frozenset()

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
class Choice:
    """What a step does, by the key of its tactic; who chose it, and what was refused before it."""

    key: str
    chosen_by: Chooser = Chooser.HEURISTIC
    refused: tuple[Refused, ...] = ()


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a tactic does at least: ``flops``, operations on whole numbers among them, and ``nbytes`` that it reads and writes."""

    flops: int
    nbytes: int

    def __add__(self, other: "Estimate") -> "Estimate":
        """What one and the other do, one after the other."""
        return Estimate(self.flops + other.flops, self.nbytes + other.nbytes)

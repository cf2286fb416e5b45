"""What keeps its floats in a build that makes integers of others."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KeepFloat:
    """What was asked to stay as it is: ``nodes`` of the model, by name, and operations, ``ops``."""

    nodes: frozenset[str] = frozenset()
    ops: frozenset[str] = frozenset()

    def asks_to_keep(self, op: str, origins: Iterable[str]) -> bool:
        """Whether a node of this operation, which computes these nodes of the model, is to keep its floats."""
        return op in self.ops or not self.nodes.isdisjoint(origins)

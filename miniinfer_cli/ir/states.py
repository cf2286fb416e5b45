"""What of a graph lives between inferences: pairs of an input and an output, and the lengths of caches.

A graph with states is still a function: states and lengths come in by inputs and leave by outputs. Who runs it keeps them.
"""

from dataclasses import dataclass

BUCKETS = (1, 16, 128, 512)
"""Numbers of new tokens that programs are made for."""


@dataclass(frozen=True, slots=True)
class StatePair:
    """The input ``past`` is, at the next inference, what the output ``present`` was at this one.

    ``axis``: where new rows are written behind those that there are, so that all others stay as they were; None where the output
    replaces the input.
    """

    past: str
    present: str
    axis: int | None = None


@dataclass(frozen=True, slots=True)
class States:
    """The pairs of a graph. The rest is of graphs with caches, whose pairs have an axis.

    ``capacity``: rows that a cache has for each slot of the batch. ``length``: the input, i64[batch], that says how many of them
    hold something. ``tokens``: the dimension of inputs and outputs that counts new tokens; empty where their number is fixed.
    ``buckets``: the numbers of new tokens that programs are made for; fewer are padded to one of them.
    """

    pairs: tuple[StatePair, ...]
    capacity: int = 0
    length: str = ""
    tokens: str = ""
    buckets: tuple[int, ...] = BUCKETS

    @property
    def inputs(self) -> frozenset[str]:
        """The inputs that no caller gives."""
        return frozenset([*(p.past for p in self.pairs), *([self.length] if self.length else [])])

    @property
    def outputs(self) -> frozenset[str]:
        """The outputs that no caller is given."""
        return frozenset(p.present for p in self.pairs)

"""Where a program's inputs and outputs lie in the buffers of an I/O slot: one region for each direction, one copy each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from miniinfer_cli.planning.memory import ALIGNMENT


@dataclass(frozen=True, slots=True)
class IoLayout:
    """Offsets in bytes, by slot number, into the region of inputs and the region of outputs."""

    inputs: Mapping[int, int]
    input_nbytes: int
    outputs: Mapping[int, int]
    output_nbytes: int
    handed_nbytes: int
    """Bytes of the region of outputs that are the caller's; behind them lies what replaces states."""


def lay_out(sizes: Sequence[tuple[int, int]]) -> tuple[dict[int, int], int]:
    """Offsets for pairs of slot and bytes, one behind the other, each aligned; and the bytes of all of them."""
    offsets: dict[int, int] = {}
    end = 0
    for slot, nbytes in sizes:
        if slot not in offsets:
            offsets[slot] = end
            end += -(-max(nbytes, 1) // ALIGNMENT) * ALIGNMENT
    return offsets, end

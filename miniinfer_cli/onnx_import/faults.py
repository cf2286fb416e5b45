"""Everything that is wrong with a model, gathered while it is read and told in one error."""

from dataclasses import dataclass

from miniinfer_cli.errors import MiniinferError, ModelError

SHOWN = 20
"""Faults that the message lists; the rest are counted."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: the node it is at (or the tensor, the input ...), the reason, and the way out."""

    place: str
    reason: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}" if self.place else self.reason


class Faults:
    """The faults of one model so far."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def __len__(self) -> int:
        return len(self._faults)

    def add(self, place: str, error: MiniinferError) -> None:
        """Notes ``error`` at ``place``; places inside it (a node of a sub-graph, a tensor) stay in the reason."""
        self._faults.append(Fault(place, ": ".join((*error.where, error.message)), error.hint))

    def raise_any(self) -> None:
        """Raises one ModelError that tells all faults, when there are any."""
        if not self._faults:
            return
        hints = list(dict.fromkeys(f.hint for f in self._faults if f.hint))
        if len(self._faults) == 1:
            raise ModelError(str(self._faults[0]), hint="".join(hints))
        lines = [f"{len(self._faults)} things are wrong with this model:"]
        lines += [f"  {fault}" for fault in self._faults[:SHOWN]]
        if len(self._faults) > SHOWN:
            lines.append(f"  and {len(self._faults) - SHOWN} more")
        raise ModelError("\n".join(lines), hint="; ".join(hints[:3]))

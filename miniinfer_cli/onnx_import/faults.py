"""Everything that is wrong with a model, gathered while it is read and told in one error."""

from collections.abc import Sequence
from dataclasses import dataclass

import onnx

from miniinfer_cli.errors import MiniinferError, ModelError, OutOfMemoryError
from miniinfer_cli.wording import joined

SHOWN = 20
"""Faults that the message lists; the rest are counted."""

_PAGES = {
    "": "https://onnx.ai/onnx/operators/onnx__",
    "ai.onnx.ml": "https://onnx.ai/onnx/operators/onnx_aionnxml_",
    "ai.onnx.preview.training": "https://onnx.ai/onnx/operators/onnx_aionnxpreviewtraining_",
}
"""What comes before an operation's name in the address of its page."""

_HINTS = 3
"""Hints, and pages, that a message has at most."""

_NODES = 3
"""Nodes that a line about several names; the rest are counted."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: what it is at (the graph, a tensor, an input ...), the reason, and the way out.

    ``node`` is the name of the node where it is at one; ``place`` is then the node's operator with its opset.
    """

    place: str
    reason: str
    hint: str = ""
    node: str | None = None


class Faults:
    """The faults of one model so far."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def __len__(self) -> int:
        return len(self._faults)

    def add(self, place: str, error: MiniinferError) -> None:
        """Notes ``error`` at ``place``; places inside it (a node of a sub-graph, a tensor) stay in the reason.

        Raises an OutOfMemoryError at once: that is no fault of the model.
        """
        self._faults.append(Fault(place, _reason(error, place), error.own_hint))

    def add_at_node(self, node: str, operator: str, error: MiniinferError) -> None:
        """Like ``add``, at the node of this name. What is wrong in the same words with several nodes is told once."""
        self._faults.append(Fault(operator, _reason(error, f"node {node!r} ({operator})"), error.own_hint, node))

    def raise_any(self) -> None:
        """Raises one ModelError that tells all faults, when there are any."""
        if not self._faults:
            return
        hints = [*dict.fromkeys(f.hint for f in self._faults if f.hint)][:_HINTS]
        pages = [*dict.fromkeys(_page_of(f.place) for f in self._faults if f.node is not None and not f.hint)]
        if any(pages) and len(hints) < _HINTS:
            hints.append(
                f"mend the node, or export the model again: {' and '.join(filter(None, pages[:_HINTS]))} says what it takes"
            )
        told = self._lines()
        if len(told) == 1:
            raise ModelError(told[0], hint=joined("; ", hints))
        lines = told[:SHOWN] if len(told) <= SHOWN else [*told[:SHOWN], f"and {len(told) - SHOWN} more"]
        raise ModelError(f"{len(told)} things are wrong with this model:", details=lines, hint=joined("; ", hints))

    def _lines(self) -> list[str]:
        """One line for each fault, or for each kind of fault of nodes, in the order in which they came first."""
        nodes: dict[tuple[str, str, bool], list[str]] = {}
        for fault in self._faults:
            nodes.setdefault((fault.place, fault.reason, fault.node is not None), []).append(fault.node or "")
        lines = []
        for (place, reason, at_nodes), names in nodes.items():
            where = f"{named(names, _NODES)} ({place})" if at_nodes else place
            lines += [f"{where}: {reason}" if where else reason] * (1 if at_nodes else len(names))
        return lines


def _reason(error: MiniinferError, place: str) -> str:
    if isinstance(error, OutOfMemoryError):
        raise error.at(place) from None
    return ": ".join((*error.where, error.message))


def _page_of(operator: str) -> str:
    """The address where ONNX says what a node of ``operator`` (``Conv, opset 12``) takes; "" for one that is not ONNX's."""
    domain, _, op = operator.partition(", opset ")[0].rpartition(".")
    return f"{_PAGES[domain]}{op}.html" if domain in _PAGES and onnx.defs.has(op, domain) else ""


def named(nodes: Sequence[str], most: int) -> str:
    """``node 'a'``, or ``12 nodes, the first 'a', 'b' and 'c'``: at most ``most`` of their names."""
    if len(nodes) == 1:
        return f"node {nodes[0]!r}"
    shown = [repr(name) for name in nodes[:most]]
    listed = f"{', '.join(shown[:-1])} and {shown[-1]}"
    return f"nodes {listed}" if len(nodes) <= most else f"{len(nodes)} nodes, the first {listed}"

"""Where two graphs begin to differ: values that both have, by name, made outputs of both, and compared in order."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from engine_format import Plan
from miniinfer_cli.comparison.outputs import Closeness, OutputDifference, compare_output
from miniinfer_cli.ir import Graph, Node, TensorType, Value
from miniinfer_cli.planning.freeze import freeze

_LAST = "_last"  # what the layout pass calls a value whose channels it has moved to the end
_FAR = 0.1  # relative error from which on two values may be one, in another order
REORDERED = "the same numbers in another order"
"""What a value says whose elements a pass has moved, and whose readers know."""
_ROUNDING = 0.1  # part of the tolerance that rounding of single results comes to
_AT_A_TIME = 32  # values that are outputs: all of them lie in memory at once


@dataclass(frozen=True, slots=True)
class Shared:
    """A value of both graphs. ``a_last`` and ``b_last``: its channels are last there, and not in the other."""

    name: str
    a: Value
    b: Value
    a_last: bool = False
    b_last: bool = False

    @property
    def nodes(self) -> tuple[str, ...]:
        """The ONNX nodes that make it: of the side on which more of them are done at once."""
        return max((_origins(v.producer) for v in (self.a, self.b) if v.producer is not None), key=len, default=())

    def arrays(self, a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[Any, Any]:
        """What both sides computed of it, in one layout."""
        x, y = a[self.a.name], b[self.b.name]
        return (_first(x) if self.a_last else x), (_first(y) if self.b_last else y)


@dataclass(frozen=True, slots=True)
class LayerDifference:
    """A value compared: the ONNX nodes that make it, and how far apart both are."""

    nodes: tuple[str, ...]
    difference: OutputDifference

    def to_json(self) -> dict[str, Any]:
        """Stable keys."""
        return {"nodes": list(self.nodes), **self.difference.to_json()}


@dataclass(frozen=True, slots=True)
class ComparedLayers:
    """The values that two graphs share, compared in order up to the group in which one is the first beyond its tolerance.

    ``label``: the inputs, or their sizes. ``shared``: how many values there are; ``values``: how many each graph has.
    """

    label: str
    shared: int
    values: tuple[int, int]
    found: Sequence[LayerDifference]

    @property
    def first(self) -> int | None:
        """The place of the first beyond its tolerance; None where none is."""
        return first_beyond(self.found)

    def named(self, place: int) -> str:
        """A value by its name, and by the nodes of the model that make it."""
        layer = self.found[place]
        nodes = ", ".join(map(repr, layer.nodes))
        which = f"node {nodes}" if len(layer.nodes) == 1 else f"one of the nodes {nodes}"
        return f"{layer.difference.error.name!r}, which {which} makes"

    def to_json(self) -> dict[str, Any]:
        """Stable keys."""
        return {
            "label": self.label,
            "shared_values": self.shared,
            "first": None if self.first is None else self.found[self.first].to_json(),
            "values": [layer.to_json() for layer in self.found],
        }


def first_beyond(layers: Sequence[LayerDifference]) -> int | None:
    """The place of the first value beyond its tolerance; None where none is."""
    return next((n for n, layer in enumerate(layers) if not layer.difference.error.ok), None)


def compared_in_order(
    shared: Sequence[Shared], compare: Callable[[Sequence[Shared]], Iterable[LayerDifference]], told: Callable[[str], None]
) -> list[LayerDifference]:
    """What ``compare`` gives, group by group of values, up to the first group in which one is beyond its tolerance."""
    found: list[LayerDifference] = []
    for start in range(0, len(shared), _AT_A_TIME):
        told(f"layers {start} of {len(shared)}")
        found += compare(shared[start : start + _AT_A_TIME])
        if first_beyond(found) is not None:
            break
    return found


def shared_values(a: Graph, b: Graph) -> list[Shared]:
    """The values that nodes of both graphs make, by name, in the order of the graph that has more of them."""
    made_a, made_b = ({v.name: v for v in _made(g)} for g in (a, b))
    found: dict[str, Shared] = {}
    for name in made_a if len(made_a) >= len(made_b) else made_b:
        base = name.removesuffix(_LAST)
        if name in made_a and name in made_b:
            found[base] = Shared(base, made_a[name], made_b[name])
        elif base in made_a and base + _LAST in made_b:
            found.setdefault(base, Shared(base, made_a[base], made_b[base + _LAST], b_last=True))
        elif base in made_b and base + _LAST in made_a:
            found.setdefault(base, Shared(base, made_a[base + _LAST], made_b[base], a_last=True))
    return [s for s in found.values() if _fit(s)]


def count_values(graph: Graph) -> int:
    """How many values nodes of the graph make."""
    return sum(1 for _ in _made(graph))


def showing(plan: Plan, graph: Graph, values: Sequence[Value]) -> Plan:
    """``plan``, whose graph is ``graph``, with these ``values`` as its outputs, each by its name."""
    graph.set_outputs(values)
    shown = freeze(graph, ranges=plan.ranges, options=plan.report.options, metadata=plan.report.metadata)
    return replace(shown, targets=plan.targets)


def compare_layers(
    shared: Sequence[Shared],
    a: Mapping[str, Any],
    b: Mapping[str, Any],
    tolerances: Mapping[str, float],
    closeness: Closeness | None,
) -> Iterator[LayerDifference]:
    """Each of ``shared``, by the outputs of both; ``tolerances`` by the name of the value, and ``closeness``, as for outputs."""
    for value in shared:
        x, y = value.arrays(a, b)
        tolerance = tolerances.get(value.name, 0.0)
        found = compare_output(value.name, x, y, tolerance, closeness)
        if not found.error.ok and found.error.relative > _FAR and _reordered(x, y, tolerance):
            found = replace(found, error=replace(found.error, ok=True, reason="", says_nothing=REORDERED))
        yield LayerDifference(value.nodes, found)


def steepest(layers: Sequence[LayerDifference]) -> int | None:
    """The place of the value whose error is the most times that of all before it; None where errors never double.

    Errors below a part of the tolerance are rounding, and count as that part.
    """
    best, place, largest = 2.0, None, 0.0
    for number, layer in enumerate(layers):
        error = layer.difference.error
        least = max(largest, error.tolerance * _ROUNDING)
        if error.relative > best * least:
            best, place = error.relative / least if least else best, number
        largest = max(largest, error.relative)
    return place


def _origins(node: Node) -> tuple[str, ...]:
    inner = [origin for part in node.body for origin in part.origins] if node.body is not None else []
    return tuple(dict.fromkeys((*node.origins, *inner)))


def _made(graph: Graph) -> Iterator[Value]:
    """What nodes make, of tensors."""
    for node in graph:
        yield from (v for v in node.outputs if isinstance(v.type, TensorType) and v.constant is None)


def _fit(shared: Shared) -> bool:
    """Whether both may have one shape: a pass may have given a name to something else."""
    ranks = {len(v.type.shape) for v in (shared.a, shared.b) if isinstance(v.type, TensorType) and v.type.shape is not None}
    return len(ranks) < 2


def _reordered(x: Any, y: Any, tolerance: float) -> bool:
    """Whether both hold the same numbers."""
    if not isinstance(x, np.ndarray) or not isinstance(y, np.ndarray) or x.size != y.size or x.dtype.kind in "cOSU":
        return False
    a, b = (np.sort(v.reshape(-1).astype(np.float64)) for v in (x, y))
    return compare_output("", a, b, tolerance).error.ok


def _first(array: Any) -> Any:
    """Channels from the last axis to the second."""
    return np.moveaxis(array, -1, 1) if isinstance(array, np.ndarray) and array.ndim > 2 else array

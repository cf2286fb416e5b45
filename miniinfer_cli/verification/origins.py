"""What each output of a graph goes back to: the random operations before it, and the types that it was computed in."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from miniinfer_cli.ir import DType, Graph, Node, TensorType, Value
from miniinfer_cli.ir.dims import names_in
from miniinfer_cli.ops.pointwise import is_pointwise
from miniinfer_cli.ops.registry import lookup


@dataclass(frozen=True, slots=True)
class Origin:
    """What a value goes back to.

    ``random``: the nodes before it that draw random numbers, as ``Op 'node'``. ``types``: the float types that nodes before
    it compute in, and the integer types to which they round floats. ``products``: whether a node before it may sum products.
    """

    random: frozenset[str] = frozenset()
    types: frozenset[DType] = frozenset()
    products: bool = False

    def __or__(self, other: "Origin") -> "Origin":
        if other in (NOTHING, self):
            return self
        return Origin(self.random | other.random, self.types | other.types, self.products or other.products)


NOTHING = Origin()
"""What an input or a constant goes back to."""


def origins(graph: Graph) -> dict[str, Origin]:
    """The origin of each output of ``graph``, by name."""
    given = {n for v in graph.inputs if isinstance(v.type, TensorType) for d in v.type.shape or () for n in names_in(d)}
    found = _Walk(given).outputs(graph, [NOTHING] * len(graph.inputs), "")
    return dict(zip(graph.output_names, found, strict=True))


def of_sigmoids(graph: Graph) -> frozenset[str]:
    """The outputs of ``graph`` that hold nothing but what Sigmoids gave, moved about at most, by name.

    ONNX Runtime computes that as a fraction in steps of some 3e-8, which next to 0 is all of it.
    """
    found = {n for n, v in zip(graph.output_names, graph.outputs, strict=True) if _is_of_sigmoids(v)}
    return frozenset(found)


def _is_of_sigmoids(value: Value) -> bool:
    pending, seen = [value], set[Value]()
    while pending:
        node = pending.pop().producer
        if node is None:
            return False
        if node.is_op("Sigmoid"):
            continue
        if node.body is not None or node.graphs or not lookup(node.domain, node.op).moves:
            return False
        data = node.inputs if node.is_op("Concat") else node.inputs[:1]
        pending += [v for v in data if v is not None and v not in seen]
        seen.update(v for v in data if v is not None)
    return True


class _Walk:
    """``given``: the names of the dimensions that the inputs show, which nothing random decides."""

    def __init__(self, given: set[str]) -> None:
        self._given = given

    def outputs(self, graph: Graph, inputs: Sequence[Origin], place: str) -> list[Origin]:
        known: dict[Value, Origin] = dict(zip(graph.inputs, inputs, strict=True))
        for node in graph:
            before = [NOTHING if v is None else known.get(v, NOTHING) for v in node.inputs]
            # A node may leave its last outputs out; sub-graphs tell of all.
            known.update(zip(node.outputs, self._node(node, before, place), strict=False))
        return [known.get(v, NOTHING) for v in graph.outputs]

    def _node(self, node: Node, before: Sequence[Origin], place: str) -> list[Origin]:
        if node.body is not None:  # a region is what its body is
            return self.outputs(node.body, before, place)
        if node.graphs:
            inside = f"{place}{node.op} {node.name!r}: "
            if node.is_op("If"):
                return self._branches(node, before, inside)
            return self._rounds(node, before, inside) if node.is_op("Loop", "Scan") else self._mixed(node, before, inside)
        if node.is_op("Shape", "Size") and self._sizes_given(node.inputs[0]):
            return [NOTHING] * len(node.outputs)
        together = _union(before)
        if _draws(node):
            together |= Origin(random=frozenset({f"{place}{node.op} {node.name!r}"}))
        floats = [v for v in node.inputs if v is not None and isinstance(v.type, TensorType) and v.type.dtype.is_float]
        together |= Origin(products=len(floats) > 1 and not is_pointwise(node))
        return [together | Origin(types=_types(value, bool(floats))) for value in node.outputs]

    def _sizes_given(self, value: Value | None) -> bool:
        shape = value.type.shape if value is not None and isinstance(value.type, TensorType) else None
        return shape is not None and all(names_in(d) <= self._given for d in shape)

    def _branches(self, node: Node, before: Sequence[Origin], place: str) -> list[Origin]:
        """An If: what either branch gives, and what decides."""
        given = [self.outputs(g, before[1:], place) for g in node.graphs.values()]
        return [_union([before[0], *found]) for found in zip(*given, strict=True)]

    def _rounds(self, node: Node, before: Sequence[Origin], place: str) -> list[Origin]:
        """A Loop or Scan: what a round hands to the next goes back to all that it is computed from in any round."""
        body = node.graphs["body"]
        loop = node.is_op("Loop")
        # A Loop's body gives its condition first, and takes it behind the number of the round.
        carried = len(node.inputs) - int(node.attrs.get("n_captures", 0)) - (1 if loop else int(node.attrs["num_scan_inputs"]))
        inputs = list(before)
        while True:
            results = self.outputs(body, inputs, place)
            after = list(inputs)
            for index, result in enumerate(results[:carried]):
                after[index + loop] |= result
            if after == inputs:
                break
            inputs = after
        if not loop:
            return [*inputs[:carried], *results[carried:]]
        going = inputs[0] | inputs[1]
        return [going | origin for origin in (*inputs[2 : carried + 1], *results[carried:])]

    def _mixed(self, node: Node, before: Sequence[Origin], place: str) -> list[Origin]:
        """Any other node with graphs: whatever goes in may reach everything that comes out."""
        together = _union(before)
        found = [_union(self.outputs(g, [together] * len(g.inputs), place)) for g in node.graphs.values()]
        own = [Origin(types=_types(value, True)) for value in node.outputs]
        return [_union([together, *found, origin]) for origin in own]


def _types(output: Value, from_floats: bool) -> frozenset[DType]:
    dtype = output.type.dtype if isinstance(output.type, TensorType) else None
    if dtype is None:
        return frozenset()
    rounded = dtype.is_integer and dtype.bits <= 16 and from_floats
    return frozenset({dtype}) if rounded or dtype.is_float or dtype in (DType.C64, DType.C128) else frozenset()


def _draws(node: Node) -> bool:
    """Whether the node draws random numbers; a Dropout does in training mode only."""
    if not lookup(node.domain, node.op).random:
        return False
    if not node.is_op("Dropout"):
        return True
    mode = node.inputs[2] if len(node.inputs) > 2 else None
    return mode is not None and (mode.constant is None or bool(mode.constant.array().any()))


def _union(many: Iterable[Origin]) -> Origin:
    union = NOTHING
    for one in many:
        union |= one
    return union

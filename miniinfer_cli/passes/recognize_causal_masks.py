"""What Attention can say without its mask is taken out of the mask: that a query sees the keys up to its own place only.

Exporters compute causal masks from positions or from a stored triangle, and And or add them to a mask for padding, which then
stays. On the way what every query may see is dropped, repetitions are left to broadcasting, and a mask of 0 and minus
infinity becomes a boolean one.

Under a mask that forbids by a finite number a query without any visible key weighs all keys alike, which Attention cannot
say: such a mask only becomes ``is_causal`` when it is nothing but causal.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from miniinfer_cli.ir import Dim, DType, Graph, Node, Value, numpy_dtype
from miniinfer_cli.ops import insert
from miniinfer_cli.passes.attention_masks import conjunction, fit_mask, forbids
from miniinfer_cli.passes.cancel_reshapes import VIEWS
from miniinfer_cli.passes.operands import dims, fills
from miniinfer_cli.passes.triangles import CAUSAL, Triangle, triangle, uniform


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of the new mask, of this shape; built once it is clear that there will be one."""

    shape: Sequence[Dim] | None
    build: Callable[[], Value]


def recognize_causal_masks(graph: Graph) -> int:
    """Gives the number of Attention nodes whose mask became simpler."""
    nodes = [n for n in graph.nodes if n.is_op("Attention") and len(n.inputs) == 4 and len(n.outputs) == 1]
    return sum(_rewrite(graph, node) for node in nodes)


def _rewrite(graph: Graph, node: Node) -> bool:
    q, k, _, mask = node.inputs
    if q is None or k is None or mask is None or not dims(mask) or dims(q) is None or dims(k) is None:
        return False
    square = ((dims(q) or ())[-2], (dims(k) or ())[-2])
    if not fills((dims(mask) or ())[-1], square[1]):
        return False  # a short mask forbids the keys that it does not reach
    reader = _Reader(graph, node, square)
    is_bool = mask.tensor.dtype is DType.BOOL
    pattern = triangle(mask)
    if pattern is not None and not is_bool and pattern.lower == 0 and forbids(pattern.upper, mask.tensor.dtype):
        pattern = CAUSAL  # each query sees key 0, so any number that forbids will do
    if pattern == CAUSAL and reader.covers(mask):
        found = _Parts(causal=[_Part(dims(mask), lambda: mask)])
    else:
        found = reader.conditions(mask) if is_bool else reader.added(mask)
    if not (found.causal or found.dropped or (not is_bool and not found.added)):
        return False
    rest = found.build(graph, node)
    graph.set_inputs(node, node.inputs[:3] if rest is None else (*node.inputs[:3], fit_mask(graph, rest, k, -2, node)))
    if found.causal:
        graph.set_attribute(node, "is_causal", 1)
    return True


@dataclass(slots=True)
class _Parts:
    """A mask taken apart: it forbids what is not causal (if there is such a part) and what a condition does not hold for,
    and adds the rest. ``dropped``: something went that had no effect.
    """

    causal: list[_Part] = field(default_factory=list)
    visible: list[_Part] = field(default_factory=list)
    added: list[_Part] = field(default_factory=list)
    dropped: bool = False

    def __add__(self, other: "_Parts") -> "_Parts":
        return _Parts(
            self.causal + other.causal,
            self.visible + other.visible,
            self.added + other.added,
            self.dropped or other.dropped,
        )

    @property
    def is_condition(self) -> bool:
        """True when it is one condition and nothing else."""
        return len(self.visible) == 1 and not self.causal and not self.added

    def build(self, graph: Graph, before: Node) -> Value | None:
        """The mask without its causal part; None when nothing is left."""
        visible = conjunction(graph, [part.build() for part in self.visible], before)
        total: Value | None = None
        for part in self.added:
            mask = part.build()
            total = mask if total is None else insert(graph, "Add", total, mask, before=before, out="mask")
        if total is None or visible is None:
            return visible if total is None else total
        never = graph.add_constant(np.array(-np.inf, numpy_dtype(total.tensor.dtype)), "never")
        return insert(graph, "Where", visible, total, never, before=before, out="mask")


@dataclass(frozen=True, slots=True)
class _Reader:
    """Takes masks apart. ``square``: the number of queries and of keys."""

    graph: Graph
    before: Node
    square: Sequence[Dim]

    def covers(self, value: Value) -> bool:
        """True when ``value`` has a place for every query and every key."""
        shape = (dims(value) or ())[-2:]
        return len(shape) == 2 and all(map(fills, shape, self.square))

    def conditions(self, value: Value, negated: bool = False) -> _Parts:
        """A boolean mask: true, or ``negated`` false, where a key may be seen."""
        node, pattern = value.producer, triangle(value)
        if pattern == Triangle(not negated, not negated):
            return _Parts(dropped=True)
        if pattern == Triangle(not negated, negated) and self.covers(value):
            return _Parts(causal=[self._condition(value, negated)])
        if node is not None and node.is_op("Or" if negated else "And"):
            a, b = node.inputs
            if a is not None and b is not None:
                return self.conditions(a, negated) + self.conditions(b, negated)
        if node is not None and node.is_op("Not") and node.inputs[0] is not None:
            return self.conditions(node.inputs[0], not negated)
        repeated = _repeated(value)
        if repeated is not None:
            return self.conditions(repeated, negated) + _Parts(dropped=True)
        return _Parts(visible=[self._condition(value, negated)])

    def added(self, value: Value) -> _Parts:
        """A mask that is added to the scores."""
        node, pattern = value.producer, triangle(value)
        if pattern == Triangle(0, 0):
            return _Parts(dropped=True)
        if pattern == Triangle(0, -np.inf) and self.covers(value):
            return _Parts(causal=[_Part(dims(value), lambda: value)])
        if node is not None and node.is_op("Add"):
            a, b = node.inputs
            if a is not None and b is not None:
                return self.added(a) + self.added(b)
        if node is not None and node.is_op("Where"):
            return self._selected(node)
        if node is not None and node.is_op("Cast", *VIEWS) and node.inputs[0] is not None:
            return self._viewed(node, node.inputs[0])
        repeated = _repeated(value)
        if repeated is not None:
            return self.added(repeated) + _Parts(dropped=True)
        return _Parts(added=[_Part(dims(value), lambda: value)])

    def _selected(self, node: Node) -> _Parts:
        condition, a, b = node.inputs
        negated = uniform(a) is not None and uniform(a) != 0
        kept, fill = (b, uniform(a)) if negated else (a, uniform(b))
        whole = _Parts(added=[_Part(dims(node.output), lambda: node.output)])
        if condition is None or kept is None or fill is None:
            return whole
        found = self.conditions(condition, negated)
        if fill == -np.inf:
            return found if uniform(kept) == 0 else found + self.added(kept)
        if not found.dropped or uniform(kept) != 0:
            return whole
        found.visible = found.causal + found.visible
        found.causal = []
        if not found.visible:
            return _Parts(dropped=True)

        def narrower() -> Value:
            visible = found.build(self.graph, self.before)
            zero, number = (
                self.graph.add_constant(np.array(n, numpy_dtype(node.output.tensor.dtype)), "fill") for n in (0, fill)
            )
            return insert(self.graph, "Where", visible, zero, number, before=self.before, out=node.output.name)

        return _Parts(added=[_Part(None, narrower)], dropped=True)

    def _viewed(self, node: Node, source: Value) -> _Parts:
        """A view, or another float type, of a mask that is but one condition is that of the condition."""
        is_float = source.tensor.dtype.is_float and node.output.tensor.dtype.is_float
        inner = self.added(source) if is_float else _Parts()
        if not inner.is_condition or inner.visible[0].shape != dims(source):
            return _Parts(added=[_Part(dims(node.output), lambda: node.output)])
        if node.op == "Cast":
            return inner

        def view() -> Value:
            condition = inner.visible[0].build()
            return insert(self.graph, node.op, condition, *node.inputs[1:], before=self.before, out="visible", **node.attrs)

        return _Parts(visible=[_Part(dims(node.output), view)])

    def _condition(self, value: Value, negated: bool) -> _Part:
        def inverse() -> Value:
            return insert(self.graph, "Not", value, before=self.before, out="visible")

        return _Part(dims(value), inverse if negated else lambda: value)


def _repeated(value: Value) -> Value | None:
    """What ``value`` is an Expand of, when broadcasting does the same: the last axis is there already."""
    node = value.producer
    if node is None or not node.is_op("Expand"):
        return None
    source = node.inputs[0]
    return source if dims(source) and (dims(source) or ())[-1:] == (dims(value) or ())[-1:] else None

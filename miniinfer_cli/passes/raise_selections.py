"""What selects rows moves up past operations that work on each row by itself, so that they work on the selected rows alone.

    MatMul, Add, LayerNormalization on [b,197,768], Gather -> [b,768]      Slice -> [b,1,768], MatMul, Add, LayerNormalization

A classifier reads one token of the last layer, a language model the last one; of that layer's products, and of those of the
logits, the other rows are then computed by nobody. Attention works on each query by itself: those that are left see all keys.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from miniinfer_cli.ir import Dim, Graph, Node, Value
from miniinfer_cli.ops import insert
from miniinfer_cli.passes.operands import dims, known_ints
from miniinfer_cli.passes.row_wise import axes_of_rows, pays

_NO_END = (1 << 31) - 1  # what exporters write for "to the end" is this at least


def raise_selections(graph: Graph) -> int:
    """Gives the number of operations that work on selected rows now."""
    count = 0
    work = [node for node in graph.nodes if _selection(node) is not None]
    while work:
        node = work.pop()
        made = _raise(graph, node) if node in graph else []
        count += bool(made)
        work += made
    return count


@dataclass(frozen=True, slots=True)
class _Selection:
    """Fewer elements along an axis: from ``start`` to ``end`` by ``step``, as Slice has them; or the one at ``start``, where the
    axis has an open size and ``end`` is None."""

    axis: int
    start: int
    end: int | None
    step: int = 1

    def is_last(self, size: Dim) -> bool:
        """True for the last element alone of an axis of this size."""
        if isinstance(size, int):
            end = self.start + 1 if self.end is None else self.end
            return list(range(*slice(self.start, end, self.step).indices(size))) == [size - 1]
        return self.start == -1 and (self.end is None or (self.end >= _NO_END and self.step == 1))

    def of(self, graph: Graph, value: Value, axis: int, before: Node) -> Value:
        """The same elements of a value along its ``axis``."""
        name = f"{value.name}_selected"
        if self.end is None:
            at = graph.add_constant(np.array([self.start]), f"{name}_at")
            return insert(graph, "Gather", value, at, before=before, out=name, axis=axis)
        numbers = {"starts": self.start, "ends": self.end, "axes": axis, "steps": self.step}
        operands = [graph.add_constant(np.array([number]), f"{name}_{key}") for key, number in numbers.items()]
        return insert(graph, "Slice", value, *operands, before=before, out=name)


def _selection(node: Node) -> _Selection | None:
    """What a node selects; None where it is anything else, or where it may select all that there is."""
    shape, made = dims(node.inputs[0]) if node.inputs else None, dims(node.output) if len(node.outputs) == 1 else None
    if not shape or made is None:
        return None
    if node.is_op("Gather"):
        index, axis = known_ints(node.inputs[1]), node.attrs.get("axis", 0) % len(shape)
        size = shape[axis]
        if index is None or len(index) != 1 or len(made) > len(shape) or size == 1:
            return None
        if not isinstance(size, int):
            return _Selection(axis, index[0], None)
        start = index[0] % size if -size <= index[0] < size else None
        return None if start is None else _Selection(axis, start, start + 1)
    if not node.is_op("Slice"):
        return None
    starts, ends, axes, steps = (known_ints(v) for v in (*node.inputs[1:], None, None)[:4])
    axes = tuple(range(len(starts or ()))) if len(node.inputs) < 4 or node.inputs[3] is None else axes
    steps = (1,) if len(node.inputs) < 5 or node.inputs[4] is None else steps
    if starts is None or ends is None or axes is None or steps is None or not len(starts) == len(axes) == len(steps) == 1:
        return None
    axis = axes[0] % len(shape)
    size, left = shape[axis], made[axis]
    fewer = isinstance(left, int) and (not isinstance(size, int) or left < size)
    return _Selection(axis, starts[0], ends[0], steps[0]) if fewer else None


def _raise(graph: Graph, node: Node) -> list[Node]:
    """Does the operation in front of a selection behind it; gives the selections of its operands, nothing where it stays."""
    selection, rows = _selection(node), node.inputs[0]
    assert selection is not None and rows is not None
    producer = rows.producer
    if producer is None or graph.is_output(rows):
        return []
    readers = list(dict.fromkeys(rows.users))
    if any(r.inputs[0] is not rows or rows in r.inputs[1:] or _selection(r) != selection for r in readers):
        return []
    axes, attrs = axes_of_rows(producer, selection.axis), _attributes(producer, selection)
    if attrs is None or all(a is None for a in axes) or not pays(graph, producer, selection.axis):
        return []
    operands = [
        v if v is None or a is None else selection.of(graph, v, a, before=producer)
        for v, a in zip(producer.inputs, axes, strict=True)
    ]
    y = insert(graph, producer.op, *operands, before=producer, out=f"{rows.name}_selected", domain=producer.domain, **attrs)
    made = y.producer
    assert made is not None
    graph.add_origins(made, producer.known_origins)
    for reader in readers:
        graph.replace_node(reader, [_as_read(graph, y, reader, selection.axis)])
    graph.remove(producer)
    graph.rename_node(made, producer.name)
    return [v.producer for v, a in zip(operands, axes, strict=True) if v is not None and a is not None and v.producer is not None]


def _as_read(graph: Graph, y: Value, reader: Node, axis: int) -> Value:
    """The selected rows as the reader gave them: without the axis, or with several of one element, where it was a Gather."""
    extra = len(dims(reader.output) or ()) - len(dims(y) or ())
    if extra == 0:
        return y
    axes = graph.add_constant(np.array([axis]), f"{reader.output.name}_axis")
    return insert(graph, "Squeeze", y, axes, before=reader, out=reader.output.name)


def _attributes(node: Node, selection: _Selection) -> Mapping[str, Any] | None:
    """The node's attributes where it works on selected rows; None where it cannot.

    The last of as many queries as keys sees them all, so that alone it has no causal mask.
    """
    if not node.is_op("Attention") or not node.attrs.get("is_causal", 0):
        return node.attrs
    queries, keys = (dims(v) for v in node.inputs[:2])
    if queries is None or keys is None or queries[-2] != keys[-2] or not selection.is_last(queries[-2]):
        return None
    return {**node.attrs, "is_causal": 0}

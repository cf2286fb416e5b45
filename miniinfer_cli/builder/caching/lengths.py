"""Values that follow from lengths in the place of what exporters compute from sizes: positions, lengths and totals, by slot."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from miniinfer_cli.builder.caching.probing import Point
from miniinfer_cli.ir import Array, Dim, DType, Graph, Node, TensorType, Value
from miniinfer_cli.ops.insert import insert
from miniinfer_cli.ops.type_codes import code_of_dtype

Probed = Sequence[tuple[Point, Mapping[Value, Array]]]


@dataclass(frozen=True, slots=True)
class Lengths:
    """The values of lengths in a graph. ``held``: i64[batch], the rows of each slot; ``total``: with the new ones; ``positions``:
    i64[batch,new], where the new ones stand.
    """

    graph: Graph
    held: Value
    total: Value
    positions: Value
    batch: Dim
    new: Dim

    def stand_in(self, value: Value, probed: Probed, before: Node | None) -> Value | None:
        """A value in the place of ``value``, which is one of these, in its type and under its shape; None where it is none.

        What all slots share cannot be by slot, but for a batch that is one.
        """
        kind = value.type
        if not isinstance(kind, TensorType) or kind.shape is None or not kind.dtype.is_integer:
            return None
        arrays = [(point, found[value]) for point, found in probed if value in found]
        if not arrays:
            return None
        rows = _counts_rows(kind.shape, self.new, self.batch)
        if rows and all(_is(array, np.arange(p.held, p.held + p.new)) for p, array in arrays):
            return self._shaped(self.positions, kind, before)
        if not _is_by_slot(kind.shape, self.batch):
            return None
        if all((array == p.held).all() for p, array in arrays):
            return self._shaped(self.held, kind, before)
        if all((array == p.held + p.new).all() for p, array in arrays):
            return self._shaped(self.total, kind, before)
        if all((array == p.held + p.new - 1).all() for p, array in arrays):
            one = self.graph.add_constant(np.array(1, np.int64), "one")
            return self._shaped(insert(self.graph, "Sub", self.total, one, before=before), kind, before)
        return None

    def _shaped(self, made: Value, kind: TensorType, before: Node | None) -> Value:
        """``made`` in another element type, with the axes of ``kind`` that are one."""
        graph, shape = self.graph, kind.shape or ()
        if len(shape) != len(made.tensor.shape or ()):
            rows = 0 if made is not self.positions else next((i for i, d in enumerate(shape) if d == self.new and i), None)
            sizes = [1] * len(shape)
            sizes[0] = -1 if rows in (0, None) else 0
            if rows:
                sizes[rows] = -1
            target = graph.add_constant(np.array(sizes, np.int64), "sizes")
            made = insert(graph, "Reshape", made, target, before=before)
        if kind.dtype is not DType.I64:
            made = insert(graph, "Cast", made, before=before, to=code_of_dtype(kind.dtype))
        return made


def lengths_of(graph: Graph, held: Value, new: Value, axis: int, source: tuple[Value, int] | None) -> Lengths:
    """The lengths of a graph whose input ``held`` has rows by slot, and which writes ``new`` along ``axis`` behind them.

    ``source``: an input and its axis whose size is that of ``new``; None where that is a number.
    """
    first = next(iter(graph), None)
    shape = new.tensor.shape or ()
    size = shape[axis]

    def constant(value: Any, name: str) -> Value:
        return graph.add_constant(np.array(value, np.int64), name)

    if source is None:
        count = constant(size, "new")
    else:
        value, at = source
        count = insert(graph, "Shape", value, before=first, start=at, end=at + 1)
        count = insert(graph, "Squeeze", count, constant([0], "axis"), before=first)
    total = insert(graph, "Add", held, count, before=first)
    places = insert(graph, "Range", constant(0, "begin"), count, constant(1, "step"), before=first)
    column = insert(graph, "Unsqueeze", held, constant([1], "axis"), before=first)
    positions = insert(graph, "Add", column, places, before=first)
    return Lengths(graph, held, total, positions, shape[0], size)


def _is(array: Array, row: Array) -> bool:
    """True where each row of the array holds the same numbers."""
    return array.size % max(len(row), 1) == 0 and bool((array.reshape(-1, len(row)) == row).all())


def _counts_rows(shape: Sequence[Dim], new: Dim, batch: Dim) -> bool:
    """True for a shape of slots, then of new rows among axes of one: ``[batch,1,new]``, say, or ``[1,new]``."""
    if len(shape) < 2:
        return len(shape) == 1 and shape[0] == new and batch == 1 and new != 1
    inner = [d for d in shape[1:] if d != 1]
    return shape[0] in (1, batch) and (inner == [new] or (new == 1 and not inner))


def _is_by_slot(shape: Sequence[Dim], batch: Dim) -> bool:
    """True for a number of each slot."""
    return bool(shape) and shape[0] == batch and all(d == 1 for d in shape[1:])

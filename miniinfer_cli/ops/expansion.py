"""What expansions build with: nodes inserted before the one they replace, constants, and casts where types differ."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from engine_format.dtypes import DType
from miniinfer_cli.ir import Graph, Node, Value, numpy_dtype
from miniinfer_cli.ops.insert import insert, insert_many
from miniinfer_cli.ops.type_codes import code_of_dtype


class Expansion:
    """Builds the replacement of ``node`` just before it; every value comes out typed."""

    def __init__(self, graph: Graph, node: Node) -> None:
        self.graph = graph
        self.node = node

    def input(self, index: int) -> Value | None:
        """Input ``index`` of the node, None when it is left out."""
        return self.node.inputs[index] if index < len(self.node.inputs) else None

    def required(self, index: int) -> Value:
        """Input ``index`` of the node, which its shape rule has seen to be there."""
        value = self.node.inputs[index]
        if value is None:
            raise ValueError(f"{self.node!r} has no input {index}")
        return value

    def op(self, op: str, *inputs: Value | None, **attrs: Any) -> Value:
        """The output of a new node."""
        return insert(self.graph, op, *inputs, before=self.node, **attrs)

    def ops(self, op: str, *inputs: Value | None, n_outputs: int, **attrs: Any) -> tuple[Value, ...]:
        """The outputs of a new node."""
        return insert_many(self.graph, op, *inputs, n_outputs=n_outputs, before=self.node, **attrs)

    def integers(self, items: Sequence[int]) -> Value:
        """A constant i64 vector."""
        return self.graph.add_constant(np.array(items, np.int64))

    def scalar(self, number: float, dtype: DType) -> Value:
        """A constant of rank 0."""
        return self.graph.add_constant(np.array(number, numpy_dtype(dtype)))

    def slice(self, value: Value, start: int, stop: int | None, axis: int) -> Value:
        """``value[start:stop]`` along ``axis``; ``stop`` None goes to the end."""
        last = np.iinfo(np.int64).max if stop is None else stop
        return self.op("Slice", value, self.integers([start]), self.integers([last]), self.integers([axis]))

    def cast(self, value: Value, dtype: DType) -> Value:
        """``value`` in another element type; ``value`` itself when it has it already."""
        if value.tensor.dtype is dtype:
            return value
        return self.op("Cast", value, to=code_of_dtype(dtype))

    def widen(self, value: Value) -> Value:
        """``value`` in f32 when it is a half-width float, as the references compute; ``value`` itself otherwise."""
        return self.cast(value, DType.F32) if value.tensor.dtype.is_half else value

    def inverse_root(self, value: Value, epsilon: float) -> Value:
        """1 / sqrt(value + epsilon)."""
        shifted = self.op("Add", value, self.scalar(epsilon, value.tensor.dtype))
        return self.op("Reciprocal", self.op("Sqrt", shifted))

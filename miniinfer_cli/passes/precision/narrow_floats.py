"""Tensors of f32 become f16 or bf16, with Casts where nodes that keep f32 begin and end, and weights rounded ahead of time.

Inputs and outputs of the graph keep their types, so a sub-graph is rewritten by itself: what goes in and out of it, round by
round for a loop, is what it was.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from miniinfer_cli.ir import DType, Graph, KeptNode, LostWeight, Node, Numerics, TensorType, Value, numpy_dtype
from miniinfer_cli.ops.type_codes import code_of_dtype
from miniinfer_cli.passes.driver import with_subgraphs
from miniinfer_cli.passes.precision.choose_widths import (
    MULTIPLIES,
    Widths,
    choose_widths,
    holds_weights,
    is_f32,
    rounded_operands,
)
from miniinfer_cli.passes.precision.half_constants import loss_of, rounded_constant


def narrow_floats(graph: Graph) -> int:
    """Gives the number of nodes that compute on 16 bits from now on; 0 where the graph has no ``numerics``.

    What keeps f32, and the weights that 16 bits cannot hold, are added to ``numerics``.
    """
    if graph.numerics is None:
        return 0
    widths = choose_widths(graph, graph.numerics)
    narrowed = [n for n in widths.types if rounded_operands(n) or any(is_f32(v.type) for v in n.outputs)]
    kept = [KeptNode(n.name, n.op, n.origins, reason) for n, reason in widths.wide.items() if not _is_plain(n, reason)]
    graph.numerics.kept.extend(k for k in kept if k not in graph.numerics.kept)
    if narrowed:
        _Narrowing(graph, graph.numerics, widths).rewrite()
    return len(narrowed)


def ask(graph: Graph, numerics: Numerics | None) -> None:
    """Tells ``graph`` and its sub-graphs in which numbers they are to be computed: for ``narrow_floats``, and those before it."""
    inner = None if numerics is None else replace(numerics, inner=True)
    for within in with_subgraphs(graph):
        within.numerics = numerics if within is graph else inner


def _is_plain(node: Node, reason: str) -> bool:
    """Whether nothing that matters keeps f32: where it begins, and where numbers of 8 bits do."""
    return _begins_f32(node) or reason == MULTIPLIES or node.is_op("QuantizeLinear", "DequantizeLinear")


def _begins_f32(node: Node) -> bool:
    """A Cast to f32 of what 16 bits hold, where f32 begins."""
    value = node.inputs[0] if node.is_op("Cast") else None
    dtype = value.type.dtype if value is not None and isinstance(value.type, TensorType) else None
    return dtype is not None and (dtype.is_half or dtype is DType.BOOL)


@dataclass
class _Narrowing:
    """``halved``: the values that were f32 and are not any more."""

    graph: Graph
    numerics: Numerics
    widths: Widths
    halved: set[Value] = field(default_factory=set)
    _casts: dict[tuple[Value, DType], Value] = field(default_factory=dict)
    _constants: dict[tuple[Value, bool], Value] = field(default_factory=dict)

    def rewrite(self) -> None:
        for node in self.graph.nodes:
            if node in self.widths.types:
                self._narrow(node)
            elif node in self.widths.wide:
                self._read(
                    node, [self._cast(v, DType.F32, node) if v is not None and v in self.halved else v for v in node.inputs]
                )
        # A result that leaves is widened where it is made, so that what makes it may do that as well.
        nodes = self.graph.nodes
        behind = dict(zip(nodes, (*nodes[1:], None), strict=True))
        outputs = [
            self._cast(v, DType.F32, behind[v.producer]) if v.producer is not None and v in self.halved else v
            for v in self.graph.outputs
        ]
        self.graph.set_outputs(outputs, self.graph.output_names)

    def _narrow(self, node: Node) -> None:
        half, inputs = self.numerics.half, list(node.inputs)
        for i, value in rounded_operands(node):
            inputs[i] = self._constant(value, node, i) if value.constant is not None else self._cast(value, half, node)
        for i, mask in enumerate(node.inputs):
            if mask is not None and inputs[i] is mask and self._is_lossless_mask(node, mask):
                inputs[i] = self._constant(mask, node, i)
        self._read(node, inputs)
        if node.is_op("Cast"):
            self.graph.set_attribute(node, "to", code_of_dtype(half))
        elif node.is_op("ConstantOfShape"):
            value = node.attrs.get("value", np.zeros(1, np.float32))
            self.graph.set_attribute(node, "value", np.asarray(value).astype(numpy_dtype(half)))
        for value, type in zip(node.outputs, self.widths.types[node], strict=True):
            if is_f32(value.type) and not is_f32(type):
                self.halved.add(value)
            self.graph.set_type(value, type)

    def _is_lossless_mask(self, node: Node, value: Value) -> bool:
        """A mask of a model's own (a bias by position, say) of numbers that 16 bits hold; others keep their type."""
        is_mask = node.is_op("Attention") and value.constant is not None and is_f32(value.type)
        return is_mask and value.constant is not None and not loss_of(value.constant, self.numerics.half)[0]

    def _read(self, node: Node, inputs: Sequence[Value | None]) -> None:
        if any(new is not old for new, old in zip(inputs, node.inputs, strict=True)):
            self.graph.set_inputs(node, inputs)

    def _cast(self, value: Value, dtype: DType, before: Node | None) -> Value:
        """``value`` as ``dtype``, for ``before`` and all who come behind it."""
        found = self._casts.get((value, dtype))
        if found is None:
            type = replace(value.tensor, dtype=dtype, known=None)
            name = f"{value.name}_{dtype}"
            found = self.graph.add("Cast", value, out=name, type=type, before=before, to=code_of_dtype(dtype))
            self._casts[value, dtype] = found
        return found

    def _constant(self, value: Value, node: Node, index: int) -> Value:
        """The constant ``value`` rounded, as ``node`` reads it at ``index``; one for all who read it alike."""
        assert value.constant is not None
        weights = holds_weights(node)
        found = self._constants.get((value, weights))
        if found is None:
            loss, told = loss_of(value.constant, self.numerics.half) if weights else ("", "")
            if loss in ("beyond", "vanishes"):
                self.numerics.lost.append(LostWeight(node.origins, value.name, told))
            handle = rounded_constant(value.constant, self.numerics.half, node, index)
            found = self._constants[value, weights] = self.graph.add_constant(handle, value.name)
        return found

"""Weights of few bits as the floats that they stand for: made once, where a plan has them dequantized at every run.

The matrix library multiplies floats; what a weight of 4 bits saves when it is read, it takes many times when it is unfolded.
Exporters write a DequantizeLinear, or a Cast and what scales it: any pointwise work on constants alone.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from miniinfer_cli.backends.cpu.routine import Weights, shape_of
from miniinfer_cli.ir import Array, Constant, DType, Node
from miniinfer_cli.ir.constants import Index, Transposed
from miniinfer_cli.ops.interpreter import interpret_node
from miniinfer_cli.ops.registry import lookup


@dataclass(frozen=True, slots=True, eq=False)
class Dequantized(Constant):
    """What a node gives of constants, computed whenever it is asked for."""

    sources: tuple[Constant | None, ...] = ()
    node: Node | None = None

    def block(self, index: Index) -> Array:
        """The contents at ``index``, of which all are computed."""
        assert self.node is not None
        (result,) = interpret_node(self.node, [None if s is None else s.array() for s in self.sources])
        part: Array = np.asarray(result)[(*index, ...)]  # type: ignore[arg-type]
        return part


def unfolded(node: Node, handles: Sequence[Constant | None], weights: Weights) -> Constant | None:
    """The constant that ``node`` gives, where it makes a matrix, or kernel, of constants element by element, or turns such a one.

    ``handles``: the constants behind its inputs. None where it does something else, or memory is short.
    """
    if node.is_op("DequantizeLinear") or _is_pointwise(node):
        return _dequantized(node, handles, weights)
    source = handles[0] if handles else None
    perm = node.attrs.get("perm")
    if node.is_op("Transpose") and source is not None and _is_dequantized(source) and perm is not None:
        turned = tuple(perm)
        shape = tuple(source.shape[p] for p in turned)
        return weights.unfolded(
            ("Transpose", id(source), turned), source, lambda: Transposed(source.dtype, shape, source, turned)
        )
    return None


def _dequantized(node: Node, handles: Sequence[Constant | None], weights: Weights) -> Constant | None:
    known = all(h is not None or v is None for h, v in zip(handles, node.inputs, strict=True))
    if not known or len(node.outputs) != 1 or not any(handles):
        return None
    kind = node.output.tensor
    if not kind.is_static or kind.dtype is not DType.F32:
        return None
    shape = shape_of(kind)
    if len(shape) < 2:
        return None
    key: tuple[Hashable, ...] = ("node", id(node))
    if node.body is None:  # a copy of the graph, as for a branch, has other nodes that say the same
        key = (node.domain, node.op, tuple(map(id, handles)), tuple(sorted(node.attrs.items())))
    return weights.unfolded(key, (node, handles), lambda: Dequantized(kind.dtype, shape, tuple(handles), node))


def _is_pointwise(node: Node) -> bool:
    """Whether each element of the result is of the elements in its place alone, with nothing random."""
    if node.body is not None:
        return all(_is_pointwise(inner) for inner in node.body)
    meaning = lookup(node.domain, node.op)
    return meaning.pointwise and not meaning.random and not node.graphs


def _is_dequantized(handle: Constant) -> bool:
    while isinstance(handle, Transposed):
        handle = handle.source
    return isinstance(handle, Dequantized)

"""Weights of few bits as the floats that they stand for: made once, where a plan has them dequantized at every run.

The matrix library multiplies floats; what a weight of 4 bits saves when it is read, it takes many times when it is unfolded.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from miniinfer_cli.backends.cpu.routine import Weights, shape_of
from miniinfer_cli.ir import Array, Constant, DType, Node
from miniinfer_cli.ir.constants import Index, Transposed
from miniinfer_cli.ops.registry import lookup


@dataclass(frozen=True, slots=True, eq=False)
class Dequantized(Constant):
    """What a DequantizeLinear of constants gives, computed whenever it is asked for."""

    sources: tuple[Constant | None, ...] = ()
    attrs: dict[str, Any] = field(default_factory=dict)

    def block(self, index: Index) -> Array:
        """The contents at ``index``, of which all are computed."""
        arrays = [None if s is None else s.array() for s in self.sources]
        (result,) = lookup("", "DequantizeLinear").evaluate(arrays, self.attrs, n_outputs=1)
        part: Array = np.asarray(result)[(*index, ...)]  # type: ignore[arg-type]
        return part


def unfolded(node: Node, handles: Sequence[Constant | None], weights: Weights) -> Constant | None:
    """The constant that ``node`` gives, where it dequantizes a matrix, or kernel, of constants, or turns such a one.

    ``handles``: the constants behind its inputs. None where it does something else, or memory is short.
    """
    if node.is_op("DequantizeLinear"):
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
    kind = node.output.tensor
    if not known or not kind.is_static or kind.dtype is not DType.F32:
        return None
    shape = shape_of(kind)
    if len(shape) < 2:
        return None
    key = ("DequantizeLinear", tuple(map(id, handles)), tuple(sorted(node.attrs.items())))
    return weights.unfolded(key, handles, lambda: Dequantized(kind.dtype, shape, tuple(handles), dict(node.attrs)))


def _is_dequantized(handle: Constant) -> bool:
    while isinstance(handle, Transposed):
        handle = handle.source
    return isinstance(handle, Dequantized)

"""Weights of 4 bits, their scales and zero points in the order in which the product of a few tokens reads them, derived once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from miniinfer_cli.backends.cuda.contract.steps import Derived
from miniinfer_cli.backends.cuda.tactics.products.row_product_sm90 import PACKED_STEP, PACKED_STRIP
from miniinfer_cli.ir import Constant, DType, Graph, TensorType, Value
from miniinfer_cli.ir.constants import packed_bytes
from miniinfer_cli.ops import insert
from miniinfer_cli.ops.type_codes import code_of_dtype

NIBBLE_BASE = {DType.F16: 1024, DType.BF16: 128}
"""What a number of 4 bits in the lowest bits of the kernel's words is more than itself (``nibbles.cuh``)."""
_MIDDLE = 8
"""What signed numbers are stored more than they are; others as they are."""


@dataclass(frozen=True, slots=True)
class Nibbles:
    """A matrix of i4 or u4, ``[k, features]`` if ``k_first``, else turned, with scales and zero points for each ``group`` of k.

    Scales and zero points are ``[groups, features]`` or turned in the same way; one number, or one for each feature, where there
    is one group.
    """

    weights: Constant
    scales: Constant
    zeros: Constant | None
    features: int
    k: int
    group: int
    k_first: bool

    @property
    def key(self) -> str:
        """What tells forms of one constant apart."""
        order = "k first" if self.k_first else "k last"
        return f"nibbles {self.features}x{self.k}, {order}, groups of {self.group}"

    @property
    def middle(self) -> int:
        """What a stored number is more than itself."""
        return _MIDDLE if self.weights.dtype is DType.I4 else 0

    @property
    def strips(self) -> int:
        """Of features, the last filled up."""
        return -(-self.features // PACKED_STRIP)

    @property
    def steps(self) -> int:
        """Of k, the last filled up."""
        return -(-self.k // PACKED_STEP)

    @property
    def groups(self) -> int:
        """Of k, with those that only filled up k has."""
        return -(-self.steps * PACKED_STEP // self.group)

    def packed(self) -> Derived:
        """Bytes: by strips, by 16 of k, by lanes (g, t), by words (j), by halves of these, by pairs of k, two numbers each."""
        rows, columns = self._turned(self.k, self.features)
        source = packed_bytes(self.weights, (rows, columns // 2)) if columns % 2 == 0 else self.weights
        graph, value = _begun(source)
        if columns % 2 == 0:
            value = _halves(graph, value, self.middle)
        elif self.middle:
            value = insert(graph, "Cast", value, to=code_of_dtype(DType.I8))
            value = insert(graph, "Add", value, graph.add_constant(np.array(_MIDDLE, np.int8), "middle"))
            value = insert(graph, "Cast", value, to=code_of_dtype(DType.U8))
        else:
            value = insert(graph, "Cast", value, to=code_of_dtype(DType.U8))
        value = _shaped(graph, value, self._turned(self.k, self.features))
        value = _padded(graph, value, self._turned(self.steps * PACKED_STEP, self.strips * PACKED_STRIP))
        # A feature is 16j + 8r + g of its strip, k is 4t + 2p + h of its sixteen.
        by_k, by_feature = (self.steps * PACKED_STEP // 16, 4, 2, 2), (self.strips, 4, 2, 8)
        value = _shaped(graph, value, (*by_k, *by_feature) if self.k_first else (*by_feature, *by_k))
        sixteen, t, p, h, strip, j, r, g = range(8) if self.k_first else (4, 5, 6, 7, 0, 1, 2, 3)
        value = insert(graph, "Transpose", value, perm=[r, strip, sixteen, g, t, j, h, p])
        value = _shaped(graph, value, (2, self.strips * self.steps * PACKED_STEP * PACKED_STRIP // 2))
        low, high = (insert(graph, "Gather", value, graph.add_constant(np.array(i, np.int64), "which"), axis=0) for i in range(2))
        high = insert(graph, "Mul", high, graph.add_constant(np.array(16, np.uint8), "sixteen"))
        graph.set_outputs([insert(graph, "Add", low, high)])
        return Derived((source,), f"{self.key}, packed", graph)

    def scaled(self) -> Derived:
        """The scales in their own type: by strips, by groups, by g, by j, by r."""
        graph, value = _begun(self.scales)
        graph.set_outputs([self._by_groups(graph, value)])
        return Derived((self.scales,), f"{self.key}, scales", graph)

    def points(self, dtype: DType) -> Derived | None:
        """The zero points likewise, as numbers of ``dtype`` that the kernel's words are more than the weights; None for none."""
        if self.zeros is None:
            return None
        graph, value = _begun(self.zeros)
        value = insert(graph, "Cast", value, to=code_of_dtype(DType.F32))
        more = NIBBLE_BASE[dtype] + self.middle
        value = insert(graph, "Add", value, graph.add_constant(np.array(more, np.float32), "more"))
        value = insert(graph, "Cast", value, to=code_of_dtype(dtype))
        graph.set_outputs([self._by_groups(graph, value)])
        return Derived((self.zeros,), f"{self.key}, zero points for {dtype}", graph)

    def _by_groups(self, graph: Graph, value: Value) -> Value:
        shape = tuple(int(n) for n in value.tensor.shape or ())
        there = -(-self.k // self.group)
        if np.prod(shape, dtype=np.int64) == 1 and self.features * there > 1:
            count = graph.add_constant(np.array(self._turned(there, self.features), np.int64), "count")
            value = insert(graph, "Expand", _shaped(graph, value, (1, 1)), count)
        value = _shaped(graph, value, self._turned(there, self.features))
        value = _padded(graph, value, self._turned(self.groups, self.strips * PACKED_STRIP))
        by_feature = (self.strips, 4, 2, 8)
        value = _shaped(graph, value, (self.groups, *by_feature) if self.k_first else (*by_feature, self.groups))
        group, strip, j, r, g = range(5) if self.k_first else (4, 0, 1, 2, 3)
        return insert(graph, "Transpose", value, perm=[strip, group, g, j, r])

    def _turned(self, along_k: int, along_features: int) -> tuple[int, int]:
        return (along_k, along_features) if self.k_first else (along_features, along_k)


def nibbles_of(
    handles: Sequence[Constant | None], shape: Sequence[int], axis: int, block: int, k_axis: int | None = None
) -> Nibbles | None:
    """What kernels read of a DequantizeLinear of constants: weights of ``shape``, scales, zero points; None where they do not.

    ``k_axis``: the axis that a product sums; without it, the one that groups lie along, or that features do not.
    """
    weights, scales, zeros = (*handles, None)[:3]
    if weights is None or scales is None or weights.dtype not in (DType.I4, DType.U4) or len(shape) != 2 or 0 in shape:
        return None
    if zeros is not None and zeros.dtype is not weights.dtype:
        return None
    axis %= 2
    along = k_axis if k_axis is not None else axis if block else 1 - axis
    k, features = shape[along], shape[1 - along]
    if scales.size == 1:
        group = -(-k // PACKED_STEP) * PACKED_STEP if k_axis is not None else 0
    elif block:
        group = block if axis == along and len(scales.shape) == 2 else 0
    else:
        group = -(-k // PACKED_STEP) * PACKED_STEP if axis != along and len(scales.shape) == 1 else 0
    if not group or (group < k and (group < 16 or group & (group - 1))) or (group >= k and group % PACKED_STEP):
        return None
    return Nibbles(weights, scales, zeros, features, k, group, along == 0)


def _begun(constant: Constant) -> tuple[Graph, Value]:
    graph = Graph("nibbles")
    return graph, graph.add_input("numbers", TensorType(constant.dtype, constant.shape))


def _halves(graph: Graph, value: Value, middle: int) -> Value:
    """The numbers of packed bytes, two of each, as u8 ``middle`` more than they are."""

    def number(of: int) -> Value:
        return graph.add_constant(np.array(of, np.uint8), "number")

    parts = insert(graph, "BitwiseAnd", value, number(15)), insert(graph, "BitShift", value, number(4), direction="RIGHT")
    if middle:
        parts = insert(graph, "BitwiseXor", parts[0], number(middle)), insert(graph, "BitwiseXor", parts[1], number(middle))
    last = graph.add_constant(np.array([2], np.int64), "last")
    return insert(graph, "Concat", *(insert(graph, "Unsqueeze", part, last) for part in parts), axis=2)


def _shaped(graph: Graph, value: Value, shape: Sequence[int]) -> Value:
    if tuple(value.tensor.shape or ()) == tuple(shape):
        return value
    return insert(graph, "Reshape", value, graph.add_constant(np.array(shape, np.int64), "shape"))


def _padded(graph: Graph, value: Value, shape: tuple[int, int]) -> Value:
    rows, columns = (int(n) for n in value.tensor.shape or ())
    if (rows, columns) == shape:
        return value
    pads = graph.add_constant(np.array([0, 0, shape[0] - rows, shape[1] - columns], np.int64), "pads")
    return insert(graph, "Pad", value, pads)

"""What a build that multiplies numbers of 8 bits is asked for: their format, and what keeps its floats."""

from collections.abc import Iterable
from dataclasses import dataclass

from engine_format.dtypes import DType


@dataclass(frozen=True, slots=True)
class KeepFloat:
    """What was asked to stay as it is: ``nodes`` of the model, by name, and operations, ``ops``."""

    nodes: frozenset[str] = frozenset()
    ops: frozenset[str] = frozenset()

    def asks_to_keep(self, op: str, origins: Iterable[str]) -> bool:
        """Whether a node of this operation, which computes these nodes of the model, is to keep its floats."""
        return op in self.ops or not self.nodes.isdisjoint(origins)


@dataclass(frozen=True, slots=True)
class NumberFormat:
    """Numbers of 8 bits that stand for floats under a scale: ``name`` as flags have it, the type, and the largest of them.

    The least is as far from 0.
    """

    name: str
    dtype: DType
    largest: float

    @property
    def is_float(self) -> bool:
        """Whether they are floats, which are as fine for small numbers as for large ones."""
        return self.dtype.is_float


FP8_LARGEST = {DType.F8E4M3FN: 448.0, DType.F8E4M3FNUZ: 240.0, DType.F8E5M2: 57344.0, DType.F8E5M2FNUZ: 57344.0}
"""The largest finite number of each type of 8-bit floats. Source: ONNX, float8 types."""
INT8 = NumberFormat("int8", DType.I8, 127.0)
FP8 = NumberFormat("fp8", DType.F8E4M3FN, FP8_LARGEST[DType.F8E4M3FN])
"""OCP's E4M3: four bits of exponent, three of mantissa, no infinities. Source: OCP 8-bit Floating Point Specification 1.0."""
FORMATS = {f.name: f for f in (INT8, FP8)}

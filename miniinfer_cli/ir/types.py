"""What is known of a value before it is computed: element type, shape, and sometimes the contents."""

from dataclasses import dataclass, field
from typing import Any, Union

import numpy as np
import numpy.typing as npt

from engine_format.dtypes import DType
from miniinfer_cli.ir.dims import Dim, is_static

Shape = tuple[Dim, ...]


@dataclass(frozen=True, slots=True)
class TensorType:
    """A tensor's element type and shape; ``shape`` is None when not even the rank is known.

    ``known`` holds the contents where they are known ahead: a numpy array of the element type or, for small integer
    tensors computed from shapes, an array of dtype object whose items are ints and symbolic dimensions. It takes no
    part in comparisons.
    """

    dtype: DType
    shape: Shape | None = None
    known: npt.NDArray[Any] | None = field(default=None, compare=False, repr=False)

    @property
    def rank(self) -> int | None:
        """Number of dimensions, None when unknown."""
        return None if self.shape is None else len(self.shape)

    @property
    def is_static(self) -> bool:
        """True when every dimension is an int."""
        return self.shape is not None and is_static(self.shape)

    @property
    def concrete(self) -> npt.NDArray[Any] | None:
        """``known`` when it is free of symbolic dimensions, as an array of the element type; else None."""
        if self.known is None or self.known.dtype != object or self.dtype is DType.STR:
            return self.known
        items = self.known.reshape(-1)
        if all(isinstance(i, (int, np.integer, bool, np.bool_)) for i in items):
            return self.known.astype(np.bool_ if self.dtype is DType.BOOL else np.dtype(f"int{self.dtype.bits}"))
        return None

    def __str__(self) -> str:
        dims = "[?]" if self.shape is None else "[" + ",".join(map(str, self.shape)) + "]"
        return f"{self.dtype}{dims}"


@dataclass(frozen=True, slots=True)
class SequenceType:
    """A list of values of one type (ONNX sequence); host only. ``element`` None: not known."""

    element: "Type | None"

    def __str__(self) -> str:
        return f"seq({self.element or '?'})"


@dataclass(frozen=True, slots=True)
class OptionalType:
    """A value or nothing (ONNX optional); host only."""

    element: "Type | None"

    def __str__(self) -> str:
        return f"optional({self.element or '?'})"


@dataclass(frozen=True, slots=True)
class MapType:
    """A dictionary (ONNX map, from ai.onnx.ml); host only."""

    key: DType
    element: "Type | None"

    def __str__(self) -> str:
        return f"map({self.key},{self.element or '?'})"


Type = Union[TensorType, SequenceType, OptionalType, MapType]

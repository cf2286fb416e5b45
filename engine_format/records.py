"""The frozen records that a plan is made of: types, values, nodes, graphs, and how the plan was built.

Records are plain data. Sequences are tuples; mappings are not to be changed after they were handed over.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, Union

from engine_format.dtypes import DType

Dim = Union[int, str]
"""A dimension: its size, or a symbolic expression as text (``batch``, ``2*seq+1``)."""

Plain = Union[None, bool, int, float, str, "tuple[Plain, ...]", "Mapping[str, Plain]"]
"""What options and metadata may hold."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor's element type and dimensions; ``dims`` is None where not even the rank is known."""

    dtype: DType
    dims: tuple[Dim, ...] | None


@dataclass(frozen=True, slots=True)
class SequenceSpec:
    """A list of values of one type; ``element`` is None where that is not known."""

    element: "TypeSpec | None"


@dataclass(frozen=True, slots=True)
class OptionalSpec:
    """A value or nothing; ``element`` is None where its type is not known."""

    element: "TypeSpec | None"


@dataclass(frozen=True, slots=True)
class MapSpec:
    """A dictionary; ``element`` is None where the type of its values is not known."""

    key: DType
    element: "TypeSpec | None"


TypeSpec = Union[TensorSpec, SequenceSpec, OptionalSpec, MapSpec]


class Tensor(Protocol):
    """A constant as the writer needs it: it is read once, chunk by chunk, and never held whole."""

    @property
    def dtype(self) -> DType:
        """The element type."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The dimensions."""

    @property
    def nbytes(self) -> int:
        """Bytes when densely packed."""

    def chunks(self) -> Iterator[bytes | memoryview]:
        """The densely packed little-endian elements in row-major order, in pieces of moderate size."""


@dataclass(frozen=True, slots=True)
class ArrayRecord:
    """A small tensor held whole: an attribute, or a constant of strings.

    ``data`` is the densely packed little-endian elements; for ``str`` it is the strings themselves.
    """

    dtype: DType
    shape: tuple[int, ...]
    data: bytes | tuple[str, ...]

    @property
    def nbytes(self) -> int:
        """Bytes when densely packed; 0 for strings."""
        return self.dtype.nbytes(math.prod(self.shape))

    def chunks(self) -> Iterator[bytes]:
        """The elements in one piece; nothing for strings."""
        if isinstance(self.data, bytes) and self.data:
            yield self.data


Attribute = Union[None, bool, int, float, str, bytes, ArrayRecord, TypeSpec, "tuple[Attribute, ...]"]
"""The value of a node's attribute. A tuple holds no further tuple."""


@dataclass(frozen=True, slots=True)
class ValueRecord:
    """One value of a graph. ``tensor`` is its index in the plan's tensors when it is a constant, else None."""

    name: str
    type: TypeSpec | None
    tensor: int | None = None


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """One operation. ``inputs`` and ``outputs`` are indices into the graph's values, None for an input left out.

    ``domain`` is empty for ai.onnx. ``graphs`` holds sub-graphs by attribute name; they are closed. ``body`` is set on a
    region: the primitive nodes that it stands for, with the region's inputs and outputs. ``origins``: the nodes of the model that
    it came from, by name; empty where that is the one of its own name. Files have none within bodies.
    """

    op: str
    domain: str
    name: str
    inputs: tuple[int | None, ...]
    outputs: tuple[int, ...]
    attrs: Mapping[str, Attribute] = field(default_factory=dict)
    graphs: "Mapping[str, GraphRecord]" = field(default_factory=dict)
    body: "GraphRecord | None" = None
    origins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GraphRecord:
    """Nodes in an order in which they can run, over values that are inputs, constants, or made by an earlier node.

    ``inputs`` and ``outputs`` are indices into ``values``; ``output_names`` name the outputs, and the values' own names
    the inputs. Value names are unique in a graph.
    """

    name: str
    values: tuple[ValueRecord, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    output_names: tuple[str, ...]
    nodes: tuple[NodeRecord, ...]


UNBOUNDED = (1 << 63) - 1
"""The largest size of a dimension that has no upper end."""


@dataclass(frozen=True, slots=True)
class DimensionRange:
    """The sizes that the dimension called ``name`` may take: smallest, the one to tune for, largest (or ``UNBOUNDED``)."""

    name: str
    minimum: int
    optimum: int
    maximum: int

    @property
    def largest(self) -> int | None:
        """The largest size; None where there is none."""
        return None if self.maximum == UNBOUNDED else self.maximum

    def __str__(self) -> str:
        upper = "any size" if self.minimum == 0 else f"{self.minimum} or more"
        sizes = upper if self.largest is None else f"{self.minimum} to {self.maximum}"
        return f"{self.name}: {sizes}, tuned for {self.optimum}"


@dataclass(frozen=True, slots=True)
class BuildReport:
    """How a plan came about; the same for the same model, options and release.

    ``producer`` is program and version. ``options`` shaped the plan, ``metadata`` is what the model says of itself, and
    ``passes`` says how often each pass fired, in the order in which they ran.
    """

    producer: str = ""
    options: Mapping[str, Plain] = field(default_factory=dict)
    metadata: Mapping[str, Plain] = field(default_factory=dict)
    passes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BindingRecord:
    """A named input or output of a plan."""

    name: str
    type: TypeSpec | None

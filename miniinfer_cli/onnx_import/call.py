"""One ONNX node on its way into the graph: what an import handler reads, and what it adds nodes with."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from miniinfer_cli.errors import MiniinferError, ModelError
from miniinfer_cli.ir import Constant, DType, Graph, Shape, TensorType, Type, Value, numpy_dtype
from miniinfer_cli.onnx_import.notes import Notes
from miniinfer_cli.onnx_import.tensors import TensorReader
from miniinfer_cli.ops.element_types import REAL
from miniinfer_cli.ops.entry import check_sound
from miniinfer_cli.ops.inference import annotate_node
from miniinfer_cli.ops.quantize import integer_range
from miniinfer_cli.ops.type_codes import code_of_dtype


@dataclass(frozen=True)
class Origin:
    """Where a call was read: the node, its attributes with those of a function around it put in, the opsets in force, the
    types that the model declares, and the reader of its tensors."""

    node: onnx.NodeProto
    attributes: Sequence[onnx.AttributeProto]
    opsets: Mapping[str, int]
    declared: Mapping[str, onnx.TypeProto]
    tensors: TensorReader


@dataclass
class Call:
    """A node of operator ``op`` as of ``version``, with its operands as values of ``graph``.

    ``inputs`` is without trailing None. ``graphs`` are its sub-graphs, closed; ``captures`` are the values that they take
    after their own inputs. In a sub-graph (``lenient``) types are provisional: the rule of the node that owns it decides
    whether they fit, so a node whose rule objects is left untyped there. ``notes`` takes what the user should know of a
    node that is taken as meant though it is formally wrong.
    """

    op: str
    domain: str
    version: int
    name: str
    graph: Graph
    inputs: tuple[Value | None, ...]
    outputs: tuple[str, ...]
    attrs: dict[str, Any]
    graphs: Mapping[str, Graph] = field(default_factory=dict)
    captures: tuple[Value, ...] = ()
    lenient: bool = False
    origin: Origin | None = None
    notes: Notes = field(default_factory=Notes)

    # -- reading -------------------------------------------------------------------------------------------------------

    def input(self, index: int) -> Value | None:
        """Input ``index``, None when it is left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def required(self, index: int) -> Value:
        """Input ``index``. Raises ModelError when it is left out."""
        value = self.input(index)
        if value is None:
            raise ModelError(f"{self.op} needs input {index}")
        return value

    def dtype(self, value: Value) -> DType:
        """The element type of ``value``. Raises ModelError when it is not known."""
        if not isinstance(value.type, TensorType):
            raise ModelError(f"{self.op}-{self.version} needs to know the element type of {value.name!r}")
        return value.type.dtype

    def rank(self, value: Value) -> int:
        """The rank of ``value``. Raises ModelError when it is not known."""
        rank = value.type.rank if isinstance(value.type, TensorType) else None
        if rank is None:
            raise ModelError(f"{self.op}-{self.version} needs to know the rank of {value.name!r}")
        return rank

    def shape(self, value: Value) -> Shape | None:
        """The shape of ``value``, None when it is not known."""
        return value.type.shape if isinstance(value.type, TensorType) else None

    def sizes(self, value: Value) -> tuple[int, ...]:
        """The sizes of ``value``. Raises ModelError where one is not known."""
        shape = self.shape(value)
        sizes = tuple(d for d in shape or () if isinstance(d, int))
        if shape is None or len(sizes) < len(shape):
            raise ModelError(f"{self.op} needs to know the sizes of {value.name!r}, got {value.type}")
        return sizes

    def last_size(self, value: Value) -> int:
        """The size of the last axis of ``value``. Raises ModelError where it is not known."""
        shape = self.shape(value)
        if not shape or not isinstance(shape[-1], int):
            raise ModelError(f"{self.op} needs to know the last size of {value.name!r}, got {value.type}")
        return shape[-1]

    def count(self, name: str, default: int = 0) -> int:
        """The integer attribute ``name``. Raises ModelError where it, or the default in its place, is below 1."""
        value = self.attrs.get(name, default)
        if value < 1:
            raise ModelError(f"{self.op} {name} is {value}, expected 1 or more")
        return int(value)

    def known(self, value: Value | None) -> Any:
        """The contents of ``value`` as an array, None when they are not known or it is left out."""
        return value.type.concrete if value is not None and isinstance(value.type, TensorType) else None

    # -- adding --------------------------------------------------------------------------------------------------------

    def result(self, op: str, *inputs: Value | None, domain: str | None = None, **attrs: Any) -> tuple[Value, ...]:
        """Adds the node that makes all outputs of this one, under its name, and returns them.

        ``domain`` is this node's own when left out. The sub-graphs of this node go to it, with their captures as its last inputs.
        """
        outputs = tuple(self.graph.new_value(name or f"{self.name}:{i}") for i, name in enumerate(self.outputs))
        operands = (*(inputs if self.graphs else _trimmed(inputs)), *self.captures)
        node_domain = self.domain if domain is None else domain
        node = self.graph.add_node(
            op, operands, outputs, domain=node_domain, name=self.name, attrs=attrs, graphs=self.graphs, origins=(self.name,)
        )
        for value, type in zip(outputs, self._infer(node, operands), strict=True):
            self.graph.set_type(value, type)
        return outputs

    def first(self, op: str, *inputs: Value | None, **attrs: Any) -> Value:
        """Adds the node of ai.onnx that makes the first output of this one, under its name, and returns it."""
        self.outputs = self.outputs[:1]
        (value,) = self.result(op, *inputs, domain="", **attrs)
        return value

    def emit(self, op: str, *inputs: Value | None, **attrs: Any) -> Value:
        """Adds a node of ai.onnx on the way to the result and returns its output."""
        (value,) = self.emits(op, 1, *inputs, **attrs)
        return value

    def emits(self, op: str, n_outputs: int, *inputs: Value | None, **attrs: Any) -> tuple[Value, ...]:
        """Adds a node of ai.onnx on the way to the result and returns its outputs."""
        name = f"{self.name}/{op}"
        values = tuple(self.graph.new_value(f"{name}:{i}" if i else name) for i in range(n_outputs))
        operands = _trimmed(inputs)
        node = self.graph.add_node(op, operands, values, name=name, attrs=attrs, origins=(self.name,))
        for value, type in zip(values, self._infer(node, operands), strict=True):
            self.graph.set_type(value, type)
        return values

    def cast(self, value: Value, dtype: DType) -> Value:
        """``value`` as ``dtype``, itself where it is."""
        return value if self.dtype(value) is dtype else self.emit("Cast", value, to=code_of_dtype(dtype))

    def constant(self, data: Constant | Any, role: str = "const") -> Value:
        """A constant of the graph from a handle or anything that numpy makes an array of; ``role`` goes into its name."""
        return self.graph.add_constant(data, f"{self.name}/{role}")

    def number(self, value: float, dtype: DType, role: str) -> Value:
        """A constant scalar of ``dtype``, toward zero where that is of integers. Raises ModelError when it has no such number."""
        if dtype not in REAL:
            raise ModelError(f"{self.op}-{self.version} {role} is the number {value:g}, its input is of {dtype}")
        low, high = integer_range(dtype) if dtype.is_integer else (-math.inf, math.inf)
        if dtype.is_integer and not (math.isfinite(value) and low <= int(value) <= high):
            raise ModelError(
                f"{self.op}-{self.version} {role} is {value:g}, which no {dtype} is",
                hint=f"give a {role} within the range of the input's type, or put a Cast before the node",
            )
        with np.errstate(all="ignore"):  # what is too large for a narrow float is infinite
            return self.constant(np.array(int(value) if dtype.is_integer else value).astype(numpy_dtype(dtype)), role)

    def integers(self, items: Sequence[int], role: str) -> Value:
        """A constant i64 vector."""
        return self.constant(np.array(items, np.int64), role)

    def _infer(self, node: Any, operands: Sequence[Value | None]) -> tuple[Type | None, ...]:
        try:
            check_sound(node)
            return annotate_node(node, [None if v is None else v.type for v in operands])
        except MiniinferError:  # the caller names the node as the model does
            if self.lenient:
                return (None,) * len(node.outputs)
            raise


def _trimmed(inputs: Sequence[Value | None]) -> tuple[Value | None, ...]:
    count = len(inputs)
    while count and inputs[count - 1] is None:
        count -= 1
    return tuple(inputs[:count])

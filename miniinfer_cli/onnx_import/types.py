"""TypeProto as a type, and the names of symbolic dimensions."""

import re
from collections.abc import Iterable

import onnx

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Dim, MapType, OptionalType, SequenceType, Shape, TensorType, Type, symbol
from miniinfer_cli.ir.dim_text import parse_dim
from miniinfer_cli.ir.dims import names_in
from miniinfer_cli.onnx_import.names import as_text
from miniinfer_cli.ops.inference import UNKNOWN
from miniinfer_cli.ops.type_codes import code_of_dtype, dtype_of_code

_PLAIN = re.compile(r"[^\s+\-*/()\d,\[\]?.][^\s+\-*/(),\[\]?]*")
_LETTER = re.compile(r"[^\W\d_]")
_ODD = re.compile(r"[\s+\-*/(),\[\]?]+")
_ANY_SIZE = frozenset(("none", "null", "nil", "unk", "unknown", "undefined", "unspecified", "any", "dyn", "dynamic", "variable"))
"""What exporters write, in any case, for each size that they do not know, as WinMLTools writes ``None``."""


class DimNames:
    """The symbolic dimensions of one model.

    A ``dim_param`` that is a plain name is a symbol of that name. One that is an expression (``past + 1``) is that
    expression where each name in it also stands alone as an input's dimension, else a symbol of its own; so each symbol
    of an input can be read off a shape. A missing dimension is a symbol named after its value and axis, and so is a text that
    names nothing (``is_name``): in two places it may be two sizes.
    """

    def __init__(self, inputs: Iterable[onnx.ValueInfoProto] = ()) -> None:
        dims = [d for v in inputs for d in v.type.tensor_type.shape.dim]
        self._plain = {p for d in dims if _PLAIN.fullmatch(p := as_text(d.dim_param)) and is_name(p)}
        self._made: dict[str, Dim] = {}
        self._taken = set(self._plain)

    def read(self, param: str) -> Dim:
        """The dimension that ``param`` stands for."""
        if _PLAIN.fullmatch(param):
            return symbol(param)
        if param not in self._made:
            self._made[param] = self._expression(param) or symbol(self._free(param))
        return self._made[param]

    def named(self, param: str, value: str, axis: int) -> Dim:
        """The dimension that ``axis`` of ``value`` is called ``param``."""
        return self.read(param)

    def missing(self, value: str, axis: int) -> Dim:
        """The dimension for ``axis`` of ``value``, which the model leaves open."""
        return self.read(f"{_ODD.sub('_', value)}_dim{axis}")

    def _expression(self, param: str) -> Dim | None:
        try:
            dim = parse_dim(param)
        except ValueError:
            return None
        return dim if names_in(dim) <= self._plain and names_in(dim) else None

    def _free(self, param: str) -> str:
        base = _ODD.sub("_", param).strip("_") or "dim"
        base = f"d{base}" if not _PLAIN.fullmatch(base) else base
        name, number = base, 0
        while name in self._taken:
            number += 1
            name = f"{base}_{number}"
        self._taken.add(name)
        return name


def is_name(param: str) -> bool:
    """True for a ``dim_param`` that names a size: not for one without a letter (``?``, ``-1``), nor for a word such as ``None``,
    which exporters write for each size that they do not know.
    """
    return _LETTER.search(param) is not None and param.casefold() not in _ANY_SIZE


class OwnDims(DimNames):
    """The dimensions of a model whose inputs each have sizes of their own, whatever they are called."""

    def named(self, param: str, value: str, axis: int) -> Dim:
        """A dimension of this place alone."""
        return self.missing(value, axis)


class InferredDims(DimNames):
    """The dimensions that onnx inferred from ours: expressions as we wrote them, and dimensions that cannot be told."""

    def read(self, param: str) -> Dim:
        """The dimension written as ``param``."""
        try:
            return parse_dim(param)
        except ValueError:
            return symbol(f"?{_ODD.sub('_', param)}")

    def missing(self, value: str, axis: int) -> Dim:
        """A dimension that could not be inferred."""
        return symbol(f"?{_ODD.sub('_', value)}.{axis}")


def read_type(proto: onnx.TypeProto, name: str, dims: DimNames) -> Type | None:
    """The type that ``proto`` declares for the value ``name``; None where it declares none. Raises ModelError."""
    kind = proto.WhichOneof("value")
    if kind is None:
        return None
    if kind == "tensor_type":
        if not proto.tensor_type.elem_type:
            return None
        shape = _read_shape(proto.tensor_type.shape, name, dims) if proto.tensor_type.HasField("shape") else None
        return TensorType(dtype_of_code(proto.tensor_type.elem_type), shape)
    if kind == "sequence_type":
        # Each element has sizes of its own, whatever text stands for them.
        return SequenceType(_unnamed(read_type(proto.sequence_type.elem_type, name, dims)))
    if kind == "optional_type":
        return OptionalType(read_type(proto.optional_type.elem_type, name, dims))
    if kind == "map_type":
        return MapType(dtype_of_code(proto.map_type.key_type), read_type(proto.map_type.value_type, name, dims))
    raise ModelError(f"value {name!r} is a {kind.replace('_', ' ')}, which is not supported")


def type_proto(type: Type | None) -> onnx.TypeProto:
    """The TypeProto for ``type``; the inverse of ``read_type``."""
    proto = onnx.TypeProto()
    if isinstance(type, TensorType):
        proto.tensor_type.elem_type = code_of_dtype(type.dtype)
        if type.shape is not None:
            proto.tensor_type.shape.SetInParent()
            for dim in type.shape:
                if isinstance(dim, int):
                    proto.tensor_type.shape.dim.add(dim_value=dim)
                else:
                    proto.tensor_type.shape.dim.add(dim_param=str(dim))
    elif isinstance(type, SequenceType):
        proto.sequence_type.elem_type.CopyFrom(type_proto(type.element))
    elif isinstance(type, OptionalType):
        proto.optional_type.elem_type.CopyFrom(type_proto(type.element))
    elif isinstance(type, MapType):
        proto.map_type.key_type = code_of_dtype(type.key)
        proto.map_type.value_type.CopyFrom(type_proto(type.element))
    return proto


def _unnamed(element: Type | None) -> Type | None:
    if not isinstance(element, TensorType) or element.shape is None:
        return element
    return TensorType(element.dtype, tuple(d if isinstance(d, int) else UNKNOWN for d in element.shape))


def _read_shape(proto: onnx.TensorShapeProto, name: str, dims: DimNames) -> Shape:
    out: list[Dim] = []
    for axis, d in enumerate(proto.dim):
        if is_name(param := as_text(d.dim_param)):
            out.append(dims.named(param, name, axis))
        elif d.HasField("dim_value") and d.dim_value >= 0:
            out.append(d.dim_value)
        else:  # nothing, or "?", None or -1 as some exporters write "any size"
            out.append(dims.missing(name, axis))
    return tuple(out)

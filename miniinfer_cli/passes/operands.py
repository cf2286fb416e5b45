"""What passes ask about a node's operands: constants, known integers, single numbers, single readers."""

from typing import Any

from miniinfer_cli.ir import Array, Constant, Dim, DType, Graph, Node, TensorType, Value, constant
from miniinfer_cli.ir.constants import Filled
from miniinfer_cli.ir.dims import is_natural, minimum


def constant_handle(value: Value | None) -> Constant | None:
    """A handle on the contents of ``value`` when they are fixed: a constant, or contents that inference worked out."""
    if value is None:
        return None
    if value.constant is not None:
        return value.constant
    array = concrete(value)
    if array is None or not isinstance(value.type, TensorType):
        return None
    handle = constant(array)
    return handle if handle.dtype is value.type.dtype else None


def concrete(value: Value | None) -> Array | None:
    """The contents of a small tensor when they are known and hold no symbolic dimension; else None."""
    return value.type.concrete if value is not None and isinstance(value.type, TensorType) else None


def known_ints(value: Value | None) -> tuple[int, ...] | None:
    """The contents of a small integer tensor, flattened; None when absent or not known."""
    array = concrete(value)
    return None if array is None or array.dtype.kind not in "iu" else tuple(int(i) for i in array.reshape(-1))


def scalar(value: Value | None) -> Any:
    """The number that every element of a constant of float, integer or bool type is, as Python's; None when there is none.

    Only constants of one element and filled ones are looked at.
    """
    if value is None or not isinstance(value.type, TensorType) or value.type.dtype is DType.STR:
        return None
    if isinstance(value.constant, Filled):
        return Filled(value.constant.dtype, (), value.constant.value).array().item()
    array = value.type.known
    return array.item() if array is not None and array.size == 1 and array.dtype != object else None


def dims(value: Value | None) -> tuple[Any, ...] | None:
    """The shape of a tensor; None when the rank is not known or it is no tensor."""
    return value.type.shape if value is not None and isinstance(value.type, TensorType) else None


def fills(dim: Dim, size: Dim) -> bool:
    """True when an axis of ``dim`` that broadcasts onto one of ``size`` is as long, and never a single element repeated.

    So do the ``min(seq,1024)`` rows cut from a table: where they are fewer than ``seq`` the model has no meaning.
    """
    return dim == size or (is_natural(size - dim) and is_natural(dim - minimum(size, 2)))


def same_type(a: Value, b: Value) -> bool:
    """True when both are tensors of one element type and of equal dimensions, symbolic ones included."""
    return dims(a) is not None and isinstance(a.type, TensorType) and a.type == b.type


def sole_user(graph: Graph, value: Value) -> Node | None:
    """The node that alone reads ``value``; None when there are several, none, or the graph returns it."""
    users = value.users
    return users[0] if len(users) == 1 and not graph.is_output(value) else None

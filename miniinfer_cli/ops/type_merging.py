"""Types across the border of a sub-graph, and what is known of a value that may come from either of two places.

Inference names a dimension that it cannot tell after the value that has it (``?x.0``). Such a name means something only
within one graph, and a body is inferred anew for each round. So names of the surrounding graph are marked on the way in
(``?^x.0``), unmarked on the way out, and what the sub-graph could not tell becomes ``UNKNOWN`` outside. An ``UNKNOWN``
of an input is named on the way in (``?#2.0``: axis 0 of input 2), so that two of them do not pass for equal.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from miniinfer_cli.errors import ModelError, ModelTooLarge
from miniinfer_cli.ir import Array, Dim, Graph, OptionalType, SequenceType, Shape, TensorType, Type, symbol
from miniinfer_cli.ir.dim_atoms import FloorDiv, PositivePart
from miniinfer_cli.ir.dims import Sym, UnwieldyDim, floor_divide, names_in, positive_part
from miniinfer_cli.ops.inference import UNKNOWN
from miniinfer_cli.ops.registry import InferGraph

_OPEN = "?"  # begins the name of a dimension that could not be told
_OUTER = "?^"  # begins it inside a sub-graph, when the name comes from the surrounding graph
_INPUT = "?#"  # begins it inside a sub-graph, when an input came without a name for it

DimMap = Callable[[Dim], Dim]


def infer_inner(graph: Graph, inputs: Sequence[Type | None], infer_graph: InferGraph) -> tuple[Type | None, ...]:
    """The types of the outputs of a sub-graph for these types of the surrounding graph, in that graph's names."""
    entered = [_name_apart(map_dims(t, _enter), i) for i, t in enumerate(inputs)]
    return tuple(map_dims(t, _leave) for t in infer_graph(graph, entered))


def try_inner(
    graph: Graph, inputs: Sequence[Type | None], infer_graph: InferGraph
) -> tuple[tuple[Type | None, ...], None] | tuple[None, ModelError]:
    """``infer_inner``, or the fault of a sub-graph that does not fit these types. What is beyond a limit is raised."""
    try:
        return infer_inner(graph, inputs, infer_graph), None
    except (ModelTooLarge, UnwieldyDim):
        raise
    except ModelError as fault:
        return None, fault


def merge_types(op: str, a: Type | None, b: Type | None) -> Type | None:
    """The type of a value that is sometimes ``a`` and sometimes ``b``. Raises ModelError when they are of two kinds."""
    if a is None or b is None:
        return None
    if isinstance(a, TensorType) and isinstance(b, TensorType):
        if a.dtype is not b.dtype:
            raise ModelError(f"{op}: element types differ where one value is expected: {a} and {b}")
        return TensorType(a.dtype, merge_shapes(a.shape, b.shape), _merge_contents(a.known, b.known))
    if isinstance(a, SequenceType) and isinstance(b, SequenceType):
        return SequenceType(merge_types(op, a.element, b.element))
    if isinstance(a, OptionalType) or isinstance(b, OptionalType):
        elements = [t.element if isinstance(t, OptionalType) else t for t in (a, b)]
        return OptionalType(merge_types(op, *elements))
    if a != b:
        raise ModelError(f"{op}: kinds of value differ where one is expected: {a} and {b}")
    return a


def merge_shapes(a: Shape | None, b: Shape | None) -> Shape | None:
    """The dimensions that both have, UNKNOWN where they differ; None when the ranks do."""
    if a is None or b is None or len(a) != len(b):
        return None
    return tuple(x if x == y else UNKNOWN for x, y in zip(a, b, strict=True))


def same_type(a: Type | None, b: Type | None) -> bool:
    """True when the two say the same, known contents included."""
    if isinstance(a, TensorType) and isinstance(b, TensorType) and a == b:
        return _merge_contents(a.known, b.known) is a.known
    return a == b


def map_dims(type: Type | None, change: DimMap) -> Type | None:
    """``type`` with ``change`` applied to every dimension, in known contents too."""
    if isinstance(type, (SequenceType, OptionalType)):
        return replace(type, element=map_dims(type.element, change))
    if not isinstance(type, TensorType):
        return type
    known = type.known
    if known is not None and any(isinstance(i, Sym) for i in known.flat):
        known = np.array([change(i) if isinstance(i, Sym) else i for i in known.flat], object).reshape(known.shape)
        if any(isinstance(i, Sym) and i == UNKNOWN for i in known.flat):
            known = None
    return TensorType(type.dtype, None if type.shape is None else tuple(change(d) for d in type.shape), known)


def substitute(dim: Dim, sizes: Mapping[str, Dim]) -> Dim:
    """``dim`` with each name that ``sizes`` has replaced by its dimension."""
    if isinstance(dim, int) or not names_in(dim) & sizes.keys():
        return dim
    total: Dim = 0
    for monomial, coefficient in dim.terms:
        term: Dim = coefficient
        for atom in monomial:
            if isinstance(atom, FloorDiv):
                term = term * floor_divide(substitute(atom.dividend, sizes), substitute(atom.divisor, sizes))
            elif isinstance(atom, PositivePart):
                term = term * positive_part(substitute(atom.dim, sizes))
            else:
                term = term * sizes.get(atom, Sym((((atom,), 1),)))
        total = total + term
    return total


def _merge_contents(a: Array | None, b: Array | None) -> Array | None:
    if a is None or b is None or a.shape != b.shape:
        return None
    return a if all(x == y for x, y in zip(a.flat, b.flat, strict=True)) else None


def _name_apart(type: Type | None, index: int) -> Type | None:
    """``type`` with each UNKNOWN dimension named; the elements of a sequence are named where they are taken out."""
    if not isinstance(type, TensorType) or type.shape is None or UNKNOWN not in type.shape:
        return type
    shape = tuple(symbol(f"{_INPUT}{index}.{axis}") if d == UNKNOWN else d for axis, d in enumerate(type.shape))
    return TensorType(type.dtype, shape, type.known)


def _enter(dim: Dim) -> Dim:
    if _OPEN in names_in(dim):
        return UNKNOWN
    return _rename(dim, lambda name: _OUTER + name[1:] if name.startswith(_OPEN) else name)


def _leave(dim: Dim) -> Dim:
    names = names_in(dim)
    if any(n.startswith(_OPEN) and not n.startswith(_OUTER) for n in names):
        return UNKNOWN
    return _rename(dim, lambda name: _OPEN + name[len(_OUTER) :] if name.startswith(_OUTER) else name)


def _rename(dim: Dim, change: Callable[[str], str]) -> Dim:
    return substitute(dim, {n: symbol(change(n)) for n in names_in(dim) if n.startswith(_OPEN)})

"""Sizes of named dimensions: from shapes given by input name to ranges by dimension name, and static specialization."""

from collections.abc import Mapping, Sequence
from functools import partial

from engine_format.records import UNBOUNDED, DimensionRange
from miniinfer_cli.errors import UsageError
from miniinfer_cli.ir import Graph, TensorType
from miniinfer_cli.ir.dims import Dim, bind, names_in, symbol
from miniinfer_cli.ops.inference import annotate, resolve
from miniinfer_cli.ops.type_merging import map_dims, substitute
from miniinfer_cli.wording import Wording

Shapes = Mapping[str, Sequence[int]]


def dimension_ranges(graph: Graph, minimum: Shapes, optimum: Shapes, maximum: Shapes) -> tuple[DimensionRange, ...]:
    """The range of each named dimension that the shapes mention, by name.

    A bound that is not given does not exist; an optimum that is not given is the largest size, else the smallest.
    Raises UsageError for unknown inputs, misfits, and ranges out of order.
    """
    low, middle, high = (
        _sizes(graph, s, f) for s, f in ((minimum, "min_shapes"), (optimum, "opt_shapes"), (maximum, "max_shapes"))
    )
    ranges = []
    for name in sorted({*low, *middle, *high}):
        smallest, largest = low.get(name, 0), high.get(name, UNBOUNDED)
        best = middle.get(name, high.get(name, smallest))
        if not smallest <= best <= largest:
            given = [(low, "min"), (middle, "opt"), (high, "max")]
            texts = [f"{sizes[name]} ({kind})" for sizes, kind in given if name in sizes]
            raise UsageError(f"dimension {name!r}: {', '.join(texts)} are not in order")
        ranges.append(DimensionRange(name, smallest, best, largest))
    return tuple(ranges)


def all_ranges(graph: Graph, ranges: Sequence[DimensionRange]) -> tuple[DimensionRange, ...]:
    """The range of every name in the shapes of the inputs, in their order: of any size, and tuned for 1, where none is given."""
    given = {r.name: r for r in ranges}
    dims = [d for v in graph.inputs if isinstance(v.type, TensorType) for d in v.type.shape or ()]
    names = dict.fromkeys(name for d in dims for name in sorted(names_in(d)))
    return tuple(given.get(name, DimensionRange(name, 0, 1, UNBOUNDED)) for name in names)


def assume_ranges(graph: Graph, ranges: Sequence[DimensionRange]) -> None:
    """Lets what reasons about sizes know the ranges: the names in the types of the inputs carry them."""
    sizes: dict[str, Dim] = {r.name: symbol(r.name, r.minimum, r.largest) for r in ranges}
    for value in graph.inputs:
        graph.set_type(value, map_dims(value.type, lambda dim: substitute(dim, sizes)))
    annotate(graph)


def fix_shapes(graph: Graph, shapes: Shapes) -> None:
    """Makes the named dimensions of the inputs the sizes that ``shapes`` gives them, all through the graph."""
    sizes = _sizes(graph, shapes, "shapes")
    for value in graph.inputs:
        if isinstance(value.type, TensorType) and value.type.shape is None and value.name in shapes:
            graph.set_type(value, TensorType(value.type.dtype, tuple(shapes[value.name])))
        graph.set_type(value, resolve(value.type, sizes))
    annotate(graph)


def _sizes(graph: Graph, shapes: Shapes, option: str) -> dict[str, int]:
    """The size of each named dimension according to shapes by input name, which were given as ``option``."""
    inputs = {v.name: v for v in graph.inputs}
    sizes: dict[str, int] = {}
    for name, shape in shapes.items():
        told = partial(_of_shape, option, name, shape)
        value = inputs.get(name)
        if value is None:
            raise UsageError(told(f"there is no input {name!r}"), hint=f"the inputs are {', '.join(inputs)}")
        kind = value.type
        if not isinstance(kind, TensorType):
            raise UsageError(told(f"the input is {kind or 'of unknown type'}, which has no shape"))
        if kind.shape is None:
            if option != "shapes":
                hint = Wording(f"fix its shape: shapes={{{name!r}: (...)}}", flags=f"fix its shape: --shapes {name}:...")
                raise UsageError(told("the rank of the input is not known"), hint=hint)
            continue  # fix_shapes gives it this one
        if len(kind.shape) != len(shape):
            raise UsageError(told(f"rank {len(shape)} given, but the input is {kind}"))
        misfit = bind(kind.shape, shape, sizes)
        if misfit is not None and isinstance(misfit.dim, int):
            raise UsageError(told(f"axis {misfit.axis} is {misfit.size}, but the input is {kind}"))
        if misfit is not None:
            raise UsageError(told(f"dimension {misfit.dim} is {misfit.size} here and {misfit.expected} before"))
    return sizes


def _of_shape(option: str, name: str, shape: Sequence[int], told: str) -> str:
    """What is wrong with the shape of an input, in both wordings of the option that it was given by."""
    sizes = "x".join(map(str, shape))
    return Wording(f"{option}, input {name!r}, {sizes}: {told}", flags=f"--{option.replace('_', '-')} {name}:{sizes}: {told}")

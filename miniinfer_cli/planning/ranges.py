"""Sizes of named dimensions: from shapes given by input name to ranges by dimension name, and static specialization."""

from collections.abc import Mapping, Sequence

from engine_format.records import UNBOUNDED, DimensionRange
from miniinfer_cli.errors import UsageError
from miniinfer_cli.ir import Graph, TensorType
from miniinfer_cli.ir.dims import Dim, Sym, names_in, symbol
from miniinfer_cli.ops.inference import annotate, resolve
from miniinfer_cli.ops.type_merging import map_dims, substitute

Shapes = Mapping[str, Sequence[int]]


def dimension_ranges(graph: Graph, minimum: Shapes, optimum: Shapes, maximum: Shapes) -> tuple[DimensionRange, ...]:
    """The range of each named dimension that the shapes mention, by name.

    A bound that is not given does not exist; an optimum that is not given is the largest size, else the smallest.
    Raises UsageError for unknown inputs, misfits, and ranges out of order.
    """
    low, middle, high = (
        _sizes(graph, s, f) for s, f in ((minimum, "--min-shapes"), (optimum, "--opt-shapes"), (maximum, "--max-shapes"))
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
        value.type = map_dims(value.type, lambda dim: substitute(dim, sizes))
    annotate(graph)


def fix_shapes(graph: Graph, shapes: Shapes) -> None:
    """Makes the named dimensions of the inputs the sizes that ``shapes`` gives them, all through the graph."""
    sizes = _sizes(graph, shapes, "--shapes")
    for value in graph.inputs:
        if isinstance(value.type, TensorType) and value.type.shape is None and value.name in shapes:
            value.type = TensorType(value.type.dtype, tuple(shapes[value.name]))
        value.type = resolve(value.type, sizes)
    annotate(graph)


def _sizes(graph: Graph, shapes: Shapes, flag: str) -> dict[str, int]:
    """The size of each named dimension according to shapes by input name."""
    inputs = {v.name: v for v in graph.inputs}
    sizes: dict[str, int] = {}
    for name, shape in shapes.items():
        text = f"{flag} {name}:{'x'.join(map(str, shape))}"
        value = inputs.get(name)
        if value is None:
            raise UsageError(f"{text}: there is no input {name!r}", hint=f"the inputs are {', '.join(inputs)}")
        kind = value.type
        if not isinstance(kind, TensorType):
            raise UsageError(f"{text}: the input is {kind or 'of unknown type'}, which has no shape")
        if kind.shape is None:
            if flag != "--shapes":
                raise UsageError(f"{text}: the rank of the input is not known", hint=f"fix its shape: --shapes {name}:...")
            continue  # fix_shapes gives it this one
        if len(kind.shape) != len(shape):
            raise UsageError(f"{text}: rank {len(shape)} given, but the input is {kind}")
        for axis, (dim, size) in enumerate(zip(kind.shape, shape, strict=True)):
            if isinstance(dim, int):
                if dim != size:
                    raise UsageError(f"{text}: axis {axis} is {size}, but the input is {kind}")
            elif isinstance(dim, Sym) and names_in(dim) == {str(dim)} and sizes.setdefault(str(dim), size) != size:
                raise UsageError(f"{text}: dimension {dim} is {size} here and {sizes[str(dim)]} before")
    return sizes

"""A ladder of other sizes for the named dimensions of a model: what its kernels are compiled for ahead."""

from collections.abc import Iterator, Mapping, Sequence

from miniinfer_cli.backends.cuda.contract.site import static_shape
from miniinfer_cli.ir import Graph, TensorType, Type
from miniinfer_cli.ir.dims import bind, evaluate

_LADDER = (1, 2, 3, 4, 5, 8, 16, 32, 64, 128, 256, 512)
_MOST_NAMES = 2  # dimensions that are varied: the batch and the sequence, as a rule


def other_sizes(graph: Graph, inputs: Sequence[Type | None]) -> Iterator[list[Type | None]]:
    """The input types with one named dimension after the other at other sizes; new tokens of a cache come in its buckets."""
    sizes = _sizes(graph, inputs)
    for name in list(sizes)[:_MOST_NAMES]:
        states = graph.states
        for size in _LADDER if states is None or states.tokens != name else states.buckets:
            if size != sizes[name]:
                yield [_at(v.type, t, {**sizes, name: size}) for v, t in zip(graph.inputs, inputs, strict=True)]


def _sizes(graph: Graph, inputs: Sequence[Type | None]) -> dict[str, int]:
    """Each dimension that the inputs name, and its size now."""
    sizes: dict[str, int] = {}
    for value, given in zip(graph.inputs, inputs, strict=True):
        declared = value.type
        if isinstance(declared, TensorType) and declared.shape and isinstance(given, TensorType) and given.is_static:
            bind(declared.shape, static_shape(given), sizes)
    return sizes


def _at(declared: Type | None, given: Type | None, sizes: Mapping[str, int]) -> Type | None:
    if not isinstance(declared, TensorType) or declared.shape is None or not isinstance(given, TensorType):
        return given
    shape = tuple(evaluate(d, sizes) for d in declared.shape)
    return given if None in shape else TensorType(declared.dtype, shape, given.known)  # type: ignore[arg-type]

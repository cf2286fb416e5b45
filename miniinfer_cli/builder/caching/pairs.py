"""The caches of a model: which inputs are a past, which outputs their present, and the nodes that join new rows to them."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from miniinfer_cli.errors import ModelError, UsageError
from miniinfer_cli.ir import Dim, Graph, Node, TensorType, Value
from miniinfer_cli.ops import annotate
from miniinfer_cli.wording import Wording

_NAMES = (
    (re.compile(r"past_key_values\.(.+)"), ("present.{}", "present_key_values.{}")),
    (re.compile(r"past_(key|value)_(.+)"), ("present_{}_{}",)),
    (re.compile(r"past\.(.+)"), ("present.{}",)),
    (re.compile(r"(key|value)_cache(.*)"), ("present_{}{}", "updated_{}_cache{}")),
)
"""What exporters and builders call an input, and the output that it is at the next inference."""


@dataclass(frozen=True, slots=True)
class Cache:
    """A pair whose output is its input with rows of ``new`` written behind what it holds, along ``axis``, by ``node``.

    ``room``: the model's own number of rows, where its cache does not grow; None where it does.
    """

    past: Value
    present: str
    node: Node
    new: Value
    axis: int
    room: Dim | None

    @property
    def length(self) -> Dim:
        """The size of the past along the axis."""
        shape = self.past.tensor.shape
        assert shape is not None
        return shape[self.axis]


def pairs_by_name(graph: Graph) -> tuple[tuple[str, str], ...]:
    """The inputs and outputs that are called as caches are. Raises UsageError where there are none."""
    outputs = frozenset(graph.output_names)
    found = [(v.name, name) for v in graph.inputs for name in _present_names(v.name) if name in outputs]
    if not found:
        told = f"the inputs are {', '.join(v.name for v in graph.inputs)}; the outputs {', '.join(graph.output_names)}"
        raise UsageError(
            "no input and output are called as a cache is: past_key_values.0.key and present.0.key, say",
            hint=Wording(
                f"name each pair that grows: state=['INPUT:OUTPUT', ...], or leave kv_cache out; {told}",
                flags=f"name each pair that grows: --state INPUT:OUTPUT, or leave --kv-cache out; {told}",
            ),
        )
    return tuple(found)


def _present_names(name: str) -> Iterator[str]:
    for pattern, forms in _NAMES:
        if match := pattern.fullmatch(name):
            yield from (form.format(*match.groups()) for form in forms)


def agree_on_sizes(graph: Graph, pairs: Sequence[tuple[str, str]]) -> None:
    """Gives pasts that grow one length, and the mask of all tokens the length of the past with the new ones.

    Exporters name these sizes as they please; what attention is recognised by is that they are the same.
    """
    caches = [c for c in find_caches(graph, pairs) if c.room is None]
    if not caches:
        return
    held, new = caches[0].length, caches[0].new.type
    for cache in caches:
        _set_size(graph, cache.past, cache.axis, held)
    size = new.shape[caches[0].axis] if isinstance(new, TensorType) and new.shape is not None else None
    for value in graph.inputs:
        rank = value.type.rank if isinstance(value.type, TensorType) else None
        if value.name == "attention_mask" and rank == 2 and size is not None:
            _set_size(graph, value, 1, held + size)
    annotate(graph)


def _set_size(graph: Graph, value: Value, axis: int, size: Dim) -> None:
    """Gives a named size of an input another name."""
    shape = list(value.tensor.shape or ())
    if not isinstance(shape[axis], int):
        shape[axis] = size
        graph.set_type(value, TensorType(value.tensor.dtype, tuple(shape)))


def find_caches(graph: Graph, pairs: Sequence[tuple[str, str]]) -> tuple[Cache, ...]:
    """The caches among ``pairs`` of an input and an output: those to which rows are joined; the others are left out."""
    inputs = {v.name: v for v in graph.inputs}
    outputs = dict(zip(graph.output_names, graph.outputs, strict=True))
    return tuple(c for past, present in pairs if (c := _cache(inputs[past], present, outputs[present])) is not None)


def _cache(past: Value, present: str, made: Value) -> Cache | None:
    node, kind = made.producer, past.type
    if node is None or not isinstance(kind, TensorType) or kind.shape is None:
        return None
    rank = len(kind.shape)
    if node.is_op("Concat") and len(node.inputs) == 2 and node.inputs[0] is past:
        new = node.inputs[1]
        if new is None or not isinstance(new.type, TensorType) or new.type.shape is None:
            return None
        return _checked(Cache(past, present, node, new, node.attrs["axis"] % rank, None))
    if node.is_op("TensorScatter") and node.attrs.get("mode", "linear") == "linear":
        data, new = node.inputs[:2]
        padded = data is not None and data.producer is not None and data.producer.is_op("Pad")
        source = data.producer.inputs[0] if padded and data is not None and data.producer is not None else data
        if source is past and new is not None:
            axis = node.attrs.get("axis", -2) % rank
            return _checked(Cache(past, present, node, new, axis, kind.shape[axis]))
    return None


def _checked(cache: Cache) -> Cache:
    if cache.axis == 0:
        raise ModelError(f"state {cache.past.name!r} grows along its first axis, where the slots of a batch lie").at(
            f"node {cache.node.name!r}"
        )
    return cache

"""What a model wants besides a caller's inputs where its plan keeps states: empty ones, and what follows from their lengths."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from miniinfer_cli.builder.caching.probing import Point, given_at, meaning_of
from miniinfer_cli.ir import Array, DType, Graph, StatePair, TensorType, Value, numpy_dtype
from miniinfer_cli.runtime.engine import Engine


class FirstTurn:
    """The inputs of ``graph``, a model as imported, at the first inference of a context of its plan's ``engine``."""

    def __init__(self, engine: Engine, graph: Graph) -> None:
        self._engine = engine
        self._graph = graph

    def of(self, feeds: Mapping[str, Any]) -> Mapping[str, Any]:
        """``feeds`` of the plan, in the model's types, with all that the model wants besides."""
        layout = self._engine.states
        if layout is None:
            return feeds
        arrays = [feeds[b.name] for b in self._engine.inputs]
        kinds = layout.kinds(arrays)
        inputs = {v.name: v for v in self._graph.inputs}
        pasts = {p.past: _empty(self._graph, inputs[p.past], p, k) for p, k in zip(layout.states.pairs, kinds, strict=True)}
        point = Point(layout.slots(kinds), layout.tokens(arrays), 0, layout.states.capacity)
        others = [v for name, v in inputs.items() if name not in feeds and name not in pasts]
        return {**feeds, **pasts, **{v.name: _derived(v, point) for v in others}}


def _derived(value: Value, point: Point) -> Array:
    if meaning_of(value):
        return given_at(value, point)
    sizes = [d if isinstance(d, int) else 1 for d in value.tensor.shape or ()]
    return np.ones(sizes, numpy_dtype(value.tensor.dtype if value.tensor.dtype is not DType.STR else DType.BOOL))


def _empty(graph: Graph, value: Value, pair: StatePair, kind: TensorType) -> Array:
    """A state that holds nothing: no rows where the model's own past grows."""
    sizes = [d if isinstance(d, int) else 0 for d in kind.shape or ()]
    made = graph.outputs[graph.output_names.index(pair.present)].producer
    in_place = made is not None and made.is_op("TensorScatter") and made.inputs[0] is value
    if pair.axis is not None and not in_place:
        sizes[pair.axis] = 0
    return np.zeros(sizes, numpy_dtype(value.tensor.dtype))

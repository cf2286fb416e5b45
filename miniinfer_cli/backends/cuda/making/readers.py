"""Looking ahead: whether all who read a value would take it as a view."""

from collections.abc import Container, Sequence

from miniinfer_cli.backends.cuda.choice.joining import Joining
from miniinfer_cli.backends.cuda.contract.join import Join
from miniinfer_cli.backends.cuda.contract.site import Site, find_lowering, static_shape
from miniinfer_cli.backends.cuda.contract.strides import is_dense, reshaped
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.types import element_nbytes
from miniinfer_cli.backends.cuda.contract.viewing import ALIGNMENT, View, find_reading, find_viewing
from miniinfer_cli.backends.reference import is_same_bytes, settled, static_tensor
from miniinfer_cli.ir import Graph, Node, Value
from miniinfer_cli.ir.parts import reading
from miniinfer_cli.ops.inference import Types, infer_graph

_FURTHEST = 8  # views of views that are looked through


class Readers:
    """Those who read the values of a graph of these types; nodes in ``apart`` are read for by others (late parts).

    For nodes that are joined, those of the join's own graph are looked at. What they say is what is likely: a lowering may
    refuse afterwards, and then a copy is made after all.
    """

    def __init__(
        self, graph: Graph, types: Types, apart: Container[Node], target: Target, joining: Joining | None = None
    ) -> None:
        self._graph = graph
        self._types = types
        self._apart = apart
        self._target = target
        self._joining = joining

    def take(self, values: Sequence[Value], views: Sequence[View], offset: int, depth: int = 0) -> bool:
        """True when all who read the values would take them as these views of what begins ``offset`` bytes behind its root."""
        return all(self._take(value, view, offset, depth) for value, view in zip(values, views, strict=True))

    def _take(self, value: Value, view: View, offset: int, depth: int) -> bool:
        kind = static_tensor(self._types[value])
        if kind is None or depth > _FURTHEST or self._graph.is_output(value):
            return False
        start = offset + view.offset * element_nbytes(kind.dtype)
        if start % ALIGNMENT:
            return False
        return all(self._reads(node, value, view.strides, start, depth) for node in value.users)

    def _reads(self, node: Node, value: Value, strides: tuple[int, ...], start: int, depth: int) -> bool:
        results = [self._types[v] for v in node.outputs]
        if settled(results) is not None:
            return True  # known from the sizes: nothing is read
        kinds = [None if v is None else self._types.get(v, v.type) for v in node.inputs]
        if node in self._apart or any(
            v is not None and static_tensor(t) is None for v, t in zip(node.inputs, kinds, strict=True)
        ):
            return False
        own = static_tensor(self._types[value])
        assert own is not None
        shape = static_shape(own)
        taken = None if self._joining is None else self._joining.of(node)
        if taken is not None:
            return self._join_reads(taken.join, value, View(0, strides), start, depth)
        dense = is_dense(shape, strides)
        numbers = [i for i, v in enumerate(node.inputs) if v is value]
        all_known = all(static_tensor(t) is not None for t in results)
        if is_same_bytes(node) and all_known and numbers == [0]:
            (result,) = map(static_tensor, results)
            assert result is not None
            walked = reshaped(shape, strides, static_shape(result))
            return walked is not None and self._take(node.output, View(0, walked), start, depth + 1)
        if node.graphs or find_lowering(node) is None:
            return False
        strided = tuple(strides if i in numbers and not dense else None for i in range(len(node.inputs)))
        handles = tuple(None if v is None else v.constant for v in node.inputs)
        site = Site(node, tuple(kinds), tuple(results), handles, self._target, strided)
        viewing = find_viewing(node)
        if viewing is not None and all_known and numbers == [0]:
            views = viewing(site)
            if views is not None and self.take(node.outputs, views, start, depth + 1):
                return True
        reading = find_reading(node)
        return dense or (reading is not None and all(reading(site, n) for n in numbers))

    def _join_reads(self, join: Join, value: Value, view: View, start: int, depth: int) -> bool:
        read = reading(join.nodes)
        types = infer_graph(join.graph, [self._types.get(v, v.type) for v in read])
        inner = Readers(join.graph, types, (), self._target)
        return inner._take(join.graph.inputs[read.index(value)], view, start, depth + 1)

"""A site's node alone, as a graph: its operands lie as they do in the network."""

import itertools
from collections.abc import Sequence

import numpy as np

from miniinfer_cli.backends.cuda.contract.site import Site
from miniinfer_cli.ir import Graph, TensorType, Type, Value
from miniinfer_cli.ir.parts import copy_value
from miniinfer_cli.ops.insert import insert


def site_graph(site: Site) -> tuple[Graph, list[Type | None]]:
    """A graph of the site's node alone, and the types of its inputs; constants are the same handles.

    What the node reads through strides it reads so here, too: as part of an input that is wider.
    """
    graph = Graph("trial")
    values: dict[Value, Value] = {}
    types: list[Type | None] = []
    inputs: list[Value | None] = []
    for number, (value, kind, handle) in enumerate(zip(site.node.inputs, site.types, site.handles, strict=False)):
        if value is None:
            inputs.append(None)
        elif handle is not None:
            inputs.append(graph.add_constant(handle))
        elif value.constant is not None:
            inputs.append(copy_value(graph, value, values))
        else:
            if value not in values:
                strides = site.strided[number] if site.strided else None
                whole = None if strides is None else _whole_of(site.shape(number), strides)
                values[value] = x = graph.add_input(
                    f"x{len(types)}", kind if whole is None else TensorType(site.dtype(number), whole)
                )
                types.append(x.type)
                if whole is not None and strides is not None:
                    values[value] = _cut(graph, x, site.shape(number), strides)
            inputs.append(values[value])
    node = site.node
    results = [graph.new_value(f"y{i}", kind) for i, kind in enumerate(site.results)]
    graph.add_node(
        node.op, inputs, results, domain=node.domain, name=node.name, attrs=node.attrs, graphs=node.graphs, body=node.body
    )
    graph.set_outputs(results)
    return graph, types


def _whole_of(sizes: Sequence[int], strides: Sequence[int]) -> tuple[int, ...] | None:
    """The shape of a dense tensor whose first elements along each axis lie by these strides, the longest of them first.

    Axes of one element do not count. None where there is no such tensor.
    """
    order = _outermost_first(sizes, strides)
    steps = [strides[i] for i in order]
    if not steps or steps[-1] != 1 or any(a % b for a, b in itertools.pairwise(steps)):
        return None
    whole = (sizes[order[0]], *(a // b for a, b in itertools.pairwise(steps)))
    return whole if all(n >= sizes[i] for n, i in zip(whole, order, strict=True)) else None


def _cut(graph: Graph, whole: Value, sizes: Sequence[int], strides: Sequence[int]) -> Value:
    """The part of ``whole`` that has these sizes and strides."""

    def constant(numbers: Sequence[int]) -> Value:
        return graph.add_constant(np.array(numbers, np.int64))

    order = _outermost_first(sizes, strides)
    part = insert(graph, "Slice", whole, constant([0] * len(order)), constant([sizes[i] for i in order]))
    turned = insert(graph, "Transpose", part, perm=[order.index(i) for i in sorted(order)])
    return insert(graph, "Reshape", turned, constant(sizes), allowzero=1)


def _outermost_first(sizes: Sequence[int], strides: Sequence[int]) -> list[int]:
    return sorted((i for i, n in enumerate(sizes) if n > 1), key=lambda i: -strides[i])

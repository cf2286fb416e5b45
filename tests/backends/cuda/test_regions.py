"""Splitting regions: the two parts compute what the region does."""

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.launching.regions import is_closed, split_region
from miniinfer_cli.ir import DType, Graph, Node, TensorType
from miniinfer_cli.ir.parts import leaving
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.passes.regions import make_region

F32 = TensorType(DType.F32, (2, 3))


def example() -> tuple[Graph, Node]:
    """Two outputs; a literal, a larger constant, and an input that both parts read."""
    graph = Graph("g")
    x, z = graph.add_input("x", F32), graph.add_input("z", F32)
    a = graph.add("Add", x, z, type=F32)
    b = graph.add("Mul", a, graph.add_constant(np.array(3, np.float32)), type=F32)
    c = graph.add("Sub", b, graph.add_constant(np.arange(3, dtype=np.float32), "row"), type=F32)
    d = graph.add("Mul", c, z, type=F32)
    e = graph.add("Neg", c, type=F32)
    graph.set_outputs([d, e])
    region = make_region(graph, "FusedExample", graph.nodes)
    return graph, region


@pytest.mark.parametrize("count", [1, 2, 3])
def test_both_parts_together_are_the_region(count: int) -> None:
    graph, region = example()
    assert region.body is not None
    split = split_region(region, region.body.nodes[:count])
    first, rest = split
    assert (first.body is None) == (count == 1)
    assert first.op == ("Add" if count == 1 else "FusedExample")
    assert (rest.op, rest.domain) == ("FusedPointwise", "miniinfer")
    assert [n.op for n in rest.body] == ["Add", "Mul", "Sub", "Mul", "Neg"][count:]
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s).astype(np.float32) for s in ((2, 3), (2, 3), (3,))][: len(region.inputs)]
    by_name = {v.name: a for v, a in zip(region.inputs, arrays, strict=True) if v is not None}
    given = [a for v, a in zip(region.inputs, arrays, strict=True) if v is not None and v.constant is None]
    stored = [v.constant.array() if v is not None and v.constant is not None else by_name[v.name] for v in region.inputs]
    for got, want in zip(interpret(split, stored), interpret(graph, given), strict=True):
        np.testing.assert_array_equal(got, want)


def test_literals_stay_inside() -> None:
    _, region = example()
    assert region.body is not None
    split = split_region(region, region.body.nodes[:1])
    *_, rest = split
    assert [v.constant is None for v in rest.inputs if v is not None] == [True, True, True]
    assert len(list(rest.body.constants())) == 1


def test_what_cannot_be_split() -> None:
    _, region = example()
    body = region.body
    assert body is not None
    nodes = body.nodes
    assert [v.producer for v in leaving(body, nodes[:4])] == [nodes[2], nodes[3]]
    assert not is_closed(body, nodes[:4])  # the Sub is read by the Neg
    assert not is_closed(body, nodes[1:2])  # reads the Add
    for prefix in ((), nodes, nodes[:4], nodes[1:2]):
        with pytest.raises(ValueError, match="cannot split"):
            split_region(region, prefix)

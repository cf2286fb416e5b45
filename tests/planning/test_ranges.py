"""Shapes by input name become ranges by dimension name, or sizes all through the graph."""

import pytest

from engine_format import DimensionRange
from miniinfer_cli.errors import UsageError
from miniinfer_cli.ir.text import print_graph
from miniinfer_cli.planning.ranges import dimension_ranges, fix_shapes
from tests.graph_text import typed_graph


def graph():
    return typed_graph("graph main(x: f32[batch,3,h], y: f32[batch,7]) {\n  z = Relu(x)\n  return z, y\n}")


def test_ranges_take_what_is_left_out_from_their_neighbours():
    ranges = dimension_ranges(graph(), {"y": (2, 7)}, {"x": (4, 3, 32)}, {"x": (8, 3, 32)})
    assert ranges == (DimensionRange("batch", 2, 4, 8), DimensionRange("h", 32, 32, 32))
    assert dimension_ranges(graph(), {}, {}, {"y": (8, 7)}) == (DimensionRange("batch", 8, 8, 8),)
    assert dimension_ranges(graph(), {}, {}, {}) == ()


def test_ranges_out_of_order_are_refused():
    with pytest.raises(UsageError, match=r"dimension 'batch': 4 \(min\), 2 \(opt\), 8 \(max\) are not in order"):
        dimension_ranges(graph(), {"y": (4, 7)}, {"y": (2, 7)}, {"y": (8, 7)})


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"w": (1,)}, r"--opt-shapes w:1: there is no input 'w'\n  hint: the inputs are x, y"),
        ({"y": (1, 2, 3)}, r"--opt-shapes y:1x2x3: rank 3 given, but the input is f32\[batch,7\]"),
        ({"y": (1, 8)}, r"--opt-shapes y:1x8: axis 1 is 8, but the input is f32\[batch,7\]"),
        ({"x": (1, 3, 9), "y": (2, 7)}, r"--opt-shapes y:2x7: dimension batch is 2 here and 1 before"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shapes, message):
    with pytest.raises(UsageError, match=message):
        dimension_ranges(graph(), {}, shapes, {})


def test_fixed_shapes_reach_every_value():
    fixed = graph()
    fix_shapes(fixed, {"x": (2, 3, 16)})
    assert print_graph(fixed) == ("graph main(x: f32[2,3,16], y: f32[2,7]) {\n  z: f32[2,3,16] = Relu(x)\n  return z, y\n}\n")


def test_only_fixed_shapes_tell_the_rank_of_an_input():
    def free():
        return typed_graph("graph main(x: f32[?]) {\n  z = Relu(x)\n  return z\n}")

    with pytest.raises(
        UsageError, match=r"--max-shapes x:2x3: the rank of the input is not known\n  hint: fix its shape: --shapes x:"
    ):
        dimension_ranges(free(), {}, {}, {"x": (2, 3)})
    fixed = free()
    fix_shapes(fixed, {"x": (2, 3)})
    assert str(fixed.outputs[0].type) == "f32[2,3]"

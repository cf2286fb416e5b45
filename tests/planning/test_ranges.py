"""Shapes by input name become ranges by dimension name, or sizes all through the graph."""

import re
from pathlib import Path

import pytest

from engine_format import UNBOUNDED, DimensionRange
from miniinfer_cli.errors import UsageError
from miniinfer_cli.ir import symbol
from miniinfer_cli.ir.dims import minimum
from miniinfer_cli.ir.text import print_graph
from miniinfer_cli.planning.ranges import all_ranges, assume_ranges, dimension_ranges, fix_shapes
from tests.graph_text import typed_graph


def graph(inputs="x, y"):
    types = {"x": "f32[batch,3,h]", "y": "f32[batch,7]"}
    head = ", ".join(f"{name}: {types[name]}" for name in inputs.split(", "))
    return typed_graph(f"graph main({head}) {{\n  z = Relu({inputs[0]})\n  return z, {inputs[-1]}\n}}")


def rows_of_the_table():
    """The eight combinations of the flags, as docs/cli.md has them."""
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    table = re.findall(r"^\| (-|2) \| (-|4) \| (-|8) \| (.*) \| (\d) \|$", page, re.MULTILINE)
    assert len(table) == 8
    return table


@pytest.mark.parametrize("row", rows_of_the_table(), ids=lambda row: "".join(row[:3]))
def test_a_bound_that_is_not_given_does_not_exist(row):
    *given, sizes, tuned = row
    shapes = [{} if size == "-" else {"y": (int(size), 7)} for size in given]
    (found,) = all_ranges(graph("y"), dimension_ranges(graph("y"), *shapes))
    assert str(found) == f"batch: {'any size' if sizes == 'any' else sizes}, tuned for {tuned}"
    low, _, high = (None if size == "-" else int(size) for size in given)
    assert (found.minimum, found.largest) == (low or 0, high)


def test_each_dimension_has_the_bounds_that_are_given_for_it():
    ranges = dimension_ranges(graph(), {"y": (2, 7)}, {"x": (4, 3, 32)}, {"x": (8, 3, 64)})
    assert ranges == (DimensionRange("batch", 2, 4, 8), DimensionRange("h", 0, 32, 64))
    assert all_ranges(graph(), ranges[1:]) == (DimensionRange("batch", 0, 1, UNBOUNDED), ranges[1])
    assert dimension_ranges(graph(), {}, {}, {}) == ()


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((4, 2, 8), r"dimension 'batch': 4 \(min\), 2 \(opt\), 8 \(max\) are not in order"),
        ((4, None, 2), r"dimension 'batch': 4 \(min\), 2 \(max\) are not in order"),
        ((None, 4, 2), r"dimension 'batch': 4 \(opt\), 2 \(max\) are not in order"),
        ((4, 2, None), r"dimension 'batch': 4 \(min\), 2 \(opt\) are not in order"),
    ],
)
def test_ranges_out_of_order_are_refused(sizes, message):
    with pytest.raises(UsageError, match=message):
        dimension_ranges(graph(), *({} if size is None else {"y": (size, 7)} for size in sizes))


def test_what_reasons_about_sizes_knows_the_ranges():
    bounded = typed_graph("graph main(x: f32[batch,3]) {\n  n = Shape(x)\n  return n, x\n}")
    assume_ranges(bounded, (DimensionRange("batch", 1, 4, 64),))
    batch = bounded.inputs[0].tensor.shape[0]
    assert (batch, minimum(batch, 1), minimum(batch, 64)) == (symbol("batch"), 1, symbol("batch"))
    assert bounded.outputs[0].tensor.known[0] > 0


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"w": (1,)}, r"opt_shapes, input 'w', 1: there is no input 'w'\n  hint: the inputs are x, y"),
        ({"y": (1, 2, 3)}, r"opt_shapes, input 'y', 1x2x3: rank 3 given, but the input is f32\[batch,7\]"),
        ({"y": (1, 8)}, r"opt_shapes, input 'y', 1x8: axis 1 is 8, but the input is f32\[batch,7\]"),
        ({"x": (1, 3, 9), "y": (2, 7)}, r"opt_shapes, input 'y', 2x7: dimension batch is 2 here and 1 before"),
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
        UsageError, match=r"max_shapes, input 'x', 2x3: the rank of the input is not known\n  hint: fix its shape: shapes={'x': "
    ):
        dimension_ranges(free(), {}, {}, {"x": (2, 3)})
    fixed = free()
    fix_shapes(fixed, {"x": (2, 3)})
    assert str(fixed.outputs[0].type) == "f32[2,3]"

"""Nodes with thousands of inputs: exchanged one by one, each costs little, and what is read stays right."""

import random
from collections.abc import Iterator

import pytest

from miniinfer_cli.ir import DType, Graph, TensorType, Value
from miniinfer_cli.ir.verifier import verify

TYPE = TensorType(DType.F32, (2,))


def wide(count: int) -> tuple[Graph, list[Value]]:
    """A Sum of ``count`` inputs, and these."""
    graph = Graph()
    values = [graph.add_input(f"x{i}", TYPE) for i in range(count)]
    result = graph.new_value("y", TYPE)
    graph.add_node("Sum", values, [result])
    graph.set_outputs([result])
    return graph, values


@pytest.mark.parametrize("count", [3, 63, 64, 65, 300])
def test_inputs_exchanged_in_any_order(count: int):
    rng = random.Random(count)
    graph, values = wide(count)
    (total,) = graph.nodes
    expected = list(total.inputs)
    for _ in range(4 * count):
        old, new = rng.choice(values), rng.choice(values)
        graph.replace_uses(old, new)
        expected = [new if v is old else v for v in expected]
        if rng.random() < 0.2:
            assert list(total.inputs) == expected
        if rng.random() < 0.1:
            expected = rng.sample([*expected, None], count)
            graph.set_inputs(total, expected)
    assert list(total.inputs) == expected
    verify(graph)


class Counting(tuple[Value, ...]):
    """Inputs, and how often all of them were looked at."""

    looks = 0

    def __iter__(self) -> Iterator[Value]:
        type(self).looks += 1
        return super().__iter__()


def test_the_inputs_of_a_wide_node_are_exchanged_without_looking_at_the_others():
    graph, values = wide(500)
    (total,) = graph.nodes
    total._inputs = Counting(values)
    for value in values[1:]:
        graph.replace_uses(value, values[0])
    assert total.inputs == (values[0],) * 500
    assert 1 <= Counting.looks <= 3

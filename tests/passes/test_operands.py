"""What passes ask of operands: constants of every kind, numbers, readers."""

import numpy as np
import pytest

from miniinfer_cli.ir import DType, Graph, TensorType, symbol
from miniinfer_cli.ir.constants import Filled
from miniinfer_cli.ir.dims import minimum
from miniinfer_cli.ops.pointwise import is_pointwise
from miniinfer_cli.passes.operands import concrete, constant_handle, dims, fills, known_ints, same_type, scalar, sole_user
from tests.passes.graphs import read_graph


@pytest.fixture
def graph():
    return Graph()


def test_constants_are_found_however_they_are_held(graph):
    array = graph.add_constant(np.array([1, 2]))
    assert constant_handle(array) is array.constant
    worked_out = graph.add_input("s", TensorType(DType.I64, (2,), np.array([3, 4], object)))
    assert constant_handle(worked_out).array().tolist() == [3, 4]
    symbolic = graph.add_input("t", TensorType(DType.I64, (2,), np.array([3, symbol("n")], object)))
    assert constant_handle(symbolic) is concrete(symbolic) is known_ints(symbolic) is None
    assert constant_handle(graph.add_input("x", TensorType(DType.F32, (2,)))) is constant_handle(None) is None


def test_known_integers_are_plain_ones(graph):
    assert known_ints(graph.add_constant(np.array([[1], [2]], np.int32))) == (1, 2)
    assert known_ints(graph.add_constant(np.array([1.0]))) is known_ints(None) is None
    assert known_ints(graph.add_constant(np.zeros(0, np.int64))) == ()


@pytest.mark.parametrize(
    ("data", "number"),
    [
        (np.array(2, np.int8), 2),
        (np.array([[0.5]], np.float16), 0.5),
        (np.array(True), True),
        (np.array([1, 1]), None),
        (np.array("a", object), None),
        (Filled(DType.BF16, (300, 300), 0.5), 0.5),
        (Filled(DType.I64, (2,), 7), 7),
    ],
)
def test_a_single_number_is_found(graph, data, number):
    found = scalar(graph.add_constant(data))
    assert (found, type(found)) == (number, type(number))


def test_a_symbolic_size_is_no_number(graph):
    assert scalar(graph.add_input("n", TensorType(DType.I64, (), np.array(symbol("n"), object)))) is None
    assert scalar(None) is None


def test_types_are_the_same_when_all_dimensions_are(graph):
    a, b = (graph.add_input(n, TensorType(DType.F32, (symbol("batch"), 2))) for n in "ab")
    assert same_type(a, b)
    assert not same_type(a, graph.add_input("c", TensorType(DType.F16, (symbol("batch"), 2))))
    assert not same_type(a, graph.add_input("d", TensorType(DType.F32, (symbol("n"), 2))))
    unknown = [graph.add_input(n, TensorType(DType.F32)) for n in "ef"]
    assert not same_type(*unknown)
    assert dims(unknown[0]) is dims(None) is None


def test_the_sole_reader_is_a_node_and_no_output():
    graph = read_graph("graph main(x: f32[2]) { a = Neg(x) b = Add(a, a) c = Mul(b, x) d = Exp(b) return c, d, a2=a }")
    a, b, c, _ = (n.output for n in graph)
    assert sole_user(graph, a) is None  # it is returned too
    assert sole_user(graph, b) is None
    assert sole_user(graph, c) is None
    graph.set_outputs([c])
    assert sole_user(graph, a) is graph.nodes[1]


def test_elementwise_operations_are_told_by_their_definition():
    graph = read_graph("graph main(x: f32[2]) { a = Neg(x) b = Softmax(a) return b }")
    assert [is_pointwise(n) for n in graph] == [True, False]


S, T = symbol("seq"), symbol("total")


@pytest.mark.parametrize(
    ("dim", "size", "answer"),
    [
        (S, S, True),
        (minimum(S, 1024), S, True),  # rows of a table: with fewer than seq the model has no meaning
        (minimum(S, 1), S, False),  # one element, repeated
        (1, S, False),
        (S, T, False),
        (S, S + 1, False),
        (minimum(S + T, 2048), S + T, True),
        (minimum(S, 1024), T, False),
    ],
)
def test_an_axis_fills_another_where_it_is_never_one_element_repeated(dim, size, answer):
    assert fills(dim, size) is answer

"""Dimensions of inputs: sizes, names, expressions, odd names, and none at all."""

import numpy as np
import pytest
from onnx import helper

from miniinfer_cli.ir import TensorType
from miniinfer_cli.ir.dim_text import parse_dim
from tests.onnx_import.models import F32, model, read, run


def _shapes(*shapes: list[object] | None) -> list[tuple[str, ...] | None]:
    """The dimensions of inputs declared with these shapes, as text."""
    inputs = {f"x{i}": (F32, shape) for i, shape in enumerate(shapes)}
    graph = read(model([helper.make_node("Sum", list(inputs)[:1], ["y"])], inputs, {"y": (F32, None)}))
    found = []
    for value in graph.inputs:
        assert isinstance(value.type, TensorType)
        found.append(None if value.type.shape is None else tuple(map(str, value.type.shape)))
    return found


def test_names_and_sizes() -> None:
    assert _shapes(["batch", 3, "seq"], ["seq", 0]) == [("batch", "3", "seq"), ("seq", "0")]


def test_missing_dimensions_are_named_after_their_place() -> None:
    assert _shapes([None, 3, None], [None]) == [("x0_dim0", "3", "x0_dim2"), ("x1_dim0",)]


def test_minus_one_means_any_size() -> None:
    assert _shapes([-1, 3]) == [("x0_dim0", "3")]


def test_an_input_may_have_no_shape_at_all() -> None:
    assert _shapes(None, []) == [None, ()]


def test_expressions_of_names_that_stand_alone_elsewhere() -> None:
    assert _shapes(["batch", "past + 1"], ["past"]) == [("batch", "past+1"), ("past",)]
    assert _shapes(["2*n", "n + m"], ["n", "m"]) == [("2*n", "m+n"), ("n", "m")]


def test_an_expression_of_other_names_is_a_name_of_its_own() -> None:
    (first,) = _shapes(["past + 1", "past + 1", "past+1"])
    assert first is not None
    assert first[0] == first[1] != first[2]
    assert all("+" not in d for d in first)


@pytest.mark.parametrize("name", ["batch size", "floor(h/2)", "3rd", "a,b", "x[0]", "ü", "a.b", "a:b"])
def test_odd_names_become_names_that_can_be_written(name: str) -> None:
    ((dim, again),) = _shapes([name, name])
    assert dim == again
    assert str(parse_dim(dim)) == dim
    assert not dim[0].isdigit()


@pytest.mark.parametrize("name", ["?", "0", "-1", "+", "??", "_", "*"])
def test_a_name_without_a_letter_is_no_name(name: str) -> None:
    assert _shapes([name, 3, name], [name]) == [("x0_dim0", "3", "x0_dim2"), ("x1_dim0",)]


def test_odd_names_stay_apart() -> None:
    (shape,) = _shapes(["a b", "a+b", "a_b"])
    assert shape is not None
    assert len(set(shape)) == 3


def test_odd_value_names_are_kept() -> None:
    nodes = [helper.make_node("Relu", ["in put/0:ü"], ["mid\n"], name="a b"), helper.make_node("Neg", ["mid\n"], ["out 'q'"])]
    proto = model(nodes, {"in put/0:ü": (F32, [None])}, {"out 'q'": (F32, None)})
    graph = read(proto)
    assert [v.name for v in graph.inputs] == ["in put/0:ü"]
    assert graph.output_names == ("out 'q'",)
    assert [n.name for n in graph] == ["a b", "out 'q'"]
    assert [str(d) for d in graph.inputs[0].tensor.shape or ()] == ["in_put_0:ü_dim0"]
    (out,) = run(proto, np.array([-1, 2], np.float32))
    assert out.tolist() == [0, -2]


def test_nodes_of_one_name_are_told_apart() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["a"], name="n"), helper.make_node("Relu", ["a"], ["b"], name="n")]
    assert [n.name for n in read(model(nodes, {"x": (F32, [1])}, {"b": (F32, None)}))] == ["n", "n_1"]

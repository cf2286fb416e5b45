"""Dimensions of inputs: sizes, names, expressions, odd names, and none at all."""

import re

import numpy as np
import onnx
import pytest
from onnx import helper

import miniinfer_cli
from miniinfer_cli.errors import UsageError
from miniinfer_cli.ir import TensorType
from miniinfer_cli.ir.dim_text import parse_dim
from tests.everywhere import check_everywhere, parsed
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


NO_NAMES = [
    "?",
    "0",
    "-1",
    "+",
    "??",
    "_",
    "*",
    "",
    "None",
    "NONE",
    "null",
    "unk",
    "Unknown",
    "undefined",
    "any",
    "dynamic",
    "dyn",
]


@pytest.mark.parametrize("name", NO_NAMES)
def test_what_exporters_write_for_any_size_is_no_name(name: str) -> None:
    assert _shapes([name, 3, name], [name]) == [("x0_dim0", "3", "x0_dim2"), ("x1_dim0",)]


@pytest.mark.parametrize("name", ["unk__1", "NoneType", "unknown_1", "3d", "dyn_batch", "n"])
def test_a_text_with_a_letter_is_one_size_wherever_it_stands(name: str) -> None:
    first, second = _shapes([name, 3], [name])
    assert first is not None
    assert second == first[:1]


def test_a_word_for_any_size_takes_part_in_no_expression() -> None:
    ((first, *_), _) = _shapes(["None + 1"], ["None"])  # type: ignore[misc]
    assert "+" not in first


@pytest.mark.parametrize("name", ["None", "?", "", "dynamic"])
def test_sizes_that_are_not_named_may_differ(name: str) -> None:
    proto = model(
        [helper.make_node("Add", ["a", "b"], ["y"])], {"a": (F32, [name, name]), "b": (F32, [name, name])}, {"y": (F32, None)}
    )
    a, b = np.ones((1, 3), np.float32), np.full((2, 1), 2, np.float32)
    check_everywhere(proto, ({"a": a, "b": b}, np.full((2, 3), 3, np.float32)), ({"a": a, "b": a}, a + a))


@pytest.mark.parametrize("name", ["n", "None", "?", ""])
@pytest.mark.parametrize("how", ["input", "inserted", "mapped", "optional"])
def test_each_element_of_a_sequence_has_sizes_of_its_own(name: str, how: str) -> None:
    text = {
        "input": "(seq(float[NAME, 2]) q) => (int64[2] y) {",
        "inserted": "(seq(float[NAME, 2]) p, float[NAME, 2] x) => (int64[2] y) { q = SequenceInsert(p, x)",
        "mapped": """(seq(float[NAME, 2]) p) => (int64[2] y) {
            q = SequenceMap(p) <body = b (float[NAME, 2] e) => (float[NAME, 2] r) { r = Neg(e) }>""",
        "optional": "(optional(seq(float[NAME, 2])) p) => (int64[2] y) { q = OptionalGetElement(p)",
    }[how]
    text = f"""g {text} zero = Constant<value = int64 {{0}}>() one = Constant<value = int64 {{1}}>()
        a = SequenceAt(q, zero) b = SequenceAt(q, one) c = Shape(a) d = Shape(b) y = Sub(c, d) }}"""
    proto = parsed(text.replace("NAME", "NAME_"), opset=18)
    for dim in (d for v in proto.graph.input for d in _dims_of(v.type)):
        if dim.dim_param == "NAME_":
            dim.dim_param = name
    few, many = np.ones((2, 2), np.float32), np.ones((5, 2), np.float32)
    feeds = {"input": {"q": [few, many]}, "inserted": {"p": [few], "x": many}}.get(how, {"p": [few, many]})
    check_everywhere(proto, (feeds, np.array([-3, 0])))


def _dims_of(type: onnx.TypeProto) -> list[onnx.TensorShapeProto.Dimension]:
    if type.HasField("sequence_type"):
        return _dims_of(type.sequence_type.elem_type)
    return _dims_of(type.optional_type.elem_type) if type.HasField("optional_type") else list(type.tensor_type.shape.dim)


def test_elements_have_the_sizes_that_are_declared_in_numbers() -> None:
    proto = parsed("g (seq(float[n, 2]) q) => (int64 y) { y = SequenceLength(q) }")
    check_everywhere(proto, ({"q": [np.ones((3, 2), np.float32)]}, np.array(1)))
    for odd, shown in (((2, 3), "f32[2,3]"), ((2,), "f32[2]")):
        with (
            miniinfer_cli.load(miniinfer_cli.build(proto), device="cpu") as engine,
            pytest.raises(UsageError, match=re.escape(f"input 'q': element 1 is {shown}, expected f32[?,2]")),
        ):
            engine.run({"q": [np.ones((1, 2), np.float32), np.ones(odd, np.float32)]})


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

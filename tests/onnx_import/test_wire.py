"""Large data stays where it is; everything else reaches protobuf byte for byte; broken bytes are told apart."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir.constants import MappedConstant
from miniinfer_cli.onnx_import import import_model
from miniinfer_cli.onnx_import.wire import LARGE_NBYTES, strip
from tests.onnx_import.models import BOOL, F32, model, subgraph

LARGE = np.arange(LARGE_NBYTES, dtype=np.float32)
SMALL = np.arange(3, dtype=np.float32)


def _restored(stripped: onnx.ModelProto, source: bytes) -> int:
    """Puts the data back into every tensor that lost it, wherever it is; how many there were."""
    count = 0

    def visit_tensor(tensor: onnx.TensorProto) -> None:
        nonlocal count
        if tensor.HasField("segment"):
            tensor.raw_data = source[tensor.segment.begin : tensor.segment.end]
            tensor.ClearField("segment")
            count += 1

    def visit_nodes(nodes: list[onnx.NodeProto]) -> None:
        for attribute in (a for n in nodes for a in n.attribute):
            for tensor in (attribute.t, *attribute.tensors, attribute.sparse_tensor.values):
                visit_tensor(tensor)
            for graph in (attribute.g, *attribute.graphs):
                visit_graph(graph)

    def visit_graph(graph: onnx.GraphProto) -> None:
        for tensor in (*graph.initializer, *(s.values for s in graph.sparse_initializer)):
            visit_tensor(tensor)
        visit_nodes(list(graph.node))

    visit_graph(stripped.graph)
    for function in stripped.functions:
        visit_nodes(list(function.node))
    return count


def _model_with_data_everywhere() -> onnx.ModelProto:
    branch = subgraph([helper.make_node("Add", ["x", "inner"], ["r"])], {}, {"r": (F32, None)}, {"inner": LARGE})
    function = helper.make_function(
        "f", "F", ["a"], ["b"],
        [
            helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(LARGE)),
            helper.make_node("Mul", ["a", "c"], ["b"]),
        ],
        [helper.make_opsetid("", 18)],
    )  # fmt: skip
    nodes = [
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(LARGE, "c")),
        helper.make_node("Add", ["x", "c"], ["y"]),
        helper.make_node("If", ["cond"], ["z"], then_branch=branch, else_branch=branch),
        helper.make_node("F", ["z"], ["f"], domain="f"),
        helper.make_node("Mul", ["f", "large"], ["m"]),
        helper.make_node("Mul", ["y", "m"], ["out"]),
    ]
    inputs = {"x": (F32, [LARGE.size]), "cond": (BOOL, [])}
    return model(nodes, inputs, {"out": (F32, None)}, {"large": LARGE, "small": SMALL}, opsets={"f": 1}, functions=[function])


def test_all_large_data_is_left_out_and_nothing_else() -> None:
    proto = _model_with_data_everywhere()
    source = proto.SerializeToString()
    stripped = strip(source)
    assert len(stripped.ranges) == 5
    assert len(stripped.model) < 3000
    parsed = onnx.ModelProto.FromString(stripped.model)
    assert _restored(parsed, source) == 5
    assert parsed == proto


def test_small_models_are_left_as_they_are() -> None:
    proto = model([helper.make_node("Add", ["x", "w"], ["y"])], {"x": (F32, [3])}, {"y": (F32, None)}, {"w": SMALL})
    source = proto.SerializeToString()
    assert strip(source) == strip(memoryview(source))
    assert strip(source).model == source


@pytest.mark.parametrize("field", ["float_data", "double_data"])
def test_packed_floats_are_ranges_too(field: str) -> None:
    kind, dtype = (TensorProto.FLOAT, np.float32) if field == "float_data" else (TensorProto.DOUBLE, np.float64)
    numbers = np.arange(LARGE_NBYTES).astype(dtype)
    tensor = helper.make_tensor("w", kind, numbers.shape, numbers)
    assert len(getattr(tensor, field)) == numbers.size
    proto = model([helper.make_node("Add", ["x", "w"], ["y"])], {"x": (kind, [1])}, {"y": (kind, None)}, {"w": tensor})
    (node,) = import_model(proto.SerializeToString())
    handle = node.inputs[1].constant
    assert isinstance(handle, MappedConstant)
    np.testing.assert_array_equal(handle.array(), numbers)


def test_every_truncation_is_told() -> None:
    source = _model_with_data_everywhere().SerializeToString()
    small = model([helper.make_node("Relu", ["x"], ["y"])], {"x": (F32, [3])}, {"y": (F32, None)}).SerializeToString()
    cuts = [small[:i] for i in range(1, len(small))] + [source[:i] for i in range(1, len(source), 997)]
    for cut in cuts:
        with pytest.raises(ModelError) as caught:
            import_model(cut)
        text = str(caught.value)
        assert "cut off" in text or "imports no operator sets" in text or "neither a graph nor a version" in text, text


_CHANGES = st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=3)


@pytest.mark.parametrize("large", [False, True])
def test_random_damage_raises_model_errors_only(large: bool) -> None:
    small = model([helper.make_node("Relu", ["x"], ["y"])], {"x": (F32, [3])}, {"y": (F32, None)})
    base = _model_with_data_everywhere().SerializeToString()[:1500] if large else small.SerializeToString()
    refused = 0

    @settings(max_examples=200, derandomize=True, database=None)
    @given(_CHANGES)
    def check(changes: list[tuple[int, int]]) -> None:
        nonlocal refused
        data = bytearray(base)
        for place, byte in changes:
            data[place % len(data)] = byte
        try:
            import_model(bytes(data))
        except ModelError:
            refused += 1

    check()
    assert refused > 80


def test_a_tensor_in_segments_is_refused() -> None:
    tensor = numpy_helper.from_array(LARGE, "w")
    tensor.segment.begin, tensor.segment.end = 0, 4 * LARGE.size
    proto = model([helper.make_node("Add", ["x", "w"], ["y"])], {"x": (F32, [1])}, {"y": (F32, None)}, {"w": tensor})
    for source in (proto, proto.SerializeToString()):
        with pytest.raises(ModelError, match="stored in segments"):
            import_model(source)


def test_deep_nesting_is_refused() -> None:
    def field(number: int, contents: bytes) -> bytes:
        length, out = len(contents), bytearray([number << 3 | 2])
        while length > 0x7F:
            out.append(length & 0x7F | 0x80)
            length >>= 7
        return bytes(out) + bytes([length]) + contents

    graph = field(5, numpy_helper.from_array(LARGE, "w").SerializeToString())
    for _ in range(40):
        graph = field(1, field(5, field(6, graph)))  # a node with an attribute that is a graph
    with pytest.raises(ModelError, match="nests more than 100 messages"):
        import_model(field(7, graph))


def test_names_that_are_no_text_are_refused() -> None:
    source = model([helper.make_node("Relu", ["x"], ["why"])], {"x": (F32, [3])}, {"why": (F32, None)}).SerializeToString()
    with pytest.raises(ModelError, match="not UTF-8 text"):
        import_model(source.replace(b"why", b"w\xffy"))

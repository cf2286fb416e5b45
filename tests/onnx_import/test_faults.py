"""What is wrong with a model is told in one go: each node once, by name, operator, opset and reason."""

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from miniinfer_cli.errors import UsageError
from miniinfer_cli.onnx_import import history, import_model
from tests.onnx_import.models import F32, F64, I64, fault, model

RELU = model([helper.make_node("Relu", ["x"], ["y"])], {"x": (F32, [3])}, {"y": (F32, None)})


def _node(
    op: str, *inputs: str, name: str = "n", outputs: tuple[str, ...] = ("y",), domain: str = "", **attrs: object
) -> onnx.NodeProto:
    return helper.make_node(op, list(inputs), list(outputs), name=name, domain=domain, **attrs)


def _fault_of(*nodes: onnx.NodeProto, opset: int = 18, opsets: dict[str, int] | None = None) -> str:
    inputs = {"x": (F32, [2, 3]), "z": (F32, [4, 5]), "i": (I64, [2])}
    return fault(model(nodes, inputs, {"y": (F32, None)}, opset=opset, opsets=opsets))


# -- not a model ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"\x89MIPLAN\n\x02" + bytes(50), "not an ONNX model\n  hint: it is a plan, which is built already"),
        (b"\x00\x01\x02" * 50, "not an ONNX model: byte 0 starts no protobuf field"),
        (b"\xff" * 50, "not an ONNX model: byte 0 starts no number"),
        (b"plain text, not a model at all", "not an ONNX model"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "it is a Git LFS pointer; run 'git lfs pull'"),
        (b"PK\x03\x04" + bytes(40), "it is a ZIP archive, perhaps a PyTorch checkpoint"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(40), "it is a TensorFlow Lite model"),
        (b'{"irVersion": "8"}', "it is JSON; save the model in ONNX's binary form"),
        (b"<!DOCTYPE html>", "was the download an error page?"),
        (b"\x12\x04abcd", "not an ONNX model: it has neither a graph nor a version"),
        (b"\x3a\x03\x0a\x01\x0b", "protobuf cannot read it"),
    ],
)
def test_bytes_that_are_no_model(tmp_path: Path, data: bytes, reason: str) -> None:
    assert fault(data).startswith("model: ")
    path = tmp_path / "some file.onnx"
    path.write_bytes(data)
    text = fault(path)
    assert text.startswith("some file.onnx: ")
    assert reason in text


def test_a_truncated_model_says_so() -> None:
    text = fault(RELU.SerializeToString()[:30])
    assert "the model is cut off: a field at byte" in text
    assert text.endswith("hint: the file is incomplete; copy or download it again")


def test_a_model_without_opsets_is_cut_off() -> None:
    proto = onnx.ModelProto(ir_version=8, graph=RELU.graph)
    assert "the model is cut off: it has a graph but imports no operator sets" in fault(proto)


def test_paths_that_cannot_be_opened(tmp_path: Path) -> None:
    for path, reason in ((tmp_path, "is a folder, not a model"), (tmp_path / "gone.onnx", "cannot be opened: No such file")):
        with pytest.raises(UsageError, match=reason) as caught:
            import_model(path)
        assert caught.value.exit_code == 2


# -- versions ------------------------------------------------------------------------------------------------------


def test_versions_from_the_future() -> None:
    proto = onnx.ModelProto.FromString(RELU.SerializeToString())
    proto.ir_version = 99
    assert f"IR version 99 is newer than the {onnx.IR_VERSION} that onnx {onnx.__version__} knows" in fault(proto)
    text = fault(model([_node("Relu", "x")], {"x": (F32, [3])}, {"y": (F32, None)}, opset=99, opsets={"ai.onnx.ml": 77}))
    newest = onnx.defs.onnx_opset_version()
    assert f"opset 99 of ai.onnx is newer than {newest}, the newest of onnx" in text
    assert "opset 77 of ai.onnx.ml is newer than" in text


def test_an_operator_of_a_later_opset() -> None:
    text = _fault_of(_node("Gelu", "x"), opset=17)
    assert text.startswith("model: node 'n' (Gelu, opset 17): Gelu does not exist in opset 17 of ai.onnx")
    assert "re-export the model with that opset or later" in text


def test_a_version_that_is_too_old() -> None:
    text = _fault_of(_node("Add", "x", "x"), opset=5)
    assert "node 'n' (Add, opset 5): version 1 of Add is older than this release reads" in text
    assert "onnx.version_converter" in text


def test_a_version_that_is_too_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(history.SAME, "Softplus", (1,))  # as if version 22 came after this release
    text = _fault_of(_node("Softplus", "x"), opset=22)
    assert "node 'n' (Softplus, opset 22): version 22 of Softplus is newer than this release knows" in text
    assert f"hint: re-export the model with opset {history.NEWEST} or older" in text


# -- nodes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        (_node("SoftMax", "x"), "ai.onnx has no operator 'SoftMax'\n  hint: did you mean 'Softmax'?"),
        (_node("Fused", "x", domain="com.acme"), "operation com.acme::Fused is not known\n  hint: give its meaning in a module"),
        (
            _node("Fused", "x", domain="com.other"),
            "operation com.other::Fused is not known\n  hint: give its meaning in a module",
        ),
        (_node("Scalar", "x", domain="ai.onnx.ml"), "ai.onnx.ml has no operator 'Scalar'\n  hint: did you mean 'Scaler'?"),
        (_node("Softmax", "x", axes=1), "Softmax-13 has no attribute 'axes'; its attributes: axis"),
        (_node("Relu", "x", axis=1), "Relu-14 has no attribute 'axis'; its attributes: none"),
        (_node("Softmax", "x", axis=1.5), "attribute 'axis' of Softmax-13 is of type INT, got FLOAT"),
        (_node("Concat", "x"), "Concat-13 needs the attribute 'axis'"),
        (_node("Relu"), "Relu-14 takes 1 inputs, got 0"),
        (_node("Conv", "x", "x", "x", "x"), "Conv-11 takes 2 to 3 inputs, got 4"),
        (_node("Relu", "x", outputs=("y", "w")), "Relu-14 takes 1 outputs, got 2"),
        (_node("Add", "x", ""), "Add-14 needs input 1 (B)"),
        (_node("Relu", "X"), "reads 'X', which nothing makes"),
        (_node("Add", "input", "other"), "reads 'input' and 'other', which nothing makes"),
        (_node("Add", "x", "z"), "Add: shapes [2,3] and [4,5] do not broadcast (2 against 4)"),
        (_node("MatMul", "x", "z"), "MatMul"),
        (_node("Add", "x", "i"), "Add"),
        (_node("Softmax", "x", axis=2), "Softmax axis 2 is outside [-2, 1] for input f32[2,3]"),
        (_node("Constant"), "Constant takes one attribute that holds its value, got 0"),
        (_node("Constant", size=1), "Constant has no attribute 'size'"),
    ],
)
def test_faulty_nodes(node: onnx.NodeProto, reason: str) -> None:
    text = _fault_of(node, opsets={"com.other": 1})
    op = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    opset = {"": ", opset 18", "com.other": ", opset 1"}.get(node.domain, "")
    assert text.startswith(f"model: node 'n' ({op}{opset}): {reason}"), text


def test_a_node_without_a_name_goes_by_its_output() -> None:
    assert "node 'y' (NoSuchOp, opset 18)" in _fault_of(_node("NoSuchOp", "x", name=""))


def test_all_faults_are_told_at_once_and_what_follows_from_them_is_not() -> None:
    text = _fault_of(
        _node("NoSuchOp", "x", name="a", outputs=("p",)),
        _node("Relu", "p", name="after a", outputs=("q",)),
        _node("Add", "x", "z", name="b", outputs=("r",)),
        _node("Mul", "q", "r", name="after both", outputs=("s",)),
        _node("Softmax", "s", name="c", axes=3, outputs=("t",)),
        _node("Neg", "t", name="after c"),
    )
    assert text.splitlines() == [
        "model: 3 things are wrong with this model:",
        "  node 'a' (NoSuchOp, opset 18): ai.onnx has no operator 'NoSuchOp'",
        "  node 'b' (Add, opset 18): Add: shapes [2,3] and [4,5] do not broadcast (2 against 4)",
        "  node 'c' (Softmax, opset 18): Softmax-13 has no attribute 'axes'; its attributes: axis",
        "  hint: mend the node, or export the model again: https://onnx.ai/onnx/operators/onnx__Add.html and "
        "https://onnx.ai/onnx/operators/onnx__Softmax.html says what it takes",
    ]


def test_long_lists_are_counted() -> None:
    nodes = [_node(f"NoSuchOp{i}", "x", name=f"n{i}", outputs=(f"o{i}",)) for i in range(50)]
    lines = _fault_of(*nodes, _node("Relu", "x")).splitlines()
    assert lines[0] == "model: 50 things are wrong with this model:"
    assert lines[20:] == ["  node 'n19' (NoSuchOp19, opset 18): ai.onnx has no operator 'NoSuchOp19'", "  and 30 more"]


def test_a_fault_of_several_nodes_is_told_once_with_their_count() -> None:
    fused = [_node("Fused", "x", name=f"n{i}", outputs=(f"o{i}",), domain="com.other") for i in range(12)]
    other = [_node("Other", "x", name=f"m{i}", outputs=(f"p{i}",), domain="com.other") for i in range(2)]
    text = _fault_of(*fused, *other, _node("Relu", "x"), opsets={"com.other": 1})
    assert text.splitlines() == [
        "model: 2 things are wrong with this model:",
        "  12 nodes, the first 'n0', 'n1' and 'n2' (com.other.Fused, opset 1): operation com.other::Fused is not known",
        "  nodes 'm0' and 'm1' (com.other.Other, opset 1): operation com.other::Other is not known",
        "  hint: give its meaning in a module, plugins=[MODULE], see docs/plugins.md",
    ]
    alone = _fault_of(*fused, _node("Relu", "x"), opsets={"com.other": 1})
    assert alone.startswith("model: 12 nodes, the first 'n0', 'n1' and 'n2' (com.other.Fused, opset 1): operation")


# -- structure -----------------------------------------------------------------------------------------------------


def test_a_cycle_is_told_with_its_path() -> None:
    text = _fault_of(
        _node("Add", "x", "c", name="a", outputs=("a",)),
        _node("Relu", "a", name="b", outputs=("b",)),
        _node("Relu", "b", name="c", outputs=("c",)),
        _node("Neg", "c", name="after"),
    )
    assert text == "model: node 'a' (Add, opset 18): is part of a cycle: 'a' -> 'b' -> 'c' -> 'a'"


def test_a_node_that_reads_itself() -> None:
    assert "is part of a cycle: 'n' -> 'n'" in _fault_of(_node("Add", "x", "y"))


def test_a_name_that_is_made_twice() -> None:
    text = _fault_of(_node("Relu", "x", name="a"), _node("Neg", "x", name="b"), _node("Abs", "y", name="c", outputs=("x",)))
    assert "node 'b' (Neg, opset 18): makes 'y', which node 'a' (Relu, opset 18) makes already" in text
    assert "node 'c' (Abs, opset 18): makes 'x', which is an input or an initializer" in text


def test_graphs_with_faulty_inputs_and_outputs() -> None:
    proto = onnx.ModelProto.FromString(RELU.SerializeToString())
    del proto.graph.output[:]
    assert fault(proto) == "model: the graph: it has no outputs"
    proto.graph.output.add().CopyFrom(helper.make_tensor_value_info("gone", F32, None))
    proto.graph.output.add().CopyFrom(helper.make_tensor_value_info("y", F64, None))
    proto.graph.output.add().CopyFrom(helper.make_tensor_value_info("y", F32, None))
    proto.graph.input.add(name="untyped")
    proto.graph.input.add().CopyFrom(proto.graph.input[0])
    proto.graph.input.add().CopyFrom(helper.make_sparse_tensor_value_info("sparse", F32, [3]))
    assert fault(proto).splitlines()[1:] == [
        "  input 'untyped': it has no type",
        "  input 'x': there are two inputs of this name",
        "  input 'sparse': value 'sparse' is a sparse tensor type, which is not supported",
        "  the graph: reads 'gone', which nothing makes",
    ]


def test_two_initializers_of_one_name() -> None:
    proto = model(
        [_node("Add", "x", "w")], {"x": (F32, [1])}, {"y": (F32, None)}, {"w": helper.make_tensor("w", F32, [1], [1.0])}
    )
    proto.graph.initializer.add().CopyFrom(proto.graph.initializer[0])
    assert fault(proto) == "model: the graph: has 2 initializers named 'w'"


def test_unsorted_nodes_are_put_in_order() -> None:
    nodes = [_node("Neg", "b"), _node("Relu", "a", outputs=("b",), name="b"), _node("Abs", "x", outputs=("a",), name="a")]
    graph = import_model(model(nodes, {"x": (F32, [1])}, {"y": (F32, None)}))
    assert [n.op for n in graph] == ["Abs", "Relu", "Neg"]


def test_types_that_are_not_supported() -> None:
    proto = model([_node("Relu", "x")], {"x": (TensorProto.FLOAT, [1])}, {"y": (F32, None)})
    proto.graph.input[0].type.tensor_type.elem_type = 99
    assert fault(proto) == "model: input 'x': element type number 99 is not supported"

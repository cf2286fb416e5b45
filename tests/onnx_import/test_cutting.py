"""Models from named values on."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import miniinfer_cli
from miniinfer_cli.errors import ModelError, UsageError
from miniinfer_cli.onnx_import.cutting import cut
from miniinfer_cli.verification import verify_plan
from tests.onnx_import.models import F32, I64, model, ops_of, read, run

STORED = {"table": np.arange(12, dtype=np.float32).reshape(4, 3), "two": np.array(2, np.float32)}


def tokenized(*, typed: bool = True) -> onnx.ModelProto:
    """Strings to numbers by an operator that nothing here knows, then two that are."""
    nodes = [
        helper.make_node("BertTokenizer", ["text"], ["ids", "other"], domain="ai.onnx.contrib"),
        helper.make_node("Gather", ["table", "ids"], ["rows"], axis=0),
        helper.make_node("Mul", ["rows", "two"], ["y"]),
    ]
    proto = model(nodes, {"text": (TensorProto.STRING, ["n"])}, {"y": (F32, ["n", 3])}, STORED, opsets={"ai.onnx.contrib": 1})
    if typed:
        proto.graph.value_info.append(helper.make_tensor_value_info("ids", I64, ["n"]))
    return proto


def test_what_only_led_there_is_left_out() -> None:
    with pytest.raises(ModelError, match=r"ai\.onnx\.contrib::BertTokenizer is not known"):
        read(tokenized())
    graph = read(tokenized(), start_at=["ids"])
    assert [str(v.type) for v in graph.inputs] == ["i64[n]"]
    assert ops_of(graph) == ["Gather", "Mul"]
    (y,) = run(tokenized(), np.array([3, 1]), start_at=["ids"])
    np.testing.assert_array_equal(y, STORED["table"][[3, 1]] * 2)


def test_a_type_may_be_given() -> None:
    with pytest.raises(UsageError, match="the model does not tell the type of 'ids'"):
        read(tokenized(typed=False), start_at=["ids"])
    graph = read(tokenized(typed=False), start_at=["ids:i64[batch,5]"])
    assert [str(v.type) for v in graph.inputs] == ["i64[batch,5]"]
    with pytest.raises(UsageError, match="'i65' is no type of a tensor"):
        read(tokenized(), start_at=["ids:i65"])


def test_names_with_colons() -> None:
    nodes = [helper.make_node("Abs", ["x:0"], ["a:0"]), helper.make_node("Neg", ["a:0"], ["y:0"])]
    proto = model(nodes, {"x:0": (F32, ["n"])}, {"y:0": (F32, ["n"])})
    graph = read(proto, start_at=["a:0:f32[n]"])
    assert ([v.name for v in graph.inputs], ops_of(graph)) == (["a:0"], ["Neg"])


def branching() -> onnx.ModelProto:
    """x in two halves, of which one is read twice; another input; a branch that reads from outside."""
    branch = {
        name: helper.make_graph(
            [helper.make_node(op, ["a"], [f"{op}.y"])], op, [], [helper.make_tensor_value_info(f"{op}.y", F32, None)]
        )
        for name, op in (("then_branch", "Neg"), ("else_branch", "Abs"))
    }
    nodes = [
        helper.make_node("Split", ["x"], ["a", "b"], axis=0, num_outputs=2),
        helper.make_node("If", ["which"], ["c"], **branch),
        helper.make_node("Add", ["b", "c"], ["y"]),
    ]
    inputs = {"x": (F32, [4]), "which": (TensorProto.BOOL, [])}
    proto = model(nodes, inputs, {"y": (F32, [2])})
    proto.graph.value_info.extend(helper.make_tensor_value_info(n, F32, [2]) for n in "abc")
    return proto


def test_a_node_that_makes_another_value_stays() -> None:
    proto = branching()
    graph = read(proto, start_at=["a"])
    assert [v.name for v in graph.inputs] == ["x", "which", "a"]
    x, a = np.arange(4, dtype=np.float32), np.array([7, -8], np.float32)
    (y,) = run(proto, x, np.array(True), a, start_at=["a"])
    np.testing.assert_array_equal(y, x[2:] - a)
    both = read(proto, start_at=["b", "a"])
    assert [v.name for v in both.inputs] == ["which", "b", "a"]
    assert "Split" not in ops_of(both)


def test_marked_nodes_stay() -> None:
    graph = read(branching(), start_at=["c"], mark_outputs=["a"])
    assert graph.output_names == ("y", "a")
    assert [v.name for v in graph.inputs] == ["x", "c"]


@pytest.mark.parametrize(
    ("start_at", "message"),
    [("idz", "nothing in the model is named 'idz'"), ("other:i64[n]", "no output depends on the value 'other'")],
)
def test_refusals(start_at: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read(tokenized(), start_at=[start_at])


def test_verified_by_onnxruntime() -> None:
    """The part that is left is compared with what ONNX Runtime makes of that part."""
    data = tokenized().SerializeToString()
    plan = miniinfer_cli.build(data, start_at=["ids"])
    assert plan.report.options["start_at"] == ("ids",)
    ids: Any = np.array([0, 3])
    checked = verify_plan(data, plan, {"ids": ids}, start_at=["ids"])
    assert checked.ok and checked.oracle.startswith("onnxruntime")
    onnx.checker.check_model(cut(tokenized(), ["ids"]))

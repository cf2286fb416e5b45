"""What is formally wrong with a model but means one thing is taken as meant, with a note."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import miniinfer_cli
from miniinfer_cli.errors import ModelError
from miniinfer_cli.onnx_import import import_with_info, registry
from miniinfer_cli.onnx_import.history import TAKEN_EARLY
from miniinfer_cli.ops import find
from tests.everywhere import outputs_everywhere
from tests.onnx_import.models import F32, fault, model, run

X = np.array([[1, 2, 3, 6]], np.float32)


def _model(*nodes: onnx.NodeProto, opset: int = 11, **options: Any) -> onnx.ModelProto:
    return model(nodes, {"x": (F32, [1, 4])}, {"y": (F32, [1, 4])}, opset=opset, **options)


def _notes(proto: onnx.ModelProto) -> Sequence[str]:
    return import_with_info(proto)[1].notes


def test_a_model_that_keeps_to_the_letter_has_no_notes() -> None:
    assert _notes(_model(helper.make_node("Relu", ["x"], ["y"]))) == ()


def test_an_operator_from_before_its_time_is_what_it_became() -> None:
    one = helper.make_node("LayerNormalization", ["x", "s"], ["h"], name="a")
    two = helper.make_node("LayerNormalization", ["h", "s"], ["y"], name="b")
    proto = _model(one, two, stored={"s": np.full(4, 2, np.float32)})
    centred = X - X.mean()
    np.testing.assert_allclose(run(proto, X)[0], 2 * centred / centred.std(), rtol=1e-5)
    text = "LayerNormalization does not exist in opset 11 of ai.onnx: it is taken as of opset 17"
    assert _notes(proto) == (f"{text} (nodes 'a' and 'b')",)
    wrong = _model(helper.make_node("LayerNormalization", ["x", "s"], ["y"], eps=1.0), stored={"s": np.ones(4, np.float32)})
    assert "LayerNormalization-17 has no attribute 'eps'" in fault(wrong)


def test_what_may_stand_early_is_known_since_then() -> None:
    for op, version in TAKEN_EARLY.items():
        assert find("", op) is not None
        assert min(registry.declared_versions(op)) == version


def test_an_operator_that_onnx_never_had_keeps_to_the_form_it_was_registered_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_HANDLERS", dict(registry._HANDLERS))
    monkeypatch.setattr(registry, "_UNLISTED", {})
    registry.unlisted("Doubled", {"times": onnx.AttributeProto.INT}, (1, 1), (1, 1))(
        lambda call: call.result("Add", call.required(0), call.required(0))
    )
    proto = _model(helper.make_node("Doubled", ["x"], ["y"], name="n", times=2))
    np.testing.assert_array_equal(run(proto, X)[0], 2 * X)
    assert _notes(proto) == ("Doubled is no operator of ai.onnx: it is taken as what exporters mean by it (node 'n')",)
    for wrong, reason in (
        (helper.make_node("Doubled", ["x"], ["y"], axis=1), "Doubled-1 has no attribute 'axis'; its attributes: times"),
        (helper.make_node("Doubled", ["x", "x"], ["y"]), "Doubled-1 takes 1 inputs, got 2"),
    ):
        assert reason in fault(_model(wrong))


def test_a_domain_that_is_not_imported_is_read_in_its_newest_opset() -> None:
    nodes = [helper.make_node("Normalizer", ["x"], ["y"], name="n", domain="ai.onnx.ml", norm="L1")]
    proto = _model(*nodes, opset=13)
    np.testing.assert_allclose(run(proto, X)[0], X / 12, rtol=1e-6)
    newest = max(s.since_version for s in onnx.defs.get_all_schemas_with_history() if s.domain == "ai.onnx.ml")
    text = f"the model uses ai.onnx.ml and does not import it: it is read as of opset {newest}, the newest known"
    assert _notes(proto) == (f"{text} (node 'n')",)
    del proto.opset_import[:]
    proto.opset_import.add(domain="ai.onnx.ml", version=1)
    proto.graph.node[0].CopyFrom(helper.make_node("Softmax", ["x"], ["y"], name="s"))
    np.testing.assert_allclose(run(proto, X)[0], np.exp(X) / np.exp(X).sum(), rtol=1e-6)
    assert _notes(proto)[0].startswith("the model uses ai.onnx and does not import it")


def test_a_function_may_use_what_the_model_imports() -> None:
    call = helper.make_node("Scaled", ["x"], ["y"], domain="my")
    body = [helper.make_node("Scaler", ["a"], ["b"], domain="ai.onnx.ml", offset=[0.0], scale=[2.0])]
    function = helper.make_function("my", "Scaled", ["a"], ["b"], body, [helper.make_opsetid("", 18)])
    proto = _model(call, opset=18, functions=[function], opsets={"my": 1, "ai.onnx.ml": 1})
    np.testing.assert_array_equal(run(proto, X)[0], 2 * X)
    assert _notes(proto) == ()


def test_an_output_declared_of_another_type_is_of_the_type_that_is_computed() -> None:
    one = helper.make_node("Constant", [], ["y"], value=onnx.numpy_helper.from_array(np.array([1], np.int32)))
    proto = _model(one, opset=13)
    (found,) = outputs_everywhere(proto, {"x": X})
    np.testing.assert_array_equal(found["y"], np.array([1], np.int32), strict=True)
    assert _notes(proto) == ("output 'y' is declared as f32, its nodes make i32[1]: it is taken as they make it",)


def test_an_output_listed_twice_is_returned_once() -> None:
    proto = _model(helper.make_node("Neg", ["x"], ["y"]), helper.make_node("Abs", ["x"], ["z"]))
    proto.graph.output.add().CopyFrom(helper.make_tensor_value_info("z", F32, None))
    proto.graph.output.add().CopyFrom(proto.graph.output[0])
    (found,) = outputs_everywhere(proto, {"x": X}, mark_outputs=["y"])
    assert list(found) == ["y", "z"]
    assert _notes(proto) == ("output 'y' is listed 2 times: a run returns it once",)
    metadata = miniinfer_cli.build(proto).report.metadata
    assert list(metadata["outputs"]) == ["y", "z", "y"]


def test_notes_are_in_the_plan() -> None:
    proto = _model(helper.make_node("LayerNormalization", ["x", "s"], ["y"], name="a"), stored={"s": np.ones(4, np.float32)})
    (note,) = miniinfer_cli.build(proto).report.metadata["notes"]
    assert note.endswith("it is taken as of opset 17 (node 'a')")


def test_a_value_made_twice_stays_refused() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"], name="a"), helper.make_node("Neg", ["x"], ["y"], name="b")]
    with pytest.raises(ModelError, match=r"makes 'y', which node 'a' .* makes already"):
        miniinfer_cli.build(_model(*nodes))

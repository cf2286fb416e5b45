"""Inputs with an initializer: constants by default, inputs with a default where the build is told so."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import miniinfer_cli
from engine_format import read_plan, write_plan
from miniinfer_cli.devices.opening import load
from miniinfer_cli.errors import ModelError, PlanFileError, UsageError
from miniinfer_cli.onnx_import import import_with_info
from miniinfer_cli.planning.freeze import freeze
from miniinfer_cli.planning.thaw import thaw
from miniinfer_cli.verification import verify_plan
from tests.emulation.engine import open_emulated
from tests.everywhere import outputs_everywhere
from tests.onnx_import.models import F32, I64, fault, model

X, W, V = np.float32([[1, 2, 3]]), np.float32([4, 5, 6]), np.float32([7, 8, 9])
NODES = [helper.make_node("Add", ["x", "w"], ["a"], name="a"), helper.make_node("Reshape", ["a", "s"], ["y"], name="r")]


def overridable_model(ir_version: int = 10, w: list[object] | None = None) -> onnx.ModelProto:
    """x[n,3] + w, reshaped to s; w and s are inputs with initializers, c is an initializer alone."""
    inputs = {"x": (F32, ["n", 3]), "w": (F32, w or [3]), "s": (I64, [1])}
    proto = model(NODES, inputs, {"y": (F32, None)}, {"w": W, "s": np.array([-1])})
    proto.graph.initializer.add().CopyFrom(numpy_helper.from_array(W, "c"))
    proto.ir_version = ir_version
    return proto


@pytest.mark.parametrize(("ir_version", "notes"), [(3, 0), (4, 1), (10, 1)])
def test_they_are_constants_by_default(ir_version, notes):
    graph, info = import_with_info(overridable_model(ir_version))
    assert [v.name for v in graph.inputs] == ["x"]
    assert info.constant_inputs == ("w", "s")
    text = "2 inputs have initializers and are taken as constants;"
    text += " --overridable NAME (overridable=) makes one an input with a default"
    assert info.notes == (text,) * notes
    (found,) = outputs_everywhere(overridable_model(ir_version), {"x": X})
    assert found["y"].tolist() == [5, 7, 9]


@pytest.mark.parametrize("ir_version", [3, 10])
def test_an_overridable_input_has_its_default(ir_version):
    given = [{"x": X}, {"x": X, "w": V}, {"x": X}, {"x": np.concatenate([X, X])}]
    found = outputs_everywhere(overridable_model(ir_version), *given, overridable=["w"])
    assert [f["y"].tolist() for f in found] == [[5, 7, 9], [8, 10, 12], [5, 7, 9], [5, 7, 9, 5, 7, 9]]


def test_a_default_may_decide_a_shape():
    given = [{"x": X}, {"x": X, "s": np.array([3])}, {"x": np.concatenate([X, X]), "s": np.array([6])}]
    assert [f["y"].shape for f in outputs_everywhere(overridable_model(), *given, overridable=["s", "w"])] == [(3,), (3,), (6,)]


def test_a_plan_file_holds_it(tmp_path):
    plan = miniinfer_cli.build(overridable_model(), tmp_path / "m.plan", overridable=["w", "s"])
    with read_plan(tmp_path / "m.plan") as stored:
        assert dict(stored.report.options["overridable"]) == {"w": "w.default", "s": "s.default"}
        graph = thaw(stored)
        assert {n: c.array().tolist() for n, c in graph.defaults.items()} == {"w": [4, 5, 6], "s": [-1]}
        again = freeze(graph)
        assert dict(again.report.options["overridable"]) == {"w": "w.default", "s": "s.default"}
        assert graph.copy().defaults == graph.defaults
        with open_emulated(stored) as engine:
            assert engine.run({"x": X, "w": V})["y"].tolist() == [8, 10, 12]
            assert engine.run({"x": X})["y"].tolist() == [5, 7, 9]
            assert list(map(str, engine.inputs)) == ["x: f32[n,3]", "w: f32[3] (optional)", "s: i64[1] (optional)"]
    assert plan.report.metadata["constant_inputs"] == ()


@pytest.mark.parametrize(
    "named", [{"w": "gone"}, {"x": "w.default"}, {"gone": "w.default"}, {"w": 3}, 7, {"s": "w.default"}], ids=str
)
def test_a_plan_whose_defaults_are_not_there_is_refused(tmp_path, named):
    plan = miniinfer_cli.build(overridable_model(), overridable=["w", "s"])
    plan.report.options["overridable"] = named
    if named == {"x": "w.default"}:
        named["x"] = "s.default"
    write_plan(plan, tmp_path / "m.plan")
    with read_plan(tmp_path / "m.plan") as stored, pytest.raises(PlanFileError, match="the default of input"):
        thaw(stored)


def test_giving_a_constant_says_how_to_make_it_an_input():
    with (
        load(miniinfer_cli.build(overridable_model()), "cpu") as engine,
        pytest.raises(UsageError, match="unknown 'w'") as caught,
    ):
        engine.run({"x": X, "w": V})
    assert caught.value.hint.endswith("build the plan with overridable=['w']")
    with (
        load(miniinfer_cli.build(overridable_model(), overridable=["w"]), "cpu") as engine,
        pytest.raises(UsageError, match="missing 'x'; unknown 'c'") as caught,
    ):
        engine.run({"c": V})
    assert caught.value.hint == "the plan's inputs are x: f32[n,3], w: f32[3] (optional)"


def test_names_that_cannot_be_overridden():
    for names, reason in (
        (["v"], "nothing in the model is named 'v'"),
        (["c"], "'c' is an initializer and no input of the model"),
        (["x"], "the input 'x' has no initializer"),
    ):
        with pytest.raises(UsageError, match=reason):
            miniinfer_cli.build(overridable_model(), overridable=names)
    with pytest.raises(UsageError) as caught:
        miniinfer_cli.build(model(NODES[:1], {"x": (F32, [3]), "weight": (F32, [3])}, {"a": (F32, None)}), overridable=["wieght"])
    assert caught.value.hint == "did you mean weight?"


@pytest.mark.parametrize("shape", [[4], [3, 1], ["k", 3]])
def test_an_initializer_of_another_shape_than_declared(shape):
    proto = overridable_model(w=shape)
    assert "input 'w': it is declared as f32[" in fault(proto, overridable=["w"])
    assert miniinfer_cli.build(proto) is not None  # a constant is what it is


def test_a_default_at_sizes_that_are_fixed_otherwise():
    proto = overridable_model(w=["k"])
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "j"
    miniinfer_cli.build(proto, overridable=["w"], shapes={"w": (3,)})
    with pytest.raises(UsageError, match=r"'w' is f32\[4\] then, its default is f32\[3\]"):
        miniinfer_cli.build(proto, overridable=["w"], shapes={"w": (4,)})
    with pytest.raises(ModelError, match="its initializer is f32"):
        miniinfer_cli.build(overridable_model(w=[1, 3]), overridable=["w"])


@pytest.mark.parametrize("ir_version", [3, 10])
def test_verification_passes_the_default(ir_version):
    proto = overridable_model(ir_version)
    plan = miniinfer_cli.build(proto, overridable=["w"])
    checked = verify_plan(proto, plan)
    assert checked.ok
    assert [size.drawn for size in checked.sizes] == [("x",)] * len(checked.sizes)
    assert checked.oracle.startswith("onnxruntime") or ir_version < 4
    assert verify_plan(proto, plan, {"w": V}).ok
    assert verify_plan(proto, plan, mark_outputs=[]).ok

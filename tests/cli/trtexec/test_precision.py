"""trtexec's flags permit a type of 16 bits: where it cannot be, the plan is built without it, and that is said."""

import json

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from miniinfer_cli import build
from miniinfer_cli.runtime.plan_files import open_plan


def product(weight: np.ndarray) -> onnx.ModelProto:
    dtype = helper.np_dtype_to_tensor_dtype(weight.dtype)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "g",
        [helper.make_tensor_value_info("x", dtype, [2, weight.shape[0]])],
        [helper.make_tensor_value_info("y", dtype, [2, weight.shape[1]])],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    ("weight", "told"),
    [
        (np.full((4, 3), 1e6, np.float32), "weight"),  # beyond f16
        (np.ones((4, 3), np.float64), "the model holds no f32"),
    ],
)
def test_what_cannot_be_narrowed_is_built_without(miniinfer, tmp_path, weight, told):
    onnx.save(product(weight), tmp_path / "m.onnx")
    plan = tmp_path / "m.plan"
    outcome = miniinfer("trtexec", f"--onnx={tmp_path / 'm.onnx'}", f"--saveEngine={plan}", "--fp16", "--skipInference")
    assert outcome.code == 0, outcome.err
    assert "[W] f16 was permitted, and cannot be used: " in outcome.err and told in outcome.err
    with open_plan(plan) as opened:
        assert "precision" not in opened.report.options


def test_integers_by_the_scales_of_a_file(miniinfer, tmp_path):
    random = np.random.default_rng(0)
    model, plan, scales = tmp_path / "m.onnx", tmp_path / "m.plan", tmp_path / "scales.cache"
    activated = product(random.standard_normal((32, 16)).astype(np.float32))
    activated.graph.node[0].output[0] = "p"
    activated.graph.node.append(helper.make_node("Tanh", ["p"], ["y"], name="tanh"))
    onnx.save(activated, model)
    samples = [random.standard_normal((2, 32)).astype(np.float32) for _ in range(4)]
    build(model, int8=True, calibrate=samples, calibration_cache=scales)
    outcome = miniinfer("trtexec", f"--onnx={model}", f"--saveEngine={plan}", "--int8", "--fp16", f"--calib={scales}")
    assert outcome.code == 0, outcome.err
    assert "Precision: FP32+FP16+INT8" in outcome.out and "[W] f16" not in outcome.err
    with open_plan(plan) as opened:
        assert (opened.report.options["precision"], opened.report.options["half"]) == ("int8", "f16")
    kept = miniinfer("trtexec", f"--onnx={model}", "--int8", f"--calib={scales}", "--layerPrecisions=product:fp32")
    assert kept.code == 1 and "no product of the model can multiply integers" in kept.err
    onnx.save(product(np.full((32, 16), np.inf, np.float32)), model)
    refused = miniinfer("trtexec", f"--onnx={model}", "--int8", f"--calib={scales}")
    assert refused.code == 1 and "give --layerPrecisions=product:fp32" in refused.err


def test_the_best_of_all_types_is_taken(miniinfer, tmp_path):
    random = np.random.default_rng(0)
    model, plan, scales = tmp_path / "m.onnx", tmp_path / "m.plan", tmp_path / "scales.cache"
    onnx.save(product(random.standard_normal((32, 16)).astype(np.float32)), model)
    samples = [random.standard_normal((2, 32)).astype(np.float32) for _ in range(4)]
    build(model, int8=True, calibrate=samples, calibration_cache=scales)
    command = ("trtexec", f"--onnx={model}", f"--saveEngine={plan}", "--best", f"--calib={scales}", "--skipInference")
    outcome = miniinfer(*command, "--device=cpu", "--fp16")
    assert outcome.code == 0, outcome.err
    assert "Precision: FP32+FP16+BF16+INT8+FP8" in outcome.out
    assert "--fp16, --bf16, --int8 and --fp8 change nothing beside --best" in outcome.err
    assert "--best: times are measured on cpu" in outcome.out
    assert "--best: int8: " in outcome.out and "off by" in outcome.out
    assert "--best: fp8: not built: " in outcome.out and "holds the scales of int8, and fp8 is asked for" in outcome.out
    (taken,) = (line.split()[-3] for line in outcome.out.splitlines() if line.endswith(" is taken"))
    with open_plan(plan) as opened:
        assert opened.report.options.get("precision", "f32") == taken


def test_a_file_of_scales_without_integers_changes_nothing(miniinfer, tmp_path):
    onnx.save(product(np.ones((4, 3), np.float32)), tmp_path / "m.onnx")
    outcome = miniinfer("trtexec", f"--onnx={tmp_path / 'm.onnx'}", "--calib=nowhere.cache", "--skipInference")
    assert outcome.code == 0 and "[W] --calib changes nothing without --int8, --fp8 or --best" in outcome.err


def test_a_broken_model_is_told_once_and_not_built_twice(miniinfer, tmp_path, monkeypatch):
    broken = product(np.ones((4, 3), np.float32))
    broken.graph.node[0].op_type = "Nonesuch"
    onnx.save(broken, tmp_path / "m.onnx")
    outcome = miniinfer("trtexec", f"--onnx={tmp_path / 'm.onnx'}", "--fp16", "--skipInference")
    assert outcome.code == 1
    assert outcome.err.count("has no operator") == 1 and "[W]" not in outcome.err


@pytest.mark.parametrize(("flags", "types"), [((), ("f32", "f32")), (("--inputIOFormats=fp16:chw", "--fp16"), ("f16", "f32"))])
def test_element_types(miniinfer, tmp_path, flags, types):
    onnx.save(product(np.ones((4, 3), np.float32)), tmp_path / "m.onnx")
    summary = tmp_path / "s.json"
    outcome = miniinfer(
        "trtexec", f"--onnx={tmp_path / 'm.onnx'}", f"--saveEngine={tmp_path / 'm.plan'}", f"--exportSummary={summary}",
        "--iterations=1", "--duration=0", "--warmUp=0", *flags,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    result = json.loads(summary.read_text())["result"]
    assert [result["inputs"][0]["type"][:3], result["outputs"][0]["type"][:3]] == list(types)
    with open_plan(tmp_path / "m.plan") as opened:
        assert opened.report.options.get("precision") == ("f16" if flags else None)


def test_layers_keep_f32(miniinfer, model, tmp_path):
    plan = tmp_path / "m.plan"
    flags = ("--fp16", "--layerPrecisions=last:fp32", "--precisionConstraints=obey", "--skipInference", "--verbose")
    outcome = miniinfer("trtexec", f"--onnx={model}", f"--saveEngine={plan}", *flags)
    assert outcome.code == 0, outcome.err
    assert "[V] Keeps f32: last: " in outcome.out
    loose = miniinfer("trtexec", f"--onnx={model}", *flags[:2], "--precisionConstraints=none", *flags[3:])
    assert loose.code == 0 and "Keeps f32: last" not in loose.out

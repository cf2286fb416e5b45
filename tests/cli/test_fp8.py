"""build --fp8: accuracy, what the plan holds, caches, attention, and what is refused."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import miniinfer_cli
from miniinfer_cli.errors import UsageError
from miniinfer_cli.runtime.plan_files import open_plan
from miniinfer_cli.verification import verify
from miniinfer_cli.verification.oracles import OracleGone
from sample_models.catalogue import generate, sample_inputs
from sample_models.demo import FOLDER
from sample_models.request import Request

DIGITS = FOLDER / "digits.onnx"


@pytest.fixture(autouse=True)
def no_onnxruntime(monkeypatch):
    """The references are the oracle, with no process started."""

    def gone(*_, **__):
        raise OracleGone("it is not asked")

    monkeypatch.setattr(verify, "OnnxRuntime", gone)


@pytest.fixture(scope="module")
def digits():
    with np.load(FOLDER / "digits_test.npz") as file:
        return file["image"], file["label"]


def logits(plan, images):
    with miniinfer_cli.load(plan, "cpu") as engine:
        return engine.run({"image": images})["logits"]


def off(got, want):
    return np.linalg.norm(got - want) / np.linalg.norm(want)


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy", "mse"])
def test_digits_are_told_apart_as_well_by_8_bit_floats(digits, method):
    images, labels = digits
    plan = miniinfer_cli.build(DIGITS, fp8=True, calibrate=[images[:100]], calibration_method=method)
    exact, found = logits(miniinfer_cli.build(DIGITS), images), logits(plan, images)
    assert found.dtype == np.float32
    assert np.mean(found[100:].argmax(1) == labels[100:]) >= 0.97
    assert 0.02 < off(found, exact) < 0.1  # three digits after the point of the mantissa, not seven


def test_a_folder_a_cache_and_the_report(miniinfer, tmp_path, digits):
    plan, cache, folder, image = (tmp_path / name for name in ("d.plan", "d.cache", "samples", "image.npy"))
    folder.mkdir()
    np.savez(folder / "a.npz", image=digits[0][:64])
    np.save(image, digits[0][100:104])
    flags = ("--fp8", "--calibrate", folder, "--calibration-cache", cache)
    outcome = miniinfer("build", DIGITS, "-o", plan, *flags, "--verify", "--input", f"image={image}", "--json", tmp_path / "j")
    assert outcome.code == 0, outcome.err
    document = json.loads((tmp_path / "j").read_text())
    assert document["precision"] == "fp8" and [k["node"] for k in document["kept_fp32"]] == ["/fc2/Gemm"]
    (checked,) = document["verification"]["outputs"]
    assert checked["tolerance"] == 0.2 and 0.01 < checked["relative_error"] < 0.1
    assert "=== Element types: fp8 ===\nProducts: 3 multiply fp8, 1 keeps f32" in outcome.out
    assert cache.read_text().startswith("miniinfer-1-fp8-mse\n")
    shown = miniinfer("inspect", plan).out
    assert "Input: image: f32[batch,1,8,8]" in shown and "Output: logits: f32[batch,10]" in shown and "f8e4m3" in shown
    with open_plan(plan) as opened:
        assert opened.weights_nbytes < 0.35 * miniinfer_cli.build(DIGITS).weights_nbytes
    again = tmp_path / "again.plan"
    assert miniinfer("build", DIGITS, "-o", again, "--fp8", "--calibration-cache", cache).code == 0
    found, want = (logits(p, digits[0]) for p in (again, plan))
    assert 0 < np.linalg.norm(found - want) < 0.1 * np.linalg.norm(want)  # a cache has no samples to correct biases by
    refused = miniinfer("build", DIGITS, "--dry-run", "--int8", "--calibration-cache", cache)
    assert refused.code == 2 and "holds the scales of fp8, and int8 is asked for" in refused.err
    kept = miniinfer("build", DIGITS, "--dry-run", *flags, "--keep-float", "Gemm")
    assert "Products: 2 multiply fp8, 2 keep f32" in kept.out
    searched = miniinfer("build", DIGITS, "--dry-run", *flags, "--keep-float", "auto")
    assert searched.code == 0 and "=== Products that have to keep f32 ===\nFound: 0 nodes" in searched.out


def test_what_does_not_multiply_them_is_of_16_bits(miniinfer, tmp_path):
    random = np.random.default_rng(1)
    model, plan, samples = tmp_path / "m.onnx", tmp_path / "m.plan", tmp_path / "x.npy"
    x, y, z = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, size]) for name, size in (("x", 32), ("y", 16), ("z", 32))
    )
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="fc"), helper.make_node("Tanh", ["x"], ["z"], name="tanh")]
    weight = numpy_helper.from_array(random.standard_normal((32, 16)).astype(np.float32), "w")
    graph = helper.make_graph(nodes, "two", [x], [y, z], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), model)
    np.save(samples, random.standard_normal((12, 32)).astype(np.float32))
    flags = ("--fp8", "--fp16", "--calibrate", samples)
    outcome = miniinfer("build", model, "-o", plan, *flags, "--verify", "--json", tmp_path / "j")
    assert outcome.code == 0, outcome.err
    assert "=== Element types: fp8 ===\nProducts: 1 multiplies fp8, 0 keep f16\n=== Element types: f16 ===\n" in outcome.out
    document = json.loads((tmp_path / "j").read_text())
    assert (document["precision"], document["half"]) == ("fp8", "f16")
    allowed = {o["name"]: o["tolerance"] for o in document["verification"]["outputs"]}
    assert allowed == {"y": 0.2, "z": 1e-2}  # z is of f16, and of no product
    with open_plan(plan) as opened:
        assert (opened.report.options["precision"], opened.report.options["half"]) == ("fp8", "f16")
    assert "=== Element types: fp8 and f16, 0 nodes keep f32 ===" in miniinfer("inspect", plan).out


def test_what_is_refused(miniinfer, tmp_path):
    for words, told in (
        (("--fp8",), "--fp8 has nothing to calibrate with"),
        (("--fp8", "--int8", "--calibration-cache", "c"), "--int8 and --fp8 exclude each other"),
        (
            ("--fp8", "--calibration-cache", tmp_path / "none"),
            "node '/conv1/Conv' has no scale for what it reads: there is no file",
        ),
    ):
        outcome = miniinfer("build", DIGITS, "--dry-run", *words)
        assert (outcome.code, told in outcome.err) == (2, True), outcome.err
    with pytest.raises(UsageError, match="int8 and fp8 exclude each other"):
        miniinfer_cli.build(DIGITS, int8=True, fp8=True, calibrate=[])
    with pytest.raises(UsageError, match="fp8: expected True or False"):
        miniinfer_cli.build(DIGITS, fp8="e4m3")


def test_attention_of_a_transformer_multiplies_8_bit_floats():
    model = generate("bert_base", Request(small=True))
    feeds = [sample_inputs(model, {"batch": 2, "seq": 12}, seed) for seed in range(4)]
    exact, narrow = miniinfer_cli.build(model), miniinfer_cli.build(model, fp8=True, calibrate=feeds[:3])
    bare = miniinfer_cli.build(model, fp8=True, calibrate=feeds[:3], keep_float=["Softmax"])
    results = []
    for plan in (exact, narrow, bare):
        with miniinfer_cli.load(plan, "cpu") as engine:
            results.append(engine.run(feeds[3]))
    for name, want in results[0].items():
        assert 1e-3 < off(results[1][name], want) < 0.2
        assert off(results[2][name], results[1][name]) > 1e-3  # queries, keys and values are rounded, or not

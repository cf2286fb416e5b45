"""build --int8: accuracy, what the plan holds, caches, what keeps f32, and what is refused."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import miniinfer_cli
from miniinfer_cli.builder.building import build_plan
from miniinfer_cli.builder.options import BuildOptions
from miniinfer_cli.errors import CheckFailed, ModelError, UsageError
from miniinfer_cli.ir import DType
from miniinfer_cli.verification import verify
from miniinfer_cli.verification.floating import find_float
from miniinfer_cli.verification.oracles import OracleGone
from sample_models.catalogue import generate
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


@pytest.fixture
def samples(tmp_path, digits):
    folder = tmp_path / "samples"
    folder.mkdir()
    np.savez(folder / "a.npz", image=digits[0][:64])
    np.save(folder / "b.npy", digits[0][64:100])
    return folder


def logits(plan, images):
    with miniinfer_cli.load(plan, "cpu") as engine:
        return engine.run({"image": images})["logits"]


@pytest.mark.parametrize("half", ["f16", "bf16"])
@pytest.mark.parametrize("format", ["int8", "fp8"])
def test_what_does_not_multiply_8_bits_may_be_of_16(digits, format, half):
    images, labels = digits
    options = {format: True, "calibrate": [images[:100]]}
    built = build_plan(DIGITS, None, BuildOptions(precision=half, **options))
    found = logits(built.plan, images)
    assert np.mean(found[100:].argmax(1) == labels[100:]) >= 0.97
    kinds = {v.tensor.dtype for n in built.graph for v in n.outputs}
    assert DType.F32 not in kinds - {v.tensor.dtype for v in built.graph.outputs} and DType(half) in kinds
    assert {k.reason for k in built.kept} <= {"only nodes of f32 read it"}  # what quantizes
    whole = logits(miniinfer_cli.build(DIGITS, **options), images)
    assert np.linalg.norm(found - whole) < 0.05 * np.linalg.norm(whole)


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy", "mse"])
def test_digits_are_told_apart_as_well_by_integers(digits, method):
    images, labels = digits
    plan = miniinfer_cli.build(DIGITS, int8=True, calibrate=[images[:100]], calibration_method=method)
    exact, found = logits(miniinfer_cli.build(DIGITS), images), logits(plan, images)
    assert found.dtype == np.float32
    assert np.mean(found[100:].argmax(1) == labels[100:]) >= 0.97
    assert np.mean(found.argmax(1) == exact.argmax(1)) >= 0.99
    assert 1e-3 < np.linalg.norm(found - exact) / np.linalg.norm(exact) < 0.05  # it is not f32


def test_a_folder_a_cache_and_the_report(miniinfer, tmp_path, samples, digits):
    plan, cache, image = tmp_path / "d.plan", tmp_path / "d.cache", tmp_path / "image.npy"
    np.save(image, digits[0][100:104])
    flags = ("--int8", "--calibrate", samples, "--calibration-cache", cache)
    outcome = miniinfer("build", DIGITS, "-o", plan, *flags, "--verify", "--input", f"image={image}", "--json", tmp_path / "j")
    assert outcome.code == 0
    document = json.loads((tmp_path / "j").read_text())
    assert document["precision"] == "int8"
    assert [(k["node"], k["reason"].partition(":")[0]) for k in document["kept_fp32"]] == [
        ("/fc2/Gemm", "rule for the last product")
    ]
    (checked,) = document["verification"]["outputs"]
    assert checked["tolerance"] == 0.1 and 0 < checked["relative_error"] < 0.1
    assert "=== Element types: int8 ===\nProducts: 3 multiply int8, 1 keeps f32" in outcome.out
    scales = dict(line.split(": ") for line in cache.read_text().splitlines()[1:])
    assert "image" in scales and len(scales) == 3
    shown = miniinfer("inspect", plan).out
    assert "Input: image: f32[batch,1,8,8]" in shown and "Output: logits: f32[batch,10]" in shown and " i8" in shown
    # The cache alone gives the same plan; with a value missing it says which node wants it.
    again = tmp_path / "again.plan"
    assert miniinfer("build", DIGITS, "-o", again, "--int8", "--calibration-cache", cache).code == 0
    found, want = (logits(p, digits[0]) for p in (again, plan))
    assert 0 < np.linalg.norm(found - want) < 0.05 * np.linalg.norm(want)  # a cache has no samples to correct biases by
    cache.write_text("TRT-8601-EntropyCalibration2\nimage: 3c010204\n")
    lacking = miniinfer("build", DIGITS, "--int8", "--calibration-cache", cache, "--dry-run")
    assert lacking.code == 2 and "node '/conv2/Conv' has no scale for what it reads" in lacking.err
    assert miniinfer("build", DIGITS, "--int8", "--calibration-cache", cache, "--calibrate", samples, "--dry-run").code == 0
    assert len(cache.read_text().splitlines()) == 4 and "image: 3c010204" in cache.read_text()


def test_what_keeps_float_by_name_and_by_operation(miniinfer, samples, tmp_path):
    plan = tmp_path / "d.plan"
    kept = miniinfer(
        "build", DIGITS, "-o", plan, "--int8", "--calibrate", samples, "--keep-float", "/conv1", "--keep-float", "Gemm"
    )
    assert kept.code == 0
    assert "Products: 1 multiplies int8, 3 keep f32" in kept.out
    assert "asked for" in kept.out
    assert "=== Element types: int8, 3 nodes keep f32 ===" in miniinfer("inspect", plan).out
    everything = miniinfer("build", DIGITS, "--int8", "--calibrate", samples, "--keep-float", "Conv", "--keep-float", "Gemm")
    assert everything.code == 3 and "--int8: no product of the model can multiply integers" in everything.err


def test_flags_that_do_not_go_together(miniinfer, samples):
    for words, told in (
        (("--int8",), "--int8 has nothing to calibrate with"),
        (("--calibrate", samples), "--calibrate is for --int8"),
        (("--keep-float", "Conv"), "--keep-float is for --int8 or --fp8 or --weight-only, which"),
        (("--calibration-cache", "c"), "--calibration-cache is for --int8"),
        (("--int8", "--calibrate", samples, "--calibration-method", "best"), "calibration method 'best' is not known"),
        (("--int8", "--calibrate", samples, "--keep-float", "Cnv"), "the model has no node 'Cnv'"),
        (("--int8", "--calibrate", samples / "none"), "cannot be read"),
    ):
        outcome = miniinfer("build", DIGITS, "--dry-run", *words)
        assert (outcome.code, told in outcome.err) == (2, True), outcome.err
    with pytest.raises(UsageError, match="int8: expected True or False"):
        miniinfer_cli.build(DIGITS, int8="yes")
    with pytest.raises(UsageError, match="find_float"):
        miniinfer_cli.build(DIGITS, int8=True, calibrate=[], keep_float=["auto"])
    with pytest.raises(UsageError, match="not one sample"):
        miniinfer_cli.build(DIGITS, int8=True, calibrate=[])
    with pytest.raises(UsageError, match="sample 1: "):
        miniinfer_cli.build(DIGITS, int8=True, calibrate=[np.zeros((1, 1, 8, 8), np.float32), np.zeros((1, 1, 9, 9), np.float32)])


def spiked(weight):
    """x [n, 8] through three products; the columns of what the second gives are of very different sizes."""
    rng = np.random.default_rng(3)
    size = 8
    spread = np.float32([weight, *[1.0] * (size - 1)])
    w = [rng.standard_normal((size, size)).astype(np.float32) * size**-0.5 for _ in range(3)]
    weights = [numpy_helper.from_array(a, f"w{i}") for i, a in enumerate((w[0], w[1] * spread, w[2] / spread[:, None]))]
    nodes = [helper.make_node("MatMul", ["xab"[i], f"w{i}"], ["abz"[i]], name=f"fc{i}") for i in range(3)]
    nodes.append(helper.make_node("Relu", ["z"], ["y"], name="last"))
    ends = [[helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", size])] for n in "xy"]
    graph = helper.make_graph(nodes, "spiked", *ends, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


X = np.random.default_rng(4).standard_normal((64, 8)).astype(np.float32)


def test_auto_finds_the_product_that_has_to_keep_f32(miniinfer, tmp_path):
    model, folder = tmp_path / "m.onnx", tmp_path / "samples"
    folder.mkdir()
    onnx.save(spiked(3e3), model)
    np.save(folder / "x.npy", X)
    outcome = miniinfer("build", model, "--int8", "--calibrate", folder, "--keep-float", "auto", "--json", tmp_path / "j")
    assert outcome.code == 0, outcome.err
    assert "The same again: --keep-float fc2" in outcome.out
    found = json.loads((tmp_path / "j").read_text())["keep_float_search"]
    assert found["nodes"] == ["fc2"] and found["relative_errors"]["y"] <= 0.1
    both = miniinfer(
        "build", model, "--dry-run", "--int8", "--bf16", "--calibrate", folder, "--keep-float", "auto", "--keep-fp32", "auto"
    )
    assert both.code == 0 and "=== Nodes that have to keep f32 ===" in both.out and "Products: 2 multiply int8" in both.out
    sound = find_float(spiked(1.0), BuildOptions(int8=True, calibrate=iter([X]), keep_float=("auto",)))
    assert sound.nodes == () and sound.outputs[0].relative < 0.1
    with pytest.raises(CheckFailed, match="did not suffice"):
        find_float(spiked(1.0), BuildOptions(int8=True, calibrate=[X]), time_s=-1)
    with pytest.raises(UsageError, match="none are given"):
        find_float(spiked(1.0), BuildOptions(int8=True))


def test_a_sample_that_is_not_finite_names_the_node():
    broken = X.copy()
    broken[0, 0] = np.nan
    with pytest.raises(ModelError, match="node 'fc0': 'x', which it reads, is not finite on the samples"):
        miniinfer_cli.build(spiked(1.0), int8=True, calibrate=[broken])


def test_weights_alone(miniinfer, tmp_path):
    model = tmp_path / "m.onnx"
    onnx.save(spiked(1.0), model)
    sizes = {}
    for flags, told, allowed in (
        ((), "", 0.0),
        (("--weight-only", "int8"), "int8 weights", 0.05),
        (("--weight-only", "int4", "--group-size", "32"), "int4 weights", 0.3),
    ):
        plan = tmp_path / "m.plan"
        outcome = miniinfer("build", model, "-o", plan, *flags, "--verify", "--json", tmp_path / "j")
        assert outcome.code == 0, outcome.err
        document = json.loads((tmp_path / "j").read_text())
        sizes[told] = document["weights_bytes"]
        if told:
            assert f"=== Element types: {told} ===\nProducts: 3 have {told}, 0 keep f32" in outcome.out
            assert document["precision"] == told
            assert f"=== Element types: {told}, 0 nodes keep f32 ===" in miniinfer("inspect", plan).out
            assert 0 < document["verification"]["outputs"][0]["relative_error"] < allowed
    assert sizes[""] == 3 * 64 * 4
    assert sizes["int8 weights"] == 3 * (64 + 8 * 4)
    assert sizes["int4 weights"] == 3 * (32 + 8 * 4)
    kept = miniinfer("build", model, "--weight-only", "int8", "--keep-float", "fc1", "--dry-run")
    assert "Products: 2 have int8 weights, 1 keeps f32" in kept.out
    for words, told in (
        (("--group-size", "64"), "--group-size is for --weight-only"),
        (("--weight-only", "int4", "--fp16"), "--weight-only and --fp16 or --bf16 exclude each other"),
        (("--weight-only", "int4", "--int8", "--calibration-cache", "c"), "--int8 and --weight-only exclude each other"),
        (("--weight-only", "int4", "--calibrate", "."), "--calibrate is for --int8"),
        (("--weight-only", "int4", "--keep-float", "auto"), "--keep-float: 'auto' has to run the model"),
    ):
        outcome = miniinfer("build", model, "--dry-run", *words)
        assert (outcome.code, told in outcome.err) == (2, True), outcome.err
    for options, told in (
        ({"weight_only": "int2"}, "'int8', 'int4' or None"),
        ({"weight_only": "int4", "group_size": 48}, "32, 64"),
    ):
        with pytest.raises(UsageError, match=told):
            miniinfer_cli.build(spiked(1.0), **options)


def test_a_small_resnet_agrees_with_f32_in_99_of_100_images():
    """Random weights, and a readout of its outputs less their mean, fitted to ten kinds of images: what varies is what counts."""
    rng = np.random.default_rng(0)
    kinds = rng.standard_normal((10, 3, 8, 8))

    def images(count):
        labels = rng.integers(0, 10, count)
        coarse = kinds[labels] + 0.15 * rng.standard_normal((count, 3, 8, 8))
        return coarse.repeat(8, 2).repeat(8, 3).astype(np.float32), np.eye(10)[labels]

    model = generate("resnet50", Request(small=True))
    (x, wanted), (tried, _) = images(300), images(256)
    exact = miniinfer_cli.build(model)
    mean = logits(exact, x).mean(axis=0)
    spread = logits(exact, x) - mean
    readout = np.linalg.solve(spread.T @ spread + 1e-4 * np.trace(spread.T @ spread) / 10 * np.eye(10), spread.T @ wanted)
    narrow = miniinfer_cli.build(model, int8=True, calibrate=[x[:32]])
    found, expected = (((logits(plan, tried) - mean) @ readout).argmax(axis=1) for plan in (narrow, exact))
    assert len(set(expected)) == 10
    assert np.mean(found == expected) >= 0.99

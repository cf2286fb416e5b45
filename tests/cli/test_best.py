"""build --best: which forms are looked at, which is taken, by measured and by estimated times, and what is refused."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from miniinfer_cli.backends.ceilings import Rate, Unit
from miniinfer_cli.builder.building import build_plan
from miniinfer_cli.builder.options import BuildOptions
from miniinfer_cli.devices.estimating import H200, estimated_ms
from miniinfer_cli.errors import UsageError
from miniinfer_cli.runtime.plan_files import open_plan
from miniinfer_cli.verification import best
from miniinfer_cli.verification.best import find_best
from sample_models.demo import FOLDER

DIGITS = FOLDER / "digits.onnx"
MIXED = ["int8 with f16", "int8 with bf16", "fp8 with f16", "fp8 with bf16"]
FORMS = ["f32", "f16", "bf16", "int8", "fp8", *MIXED]


def tower(size, depth=2, weight=1.0, then="Relu"):
    """x [n, size] through products of this size, with an activation between."""
    rng = np.random.default_rng(0)
    weights = [(rng.standard_normal((size, size)) * size**-0.5 * weight).astype(np.float32) for _ in range(depth)]
    nodes, value = [], "x"
    for i in range(depth):
        nodes += [helper.make_node("MatMul", [value, f"w{i}"], [f"p{i}"], name=f"fc{i}")]
        nodes += [helper.make_node(then, [f"p{i}"], [f"r{i}"])] if i < depth - 1 else []
        value = f"r{i}"
    ends = [[helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", size])] for n in ("x", f"p{depth - 1}")]
    graph = helper.make_graph(nodes, "tower", *ends, [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def samples(size, rows=16):
    return np.random.default_rng(1).standard_normal((rows, size)).astype(np.float32)


def timed(monkeypatch, times):
    """Forms take these milliseconds, as if measured."""
    monkeypatch.setattr(best, "_measured", lambda engines, feeds, progress: {n: times.get(n, 9.0) for n in engines})


@pytest.mark.parametrize(
    ("times", "tolerance", "taken"),
    [
        ({"int8": 1.0, "f16": 2.0}, None, "int8"),
        ({"fp8": 1.0, "f16": 2.0}, None, "fp8"),
        ({"fp8": 1.0, "int8": 2.0, "f16": 3.0}, 0.03, "int8"),  # fp8 is off by more
        ({"int8": 1.0, "f16": 2.0}, 1e-3, "f16"),
        ({"bf16": 1.0}, None, "bf16"),
        ({"int8": 1.0, "f16": 2.0, "f32": 0.5}, None, "f32"),
        ({"int8": 1.0, "f16": 2.0}, 1e-9, "f32"),
    ],
)
def test_the_fastest_that_is_right_enough_is_taken(monkeypatch, times, tolerance, taken):
    timed(monkeypatch, times)
    x = samples(64)
    found = find_best(tower(64), BuildOptions(calibrate=iter([x])), device="cpu", tolerance=tolerance)
    assert (found.precision, found.device, found.guessed) == (taken, "cpu", ())
    assert [f.precision for f in found.forms] == FORMS
    built = build_plan(tower(64), None, found.options)
    assert built.plan.report.options.get("precision", "f32") == taken


@pytest.mark.parametrize(
    ("times", "tolerance", "taken"),
    [
        ({"int8 with f16": 1.0, "int8": 2.0, "f16": 3.0}, None, "int8 with f16"),
        ({"fp8 with bf16": 1.0, "int8 with bf16": 2.0}, None, "fp8 with bf16"),
        ({"fp8 with bf16": 1.0, "int8 with f16": 2.0}, 0.03, "int8 with f16"),
    ],
)
def test_8_bits_are_looked_at_with_16_in_all_else(monkeypatch, times, tolerance, taken):
    timed(monkeypatch, times)
    model = tower(64, then="Softmax")  # which computes in neither of 8 bits
    options = BuildOptions(calibrate=[samples(64)], keep_float=("Softmax",), keep_fp32=("fc1",))
    found = find_best(model, options, device="cpu", tolerance=tolerance)
    assert (found.precision, found.options.keep_float, found.options.keep_fp32) == (taken, ("Softmax",), ("fc1",))
    recorded = build_plan(model, None, found.options).plan.report.options
    assert f"{recorded['precision']} with {recorded['half']}" == taken


def test_without_samples_there_are_no_8_bits_and_errors_are_a_guess(monkeypatch):
    timed(monkeypatch, {})
    found = find_best(tower(16), BuildOptions(), device="cpu")
    assert [f.precision for f in found.forms] == ["f32", "f16", "bf16"] and found.guessed == ("x",)
    given = find_best(tower(16), BuildOptions(), lambda graph, constants: {"x": samples(16)}, device="cpu")
    assert given.guessed == ()


def test_outputs_without_a_number_let_nothing_be_taken(monkeypatch):
    timed(monkeypatch, {"f16": 1.0})
    found = find_best(tower(16), BuildOptions(), lambda graph, constants: {"x": samples(16) * np.nan}, device="cpu")
    assert found.precision == "f32"
    assert [f.reason for f in found.forms] == ["", *["the outputs show nothing: 'p1' is NaN everywhere"] * 2]


def test_what_is_kept_is_kept_in_the_form_that_it_is_for(monkeypatch):
    timed(monkeypatch, {"int8": 1.0})
    options = BuildOptions(calibrate=[samples(64)], keep_float=("fc0",), keep_fp32=("fc1",))
    found = find_best(tower(64), options, device="cpu")
    assert found.options.int8 and found.options.keep_float == ("fc0",) and found.options.keep_fp32 == ()
    timed(monkeypatch, {"f16": 1.0})
    found = find_best(tower(64), options, device="cpu")
    assert found.options.precision == "f16" and found.options.keep_fp32 == ("fc1",) and found.options.calibrate is None


def test_a_form_that_cannot_be_built_is_told_and_not_taken(monkeypatch):
    timed(monkeypatch, {"f16": 1.0, "bf16": 2.0})
    found = find_best(tower(16, weight=1e8), BuildOptions(), device="cpu")
    assert found.precision == "bf16"
    (refused,) = (f for f in found.forms if f.precision == "f16")
    assert "f16 ends at 65504" in refused.reason and refused.time_ms is None


def test_with_no_gpu_times_are_the_least_of_one_h200():
    wide = tower(4096)
    forms = {"f32": {}, "f16": {"precision": "f16"}, "int8": {"int8": True, "calibrate": [samples(4096, 4)]}}
    built = {name: build_plan(wide, None, BuildOptions(opt_shapes={"x": (4096, 4096)}, **own)) for name, own in forms.items()}
    ranges = {r.name: r for r in built["f32"].plan.ranges}
    times = {name: estimated_ms(b.graph, ranges) for name, b in built.items()}
    flops = 2 * 2 * 4096**3
    assert times["f32"] == pytest.approx(flops / 401e9, rel=0.2)  # TF32
    assert times["f16"] == pytest.approx(flops / 752e9, rel=0.4)
    assert times["int8"] < times["f16"] < times["f32"]
    assert estimated_ms(built["f32"].graph, ranges, tf32=False) == pytest.approx(flops / 49e9, rel=0.1)
    assert H200.peak_tflops(Rate(Unit.MATRIX, "i8")) == 1404


def test_the_report_of_a_build(miniinfer, tmp_path, monkeypatch):
    monkeypatch.setattr("miniinfer_cli.cli.build.build_plan", None)  # the form that is taken is not built once more
    plan, folder = tmp_path / "d.plan", tmp_path / "samples"
    folder.mkdir()
    with np.load(FOLDER / "digits_test.npz") as file:
        np.save(folder / "x.npy", file["image"][:32])
    outcome = miniinfer("build", DIGITS, "-o", plan, "--best", "--calibrate", folder, "--json", tmp_path / "j")
    assert outcome.code == 0, outcome.err
    assert "Times: no GPU is here, so times are estimates" in outcome.out
    document = json.loads((tmp_path / "j").read_text())
    found = document["best"]
    assert found["device"] is None and [f["precision"] for f in found["forms"]] == FORMS
    assert f"Taken: {found['precision']} (" in outcome.out
    assert (document["precision"] or "f32") == found["precision"]
    with open_plan(plan) as opened:
        assert opened.report.options.get("precision", "f32") == found["precision"]
    strict = miniinfer(
        *("build", DIGITS, "--dry-run", "--best", "--calibrate", folder, "--best-device", "cpu", "--best-tolerance", "1e-9")
    )
    assert strict.code == 0 and "Times: measured on cpu" in strict.out and "Taken: f32 (no flag)" in strict.out
    assert strict.out.count("is off by more than is allowed") == 8


def test_what_does_not_go_together(miniinfer, tmp_path):
    for words, told in (
        (("--best", "--fp16"), "--best and --fp16 or --bf16 exclude each other"),
        (("--best", "--fp8", "--calibrate", "x"), "--best and --fp8 exclude each other"),
        (("--best", "--int8"), "--best and --int8 exclude each other"),
        (("--best", "--smooth-quant", "0.5"), "--smooth-quant is for --int8 and --fp8, which --best does not try"),
        (("--best", "--keep-float", "Gemm"), "--keep-float is for --int8 and --fp8, which --best does not try"),
        (("--best", "--weight-only", "int4"), "--best and --weight-only exclude each other"),
        (("--best", "--keep-float", "auto"), "--best goes with no auto"),
        (("--best", "--calibrate", tmp_path, "--calibration-cache", "c"), "--calibration-cache holds those of one"),
        (("--best-device", "cpu"), "--best-device is for --best"),
        (("--best-tolerance", "0.1"), "--best-tolerance is for --best"),
        (("--best", "--best-device", "gpu"), "--best-device"),
    ):
        outcome = miniinfer("build", DIGITS, "--dry-run", *words)
        assert (outcome.code, told in outcome.err) == (2, True), outcome.err
    with pytest.raises(UsageError, match="not one sample"):
        find_best(DIGITS, BuildOptions(calibrate=[]), device="cpu")
    onnx.save(tower(16), tmp_path / "m.onnx")
    lacking = miniinfer("build", tmp_path / "m.onnx", "--dry-run", "--best", "--calibration-cache", tmp_path / "none")
    assert lacking.code == 2 and "has no scale for what it reads" in lacking.err

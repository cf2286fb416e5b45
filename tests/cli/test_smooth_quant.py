"""build --int8 --smooth-quant: what it does to a transformer with outliers, its report, and what is refused."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import miniinfer_cli
from miniinfer_cli.builder.options import BuildOptions
from miniinfer_cli.errors import UsageError
from miniinfer_cli.verification.floating import find_float
from sample_models.catalogue import generate, sample_inputs
from sample_models.demo import FOLDER
from sample_models.request import Request


@pytest.fixture(scope="module")
def outliers():
    """A small ViT whose norms make two channels forty times as large as the others; and inputs."""
    model = generate("vit_b16", Request(small=True))
    rng = np.random.default_rng(0)
    weights = {t.name: t for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "LayerNormalization":
            scale = numpy_helper.to_array(weights[node.input[1]]).copy()
            scale[rng.permutation(scale.size)[:2]] *= 40
            weights[node.input[1]].CopyFrom(numpy_helper.from_array(scale, node.input[1]))
    return model, [sample_inputs(model, {"batch": 4}, seed) for seed in range(4)]


def off(model, feeds, exact, **options):
    plan = miniinfer_cli.build(model, calibrate=feeds[1:], **options)
    with miniinfer_cli.load(plan, "cpu") as engine:
        (got,) = engine.run(feeds[0]).values()
    return plan, np.linalg.norm(got - exact) / np.linalg.norm(exact)


@pytest.mark.parametrize(("format", "gain"), [("int8", 1.7), ("fp8", 0.9)])
def test_a_transformer_with_outliers_is_off_by_less(outliers, format, gain):
    model, feeds = outliers
    with miniinfer_cli.load(miniinfer_cli.build(model), "cpu") as engine:
        (exact,) = engine.run(feeds[0]).values()
    _, plain = off(model, feeds, exact, **{format: True})
    plan, smoothed = off(model, feeds, exact, **{format: True}, smooth_quant=0.5)
    assert plain > gain * smoothed
    assert plan.report.options["smooth_quant"] == 0.5
    assert len(plan.graph.nodes) == len(off(model, feeds, exact, **{format: True})[0].graph.nodes)


def test_the_report_and_the_search(miniinfer, tmp_path, outliers):
    model, feeds = outliers
    onnx.save(model, tmp_path / "m.onnx")
    folder = tmp_path / "samples"
    folder.mkdir()
    np.savez(folder / "a.npz", **feeds[1])
    flags = ("--int8", "--calibrate", folder, "--smooth-quant", "0.5")
    outcome = miniinfer("build", tmp_path / "m.onnx", "--dry-run", *flags)
    assert outcome.code == 0, outcome.err
    assert "Smoothed: 4 values, channel by channel" in outcome.out
    found = find_float(model, BuildOptions(int8=True, calibrate=iter(feeds[1:]), smooth_quant=0.5))
    assert found.nodes == ()  # without it, some have to keep f32
    assert find_float(model, BuildOptions(int8=True, calibrate=feeds[1:])).nodes


def test_what_is_refused(miniinfer, tmp_path):
    digits = FOLDER / "digits.onnx"
    np.save(tmp_path / "x.npy", np.zeros((2, 1, 8, 8), np.float32))
    given = ("--int8", "--calibrate", tmp_path)
    for words, code, told in (
        (("--smooth-quant", "0.5"), 2, "--smooth-quant is for --int8 or --fp8"),
        ((*given, "--smooth-quant", "1.5"), 2, "1.5"),
        ((*given, "--smooth-quant", "0.5", "--calibration-cache", "c"), 2, "--smooth-quant and --calibration-cache exclude"),
        (
            (*given, "--smooth-quant", "0.5", "--keep-float", "Gemm"),
            3,
            "--smooth-quant: nothing that products read can be divided",
        ),
    ):
        outcome = miniinfer("build", digits, "--dry-run", *words)
        assert (outcome.code, told in outcome.err) == (code, True), outcome.err
    with pytest.raises(UsageError, match="smooth_quant: expected a number from 0 to 1"):
        miniinfer_cli.build(digits, int8=True, calibrate=[], smooth_quant="most")

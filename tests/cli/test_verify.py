"""``build --verify``: its sizes, its report, its flags, and when it fails."""

import json
from unittest import mock

import numpy as np
import onnx
import pytest

from miniinfer_cli.backends.cuda.driver import presence
from miniinfer_cli.cli import verifying
from miniinfer_cli.devices import opening
from miniinfer_cli.errors import DeviceError
from miniinfer_cli.passes import pipeline
from miniinfer_cli.verification import verify
from miniinfer_cli.verification.oracles import OracleGone
from tests.emulation.engine import load_emulated

REFERENCES = "the unoptimized graph (numpy references)"


@pytest.fixture
def no_onnxruntime(monkeypatch):
    """The references are the oracle, with no process started."""

    def gone(*_, **__):
        raise OracleGone("it is not asked")

    monkeypatch.setattr(verify, "OnnxRuntime", gone)


def verification_of(outcome) -> list[str]:
    lines = outcome.out.splitlines()
    return lines[next(i for i, line in enumerate(lines) if line.startswith("=== Verification")) :]


def save(tmp_path, text: str):
    path = tmp_path / "m.onnx"
    onnx.save(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]>\n{text}'), path)
    return path


def test_the_report_names_oracle_device_sizes_inputs_and_the_verdict(miniinfer, model):
    outcome = miniinfer("build", model, "--verify")
    assert outcome.code == 0
    title, *sizes, head, row, verdict, unchecked = verification_of(outcome)
    oracle = title.removeprefix("=== Verification against ").removesuffix(" ===")
    assert oracle.startswith("onnxruntime ")
    assert sizes == ["Device: cpu", "Size: batch=2: x 2x4 (random)", "Size: batch=5: x 5x4 (random)"]
    assert head.split("  ")[0] == "output"
    assert row.split()[0] == "y"
    assert row.split()[4] == "ok"
    assert row.split()[5].startswith("batch=")
    assert verdict == f"Verdict: verified on cpu, against {oracle}, at 2 sizes"
    assert unchecked == "What a GPU computes is not checked: --verify-device cuda:0 does"


def test_json_has_every_output_at_every_size(miniinfer, model, no_onnxruntime):
    found = json.loads(miniinfer("build", model, "--verify", "--json", "-").out)["verification"]
    assert {k: found[k] for k in ("oracle", "device", "note", "ok", "left_out")} == {
        "oracle": REFERENCES, "device": "cpu", "note": "it is not asked", "ok": True, "left_out": {}
    }  # fmt: skip
    assert found["sizes"] == [
        {
            "dimensions": {"batch": n},
            "inputs": {"x": [n, 4]},
            "random_inputs": ["x"],
            "random_integers": [0, 1],
            "status": "compared",
            "reason": "",
        }
        for n in (2, 5)
    ]
    assert [(o["name"], o["dimensions"], o["ok"], o["verified"]) for o in found["outputs"]] == [
        ("y", {"batch": 2}, True, True),
        ("y", {"batch": 5}, True, True),
    ]
    assert all(o["relative_error"] < o["tolerance"] == 1e-5 for o in found["outputs"])


@pytest.mark.parametrize(
    ("flags", "sizes"),
    [
        (("--min-shapes", "x:1x4", "--opt-shapes", "x:8x4", "--max-shapes", "x:16x4"), ["1", "8", "16"]),
        (("--verify-shapes", "x:3x4"), ["3"]),
        (("--verify-shapes", "x:3x4", "--verify-shapes", "x:7x4"), ["3", "7"]),
        (("--input", "x=x.npy"), ["6"]),
    ],
)
def test_the_sizes_are_those_of_the_ranges_or_as_asked(miniinfer, model, no_onnxruntime, tmp_path, flags, sizes):
    np.save(tmp_path / "x.npy", np.ones((6, 4), np.float32))
    flags = [f.replace("x.npy", str(tmp_path / "x.npy")) for f in flags]
    outcome = miniinfer("build", model, "--verify", *flags)
    assert outcome.code == 0
    drawn = "given" if "--input" in flags else "random"
    lines = [line for line in verification_of(outcome) if line.startswith("Size: ")]
    assert lines == [f"Size: batch={n}: x {n}x4 ({drawn})" for n in sizes]


def test_a_set_of_sizes_may_come_in_several_flags(miniinfer, tmp_path, no_onnxruntime):
    path = save(tmp_path, "g (float[n] x, float[m] y) => (float[n] a, float[m] b) { a = Neg(x) b = Neg(y) }")
    flags = [f for pair in ("x:3", "y:4", "x:5,y:6", "y:7") for f in ("--verify-shapes", pair)]
    sizes = json.loads(miniinfer("build", path, "--verify", "--json", "-", *flags).out)["verification"]["sizes"]
    assert [tuple(s["dimensions"].values()) for s in sizes[:2]] == [(3, 4), (5, 6)]
    assert sizes[2]["dimensions"]["m"] == 7
    assert len(sizes) == 3


def test_one_size_that_goes_through_is_said_to_be_one(miniinfer, tmp_path, no_onnxruntime):
    path = save(tmp_path, "g (float[n, 4] x) => (float[k, j] y) <int64[2] s = {1, 4}> { y = Reshape(x, s) }")
    outcome = miniinfer("build", path, "--verify")
    assert outcome.code == 0
    lines = verification_of(outcome)
    assert f"Verdict: verified on cpu, against {REFERENCES}, at one size only (n=1): others were refused" in lines
    (refused,) = (line for line in lines if line.startswith("Passed over: n=2; n=5; n=8; and "))
    assert "Reshape" in refused
    fixed = miniinfer("build", path, "--verify", "--shapes", "x:1x4")
    assert f"Verdict: verified on cpu, against {REFERENCES}, at its only size" in verification_of(fixed)


def test_marked_outputs_are_compared_with_the_unoptimized_graph(miniinfer, model):
    outcome = miniinfer("build", model, "--verify", "--mark-output", "hidden")
    assert outcome.code == 0
    lines = verification_of(outcome)
    assert lines[0] == f"=== Verification against {REFERENCES} ==="
    assert "Note: onnxruntime returns the model's own outputs only, not the marked ones" in lines
    assert [line.split()[0] for line in lines[-4:-2]] == ["y", "r"]


def test_a_wrong_plan_is_found_out(miniinfer, model, monkeypatch):
    def break_it(graph):
        node = graph.nodes[-1]
        graph.outputs = (graph.add("Neg", node.output, type=node.output.type),)
        return 0

    phases = (*pipeline.PHASES, pipeline.Phase("sabotage", (pipeline.Pass(break_it, 0),)))
    monkeypatch.setattr(pipeline, "PHASES", phases)
    outcome = miniinfer("build", model, "--verify", "--json", model.with_suffix(".json"))
    assert outcome.code == 1
    assert "DIFFERS" in outcome.out
    assert "Verdict: not verified on cpu" in outcome.out
    assert "the plan and onnxruntime" in outcome.err
    assert "differ: 'y' by 2.00e+00 (allowed 1e-05) at batch=2, 'y' by 2.00e+00" in outcome.err
    assert outcome.err.endswith("\n  hint: find the pass by --disable-pass, and report it\n")
    assert json.loads(model.with_suffix(".json").read_text())["verification"]["ok"] is False


def test_what_differs_without_a_number_says_so_and_is_null_in_json(miniinfer, model, monkeypatch, no_onnxruntime):
    real = verify.Engine.run
    monkeypatch.setattr(verify.Engine, "run", lambda self, feeds: {"y": real(self, feeds)["y"].astype(np.float64)})
    outcome = miniinfer("build", model, "--verify", "--opt-level", "0", "--disable-pass", "remove_dead_nodes", "--json", "-")
    assert outcome.code == 1
    first = json.loads(outcome.out)["verification"]["outputs"][0]
    assert (first["relative_error"], first["max_abs_error"]) == (None, None)
    assert first["reason"] == "f64[2,3] instead of f32[2,3]"
    assert "'y' by inf (allowed 0e+00) at batch=2: f64[2,3] instead of f32[2,3], " in outcome.err


def test_random_operations_and_nan_are_told_and_not_called_broken(miniinfer, tmp_path, no_onnxruntime):
    path = save(tmp_path, "g (float[n] x) => (float[n] y, float[n] z) { y = RandomNormalLike(x) z = Neg(x) }")
    outcome = miniinfer("build", path, "--verify")
    assert outcome.code == 0
    assert "Left out: output 'y' depends on random numbers: RandomNormalLike 'y'" in verification_of(outcome)
    outcome = miniinfer("build", save(tmp_path, "g (float[n] x) => (float[n] y) { y = RandomNormalLike(x) }"), "--verify")
    assert outcome.code == 0
    assert verification_of(outcome)[-1] == "Verdict: nothing is left to compare"
    outcome = miniinfer("build", save(tmp_path, "g (float[n] x) => (float[n] y) { a = Sub(x, x) y = Div(a, a) }"), "--verify")
    assert outcome.code == 1
    assert "Not verified: output 'y' is NaN everywhere" in verification_of(outcome)
    assert "nothing was verified: output 'y' is NaN everywhere, against the unoptimized graph" in outcome.err
    assert "hint: give inputs that suit the model: --input x=file.npy" in outcome.err


def test_what_is_left_unverified_beside_others_is_named_in_the_verdict(miniinfer, tmp_path, no_onnxruntime):
    path = save(tmp_path, "g (float[n] x) => (float[n] y, float[n] z) { a = Sub(x, x) y = Div(a, a) z = Neg(x) }")
    outcome = miniinfer("build", path, "--verify")
    assert outcome.code == 0
    assert f"Verdict: verified but for 'y' on cpu, against {REFERENCES}, at 2 sizes" in verification_of(outcome)
    outcome = miniinfer("build", save(tmp_path, "g (float[0, 3] x) => (float[0, 3] y) { y = Neg(x) }"), "--verify")
    assert outcome.code == 0
    (verdict,) = (line for line in verification_of(outcome) if line.startswith("Verdict"))
    assert verdict.startswith("Verdict: nothing but shapes and types of empty outputs was verified on cpu")


def test_a_model_that_fails_by_itself_is_not_called_broken(miniinfer, tmp_path, no_onnxruntime):
    path = save(tmp_path, "g (int64[2] x) => (float[2] y) <float[0] t = {}> { y = Gather(t, x) }")
    outcome = miniinfer("build", path, "--verify")
    assert outcome.code == 1
    assert "nothing was verified: the model itself fails at every size that was tried: node 'y': " in outcome.err
    assert "differ" not in outcome.err


def test_verify_on_a_gpu(miniinfer, model, no_onnxruntime, monkeypatch):
    monkeypatch.setattr(verifying, "expect_device", lambda device: None)
    with mock.patch.object(opening, "load_model", load_emulated()):
        outcome = miniinfer("build", model, "--verify", "--verify-device", "cuda:0")
    assert outcome.code == 0
    lines = verification_of(outcome)
    assert lines[-1] == f"Verdict: verified on cuda:0, against {REFERENCES}, at 2 sizes"
    assert any("TF32" in line for line in lines)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--verify", "--input", "z=a.npy"), "--input z=a.npy: there is no such input\n  hint: the plan's inputs are x"),
        (("--input", "x=a.npy"), "--input is for --verify, which is not asked for"),
        (("--verify-shapes", "x:1x4"), "--verify-shapes is for --verify, which is not asked for"),
        (("--verify-device", "cpu"), "--verify-device is for --verify, which is not asked for"),
        (("--verify", "--verify-shapes", "z:1x4"), "--verify-shapes: there is no input 'z'\n  hint: the inputs are x: f32"),
        (("--verify", "--verify-shapes", "x:1x5"), "input 'x': shape 1x5 does not fit f32[batch,4]: 5 is not 4"),
        (("--verify", "--max-shapes", "x:2x4", "--verify-shapes", "x:3x4"), "axis 0 (batch) is 3, above 2, the largest"),
        (("--verify", "--verify-device", "tpu"), "device 'tpu' is not one of auto, cpu, cuda:N"),
    ],
)  # fmt: skip
def test_wrong_flags_are_usage_errors(miniinfer, model, flags, message):
    outcome = miniinfer("build", model, *flags)
    assert outcome.code == 2
    assert message in outcome.err


# -- before anything takes time --------------------------------------------------------------------------------------------

MISTAKES = {
    ("--verify-device", "cuda:0"): (5, "--verify-device: cuda:0: no NVIDIA driver: the library libcuda.so.1 is not found"),
    ("--verify-device", "gpu"): (2, "--verify-device: device 'gpu' is not one of auto, cpu, cuda:N"),
    ("--verify-shapes", "z:1"): (2, "--verify-shapes: there is no input 'z'"),
    ("--verify-shapes", "x:1x2x3"): (2, "input 'x': shape 1x2x3 has rank 3, expected f32["),
    ("--input", "z=x.npy"): (2, "--input z=x.npy: there is no such input"),
    ("--input", "x=gone.npy"): (2, "gone.npy: cannot be read: No such file or directory"),
    ("--arch", "sm_70"): (2, "architecture 'sm_70' is not of the form sm_90, or older than sm_80"),
    ("--arch", "sm_9999"): (2, "architecture sm_9999 is not known to the compiler"),
    ("--sign-key", "gone.key"): (2, "key 'gone.key': no such file"),
    ("--plugin", "no_such_module"): (2, "--plugin no_such_module: ModuleNotFoundError"),
    ("--json", "nowhere/a.json"): (2, "nowhere"),
}


@pytest.mark.parametrize("typed", MISTAKES, ids=" ".join)
def test_what_cannot_end_well_is_told_before_the_passes(miniinfer, model, tmp_path, monkeypatch, typed):
    monkeypatch.setattr(presence, "_open", lambda: None)
    monkeypatch.setattr("miniinfer_cli.builder.building.optimize", lambda *a: pytest.fail("the passes ran"))
    code, told = MISTAKES[typed]
    outcome = miniinfer("build", model, "-o", tmp_path / "m.plan", "--verify", *typed)
    assert (outcome.code, outcome.out) == (code, "")
    assert told in outcome.err
    assert not (tmp_path / "m.plan").exists()


def test_a_compiler_that_is_not_there_is_told_before_the_passes(miniinfer, model, monkeypatch):
    def missing():
        raise DeviceError("NVRTC is not found")

    monkeypatch.setattr("miniinfer_cli.backends.cuda.driver.nvrtc.nvrtc_version", missing)
    monkeypatch.setattr("miniinfer_cli.builder.building.optimize", lambda *a: pytest.fail("the passes ran"))
    outcome = miniinfer("build", model, "--dry-run", "--arch", "sm_90")
    assert (outcome.code, outcome.err.splitlines()[0]) == (5, "miniinfer: error: NVRTC is not found")

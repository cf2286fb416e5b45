"""miniinfer inspect: plans and models, as text and as JSON."""

import json
import re
from dataclasses import replace

import onnx
import pytest

import miniinfer_cli
from engine_format import StoredKernel, TargetSection, read_plan, write_plan
from miniinfer_cli.backends.cuda.driver.nvrtc import compile_kernel
from sample_models.catalogue import generate
from sample_models.request import Request
from tests.engine_format.samples import edited
from tests.everywhere import parsed


def test_a_plan(miniinfer, plan):
    outcome = miniinfer("inspect", plan, "--check", "--graph")
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert lines[:3] == [f"File: {plan} (plan)", "Input: x: f32[batch,4]", "Output: y: f32[batch,3]"]
    assert lines[3:5] == ["Dimension: batch: any size, tuned for 1", "Weights: 256 B in 3 constants (256 B f32)"]
    assert "=== Operations: 2 nodes ===" in lines
    assert "=== Inside fused nodes ===" in lines
    assert "Targets: none (kernels are compiled at first use)" in lines
    assert "Check: every byte agrees with its digest" in lines
    assert "graph mlp(x: f32[batch,4]) {" in lines


def test_a_model(miniinfer, model):
    outcome = miniinfer("inspect", model)
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert lines[0] == f"File: {model} (ONNX model)"
    assert [line.split() for line in lines[-3:]] == [["Gemm", "1"], ["Relu", "1"], ["MatMul", "1"]]


def test_json(miniinfer, plan, model):
    of_plan = json.loads(miniinfer("inspect", plan, "--json", "-").out)
    assert of_plan["kind"] == "plan"
    assert of_plan["inputs"] == [{"name": "x", "type": "f32[batch,4]", "optional": False}]
    assert of_plan["weight_bytes"] == {"f32": 256}
    assert len(of_plan["digest"]) == 32
    assert of_plan["targets"] == []
    of_model = json.loads(miniinfer("inspect", model, "--json", "-").out)
    assert (of_model["kind"], of_model["model"]["opsets"]) == ("onnx", {"": 17})


def test_a_damaged_weight_is_found_by_check(miniinfer, plan):
    whole = bytearray(plan.read_bytes())
    whole[-200] ^= 1
    plan.write_bytes(whole)
    assert miniinfer("inspect", plan).code == 4  # weights this small are read to show the plan at all
    outcome = miniinfer("inspect", plan, "--check")
    assert outcome.code == 1
    assert str(plan) in outcome.err


def test_what_it_refuses(miniinfer, model, tmp_path):
    assert miniinfer("inspect", tmp_path / "absent").code == 2
    outcome = miniinfer("inspect", model, "--check")
    assert outcome.code == 2
    assert "an ONNX model has none" in outcome.err
    before = model.read_bytes()
    outcome = miniinfer("inspect", model, "--json", model)
    assert outcome.code == 2
    assert "--json would overwrite the file that is read" in outcome.err
    assert model.read_bytes() == before
    (tmp_path / "bad.plan").write_bytes(b"nothing")
    assert miniinfer("inspect", tmp_path / "bad.plan").code == 4


def test_compiled_kernels_are_listed_with_what_they_take(miniinfer, plan, model, tmp_path):
    text = 'extern "C" __global__ void k(int* x) { __shared__ int s[8]; s[threadIdx.x] = 1; __syncthreads(); x[0] = s[1]; }'
    compiled = compile_kernel(text, "k", 90, {})
    kernels = (StoredKernel("k", "0123456789abcdef", compiled.code), StoredKernel("odd", "ff", b"code"))
    with read_plan(plan) as opened:
        written = replace(opened, targets=(TargetSection("sm_90", kernels=kernels), TargetSection("sm_80")))
        write_plan(written, tmp_path / "filled.plan")
    lines = miniinfer("inspect", tmp_path / "filled.plan", "--kernels").out.splitlines()
    start = lines.index("=== Kernels for sm_90 ===")
    registers = re.search(r"Used (\d+) registers", compiled.log)[1]
    assert [line.split() for line in lines[start + 1 : start + 4]] == [
        ["kernel", "source", "registers", "local", "bytes", "shared", "bytes", "code", "bytes"],
        ["k", "0123456789ab", registers, "0", "32", str(len(compiled.code))],
        ["odd", "ff", "?", "?", "?", "4"],
    ]
    assert "=== Kernels for sm_80 ===" not in lines
    (first, second), nothing = (
        target["compiled"] for target in json.loads(miniinfer("inspect", tmp_path / "filled.plan", "--json", "-").out)["targets"]
    )
    assert nothing == []
    sizes = {"local_bytes": 0, "shared_bytes": 32, "code_bytes": len(compiled.code)}
    assert first == {"kernel": "k", "source": "0123456789abcdef", "registers": int(registers), **sizes}
    unknown = dict.fromkeys(("registers", "local_bytes", "shared_bytes"))
    assert second == {"kernel": "odd", "source": "ff", **unknown, "code_bytes": 4}
    assert "Kernels" not in miniinfer("inspect", plan, "--kernels").out
    outcome = miniinfer("inspect", model, "--kernels")
    assert (outcome.code, "an ONNX model has none" in outcome.err) == (2, True)


def test_damaged_code_of_a_kernel_is_shown_as_unknown_and_found_by_check(miniinfer, plan, tmp_path):
    path = tmp_path / "filled.plan"
    with read_plan(plan) as opened:
        write_plan(replace(opened, targets=(TargetSection("sm_90", kernels=(StoredKernel("k", "0", b"code" * 99),)),)), path)
    path.write_bytes(path.read_bytes().replace(b"code" * 99, b"code" * 98 + b"cold"))
    outcome = miniinfer("inspect", path, "--kernels")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.splitlines()[-1].split()[-4:] == ["?", "?", "?", "396"]
    assert miniinfer("inspect", path, "--check").code == 1


def test_operator_sets_are_shown(miniinfer, model, plan):
    assert "Operator sets: ai.onnx 17" in miniinfer("inspect", model).out.splitlines()
    line = next(line for line in miniinfer("inspect", plan).out.splitlines() if line.startswith("Operator sets: "))
    assert "miniinfer 1" in line
    assert "ai.onnx " in line


def test_outputs_are_shown_as_the_model_lists_them(miniinfer, tmp_path):
    text = "g (float[2] x) => (float[2] y, float z, float[2] y) { y = Neg(x) z = ReduceSum<keepdims = 0>(x) }"
    model = tmp_path / "twice.onnx"
    onnx.save(parsed(text), model)
    built = json.loads(miniinfer("build", model, "--json", "-").out)
    assert built["notes"] == ["output 'y' is listed 2 times: a run returns it once"]
    lines = ["Output: y: f32[2]", "Output: z: f32[]", "Output: y: f32[2]"]
    for file in (model, tmp_path / "twice.plan"):
        outcome = miniinfer("inspect", file)
        assert outcome.out.splitlines()[2:5] == lines
        assert f"Note: {built['notes'][0]}" in outcome.out
        listed = json.loads(miniinfer("inspect", file, "--json", "-").out)["outputs"]
        assert [output["name"] for output in listed] == ["y", "z", "y"]
    assert f"Note: {built['notes'][0]}" in miniinfer("build", model).out.splitlines()[1]


@pytest.mark.parametrize("odd", [1.5, 3, "text", None, {"a": 1}, [1, None, True]])
def test_metadata_of_another_writer_is_no_list_of_ours(miniinfer, plan, odd):
    def edit(document):
        document["metadata"].update(notes=odd, outputs=odd, opsets=odd, constant_inputs=odd)

    whole = plan.read_bytes()
    plan.write_bytes(edited(whole, edit))
    outcome = miniinfer("inspect", plan)
    assert (outcome.code, outcome.err) == (0, "")
    assert "Output: y: f32[batch,3]" in outcome.out
    assert "Note:" not in outcome.out
    assert miniinfer("run", plan, "--device", "cpu", "--duration", "0", "--iterations", "1").code == 0


def test_lint_of_a_plan_and_of_the_model_that_it_is_of(miniinfer, plan, model):
    """4 to 8 to 3 channels of f32: the last are filled up to 4 on a GPU."""
    for file in (plan, model):
        outcome = miniinfer("inspect", file, "--lint")
        assert outcome.code == 0
        lines = outcome.out.splitlines()
        start = lines.index("=== Lint: 2 remarks ===")
        assert lines[start + 1 : start + 3] == [
            "padding waste (on a GPU): 1 product of 3 channels, filled up to multiples of 4: last",
            "  multiplications on zeros 25 %; of all operations 42.9 %",
        ]
        document = json.loads(miniinfer("inspect", file, "--lint", "--json", "-").out)
        assert [r["rule"] for r in document["lint"]] == ["padding waste", "f32 weights"]
        assert document["lint"][1]["evidence"][1] == {"what": "f32 weights of them", "value": 224, "unit": "bytes"}
    assert "lint" not in json.loads(miniinfer("inspect", plan, "--json", "-").out)


def test_lint_knows_how_a_plan_was_built(miniinfer, model, tmp_path):
    low = tmp_path / "low.plan"
    assert miniinfer("build", model, "-o", low, "--opt-level", 1, "--no-tf32", "-q").code == 0
    rules = [r["rule"] for r in json.loads(miniinfer("inspect", low, "--lint", "--json", "-").out)["lint"]]
    assert rules[0] == "passes"
    assert "TF32 off" in rules


def test_states_are_no_inputs_and_outputs(miniinfer, tmp_path):
    miniinfer_cli.build(
        generate("tinyllama", Request(small=True)), tmp_path / "d.plan", kv_cache=24, shapes={"input_ids": (1, 1)}
    )
    outcome = miniinfer("inspect", tmp_path / "d.plan", "--json", tmp_path / "d.json")
    lines = [line for line in outcome.out.splitlines() if line.split(":")[0] in ("Input", "Output", "State")]
    assert lines[:3] == [
        "Input: input_ids: i64[1,1]",
        "Output: logits: f32[1,1,61]",
        "State: past_key_values.0.key -> present.0.key: f32[1,2,24,8], a cache of 24 rows",
    ]
    assert len(lines) == 6
    listed = json.loads((tmp_path / "d.json").read_text())["states"]
    assert [s["input"] for s in listed] == [f"past_key_values.{n}.{w}" for n in range(2) for w in ("key", "value")]
    assert {s["rows"] for s in listed} == {24}

"""miniinfer compare: plans, models and saved outputs beside each other; the report, JSON, exit codes, what is refused."""

import json
import re
from unittest import mock

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from miniinfer_cli.devices import opening
from tests.cli.conftest import mlp
from tests.cli.test_results import check
from tests.emulation.engine import load_emulated

CPU = ("--device", "cpu", "--no-times")
SAVE = ("--iterations", 1, "--warmup", 0, "--duration", 0, "-q", "--device", "cpu")


def changed(path, factor):
    """``mlp()`` whose last weights are ``factor`` times as large."""
    proto = mlp()
    (last,) = (t for t in proto.graph.initializer if t.name == "w2")
    last.CopyFrom(numpy_helper.from_array(np.float32(factor) * numpy_helper.to_array(last), "w2"))
    onnx.save(proto, path)
    return path


@pytest.fixture
def other(tmp_path):
    return changed(tmp_path / "other.onnx", 1.01)


def table(out):
    lines = out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("output  "))
    rows = []
    for line in lines[start + 1 :]:
        cells = re.split(r" {2,}", line.strip())
        if len(cells) < 7:
            break
        rows.append(cells)
    return rows


def test_a_plan_and_its_model_agree(miniinfer, plan, model, tmp_path):
    outcome = miniinfer("compare", plan, model, *CPU, "--batch", 3, "--json", tmp_path / "c.json")
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert lines[:2] == [f"A: {plan} (plan) on cpu", f"B: {model} (ONNX model) on cpu"]
    assert "Inputs: x 3x4" in lines
    ((name, absolute, relative, cosine, argmax, allowed, result),) = table(outcome.out)
    assert (name, cosine, argmax, allowed, result) == ("y", "1.00000000", "100 %", "1e-05", "ok")
    assert float(absolute) < 1e-5 and float(relative) < 1e-6
    assert "Outputs: agree" in lines
    document = check(json.loads((tmp_path / "c.json").read_text()))
    (case,) = document["cases"]
    assert (document["kind"], document["a"]["is"], document["b"]["is"], case["agree"]) == ("compare", "plan", "ONNX model", True)
    assert document["a"]["plan_digest"] == json.loads(miniinfer("inspect", plan, "--json", "-").out)["digest"]
    assert case["inputs"] == [{"name": "x", "type": "f32[batch,4]", "shape": [3, 4], "source": "random"}]


def test_outputs_that_differ(miniinfer, plan, other, tmp_path):
    outcome = miniinfer("compare", plan, other, *CPU, "--json", tmp_path / "c.json")
    assert outcome.code == 1
    assert outcome.err.splitlines()[0] == (
        f"miniinfer: error: the outputs of {plan} and {other} differ: 'y' by 1.00e-02 (allowed 1e-05)"
    )
    (row,) = table(outcome.out)
    assert (row[2], row[6]) == ("1.00e-02", "DIFFERS")
    assert "Outputs: differ: y" in outcome.out
    (output,) = check(json.loads((tmp_path / "c.json").read_text()))["cases"][0]["outputs"]
    assert (output["ok"], output["relative_error"]) == (False, pytest.approx(0.01, rel=1e-4))


def test_tolerances_of_elements(miniinfer, plan, other):
    assert miniinfer("compare", plan, other, *CPU, "--rtol", 0.011).code == 0
    assert miniinfer("compare", plan, other, *CPU, "--atol", 10).code == 0
    outcome = miniinfer("compare", plan, other, *CPU, "--rtol", 0.005, "--atol", 0)
    assert (outcome.code, "'y' 100 % of the elements beyond" in outcome.err) == (1, True)
    (row,) = table(outcome.out)
    assert row[5] == "by element"


def test_several_sets_of_sizes(miniinfer, plan, model, tmp_path):
    flags = ("--shapes", "x:2x4,x:5x4", "--json", "-")
    assert miniinfer("compare", plan, model, *CPU, *flags).code == 2  # one flag gives an input once
    flags = ("--shapes", "x:2x4", "--shapes", "x:5x4", "--json", "-")
    document = check(json.loads(miniinfer("compare", plan, model, *CPU, *flags).out))
    assert [case["label"] for case in document["cases"]] == ["x 2x4", "x 5x4"]
    assert document["settings"]["shapes"] == [{"x": [2, 4]}, {"x": [5, 4]}]


def test_saved_outputs(miniinfer, plan, other, tmp_path):
    for file, source in ((tmp_path / "a.npz", plan), (tmp_path / "b.npz", other.with_suffix(".plan"))):
        if not source.exists():
            assert miniinfer("build", other, "-q").code == 0
        assert miniinfer("run", source, *SAVE, "--seed", 4, "--output", file).code == 0
    a, b = tmp_path / "a.npz", tmp_path / "b.npz"
    assert miniinfer("compare", plan, a, *CPU, "--seed", 4).code == 0
    assert miniinfer("compare", plan, a, *CPU, "--seed", 5).code == 1
    assert miniinfer("compare", b, other, *CPU, "--seed", 4).code == 0
    outcome = miniinfer("compare", a, b, "--json", "-")
    assert outcome.code == 1
    document = check(json.loads(outcome.out))
    assert (document["a"], document["cases"][0]["label"]) == ({"file": str(a), "is": "saved outputs"}, "")


def test_an_input_from_a_file(miniinfer, plan, model, tmp_path):
    np.save(tmp_path / "x.npy", np.ones((6, 4), np.float32))
    flags = ("--input", f"x={tmp_path / 'x.npy'}", "--json", "-")
    (case,) = json.loads(miniinfer("compare", plan, model, *CPU, *flags).out)["cases"]
    assert case["inputs"][0]["source"] == str(tmp_path / "x.npy")
    outcome = miniinfer("compare", plan, model, *CPU, *flags[:2], "--shapes", "x:6x4", "--shapes", "x:2x4")
    assert (outcome.code, "--shapes x: its sizes are those of its file" in outcome.err) == (2, True)


def test_devices_of_each_side(miniinfer, plan):
    on_cpu, emulated = opening.load_model, load_emulated()

    def load_either(graph, device, *others):
        return (on_cpu if device == "cpu" else emulated)(graph, device, *others)

    with mock.patch.object(opening, "load_model", load_either):
        outcome = miniinfer("compare", plan, plan, *CPU, "--device-b", "cuda:0")
    assert outcome.code == 0, outcome.err
    assert outcome.out.splitlines()[:2] == [f"A: {plan} (plan) on cpu", f"B: {plan} (plan) on cuda:0"]
    (row,) = table(outcome.out)
    assert (row[5], row[6]) == ("5e-03", "ok")  # products of f32 may be rounded on the GPU


def model_of(path, inputs, nodes, output="y"):
    values = [helper.make_tensor_value_info(n, t, ["n", 4]) for n, t in inputs]
    out = helper.make_tensor_value_info(output, inputs[0][1], None)
    graph = helper.make_graph(nodes, "g", values, [out])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_names_and_types_of_both(miniinfer, tmp_path):
    single = [("x", TensorProto.FLOAT)]
    a = model_of(tmp_path / "a.onnx", single, [helper.make_node("Sin", ["x"], ["y"])])
    half = model_of(tmp_path / "half.onnx", [("x", TensorProto.FLOAT16)], [helper.make_node("Sin", ["x"], ["y"])])
    outcome = miniinfer("compare", a, half, *CPU)
    assert (outcome.code, table(outcome.out)[0][5]) == (0, "1e-02")
    renamed = model_of(tmp_path / "renamed.onnx", single, [helper.make_node("Sin", ["x"], ["out"])], "out")
    outcome = miniinfer("compare", a, renamed, *CPU)
    assert outcome.code == 0
    assert "note: no output has the same name in both; compared in their order: y with out" in outcome.out
    inputs = model_of(tmp_path / "inputs.onnx", [("z", TensorProto.FLOAT)], [helper.make_node("Sin", ["z"], ["y"])])
    outcome = miniinfer("compare", a, inputs, *CPU)
    assert outcome.code == 2
    assert f"B ({inputs}): its inputs are z, those of the other side x" in outcome.err
    noisy = model_of(
        tmp_path / "noisy.onnx", single,
        [helper.make_node("RandomNormalLike", ["x"], ["r"]), helper.make_node("Add", ["x", "r"], ["y"], name="add")],
    )  # fmt: skip
    outcome = miniinfer("compare", a, noisy, *CPU)
    assert outcome.code == 0
    assert "Left out: output 'y' depends on random numbers: RandomNormalLike" in outcome.out
    assert "Outputs: nothing is left to compare" in outcome.out


@pytest.mark.parametrize(
    ("write", "code", "told"),
    [
        (None, 2, "cannot be read: No such file or directory"),
        (b"", 3, ""),
        (b"\x08\x09nonsense", 3, ""),
        (b"PK\x03\x04nonsense", 2, "does not hold arrays by name"),
        (b'{"schema_version": 1, "kind": "times"}', 2, "--no-times: results hold nothing else"),
    ],
)
def test_files_that_are_nothing_of_these(miniinfer, plan, tmp_path, write, code, told):
    path = tmp_path / "b"
    if write is not None:
        path.write_bytes(write)
    for pair in ((plan, path), (path, plan)):
        outcome = miniinfer("compare", *pair, *CPU)
        named = str(path) in outcome.err or "--no-times" in outcome.err
        assert (outcome.code, told in outcome.err, named) == (code, True, True), outcome.err
        assert "Traceback" not in outcome.err


def test_a_damaged_plan_and_odd_arrays(miniinfer, plan, tmp_path):
    damaged = tmp_path / "damaged.plan"
    damaged.write_bytes(plan.read_bytes()[:100])
    assert miniinfer("compare", plan, damaged, *CPU).code == 4
    np.savez(tmp_path / "objects.npz", y=np.array([{}]))
    objects = miniinfer("compare", plan, tmp_path / "objects.npz", *CPU)
    assert objects.code == 2 and "does not hold arrays by name: it holds Python objects\n" in objects.err
    np.savez(tmp_path / "odd.npz", y=np.zeros(2, "datetime64[s]"))
    outcome = miniinfer("compare", plan, tmp_path / "odd.npz", *CPU)
    assert (outcome.code, "'y' in it is of type datetime64[s]" in outcome.err) == (2, True)
    np.savez(tmp_path / "none.npz", other=np.zeros(2))
    outcome = miniinfer("compare", plan, tmp_path / "none.npz", *CPU)
    assert (outcome.code, "by inf" not in outcome.err) == (1, True)


def test_what_does_not_go_together(miniinfer, plan, tmp_path):
    np.savez(tmp_path / "a.npz", y=np.zeros((1, 3), np.float32))
    a = tmp_path / "a.npz"
    outcome = miniinfer("compare", plan, a, "--shapes", "x:1x4", "--shapes", "x:2x4")
    assert (outcome.code, "B is saved outputs of one set of sizes" in outcome.err) == (2, True)
    outcome = miniinfer("compare", a, a, "--device-a", "cpu")
    assert (outcome.code, "--device-a: both sides were computed before, and nothing is run" in outcome.err) == (2, True)
    assert miniinfer("compare", plan, a, "--batch-dim", "batch").code == 2
    assert miniinfer("compare", plan, a, "--json", a).code == 2
    assert miniinfer("compare", plan, a, "--device", "cpu", "--device-b", "tpu").code in (0, 1)  # B does not run
    assert miniinfer("compare", plan, plan, "--device", "cpu", "--device-b", "tpu").code == 2

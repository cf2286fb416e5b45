"""build --fp16, --bf16, --keep-fp32 and --io-dtype; what --verify --per-layer names; what inspect shows of it."""

import json
from unittest import mock

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import miniinfer_cli
from miniinfer_cli.builder.options import BuildOptions
from miniinfer_cli.cli import verifying
from miniinfer_cli.devices import opening
from miniinfer_cli.errors import CheckFailed, ModelError, UsageError
from miniinfer_cli.verification import verify
from miniinfer_cli.verification.comparison import TOLERANCES
from miniinfer_cli.verification.keeping import find_kept
from miniinfer_cli.verification.oracles import OracleGone
from tests.cached_models import group_query_attention
from tests.emulation.engine import load_emulated

SIZE = 8


def chain(scales, *, dtype=np.float32, last="Identity"):
    """x [n, 8] through a product and an activation for each scale, named fc0, act0 and so on, to y."""
    rng = np.random.default_rng(3)
    nodes, weights, x = [], [], "x"
    code = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    for i, scale in enumerate(scales):
        w = (rng.standard_normal((SIZE, SIZE)) * SIZE**-0.5 * scale).astype(dtype)
        weights.append(numpy_helper.from_array(w, f"w{i}"))
        nodes.append(helper.make_node("MatMul", [x, f"w{i}"], [f"h{i}"], name=f"fc{i}"))
        nodes.append(helper.make_node("LeakyRelu", [f"h{i}"], [f"a{i}"], name=f"act{i}", alpha=0.5))
        x = f"a{i}"
    nodes.append(helper.make_node(last, [x], ["y"], name="last"))
    shape = ["n", SIZE]
    inputs, outputs = ([helper.make_tensor_value_info(n, code, shape)] for n in "xy")
    graph = helper.make_graph(nodes, "chain", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(autouse=True)
def no_onnxruntime(monkeypatch):
    """The references are the oracle, with no process started."""

    def gone(*_, **__):
        raise OracleGone("it is not asked")

    monkeypatch.setattr(verify, "OnnxRuntime", gone)


@pytest.fixture
def sound(tmp_path):
    onnx.save(chain([1.5] * 4), tmp_path / "sound.onnx")
    return tmp_path / "sound.onnx"


@pytest.fixture
def planted_weight(tmp_path):
    """fc1 has a weight of some 1e6, and what follows makes it good."""
    onnx.save(chain([1.5, 1e6, 1e-6, 1.5]), tmp_path / "planted.onnx")
    return tmp_path / "planted.onnx"


@pytest.fixture
def planted_result(tmp_path):
    """Every weight is within f16, and the results of fc2 are not."""
    onnx.save(chain([1.5, 3e3, 3e3, 1e-3, 1e-3, 1.5]), tmp_path / "planted.onnx")
    return tmp_path / "planted.onnx"


def run(plan, x):
    with miniinfer_cli.load(plan, "cpu") as engine:
        return engine.run({"x": x})["y"]


X = np.linspace(-1, 1, 2 * SIZE, dtype=np.float32).reshape(2, SIZE)


@pytest.mark.parametrize(("flag", "dtype", "error"), [("--fp16", "f16", 1e-2), ("--bf16", "bf16", 5e-2)])
def test_a_plan_in_16_bits_takes_and_gives_f32(miniinfer, sound, tmp_path, flag, dtype, error):
    outcome = miniinfer("build", sound, flag, "--verify")
    assert outcome.code == 0
    assert f"=== Element types: {dtype} ===\nNodes: 8 in {dtype}, 0 keep f32" in outcome.out
    assert "Verdict: verified on cpu" in outcome.out
    half, exact = run(tmp_path / "sound.plan", X), run(miniinfer_cli.build(sound), X)
    assert half.dtype == np.float32
    off = np.linalg.norm(half - exact) / np.linalg.norm(exact)
    assert 1e-6 < off < error
    shown = miniinfer("inspect", tmp_path / "sound.plan").out
    assert f"({4 * SIZE * SIZE * 2} B {dtype})" in shown
    assert f"=== Element types: {dtype}, 0 nodes keep f32 ===" in shown


def test_inputs_and_outputs_of_other_types(miniinfer, sound, tmp_path):
    assert miniinfer("build", sound, "--fp16", "--io-dtype", "f16", "--verify").code == 0
    with miniinfer_cli.load(tmp_path / "sound.plan", "cpu") as engine:
        assert [str(b) for b in (*engine.inputs, *engine.outputs)] == ["x: f16[n,8]", "y: f16[n,8]"]
        assert "Cast" not in [n.op for n in engine.graph]
    plan = miniinfer_cli.build(sound, io_types={"x": "bf16"})
    with miniinfer_cli.load(plan, "cpu") as engine:
        assert [str(b) for b in (*engine.inputs, *engine.outputs)] == ["x: bf16[n,8]", "y: f32[n,8]"]
    assert "no input or output 'z'" in miniinfer("build", sound, "--io-dtype", "z:f16").err
    assert "is given twice" in miniinfer("build", sound, "--io-dtype", "f16", "--io-dtype", "f32").err
    assert "'i8' is not one of f32, f16, bf16" in miniinfer("build", sound, "--io-dtype", "i8").err


def test_a_weight_beyond_f16_is_an_error_that_names_its_node(miniinfer, planted_weight):
    outcome = miniinfer("build", planted_weight, "--fp16")
    assert outcome.code == 3
    assert outcome.err.startswith("miniinfer: error: node 'fc1': weight 'w1' reaches ")
    assert "--keep-fp32 fc1; bf16 reaches as far as f32" in outcome.err
    assert not planted_weight.with_suffix(".plan").exists()
    with pytest.raises(ModelError, match=r"keep_fp32=\['fc1'\]"):
        miniinfer_cli.build(planted_weight, precision="f16")
    assert miniinfer("build", planted_weight, "--bf16", "--verify").code == 0


def test_a_result_beyond_f16_fails_the_check_which_names_the_node(miniinfer, planted_result):
    outcome = miniinfer("build", planted_result, "--fp16", "--verify", "--json", "-")
    assert outcome.code == 1
    assert "the first to differ is node 'fc2'" in outcome.err
    assert "--keep-fp32 fc2; --keep-fp32 auto finds" in outcome.err
    layers = json.loads(outcome.out)["layers"]
    assert layers["first"]["nodes"] == ["fc2"]


@pytest.mark.parametrize(("scales", "first"), [([1.5, 1e6, 1e-6, 1.5], 1), ([1.5, 3e3, 3e3, 1e-3, 1e-3, 1.5], 2)])
def test_what_has_to_keep_f32_is_found(miniinfer, tmp_path, scales, first):
    """A weight beyond f16, or results that are; and the node that reads them."""
    model = tmp_path / "m.onnx"
    onnx.save(chain(scales), model)
    np.save(tmp_path / "x.npy", X)
    given = ["--input", f"x={tmp_path / 'x.npy'}"]
    outcome = miniinfer("build", model, "--fp16", "--keep-fp32", "auto", *given, "--verify", "--json", "-")
    assert outcome.code == 0
    found = json.loads(outcome.out)
    nodes = found["kept_fp32_search"]["nodes"]
    assert nodes == [f"fc{first}", f"fc{first + 1}"]
    assert found["kept_fp32_search"]["guessed_inputs"] == []
    assert {k["node"] for k in found["kept_fp32"]} >= set(nodes)
    again = miniinfer("build", model, "--fp16", *(word for n in nodes for word in ("--keep-fp32", n)), "--verify")
    assert again.code == 0
    assert "asked for" in miniinfer("inspect", tmp_path / "m.plan").out


def test_a_part_of_the_model_is_kept_by_the_front_of_its_names(sound):
    model = onnx.load(sound)
    for number, node in enumerate(model.graph.node):
        node.name = f"/part.{number // 4}/{node.name}"
    plan = miniinfer_cli.build(model, precision="f16", keep_fp32=["/part.1"])
    asked = {k["node"] for k in plan.report.options["kept_fp32"] if k["reason"] == "asked for"}
    assert asked == {"/part.1/fc2", "/part.1/act2", "/part.1/fc3", "/part.1/act3"}


def test_without_inputs_it_says_that_it_guesses(miniinfer, planted_weight):
    outcome = miniinfer("build", planted_weight, "--fp16", "--keep-fp32", "auto")
    assert outcome.code == 0
    assert "Note: this is a guess: random numbers stood for 'x'" in outcome.out
    assert "The same again: --keep-fp32 fc1 --keep-fp32 fc2" in outcome.out


def test_where_f32_is_no_way_out_the_search_says_so(sound, monkeypatch):
    monkeypatch.setattr("miniinfer_cli.verification.keeping._Trial.holds", lambda self, kept: False)
    with pytest.raises(CheckFailed, match="no 64 nodes or 900 s suffice: after 2 trials"):
        find_kept(sound, BuildOptions(precision="f16"))


def test_on_a_gpu_too_the_search_and_the_layers_say_so(miniinfer, planted_result):
    """On the emulated device, without libraries: kernels of f16 round where they do on a GPU."""
    with mock.patch.object(opening, "load_model", load_emulated()), mock.patch.object(verifying, "expect_device"):
        outcome = miniinfer("build", planted_result, "--fp16", "--verify", "--verify-device", "cuda:0")
        assert outcome.code == 1
        assert "the first to differ is node 'fc2'" in outcome.err
        found = find_kept(planted_result, BuildOptions(precision="f16"), device="cuda:0")
    assert found.nodes == ("fc2", "fc3")


def test_per_layer_shows_where_the_error_grows(miniinfer, sound):
    outcome = miniinfer("build", sound, "--fp16", "--verify", "--per-layer")
    assert outcome.code == 0
    assert "=== Error against f32, layer by layer ===" in outcome.out
    assert "Grows: nowhere by much" in outcome.out
    plain = miniinfer("build", sound, "--verify", "--per-layer")
    assert plain.code == 0 and "Error against f32" in plain.out


REFUSED = {
    "both": (["--fp16", "--bf16"], 2, "--fp16 and --bf16 exclude each other"),
    "kept without": (["--keep-fp32", "fc1"], 2, "--keep-fp32: without a type of 16 bits everything keeps f32"),
    "auto without": (["--keep-fp32", "auto"], 2, "--keep-fp32: without a type of 16 bits"),
    "unknown": (
        ["--fp16", "--keep-fp32", "fc11"],
        2,
        "--keep-fp32: the model has no node 'fc11', and no operation\n  hint: did you mean fc1?",
    ),
    "all kept": (
        ["--fp16", *(w for op in ("MatMul", "LeakyRelu") for w in ("--keep-fp32", op))],
        3,
        "--fp16: the model keeps all of its f32",
    ),
    "per layer alone": (["--per-layer"], 2, "--per-layer is for --verify, which is not asked for"),
}


@pytest.mark.parametrize(("args", "code", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_done_is_an_error(miniinfer, sound, args, code, said):
    outcome = miniinfer("build", sound, *args)
    assert outcome.code == code
    assert said in outcome.err


def test_a_model_without_f32_is_an_error_and_one_of_f16_is_not(tmp_path):
    f64, f16 = tmp_path / "f64.onnx", tmp_path / "f16.onnx"
    onnx.save(chain([1.5], dtype=np.float64), f64)
    onnx.save(chain([1.5], dtype=np.float16), f16)
    with pytest.raises(ModelError, match="precision: the model holds no f32"):
        miniinfer_cli.build(f64, precision="f16")
    assert miniinfer_cli.build(f16, precision="f16").report.options["precision"] == "f16"


def test_what_stays_in_f64_is_told(miniinfer, tmp_path):
    model = chain([1.5] * 2)
    model.graph.node.append(helper.make_node("Cast", ["y"], ["wide"], to=TensorProto.DOUBLE))
    model.graph.node.append(helper.make_node("Neg", ["wide"], ["z"]))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.DOUBLE, ["n", SIZE]))
    onnx.save(model, tmp_path / "m.onnx")
    told = miniinfer("build", tmp_path / "m.onnx", "--fp16").out
    assert "in f64, which a build in f16 leaves as it is" in told
    with miniinfer_cli.load(tmp_path / "m.plan", "cpu") as engine:
        assert [str(b.type) for b in engine.outputs] == ["f32[n,8]", "f64[n,8]"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"precision": "f8"}, "precision: expected 'f16', 'bf16' or None"),
        ({"precision": "f16", "keep_fp32": "fc1"}, "keep_fp32: expected a list of names"),
        ({"precision": "f16", "keep_fp32": ["auto"]}, "keep_fp32: 'auto' has to run the model"),
        ({"io_types": {"x": "i8"}}, "io_types: expected f32, f16 or bf16 by name"),
        ({"fp16": True}, "give precision='f16'"),
    ],
)
def test_from_python_values_of_another_kind_are_refused(sound, options, said):
    with pytest.raises(UsageError, match=said):
        miniinfer_cli.build(sound, **options)


def test_an_overridable_input_has_its_default_in_the_new_type(tmp_path):
    model = chain([1.5])
    model.graph.initializer.append(numpy_helper.from_array(X, "x"))
    del model.graph.input[:]
    model.graph.input.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, list(X.shape)))
    onnx.save(model, tmp_path / "m.onnx")
    plan = miniinfer_cli.build(tmp_path / "m.onnx", precision="f16", io_types={"x": "f16"}, overridable=["x"])
    with miniinfer_cli.load(plan, "cpu") as engine:
        assert str(engine.inputs[0].type) == "f16[2,8]"
        given = engine.run({"x": X.astype(np.float16)})["y"]
        assert np.array_equal(engine.run({})["y"], given)


def test_nodes_that_keep_f32_are_looked_for_beside_caches():
    found = find_kept(group_query_attention(), BuildOptions(precision="f16", kv_cache=16), device="cpu")
    assert found.nodes == () and all(o.ok for o in found.outputs)
    assert not any("past" in name for name in found.guessed)


def test_beside_caches_no_layer_is_compared_and_the_verdict_stands(miniinfer, tmp_path, monkeypatch):
    onnx.save(group_query_attention(), tmp_path / "m.onnx")
    words = ("build", tmp_path / "m.onnx", "--dry-run", "--fp16", "--kv-cache", "16", "--verify")
    refused = miniinfer(*words, "--per-layer")
    assert refused.code == 2 and "--per-layer and --state or --kv-cache exclude each other" in refused.err
    monkeypatch.setattr("miniinfer_cli.verification.verify._allowed", lambda *of: -1.0)
    monkeypatch.setattr("miniinfer_cli.verification.comparison.TOLERANCES", dict.fromkeys(TOLERANCES, 0.0))
    differs = miniinfer(*words)
    assert differs.code == 1 and "differ: 'logits'" in differs.err and "layer by layer" not in differs.out

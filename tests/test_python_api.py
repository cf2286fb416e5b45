"""The two functions of miniinfer_cli: what they are given by mistake, and how what they give shows itself."""

import re
from importlib import resources

import numpy as np
import onnx
import pytest

import miniinfer_cli
from miniinfer_cli.errors import UsageError
from tests.cli.conftest import mlp

MODEL = mlp()
SHAPE = {"x": (2, 4)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"fp16": True},
            "build: there is no option 'fp16'\n  hint: give precision='f16'; the options of build",
        ),
        (
            {"device": "cpu"},
            r"build: there is no option 'device'\n  hint: .*load\(plan, device\); the options of build are shapes",
        ),
        (
            {"opt_shape": SHAPE},
            r"there is no option 'opt_shape'\n  hint: did you mean opt_shapes\? The options of build are shapes, ",
        ),
        (
            {"zzz": 1},
            "there is no option 'zzz'\n  hint: the options of build are shapes, .*precision, .*limits, archs, sign_key$",
        ),
        ({"opt_level": "2"}, "opt_level: expected 0 to 3, got '2'"),
        ({"opt_level": True}, "opt_level: expected 0 to 3, got True"),
        ({"opt_level": 4}, r"optimization level 4 is outside \[0, 3\]"),
        ({"tf32": "no"}, "tf32: expected True or False, got 'no'"),
        ({"shapes": (2, 4)}, r"shapes: expected shapes by name, got \(2, 4\)\n  hint: .*shapes=\{\"x\": \(1, 3, 224, 224\)\}"),
        ({"opt_shapes": {"x": "2x4"}}, "opt_shapes: expected shapes by name, got {'x': '2x4'}"),
        ({"max_shapes": {"x": 2}}, "max_shapes: expected shapes by name"),
        ({"min_shapes": {"x": (-1, 4)}}, "min_shapes: expected shapes by name"),
        ({"shapes": {"x": (2.0, 4)}}, "shapes: expected shapes by name"),
        (
            {"disable_passes": "fuse_conv"},
            r"disable_passes: expected a list of names, got 'fuse_conv'\n  hint: .*disable_passes=",
        ),
        ({"disable_passes": ["fuse_con"]}, r"there is no pass called 'fuse_con'\n  hint: did you mean fuse_conv\?"),
        ({"mark_outputs": [1]}, r"mark_outputs: expected a list of names, got \[1\]"),
        ({"output": 3}, "build: expected a path to write to, got int"),
    ],
)
def test_wrong_options_of_build(options, message):
    with pytest.raises(UsageError, match=message):
        miniinfer_cli.build(MODEL, **options)


@pytest.mark.parametrize("model", [None, 3, object(), mlp])
def test_what_is_no_model(model):
    with pytest.raises(UsageError, match=r"expected a path, bytes or an onnx.ModelProto, got \w+\n  hint: .*torch.onnx.export"):
        miniinfer_cli.build(model)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_model_in_memory_may_be_any_kind_of_bytes(kind):
    assert miniinfer_cli.build(kind(MODEL.SerializeToString()), shapes={"x": np.array([2, 4])}).inputs[0].name == "x"


def test_a_plan_is_not_written_over_its_model(tmp_path):
    path = tmp_path / "m.onnx"
    onnx.save(MODEL, path)
    (tmp_path / "link").symlink_to(path)
    for output in (path, str(path), tmp_path / "link"):
        with pytest.raises(UsageError, match=r"the plan would overwrite the model\n  hint: give it another name"):
            miniinfer_cli.build(path, output)
    assert onnx.load(path) == MODEL


def test_a_way_through_a_folder_that_is_not_there_leads_nowhere(tmp_path):
    path = tmp_path / "m.onnx"
    onnx.save(MODEL, path)
    with pytest.raises(UsageError, match=r"gone/\.\./m\.onnx: cannot be written: No such file or directory"):
        miniinfer_cli.build(path, f"{tmp_path}/gone/../m.onnx")
    assert onnx.load(path) == MODEL


@pytest.fixture(scope="module")
def plan():
    return miniinfer_cli.build(MODEL)


@pytest.mark.parametrize(
    ("source", "got", "hint"),
    [
        (b"\x89MIPLAN", "bytes", "write the bytes to a file, and give its path"),
        (memoryview(b""), "memoryview", "write the bytes to a file"),
        (None, "NoneType", r"give the path of a plan, or what build\(\) returned"),
        (MODEL, "ModelProto", "give the path of a plan"),
    ],
)
def test_what_is_no_plan(source, got, hint):
    with pytest.raises(UsageError, match=f"load: expected a path or a Plan, got {got}\n  hint: {hint}"):
        miniinfer_cli.load(source)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"cuda_graf": False},
            r"load: there is no option 'cuda_graf'\n  hint: did you mean cuda_graph\? The options of load are ",
        ),
        ({"device": 0}, "device: expected auto, cpu or cuda:N, got 0"),
        ({"device": "gpu"}, "device 'gpu' is not one of auto, cpu, cuda:N"),
        ({"scheduling": "fast"}, "scheduling: expected one of auto, spin, blocking, got 'fast'"),
        ({"overlap": "no"}, "overlap: expected True or False, got 'no'"),
        ({"pdl": 1}, "pdl: expected True or False, got 1"),
        ({"cache": 3}, "cache: expected a folder or None, got 3"),
    ],
)
def test_wrong_options_of_load(plan, options, message):
    with pytest.raises(UsageError, match=message):
        miniinfer_cli.load(plan, **{"device": "cpu", **options})


def test_plans_engines_and_contexts_are_shown_in_a_line(plan, tmp_path):
    assert repr(plan) == "<Plan 'mlp', in memory: 1 inputs, 1 outputs, 2 nodes, 256 bytes of weights>"
    miniinfer_cli.build(MODEL, tmp_path / "m.plan")
    engine = miniinfer_cli.load(tmp_path / "m.plan", "cpu", cache=str(tmp_path))
    assert repr(engine.plan).startswith(f"<Plan 'mlp', {tmp_path / 'm.plan'}: ")
    context = engine.create_context()
    assert repr(engine) == "<Engine on cpu: x: f32[batch,4] -> y: f32[batch,3]>"
    assert repr(context) == f"<Context of {engine!r}>"
    engine.close()
    assert repr(engine) == "<Engine on cpu: x: f32[batch,4] -> y: f32[batch,3], closed>"
    assert repr(context) == f"<Context of {engine!r}, closed>"


def test_many_inputs_are_counted():
    names = [f"i{n}" for n in range(9)]
    tensor = onnx.helper.make_tensor_value_info
    inputs = [tensor(n, onnx.TensorProto.FLOAT, [1]) for n in names]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Sum", names, ["y"])], "sum", inputs, [tensor("y", onnx.TensorProto.FLOAT, [1])]
    )
    with miniinfer_cli.load(miniinfer_cli.build(onnx.helper.make_model(graph)), "cpu") as engine:
        assert re.fullmatch(r"<Engine on cpu: (i\d: f32\[1\], ){4}5 more -> y: f32\[1\]>", repr(engine))


@pytest.mark.parametrize("package", ["miniinfer_cli", "engine_format"])
def test_packages_say_that_they_have_types(package):
    assert (resources.files(package) / "py.typed").is_file()

"""--time-limit and --memory-limit on the command line."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from miniinfer_cli import build
from tests.forked import command_in_forked_child


@pytest.fixture(scope="module")
def endless(tmp_path_factory) -> Path:
    """A plan whose Loop runs as often as its input says, and gives a tensor of as many zeros."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["on"]), helper.make_node("Sin", ["v"], ["w"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, [2]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, [2]),
        ],
    )
    graph = helper.make_graph(
        [
            helper.make_node("Loop", ["n", "", "x"], ["y"], "endless", body=body),
            helper.make_node("ConstantOfShape", ["size"], ["z"], "zeros"),
        ],
        "g",
        [
            helper.make_tensor_value_info("n", TensorProto.INT64, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [2]),
            helper.make_tensor_value_info("size", TensorProto.INT64, [1]),
        ],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [2]),
            helper.make_tensor_value_info("z", TensorProto.FLOAT, ["k"]),
        ],
    )
    path = tmp_path_factory.mktemp("limits") / "endless.plan"
    build(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


def given(folder: Path, rounds: int, size: int) -> list[str]:
    np.save(folder / "n.npy", np.array(rounds, np.int64))
    np.save(folder / "size.npy", np.array([size], np.int64))
    return ["--input", f"n={folder / 'n.npy'}", "--input", f"size={folder / 'size.npy'}"]


@pytest.mark.parametrize("command", ["run", "profile"])
def test_what_goes_beyond_a_limit_ends_with_one_line(miniinfer, endless, tmp_path, command):
    flags = [command, endless, "--device", "cpu", "--iterations", 1, "--duration", 0, "--warmup", 0]
    flags += ["--time-limit", 0.2, "--memory-limit", "1.5M"]
    outcome = miniinfer(*flags, *given(tmp_path, 1 << 62, 3))
    assert outcome.code == 6
    first, hint = outcome.err.splitlines()
    assert first.startswith("miniinfer: error: node ")
    assert first.endswith("the inference took longer than its time limit of 0.2 s")
    assert hint.startswith("  hint: give it more by --time-limit")
    outcome = miniinfer(*flags, *given(tmp_path, 1, 1 << 30))
    assert outcome.code == 6
    first, hint = outcome.err.splitlines()
    assert first.startswith("miniinfer: error: ")
    assert first.endswith("the memory limit is 1.5 MiB")
    assert hint.startswith("  hint: give it more by --memory-limit")
    assert miniinfer(*flags, *given(tmp_path, 1, 3)).code == 0


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--time-limit", "0", "0 is not in the range x>0"),
        ("--time-limit", "nan", "nan is not a finite number"),
        ("--memory-limit", "0", "'0' is not a number of bytes above 0, as 500000000 or 2G"),
        ("--memory-limit", "2X", "'2X' is not a number of bytes"),
        ("--memory-limit", "-1", "'-1' is not a number of bytes"),
        ("--memory-limit", "0.0001", "'0.0001' is not a number of bytes"),
    ],
)
def test_limits_that_are_none(miniinfer, plan, flag, value, message):
    outcome = miniinfer("run", plan, flag, value)
    assert outcome.code == 2
    assert message in outcome.err


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [("1", 1), ("500000000", 500000000), ("2G", 2 << 30), ("1.5k", 1536), ("512MiB", 512 << 20), ("3TB", 3 << 40), (" 7 ", 7)],
)
def test_bytes_with_units(text, nbytes):
    from miniinfer_cli.cli.flag_values import BytesParam

    assert BytesParam().convert(text, None, None) == nbytes


def test_a_step_that_does_not_return_ends_the_process(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "slow_plugin.py").write_text(
        "import time\n"
        "from miniinfer_cli.ops.registry import define\n"
        "define('Sleep', domain='slow', infer=lambda x: x, reference=lambda x: (time.sleep(60), x)[1])\n"
    )
    graph = helper.make_graph(
        [helper.make_node("Sleep", ["x"], ["y"], "sleeper", domain="slow")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("slow", 1)]
    model, plan = tmp_path / "m.onnx", tmp_path / "m.plan"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), model)
    # The child has the operation to itself.
    run = ("run", str(plan), "--device", "cpu", "--time-limit", "0.2")
    code, said = command_in_forked_child(run, lambda: build(model, plan, plugins=["slow_plugin"]), limit_s=50)
    assert code == 6
    assert said.splitlines() == [
        "miniinfer: error: one step of the inference goes on beyond its time limit of 0.2 s",
        "  hint: give it more by --time-limit, or run smaller shapes",
    ]

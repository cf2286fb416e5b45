"""Every kind of bad model is told in one line with its own exit code, and leaves no plan behind."""

import errno
import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.cli.conftest import mlp


def make(nodes, initializers=(), outputs=("y",), domain="") -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "bad", [value("x", TensorProto.FLOAT, [2, 4])], [value(o, TensorProto.FLOAT, None) for o in outputs], initializers
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("odd", 1)])


def external(location: str, length: int = 64) -> onnx.ModelProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)
    return make([helper.make_node("MatMul", ["x", "w"], ["y"])], [tensor])


CASES = {
    "dangling": (make([helper.make_node("Add", ["x", "ghost"], ["y"], name="adder")]), ["adder", "ghost"]),
    "cycle": (
        make([helper.make_node("Add", ["x", "b"], ["a"], name="one"), helper.make_node("Relu", ["a"], ["b"], name="two"),
              helper.make_node("Relu", ["b"], ["y"])]),
        ["cycle"],
    ),
    "unknown operation": (make([helper.make_node("Frobnicate", ["x"], ["y"], name="frob")]), ["frob", "Frobnicate", "17"]),
    "unknown domain": (make([helper.make_node("Relu", ["x"], ["y"], name="r", domain="odd")]), ["odd", "Relu"]),
    "shape mismatch": (
        make(
            [helper.make_node("MatMul", ["x", "w"], ["y"], name="mm")],
            [numpy_helper.from_array(np.ones((5, 3), np.float32), "w")],
        ),
        ["mm", "MatMul"],
    ),
    "two faults at once": (
        make([
            helper.make_node("Frobnicate", ["x"], ["a"], name="frob"),
            helper.make_node("Concat", ["x", "x"], ["y"], name="cat", axis=7),
        ]),
        ["frob", "cat"],
    ),
    "external data missing": (external("absent.bin"), ["absent.bin"]),
    "external data short": (external("short.bin"), ["short.bin", "64"]),
    "external data escaping": (external("../outside.bin"), ["../outside.bin"]),
    "external data absolute": (external("/etc/passwd"), ["/etc/passwd"]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_bad_model(miniinfer, tmp_path, name):
    model, words = CASES[name]
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "short.bin").write_bytes(b"\0" * 10)
    (tmp_path / "outside.bin").write_bytes(b"\0" * 64)
    path = folder / "bad.onnx"
    path.write_bytes(model.SerializeToString())
    outcome = miniinfer("build", path)
    assert outcome.code == 3
    assert outcome.err.startswith("miniinfer: error: bad.onnx: ")
    assert [w for w in words if w not in outcome.err] == []
    assert "Traceback" not in outcome.err
    assert sorted(p.name for p in folder.iterdir()) == ["bad.onnx", "short.bin"]


@pytest.mark.parametrize("content", [b"", b"hello, I am no model\n" * 20, b"\x89PNG\r\n\x1a\n" + bytes(500)])
def test_a_file_that_is_no_model(miniinfer, tmp_path, content):
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    outcome = miniinfer("build", path)
    assert outcome.code == 3
    assert outcome.err.startswith("miniinfer: error: bad.onnx: ")
    assert "Traceback" not in outcome.err


def test_a_truncated_model(miniinfer, model):
    whole = model.read_bytes()
    for size in range(1, len(whole), 7):
        model.write_bytes(whole[:size])
        outcome = miniinfer("build", model)
        assert outcome.code == 3, size
        assert "Traceback" not in outcome.err
    assert not model.with_suffix(".plan").exists()


def test_a_missing_model(miniinfer, tmp_path):
    outcome = miniinfer("build", tmp_path / "no.onnx")
    assert outcome.code == 2
    assert "no.onnx" in outcome.err


def test_a_name_that_no_file_can_have(miniinfer, tmp_path):
    name = "x" * 300
    outcome = miniinfer("build", name, "-o", tmp_path / "x.plan")
    told = f"miniinfer: error: the model {name!r} cannot be opened: File name too long"
    told += "\n  hint: give another path, or rights to this one\n"
    assert (outcome.code, outcome.err) == (2, told)


def test_the_output_may_not_be_a_folder(miniinfer, model, tmp_path):
    outcome = miniinfer("build", model, "-o", tmp_path)
    assert outcome.code == 2
    assert outcome.err == f"miniinfer: error: {tmp_path}: --output names a folder, not a file\n  hint: give --output FILE\n"


def test_a_target_that_takes_no_files(miniinfer, model):
    outcome = miniinfer("build", model, "-o", "/proc/model.plan")
    assert outcome.code == 2
    assert outcome.err.startswith("miniinfer: error: /proc/model.plan: cannot be written: ")


def test_a_full_disk(miniinfer, model, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    outcome = miniinfer("build", model)
    assert outcome.code == 6
    assert outcome.err == (
        f"miniinfer: error: {model.with_suffix('.plan')}: the disk is full\n  hint: no part of the plan was left behind\n"
    )
    assert [p.name for p in model.parent.iterdir()] == ["mlp.onnx"]


def test_a_failed_build_keeps_the_old_plan(miniinfer, model, plan):
    before = plan.read_bytes()
    broken = mlp()
    broken.graph.node[1].op_type = "Frobnicate"
    onnx.save(broken, model)
    assert miniinfer("build", model).code == 3
    assert plan.read_bytes() == before

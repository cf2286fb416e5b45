"""--limit sets limits by name; a report on where nodes would run fails neither a build nor an inspection."""

import onnx
import pytest
from onnx import TensorProto, helper

from miniinfer_cli.devices import placement
from miniinfer_cli.errors import DeviceError
from tests.cli.conftest import mlp


def calling(count):
    """x [2] -> ``count`` calls of a function of four nodes -> y."""
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("d", 1)]
    nodes = [helper.make_node("Tanh", [a], [b]) for a, b in ("ab", "bc", "cd", "de")]
    function = helper.make_function("d", "F", ["a"], ["e"], nodes, opsets)
    calls = [helper.make_node("F", [f"v{i}"], [f"v{i + 1}"], domain="d") for i in range(count)]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("v0", f"v{count}"))
    return helper.make_model(helper.make_graph(calls, "g", [x], [y]), opset_imports=opsets, functions=[function], ir_version=10)


def test_the_command_line_takes_limits(tmp_path, miniinfer):
    file = tmp_path / "m.onnx"
    onnx.save(calling(6), file)
    refused = miniinfer("build", file, "--limit", "function_nodes=9", "-q")
    assert refused.code == 3 and "the limit function_nodes is 9 (the default is 50000)" in refused.err
    for wrong, said in (("nodes=1", "no limit 'nodes'"), ("function_nodes=x", "NAME=VALUE"), ("function_nodes", "NAME=VALUE")):
        outcome = miniinfer("build", file, "--limit", wrong)
        assert outcome.code == 2 and said in outcome.err
    assert miniinfer("build", file, "--limit", "function_nodes=24", "-q").code == 0
    for command in (["inspect"], ["run", "--device", "cpu", "--iterations", "1", "--duration", "0", "--warmup", "0"]):
        assert miniinfer(*command, tmp_path / "m.plan", "-q", "--limit", "inferred_nodes=5").code == 0


@pytest.mark.parametrize(
    ("error", "told"),
    [(MemoryError(), "this machine's memory ran out"), (RecursionError(), "nested too deep"),
     (DeviceError("no such thing"), "no such thing"), (KeyError("k"), "a bug in the report: KeyError")],
)  # fmt: skip
def test_a_report_fails_no_build(error, told, tmp_path, miniinfer, monkeypatch):
    def fails(*args, **kwargs):
        raise error

    file = tmp_path / "m.onnx"
    onnx.save(mlp(), file)
    monkeypatch.setattr(placement, "make_program", fails)
    for command in ("build", "inspect"):
        outcome = miniinfer(command, file if command == "build" else tmp_path / "m.plan")
        assert outcome.code == 0 and f"On a GPU: not known before a run: {told}" in outcome.out.replace("the graph is ", "")
        assert ("Traceback" in outcome.err) == isinstance(error, KeyError)
    assert (tmp_path / "m.plan").exists()

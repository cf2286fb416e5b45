"""Exit codes as docs/cli.md has them: plugins, the contents of inputs, and files that no memory is left for."""

import errno
import mmap

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import miniinfer_cli
from miniinfer_cli.errors import InputDataError, ModelError, OutOfMemoryError, UsageError
from miniinfer_cli.ops import registry

QUICK = ("--iterations", 1, "--warmup", 0, "--duration", 0)
TABLE = numpy_helper.from_array(np.ones((10, 4), np.float32), "table")


def saved(path, nodes, inputs, constants=(), domains=()):
    values = [helper.make_tensor_value_info(n, t, s) for n, t, s in inputs]
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", values, [out], constants)
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(d, 1) for d in domains)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


LOOKUPS = {
    "Gather": (["table", "ids"], [[1, 99]]),
    "GatherElements": (["table", "ids"], [[1, 2, 3, -11]]),
    "GatherND": (["table", "ids"], [[3], [10]]),
    "ScatterND": (["table", "ids", "u"], [[3], [10]]),
}


@pytest.mark.parametrize("level", [0, 2])
@pytest.mark.parametrize("op", LOOKUPS)
def test_a_token_beyond_the_vocabulary_is_a_wrong_input(miniinfer, tmp_path, op, level):
    names, ids = LOOKUPS[op]
    u = numpy_helper.from_array(np.ones((2, 4), np.float32), "u")
    ids = np.array(ids)
    node = helper.make_node(op, names, ["y"], name="emb")
    path = saved(tmp_path / "m.onnx", [node], [("ids", TensorProto.INT64, ids.shape)], [TABLE, u][: len(names) - 1])
    assert miniinfer("build", path, "-q", "--opt-level", level).code == 0
    np.save(tmp_path / "ids.npy", ids)
    outcome = miniinfer("run", tmp_path / "m.plan", *QUICK, "--input", f"ids={tmp_path / 'ids.npy'}")
    wrong = ids.reshape(-1)[-1]
    assert outcome.code == 2
    assert outcome.err.splitlines()[0] == f"miniinfer: error: node 'emb': {op} index {wrong} is outside [-10, 9]"
    with miniinfer_cli.load(tmp_path / "m.plan", "cpu") as engine:
        with pytest.raises(InputDataError) as caught:
            engine.run({"ids": ids})
        assert isinstance(caught.value, UsageError) and isinstance(caught.value, ModelError)
        engine.run({"ids": np.zeros_like(ids)})


def test_an_index_in_the_model_is_the_models_fault(miniinfer, tmp_path):
    index = numpy_helper.from_array(np.array([99]), "ids")
    node = helper.make_node("Gather", ["x", "ids"], ["y"], name="emb")
    path = saved(tmp_path / "m.onnx", [node], [("x", TensorProto.FLOAT, ["n", 4])], [index])
    assert miniinfer("build", path, "-q").code == 0
    outcome = miniinfer("run", tmp_path / "m.plan", *QUICK)
    assert (outcome.code, "Gather index 99 is outside [-1, 0]" in outcome.err) == (3, True)


@pytest.fixture
def no_memory_to_map(monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    return lambda: monkeypatch.setattr(mmap, "mmap", refuse)


def test_a_file_that_no_memory_is_left_to_map(miniinfer, plan, model, no_memory_to_map):
    no_memory_to_map()
    for command, file in (("run", plan), ("inspect", plan), ("build", model), ("inspect", model)):
        outcome = miniinfer(command, file)
        assert outcome.code == 6, command
        assert outcome.err == (
            f"miniinfer: error: {file}: there is not memory enough to map it\n"
            "  hint: raise the limit of this process (ulimit -v), or let go what else it holds\n"
        )
    with pytest.raises(OutOfMemoryError):
        miniinfer_cli.load(plan)


PLUGIN = """
import sys
from miniinfer_cli.ops import define

def infer_odd(x):
    {rule}
    return x.__class__(x.dtype, x.shape)

def odd(x):
    {reference}
    return x

define("Odd", domain="{name}", infer=infer_odd, reference=odd)
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """``plugin("name", text)``: a module that can be imported; what it registers goes again."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))

    def make(name: str, text: str):
        (tmp_path / f"{name}.py").write_text(text)
        return tmp_path / f"{name}.py"

    return make


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import nothing_of_this_name", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("raise SystemExit(7)", "{file}:1: SystemExit: 7"),
        ("\ndef (", "{file}:2: SyntaxError: "),
        ("assert False, 'no'", "{file}:1: AssertionError: no"),
    ],
)
def test_a_plugin_that_cannot_be_imported(miniinfer, model, plugin, text, said, request):
    name = f"plugin_{abs(hash(request.node.name))}"
    file = plugin(name, text)
    for command in ("build", "inspect"):
        outcome = miniinfer(command, model, "--plugin", name)
        assert outcome.code == 2
        assert outcome.err.startswith(f"miniinfer: error: --plugin {name}: {said.format(file=file)}")
        assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("rule", "reference", "line", "code"),
    [("raise KeyError('k')", "", 6, 2), ("", "raise KeyError('k')", 10, 2), ("", "int(x, 3)", 10, 2), ("", "return None", 0, 3)],
)
def test_what_a_plugins_functions_raise_is_no_bug_of_ours(miniinfer, plugin, tmp_path, rule, reference, line, code):
    name = f"odd{abs(hash((rule, reference)))}"
    file = plugin(name, PLUGIN.format(rule=rule, reference=reference, name=name))
    node = helper.make_node("Odd", ["x"], ["y"], domain=name)
    path = saved(tmp_path / "m.onnx", [node], [("x", TensorProto.FLOAT, ["n"])], domains=[name])
    outcome = miniinfer("build", path, "--plugin", name)
    if not outcome.code:
        outcome = miniinfer("run", tmp_path / "m.plan", *QUICK, "--plugin", name)
    assert outcome.code == code
    assert "Traceback" not in outcome.err
    if line:
        assert outcome.err.startswith(f"miniinfer: error: the operations of {name}: {file}:{line}: ")
        assert outcome.err.endswith("  hint: this is raised by the plugin: see docs/plugins.md\n")


def test_a_bug_of_ours_stays_one_with_a_plugin_at_hand(miniinfer, model, plugin, monkeypatch):
    plugin("beside", PLUGIN.format(rule="", reference="", name="beside"))
    monkeypatch.setattr("miniinfer_cli.cli.build.place_for_report", lambda *_: {}["a bug"])
    outcome = miniinfer("build", model, "--plugin", "beside")
    assert (outcome.code, "this is a bug in miniinfer" in outcome.err) == (70, True)

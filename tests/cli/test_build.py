"""miniinfer build: what it writes, reports, verifies and refuses."""

import json
import os
import threading

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import miniinfer_cli
from engine_format import TargetSection, read_plan
from miniinfer_cli import pipes
from miniinfer_cli.builder import targets
from miniinfer_cli.cli.report import write_json
from miniinfer_cli.devices.opening import load
from miniinfer_cli.errors import DeviceError
from miniinfer_cli.onnx_import import import_model
from miniinfer_cli.planning import thaw as thaw_module
from tests.cached_models import group_query_attention
from tests.everywhere import parsed


def test_the_report_names_every_pass_and_the_plan(miniinfer, model):
    outcome = miniinfer("build", model)
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert lines[0] == f"Model: {model}"
    assert lines[1] == "=== Passes ==="
    assert lines[2].split() == ["pass", "fired", "ms"]
    assert next(line for line in lines if line.startswith("fuse_matmul ")).split()[1] == "1"
    assert any(line.startswith("Nodes: 3 -> 2") for line in lines)
    assert lines[-1].startswith(f"Plan: {model.with_suffix('.plan')} (")


def test_passes_that_found_nothing_are_counted_unless_all_are_wanted(miniinfer, model):
    def rows(*flags):
        lines = miniinfer("build", model, *flags).out.splitlines()
        return lines[3 : next(i for i, line in enumerate(lines) if line.startswith("Nodes: "))]

    few, every = rows(), rows("--verbose")
    assert all(int(row.split()[1]) > 0 for row in few[:-1])
    assert few[-1] == f"{len(every) - len(few) + 1} passes found nothing to do (--verbose lists them)"
    assert {row.split()[0] for row in few[:-1]} == {row.split()[0] for row in every if int(row.split()[1])}
    assert rows("-v") and len(every) > 20
    none = miniinfer("build", model, "--opt-level", 0).out.splitlines()
    assert none[2] == "2 passes found nothing to do (--verbose lists them)"
    document = json.loads(miniinfer("build", model, "--json", "-").out)
    assert [p["name"] for p in document["passes"]] == [row.split()[0] for row in every]


def test_where_the_optimal_sizes_do_not_go_through_the_model_the_report_says_so(miniinfer, tmp_path):
    info = onnx.helper.make_tensor_value_info
    shape = onnx.numpy_helper.from_array(np.array([2, 3]), "s")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Reshape", ["x", "s"], ["y"])],
        "even", [info("x", onnx.TensorProto.FLOAT, ["n", 3])], [info("y", onnx.TensorProto.FLOAT, [2, 3])], [shape],
    )  # fmt: skip
    path = tmp_path / "even.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]), path)
    said = "On a GPU: not known before a run: the optimal sizes (n = 1) do not go through the model: node "
    report = miniinfer("build", path).out
    assert said in report
    assert "build with sizes that do, --opt-shapes x:nx3, to see it" in report
    assert said in miniinfer("inspect", path.with_suffix(".plan")).out
    assert json.loads(miniinfer("build", path, "--json", "-").out)["gpu"]["sizes"] == {"n": 1}
    assert "On a GPU: 1 steps" in miniinfer("build", path, "--opt-shapes", "x:2x3").out


def test_quiet_prints_nothing(miniinfer, model, tmp_path):
    outcome = miniinfer("build", model, "-o", tmp_path / "other.plan", "-q")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")
    assert (tmp_path / "other.plan").is_file()


def test_the_same_model_gives_the_same_bytes(miniinfer, model, tmp_path):
    for name in ("a", "b"):
        assert miniinfer("build", model, "-o", tmp_path / name).code == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_kernels_for_an_architecture_are_written_with_the_plan(miniinfer, tmp_path):
    model = tmp_path / "sines.onnx"  # one kernel: a product has dozens, for sizes that may come
    sizes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Sin", ["x"], ["y"])], "sines", sizes[:1], sizes[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), model)
    outcome = miniinfer("build", model, "-o", tmp_path / "tuned.plan", "--arch", "sm_90")
    assert outcome.code == 0
    (times,) = (line for line in outcome.out.splitlines() if line.startswith("Time: "))
    assert [part.split()[-3] for part in times.split(",")] == ["import", "optimize", "freeze", "compile", "write"]
    with read_plan(tmp_path / "tuned.plan") as plan:
        assert [t.arch for t in plan.targets] == ["sm_90"]


def test_kernels_that_cannot_be_compiled_leave_no_plan(miniinfer, model, tmp_path, monkeypatch):
    def refuse(*_):
        raise DeviceError("NVRTC is not found", hint="pip install it")

    monkeypatch.setattr(targets, "compile_section", refuse)
    outcome = miniinfer("build", model, "-o", tmp_path / "tuned.plan", "--arch", "sm_90")
    assert (outcome.code, outcome.err) == (5, "miniinfer: error: NVRTC is not found\n  hint: pip install it\n")
    assert not list(tmp_path.glob("tuned*"))


def test_json_report(miniinfer, model):
    document = json.loads(miniinfer("build", model, "--json", "-").out)
    assert document["nodes_before"] == 3
    assert document["plan_bytes"] == model.with_suffix(".plan").stat().st_size
    assert {p["name"] for p in document["passes"]} >= {"fold_constants", "fuse_matmul"}
    assert list(document["seconds"]) == ["import", "optimize", "freeze", "write"]
    assert document["verification"] is None


def test_marked_outputs_are_returned(miniinfer, model):
    assert miniinfer("build", model, "--mark-output", "hidden", "-q").code == 0
    with miniinfer_cli.load(model.with_suffix(".plan"), "cpu") as engine:
        outputs = engine.run({"x": np.ones((2, 4), np.float32)})
    assert [(n, a.shape) for n, a in outputs.items()] == [("y", (2, 3)), ("r", (2, 8))]
    assert outputs["r"].min() >= 0


def test_start_at_a_value(miniinfer, model):
    """What leads to it is left out; --verify compares with ONNX Runtime on the same part."""
    outcome = miniinfer("build", model, "--start-at", "r:f32[n,8]", "--verify")
    assert outcome.code == 0, outcome.err
    assert "Verification against onnxruntime" in outcome.out
    with miniinfer_cli.load(model.with_suffix(".plan"), "cpu") as engine:
        assert [(b.name, str(b.type)) for b in engine.inputs] == [("r", "f32[n,8]")]
    outcome = miniinfer("build", model, "--start-at", "s:f32[n,8]")
    assert (outcome.code, "--start-at: nothing in the model is named 's'" in outcome.err) == (2, True)


def test_fixed_shapes(miniinfer, model):
    assert miniinfer("build", model, "--shapes", "x:5x4", "-q").code == 0
    with miniinfer_cli.load(model.with_suffix(".plan"), "cpu") as engine:
        assert [b.shape for b in (*engine.inputs, *engine.outputs)] == [(5, 4), (5, 3)]


def test_ranges_are_kept_in_the_plan(miniinfer, model):
    flags = ("--min-shapes", "x:1x4", "--opt-shapes", "x:8x4", "--max-shapes", "x:16x4")
    report = miniinfer("build", model, *flags, "--json", "-")
    assert (report.code, json.loads(report.out)["dimensions"]) == (0, {"batch": {"min": 1, "opt": 8, "max": 16}})
    plan = model.with_suffix(".plan")
    with read_plan(plan) as opened:
        assert [(r.name, r.minimum, r.optimum, r.maximum) for r in opened.ranges] == [("batch", 1, 8, 16)]
    assert "Dimension: batch: 1 to 16, tuned for 8\n" in miniinfer("inspect", plan).out
    assert "x: f32[batch,4] <- 8x4" in miniinfer("run", plan, "--duration", 0).out
    outcome = miniinfer("run", plan, "--shapes", "x:17x4", "--duration", 0)
    assert outcome.code == 2
    assert (
        "axis 0 (batch) is 17, above 16, the largest of the plan\n  hint: build the plan with larger --max-shapes" in outcome.err
    )


def test_optimal_sizes_alone_lock_nothing(miniinfer, model):
    report = miniinfer("build", model, "--opt-shapes", "x:8x4")
    assert "Dimension: batch: any size, tuned for 8\n" in report.out
    plan = model.with_suffix(".plan")
    assert "x: f32[batch,4] <- 8x4" in miniinfer("run", plan, "--duration", 0).out
    assert miniinfer("run", plan, "--shapes", "x:3x4", "--duration", 0).code == 0
    document = json.loads(miniinfer("inspect", plan, "--json", "-").out)
    assert document["dimensions"] == {"batch": {"min": 0, "opt": 8, "max": None}}


def test_a_smallest_size_alone_has_no_largest(miniinfer, model):
    assert "Dimension: batch: 2 or more, tuned for 2\n" in miniinfer("build", model, "--min-shapes", "x:2x4").out
    plan = model.with_suffix(".plan")
    assert miniinfer("run", plan, "--shapes", "x:300x4", "--duration", 0).code == 0
    outcome = miniinfer("run", plan, "--shapes", "x:1x4", "--duration", 0)
    assert outcome.code == 2
    assert (
        "axis 0 (batch) is 1, below 2, the smallest of the plan\n  hint: build the plan with smaller --min-shapes" in outcome.err
    )


def test_dimensions_without_bounds_are_listed_too(miniinfer, model):
    assert "Dimension: batch: any size, tuned for 1\n" in miniinfer("build", model).out
    document = json.loads(miniinfer("inspect", model.with_suffix(".plan"), "--json", "-").out)
    assert document["dimensions"] == {"batch": {"min": 0, "opt": 1, "max": None}}


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_every_level_gives_the_same_numbers(miniinfer, model, level):
    outcome = miniinfer("build", model, "--opt-level", level, "--verify")
    assert outcome.code == 0


def test_a_disabled_pass_does_not_run(miniinfer, model):
    outcome = miniinfer("build", model, "--disable-pass", "fuse_matmul")
    assert outcome.code == 0
    assert not any(line.startswith("fuse_matmul ") for line in outcome.out.splitlines())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--disable-pass", "nope"), "there is no pass called 'nope'\n  hint: passes are: "),
        (("--opt-level", "4"), "Invalid value for '--opt-level': 4 is not in the range 0<=x<=3."),
        (("--shapes", "x"), "Invalid value for '--shapes': 'x' is not of the form name:1x3x224x224"),
        (("--shapes", "x:1x"), "'x:1x' is not of the form name:1x3x224x224"),
        (("--shapes", "x:1x4", "--shapes", "x:2x4"), "--shapes: input 'x' is given twice"),
        (("--shapes", "z:1x4"), "--shapes z:1x4: there is no input 'z'\n  hint: the inputs are x"),
        (("--shapes", "x:1x5"), "--shapes x:1x5: axis 1 is 5, but the input is f32[batch,4]"),
        (("--min-shapes", "x:9x4", "--max-shapes", "x:2x4"), "dimension 'batch': 9 (min), 2 (max) are not in order"),
        (("--mark-output", "nope"), "nope"),
        (("--plugin", "no_such_module"), "--plugin no_such_module: ModuleNotFoundError: No module named 'no_such_module'"),
        (("--input", "x"), "'x' is not of the form name=file"),
        (("--shapes", f"x:{1 << 62}x4"), f"x: an input has {1 << 50} elements at most, got {1 << 62}x4"),
        (("--shapes", "x:" + "9" * 5000), f"x: an input has {1 << 50} elements at most, got 9999"),
        (("--verify", "--seed", "-1"), "Invalid value for '--seed': -1 is not in the range x>=0."),
    ],
)
def test_wrong_flags_are_usage_errors(miniinfer, model, flags, message):
    outcome = miniinfer("build", model, *flags)
    assert outcome.code == 2
    assert message in outcome.err


def test_a_plan_does_not_overwrite_its_model(miniinfer, model):
    before = model.read_bytes()
    outcome = miniinfer("build", model, "-o", model.parent / "." / model.name)
    assert outcome.code == 2
    assert outcome.err.endswith(": --output would overwrite the file that is read\n  hint: give another file by --output\n")
    assert miniinfer("build", model, "-q", "--json", model).code == 2
    assert model.read_bytes() == before


@pytest.mark.parametrize("folder", ["", ".", "..", "/"])
def test_a_folder_is_no_model(miniinfer, folder):
    outcome = miniinfer("build", folder)
    assert outcome.code == 2
    assert outcome.err == f"miniinfer: error: {folder or '.'!r} is a folder, not a model\n  hint: give the .onnx file inside it\n"


def test_infinite_errors_are_null_in_json(tmp_path):
    write_json(tmp_path / "x.json", {"a": [float("inf"), float("nan"), 1.5], "b": {"c": (float("-inf"), 2)}})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": [None, None, 1.5], "b": {"c": [None, 2]}}


@pytest.fixture
def piped(tmp_path):
    """Gives the path of a pipe out of which the contents of a file will come."""
    os.mkfifo(tmp_path / "pipe")
    writers = []

    def write(path):
        writers.append(threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(path.read_bytes())))
        writers[-1].start()
        return tmp_path / "pipe"

    yield write
    for writer in writers:
        writer.join()


def test_a_model_comes_through_a_pipe(miniinfer, model, piped, tmp_path):
    outcome = miniinfer("build", piped(model), "-o", tmp_path / "a.plan", "--verify")
    assert (outcome.code, outcome.err) == (0, "")
    outcome = miniinfer("inspect", piped(model))
    assert (outcome.code, outcome.err) == (0, "")
    assert import_model(piped(model)).outputs


def test_what_a_pipe_cannot_be(miniinfer, model, plan, piped, tmp_path, monkeypatch):
    target = ("-o", tmp_path / "b.plan")
    for contents, command, flags, code, message in (
        (model, "build", (), 2, "the model comes through a pipe, so the plan needs a name\n  hint: give -o FILE\n"),
        (plan, "inspect", (), 4, "a plan cannot be read through a pipe\n  hint: give its file\n"),
        (plan, "build", target, 3, "not an ONNX model"),
    ):
        outcome = miniinfer(command, piped(contents), *flags)
        assert (outcome.code, message in outcome.err) == (code, True), outcome.err
    monkeypatch.setattr(pipes, "_WAIT_S", 0.01)
    outcome = miniinfer("build", tmp_path / "pipe", *target)
    assert (outcome.code, "nobody opened this pipe for writing within" in outcome.err) == (2, True)
    outcome = miniinfer("run", tmp_path / "pipe")
    assert (outcome.code, "cannot be read: not a regular file\n" in outcome.err) == (4, True)


@pytest.mark.parametrize(("flags", "times"), [((), 0), (("--arch", "sm_90"), 0), (("--verify",), 1)])
def test_a_build_keeps_its_graph(miniinfer, tmp_path, monkeypatch, flags, times):
    """Only the engine that --verify opens reads the graph back from the plan, since that is what it is to verify."""
    graph = helper.make_graph(
        [helper.make_node("Sin", ["x"], ["y"])],
        "sines",
        *([helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"])] for name in "xy"),
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    monkeypatch.setattr(targets, "compile_section", lambda graphs, types, arch: TargetSection(f"sm_{arch}"))
    thawed = []
    read = thaw_module._Thawer.graph
    monkeypatch.setattr(thaw_module._Thawer, "graph", lambda self, *a: (thawed.append(self), read(self, *a))[1])
    assert miniinfer("build", tmp_path / "m.onnx", *flags).code == 0
    assert len(set(thawed)) == times


def test_states_leave_the_interface(miniinfer, tmp_path):
    text = "g (float[n,2] x, float[n,2] h) => (float[n,2] y, float[n,2] hn) { hn = Add(x, h) y = Relu(hn) }"
    onnx.save(parsed(text), tmp_path / "s.onnx")
    outcome = miniinfer("build", tmp_path / "s.onnx", "-o", tmp_path / "s.plan", "--state", "h:hn", "--verify")
    assert (outcome.code, "Verdict: verified" in outcome.out) == (0, True), outcome.err
    with read_plan(tmp_path / "s.plan") as plan, load(plan, "cpu") as engine:
        assert [b.name for b in (*engine.inputs, *engine.outputs)] == ["x", "y"]
    for command in (["run", "--iterations", "3", "--duration", "0"], ["profile", "--iterations", "3", "--duration", "0"]):
        assert miniinfer(command[0], tmp_path / "s.plan", *command[1:]).code == 0
    outcome = miniinfer("build", tmp_path / "s.onnx", "--state", "h:y:hn")
    assert (outcome.code, "--state h:y:hn: expected INPUT:OUTPUT" in outcome.err) == (2, True)


def test_caches_of_a_decoder(miniinfer, tmp_path):
    onnx.save(group_query_attention(), tmp_path / "d.onnx")
    outcome = miniinfer("build", tmp_path / "d.onnx", "-o", tmp_path / "d.plan", "--kv-cache", "24", "--verify")
    assert (outcome.code, "Verdict: verified" in outcome.out) == (0, True), outcome.err
    assert "'attention_mask' follows from the lengths of the caches" in outcome.out
    for command in ("run", "profile"):
        outcome = miniinfer(command, tmp_path / "d.plan", "--shapes", "input_ids:2x5", "--iterations", "3", "--duration", "0")
        assert outcome.code == 0, outcome.err
    outcome = miniinfer("run", tmp_path / "d.plan", "--shapes", "input_ids:1x25", "--iterations", "3", "--duration", "0")
    assert (outcome.code, "or build the plan with a larger --kv-cache" in outcome.err) == (2, True)
    outcome = miniinfer("build", tmp_path / "d.onnx", "--kv-cache", "100")
    assert (outcome.code, "--kv-cache 100: the model knows positions for 64 tokens" in outcome.err) == (2, True)

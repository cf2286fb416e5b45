"""The command in a process of its own: what it loads, how it is interrupted, and where its output goes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper


def python(*args: object, **kwargs: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *map(str, args)], capture_output=True, text=True, timeout=120, check=False, **kwargs)


def loaded_by(code: str) -> set[str]:
    result = python("-c", f"{code}\nimport sys; print(' '.join(sys.modules))")
    assert result.returncode == 0, result.stderr
    return set(result.stdout.splitlines()[-1].split())


def test_importing_the_package_loads_nothing_heavy():
    loaded = loaded_by("import miniinfer_cli")
    assert loaded.isdisjoint({"numpy", "onnx", "click", "rich", "msgpack", "google", "miniinfer_cli.ops", "engine_format"})


def test_run_loads_neither_onnx_nor_a_pass_nor_a_lowering_for_gpus(plan):
    arguments = ["run", str(plan), "--device", "cpu", "--duration", "0", "-q"]
    code = (
        f"from miniinfer_cli.cli.main import main\ntry:\n    main({arguments})\n"
        "except SystemExit as ended:\n    assert not ended.code"
    )
    loaded = loaded_by(code)
    assert "miniinfer_cli.runtime.engine" in loaded
    assert not [m for m in loaded if m.split(".")[0] in ("onnx", "google", "cuda", "rich", "ml_dtypes", "onnxruntime")]
    assert not [m for m in loaded if m.startswith(("miniinfer_cli.passes", "miniinfer_cli.onnx_import", "miniinfer_cli.builder"))]
    assert not [m for m in loaded if m.startswith(("miniinfer_cli.backends.cuda.tactics", "miniinfer_cli.devices.placement"))]


def test_little_is_loaded_before_interruptions_are_handled():
    loaded = loaded_by("import miniinfer_cli.cli.main") - loaded_by("pass")
    ours = {m for m in loaded if m.startswith("miniinfer_cli.")}
    assert ours == {f"miniinfer_cli.{m}" for m in ("version", "cli", "cli.main", "cli.interruption")}
    assert loaded.isdisjoint({"click", "dataclasses", "inspect", "pathlib", "threading", "traceback", "typing"})


def test_the_module_and_the_script_are_the_same_command(plan):
    by_module = python("-m", "miniinfer_cli", "--version")
    script = Path(sys.executable).with_name("miniinfer")
    by_script = subprocess.run([script, "--version"], capture_output=True, text=True, check=False)
    assert (by_module.returncode, by_script.returncode) == (0, 0)
    assert by_module.stdout == by_script.stdout
    assert by_module.stdout.startswith("miniinfer, version ")


def test_a_reader_that_goes_away_is_no_error(plan):
    for words, reader in (("inspect --graph", "head -n 1"), ("inspect --json -", "true"), ("run --duration 0", "grep -q Plan")):
        command = f"set -o pipefail; {sys.executable} -m miniinfer_cli {words} {plan} | {reader}"
        result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
        assert (result.returncode, result.stderr) == (0, ""), words


def shell(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, shell=True, capture_output=True, text=True, timeout=120, check=False)


def test_a_full_disk_behind_standard_output(plan):
    for words in (f"inspect {plan}", f"run {plan} --duration 0 --json -", "--help"):
        result = shell(f"{sys.executable} -m miniinfer_cli {words} > /dev/full")
        assert (result.returncode, result.stderr) == (
            6,
            "miniinfer: error: standard output: the disk is full\n  hint: free space on that disk, or give a path on another\n",
        ), words


def test_a_file_behind_standard_output_that_may_not_grow(plan, tmp_path):
    command = f"ulimit -f 0; {sys.executable} -m miniinfer_cli inspect {plan}"
    result = shell(f"{command} > {tmp_path / 'out'}")
    told = "miniinfer: error: standard output: cannot be written: File too large\n  hint: raise the limit on the size of files"
    assert (result.returncode, result.stderr[: len(told)]) == (2, told)
    # Nor may standard error: the code is all that is left.
    result = shell(f"{command} > {tmp_path / 'out'} 2>&1")
    assert (result.returncode, result.stderr) == (2, "")


def test_standard_output_may_be_closed(plan):
    result = shell(f"{sys.executable} -m miniinfer_cli run {plan} --duration 0 >&-")
    assert (result.returncode, result.stderr) == (0, "")
    result = shell(f"{sys.executable} -m miniinfer_cli run {plan} --frobnicate <&- >&- 2>&-")
    assert (result.returncode, result.stderr) == (2, "")


def test_without_a_command_there_is_help_and_a_usage_error():
    result = python("-m", "miniinfer_cli")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("Usage: miniinfer [OPTIONS] COMMAND [ARGS]...\n")


@pytest.fixture
def large_model(tmp_path) -> Path:
    """A model whose plan takes a while to write: 720 MB of weights in a file of their own."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[60_000, 3_000], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="w.bin")
    with (tmp_path / "w.bin").open("wb") as file:
        file.truncate(720_000_000)
        file.write(np.random.default_rng(0).bytes(1 << 20))
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("Add", ["y", "b"], ["z"])],
        "large",
        [value("x", TensorProto.FLOAT, [1, 60_000])],
        [value("z", TensorProto.FLOAT, [1, 3_000])],
        [tensor, numpy_helper.from_array(np.ones(3_000, np.float32), "b")],
    )
    path = tmp_path / "large.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


@pytest.mark.parametrize(("number", "code", "told"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")])
def test_an_interrupted_build_leaves_nothing_half_written(large_model, number, code, told):
    process = subprocess.Popen(
        [sys.executable, "-m", "miniinfer_cli", "build", str(large_model)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    folder = large_model.parent
    until = time.monotonic() + 60
    while not list(folder.glob(".miniinfer-*")):  # interrupt it while the plan is being written
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.002)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert err.strip() == f"miniinfer: {told}"
    assert sorted(p.name for p in folder.iterdir()) == ["large.onnx", "w.bin"]


def test_an_interrupted_run_ends_at_once(plan):
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "miniinfer_cli", "run", str(plan), "--duration", "100", "--streams", "2"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    while not process.stdout.readline().startswith("Output"):
        pass
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err.strip()) == (130, "miniinfer: interrupted")


def test_a_plugin_defines_an_operation(tmp_path):
    (tmp_path / "snake_plugin.py").write_text(
        "import numpy as np\n"
        "from miniinfer_cli.ir import TensorType\n"
        "from miniinfer_cli.ops import define\n"
        "def infer_snake(x, *, a=1.0):\n    return TensorType(x.dtype, x.shape)\n"
        "def snake(x, *, a=1.0):\n    return (x + np.sin(a * x) ** 2 / a).astype(x.dtype)\n"
        "define('Snake', domain='MyDomain', infer=infer_snake, reference=snake, pointwise=True)\n"
    )
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Snake", ["x"], ["h"], domain="MyDomain", a=2.0), helper.make_node("Relu", ["h"], ["y"])],
        "plugged", [value("x", TensorProto.FLOAT, ["n"])], [value("y", TensorProto.FLOAT, ["n"])],
    )  # fmt: skip
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("MyDomain", 1)]
    onnx.save(helper.make_model(graph, opset_imports=imports), tmp_path / "m.onnx")
    x = np.linspace(-3, 3, 7).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = ["-m", "miniinfer_cli"]
    without = python(*command, "build", tmp_path / "m.onnx", env=environment)
    assert without.returncode == 3
    assert "MyDomain::Snake is not known\n  hint: give its meaning by --plugin MODULE" in without.stderr
    built = python(*command, "build", tmp_path / "m.onnx", "--plugin", "snake_plugin", "--verify", env=environment)
    assert built.returncode == 0, built.stderr
    flags = ("--plugin", "snake_plugin", "--input", f"x={tmp_path / 'x.npy'}", "--output", tmp_path / "y.npz", "--duration", 0)
    ran = python(*command, "run", tmp_path / "m.plan", *flags, env=environment)
    assert ran.returncode == 0, ran.stderr
    with np.load(tmp_path / "y.npz") as saved:
        assert np.allclose(saved["y"], np.maximum(x + np.sin(2 * x) ** 2 / 2, 0), rtol=1e-6)


def test_names_that_the_terminal_cannot_show_are_no_failure(tmp_path):
    value = helper.make_tensor_value_info
    inputs, outputs = [value("größe", TensorProto.FLOAT, [1])], [value("y", TensorProto.FLOAT, [1])]
    graph = helper.make_graph([helper.make_node("Relu", ["größe"], ["y"])], "g", inputs, outputs)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    result = python("-m", "miniinfer_cli", "inspect", tmp_path / "m.onnx", env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert (result.returncode, result.stderr) == (0, "")
    assert "Input: gr\\xf6\\xdfe: f32[1]" in result.stdout

"""``miniinfer ort-shim``: a program, and what it starts, sees miniinfer as onnxruntime; nobody else does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from miniinfer_cli.cli import ort_shim
from miniinfer_cli.cli.ort_shim import program_of, shimmed
from miniinfer_cli.errors import UsageError
from miniinfer_cli.ort_shim import SITE
from miniinfer_cli.version import ONNXRUNTIME

ROOT = Path(__file__).parents[2]

PROGRAM = """
import importlib.metadata, importlib.util, json, multiprocessing, subprocess, sys

def child(_):
    import onnxruntime
    return onnxruntime.__name__

if __name__ == "__main__":
    loaded = [m for m in sys.modules if m.startswith("miniinfer_cli")]
    told = {
        "before": loaded,
        "spec": importlib.util.find_spec("onnxruntime").name,
        "metadata": importlib.metadata.version("onnxruntime"),
        "name": importlib.metadata.distribution("OnnxRuntime").metadata["Name"],
        "numpy": importlib.metadata.version("numpy") != "",
    }
    import onnxruntime
    import onnxruntime.capi.onnxruntime_pybind11_state as state
    from onnxruntime.capi import _pybind_state
    from onnxruntime.capi.onnxruntime_inference_collection import InferenceSession
    import miniinfer_cli.ort
    told["same"] = onnxruntime is miniinfer_cli.ort and state.Fail is _pybind_state.Fail
    told["session"] = InferenceSession is onnxruntime.InferenceSession
    told["own spec"] = onnxruntime.__spec__.name
    told["refused"] = []
    lines = ("import onnxruntime.quantization", "from onnxruntime.transformers import optimizer", "import onnxruntime.nothing")
    for line in (*lines, "from onnxruntime import ModelCompiler"):
        try:
            exec(line)
        except ImportError as error:
            told["refused"].append(str(error))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        told["spawned"] = pool.map(child, [0])[0]
    code = "import onnxruntime; print(onnxruntime.__name__)"
    told["subprocess"] = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    told["other sitecustomize"] = hasattr(sys, "customized")
    told["path"] = [p for p in sys.path if "ort_shim" in p]
    told["arguments"] = sys.argv[1:]
    print(json.dumps(told))
    sys.exit(7)
"""


def test_a_program_and_what_it_starts_see_miniinfer(tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text("import sys\nsys.customized = True\n")
    (tmp_path / "app.py").write_text(PROGRAM)
    path = os.pathsep.join(map(str, (tmp_path / "site", ROOT)))
    line = [sys.executable, "-m", "miniinfer_cli", "ort-shim", "--", sys.executable, str(tmp_path / "app.py"), "--flag", "-x"]
    ended = subprocess.run(line, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, check=False)
    assert (ended.returncode, ended.stderr) == (7, "")
    told = json.loads(ended.stdout)
    refused = told.pop("refused")
    assert told == {
        "before": [],
        "spec": "onnxruntime",
        "metadata": ONNXRUNTIME,
        "name": "onnxruntime",
        "numpy": True,
        "same": True,
        "session": True,
        "own spec": "miniinfer_cli.ort",
        "spawned": "miniinfer_cli.ort",
        "subprocess": "miniinfer_cli.ort",
        "other sitecustomize": True,
        "path": [],
        "arguments": ["--flag", "-x"],
    }
    assert "no onnxruntime.quantization\n  hint: " in refused[0]
    assert "no onnxruntime.transformers\n  hint: " in refused[1]
    assert refused[2] == "No module named 'onnxruntime.nothing'"
    assert "no ModelCompiler\n  hint: " in refused[3]


def test_where_miniinfer_is_not_installed_the_import_says_so(tmp_path):
    code = (
        "import sys\n"
        f"sys.path[:] = [p for p in sys.path if p != {str(ROOT)!r} and 'site-packages' not in p]\n"
        "sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in getattr(f, '__module__', '')]\n"
        "import onnxruntime"
    )
    line = [sys.executable, "-P", "-c", code]
    ended = subprocess.run(line, capture_output=True, text=True, env=shimmed(os.environ), cwd=tmp_path, check=False)
    assert ended.returncode == 1
    told = (
        f"miniinfer is not installed in the Python that runs this program, {sys.executable}: there is no miniinfer_cli\n  hint: "
    )
    assert told in ended.stderr


def test_where_only_the_source_of_miniinfer_is_there_the_import_says_what_lacks(tmp_path):
    """As in a checkout, by a Python that the packages are not installed in."""
    (tmp_path / "miniinfer_cli").mkdir()
    (tmp_path / "miniinfer_cli" / "__init__.py").write_text("")
    (tmp_path / "miniinfer_cli" / "ort.py").write_text("import a_package_that_nobody_has\n")
    code = f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nimport onnxruntime"
    line = [sys.executable, "-P", "-c", code]
    ended = subprocess.run(line, capture_output=True, text=True, env=shimmed(os.environ), cwd=tmp_path, check=False)
    assert ended.returncode == 1
    assert f"{sys.executable}: there is no a_package_that_nobody_has\n  hint: " in ended.stderr


def test_the_process_that_compares_with_onnxruntime_has_onnxruntime():
    line = [sys.executable, "-c", "import onnxruntime; print(onnxruntime.__name__)", "miniinfer_cli.onnxruntime_process"]
    ended = subprocess.run(line, capture_output=True, text=True, env=shimmed(os.environ), check=True)
    assert ended.stdout.strip() == "onnxruntime"


def test_programs(tmp_path, monkeypatch):
    app = tmp_path / "app.py"
    app.touch()
    assert program_of([str(app), "-a"]) == [sys.executable, str(app), "-a"]
    assert program_of(["-m", "a.b", "--c"]) == [sys.executable, "-m", "a.b", "--c"]
    assert program_of(["sh", "-c", "ls"])[1:] == ["-c", "ls"]
    assert Path(program_of(["sh"])[0]).is_absolute()
    for words in ([], ["no-such-program"], ["nowhere.py"]):
        with pytest.raises(UsageError, match="there is no program"):
            program_of(words)


def test_the_path_begins_with_the_folder_once():
    assert shimmed({"A": "b"}) == {"A": "b", "PYTHONPATH": str(SITE)}
    once = shimmed({"PYTHONPATH": f"/a{os.pathsep}/b"})
    assert once["PYTHONPATH"].split(os.pathsep) == [str(SITE), "/a", "/b"]
    assert shimmed(once) == once


def test_the_command_takes_the_place_of_the_process(monkeypatch):
    calls = []
    monkeypatch.setattr(ort_shim.os, "execve", lambda *args: calls.append(args))
    ort_shim.command.main(["--", "sh", "-c", "ls", "--help"], standalone_mode=False)
    ((path, words, environment),) = calls
    assert words == [path, "-c", "ls", "--help"]
    assert environment["PYTHONPATH"].startswith(str(SITE))

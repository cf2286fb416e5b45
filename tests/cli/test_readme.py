"""The README: its commands run, its Python runs on both devices, its sample output is what comes, its figures are recorded."""

import re
import shlex
from pathlib import Path
from unittest import mock

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import miniinfer_cli
from miniinfer_cli.devices import opening
from tests.emulation.engine import load_emulated

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
_, USE = README.split("## Use\n")
COMMANDS = re.search(r"```\n(.*?)```", USE, re.S).group(1).splitlines()
PYTHON, BATCHER = re.findall(r"```python\n(.*?)```", README, re.S)
SAMPLE = next(b for b in re.findall(r"```\n(.*?)```", README, re.S) if "=== Performance summary ===" in b)


def image_model(path: Path, size: int) -> None:
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])], "images",
        [info("x", TensorProto.FLOAT, ["n", 3, size, size])], [info("y", TensorProto.FLOAT, ["n", 3, size, size])],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def test_the_commands_run(miniinfer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image_model(Path("model.onnx"), 4)
    names = ("build", "build", "run", "profile", "profile", "compare", "tune", "inspect", "devices", "trtexec")
    assert [c.split()[:2] for c in COMMANDS] == [["miniinfer", name] for name in names]
    for command in COMMANDS:
        words = shlex.split(command)[1:]
        short = ["--iterations", "9", "--duration", "0", "--warmup", "0"] if words[0] in ("run", "profile") else []
        short = ["--iterations=9", "--duration=0", "--warmUp=0"] if words[0] == "trtexec" else short
        outcome = miniinfer(*words, *short)
        if words[0] == "tune":  # takes a GPU
            assert (outcome.code, "GPU" in outcome.err) == (5, True), outcome.err
        else:
            assert outcome.code == 0, outcome.err
    assert Path("summary.json").is_file()


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_the_python_runs(tmp_path, monkeypatch, device):
    monkeypatch.chdir(tmp_path)
    image_model(Path("model.onnx"), 8)
    array = np.linspace(-1, 1, 8 * 3 * 8 * 8, dtype=np.float32).reshape(8, 3, 8, 8)
    names = {"array": array, "arrays": [array[:2], array, array[:3]]}
    if device == "cpu":
        exec(PYTHON.replace("224", "8").replace('load("model.plan")', 'load("model.plan", "cpu")'), names)
    else:
        with mock.patch.object(opening, "load_model", load_emulated()):
            exec(PYTHON.replace("224", "8"), names)
    assert np.array_equal(names["outputs"]["y"], np.maximum(array, 0))
    assert names["buffer"].shape == array.shape


def test_the_python_of_the_batcher_runs(tmp_path):
    image_model(tmp_path / "model.onnx", 8)
    miniinfer_cli.build(tmp_path / "model.onnx", tmp_path / "model.plan")
    array = np.linspace(-1, 1, 2 * 3 * 8 * 8, dtype=np.float32).reshape(2, 3, 8, 8)
    with miniinfer_cli.load(tmp_path / "model.plan", "cpu") as engine:
        names = {"miniinfer_cli": miniinfer_cli, "engine": engine, "array": array}
        exec(BATCHER.replace("deadline_s=0.05", "deadline_s=60"), names)
    assert np.array_equal(names["outputs"]["y"], np.maximum(array[:1], 0))


def test_the_sample_output_is_what_comes(miniinfer, tmp_path, monkeypatch):
    """Line by line, but for the figures and for what is left out; the pictures are of the demo's own."""
    monkeypatch.chdir(ROOT)
    plan = tmp_path / "digits.plan"
    said = miniinfer("build", "sample_models/digits.onnx", "-o", plan).out
    said += miniinfer(
        "run", plan, "--device", "cpu", "--input", "image=sample_models/digits_test.npz", "--iterations", 2, "--duration", 0
    ).out
    said = said.replace(str(plan), "sample_models/generated/digits.plan")
    come = [_without_figures(line) for line in said.splitlines()]
    shown = [line for line in SAMPLE.partition("    --##")[0].splitlines() if line not in ("", "...") and line[0] != "$"]
    assert len(shown) > 20
    places = []
    for line in shown:
        whole, *cut = _without_figures(line).split(", ...")
        matching = [n for n, c in enumerate(come) if c == whole or (cut and c.startswith(whole))]
        assert matching, f"{line!r} does not come"
        places.append(matching[0])
    assert places == sorted(places)
    assert places[:-6] == list(range(len(places) - 6)), "the report of the build is whole"


def _without_figures(line: str) -> str:
    """How many passes there are that find nothing is a figure as well: each new pass is one more."""
    return re.sub(r"\s+", " ", re.sub(r"\d+\.\d+|^\d+(?= passes found nothing)", "#", line))


def test_every_measured_figure_is_in_the_record_that_it_names():
    bullets = re.split(r"\n- ", README.partition("## What it does\n")[2].partition("\n## ")[0])
    measured = 0
    for bullet in bullets:
        figures = re.findall(r"\b\d+\.\d+\b|\b\d+(?= to \d+ GB/s| GB/s| MB\b| networks\b| times\b)", bullet)
        if not figures:
            continue
        records = [ROOT / name for name in re.findall(r"\]\(([\w/.-]+\.md)(?:#[\w-]+)?\)", bullet)]
        assert records, f"no record is named: {bullet}"
        text = "\n".join(r.read_text() for r in records)
        for figure in figures:
            assert re.search(rf"(?<![\d.]){re.escape(figure)}(?![\d.]*\d)", text), f"{figure} is not in {records}"
            measured += 1
    assert measured >= 14


def test_links_of_the_papers_lead_somewhere():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for link in re.findall(r"\]\(([^)#:]+?)(?:#[\w-]*)?\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"

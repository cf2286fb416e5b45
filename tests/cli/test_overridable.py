"""miniinfer build --overridable: what the commands show of an input with a default, and take for it."""

import json

import numpy as np
import onnx
import pytest

from miniinfer_cli.errors import UsageError
from miniinfer_cli.wording import as_flags
from tests.test_overridable import V, overridable_model


@pytest.fixture
def file(tmp_path):
    onnx.save(overridable_model(), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_the_command_line(miniinfer, file, tmp_path):
    np.save(tmp_path / "v.npy", V)
    plan = file.with_suffix(".plan")
    outcome = miniinfer("build", file)
    assert "Note: 2 inputs have initializers and are taken as constants; --overridable NAME" in outcome.out
    quick = ("--iterations", 1, "--duration", 0, "--warmup", 0)
    outcome = miniinfer("run", plan, "--input", f"w={tmp_path / 'v.npy'}", *quick)
    assert outcome.code == 2
    assert outcome.err.endswith("build the plan with --overridable w\n")
    outcome = miniinfer(
        "build", file, "--overridable", "w", "--overridable", "s", "--verify", "--input", f"w={tmp_path / 'v.npy'}"
    )
    assert outcome.code == 0
    assert "Note: 2 inputs" not in outcome.out
    shown = miniinfer("inspect", plan)
    assert "Input: w: f32[3] (optional: the plan holds a default)" in shown.out.splitlines()
    inputs = json.loads(miniinfer("inspect", plan, "--json", "-").out)["inputs"]
    assert [(i["name"], i["optional"]) for i in inputs] == [("x", False), ("w", True), ("s", True)]
    for given in ((), ("--input", f"w={tmp_path / 'v.npy'}")):
        outcome = miniinfer("run", plan, *given, *quick, "--output", tmp_path / "y.npz", "--json", tmp_path / "r.json")
        assert outcome.code == 0, outcome.err
        sources = {i["name"]: i["source"] for i in json.loads((tmp_path / "r.json").read_text())["inputs"]}
        assert (sources["x"], sources["s"], sources["w"]) == (
            "random",
            "default",
            str(tmp_path / "v.npy") if given else "default",
        )
        (y,) = np.load(tmp_path / "y.npz").values()
        assert (y > 5).all() == bool(given)
    outcome = miniinfer("build", file, "--overridable", "wieght")
    assert (outcome.code, outcome.out) == (2, "")
    assert (
        outcome.err
        == f"miniinfer: error: --overridable: nothing in the model is named 'wieght'\n  hint: {as_flags(UsageError.way_out)}\n"
    )

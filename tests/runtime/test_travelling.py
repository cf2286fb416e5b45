"""Plans and engines in other processes: they travel as path, digest and options, and are opened anew."""

import copy
import dataclasses
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import miniinfer_cli
from engine_format import BuildReport, PlanError, TargetSection, read_plan, write_plan
from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.errors import DeviceError, PlanFileError, UsageError
from tests.emulation.engine import plan_of

ROOT = Path(__file__).parents[2]
DOUBLE = "graph main(x: f32[n,3]) {\n  y = Add(x, x)\n  return y\n}"
NEGATED = DOUBLE.replace("Add(x, x)", "Neg(x)")
X = np.arange(3, dtype=np.float32).reshape(1, 3)


@pytest.fixture
def path(tmp_path):
    write_plan(plan_of(DOUBLE), tmp_path / "m.plan")
    return tmp_path / "m.plan"


def test_an_engine_is_opened_in_another_process_with_its_options(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    with miniinfer_cli.load("m.plan", "cpu", threads=3, limits={"image_pixels": 7}) as engine:
        sent = pickle.dumps(engine)
        assert len(sent) < 2000
    script = (
        "import pickle, sys, numpy; engine = pickle.loads(sys.stdin.buffer.read());"
        " print(engine.run({'x': numpy.ones((1, 3), 'f')})['y'].tolist(), engine.device,"
        " engine.model.facts()['threads'], engine.plan.path)"
    )
    ended = subprocess.run([sys.executable, "-c", script], input=sent, capture_output=True, timeout=60, cwd=ROOT)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert ended.stdout.decode().strip() == f"[[2.0, 2.0, 2.0]] cpu 3 {path}"


def test_an_engine_that_came_is_closed_with_its_file(path):
    with miniinfer_cli.load(path, "cpu") as engine, pickle.loads(pickle.dumps(engine)) as other:
        assert other.plan.digest == engine.plan.digest
        np.testing.assert_array_equal(other.run({"x": X})["y"], 2 * X)
    with pytest.raises(ValueError, match="closed"):
        other.plan.file.fileno()


def test_another_plan_at_the_path_is_refused(path):
    with miniinfer_cli.load(path, "cpu") as engine:
        sent, digest = pickle.dumps(engine), engine.plan.digest
    write_plan(plan_of(NEGATED), path)
    with pytest.raises(PlanFileError, match=f"not the plan that was sent: its .*, expected {digest}\n  hint: give both"):
        pickle.loads(sent)
    path.unlink()
    with pytest.raises(PlanFileError, match="no such file"):
        pickle.loads(sent)


def test_a_device_that_is_not_there_is_told(path, monkeypatch):
    with miniinfer_cli.load(path, "cpu") as engine:
        monkeypatch.setattr(engine, "_asked", "cuda:7")
        sent = pickle.dumps(engine)
    with pytest.raises(DeviceError):
        pickle.loads(sent)


def test_an_engine_with_no_file_stays_where_it_is(path):
    with miniinfer_cli.load(plan_of(DOUBLE), "cpu") as engine, pytest.raises(UsageError, match="its plan is in no file"):
        pickle.dumps(engine)
    with read_plan(path) as plan:
        changed = plan.with_target(TargetSection("sm_90"))
        with miniinfer_cli.load(changed, "cpu") as engine, pytest.raises(UsageError, match="its plan is in no file"):
            pickle.dumps(engine)
    with pytest.raises(UsageError, match="cannot be pickled\n  hint: load the plan again"):
        pickle.dumps(engine)


def test_a_plan_travels_as_its_path_and_digest(path):
    with read_plan(path) as plan:
        sent = pickle.dumps(plan)
        assert len(sent) < 300
        with pickle.loads(sent) as other:
            assert (other.path, other.digest) == (str(path), plan.digest)
        with pytest.raises(PlanError, match="the plan was changed since it was read"):
            pickle.dumps(plan.with_target(TargetSection("sm_90")))
        with pytest.raises(PlanError, match="the plan was changed since it was read"):
            copy.copy(dataclasses.replace(plan, report=BuildReport()))
    write_plan(plan_of(NEGATED), path)
    with pytest.raises(PlanError, match="not the plan that was sent"):
        pickle.loads(sent)


def test_a_plan_in_memory_travels_whole():
    plan = pickle.loads(pickle.dumps(plan_of(DOUBLE)))
    with miniinfer_cli.load(plan, "cpu") as engine:
        np.testing.assert_array_equal(engine.run({"x": X})["y"], 2 * X)


def test_options_travel():
    options = DeviceOptions(threads=2, tactics={"a": "b"}, cache=Path("/tmp"), limits={"rank": 3})
    assert pickle.loads(pickle.dumps(options)) == options

"""A short run of the semantic fuzzing (``python -m tests.fuzz.semantic`` runs it for hours), and tests of its own parts."""

import collections
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import miniinfer_cli
from miniinfer_cli.verification.oracles import OracleGone, OracleRefused
from tests.forked import in_forked_child
from tests.fuzz.opening import SCALE
from tests.fuzz.semantic import __main__ as runner
from tests.fuzz.semantic import cases, farm, oracle, report
from tests.fuzz.semantic.cases import KINDS, Outcome, signature_of
from tests.fuzz.semantic.known import KNOWN, REFUSED, Known, reason_of, reason_to_refuse
from tests.fuzz.semantic.models import edited_model
from tests.fuzz.semantic.report import Report, faults_of
from tests.fuzz.semantic.runtime_server import RuntimeServer

COUNTS = {"models": 24, "plans": 24, "device": 6, "cli": 16, "inputs": 16}
# A share of the cases must get past the door: what is refused there tells nothing of the rooms behind it.
LEAST_DONE = {"models": 0.1, "plans": 0.15, "device": 0.3, "cli": 0.1, "inputs": 0.1}


@pytest.mark.timeout(120 + 60 * SCALE)
@pytest.mark.parametrize("kind", KINDS)
def test_cases_end_as_promised(kind: str):
    count = COUNTS[kind] * SCALE
    seen = list(farm.outcomes([kind], 0, count, workers=2))
    assert sorted(o.seed for o in seen) == list(range(count))
    assert [o for o in seen if o.broken] == []
    assert [o for o in seen if o.difference] == []
    ends = collections.Counter(o.codes[-1] for o in seen)
    assert ends[0] >= LEAST_DONE[kind] * count, ends


def test_a_case_follows_from_its_seed():
    first, again, other = (edited_model(random.Random(f"models {seed}"))[1] for seed in (5, 5, 6))
    assert first == again
    assert first != other


@pytest.mark.parametrize("known", KNOWN, ids=lambda k: k.example.__name__.strip("_"))
def test_a_difference_that_is_excused_is_still_there(known: Known, tmp_path: Path):
    model, plan = tmp_path / "m.onnx", tmp_path / "m.plan"
    onnx.save(known.example(), model)
    miniinfer_cli.build(model, plan)
    with RuntimeServer() as server:
        answer = oracle.ask(server, model, plan, 0)
    assert answer.compared
    assert answer.difference != ""
    assert answer.reason == ""
    assert known.reason in reason_of(known.example(), answer.outputs, answer.feeds)


@pytest.mark.parametrize("known", REFUSED, ids=lambda k: k.example.__name__.strip("_"))
def test_what_a_plan_refuses_for_a_reason_is_refused_still(known: Known, tmp_path: Path):
    model = tmp_path / "m.onnx"
    onnx.save(known.example(), model)
    command = [sys.executable, "-m", "miniinfer_cli", "build", str(model), "-o", str(tmp_path / "m.plan"), "--verify"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert cases.unverified(done.stderr).difference.startswith("the plan fails where onnxruntime")
    assert known.reason in reason_to_refuse(known.example())


def test_a_model_without_an_excuse_has_none(tmp_path: Path):
    sound = KNOWN[0].example()
    sound.graph.node[0].attribute[0].i = 1
    assert reason_of(sound, ["y"]) == ""
    model, plan = tmp_path / "m.onnx", tmp_path / "m.plan"
    onnx.save(sound, model)
    miniinfer_cli.build(model, plan)
    with RuntimeServer() as server:
        assert oracle.ask(server, model, plan, 0) == oracle.Answer(compared=True)


def test_what_optimizations_of_onnxruntime_change_is_not_ours(tmp_path: Path):
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[2,4] x) => (float[2,4] y)
    <float two = {2}, float small = {0.1}, float[4] s = {1, 2, 3, 4}, float[4] b = {0, 1, 0, 1}> {
        m = ReduceMean <axes = [-1]> (x)
        d = Sub (x, m)
        p = Pow (two, d)
        v = ReduceMean <axes = [-1]> (p)
        w = Add (v, small)
        r = Sqrt (w)
        q = Div (d, r)
        t = Mul (q, s)
        y = Add (t, b)
    }"""
    model, plan = tmp_path / "m.onnx", tmp_path / "m.plan"
    onnx.save(onnx.parser.parse_model(text), model)
    miniinfer_cli.build(model, plan)
    with RuntimeServer() as server:
        fused = oracle.ask(server, model, plan, 0)
        miniinfer_cli.build(onnx.parser.parse_model(text.replace("Pow (two, d)", "Pow (d, two)")), plan)
        ours = oracle.ask(server, model, plan, 0)
    assert fused.outputs == ("y",)
    assert "optimizations" in fused.reason
    assert ours.difference == ""  # the plan of the model that ONNX Runtime takes it for


def test_an_excuse_is_of_what_differs_alone():
    model = KNOWN[0].example()
    model.graph.node.add(op_type="Relu", input=["x"], output=["z"])
    model.graph.output.add(name="z")
    assert reason_of(model, ["y"]) != ""
    assert reason_of(model, ["z"]) == ""


@pytest.mark.parametrize(
    ("known", "input_", "value"),
    [("product_of_large_integers", 0, 3), ("power_of_large_integers", 1, 3)],
)
def test_small_integers_are_no_excuse(known: str, input_: int, value: int):
    (example,) = [k.example for k in KNOWN if k.example.__name__ == f"_{known}"]
    model = example()
    assert reason_of(model, ["y"]) != ""
    model.graph.initializer[input_].int32_data[:] = [value for _ in model.graph.initializer[input_].int32_data]
    assert reason_of(model, ["y"]) == ""


def test_a_build_that_is_not_verified_differs(monkeypatch: pytest.MonkeyPatch):
    def commands(kind: str, rng: random.Random, folder: Path, kept: Path) -> list[list[str]]:
        onnx.save(KNOWN[0].example(), folder / "m.onnx")
        return [["build", "m.onnx", "-q", "--verify"], ["run", "m.plan"]]

    monkeypatch.setattr(cases, "_commands", commands)
    (excused,) = farm.outcomes(["models"], 7, 1, workers=1)
    monkeypatch.setattr(cases, "reason_of", lambda model, outputs, feeds: "")
    (differs,) = farm.outcomes(["models"], 7, 1, workers=1)
    assert excused.codes == differs.codes == [1]
    assert excused.difference == ""
    assert KNOWN[0].reason in excused.excuse
    assert "differ: 'y' by inf" in differs.difference
    assert differs.operations == "ReduceMax"
    made = Report(["models"], None)
    made.add(differs)
    assert not made.clean
    assert any("(seed 7)" in line for line in made.lines())


def test_what_a_failed_verification_tells(tmp_path: Path):
    error = "miniinfer: error: m.onnx: "
    nothing = error + "nothing was verified: the model itself fails at every size that was tried: x"
    assert cases.unverified(nothing) == oracle.NOTHING
    both = (
        error + "the plan and onnxruntime 1.2 differ: 'y' by inf (allowed 0e+00) at x=1: f32, 'z' by 1e-1 (allowed 1e-2) at x=1"
    )
    assert cases.unverified(both).outputs == ("y", "z")
    failing = error + "the plan fails where onnxruntime 1.2 does not, at x=1: Reshape"
    onnx.save(KNOWN[0].example(), tmp_path / "m.onnx")
    outcome = Outcome("models", 7, ["build"], [1])
    cases.add_difference(outcome, tmp_path / "m.onnx", cases.unverified(failing))
    assert (outcome.difference, outcome.excuse, outcome.operations) == (failing.removeprefix(error), "", "ReduceMax")


def test_the_server_of_onnxruntime_starts_again_when_its_process_has_ended(tmp_path: Path):
    onnx.save(KNOWN[0].example(), tmp_path / "m.onnx")
    x = np.ones((2, 3), np.float32)
    with RuntimeServer() as server:
        runtime = server.load(tmp_path / "m.onnx", ["y"])
        assert runtime.run({"x": x})["y"].tolist() == 1.0
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(OracleGone, match="crashed"):
            runtime.run({"x": x})
        assert server.load(tmp_path / "m.onnx", ["y"]).run({"x": x})["y"].tolist() == 1.0
        with pytest.raises(OracleGone):
            server.load(tmp_path / "nosuch.onnx", ["y"])
        with pytest.raises(OracleRefused):
            server.load(tmp_path / "m.onnx", ["y"]).run({"x": x.astype(np.int64)})


def test_a_report_is_whole_at_any_moment(tmp_path: Path):
    path = tmp_path / "report.json"
    made = Report(["models", "plans"], path, workers=2)
    for outcome in (
        Outcome("models", 3, ["build"], [70], signature="TypeError @ a"),
        Outcome("models", 1, ["build"], [70], signature="TypeError @ a"),
        Outcome("models", 2, ["build", "run"], [0, 0], 1.5, 7 << 20, "", "", True, "output 'y': off by 0.5", "", "Cast"),
        Outcome("plans", 1, ["inspect"], [4], unhinted="error: _"),
        Outcome("models", 9, ["build"], [3]),
    ):  # fmt: skip
        made.add(outcome)
    assert not made.clean
    made.write("running")
    told = json.loads(path.read_text())
    models, plans = told["kinds"]["models"], told["kinds"]["plans"]
    assert (told["state"], told["workers"]) == ("running", 2)
    assert models["seeds_done"] == [[1, 3], [9, 9]]
    assert models["outcomes"] == {"bad": 2, "differs": 1, "build: refused as a model": 1}
    assert models["exit_codes"] == {"build": {"0": 1, "3": 1, "70": 2}, "run": {"0": 1}}
    assert models["slowest_build_or_open_s"][0] == {"seconds": 1.5, "seed": 2}
    assert models["largest_peak_of_build_or_open"][0] == {"bytes": 7 << 20, "seed": 2}
    assert [(b["count"], b["seeds"]) for b in models["bad"]] == [(2, [3, 1])]
    assert models["differences"]["Cast"][0]["again"] == "python -m tests.fuzz.semantic --kind models --seed 2"
    assert [b["what"] for b in plans["bad"]] == ["no hint: error: _"]
    assert any("TypeError @ a (seed 3)" in line for line in made.lines())


def test_a_run_that_is_killed_leaves_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def outcomes(*args: Any, **options: Any) -> Iterator[Outcome]:
        yield Outcome("models", 0, ["build"], [3])
        os.kill(os.getpid(), signal.SIGKILL)

    path = tmp_path / "report.json"
    monkeypatch.setattr(report, "EVERY_S", 0.0)
    monkeypatch.setattr(farm, "outcomes", outcomes)
    monkeypatch.setattr(sys, "argv", ["semantic", "--report", str(path)])
    with pytest.raises(AssertionError, match=f"killed by signal {signal.SIGKILL:d}"):
        in_forked_child(runner.main)
    told = json.loads(path.read_text())
    assert (told["state"], told["kinds"]["models"]["cases"]) == ("running", 1)


def test_a_traceback_is_known_by_its_exception_and_innermost_functions():
    try:
        random.Random(0).choice([])
    except IndexError as error:
        import traceback

        text = "".join(traceback.format_exception(error))
    assert signature_of(text).startswith("IndexError @ random.py:choice < test_semantic.py:test_a_traceback")


def test_what_a_promise_is():
    def outcome(code: int, **fields: Any) -> Outcome:
        return Outcome("models", 0, ["build"], [code], **fields)

    assert not outcome(3).broken
    for broken in (
        outcome(70), outcome(-11), outcome(0, seconds=31), outcome(0, peak_nbytes=3 << 30), outcome(3, unhinted="error: x"),
        outcome(0, signature="of a report"),
    ):  # fmt: skip
        assert broken.broken
        assert list(faults_of(broken)) != []
    assert list(faults_of(outcome(3))) == []


def test_a_fault_with_a_cause_is_known_by_the_cause():
    try:
        try:
            random.Random(0).choice([])
        except IndexError as cause:
            raise RuntimeError("a pass failed") from cause
    except RuntimeError as error:
        import traceback

        text = "".join(traceback.format_exception(error))
    assert signature_of(text).startswith("IndexError @ random.py:choice < ")

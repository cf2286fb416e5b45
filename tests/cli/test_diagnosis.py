"""The diagnosis of profile: what it says of models made to be bound by one thing, as text and as JSON."""

import json
from unittest import mock

import onnx
import pytest

from miniinfer_cli.cli import diagnosing
from miniinfer_cli.devices import opening
from miniinfer_cli.diagnosis.findings import Kind
from tests.diagnosis.models import ON_CPU
from tests.emulation.engine import load_emulated

QUICK = ("--iterations", 5, "--warmup", 0, "--duration", 0)


@pytest.mark.parametrize("name", ON_CPU)
def test_models_made_to_be_bound_by_one_thing(miniinfer, tmp_path, name):
    """Which thing it is hangs on the clock: ``tests.benchmarks.advice --made`` asks for that."""
    made = ON_CPU[name]
    onnx.save(made.model(), tmp_path / "made.onnx")
    assert miniinfer("build", tmp_path / "made.onnx", "-q").code == 0
    document = json.loads(miniinfer("profile", tmp_path / "made.plan", *QUICK, *made.run, "--json", "-").out)
    finding = document["findings"][0]
    assert finding["of"] == "run"
    assert finding["kind"] in set(Kind)
    assert finding["evidence"]
    assert ("in layers whose fusion is blocked" in {f["what"] for f in finding["evidence"]}) == made.blocked
    names = [t["name"] for t in document["tried"]]
    assert made.advice is None or made.advice in names
    assert all(t["reason"] == "no time left" for t in document["tried"])  # a run of no duration leaves none


def test_advice_that_helps_is_told_with_its_gain(miniinfer, plan):
    """Eight samples of a tiny network take hardly longer than one."""
    outcome = miniinfer("profile", plan, "--iterations", 5, "--warmup", 0, "--duration", 0.3, "--json", plan.with_suffix(".json"))
    lines = outcome.out.splitlines()
    start = lines.index("=== Diagnosis ===")
    document = json.loads(plan.with_suffix(".json").read_text())
    if all(node["median_ms"] < 0.05 for node in document["nodes"]):  # nobody else had the processor meanwhile
        assert lines[start + 1].startswith("launch-bound: ")
    told = [a for a in document["findings"][0]["advice"] if a["name"] == "batch 8"]
    if not told:  # the machine was too unsteady to tell
        assert "batch 8" in {t["name"] for t in document["tried"] if t["reason"]}
        return
    (advice,) = told
    assert (advice["flags"], advice["basis"], advice["of"]) == ({"--batch": "8"}, "measured", "throughput")
    assert 0.15 * advice["before_ms"] <= advice["gain_ms"] == pytest.approx(advice["before_ms"] - advice["after_ms"])
    start_of_line = f"  -> compute 8 samples at a time: --batch 8; saves {advice['gain_ms']:.4g} ms"
    assert any(line.startswith(start_of_line) for line in lines[start:])


def test_on_an_emulated_gpu(miniinfer, plan):
    with mock.patch.object(opening, "load_model", load_emulated()):
        outcome = miniinfer("profile", plan, *QUICK, "--device", "cuda:0", "--no-cuda-graph", "--no-ceilings", "--json", "-")
    document = json.loads(outcome.out)
    assert document["findings"][0]["evidence"]
    assert "CUDA graph" in [t["name"] for t in document["tried"]]


def test_no_diagnosis_where_none_is_asked_for(miniinfer, plan):
    outcome = miniinfer("profile", plan, *QUICK, "--no-diagnosis", "--json", plan.with_suffix(".json"))
    assert "=== Diagnosis ===" not in outcome.out
    assert not {"findings", "tried"} & set(json.loads(plan.with_suffix(".json").read_text()))


def test_a_bug_in_the_diagnosis_takes_nothing_else(miniinfer, plan):
    with mock.patch.object(diagnosing, "findings_of", side_effect=ZeroDivisionError("by design")):
        outcome = miniinfer("profile", plan, *QUICK)
    assert outcome.code == 0
    assert "Throughput: " in outcome.out and "=== Diagnosis ===" not in outcome.out
    assert "this is a bug in the diagnosis" in outcome.err and "by design" in outcome.err


def test_nothing_to_gain(miniinfer, tmp_path):
    """A batch that is fixed, on one thread of one processor: there is nothing that could be tried."""
    onnx.save(ON_CPU["host step"].model(), tmp_path / "made.onnx")
    assert miniinfer("build", tmp_path / "made.onnx", "-q").code == 0
    with mock.patch.object(diagnosing, "available_processors", return_value=1):
        outcome = miniinfer("profile", tmp_path / "made.plan", *QUICK, "--iterations", 1, "--threads", 1)
    assert "  nothing to gain here: there is nothing to try" in outcome.out.splitlines()

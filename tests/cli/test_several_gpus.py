"""``run`` and ``profile`` on several GPUs (emulated ones): each of them and all together, as text and as JSON."""

import json
from unittest import mock

import pytest

from miniinfer_cli.devices import opening, several
from tests.cli.test_results import check
from tests.emulation.engine import load_emulated

QUICK = ("--iterations", 3, "--warmup", 0, "--duration", 0)
TWO = ("--device", "cuda:0,cuda:1")


@pytest.fixture(autouse=True)
def gpus(monkeypatch):
    monkeypatch.setattr(several, "driver_fault", lambda: None)
    monkeypatch.setattr(several, "device_count", lambda: 2)
    with mock.patch.object(opening, "load_model", load_emulated()):
        yield


@pytest.mark.parametrize("command", ["run", "profile"])
def test_all_together_and_each(miniinfer, plan, tmp_path, command):
    more = ["--no-ceilings"] if command == "profile" else []
    outcome = miniinfer(command, plan, *QUICK, *more, "--device", "cuda:all", "--streams", 2, "--json", tmp_path / "s.json")
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert "Devices: cuda:0, cuda:1" in lines
    assert {"=== cuda:0: emulated ===", "=== cuda:1: emulated ==="} < set(lines)
    assert "Inferences: 12 on 4 streams" in lines
    assert any(line.startswith("hint: 2 streams run at once: ") for line in lines)  # on each GPU
    assert any(line.startswith("Weights on cuda:1: from cuda:0 in ") for line in lines)
    assert ("note: nodes are those of cuda:0" in outcome.out) == (command == "profile")
    found = check(json.loads((tmp_path / "s.json").read_text()))
    assert (found["device"], found["iterations"], found["streams"]) == ("cuda:0,cuda:1", 12, 4)
    assert [(d["device"], d["iterations"], d["streams"]) for d in found["devices"]] == [("cuda:0", 6, 2), ("cuda:1", 6, 2)]
    assert found["latency_ms"]["max"] == max(d["latency_ms"]["max"] for d in found["devices"])
    assert found["settings"]["device"] == "cuda:all"
    assert "findings" not in found


def test_one_of_all_is_like_one(miniinfer, plan, tmp_path, monkeypatch):
    monkeypatch.setattr(several, "device_count", lambda: 1)
    outcome = miniinfer("run", plan, *QUICK, "--device", "cuda:all", "--json", tmp_path / "s.json")
    assert (outcome.code, outcome.err) == (0, "")
    found = check(json.loads((tmp_path / "s.json").read_text()))
    assert (found["device"], "devices" in found) == ("cuda:0", False)


@pytest.mark.parametrize("batched", [False, True])
def test_under_load_both_answer(miniinfer, plan, tmp_path, batched):
    more = ["--max-batch", 4, "--max-delay", 1] if batched else []
    load = ("--scenario", "offline", "--iterations", 200)
    outcome = miniinfer("profile", plan, *load, *more, *TWO, "--warmup", 0, "--duration", 0, "--json", tmp_path / "l.json")
    assert (outcome.code, outcome.err) == (0, "")
    found = check(json.loads((tmp_path / "l.json").read_text()))
    served, count = found["served"], found["requests"]["completed"]
    if batched:
        assert served["contexts"] == 4
        assert (list(served["devices"]), sum(d["rows"] for d in served["devices"].values())) == (["cuda:0", "cuda:1"], count)
        assert " rows on cuda:1" in outcome.out
    else:
        assert served == {"by": "contexts", "contexts": 2}


def test_a_sweep_measures_all_of_them(miniinfer, plan, tmp_path):
    outcome = miniinfer("profile", plan, *QUICK, *TWO, "--streams", "1,2", "--json", tmp_path / "s.json")
    assert (outcome.code, outcome.err) == (0, "")
    assert check(json.loads((tmp_path / "s.json").read_text()))["device"] == "cuda:0,cuda:1"


def test_what_is_for_one_device_is_refused(miniinfer, plan):
    outcome = miniinfer("run", plan, *QUICK, *TWO, "--baseline", plan)
    assert (outcome.code, "--baseline: what cuda:0, cuda:1 come to together is not compared" in outcome.err) == (2, True)
    outcome = miniinfer("run", plan, *QUICK, "--device", "cuda:0,cpu")
    assert (outcome.code, "hint: --device cuda:all, or --device cuda:0,cuda:1" in outcome.err) == (2, True)
    outcome = miniinfer("tune", plan, "--device", "cuda:all")
    assert outcome.code == 2
    assert (
        "'cuda:all' names several devices, and one is wanted here\n  hint: run, profile and serve take several GPUs"
        in outcome.err
    )

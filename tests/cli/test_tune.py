"""``miniinfer tune`` and ``build --tune``: on the emulated GPU, with times made up; and where there is no GPU."""

import json
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import miniinfer_cli
from engine_format import read_plan
from miniinfer_cli.backends.cuda.tuning.candidates import FAST
from miniinfer_cli.cli import build as build_command
from miniinfer_cli.cli import tune as tune_command
from miniinfer_cli.devices import opening, tuning
from tests.backends.cuda.tuning.fake_clock import FakeClock
from tests.emulation.engine import load_emulated

QUICK = replace(FAST, rounds=1, copies=1, pairs=12)


class Stopped(FakeClock):
    """Ctrl-C comes while the second signature is raced in the plan."""

    def plan_us(self, made: Any, measured_us: float) -> float:
        if self.plans == 2 * QUICK.pairs + 1:
            self.plans += 1
            signal.raise_signal(signal.SIGINT)
        return super().plan_us(made, measured_us)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock({"gemm 64x64": 50.0})


@pytest.fixture
def on_gpu(clock: FakeClock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(tuning, "load_gpu_model", load_emulated())
    monkeypatch.setattr(tuning, "DeviceClock", lambda: clock)
    monkeypatch.setattr(tuning, "_EFFORTS", {"fast": QUICK, "full": QUICK})
    for command in (tune_command, build_command):
        monkeypatch.setattr(command, "expect_gpu_named", lambda device: None)
    with mock.patch.object(opening, "load_model", load_emulated()):
        yield


@pytest.fixture
def plan(model: Path, tmp_path: Path) -> Path:
    miniinfer_cli.build(model, tmp_path / "mlp.plan")
    return tmp_path / "mlp.plan"


def test_a_plan_is_tuned_in_its_place_and_profile_shows_it(miniinfer: Any, plan: Path, on_gpu: None, tmp_path: Path) -> None:
    outcome = miniinfer("tune", plan, "--tune-at", "batch=8", "--json", tmp_path / "t.json")
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert lines[0] == "GPU: emulated"
    assert [line for line in lines if line.startswith("===")] == [f"=== Tuned at batch = {n} ===" for n in (1, 8)]
    assert "Whole plan: 200.0 -> 100.0 us (2.000 times as fast)" in lines and lines[-1] == f"Plan: {plan}"
    document = json.loads((tmp_path / "t.json").read_text())
    assert (document["plan"], document["output"], document["gpu"]) == (str(plan), str(plan), "emulated")
    assert (document["changed"], document["interrupted"]) == (True, False)
    assert [p["sizes"] for p in document["points"]] == [{"batch": n} for n in (1, 8)]
    (first, last) = document["points"][0]["changes"]
    assert (first["nodes"], first["after"], first["after_us"], first["kept"]) == (["first"], "gemm 64x64", 50.0, True)
    assert last["nodes"] == ["last"]
    short = ("--iterations", "1", "--duration", "0", "--warmup", "0", "--shapes", "x:8x4", "--json", tmp_path / "p.json")
    profiled = miniinfer("profile", plan, "--device", "cuda:0", *short)
    assert profiled.code == 0, profiled.err
    nodes = json.loads((tmp_path / "p.json").read_text())["nodes"]
    assert [(n["tactic"], n["chosen_by"], n["tuned_us"]) for n in nodes] == [("gemm 64x64", "plan", 50.0)] * 2
    assert "tuned us" in profiled.out and "50.0" in profiled.out.split()
    inspected = miniinfer("inspect", plan, "--json", tmp_path / "i.json")
    assert "Target: sm_90 (emulated), 4 tactics, " in inspected.out
    (target,) = json.loads((tmp_path / "i.json").read_text())["targets"]
    assert (target["gpu"], target["trust"]) == ("emulated", "trusted")
    assert {(r["tactic"], r["chosen_by"], r["time_us"]) for r in target["records"]} == {("gemm 64x64", "timed", 50.0)}


def test_another_file_is_written_and_the_plan_stays(miniinfer: Any, plan: Path, on_gpu: None, tmp_path: Path) -> None:
    before = plan.read_bytes()
    outcome = miniinfer("tune", plan, "-o", tmp_path / "tuned.plan", "--tune", "full", "--tune-for", "latency")
    assert outcome.code == 0, outcome.err
    assert plan.read_bytes() == before
    with read_plan(tmp_path / "tuned.plan") as tuned:
        tuned.check()
        assert len(tuned.targets[0].records) == 2


def test_where_nothing_is_faster_the_file_is_not_touched(miniinfer: Any, plan: Path, on_gpu: None, clock: FakeClock) -> None:
    clock.times = {}
    before = plan.stat()
    outcome = miniinfer("tune", plan)
    assert (outcome.code, plan.stat().st_mtime_ns) == (0, before.st_mtime_ns)
    assert "Whole plan: nothing is faster than what the heuristic chooses" in outcome.out.splitlines()
    assert outcome.out.splitlines()[-1] == f"Plan: {plan} is as it was"


def test_an_interruption_writes_what_was_found(miniinfer: Any, plan: Path, on_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "DeviceClock", lambda: Stopped({"gemm 64x64": 50.0}))
    outcome = miniinfer("tune", plan)
    assert outcome.code == 130 and outcome.err.endswith("miniinfer: interrupted\n")
    assert "Interrupted: what was found so far is kept" in outcome.out.splitlines()
    with read_plan(plan) as tuned:
        assert [r.chosen_by for r in tuned.targets[0].records] == ["timed"]  # of the other one nothing is known


def test_build_tunes_what_it_wrote(miniinfer: Any, model: Path, on_gpu: None, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    flags = ("--tune", "fast", "--timing-cache", cache, "-o", tmp_path / "a.plan", "--json", tmp_path / "b.json")
    outcome = miniinfer("build", model, *flags)
    assert outcome.code == 0, outcome.err
    assert "Whole plan: 200.0 -> 100.0 us (2.000 times as fast)" in outcome.out.splitlines()
    assert json.loads((tmp_path / "b.json").read_text())["tuning"]["changed"] is True
    with read_plan(tmp_path / "a.plan") as plan:
        assert [len(t.records) for t in plan.targets] == [2]
    miniinfer_cli.build(model, tmp_path / "untuned.plan")
    short = ("--iterations", "1", "--duration", "0", "--warmup", "0", "--json", tmp_path / "p.json", "--timing-cache", cache)
    outcome = miniinfer("profile", tmp_path / "untuned.plan", "--device", "cuda:0", *short)
    assert outcome.code == 0, outcome.err
    document = json.loads((tmp_path / "p.json").read_text())
    assert {n["chosen_by"] for n in document["nodes"]} == {"timing cache"}
    assert document["settings"]["timing_cache"] == str(cache)


def test_from_python(model: Path, on_gpu: None, tmp_path: Path) -> None:
    built = miniinfer_cli.build(model, tmp_path / "a.plan", tuning={"at": {"batch": [4]}})
    assert [len(t.records) for t in built.targets] == [4]
    built.close()
    untuned = miniinfer_cli.build(model)
    tuned = miniinfer_cli.tune(untuned, tmp_path / "b.plan", level="full", aim="latency")
    assert untuned.targets == () and len(tuned.targets[0].records) == 2
    with read_plan(tmp_path / "b.plan") as written:
        assert written.targets[0].records == tuned.targets[0].records


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--tune-at", "batch"), "'batch' is not of the form batch=1,8,64"),
        (("--tune-at", "batch=1,x"), "'batch=1,x' is not of the form batch=1,8,64"),
        (("--tune-at", "seq=4"), "--tune-at: there is no dimension 'seq'"),
        (("--tune", "some"), "'some' is not one of 'fast', 'full'"),
        (("--tune-for", "speed"), "'speed' is not one of 'latency', 'throughput'"),
    ],
)
def test_wrong_flags(flags: Any, message: str, miniinfer: Any, plan: Path, on_gpu: None) -> None:
    outcome = miniinfer("tune", plan, *flags)
    assert outcome.code == 2 and message in outcome.err


def test_flags_of_tuning_need_it(miniinfer: Any, model: Path) -> None:
    outcome = miniinfer("build", model, "--tune-at", "batch=1", "--timing-cache", "x")
    assert outcome.code == 2 and "--tune-at, --timing-cache: nothing is tuned" in outcome.err
    outcome = miniinfer("build", model, "--tune", "fast", "--dry-run")
    assert outcome.code == 2 and "--tune and --dry-run exclude each other" in outcome.err


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_without_a_gpu_one_line_and_code_5(device: str, miniinfer: Any, plan: Path, model: Path, tmp_path: Path) -> None:
    outcome = miniinfer("tune", plan, "--device", device)
    assert outcome.code == 5 and outcome.err.startswith("miniinfer: error: tuning needs an NVIDIA GPU: ")
    assert outcome.err.count("\n") == 2
    outcome = miniinfer("build", model, "--tune", "fast", "--tune-device", device, "-o", tmp_path / "new.plan")
    assert outcome.code == 5 and not (tmp_path / "new.plan").exists()


def test_python_says_what_is_wrong(plan: Path) -> None:
    from miniinfer_cli.errors import DeviceError, UsageError

    for arguments, message in (
        ({"levels": 1}, "tune: there is no option 'levels'"),
        ({"level": "some"}, "tune: level: expected one of fast, full"),
        ({"aim": 3}, "tune: aim: expected one of latency, throughput"),
        ({"at": [1]}, "tune: at: expected a dict"),
        ({"timing_cache": 3}, "tune: timing_cache: expected a file or None"),
        ({"tactics": {}}, "tune: there is no option 'tactics'"),
    ):
        with pytest.raises(UsageError, match=message):
            miniinfer_cli.tune(plan, **arguments)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="tune: expected a path or a Plan, got int"):
        miniinfer_cli.tune(3)  # type: ignore[arg-type]
    with pytest.raises(DeviceError, match="tuning needs an NVIDIA GPU"):
        miniinfer_cli.tune(plan)

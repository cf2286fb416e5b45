"""profile over several settings: the report, JSON, state, ends, and what is refused."""

import json
import os
import re
import signal
import time
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from miniinfer_cli.cli import sweeping
from miniinfer_cli.cli.sweep_state import SweepState
from miniinfer_cli.devices import opening
from miniinfer_cli.errors import LimitExceeded, OutOfMemoryError, UsageError
from miniinfer_cli.measuring.benchmark import measure_together, unwatched
from miniinfer_cli.measuring.sweep_points import Failed, Reading, Setting
from tests.cli.test_results import check
from tests.emulation.engine import load_emulated
from tests.forked import command_in_forked_child, on_terminal

QUICK = ("--device", "cpu", "--iterations", 2, "--warmup", 0, "--duration", 0)
WIDE = ("--streams", "1,2,4,8", "--batch", ",".join(str(1 << n) for n in range(12)))


def measured(document: dict) -> list[tuple[int, int]]:
    return [(p["streams"], p["batch"]) for p in document["points"] if p["status"] == "measured"]


def test_the_report_and_its_json(miniinfer, plan, tmp_path):
    flags = ("--streams", "2,1", "--batch", "1,4,2", "--latency-budget", 1e4, "--json", tmp_path / "s.json")
    outcome = miniinfer("profile", plan, *QUICK, *flags)
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    start = lines.index("=== Sweep ===")
    assert re.split(r" {2,}", lines[start + 1].strip()) == [
        "streams", "batch", "samples/s", "p50 ms", "p99 ms", "times", "it is",
    ]  # fmt: skip
    assert [line.split()[:2] for line in lines[start + 2 : start + 8]] == [
        ["1", "1"], ["1", "2"], ["1", "4"], ["2", "1"], ["2", "2"], ["2", "4"],
    ]  # fmt: skip
    assert "Measured: 6 of 6 settings" in lines
    document = check(json.loads((tmp_path / "s.json").read_text()))
    assert (document["kind"], document["interrupted"], document["batch"]) == ("sweep", False, None)
    assert document["inputs"][0]["shape"] == ["batch", 4]
    settings = document["settings"]
    assert (settings["streams"], settings["batch"], settings["latency_budget_ms"]) == ([1, 2], [1, 2, 4], 1e4)
    points = {(p["streams"], p["batch"]): p for p in document["points"]}
    best = max(points.values(), key=lambda p: p["samples_per_second"])
    assert document["best"] == document["best_within_budget"] == {"streams": best["streams"], "batch": best["batch"]}
    for name, key in (("Best", "best"), ("Best within 10000 ms", "best_within_budget"), ("Knee", "knee")):
        told = next(line for line in lines if line.startswith(f"{name}: "))
        place = document[key]
        point = points[place["streams"], place["batch"]]
        assert told.startswith(
            f"{name}: streams {place['streams']}, batch {place['batch']}: {point['samples_per_second']:.2f} samples/s,"
            f" p50 {point['p50_ms']:.4f} ms, p99 {point['p99_ms']:.4f} ms"
        )
    for point in points.values():
        rates = [r["samples_per_second"] for r in point["readings"]]
        assert point["samples_per_second"] == pytest.approx(np.mean(rates))
        assert point["samples_per_second"] == pytest.approx(point["batch"] * point["throughput_qps"])
        assert all(r["iterations"] == 2 * point["streams"] for r in point["readings"])
    assert f"--streams {best['streams']} --batch {best['batch']} times its nodes" in outcome.out


def test_streams_alone(miniinfer, plan):
    document = check(json.loads(miniinfer("profile", plan, *QUICK, "--streams", "1,2", "--json", "-").out))
    assert measured(document) == [(1, 1), (2, 1)]
    assert (document["batch"], document["inputs"][0]["shape"], document["settings"]["batch"]) == (1, [1, 4], None)
    document = json.loads(miniinfer("profile", plan, *QUICK, "--streams", "1,2", "--shapes", "x:6x4", "--json", "-").out)
    assert measured(document) == [(1, 6), (2, 6)]


def test_on_a_gpu(miniinfer, plan):
    with mock.patch.object(opening, "load_model", load_emulated()):
        flags = ("--device", "cuda:0", "--streams", "1,2", "--batch", "1,3", "--no-data-transfers")
        document = check(json.loads(miniinfer("profile", plan, *QUICK[2:], *flags, "--json", "-").out))
    assert (document["device"], document["settings"]["data_transfers"]) == ("cuda:0", False)
    assert measured(document) == [(1, 1), (1, 3), (2, 1), (2, 3)]
    assert all(p["p99_ms"] > 0 for p in document["points"])


def test_inputs_without_a_batch_are_counted_as_inferences(miniinfer, tmp_path):
    from tests.cli.test_batch import plan_of

    outcome = miniinfer("profile", plan_of(tmp_path, ["n", 4], ["m", 4]), *QUICK, "--streams", "1,2", "--shapes", "x0:2x4")
    assert outcome.code == 0
    assert re.search(r"^streams +qps +p50 ms", outcome.out, re.M)
    assert re.search(r"^Best: streams \d: \d+\.\d+ qps", outcome.out, re.M)


def test_few_of_many_settings_are_measured_and_the_others_told(miniinfer, plan, tmp_path):
    outcome = miniinfer("profile", plan, *QUICK, *WIDE, "--json", tmp_path / "s.json")
    document = check(json.loads((tmp_path / "s.json").read_text()))
    assert len(document["points"]) == 48 and 6 <= len(measured(document)) <= 12
    assert {p["status"] for p in document["points"]} == {"measured", "left out"}
    told = [line for line in outcome.out.splitlines() if line.startswith("Not measured, ")]
    assert told and all(p["reason"] in told[0] for p in document["points"] if p["status"] == "left out")
    some = ("--streams", "1,2,4", "--batch", "1,2,3,4,5")
    assert len(measured(json.loads(miniinfer("profile", plan, *QUICK, *some, "--all-points", "--json", "-").out))) == 15


@pytest.mark.parametrize(
    "fault",
    [OutOfMemoryError("no memory"), LimitExceeded("too long"), MemoryError("Unable to allocate")],
    ids=lambda f: type(f).__name__,
)
def test_what_fails_is_a_wall(miniinfer, plan, monkeypatch, fault):
    def limited(engines, arrays, schedule, *, streams, progress):
        if streams * arrays[0].shape[0] >= 8:
            raise fault
        return measure_together(engines, arrays, schedule, streams=streams, progress=progress)

    monkeypatch.setattr(sweeping, "measure_together", limited)
    flags = ("--streams", "1,2,4", "--batch", "1,2,4,8")
    document = check(json.loads(miniinfer("profile", plan, *QUICK, *flags, "--json", "-").out))
    statuses = {(p["streams"], p["batch"]): p["status"] for p in document["points"]}
    assert {s for s, status in statuses.items() if status == "measured"} == {
        (1, 1), (1, 2), (1, 4), (2, 1), (2, 2), (4, 1),
    }  # fmt: skip
    assert {s for s, status in statuses.items() if status == "failed"} == {(1, 8), (2, 4), (4, 2)}
    assert str(fault.args[0]) in next(p["reason"] for p in document["points"] if p["status"] == "failed")
    outcome = miniinfer("profile", plan, *QUICK, *flags)
    assert "Failed: streams 2, batch 4: " in outcome.out
    assert "Not measured, as large as streams 1, batch 8, which failed: streams 2, batch 8" in outcome.out
    outcome = miniinfer("profile", plan, *QUICK, "--streams", "8,16")
    assert (outcome.code, outcome.err.startswith("miniinfer: error: no setting could be measured: ")) == (6, True)


def test_any_other_fault_ends_the_sweep(miniinfer, plan, monkeypatch):
    def faulty(*_, **__):
        raise UsageError("wrong", hint="mend it")

    monkeypatch.setattr(sweeping, "measure_together", faulty)
    outcome = miniinfer("profile", plan, *QUICK, "--streams", "1,2")
    assert (outcome.code, outcome.err) == (2, "miniinfer: error: wrong\n  hint: mend it\n")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--streams", "0,1"), "0 is not in the range 1<=x<=256."),
        (("--streams", "1,,2"), "'1,,2' is not a whole number, nor several as 1,2,4,8"),
        (("--streams", "1,2,"), "'1,2,' is not a whole number"),
        (("--streams", "1,-2"), "-2 is not in the range"),
        (("--streams", "1,2,1"), "1 is given twice"),
        (("--streams", "1,257"), "257 is not in the range 1<=x<=256."),
        (("--batch", "1,1.5"), "'1,1.5' is not a whole number"),
        (("--batch", f"1,{1 << 31}"), f"{1 << 31} is not in the range"),
        (("--batch", "1,2", "--shapes", "x:2x4"), "--batch 1 and --shapes x:2x4 both set batch"),
        (("--batch", "1,2", "--latency-budget", "0"), "0 is not in the range x>0"),
        (("--batch", "1,2", "--latency-budget", "nan"), "nan is not a finite number"),
        (("--batch", "1,2", "--top", "3"), "--top: a sweep times no nodes"),
        (("--streams", ",".join(map(str, range(1, 33))), "--batch", ",".join(map(str, range(1, 33)))),
         "--streams and --batch make 1024 settings, 512 at most are swept"),
        (("--latency-budget", "5"), "--latency-budget: there is one setting, and nothing to sweep"),
        (("--streams", "2", "--all-points", "--sweep-state", "s"), "--all-points, --sweep-state: there is one setting"),
        (("--streams", "1,2", "--sweep-state", "/dev/null"), "--sweep-state must be a file, no pipe, device or socket"),
        (("--streams", "1,2", "--sweep-state", "/proc/s"), "/proc/s: cannot be written: "),
    ],
)  # fmt: skip
def test_what_is_refused(miniinfer, plan, flags, message):
    outcome = miniinfer("profile", plan, *QUICK, *flags)
    assert outcome.code == 2
    first, hint = outcome.err.splitlines()
    assert message in first and hint.startswith("  hint: ")


def test_a_batch_beyond_the_plan_is_refused_before_anything_is_measured(miniinfer, model, monkeypatch):
    monkeypatch.setattr(sweeping, "measure_together", lambda *_, **__: pytest.fail("measured"))
    assert miniinfer("build", model, "-q", "--max-shapes", "x:8x4").code == 0
    outcome = miniinfer("profile", model.with_suffix(".plan"), *QUICK, "--batch", "1,4,16")
    assert (outcome.code, "--batch 16: batch is above 8, the largest of the plan" in outcome.err) == (2, True)


def test_a_sweep_goes_on_from_its_state(miniinfer, plan, tmp_path, monkeypatch):
    state, calls = tmp_path / "state.json", []

    def counted(engines, arrays, schedule, *, streams, progress):
        calls.append((streams, arrays[0].shape[0]))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return measure_together(engines, arrays, schedule, streams=streams, progress=progress)

    monkeypatch.setattr(sweeping, "measure_together", counted)
    flags = ("--streams", "1,2", "--batch", "1,2,4", "--sweep-state", state)
    outcome = miniinfer("profile", plan, *QUICK, *flags, "--json", tmp_path / "s.json")
    assert (outcome.code, outcome.err) == (130, "\nminiinfer: interrupted\n")
    assert "Interrupted: what was measured so far is shown" in outcome.out
    assert "Not measured, interrupted before: streams 1, batch 4; streams 2, batch 1, 2, 4" in outcome.out
    first = check(json.loads((tmp_path / "s.json").read_text()))
    assert (first["interrupted"], measured(first)) == (True, [(1, 1), (1, 2)])
    outcome = miniinfer("profile", plan, *QUICK, *flags, "--json", tmp_path / "t.json")
    assert (outcome.code, f"State: 2 measurements from {state}" in outcome.out) == (0, True)
    second = json.loads((tmp_path / "t.json").read_text())
    assert len(measured(second)) == 6
    assert [p["readings"][:1] for p in second["points"][:2]] == [p["readings"] for p in first["points"][:2]]
    assert calls[3] == (1, 4)
    # Whole: nothing is measured. More values, another budget: what there is counts.
    before = len(calls)
    assert miniinfer("profile", plan, *QUICK, *flags, "--latency-budget", 1e4).code == 0
    assert set(calls[before:]) <= {(s, b) for s in (1, 2) for b in (1, 2, 4)} and len(calls) - before <= 6
    before = len(calls)
    assert miniinfer("profile", plan, *QUICK, "--streams", "1,2,3", "--batch", "1,2,4", "--sweep-state", state).code == 0
    assert {c for c in calls[before:] if c[0] == 3} == {(3, 1), (3, 2), (3, 4)}


def test_a_state_of_something_else_is_refused(miniinfer, plan, model, tmp_path):
    state = tmp_path / "state.json"
    flags = ("--streams", "1,2", "--sweep-state", state)
    assert miniinfer("profile", plan, *QUICK, *flags).code == 0
    kept = state.read_bytes()
    outcome = miniinfer("profile", plan, *QUICK, *flags, "--seed", 7)
    told = f"miniinfer: error: {state}: is the state of a sweep with other settings (seed is 0, not 7)\n"
    assert (outcome.code, outcome.err) == (2, f"{told}  hint: give another file by --sweep-state, or remove this one\n")
    outcome = miniinfer("profile", plan, *QUICK, *flags, "--threads", 1)
    assert (outcome.code, "is the state of a sweep" in outcome.err) == (2, True)
    other = tmp_path / "other.plan"
    assert miniinfer("build", model, "-q", "--opt-level", 0, "-o", other).code == 0
    outcome = miniinfer("profile", other, *QUICK, *flags)
    assert (outcome.code, "is the state of a sweep of another plan (digest " in outcome.err) == (2, True)
    assert state.read_bytes() == kept
    for damage in (b"", b"hello", kept[:-20], b"[1]", kept.replace(b'"p99_ms": ', b'"p99_ms": -'), b'{"kind": 1}', b"[" * 9999):
        state.write_bytes(damage)
        outcome = miniinfer("profile", plan, *QUICK, *flags)
        assert (outcome.code, "this is not the state of a sweep, or it is damaged" in outcome.err) == (2, True)
        assert state.read_bytes() == damage


def test_a_state_is_used_by_one_sweep_at_a_time(tmp_path):
    path, key = tmp_path / "s", {"plan_digest": "1", "device": {}, "host": {}, "versions": {}, "settings": {}}
    with SweepState(path, key) as state:
        state.begin(Setting(1, 1))
        for _ in range(2):  # as it is replaced, it stays locked
            with pytest.raises(UsageError, match="another sweep uses this file"):
                SweepState(path, key)
            state.add(Setting(1, 1), Reading(1.0, 2.0, 3.0))
    with SweepState(path, key) as again:
        assert again.outcomes == [(Setting(1, 1), Reading(1.0, 2.0, 3.0))] * 2
        again.add(Setting(2, 1), Failed("memory"))
        path.replace(tmp_path / "moved")
        (tmp_path / "s").write_text("somebody else's")
        with pytest.raises(UsageError, match="another sweep uses this file"):
            again.add(Setting(4, 1), Failed("memory"))
    assert (tmp_path / "s").read_text() == "somebody else's"
    assert SweepState(tmp_path / "moved", key).outcomes[-1] == (Setting(2, 1), Failed("memory"))


def test_a_setting_that_ends_processes_is_given_up(tmp_path):
    key = {"plan_digest": "1"}
    for times in range(4):
        with SweepState(tmp_path / "s", key) as state:
            outcome = state.begin(Setting(4, 4))  # and the process is gone
        assert (outcome is None) == (times < 3)
    assert outcome == Failed("measuring it has ended 3 processes")
    with SweepState(tmp_path / "s", key) as state:
        state.begin(Setting(4, 4))
        state.give_up()
    with SweepState(tmp_path / "s", key) as state:
        assert state.begin(Setting(4, 4)) is None


def test_without_a_file_nothing_is_kept(tmp_path):
    with SweepState(None, {}) as state:
        assert state.begin(Setting(1, 1)) is None
        state.add(Setting(1, 1), Failed("memory"))
    assert list(tmp_path.iterdir()) == []


def test_killed_it_goes_on(miniinfer, plan: Path, tmp_path: Path):
    state = tmp_path / "state.json"
    flags = ("--streams", "1,2", "--batch", "1,2,4", "--sweep-state", state)

    def third_kills() -> None:
        calls = []

        def measured(*args, **kwargs):
            calls.append(args)
            if len(calls) == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            return measure_together(*args, **kwargs)

        sweeping.measure_together = measured

    words = [str(w) for w in ("profile", plan, *QUICK, *flags, "-q")]
    assert command_in_forked_child(words, third_kills) == (-signal.SIGKILL, "")
    kept = json.loads(state.read_text())["outcomes"]
    assert len(kept) == 2
    outcome = miniinfer("profile", plan, *QUICK, *flags)
    assert outcome.code == 0, outcome.err
    assert f"State: 2 measurements from {state}" in outcome.out
    assert json.loads(state.read_text())["outcomes"][:2] == kept
    assert "Measured: 6 of 6 settings" in outcome.out
    assert not list(tmp_path.glob(".miniinfer-*"))


def test_one_bar_over_all_settings(plan: Path):
    def take_time() -> None:
        def measured(engines, arrays, schedule, *, streams, progress):
            for count in range(3):
                progress("inferences", count)
                time.sleep(0.03)
            return measure_together(engines, arrays, replace(schedule, duration_s=0.0), streams=streams, progress=unwatched)

        sweeping.measure_together, sweeping._REDRAW_S = measured, 0.02

    flags = ("--streams", "1,2", "--batch", "1,2", "--warmup", "0", "--iterations", "2", "--duration", "0.1")
    code, text = on_terminal("profile", plan, "--device", "cpu", *flags, before=take_time)
    assert code == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
    drawn = re.findall(r"streams (\d), batch (\d) \((\d) of 4 settings at most\) +\S*\s+(\d+)%", plain)
    assert list(dict.fromkeys((s, b) for s, b, *_ in drawn))[:4] == [("1", "1"), ("1", "2"), ("2", "1"), ("2", "2")]
    parts = [int(percent) for *_, done, percent in drawn if int(done) < 4]
    assert parts == sorted(parts) and parts[-1] >= 75

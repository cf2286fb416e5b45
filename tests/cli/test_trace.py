"""``run`` and ``profile`` with ``--trace``."""

import json
from unittest import mock

import pytest

from miniinfer_cli.devices import opening
from tests.emulation.engine import load_emulated
from tests.measuring.trace_rules import check_trace

QUICK = ("--iterations", 3, "--warmup", 0, "--duration", 0)


@pytest.mark.parametrize("command", ["run", "profile"])
def test_the_trace_of_a_cpu_has_the_nodes_of_the_plan(miniinfer, plan, tmp_path, command):
    summary, trace = tmp_path / "s.json", tmp_path / "t.json"
    more = (
        (
            "--no-ceilings",
            "--no-diagnosis",
        )
        if command == "profile"
        else ()
    )
    outcome = miniinfer(command, plan, *QUICK, *more, "--device", "cpu", "--streams", 2, "--trace", trace, "--json", summary)
    assert (outcome.code, outcome.err) == (0, "")
    document, measured = json.loads(trace.read_text()), json.loads(summary.read_text())
    tracks = check_trace(document)
    assert len(tracks) == 4
    same = ("date", "plan", "plan_digest", "versions")
    assert document["otherData"] == {**{k: measured[k] for k in same}, "clock_error_us": 0}
    if command == "profile":
        (computed,) = {tuple(e["name"] for e in events[:2]) for (_, track), events in tracks.items() if track == 2}
        assert list(computed) == [n["node"] for n in measured["nodes"]]


def test_the_trace_of_a_gpu_goes_to_standard_output_alone(miniinfer, plan):
    with mock.patch.object(opening, "load_model", load_emulated()):
        outcome = miniinfer("run", plan, *QUICK, "--trace", "-")
    tracks = check_trace(json.loads(outcome.out), one_clock=False)
    assert [{e["name"] for e in tracks[0, track]} for track in range(4)] == [
        {"enqueue", "wait", "time nodes"},
        {"copy inputs"},
        {"compute"},
        {"copy outputs"},
    ]


def test_a_trace_is_looked_at_before_the_work(miniinfer, plan):
    outcome = miniinfer("run", plan, *QUICK, "--trace", plan)
    assert (outcome.code, "--trace would overwrite the file that is read" in outcome.err) == (2, True)
    outcome = miniinfer("profile", plan, *QUICK, "--no-ceilings", "--no-diagnosis", "--trace", "-", "--json", "-")
    assert (outcome.code, "-: --trace is the same file as --json" in outcome.err) == (2, True)
    outcome = miniinfer("profile", plan, *QUICK, "--streams", "1,2", "--trace", "t.json")
    assert (outcome.code, "--trace: a sweep records no timeline" in outcome.err) == (2, True)

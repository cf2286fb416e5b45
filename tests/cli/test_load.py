"""profile under load: the report, JSON, who answers, ends, and what is refused."""

import json
import re
import threading
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from miniinfer_cli.cli import under_load
from miniinfer_cli.devices import opening
from miniinfer_cli.errors import LimitExceeded
from miniinfer_cli.measuring.load import Scenario
from tests.cli.test_results import SCHEMA, check
from tests.emulation.engine import load_emulated

QUICK = ("--device", "cpu", "--iterations", 20, "--warmup", 0, "--duration", 0)
SCENARIOS = {"server": ("--qps", 500), **{s: ("--scenario", s) for s in ("single-stream", "multi-stream", "offline")}}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_report_and_its_json(miniinfer, plan, tmp_path, scenario):
    flags = (*SCENARIOS[scenario], "--streams", 2, "--percentile", "50,99", "--json", tmp_path / "l.json")
    budget = () if scenario == "offline" else ("--latency-budget", 1e4)
    outcome = miniinfer("profile", plan, *QUICK, *flags, *budget)
    assert outcome.code == 0, outcome.err
    document = check(json.loads((tmp_path / "l.json").read_text()))
    requests = document["requests"]
    width = 8 if scenario == "multi-stream" else 1
    assert requests["issued"] >= 20 if scenario == "offline" else requests["issued"] == 20 * width
    assert requests == {"issued": requests["issued"], "completed": requests["issued"], "dropped": 0, "unfinished": 0}
    assert (document["kind"], document["scenario"], document["interrupted"]) == ("load", scenario, False)
    assert document["served"] == {"by": "contexts", "contexts": 2}
    settings = document["settings"]
    assert (settings["scenario"], settings["qps"]) == (scenario, 500 if scenario == "server" else None)
    assert (settings["samples_per_query"], settings["max_queue"]) == (
        8 if width == 8 else None,
        1024 if scenario == "server" else None,
    )
    assert (
        document["samples_per_second"] == document["throughput_qps"] == requests["completed"] / document["total_host_walltime_s"]
    )
    known = {"offline": ["service_ms"], "server": ["latency_ms", "queueing_ms", "service_ms", "sent_late_ms"]}
    rows = [k for k in ("latency_ms", "queueing_ms", "service_ms", "sent_late_ms") if document[k] is not None]
    assert rows == known.get(scenario, ["latency_ms", "queueing_ms", "service_ms"])
    assert list(document["service_ms"]) == ["min", "max", "mean", "median", "p50", "p99"]
    assert document["within_budget"] == (None if scenario == "offline" else requests["issued"])
    lines = outcome.out.splitlines()
    assert lines[lines.index(f"=== Load: {scenario} ===") + 1].startswith(f"Requests: {requests['issued']} issued")
    assert "Served by: 2 contexts, each request by itself" in lines
    figure = next(line for line in lines if line.startswith("MLPerf's figure: "))
    assert f"{document['mlperf']['metric']}: {document['mlperf']['value']:.4f} " in figure
    for name, key in (
        ("Latency", "latency_ms"),
        ("Queueing", "queueing_ms"),
        ("Service", "service_ms"),
        ("Sent late", "sent_late_ms"),
    ):
        told = [line for line in lines if line.startswith(f"{name}: ")]
        assert told == [] if document[key] is None else f"median = {document[key]['median']:.4f} ms" in told[0]
    if budget:
        assert f"Goodput: {document['goodput_qps']:.2f} qps within 10000 ms (100.00 % of what came" in outcome.out
        assert document["budget_kept"] is True


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_a_batcher_computes_several_at_once(miniinfer, plan, device):
    delay = "--max-delay" if device == "cpu" else "--max-delay-ms"  # two names of one flag
    flags = ("--device", device, "--scenario", "offline", "--max-batch", 4, delay, 1)
    with nullcontext() if device == "cpu" else mock.patch.object(opening, "load_model", load_emulated()):
        document = check(json.loads(miniinfer("profile", plan, *QUICK[2:], *flags, "--json", "-").out))
    served = document["served"]
    assert (served["by"], served["contexts"], served["max_delay_ms"]) == ("batcher", 1 if device == "cpu" else 2, 1)
    assert served["batch_sizes"] == [1, 2, 3, 4] and served["mean_batch"] > 2
    assert served["batches"] * served["mean_batch"] == pytest.approx(document["requests"]["completed"])
    assert (document["batch"], document["inputs"][0]["shape"]) == (1, [1, 4])


def test_who_submits_rows_several_at_a_time_has_them_counted(miniinfer, plan, tmp_path):
    np.save(tmp_path / "x.npy", np.ones((3, 4), np.float32))
    batched = ("--max-batch", 6)
    for flags in (("--batch", 3), ("--shapes", "x:3x4", *batched), ("--input", f"x={tmp_path / 'x.npy'}", *batched)):
        document = check(json.loads(miniinfer("profile", plan, *QUICK, "--qps", 900, *flags, "--json", "-").out))
        assert (document["batch"], document["inputs"][0]["shape"]) == (3, [3, 4])
        assert document["samples_per_second"] == pytest.approx(3 * document["throughput_qps"])
    assert re.search(
        r"Requests: 20 issued .*, 0 dropped; 3 samples each", miniinfer("profile", plan, *QUICK, "--qps", 900, "--batch", 3).out
    )


def test_arrivals_are_equal_for_equal_seeds(miniinfer, plan, monkeypatch):
    seen = []
    original = under_load.summarize_load
    monkeypatch.setattr(under_load, "summarize_load", lambda load, log, *a, **k: seen.append(log) or original(load, log, *a, **k))
    for seed in (1, 1, 2):
        assert miniinfer("profile", plan, *QUICK, "--qps", 2000, "--seed", seed, "-q").code == 0
    gaps = [np.diff(log.due).round(9).tolist() for log in seen]
    assert gaps[0] == gaps[1] != gaps[2]


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        (("--qps", "500", "--assert-latency", "p99<100s", "--assert-throughput", ">1"), 0),
        (("--qps", "500", "--assert-latency", "median<1us"), 1),
        (("--scenario", "offline", "--assert-throughput", ">1e12samples/s"), 1),
        (("--scenario", "multi-stream", "--max-batch", "8", "--assert-latency", "max<100s"), 0),
    ],
)
def test_what_is_asserted(miniinfer, plan, tmp_path, flags, code):
    flags = ("--device", "cpu", "--warmup", 0, "--iterations", 200, "--duration", 0, *flags)
    outcome = miniinfer("profile", plan, *flags, "--json", tmp_path / "l.json")
    found = check(json.loads((tmp_path / "l.json").read_text()))["assertions"]
    assert [one["assertion"] in outcome.out for one in found] == [True] * (1 + ("--assert-throughput" in flags and code == 0))
    assert {one["outcome"] for one in found} <= ({"held"} if code == 0 else {"failed", "cannot tell"})  # the machine may be busy
    assert outcome.code in (code, 0)
    assert re.search(r"over \d+ (queries|requests)", found[0]["why"])


def test_overload_is_told(miniinfer, plan):
    flags = ("--device", "cpu", "--warmup", 0, "--iterations", 300, "--duration", 0, "--qps", 1e6, "--max-queue", 2)
    outcome = miniinfer("profile", plan, *flags, "--latency-budget", 0.001)
    dropped = int(re.search(r"(\d+) dropped", outcome.out)[1])
    assert dropped > 0
    assert "hint: overload: " in outcome.out and f"and {dropped} requests found it full: --max-batch N" in outcome.out
    assert "not kept, 99 % are wanted" in outcome.out


def test_interrupted_it_shows_what_there_is(miniinfer, plan, tmp_path, monkeypatch):
    original = under_load.run_load

    def interrupted(load, system, clock, progress):
        def watch(stage, done):
            if done:
                raise KeyboardInterrupt

        return original(load, system, clock, watch)

    monkeypatch.setattr(under_load, "run_load", interrupted)
    flags = ("--device", "cpu", "--warmup", 0, "--duration", 1000, "--qps", 100, "--json", tmp_path / "l.json")
    outcome = miniinfer("profile", plan, *flags)
    assert (outcome.code, outcome.err) == (130, "\nminiinfer: interrupted\n")
    assert "Interrupted: what was measured so far is shown" in outcome.out
    document = check(json.loads((tmp_path / "l.json").read_text()))
    requests = document["requests"]
    assert document["interrupted"] and requests["completed"] > 0
    assert requests["issued"] == requests["completed"] + requests["unfinished"]
    ours = [t.name for t in threading.enumerate() if t.name.startswith("miniinfer-")]
    assert [name for name in ours if not name.startswith("miniinfer-cpu-")] == []  # workers of the CPU stay


def test_what_a_request_fails_with_is_the_commands_end(miniinfer, plan, monkeypatch):
    monkeypatch.setattr("miniinfer_cli.runtime.context.Context.enqueue", mock.Mock(side_effect=LimitExceeded("too long")))
    outcome = miniinfer("profile", plan, *QUICK, "--qps", 100)
    assert (outcome.code, outcome.err.splitlines()[0]) == (6, "miniinfer: error: too long")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--qps", "0"), "0 is not in the range x>0"),
        (("--qps", "nan"), "nan is not a finite number"),
        (("--scenario", "server"), "--scenario server: how many requests come is not said"),
        (("--scenario", "offline", "--qps", "5"), "--qps: in --scenario offline requests come when others have ended"),
        (("--scenario", "both"), "'both' is not one of 'single-stream', 'multi-stream', 'server', 'offline'"),
        (("--max-batch", "4"), "--max-batch: there is no load"),
        (("--samples-per-query", "4", "--max-queue", "3"), "--samples-per-query, --max-queue: there is no load"),
        (("--qps", "5", "--samples-per-query", "4"), "--samples-per-query: means nothing in --scenario server"),
        (("--scenario", "offline", "--max-queue", "4"), "--max-queue: means nothing in --scenario offline"),
        (("--scenario", "offline", "--latency-budget", "4"), "--latency-budget: the one query of --scenario offline has no"),
        (("--scenario", "offline", "--assert-latency", "p99<5ms"), "--assert-latency: the one query of --scenario offline"),
        (("--qps", "5", "--streams", "1,2"), "--streams: a load takes one setting"),
        (("--qps", "5", "--batch", "1,2", "--streams", "2,3"), "--streams and --batch: a load takes one setting"),
        (("--qps", "5", "--top", "2"), "--top: means nothing under load"),
        (("--qps", "5", "--sweep-state", "s", "--all-points"), "--all-points, --sweep-state: means nothing under load"),
        (("--qps", "5", "--no-data-transfers"), "--no-data-transfers: means nothing under load"),
        (("--qps", "1e9", "--duration", "60"), "--qps, --duration and --iterations make 60000000000 requests, 10000000 at most"),
    ],
)  # fmt: skip
def test_what_is_refused_before_the_plan_is_opened(miniinfer, flags, message):
    refused(miniinfer("profile", "no.plan", *QUICK, *flags), message)


def test_a_request_that_no_batch_holds_is_refused(miniinfer, plan):
    outcome = miniinfer("profile", plan, *QUICK, "--qps", "5", "--max-batch", "4", "--batch", "5")
    refused(outcome, "input 'x': a request of 5 rows, and a batch has 4 at most")


def refused(outcome, message):
    assert outcome.code == 2
    first, hint = outcome.err.splitlines()
    assert message in first and hint.startswith("  hint: ")
    assert not re.search(r"max_batch|batch_dim|Batcher\(", outcome.err)


@pytest.mark.parametrize(
    ("shapes", "flags", "message"),
    [
        (("--max-shapes", "x:8x4"), ("--max-batch", "16"), "--max-batch: the plan takes no 16 rows"),
        (("--shapes", "x:3x4"), ("--max-batch", "2"), "--max-batch: 2 is not 3, the fixed batch of the plan"),
    ],
)
def test_a_batch_that_the_plan_does_not_take_is_refused_in_flags(miniinfer, model: Path, shapes, flags, message):
    assert miniinfer("build", model, "-q", *shapes).code == 0
    outcome = miniinfer("profile", model.with_suffix(".plan"), *QUICK, "--qps", 5, *flags)
    assert (outcome.code, outcome.err.splitlines()[0]) == (2, f"miniinfer: error: {outcome.err.splitlines()[0][18:]}")
    assert message in outcome.err and not re.search(r"max_batch|max_shapes|build\(", outcome.err)


def test_a_plan_without_a_batch_is_refused_in_flags(miniinfer, tmp_path):
    from tests.cli.test_batch import plan_of

    outcome = miniinfer("profile", plan_of(tmp_path, ["n", 4], ["m", 4]), *QUICK, "--qps", 5, "--max-batch", 4)
    assert (outcome.code, "the inputs share no first dimension" in outcome.err) == (2, True)
    assert "batch_dim=" not in outcome.err and "--max-batch" in outcome.err


def test_the_schema_has_the_scenarios():
    assert SCHEMA["$defs"]["load"]["properties"]["scenario"] == {"enum": [str(s) for s in Scenario]}

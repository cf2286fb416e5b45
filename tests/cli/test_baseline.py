"""--baseline and --assert-regression of run and profile, and results as a side of compare: verdicts, codes, what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest

from miniinfer_cli.cli import baseline_times, compare_results
from miniinfer_cli.comparison import alone as measuring_alone
from miniinfer_cli.comparison import race as racing
from tests.cli.test_results import check
from tests.comparison.test_race import Machine

QUICK = ("--device", "cpu", "--iterations", 5, "--warmup", 0, "--duration", 0)


@pytest.fixture
def machine(monkeypatch):
    """A simulated machine in the place of this one's clock, processors and workers; A is what is called ``a.plan``."""
    simulated = Machine(spread=0.003, noise=0.002)

    def start(name, job):
        return simulated.start("A" if name.endswith("a.plan") else "B")

    def race(start, cases, rules, progress):
        fixed = replace(rules, cores=2, threads=2)
        return racing.race(start, cases, fixed, progress, clock=lambda: simulated.at, now=simulated.now)

    def alone(start, budget_s, *, progress, cores, threads, on_cpu):
        clock = {"clock": lambda: simulated.at, "now": simulated.now}
        return measuring_alone.measure_alone(start, budget_s, cores=2, threads=2, on_cpu=True, progress=progress, **clock)

    monkeypatch.setattr(baseline_times, "WorkerProcess", start)
    monkeypatch.setattr(compare_results, "WorkerProcess", start)
    monkeypatch.setattr(baseline_times, "race", race)
    for module in (baseline_times, compare_results):
        monkeypatch.setattr(module, "measure_alone", alone)
    return simulated


@pytest.fixture
def before(miniinfer, plan, tmp_path):
    """Results of a run, whose median latency a call sets."""
    path = tmp_path / "before.json"
    assert miniinfer("run", plan, *QUICK, "-q", "--json", path).code == 0

    def with_median(median_ms, **changes):
        document = json.loads(path.read_text())
        document["latency_ms"] |= {"median": median_ms, "p90": median_ms * 1.002}
        path.write_text(json.dumps({**document, **changes}))
        return path

    return with_median


@pytest.fixture
def other(plan, tmp_path):
    (tmp_path / "a.plan").write_bytes(plan.read_bytes())
    return tmp_path / "a.plan"


@pytest.mark.parametrize("command", ["run", "profile"])
def test_beside_a_plan(miniinfer, plan, other, machine, tmp_path, command):
    machine.factor = 1.10
    flags = ("--baseline", other, "--json", tmp_path / "r.json")
    outcome = miniinfer(command, plan, *QUICK, *flags, "--assert-regression", "15%")
    assert outcome.code == 0, outcome.err
    assert f"Baseline: {other} (plan)" in outcome.out
    assert "Verdict: the plan is slower: +" in outcome.out
    document = check(json.loads((tmp_path / "r.json").read_text()))
    times = document["baseline"]["times"]
    assert (times["verdict"], document["baseline"]["is"], document["baseline"]["figure"]) == (
        "slower",
        "plan",
        "time of an inference",
    )
    assert [a["outcome"] for a in document["assertions"]] == ["held"]
    outcome = miniinfer(command, plan, *QUICK, *flags, "--assert-regression", "5%", "-q")
    assert outcome.code == 1
    assert f"{plan}: regression<=5% does not hold: the time changed by +" in outcome.err


def test_beside_results(miniinfer, plan, machine, before, tmp_path):
    flags = ("--baseline", before(2.0), "--assert-regression", "5%", "--json", tmp_path / "r.json")
    outcome = miniinfer("run", plan, *QUICK, *flags)
    assert outcome.code == 0, outcome.err
    document = check(json.loads((tmp_path / "r.json").read_text()))
    assert (document["baseline"]["is"], document["baseline"]["figure"]) == ("results", "median latency")
    assert document["baseline"]["times"]["verdict"] == "equal"
    before(1.8)
    outcome = miniinfer("run", plan, *QUICK, *flags)
    assert (outcome.code, "regression<=5% does not hold: the time changed by +11." in outcome.err) == (1, True)
    before(1.9)
    assert miniinfer("run", plan, *QUICK, *flags).code == 0
    assert miniinfer("run", plan, *QUICK, *flags, "--strict").code == 1  # 5.3 % may be less than 5


def test_foreign_load_beside_results(miniinfer, plan, machine, before):
    machine.foreign = lambda pair: 1.0
    outcome = miniinfer("run", plan, *QUICK, "--baseline", before(1.0), "--assert-regression", "5%")
    assert outcome.code == 0
    assert "more were disturbed by other work, and do not count" in outcome.out
    assert "regression<=5% cannot be told" in outcome.err


def test_the_results_of_a_comparison(miniinfer, plan, other, machine, monkeypatch, tmp_path):
    from miniinfer_cli.cli import compare_times

    monkeypatch.setattr(compare_times, "WorkerProcess", lambda letter, job: machine.start(letter))
    monkeypatch.setattr(compare_times, "race", baseline_times.race)
    path = tmp_path / "c.json"
    assert miniinfer("compare", other, plan, "--device", "cpu", "--json", path, "-q").code == 0
    outcome = miniinfer("run", plan, *QUICK, "--baseline", path, "--assert-regression", "2%")
    assert outcome.code == 0
    assert "by the time of an inference" in outcome.out
    assert "Verdict: equal within 2 %: " in outcome.out


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"host": {"name": "b", "processor": "another", "cores": 99}}, "it is of another machine: processor: another then, "),
        ({"device": "cuda:0"}, "it is of another machine: device: cuda then, cpu now"),
        ({"inputs": [{"name": "x", "shape": [7, 4]}]}, "it was measured otherwise: inputs: x 7x4 then, x 1x4 now"),
        ({"schema_version": 2}, "has version 2, expected 1"),
        ({"kind": "sweep"}, "is of kind 'sweep', expected run, profile, compare"),
        ({"latency_ms": {"median": "soon"}}, "latency_ms.median: expected a number up to 1e+30, got 'soon'"),
        ({"host": ["here"]}, "host: expected an object, got ['here']"),
        ({"device_facts": None}, "what it holds is not complete"),
    ],
)
def test_results_that_cannot_be_a_baseline(miniinfer, plan, before, changes, told):
    outcome = miniinfer("run", plan, *QUICK, "--baseline", before(2.0, **changes))
    assert (outcome.code, told in outcome.err, outcome.err.count("\n")) == (2, True, 2), outcome.err
    assert "--baseline" in outcome.err


def test_files_that_cannot_be_a_baseline(miniinfer, plan, model, tmp_path):
    (tmp_path / "bad.json").write_text('{"a": ')
    (tmp_path / "bad.plan").write_bytes(plan.read_bytes()[:200])
    np.savez(tmp_path / "y.npz", y=np.zeros(3))
    for file, told in (
        (tmp_path / "none", "cannot be read"),
        (tmp_path / "bad.json", "is no JSON"),
        (tmp_path / "bad.plan", "it cannot be a baseline"),
        (tmp_path / "y.npz", "neither a plan nor results"),
        (model, "build the model first"),
        (tmp_path, "cannot be read"),
    ):
        outcome = miniinfer("run", plan, *QUICK, "--baseline", file)
        assert (outcome.code, told in outcome.err) == (2, True), outcome.err
        assert f"--baseline {file}: " in outcome.err


def test_flags_that_do_not_go_together(miniinfer, plan, before):
    outcome = miniinfer("run", plan, *QUICK, "--assert-regression", "5%")
    assert (outcome.code, "--assert-regression: there is nothing to compare with" in outcome.err) == (2, True)
    outcome = miniinfer("profile", plan, *QUICK, "--streams", "1,2", "--baseline", plan)
    assert (outcome.code, "--baseline: neither a sweep nor a load is compared" in outcome.err) == (2, True)
    path = before(2.0)
    outcome = miniinfer("run", plan, *QUICK, "--baseline", path, "--json", path)
    assert (outcome.code, "--json would overwrite the file that is read" in outcome.err) == (2, True)


def test_compare_of_results(miniinfer, plan, machine, before, tmp_path):
    path = before(2.0)
    twin = tmp_path / "twin.json"
    twin.write_text(path.read_text().replace('"cores": ', '"cores": 9'))
    outcome = miniinfer("compare", path, twin, "--json", "-")
    assert outcome.code == 0, outcome.err
    (case,) = check(json.loads(outcome.out))["cases"]
    assert (case["times"]["verdict"], case["times"]["change"]) == ("cannot tell", pytest.approx(0.0))
    assert [note.partition(":")[0] for note in case["notes"]] == ["processor cores"]
    outcome = miniinfer("compare", path, plan, "--device", "cpu")
    assert outcome.code == 0, outcome.err
    assert "Measured: processes: A 1 before, B 8 now, by the median latency" in outcome.out
    assert "Verdict: equal within 2 %: " in outcome.out
    machine.factor = 1.2
    outcome = miniinfer("compare", path, plan, "--device", "cpu", "--assert-regression", "5%")
    assert (outcome.code, "regression<=5% does not hold" in outcome.err) == (1, True)
    assert miniinfer("compare", path, plan, "--device", "cpu", "--batch", 2).code == 2
    assert miniinfer("compare", path, plan, "--device", "cpu", "--assert-latency", "p50<1s").code == 2
    np.savez(tmp_path / "y.npz", y=np.zeros(3))
    assert miniinfer("compare", path, tmp_path / "y.npz").code == 2
    assert miniinfer("compare", path, plan, "--no-times").code == 2

"""The times of miniinfer compare: workers in processes, verdicts of simulated ones, assertions, JSON, and what is refused."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from miniinfer_cli.cli import compare_times
from miniinfer_cli.comparison import alone, workers
from miniinfer_cli.comparison import race as racing
from tests.cli.test_results import check
from tests.comparison.test_race import Machine
from tests.forked import ForkedModule
from tests.report.made import Page

CPU = ("--device", "cpu")


@pytest.fixture
def machine(monkeypatch):
    """A simulated machine in the place of this one's clock, processors and workers."""
    simulated = Machine(spread=0.005, noise=0.005)
    monkeypatch.setattr(compare_times, "WorkerProcess", lambda letter, job: simulated.start(letter))
    real = racing.race

    def race(start, cases, rules, progress):
        fixed = replace(rules, cores=2, threads=2)
        return real(start, cases, fixed, progress, clock=lambda: simulated.at, now=simulated.now)

    monkeypatch.setattr(compare_times, "race", race)
    return simulated


def test_workers_of_both_sides(miniinfer, plan, model, tmp_path, monkeypatch):
    """Workers are processes, but forked ones; tests/comparison/test_workers.py has one as it is."""
    monkeypatch.setattr(workers.subprocess, "Popen", ForkedModule)
    monkeypatch.setattr(racing, "_SHORTEST_S", 0.005)
    flags = ("--pairs", 2, "--warmup", 0, "--batch", 4, "--json", tmp_path / "c.json")
    outcome = miniinfer("compare", plan, model, *CPU, *flags, "--assert-latency", "p50<100s", "--assert-regression", "5%")
    assert outcome.code == 0, outcome.err
    document = check(json.loads((tmp_path / "c.json").read_text()))
    (case,) = document["cases"]
    times = case["times"]
    assert (times["verdict"], document["race"]["pairs"], case["batch"], case["agree"]) == ("cannot tell", 2, 4, True)
    assert "8 are the least that tell anything" in times["why"]
    assert times["pairs"] == 2 - document["race"]["disturbed_pairs"]
    assert [a["assertion"] for a in document["assertions"]] == ["p50<100s", "regression<=5%"]
    assert document["assertions"][1]["outcome"] == "cannot tell"
    assert f"miniinfer: warning: {model}: regression<=5% cannot be told: " in outcome.err
    assert "=== Times ===" in outcome.out


@pytest.mark.parametrize(
    ("factor", "verdict", "told"),
    [
        (
            1.10,
            "slower",
            r"B is slower: \+(9|1\d)\.\d\d % of A's time \(\+[89]\.\d\d to \+1\d\.\d\d %, p = 0\.\d{4}; pairs spread by ",
        ),
        (0.90, "faster", r"B is faster: -\d"),
        (1.00, "equal", r"equal within 2 %: [+-]0\.\d\d % of A's time"),
    ],
)
def test_verdicts(miniinfer, plan, machine, factor, verdict, told, tmp_path):
    machine.factor = factor
    outcome = miniinfer("compare", plan, plan, *CPU, "--json", tmp_path / "c.json")
    assert outcome.code == 0, outcome.err
    assert re.search(f"^Verdict: {told}", outcome.out, re.MULTILINE), outcome.out
    times = check(json.loads((tmp_path / "c.json").read_text()))["cases"][0]["times"]
    assert (times["verdict"], times["pairs"], times["margin"]) == (verdict, 10, 0.02)
    assert times["change"] == pytest.approx(factor - 1, abs=0.02)
    for side, expected in (("a", 2.0), ("b", 2.0 * factor)):
        assert times[side]["time_ms"] == pytest.approx(expected, rel=0.02)
        assert len(times[side]["workers_ms"]) == 10
    assert re.search(r"^Measured: 10 pairs of workers in \d+\.\d s$", outcome.out, re.MULTILINE)


def test_a_report_has_the_nodes_of_both_in_the_case_that_differs(miniinfer, plan, model, machine, tmp_path):
    machine.factor = 1.1
    page, result, again = tmp_path / "page.html", tmp_path / "c.json", tmp_path / "again.html"
    shapes = ("--shapes", "x:2x4", "--shapes", "x:5x4")
    outcome = miniinfer("compare", plan, model, *CPU, *shapes, "--report", page, "--json", result, "-q")
    assert (outcome.code, outcome.err) == (0, "")
    document = check(json.loads(result.read_text()))
    assert document["nodes_label"] == "x 2x4"
    for side in "ab":
        nodes = document[side]["nodes"]
        assert [n["node"] for n in nodes] == ["first", "last"]
        assert document[side]["nodes_sum_ms"] == pytest.approx(sum(n["median_ms"] for n in nodes))
    read = Page(page.read_text("utf-8"))
    assert read.sections == ["times", "outputs", "pairs-section", "environment"]
    assert read.text_of("b").count("B is slower") == 2
    assert miniinfer("report", result, "-o", again).code == 0
    assert again.read_bytes() == page.read_bytes()
    two = miniinfer("report", result, result, "-o", again)
    assert (two.code, "is of kind 'compare', of which no report can be made" in two.err) == (2, True)


def test_the_report_of_results_has_the_nodes_that_they_kept(miniinfer, plan, tmp_path, monkeypatch):
    monkeypatch.setattr(workers.subprocess, "Popen", ForkedModule)
    monkeypatch.setattr(alone, "_SHORTEST_S", 0.005)
    quick = ("--iterations", 30, "--warmup", 0, "--duration", 0, "--no-ceilings", "--no-diagnosis")
    assert miniinfer("profile", plan, *CPU, *quick, "--json", tmp_path / "before.json", "-q").code == 0
    page, result = tmp_path / "page.html", tmp_path / "c.json"
    flags = ("--duration", 0.1, "--warmup", 0, "--report", page, "--json", result, "-q")
    outcome = miniinfer("compare", tmp_path / "before.json", plan, *CPU, *flags)
    assert outcome.code == 0, outcome.err
    document = check(json.loads(result.read_text()))
    assert document["a"]["nodes"] == json.loads((tmp_path / "before.json").read_text())["nodes"]
    assert len(document["b"]["nodes"]) == len(document["a"]["nodes"])
    assert "pairs-section" in Page(page.read_text("utf-8")).sections


def test_what_cannot_be_told_and_how_long_it_would_take(miniinfer, plan, machine):
    machine.spread = 0.2
    outcome = miniinfer("compare", plan, plan, *CPU, "--duration", 20)
    told = next(line for line in outcome.out.splitlines() if line.startswith("Verdict: "))
    assert told.startswith("Verdict: cannot tell: pairs of workers differ too much among themselves; ")
    assert re.search(r"; \d+ pairs would tell 2 %, in some \d+ s\. So far [+-]", told)


def test_the_margin(miniinfer, plan, machine):
    machine.factor = 1.015
    assert "Verdict: equal within 3 %" in miniinfer("compare", plan, plan, *CPU, "--equal-within", "3%").out
    assert "Verdict: B is slower" in miniinfer("compare", plan, plan, *CPU, "--equal-within", "0.1%").out


def test_foreign_load(miniinfer, plan, machine):
    machine.factor = 1.5
    machine.foreign = lambda pair: 1.2
    outcome = miniinfer("compare", plan, plan, *CPU, "--assert-latency", "p50<1ms", "--strict")
    assert outcome.code == 1
    assert "Verdict: cannot tell: foreign load disturbed " in outcome.out
    assert "hint: foreign load: other work took 1.20 of 2 processors meanwhile" in outcome.out
    why = "no worker was measured that other work did not disturb"
    told = rf"p50<1ms cannot be told: p50 is [23]\.\d+ ms over \d+ workers, but {why}"
    assert re.search(told, outcome.err)
    clear = miniinfer("compare", plan, plan, *CPU, "--assert-latency", "p50<1us", "--assert-throughput", ">1e6")
    assert clear.code == 1  # 2 threads on the 0.8 processors that were left: some 8 times longer at most
    assert re.search(r"p50<1us does not hold: .*, which explains a factor of 7\.5 at most; >1e6 does not hold", clear.err)


def test_interrupted_it_shows_what_there_is(miniinfer, plan, machine, tmp_path):
    start = machine.start

    def interrupted(letter):
        if len(machine.started) == 9:
            raise KeyboardInterrupt
        return start(letter)

    machine.start = interrupted
    flags = ("--json", tmp_path / "c.json", "--report", tmp_path / "c.html", "--assert-regression", "5%")
    outcome = miniinfer("compare", plan, plan, *CPU, *flags)
    assert (outcome.code, outcome.err) == (130, "\nminiinfer: interrupted\n")
    assert "Interrupted: what was measured so far is shown" in outcome.out
    assert "Measured: 4 pairs of workers in " in outcome.out
    document = check(json.loads((tmp_path / "c.json").read_text()))
    assert (document["race"]["interrupted"], document["assertions"], "nodes" in document["a"]) == (True, [], False)
    assert Page((tmp_path / "c.html").read_text("utf-8")).sections == ["times", "outputs", "environment"]


def test_assertions_are_on_b_beside_a(miniinfer, plan, machine):
    machine.factor = 1.10
    flags = (*CPU, "--batch", 8, "-q")
    held = ("--assert-latency", "p99<2.5ms", "--assert-throughput", ">400", "--assert-regression", "15%")
    assert miniinfer("compare", plan, plan, *flags, *held).code == 0
    for failed, told in (
        (("--assert-latency", "mean<2.1ms"), "mean<2.1ms does not hold: mean is 2."),
        (("--assert-throughput", ">480"), ">480 does not hold: it is 4"),
        (("--assert-throughput", ">3800samples/s"), ">3800samples/s does not hold: it is 3"),
        (("--assert-regression", "5"), "regression<=5 does not hold: the time changed by +"),
    ):
        outcome = miniinfer("compare", plan, plan, *flags, *failed)
        assert (outcome.code, told in outcome.err) == (1, True), outcome.err
    close = miniinfer("compare", plan, plan, *flags, "--assert-regression", "10%")
    assert (close.code, "regression<=10% cannot be told" in close.err) == (0, True)
    assert miniinfer("compare", plan, plan, *flags, "--assert-regression", "10%", "--strict").code == 1


def test_cases_have_verdicts_of_their_own(miniinfer, plan, machine):
    machine.factor = 1.2
    flags = ("--shapes", "x:2x4", "--shapes", "x:5x4", "--assert-regression", "5%", "--json", "-")
    outcome = miniinfer("compare", plan, plan, *CPU, *flags)
    document = check(json.loads(outcome.out))
    assert [case["times"]["verdict"] for case in document["cases"]] == ["slower", "slower"]
    assert [a["why"].rpartition(" at ")[2] for a in document["assertions"]] == ["x 2x4", "x 5x4"]


def test_times_alone(miniinfer, plan, machine):
    document = check(json.loads(miniinfer("compare", plan, plan, *CPU, "--no-outputs", "--json", "-").out))
    assert "outputs" not in document["cases"][0]
    assert document["settings"]["outputs"] is False


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--no-times", "--no-outputs"), "--no-outputs and --no-times leave nothing to compare"),
        (("--no-times", "--assert-latency", "p99<5ms"), "--assert-latency: no times are compared"),
        (("--assert-regression", "five"), "'five' is not of the form 5%"),
        (("--equal-within", "-1%"), "'-1%' is not of the form 5%"),
        (("--duration", "0"), "--duration"),
        (("--pairs", "1"), "--pairs"),
        (("--strict",), "--strict: nothing is asserted"),
    ],
)
def test_wrong_flags(miniinfer, plan, flags, told):
    outcome = miniinfer("compare", plan, plan, *CPU, *flags)
    assert (outcome.code, told in outcome.err) == (2, True), outcome.err


def test_saved_outputs_have_no_times(miniinfer, plan, tmp_path):
    np.savez(tmp_path / "a.npz", y=np.zeros((1, 3), np.float32))
    outcome = miniinfer("compare", plan, tmp_path / "a.npz", *CPU, "--assert-regression", "5%")
    assert (outcome.code, "--assert-regression: no times are compared" in outcome.err) == (2, True)

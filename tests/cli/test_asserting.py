"""--assert-latency and --assert-throughput of run and profile: exit codes, the report, JSON, and what is refused."""

import json

import pytest

from tests.cli.test_results import check

QUICK = ("--device", "cpu", "--iterations", 120, "--warmup", 0, "--duration", 0)


@pytest.mark.parametrize("command", ["run", "profile"])
def test_held_and_failed(miniinfer, plan, tmp_path, command):
    flags = ("--assert-latency", "p99<10s,max<20s", "--assert-throughput", ">0.01", "--json", tmp_path / "r.json")
    outcome = miniinfer(command, plan, *QUICK, *flags)
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    told = lines[lines.index("=== Assertions ===") + 1 :]
    assert [line.rpartition(":")[0] for line in told] == ["p99<10s: held", "max<20s: held", ">0.01: held"]
    document = check(json.loads((tmp_path / "r.json").read_text()))
    assert [(a["assertion"], a["outcome"]) for a in document["assertions"]] == [
        ("p99<10s", "held"), ("max<20s", "held"), (">0.01", "held"),
    ]  # fmt: skip
    assert document["assertions"][1]["measured"] == pytest.approx(document["latency_ms"]["max"])

    flags = ("--assert-latency", "min<0.000001us", "--assert-latency", "max<20s", "--json", tmp_path / "r.json", "-q")
    outcome = miniinfer(command, plan, *QUICK, *flags)
    assert outcome.code == 1
    line, hint = outcome.err.splitlines()
    assert line.startswith(f"miniinfer: error: {plan}: min<0.000001us does not hold: min is ")
    assert hint.startswith("  hint: ")
    assert [a["outcome"] for a in json.loads((tmp_path / "r.json").read_text())["assertions"]] == ["failed", "held"]


def test_what_cannot_be_told(miniinfer, plan):
    flags = ("--assert-latency", "p99.9<10s")
    outcome = miniinfer("run", plan, *QUICK, *flags, "-q")
    assert outcome.code == 0
    assert outcome.err.startswith(f"miniinfer: warning: {plan}: p99.9<10s cannot be told: p99.9 is ")
    outcome = miniinfer("run", plan, *QUICK, *flags, "--strict")
    assert outcome.code == 1
    assert f"miniinfer: error: {plan}: p99.9<10s cannot be told: " in outcome.err
    assert "measure longer, by --duration" in outcome.err


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--assert-latency", "p99>5ms"), "'p99>5ms' is not of the form p99<5ms"),
        (("--assert-latency", "p99<5ms,"), "'' is not of the form p99<5ms"),
        (("--assert-latency", "p0<5ms"), "a percentile is above 0 and at most 100"),
        (("--assert-throughput", "2000"), "'2000' is not of the form >2000"),
        (("--strict",), "--strict: nothing is asserted"),
    ],
)
def test_wrong_flags(miniinfer, plan, flags, told):
    outcome = miniinfer("run", plan, *flags)
    assert (outcome.code, told in outcome.err, outcome.err.count("\n")) == (2, True, 2)


def test_a_sweep_has_no_one_measurement_to_assert_of(miniinfer, plan):
    outcome = miniinfer("profile", plan, "--streams", "1,2", "--assert-latency", "p99<5ms", "--assert-throughput", ">1")
    assert outcome.code == 2
    assert outcome.err.startswith("miniinfer: error: --assert-latency and --assert-throughput: a sweep measures several settings")


def test_conditions_are_told(miniinfer, plan):
    conditions = json.loads(miniinfer("run", plan, *QUICK, "--json", "-").out)["conditions"]
    assert conditions["cores"] >= 1
    assert conditions["other_processes"] is None
    assert conditions["slowdowns"] == []

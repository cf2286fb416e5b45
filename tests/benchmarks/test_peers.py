"""What the bench of peers makes of its rows, without a GPU."""

import pytest

from tests.benchmarks.peers import part_of
from tests.benchmarks.peers_table import best_peer, faults_of, floor_ms, merged, table_of


def row(**more):
    found = {
        "model": "bert_base", "dtype": "f16", "batch": 1, "device": "a GPU", "date": "2026-11-30", "versions": {"torch": "2.11"},
        "ms": {"eager": 3.6, "compile": 0.6, "miniinfer": 0.3}, "error": {"eager": 1e-3, "compile": 1e-3, "miniinfer": 1.2e-3},
        "failed": {}, "floor_ms": 0.1, "waiting_ms": 0.4,
    }  # fmt: skip
    return {**found, **more}


def test_medians_of_times_and_the_largest_errors():
    rows = [row(ms={"eager": ms, "miniinfer": ms / 10}, error={"miniinfer": ms}, waiting_ms=ms) for ms in (3, 1, 8)]
    rows[1]["failed"] = {"compile": "no compiler"}
    found = merged(rows)
    assert found["ms"] == {"eager": 3, "miniinfer": 0.3}
    assert (found["error"], found["waiting_ms"], found["processes"]) == ({"miniinfer": 8}, 3, 3)
    assert found["failed"] == {"compile": "no compiler"}


def test_a_peer_that_ran_in_some_processes_counts():
    rows = [row(), row(ms={"compile": 0.8, "miniinfer": 0.3})]
    assert merged(rows)["ms"]["eager"] == 3.6
    assert merged(rows)["ms"]["compile"] == pytest.approx(0.7)


def test_the_fastest_peer_is_the_one_to_beat():
    assert best_peer(row()) == ("compile", 0.6)
    assert best_peer(row(ms={"miniinfer": 0.3})) is None


def test_faults():
    assert faults_of([row()]) == []
    (wrong,) = faults_of([row(error={"eager": 1e-3, "miniinfer": 2e-3})])
    assert "error 2.0e-03" in wrong
    (nan,) = faults_of([row(error={"eager": 1e-3, "miniinfer": float("nan")})])
    assert "nan" in nan
    (alone,) = faults_of([row(ms={"miniinfer": 0.3})])
    assert "no peer" in alone
    (missing,) = faults_of([row(ms={"eager": 3.6, "miniinfer": 0.3}, failed={"compile": "no compiler"})])
    assert "without compile" in missing and "no compiler" in missing
    assert faults_of([row(batch=7, ms={"eager": 3.6, "miniinfer": 0.3})]) == []


def test_the_table_has_ratios():
    line = table_of([row()]).splitlines()[2]
    assert [cell.strip() for cell in line.strip("|").split("|")] == [
        "bert_base f16", "1", "3.600", "0.600", "0.300", "0.50", "3.00", "1.2e-03 (1.0e-03)", "1", "2026-11-30",
    ]  # fmt: skip


def test_parts():
    names = ["a", "b", "c", "d", "e"]
    assert sorted(part_of(names, "1/2") + part_of(names, "2/2")) == names
    for wrong in ("0/2", "3/2", "1", "x/y"):
        with pytest.raises(ValueError, match="part"):
            part_of(names, wrong)


def test_the_floor_is_the_longer_of_two():
    assert floor_ms(2e12, 1e9, 500, 4000) == pytest.approx(4.0)
    assert floor_ms(0, 4e9, 500, 4000) == pytest.approx(1.0)
    assert floor_ms(1, 1, None, 4000) is None

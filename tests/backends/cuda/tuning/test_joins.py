"""Joins are tuned as tactics are: tried alone and in the plan, kept under the signature of their nodes, found again."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine_format import Plan, RecordChooser, read_plan, write_plan
from miniinfer_cli.backends.choosing import Chooser
from miniinfer_cli.backends.cuda.choice.joining import APART
from miniinfer_cli.backends.cuda.contract.program import CudaProgram
from miniinfer_cli.backends.cuda.tactics.convolution.excitation_launch import Excitation
from miniinfer_cli.backends.cuda.tuning.candidates import FAST
from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.devices.tuning import Tuned, TuningOptions, tune_plan
from miniinfer_cli.passes.fuse_conv import fuse_conv
from miniinfer_cli.planning.freeze import freeze
from miniinfer_cli.runtime import trust
from tests.backends.cuda.tuning.fake_clock import FakeClock
from tests.emulation.device import EmulatedDevice
from tests.emulation.engine import load_emulated, open_emulated
from tests.graph_text import typed_graph

QUICK = replace(FAST, rounds=2, copies=1, pairs=12)
# Twice the same pair of products.
TEXT = """
graph main(x: f32[n,1,1,24], v: f32[8,1,1,24], w: f32[24,1,1,8]) {
  a = miniinfer.ConvNHWC(x, v)
  b = Relu(a)
  c = miniinfer.ConvNHWC(b, w)
  d = Sigmoid(c)
  e = miniinfer.ConvNHWC(d, v)
  f = Relu(e)
  g = miniinfer.ConvNHWC(f, w)
  h = Sigmoid(g)
  return h
}
"""
PAIRS = ("a + c", "e + g")


@pytest.fixture(autouse=True)
def own_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    trust.user_key(make=True)


@pytest.fixture(params=[True, False], ids=["joined", "apart"])
def by_heuristic(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the heuristic joins."""
    monkeypatch.setattr(Excitation, "gain_us", lambda self, share: 1.0 if request.param else -1.0)
    return bool(request.param)


def plan() -> Plan:
    graph = typed_graph(TEXT)
    assert fuse_conv(graph) == 4
    return freeze(graph)


def clock(fast: str) -> FakeClock:
    """By which one way takes half of what the others take; a plan 200 for each pair that goes that way, 400 for each other."""

    def whole(made: CudaProgram, total: float) -> float:
        joined = sum(s.choice is not None and s.choice.join is not None for s in made.steps)
        return 200.0 * (joined if fast != APART else 2 - joined) + 400.0 * (2 - joined if fast != APART else joined)

    return FakeClock({fast: 50.0}, plan=whole)


def tune(source: Plan, times: FakeClock, **options: Any) -> Tuned:
    gpu = EmulatedDevice()
    at: Mapping[str, Any] = {"n": [4]}
    effort, wanted = options.pop("effort", QUICK), TuningOptions(at=at, **options)
    tuned = tune_plan(source, "cuda:0", wanted, DeviceOptions(), load=load_emulated(gpu), effort=effort, clock=times)
    assert gpu.leftovers == {}
    return tuned


def joined(source: Plan, images: int, **options: Any) -> tuple[list[Any], tuple[str, ...]]:
    """Label, and who chose the join, of each step of one; the notes. The result is right."""
    rng = np.random.default_rng(0)
    x, v, w = (rng.standard_normal(s, np.float32) for s in ((images, 1, 1, 24), (8, 1, 1, 24), (24, 1, 1, 8)))
    with open_emulated(source, options=DeviceOptions(**options)) as engine:
        (got,) = engine.run({"x": x, "v": v, "w": w}).values()
        steps = engine.program([x, v, w]).steps
        found = [(s.label, s.choice.join.chosen_by) for s in steps if s.choice is not None and s.choice.join is not None]
        notes = engine.notes
    want = x[:, 0, 0]
    for _ in range(2):
        want = 1 / (1 + np.exp(-np.maximum(want @ v[:, 0, 0].T, 0) @ w[:, 0, 0].T))
    np.testing.assert_allclose(got[:, 0, 0], want, atol=1e-3)
    return found, notes


def test_what_is_faster_is_kept_and_found_again(by_heuristic: bool) -> None:
    fast = APART if by_heuristic else "excitation"
    tuned = tune(plan(), clock(fast))
    for point in tuned.points:
        (change,) = (c for c in point.changes if c.labels == PAIRS)
        assert change.kept and (change.before.time_us, change.after.time_us) == (100, 50)
        assert {change.before.candidate.key, change.after.candidate.key} == {APART, "excitation"}
        assert (point.untuned_us, point.tuned_us) == (800, 400)
    (section,) = tuned.plan.targets
    records = [r for r in section.records if r.signature.startswith("joined {")]
    assert [(r.key, r.time_us, r.chosen_by) for r in records] == [(fast, 50.0, RecordChooser.TIMED)] * 2
    if fast != APART:
        assert {section.kernels[n].name for n in records[0].kernels} == {"excitation"}
    for images, chooser in ((4, Chooser.PLAN), (7, Chooser.PLAN_NEAR), (9, Chooser.HEURISTIC)):
        taken = by_heuristic if chooser is Chooser.HEURISTIC else not by_heuristic
        assert joined(tuned.plan, images) == ([(p, chooser) for p in PAIRS] if taken else [], ())
    assert joined(tuned.plan, 4, disable_tactics=["excitation"])[0] == []
    assert joined(tuned.plan, 4, tactics={"c": "excitation"})[0][0] == ("a + c", Chooser.FORCED)


def test_what_is_no_faster_is_not(by_heuristic: bool) -> None:
    tuned = tune(plan(), clock("excitation" if by_heuristic else APART))
    assert [c for p in tuned.points for c in p.changes if c.labels == PAIRS] == []
    records = [r for p in tuned.points for r in p.records if r.signature.startswith("joined {")]
    assert [(r.key, r.chosen_by) for r in records] == [("excitation" if by_heuristic else APART, RecordChooser.HEURISTIC)] * 2


def test_of_nodes_that_a_join_takes_nothing_else_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what would be tried in the plan, nor what is beyond the effort and faster alone: nobody would launch it."""
    monkeypatch.setattr(Excitation, "gain_us", lambda self, share: -1.0)
    slow = {"gemv_along_k": 200.0, "direct": 200.0}
    times = clock("excitation")
    times.times = {**times.times, **slow}
    changes = [c for p in tune(plan(), times, effort=replace(QUICK, races=1)).points for c in p.changes]
    assert {c.labels for c in changes} == {PAIRS, ("a", "e"), ("c", "g")}
    assert {c.labels for c in changes if c.kept} == {PAIRS}
    changes = [c for p in tune(plan(), FakeClock(slow), effort=replace(QUICK, races=0)).points for c in p.changes]
    assert {c.labels for c in changes if c.kept} == {("a", "e"), ("c", "g")}


def test_a_timing_cache_knows_joins(by_heuristic: bool, tmp_path: Path) -> None:
    fast = APART if by_heuristic else "excitation"
    cache = tmp_path / "cache"
    tune(plan(), clock(fast), timing_cache=cache)
    again = clock(fast)
    tuned = tune(plan(), again, timing_cache=cache)
    assert fast not in again.asked and tuned.changed
    assert joined(plan(), 4, timing_cache=cache)[0] == ([] if by_heuristic else [(p, Chooser.CACHE) for p in PAIRS])


def test_a_tuned_plan_without_records_of_joins_opens_as_before(by_heuristic: bool, tmp_path: Path) -> None:
    """As an older build wrote it."""
    tuned = tune(plan(), clock(APART if by_heuristic else "excitation"))
    (section,) = tuned.plan.targets
    older = replace(section, records=tuple(r for r in section.records if not r.signature.startswith("joined {")), signature=b"")
    write_plan(tuned.plan.with_target(older), tmp_path / "older.plan")
    with read_plan(tmp_path / "older.plan") as back:
        assert joined(back, 4)[0] == ([(p, Chooser.HEURISTIC) for p in PAIRS] if by_heuristic else [])

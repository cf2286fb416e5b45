"""Tuning from end to end on the emulated device, with times that a fake clock makes up: what is stored, found, rejected ..."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine_format import Plan, RecordChooser, read_plan, write_plan
from miniinfer_cli.backends.choosing import Chooser
from miniinfer_cli.backends.cuda.choice.stored import read_timing_cache
from miniinfer_cli.backends.cuda.tuning import tuner
from miniinfer_cli.backends.cuda.tuning.candidates import FAST, FULL
from miniinfer_cli.backends.cuda.tuning.race import Version
from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.devices.tuning import Tuned, TuningOptions, tune_plan
from miniinfer_cli.errors import OutOfMemoryError, UsageError
from miniinfer_cli.runtime import trust
from tests.backends.cuda.tuning.fake_clock import FakeClock
from tests.emulation.device import EmulatedDevice
from tests.emulation.engine import load_emulated, open_emulated, plan_of
from tests.emulation.libraries import EmulatedLibraries
from tests.logs import Logged

QUICK = replace(FAST, rounds=2, copies=1, pairs=12)
TEXT = """
graph main(x: f32[batch,24], w: f32[24,16]) {
  t: f32[batch,16] = MatMul(x, w)
  y: f32[batch,16] = Tanh(t)
  return y
}
"""
LIBRARY = {"cublaslt way 0": 40.0, "cublaslt way 1": 60.0}


@pytest.fixture(autouse=True)
def own_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    trust.user_key(make=True)


def tune(
    plan: Plan,
    clock: FakeClock | Mapping[str, float],
    libraries: EmulatedLibraries | None = None,
    device: EmulatedDevice | None = None,
    **options: Any,
) -> Tuned:
    """Tuned at batch 8 alone, and nothing is left behind."""
    gpu = device or EmulatedDevice()
    clock = clock if isinstance(clock, FakeClock) else FakeClock(clock)
    effort = options.pop("effort", QUICK)
    settings = options.pop("settings", DeviceOptions())
    tuned = tune_plan(
        plan, "cuda:0", TuningOptions(**options), settings, load=load_emulated(gpu, libraries), effort=effort, clock=clock
    )
    assert gpu.leftovers == {}
    return tuned


def choices(
    plan: Plan, batch: int, libraries: EmulatedLibraries | None = None, **options: Any
) -> tuple[list[Any], tuple[str, ...]]:
    """Key, chooser and time of each step, and the notes; the result is right."""
    with open_emulated(plan, options.pop("device", None), libraries=libraries, options=DeviceOptions(**options)) as engine:
        random = np.random.default_rng(0)
        x, w = (random.standard_normal(s, np.float32) for s in ((batch, 24), (24, 16)))
        y = engine.run({"x": x, "w": w})["y"]
        np.testing.assert_allclose(y, np.tanh(x @ w), atol=1e-3)
        steps = engine.program_for_shapes({"x": (batch, 24)}).steps
        return [(s.choice.key, s.choice.chosen_by, s.choice.time_us) for s in steps if s.choice is not None], engine.notes


def plan_at(batch: int, **more: Any) -> Plan:
    return plan_of(TEXT.replace("batch", str(batch)), **more)


def test_the_fastest_is_stored_and_found_again() -> None:
    tuned = tune(plan_of(TEXT), LIBRARY, EmulatedLibraries(ways=2), at={"batch": [8]})
    assert [(p.sizes, p.signatures, p.untuned_us, p.tuned_us) for p in tuned.points] == [
        ({"batch": 1}, 1, 200, 140),
        ({"batch": 8}, 1, 200, 140),
    ]
    (section,) = tuned.plan.targets
    assert (section.arch, section.libraries) == ("sm_90", {"numpy": "1.0"})
    assert section.gpu is not None and (section.gpu.name, section.gpu.multiprocessors, section.gpu.l2_nbytes) == (
        "emulated",
        4,
        1 << 20,
    )
    assert [(r.key, r.opaque, r.time_us, r.maker) for r in section.records] == [("cublaslt", {"way": 0}, 40.0, "numpy 1.0")] * 2
    after = ("pointwise", Chooser.HEURISTIC, None)
    libraries = EmulatedLibraries(ways=2)
    assert choices(tuned.plan, 8, libraries) == ([("cublaslt", Chooser.PLAN, 40.0), after], ())
    assert choices(tuned.plan, 13, libraries) == ([("cublaslt", Chooser.PLAN_NEAR, 40.0), after], ())
    assert choices(tuned.plan, 17, libraries) == ([("cublaslt", Chooser.HEURISTIC, None), after], ())


def test_a_library_searches_only_where_no_record_says_its_way() -> None:
    tuned = tune(plan_at(8), LIBRARY, EmulatedLibraries(ways=2))
    libraries = EmulatedLibraries(ways=2)
    assert choices(tuned.plan, 8, libraries)[0][0][0] == "cublaslt"
    assert libraries.asked and libraries.searched == []
    assert choices(replace(tuned.plan, targets=()), 8, libraries)[0][0][0] == "cublaslt"
    assert libraries.searched


def test_a_tactic_of_ours_brings_its_kernels() -> None:
    tuned = tune(plan_at(8), {"gemm 64x64": 50.0})
    (section,) = tuned.plan.targets
    (record,) = section.records
    assert (record.key, record.opaque, [section.kernels[n].name for n in record.kernels]) == ("gemm 64x64", {}, ["gemm"])
    assert {k.name for k in section.kernels} > {"gemm"}  # those of the whole program
    assert choices(tuned.plan, 8)[0][0] == ("gemm 64x64", Chooser.PLAN, 50.0)


def test_what_the_user_wants_counts_more() -> None:
    tuned = tune(plan_at(8), {"gemm 64x64": 50.0})
    assert choices(tuned.plan, 8, tactics={"t": "gemm 128x128"})[0][0] == ("gemm 128x128", Chooser.FORCED, None)
    found, notes = choices(tuned.plan, 8, disable_tactics=["gemm 64x64"])
    assert found[0][1] is Chooser.HEURISTIC and notes == ()
    assert choices(tuned.plan, 8, trust_targets="never")[0][0][1] is Chooser.HEURISTIC


@pytest.mark.parametrize("what", ["maker", "key", "claims", "opaque", "refused"])
def test_a_record_that_cannot_be_taken_costs_speed_and_is_told_once(what: str) -> None:
    libraries = EmulatedLibraries(ways=2)
    tuned = tune(plan_at(8), LIBRARY, libraries)
    (section,) = tuned.plan.targets
    (record,) = section.records
    reason = "this release has no such tactics there"
    if what == "maker":
        libraries.version = "2.0"
        reason = "they were made by numpy 1.0, and here is numpy 2.0"
    elif what == "opaque":
        libraries.ways = 0
        reason = "the library refuses its algorithms"
    elif what == "refused":
        libraries = EmulatedLibraries(lambda problem: True)
        reason = "the library refuses its algorithms"
    else:
        record = replace(record, **{what: "warp" if what == "key" else 3})
    plan = replace(tuned.plan, targets=(replace(section, records=(record,)),))
    found, notes = choices(plan, 8, libraries, trust_targets="always")
    assert found[0][1] is Chooser.HEURISTIC
    assert notes == (f"1 tactic record of the plan passed over ({reason}): miniinfer tune makes new ones",)


def test_another_gpu_is_told_of_and_keeps_its_section() -> None:
    tuned = tune(plan_at(8), {"gemm 64x64": 50.0})
    other = EmulatedDevice()
    other.name, other.multiprocessors = "another", 8
    found, notes = choices(tuned.plan, 8, device=other)
    assert found[0][1] is Chooser.HEURISTIC
    assert notes == ("the plan was tuned on emulated, and runs untuned on this another: miniinfer tune adds what is best here",)
    second = EmulatedDevice()
    second.name, second.multiprocessors = "another", 8
    both = tune(tuned.plan, {"gemm 128x128": 50.0}, device=second)
    assert [s.gpu.name for s in both.plan.targets if s.gpu is not None] == ["emulated", "another"]
    assert choices(both.plan, 8)[0][0][0] == "gemm 64x64"
    third = EmulatedDevice()
    third.name, third.multiprocessors = "another", 8
    assert choices(both.plan, 8, device=third)[0][0][0] == "gemm 128x128"


def test_wrong_results_are_rejected_however_fast() -> None:
    libraries = EmulatedLibraries(ways=2, wrong={0})
    tuned = tune(plan_at(8), {"cublaslt way 0": 1.0, "cublaslt way 1": 60.0}, libraries)
    (point,) = tuned.points
    assert (point.rejected, [r.opaque for r in point.records]) == (1, [{"way": 1}])


def test_results_that_differ_from_run_to_run_are_rejected() -> None:
    libraries = EmulatedLibraries(ways=2, unsteady={1})
    tuned = tune(plan_at(8), {"cublaslt way 0": 60.0, "cublaslt way 1": 1.0}, libraries)
    (point,) = tuned.points
    assert (point.rejected, [r.opaque for r in point.records]) == (1, [{"way": 0}])


def test_where_nothing_is_faster_the_plan_is_as_it_was() -> None:
    plan = plan_at(8)
    tuned = tune(plan, {})
    assert tuned.plan is plan and not tuned.changed
    (point,) = tuned.points
    assert [(r.chosen_by, r.time_us) for r in point.records] == [(RecordChooser.HEURISTIC, 100.0)]
    assert (point.untuned_us, point.tuned_us, point.dropped) == (None, None, False)


def test_what_the_plan_is_no_faster_with_is_not_kept() -> None:
    clock = FakeClock({"gemm 64x64": 50.0}, plan=lambda made, total: 200.0)
    tuned = tune(plan_at(8), clock)
    (point,) = tuned.points
    assert [c.kept for c in point.changes] == [False] and not tuned.changed
    assert point.records[0].chosen_by is RecordChooser.HEURISTIC


def test_what_there_is_no_memory_to_race_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    class Scarce(Version):
        def __init__(self, *args: Any) -> None:
            made.append(args)
            if len(made) > 1:
                args[0].close()
                raise OutOfMemoryError("2.0 MiB needed, 1.0 MiB free on cuda:0")
            super().__init__(*args)

    monkeypatch.setattr(tuner, "Version", Scarce)
    tuned = tune(plan_at(8), {"gemm 64x64": 50.0})
    assert len(made) == 2 and not tuned.changed and [c.kept for c in tuned.points[0].changes] == [False]


def test_a_tuned_plan_that_is_slower_as_a_whole_is_dropped() -> None:
    calls: list[float] = []

    def plan(made: Any, total: float) -> float:
        calls.append(total)
        return total if len(calls) <= 2 * QUICK.pairs else 200.0 + (len(calls) % 3)

    tuned = tune(plan_at(8), FakeClock({"gemm 64x64": 50.0}, plan=plan))
    (point,) = tuned.points
    assert point.dropped and not tuned.changed and tuned.plan.targets == ()
    assert all(r.chosen_by is RecordChooser.HEURISTIC for r in point.records)


def test_an_interruption_keeps_what_was_found() -> None:

    text = """
      graph main(x: f32[8,24], w: f32[24,16], v: f32[16,20]) {
        t: f32[8,16] = MatMul(x, w)
        y: f32[8,20] = MatMul(t, v)
        return y
      }
    """

    class StopsAtTheSecond(FakeClock):
        def trial_us(self, name: str, measured_us: float) -> float:
            if len(self.asked) > first:
                raise KeyboardInterrupt
            return super().trial_us(name, measured_us)

    whole = FakeClock({"gemm 64x64": 50.0})
    tune(plan_of(text), whole)
    first = len(whole.asked) // 2
    tuned = tune(plan_of(text), StopsAtTheSecond({"gemm 64x64": 50.0}))
    (point,) = tuned.points
    assert tuned.interrupted and tuned.changed and len(point.records) == 1
    assert [c.labels for c in point.changes] == [("t",)]


def test_a_timing_cache_spares_the_search_and_serves_other_plans(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    tune(plan_at(8), {"gemm 64x64": 50.0}, timing_cache=cache)
    (section,) = read_timing_cache(cache)
    assert [r.key for r in section.records] == ["gemm 64x64"]
    again = FakeClock({"gemm 64x64": 50.0})
    tuned = tune(plan_at(8), again, timing_cache=cache)
    assert again.asked == [] and tuned.changed and choices(tuned.plan, 8)[0][0][0] == "gemm 64x64"
    untuned = plan_at(8)
    assert choices(untuned, 8, timing_cache=cache)[0][0] == ("gemm 64x64", Chooser.CACHE, 50.0)
    tune(plan_at(16), {}, timing_cache=cache)
    (section,) = read_timing_cache(cache)
    assert [r.chosen_by for r in section.records] == [RecordChooser.HEURISTIC, RecordChooser.TIMED]
    other = EmulatedDevice()
    other.name = "another"
    tune(plan_at(8), {"gemm 128x128": 50.0}, device=other, timing_cache=cache)
    assert [s.gpu.name for s in read_timing_cache(cache) if s.gpu] == ["emulated", "another"]


def test_a_record_of_another_maker_in_the_timing_cache_is_found_anew(tmp_path: Path) -> None:
    cache, libraries = tmp_path / "cache", EmulatedLibraries(ways=2)
    tune(plan_at(8), LIBRARY, libraries, timing_cache=cache)
    libraries.version = "2.0"
    again = FakeClock({"cublaslt way 1": 30.0})
    tuned = tune(plan_at(8), again, libraries, timing_cache=cache)
    assert again.asked != []
    assert [(r.opaque, r.maker) for t in tuned.plan.targets for r in t.records] == [({"way": 1}, "numpy 2.0")]
    (section,) = read_timing_cache(cache)
    assert [r.maker for r in section.records] == ["numpy 2.0"]


def test_a_damaged_timing_cache_counts_as_empty_and_is_made_anew(tmp_path: Path, logged: Logged) -> None:
    cache = tmp_path / "cache"
    tune(plan_at(8), {"gemm 64x64": 50.0}, timing_cache=cache)
    whole = cache.read_bytes()
    cache.write_bytes(whole[:-1])
    assert choices(plan_at(8), 8, timing_cache=cache)[0][0][1] is Chooser.HEURISTIC
    assert "does not match its digest: the file is damaged; it counts as empty" in logged.text
    tune(plan_at(8), {"gemm 64x64": 50.0}, timing_cache=cache)
    assert cache.read_bytes() == whole
    cache.write_bytes(b"my thesis, which is no cache")
    with pytest.raises(UsageError, match="this is not a timing cache"):
        tune(plan_at(8), {}, timing_cache=cache)
    assert cache.read_bytes() == b"my thesis, which is no cache"
    cache.chmod(0o666)
    with pytest.raises(UsageError, match="everybody may write it"):
        read_timing_cache(cache)


def test_other_sizes_tuned_before_are_kept(tmp_path: Path) -> None:
    plan = plan_of(TEXT, written_to=tmp_path / "a.plan")
    first = tune(plan, {"gemm 64x64": 50.0}, at={"batch": [8]})
    write_plan(first.plan, tmp_path / "b.plan")
    with read_plan(tmp_path / "b.plan") as back:
        second = tune(back, {"gemm 128x128": 50.0}, at={"batch": [64]})
        (section,) = second.plan.targets
        assert {r.signature[:14]: r.key for r in section.records} == {
            "MatMul f32[1,2": "gemm 128x128",
            "MatMul f32[64,": "gemm 128x128",
            "MatMul f32[8,2": "gemm 64x64",
        }
        assert all(section.kernels[n].name == "gemm" for r in section.records for n in r.kernels)
    plan.close()


def test_throughput_runs_four_streams() -> None:
    tuned = tune(plan_at(8), {"gemm 64x64": 50.0}, aim="throughput")
    assert tuned.changed and tuned.points[0].records[0].key == "gemm 64x64"


def test_full_tries_all_and_fast_a_few() -> None:
    few, many = FakeClock({}), FakeClock({})
    libraries = EmulatedLibraries(ways=30)
    tune(plan_at(8), few, libraries)
    tune(plan_at(8), many, libraries, effort=replace(FULL, rounds=2, copies=1, pairs=12))
    assert len(set(few.asked)) == 1 + FAST.candidates
    assert len([n for n in set(many.asked) if "way" in n]) == FULL.variants


@pytest.mark.parametrize(
    ("at", "message"),
    [
        ({"seq": [1]}, "there is no dimension 'seq'"),
        ({"batch": list(range(1, 99))}, "98 sets of sizes, and at most 64"),
        ({"batch": [-1]}, "expected a list of sizes for 'batch'"),
        ({"batch": "8"}, "expected a list of sizes for 'batch'"),
    ],
)
def test_sizes_that_cannot_be_tuned_for(at: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        tune(plan_of(TEXT), {}, at=at)


LOOP = """
graph main(x: f32[8,24], w: f32[24,24], n: i64[]) {
  y: f32[8,24] = Loop(n, -, x, w) {n_captures=1}
    body: graph body(i: i64[], going: bool[], a: f32[8,24], v: f32[24,24]) {
      go: bool[] = Identity(going)
      b: f32[8,24] = MatMul(a, v)
      c: f32[8,24] = Tanh(b)
      return go, c
    }
  return y
}
"""


def test_bodies_of_loops_are_tuned_at_the_types_they_are_met_with() -> None:

    class Within(FakeClock):
        """Takes a plan for as fast as what its bodies are made by."""

        model: Any = None

        def plan_us(self, made: Any, measured_us: float) -> float:
            records = getattr(self.model.target.policy.table, "_records", {})
            return 500.0 if any(r.key == "gemm 64x64" for r in records.values()) else 1000.0

    clock, gpu = Within({"gemm 64x64": 50.0}), EmulatedDevice()
    load = load_emulated(gpu)

    def keeping(*args: Any) -> Any:
        clock.model = load(*args)
        return clock.model

    tuned = tune_plan(plan_of(LOOP), "cuda:0", TuningOptions(), DeviceOptions(), load=keeping, effort=QUICK, clock=clock)
    assert gpu.leftovers == {}
    (point,) = tuned.points
    assert [(c.labels, c.kept) for c in point.changes] == [(("b",), True)] and (point.untuned_us, point.tuned_us) == (1000, 500)
    with open_emulated(tuned.plan) as engine:
        random = np.random.default_rng(0)
        x, w = (random.standard_normal(s, np.float32) for s in ((8, 24), (24, 24)))
        y = engine.run({"x": x, "w": w, "n": np.array(2)})["y"]
        np.testing.assert_allclose(y, np.tanh(np.tanh(x @ w) @ w), atol=2e-2)
        model: Any = engine.model
        (program,) = model._nested._programs.values()
        assert [str(s.choice.chosen_by) for s in program.steps if s.label == "b"] == ["plan"]

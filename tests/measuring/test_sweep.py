"""The search of a sweep over simulated surfaces: near the best in a quarter of the settings, walls, noise, resuming."""

import math
import random
from collections.abc import Callable

import pytest

from miniinfer_cli.measuring.sweep import KNEE_GAIN, Sweep, run_sweep
from miniinfer_cli.measuring.sweep_points import Failed, Reading, Setting

Surface = Callable[[int, int], float | None]
GRIDS = {
    "4x12": ((1, 2, 4, 8), tuple(1 << n for n in range(12))),
    "8x8": ((1, 2, 3, 4, 6, 8, 12, 16), tuple(1 << n for n in range(8))),
    "3x16": ((1, 2, 4), (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)),
    "1x48": ((1,), tuple(range(1, 49))),
}


def rising(streams: int, batch: int, half: float = 24) -> float:
    """Throughput that nears 1000: half of it at a load of ``half``, to which streams add less than batches."""
    load = streams**0.5 * batch
    return 1000 * load / (load + half)


def plateau(streams: int, batch: int) -> float:
    return 1000 * min(1.0, streams**0.5 * batch / 20)


def cliff(streams: int, batch: int) -> float:
    return rising(streams, batch) * (1 if batch <= 24 else 0.45)


def two_knees(streams: int, batch: int) -> float:
    load = streams**0.5 * batch
    return 600 * min(1, load / 4) + 400 * min(1, max(0, load / 12 - 1))


def out_of_memory(streams: int, batch: int) -> float | None:
    return rising(streams, batch) if streams * batch <= 40 else None


SURFACES: dict[str, Surface] = {
    "plateau": plateau, "cliff": cliff, "two knees": two_knees, "noise": rising, "out of memory": out_of_memory,
}  # fmt: skip


class Machine:
    """Measures settings of a surface; an inference takes as long as its load and the throughput make it. Counts."""

    def __init__(self, surface: Surface, noise: float = 0.0, seed: int = 0) -> None:
        self.surface, self.noise, self.random = surface, noise, random.Random(seed)
        self.measured: list[Setting] = []

    def __call__(self, setting: Setting) -> Reading | Failed:
        self.measured.append(setting)
        true = self.surface(setting.streams, setting.batch)
        if true is None:
            return Failed("memory")
        throughput = true * max(0.5, self.random.gauss(1, self.noise))
        latency_ms = setting.load / throughput * 1e3
        return Reading(throughput, latency_ms, latency_ms * 1.1)


def best_of(sweep: Sweep, surface: Surface, fits: Callable[[Setting, float], bool] = lambda setting, true: True) -> float:
    trues = [(s, true) for s in sweep.settings if (true := surface(s.streams, s.batch)) is not None]
    return max((true for s, true in trues if fits(s, true)), default=math.nan)


def true_of(sweep: Sweep, surface: Surface) -> float:
    assert sweep.best is not None
    true = surface(sweep.best.setting.streams, sweep.best.setting.batch)
    assert true is not None
    return true


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", SURFACES)
def test_the_best_is_found_in_a_quarter_of_the_settings(name: str, grid: str):
    surface = SURFACES[name]
    sweep = Sweep(*GRIDS[grid])
    machine = Machine(surface, noise=0.05 if name == "noise" else 0.002, seed=1)
    run_sweep(sweep, machine)
    assert len(sweep.settings) >= 48
    assert len(set(machine.measured)) <= len(sweep.settings) / 4
    assert len(machine.measured) <= len(sweep.settings) / 2
    assert true_of(sweep, surface) >= 0.97 * best_of(sweep, surface)


def a_surface(name: str, draw: random.Random) -> Surface:
    """One of the same kinds with other figures: where it bends, falls and ends."""
    half, place, slope, depth = 2 ** draw.uniform(2, 7), 2 ** draw.uniform(2, 6), draw.uniform(0.2, 0.9), draw.uniform(0.3, 0.8)

    def load(streams: int, batch: int) -> float:
        return streams**slope * batch

    surfaces: dict[str, Surface] = {
        "plateau": lambda s, b: 1000 * min(1, load(s, b) / half),
        "cliff": lambda s, b: 1000 * load(s, b) / (load(s, b) + half) * (1 if b <= place else depth),
        "two knees": lambda s, b: (
            1000 * depth * min(1, load(s, b) / place) + 1000 * (1 - depth) * min(1, max(0, load(s, b) / place / 4 - 1))
        ),
        "noise": lambda s, b: 1000 * load(s, b) / (load(s, b) + half),
        "out of memory": lambda s, b: 1000 * load(s, b) / (load(s, b) + half) if s * b <= place * 4 else None,
    }
    return surfaces[name]


@pytest.mark.parametrize("name", SURFACES)
def test_it_is_found_on_other_surfaces_of_the_kind(name: str):
    """Nearly always: an edge that runs between all settings that were measured, or noise, may hide it."""
    found = 0
    for seed in range(20):
        draw = random.Random(seed)
        sweep = Sweep(*draw.choice(list(GRIDS.values())))
        surface = a_surface(name, draw)
        machine = Machine(surface, 0.05 if name == "noise" else 0.002, seed)
        run_sweep(sweep, machine)
        assert len(set(machine.measured)) <= len(sweep.settings) / 4
        found += true_of(sweep, surface) >= 0.97 * best_of(sweep, surface)
    assert found >= 17, f"{found} of 20"


@pytest.mark.parametrize("name", ["plateau", "two knees", "out of memory", "cliff"])
def test_the_best_within_a_latency_budget(name: str):
    surface = SURFACES[name]
    probe = Sweep(*GRIDS["4x12"])
    trues = [(s, t) for s in probe.settings if (t := surface(s.streams, s.batch))]
    latencies = sorted(s.load / t * 1e3 * 1.1 for s, t in trues)
    for part in (0.2, 0.35, 0.5, 0.65, 0.8):
        budget_ms = latencies[int(part * len(latencies))] * 1.01
        sweep = Sweep(*GRIDS["4x12"], budget_ms=budget_ms)
        machine = Machine(surface)
        run_sweep(sweep, machine)
        assert len(set(machine.measured)) <= len(sweep.settings) / 4
        within = sweep.best_within_budget
        assert within is not None and within.p99_ms <= budget_ms
        best = best_of(sweep, surface, lambda s, true, most=budget_ms: s.load / true * 1e3 * 1.1 <= most)
        assert within.throughput >= 0.97 * best


def test_no_setting_may_keep_to_the_budget():
    sweep = Sweep((1, 2, 4, 8), (1, 2, 4, 8), budget_ms=1e-6)
    run_sweep(sweep, Machine(rising))
    assert sweep.best is not None and sweep.best_within_budget is None


def test_a_failure_is_a_wall_for_what_is_larger():
    sweep = Sweep((1, 2, 4), (1, 2, 4), all_points=True)
    machine = Machine(lambda s, b: None if s >= 2 and b >= 2 else 100.0 * s * b)
    run_sweep(sweep, machine)
    assert list(sweep.failed) == [Setting(2, 2)]
    assert {s for s in sweep.settings if sweep.wall(s) == Setting(2, 2)} == {
        Setting(2, 2), Setting(2, 4), Setting(4, 2), Setting(4, 4),
    }  # fmt: skip
    assert {p.setting for p in sweep.points} == {Setting(1, 1), Setting(1, 2), Setting(1, 4), Setting(2, 1), Setting(4, 1)}


def test_nothing_can_be_measured():
    sweep = Sweep((1, 2), (1, 2))
    machine = Machine(lambda s, b: None)
    run_sweep(sweep, machine)
    assert machine.measured == [Setting(1, 1)]
    assert (sweep.best, sweep.knee, sweep.best_within_budget, sweep.points) == (None, None, None, ())


def test_a_setting_that_fails_when_it_is_measured_again_is_no_point():
    sweep = Sweep((1,), (1, 2))
    sweep.add(Setting(1, 1), Reading(10, 1, 1))
    sweep.add(Setting(1, 2), Reading(20, 1, 1))
    sweep.add(Setting(1, 2), Failed("memory"))
    assert [p.setting for p in sweep.points] == [Setting(1, 1)]
    assert sweep.best is not None and sweep.best.setting == Setting(1, 1)


def test_few_settings_are_all_measured_and_all_points_every_one():
    for sweep in (Sweep((1, 2, 4), (1, 2, 4, 8)), Sweep(*GRIDS["4x12"], all_points=True)):
        machine = Machine(rising)
        run_sweep(sweep, machine)
        assert set(machine.measured) == set(sweep.settings)


def test_without_noise_hardly_anything_is_measured_again():
    machine = Machine(rising)
    run_sweep(Sweep((1, 2, 4), (1, 2, 4, 8)), machine)
    assert len(machine.measured) <= 12 + 3


def test_noise_that_hides_the_best_is_measured_away():
    wins = {False: 0, True: 0}
    for seed in range(30):
        machine = Machine(lambda s, b: {1: 900.0, 2: 950.0, 4: 1000.0}[b], 0.05, seed)
        sweep = Sweep((1, 2, 4, 8), (1, 2, 4))
        run_sweep(sweep, machine)
        first = {}
        for point in sweep.points:
            first[point.setting] = point.readings[0].throughput
        wins[False] += max(first, key=lambda s: first[s]).batch == 4
        wins[True] += sweep.best is not None and sweep.best.setting.batch == 4
        assert len(machine.measured) <= 24
    assert wins[True] >= wins[False] + 2


def test_the_knee_is_the_least_load_behind_which_little_is_gained():
    sweep = Sweep((1,), (1, 2, 4, 8, 16))
    figures = {1: 100.0, 2: 190.0, 4: 300.0, 8: 325.0, 16: 329.0}
    run_sweep(sweep, Machine(lambda s, b: figures[b]))
    assert sweep.best is not None and sweep.best.setting == Setting(1, 16)
    assert sweep.knee is not None and sweep.knee.setting == Setting(1, 4)
    assert figures[16] < figures[4] * (1 + KNEE_GAIN) and figures[16] > figures[2] * (1 + KNEE_GAIN)


@pytest.mark.parametrize("grid", ["4x12", "8x8", "1x48"])
@pytest.mark.parametrize("name", ["plateau", "two knees", "cliff", "out of memory"])
def test_the_knee_is_near_where_it_would_be_if_all_were_measured(name: str, grid: str):
    surface, sweep = SURFACES[name], Sweep(*GRIDS[grid])
    run_sweep(sweep, Machine(surface))
    enough = [s for s in sweep.settings if (surface(s.streams, s.batch) or 0) * (1 + KNEE_GAIN) > best_of(sweep, surface)]
    assert sweep.knee is not None
    assert sweep.knee.setting.load <= 2 * min(s.load for s in enough)


@pytest.mark.parametrize(("half", "knee"), [(2, 14), (3, 18), (6, 26)])
def test_what_is_left_looks_for_the_knee_among_lighter_settings(half: float, knee: int):
    sweep = Sweep(*GRIDS["1x48"])
    run_sweep(sweep, Machine(lambda streams, batch: rising(streams, batch, half)))
    assert sweep.knee is not None and sweep.knee.setting == Setting(1, knee)
    assert len(sweep.points) <= 12


@pytest.mark.parametrize("name", SURFACES)
def test_a_sweep_goes_on_where_it_ended(name: str):
    whole = Machine(SURFACES[name], 0.05, seed=3)
    sweep = Sweep(*GRIDS["8x8"], budget_ms=40)
    outcomes: list[tuple[Setting, Reading | Failed]] = []

    def noted(setting: Setting) -> Reading | Failed:
        outcomes.append((setting, whole(setting)))
        return outcomes[-1][1]

    run_sweep(sweep, noted)
    for cut in (1, 7, len(outcomes) - 1):
        again = Sweep(*GRIDS["8x8"], budget_ms=40)
        for setting, outcome in outcomes[:cut]:
            again.add(setting, outcome)
        assert again.next_setting() == outcomes[cut][0]
    for setting, outcome in outcomes[cut:]:
        again.add(setting, outcome)
    assert again.next_setting() is None
    assert again.best == sweep.best


def test_a_large_sweep():
    machine = Machine(rising, 0.05)
    sweep = Sweep(tuple(range(1, 17)), tuple(range(1, 17)))
    run_sweep(sweep, machine)
    assert len(set(machine.measured)) <= 64

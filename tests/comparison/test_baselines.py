"""Times of before beside those of now: what a document holds, which machine is the same, and what the difference says."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from miniinfer_cli.comparison.alone import measure_alone
from miniinfer_cli.comparison.baselines import (
    LATENCY,
    TIME,
    Found,
    Measurement,
    judge_apart,
    judge_found,
    machine_differences,
    setting_differences,
    unsteadiness,
)
from miniinfer_cli.comparison.pair_tests import Relation
from tests.comparison.test_race import Machine

RUN = {
    "kind": "run",
    "device": "cuda:0",
    "device_facts": {"name": "H200", "driver": "13.0"},
    "host": {"name": "a", "processor": "Xeon", "cores": 16},
    "versions": {"miniinfer": "1", "python": "3.11", "numpy": "2.1", "cuDNN": "9.19"},
    "settings": {"streams": 1, "data_transfers": True, "cuda_graph": True, "overlap": True, "pdl": True, "scheduling": "auto"},
    "inputs": [{"name": "x", "shape": [8, 4]}],
    "latency_ms": {"median": 2.0, "mean": 2.1, "p90": 2.02},
}
B = {"workers_ms": [1.0, 1.1], "latency_medians_ms": [0.9, 1.0], "latency_ms": {"median": 1.0, "mean": 1.0, "p90": 1.03}}
COMPARED = {
    "kind": "compare",
    "b": {key: RUN[key] for key in ("device", "device_facts", "host", "versions")},
    "settings": RUN["settings"],
    "cases": [{"inputs": RUN["inputs"], "times": {"b": B}}],
}


def test_what_documents_hold():
    run, compared = Found.of(RUN), Found.of(COMPARED)
    assert run.measurement == Measurement((), [2.0], math.log(1.01))
    assert compared.measurement == Measurement([1.0, 1.1], [0.9, 1.0], math.log(1.03))
    assert run.shapes == compared.shapes == {"x": [8, 4]}
    assert machine_differences(run, compared) == setting_differences(run, compared) == []


@pytest.mark.parametrize(
    "document",
    [
        {**RUN, "latency_ms": {}},
        {**RUN, "latency_ms": {"median": 0.0, "mean": 1.0}},
        {**RUN, "latency_ms": {"median": None, "mean": 1.0}},
        {**RUN, "inputs": None},
        {**RUN, "host": None},
        {**COMPARED, "cases": []},
        {**COMPARED, "cases": [{"inputs": [], "times": None}]},
        {**COMPARED, "cases": [{"inputs": [], "times": {"b": None}}]},
    ],
)
def test_documents_that_hold_no_times(document):
    with pytest.raises(ValueError, match=r"what it holds is not complete|no times were compared|is not above 0"):
        Found.of(document)


def test_the_same_machine_is_not_its_name():
    old = Found.of(RUN)

    def told(**changes):
        return machine_differences(old, Found.of({**RUN, **changes}))

    assert told(host={**RUN["host"], "name": "b"}, device="cuda:1") == []
    assert told(versions={**RUN["versions"], "numpy": "2.9", "miniinfer": "2", "python": "3.13", "NVRTC": "13"}) == []
    assert told(device_facts={"name": "H200", "driver": "13.5"}) == []
    assert told(device_facts={"name": "A100", "driver": "12.8"}) == ["GPU: H200 then, A100 now", "driver: 13 then, 12 now"]
    assert told(host={"processor": "EPYC", "cores": 2}) == [
        "processor: Xeon then, EPYC now", "processor cores: 16 then, 2 now",
    ]  # fmt: skip
    assert told(versions={**RUN["versions"], "cuDNN": "10.0"}) == ["major version of cuDNN: 9 then, 10 now"]
    assert told(device="cpu") == ["device: cuda then, cpu now"]
    one = {**RUN, "device": "cpu", "device_facts": {"name": "cpu", "threads": 1}}
    two = {**one, "device_facts": {"name": "cpu", "threads": 2}}
    assert machine_differences(Found.of(one), Found.of(two), ("A", "B")) == ["threads of an inference: 1 A, 2 B"]


def test_what_was_measured_otherwise():
    old = Found.of(RUN)
    other = Found.of({**RUN, "settings": {**RUN["settings"], "streams": 4}, "inputs": [{"name": "x", "shape": [1, 4]}]})
    assert setting_differences(old, other) == ["streams: 1 then, 4 now", "inputs: x 8x4 then, x 1x4 now"]
    assert setting_differences(old, replace(old, settings={})) == []  # flags that a document does not have are as by default


def test_one_process_before_and_several_now():
    rng = np.random.default_rng(2)
    found = {change: Counter() for change in (0.0, 0.1)}
    for change, counts in found.items():
        for _ in range(200):
            before, now = np.exp(rng.normal(0, 0.01, 1)), np.exp(rng.normal(change, 0.01, 8))
            counts[judge_apart(before, now, 0.02).relation] += 1
    assert found[0.0][Relation.SLOWER] + found[0.0][Relation.FASTER] <= 6  # 2 are expected
    assert found[0.1][Relation.SLOWER] >= 195
    assert judge_apart([1.0] * 8, [1.001] * 7 + [0.999], 0.02).relation is Relation.EQUAL


def test_what_days_apart_cannot_tell():
    few = judge_apart([1.0], [2.0, 2.0, 2.0], 0.02)
    assert (few.relation, few.too_few, few.change) == (Relation.CANNOT_TELL, True, pytest.approx(1.0))
    assert few.why == "1 process of A and 3 processes of B do not show how far processes are apart"
    assert judge_apart([1.0], [], 0.02).change is None
    now = [1.2 + i / 1000 for i in range(8)]
    assert judge_apart([1.0], now, 0.02).relation is Relation.SLOWER
    assert judge_apart([1.0], now, 0.02, unsteady=0.04).relation is Relation.SLOWER
    shaky = judge_apart([1.0], now, 0.02, unsteady=0.06)
    assert (shaky.relation, shaky.why) == (
        Relation.CANNOT_TELL, "inferences of one process differ by 6.0 %, so times of different days say nothing",
    )  # fmt: skip
    wide = judge_apart([1.0], [1.02, 1.04] * 4, 0.02, unsteady=0.03)
    assert (wide.relation, wide.why) == (Relation.CANNOT_TELL, "processes differ too much among themselves")


def test_figures_of_one_kind_are_compared():
    workers = [1.0 + i / 1000 for i in range(8)]
    now = Measurement(workers, [2 * t for t in workers], 0.01)
    assert judge_found(Measurement((), [2.0], 0.01), now, 0.05)[1] == LATENCY
    verdict, what = judge_found(Measurement(workers, [9.0]), now, 0.05)
    assert (verdict.relation, what) == (Relation.EQUAL, TIME)


def test_unsteadiness():
    assert unsteadiness({"median": 2.0, "p90": 2.2, "mean": 9.0}) == pytest.approx(math.log(1.1))
    assert unsteadiness({"median": 2.0, "mean": 2.2}) == pytest.approx(math.log(1.1))
    assert unsteadiness({"median": 2.0, "mean": 1.9}) == 0.0


def alone(machine, budget_s=30.0):
    return measure_alone(
        lambda: machine.start("B"), budget_s, cores=2, threads=2, on_cpu=True, clock=lambda: machine.at, now=machine.now
    )


def test_workers_alone():
    machine = Machine(factor=3.0, spread=0.01)
    found = alone(machine)
    assert (len(found.times_ms), found.disturbed, machine.open, machine.started) == (8, 0, 0, ["B"] * 8)
    assert found.measurement.latencies_ms == pytest.approx(found.times_ms, rel=0.01)
    assert np.mean(found.times_ms) == pytest.approx(6.0, rel=0.03)
    assert found.measurement.unsteady < 0.03
    slow = Machine(start_s=20.0)
    assert len(alone(slow).times_ms) == 4  # as few as tell anything, whatever time they take
    loaded = Machine(foreign=lambda pair: 1.0)
    found = alone(loaded, 10.0)
    assert (found.times_ms, found.measurement.unsteady) == ([], 0.0)
    assert found.disturbed >= 4

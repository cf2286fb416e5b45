"""A Batcher over several GPUs (emulated ones): who computes what, where weights come from, and what is given back."""

import math
import threading
import time

import numpy as np
import pytest

from miniinfer_cli import Batcher
from miniinfer_cli.devices import several
from miniinfer_cli.devices.several import device_names
from miniinfer_cli.errors import DeviceError, OutOfMemoryError, UsageError
from miniinfer_cli.runtime.engine import Engine
from miniinfer_cli.serving.device_tally import DeviceTally
from tests.emulation.device import EmulatedDevice
from tests.emulation.engine import load_emulated, plan_of
from tests.forked import in_forked_child
from tests.serving.staged import DOUBLE, WAIT_S, Staged, open_cpu, row
from tests.serving.test_desk import Clocked, Watched, placed

WEIGHTED = """
graph main(x: f32[n,3]) {
  w: f32[3] = const [1.0, 2.0, 3.0]
  y = Mul(x, w)
  return y
}
"""


class Host:
    """GPUs of one host, made as engines ask for them."""

    def __init__(self, **limits: int) -> None:
        self.gpus: dict[str, EmulatedDevice] = {}
        self.limits = limits

    def load(self, graph, name, options, recorded, beside=None):
        limit = self.limits.get(name.replace(":", ""), 4 << 30)
        self.gpus[name] = EmulatedDevice(limit, ordinal=int(name.partition(":")[2]))
        return load_emulated(self.gpus[name])(graph, name, options, recorded, beside)

    def open(self, plan, device="cuda:0"):
        return Engine(plan, device, load=self.load)

    def expect_nothing_left(self, *names):
        assert [self.gpus[n].leftovers for n in names] == [{}] * len(names)
        assert all(self.gpus[n].closed for n in names)


@pytest.fixture
def plan(tmp_path):
    with plan_of(WEIGHTED, written_to=tmp_path / "w.plan") as made:
        yield made


def test_each_gpu_computes_its_share_with_weights_that_were_read_once(plan):
    host = Host()
    names = ["cuda:0", "cuda:1", "cuda:2"]
    with host.open(plan) as engine, Batcher(engine, 2, 1, devices=names) as batcher:
        assert sorted(host.gpus) == names
        rows, until = 0, time.monotonic() + WAIT_S
        while rows == 0 or not all(d["batches"] for d in batcher.stats()["devices"].values()):
            assert time.monotonic() < until  # threads of a busy machine take a while to wake
            futures = [batcher.submit(row(n)) for n in range(200)]
            assert [f.result(WAIT_S)["y"].tolist() for f in futures] == [[[n, 2, 6]] for n in range(200)]
            rows += 200
        batcher.close()
        stats = batcher.stats()
        assert list(stats["devices"]) == names and stats["contexts"] == 6
        assert sum(d["rows"] for d in stats["devices"].values()) == rows
        assert sum(d["batches"] for d in stats["devices"].values()) == stats["batches"]
        assert {d["under_way"] for d in stats["devices"].values()} == {0}
        weights = plan.weights_range()[1]
        peers = [[n for way, n in host.gpus[name].copies if way == "from peer"] for name in names]
        assert peers == [[], [weights], [weights]]
    host.expect_nothing_left("cuda:1", "cuda:2")


def test_graphs_are_captured_on_each_gpu(plan):
    host = Host()
    with host.open(plan) as engine, Batcher(engine, 1, 1, devices=["cuda:0", "cuda:1"], contexts=1) as batcher:
        batcher.warm_up(row(1))
        assert [gpu.alive["graph"] > 0 for gpu in host.gpus.values()] == [True, True]


def test_an_engine_whose_device_is_not_among_them_is_left_alone(plan):
    host = Host()
    with host.open(plan) as engine:
        with Batcher(engine, 1, devices="cuda:1, cuda:2") as batcher:
            assert batcher.submit(row(5)).result(WAIT_S)["y"].tolist() == [[5, 2, 6]]
            assert list(batcher.stats()["devices"]) == ["cuda:1", "cuda:2"]
        host.expect_nothing_left("cuda:1", "cuda:2")
        assert engine.run(row(5))["y"].tolist() == [[5, 2, 6]]


def test_where_one_gpu_has_no_room_all_are_given_back(plan):
    host = Host(cuda2=100)
    with host.open(plan) as engine:
        with pytest.raises(OutOfMemoryError):
            Batcher(engine, 1, devices=["cuda:0", "cuda:1", "cuda:2"])
        host.expect_nothing_left("cuda:1")
        assert host.gpus["cuda:2"].leftovers == {}


def test_a_plan_in_memory_is_sent_to_each():
    host = Host()
    with host.open(plan_of(WEIGHTED)) as engine, Batcher(engine, 1, 0, devices="cuda:0,cuda:1") as batcher:
        futures = [batcher.submit(row(n)) for n in range(20)]
        assert [f.result(WAIT_S)["y"][0, 0] for f in futures] == list(range(20))
        ways = {way for way, _ in host.gpus["cuda:1"].copies}
        assert "to device" in ways and "from peer" not in ways


def test_one_device_is_the_engine_itself():
    with open_cpu() as engine:
        for devices in ("auto", "cpu", ["cpu"], None):
            with Batcher(engine, 1, devices=devices) as batcher:
                assert list(batcher.stats()["devices"]) == ["cpu"]
        with pytest.raises(UsageError, match=r"the engine is on the cpu.*cuda:0, cuda:1\n  hint: open it on one of the GPUs"):
            Batcher(engine, devices=["cuda:0", "cuda:1"])


@pytest.mark.parametrize(
    ("devices", "told"),
    [
        ("cuda:0,cpu", "'cpu' is no GPU by name"),
        (["auto", "cuda:1"], "'auto' is no GPU by name"),
        ("cuda:1,cuda:1", "cuda:1 is named twice"),
        (["cuda", "cuda:0"], "cuda:0 is named twice"),
        ("cuda:0,", "device '' is not one of"),
        ("cuda:0,cuda:all", "names several devices"),
        ([], "expected cuda:all, or names of GPUs"),
        ([0, 1], "expected cuda:all, or names of GPUs"),
        (2, "expected cuda:all, or names of GPUs"),
    ],
)
def test_what_names_no_devices_is_told(devices, told):
    with pytest.raises(UsageError, match=told):
        device_names(devices)


def test_all_are_those_that_the_process_sees(monkeypatch):
    with pytest.raises(DeviceError, match="cuda:all: no GPU can be used here: "):
        device_names("cuda:all")
    monkeypatch.setattr(several, "driver_fault", lambda: None)
    monkeypatch.setattr(several, "device_count", lambda: 3)
    assert device_names("cuda:all") == device_names(["cuda:all"]) == ("cuda:0", "cuda:1", "cuda:2")
    assert device_names("cuda:2 , cuda:0") == ("cuda:2", "cuda:0")
    assert device_names("cuda") == ("cuda:0",)


# -- who takes the next batch ----------------------------------------------------------------------------------------------


def test_a_full_batch_wakes_a_worker_where_the_fewest_are_under_way():
    desk = Clocked(most=1)
    busy, free = DeviceTally("cuda:0", under_way=1), DeviceTally("cuda:1")
    workers = [Watched(tally=tally) for tally in (busy, busy, free, free)]
    for worker in workers:
        desk.now = 0.0
        worker.then = Stop.now
        with pytest.raises(Stop):
            desk.next_batch(worker)
    request = desk.add()
    assert [w.woken for w in workers] == [0, 0, 1, 0]
    assert desk.next_batch(workers[2]) == [request]
    assert (busy.under_way, free.under_way) == (1, 1)
    desk.ended(free)
    assert free.under_way == 0


class Stop(Exception):
    """Ends a worker in the place of its sleep."""

    @staticmethod
    def now() -> None:
        raise Stop


def test_who_watches_the_time_leaves_a_batch_to_a_gpu_with_less_to_do():
    desk = Clocked(most=4)
    busy, free = DeviceTally("cuda:0", under_way=1), DeviceTally("cuda:1")
    watcher, other = Watched(Stop.now, busy), Watched(Stop.now, free)
    for worker in (watcher, other):
        with pytest.raises(Stop):
            desk.next_batch(worker)
    request = desk.add()
    desk.now = 1.0  # it is due, and the one that watched wakes
    with pytest.raises(Stop):
        desk.next_batch(watcher)
    assert watcher.pauses[-1] == math.inf and other.woken == 1
    assert desk.next_batch(other) == [request]


def test_nobody_runs_ahead_of_a_worker_that_was_woken_on_a_gpu_with_less_to_do():
    desk = Clocked(most=1)
    busy, free = DeviceTally("cuda:0", under_way=2), DeviceTally("cuda:1")
    idle = Watched(Stop.now, free)
    with pytest.raises(Stop):
        desk.next_batch(idle)
    request = desk.add()
    assert desk.batch_ahead(busy) == []
    assert desk.next_batch(idle) == [request]
    later = desk.add()
    assert desk.batch_ahead(busy) == [later]
    assert placed(busy).tally.under_way == 3


def test_many_callers_and_gpus_lose_nothing():
    host = Host()
    with host.open(plan_of(DOUBLE)) as engine, Batcher(engine, 3, 0.2, devices="cuda:0,cuda:1,cuda:2") as batcher:
        found: list[bool] = []

        def call(first: int) -> None:
            for n in range(first, first + 40):
                got = batcher.submit(row(n)).result(WAIT_S)["y"]
                found.append(bool(np.array_equal(got, [[2 * n, 2, 4]])))

        threads = [threading.Thread(target=call, args=(1000 * n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [True] * 240
        batcher.close()  # a request ends a little before its batch does
        assert {d["under_way"] for d in batcher.stats()["devices"].values()} == {0}


def test_a_forked_child_leaves_the_gpus_to_its_parent(plan):
    host = Host()
    with host.open(plan) as engine, Batcher(engine, 1, 0, devices="cuda:0,cuda:1") as batcher:
        assert batcher.submit(row(1)).result(WAIT_S)["y"].tolist() == [[1, 2, 6]]

        def child():
            future = batcher.submit(row(2))
            with pytest.raises(DeviceError, match="fork"):
                future.result(WAIT_S)
            batcher.close()
            return {name: d["under_way"] for name, d in batcher.stats()["devices"].items()}

        assert in_forked_child(child) == {"cuda:0": 0, "cuda:1": 0}
        assert batcher.submit(row(3)).result(WAIT_S)["y"].tolist() == [[3, 2, 6]]


def test_what_was_under_way_is_not_in_a_forked_child():
    with open_cpu() as engine:
        staged = Staged(engine)
        staged.gate.clear()
        with Batcher(staged, 1, 0) as batcher:
            future = batcher.submit(row(1))
            staged.expect_entered()
            assert in_forked_child(lambda: batcher.stats()["devices"]["cpu"]["under_way"]) == 0
            assert batcher.stats()["devices"]["cpu"]["under_way"] == 1
            staged.gate.set()
            assert future.result(WAIT_S)["y"].tolist() == [[2, 2, 4]]

"""miniinfer devices, where there is no GPU and where there is one."""

import json

import pytest

from miniinfer_cli.backends.ceilings import Ceilings
from miniinfer_cli.cli import devices
from miniinfer_cli.devices.inventory import Cpu, Gpu, Inventory

CPU = Ceilings("a cpu, 2 threads", {"matrix f32": 0.0625}, memory_gbps=9.5, step_us=3.25, threads=2)
GPU = Ceilings("a gpu", {"matrix bf16": 788.0, "vector f32": 60.0}, memory_gbps=4221.0, launch_us=4.0, step_us=0.75)
HINT = "(miniinfer devices --measure adds bandwidths and rates)"


def found(monkeypatch: pytest.MonkeyPatch, *gpus: Gpu, cpu: Ceilings | None = None) -> None:
    inventory = Inventory(None if gpus else "no driver", gpus, (), Cpu("a cpu", 4, 2, cpu))
    monkeypatch.setattr(devices, "take_inventory", lambda cache, measure, told: inventory)


def gpu(ceilings: Ceilings | None) -> Gpu:
    return Gpu(0, "a gpu", 90, 132, 1 << 30, 1 << 29, 1 << 20, "13.0", ceilings)


def test_without_a_gpu_the_processor_is_shown(miniinfer, monkeypatch):
    found(monkeypatch)
    outcome = miniinfer("devices")
    told = ["cpu: a cpu, 4 cores, 2 threads by default", "cuda: not available: no driver", HINT]
    assert (outcome.code, outcome.out.splitlines()[:3]) == (0, told)
    document = json.loads(miniinfer("devices", "--json", "-").out)
    assert document["cpu"] == {"name": "a cpu", "cores": 4, "threads": 2, "ceilings": {}} and document["gpus"] == []


def test_what_is_measured_is_shown(miniinfer, monkeypatch):
    found(monkeypatch, gpu(GPU), cpu=CPU)
    lines = miniinfer("devices", "--measure").out.splitlines()
    assert lines[1:4] == [
        "  Copy in memory (read + written): 9.50 GB/s",
        "  Least step of the runtime: 3.25 us",
        "  Matrix rate, f32: 62.5 GFLOP/s",
    ]
    assert lines[5:10] == [
        "  Copy in memory (read + written): 4221.00 GB/s", "  Launch of a kernel (host): 4.00 us",
        "  Small kernel in a graph (device): 0.75 us", "  Matrix rate, bf16: 788.0 TFLOP/s", "  Vector rate, f32: 60.0 TFLOP/s",
    ]  # fmt: skip
    assert HINT not in miniinfer("devices").out


def test_figures_keep_the_names_that_they_had(miniinfer, monkeypatch):
    found(monkeypatch, gpu(GPU))
    figures = json.loads(miniinfer("devices", "--json", "-").out)["gpus"][0]["ceilings"]
    assert Ceilings.from_json(figures) == GPU
    assert (figures["device_copy_gbps"], figures["kernel_in_graph_us"], figures["bf16_tflops"]) == (4221.0, 0.75, 788.0)


def test_figures_that_are_not_kept_are_told_of(miniinfer, monkeypatch):
    found(monkeypatch, cpu=CPU)
    monkeypatch.setenv("MINIINFER_CACHE", "")
    assert "note: there is no cache folder to keep the figures in (MINIINFER_CACHE)" in miniinfer("devices", "--measure").out
    assert "note: " not in miniinfer("devices").out

"""miniinfer devices, where there is no GPU and where there is one."""

import json

import pytest

from miniinfer_cli.cli import devices
from miniinfer_cli.devices.inventory import Gpu, Inventory

NOTE = "note: --measure has nothing to measure: there is no GPU that can be used"


def found(monkeypatch: pytest.MonkeyPatch, *gpus: Gpu) -> None:
    fault = None if gpus else "no driver"
    monkeypatch.setattr(devices, "take_inventory", lambda cache, measure: Inventory(fault, gpus, ()))


def test_measuring_nothing_is_noted(miniinfer, monkeypatch):
    found(monkeypatch)
    outcome = miniinfer("devices", "--measure")
    assert (outcome.code, outcome.out.splitlines()[:3]) == (0, ["cpu: always there", "cuda: not available: no driver", NOTE])
    assert NOTE not in miniinfer("devices").out
    assert json.loads(miniinfer("devices", "--measure", "--json", "-").out)["gpus"] == []


def test_what_is_measured_is_shown(miniinfer, monkeypatch):
    found(monkeypatch, Gpu(0, "a gpu", 90, 132, 1 << 30, 1 << 29, 1 << 20, "13.0", {"launch_us": 4.0}))
    outcome = miniinfer("devices", "--measure")
    assert "  Launch of a kernel (host): 4.00 us" in outcome.out.splitlines()
    assert NOTE not in outcome.out

"""Whether CUDA can be used here, and what a user reads when it cannot."""

# The names are the driver's.
# ruff: noqa: N802

import subprocess
import sys
from typing import Any

import pytest

from miniinfer_cli.backends.cuda.driver import presence
from miniinfer_cli.backends.cuda.driver.device import open_device
from miniinfer_cli.backends.cuda.driver.presence import device_count, driver_fault, split_version
from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.devices.models import load_model
from miniinfer_cli.errors import DeviceError
from miniinfer_cli.ir import Graph


class Library:
    """libcuda.so.1 as ctypes shows it."""

    def __init__(self, version: int = 13000, init: int = 0, count: int = 2) -> None:
        self.version, self.init, self.count = version, init, count

    def cuDriverGetVersion(self, target: Any) -> int:
        target._obj.value = self.version
        return 0

    def cuInit(self, flags: int) -> int:
        return self.init

    def cuDeviceGetCount(self, target: Any) -> int:
        target._obj.value = self.count
        return 0

    def cuGetErrorName(self, status: int, target: Any) -> int:
        target._obj.value = b"CUDA_ERROR_SOMETHING"
        return 0 if status == 803 else 1


@pytest.mark.parametrize(
    ("library", "reason"),
    [
        (None, "no NVIDIA driver: the library libcuda.so.1 is not found"),
        (Library(version=12040), "the NVIDIA driver is too old: found CUDA 12.4, need CUDA 13.0"),
        (Library(init=100), "no NVIDIA GPU is visible to this process"),
        (Library(count=0), "no NVIDIA GPU is visible to this process"),
        (Library(init=803), "the NVIDIA driver does not start: cuInit failed with CUDA_ERROR_SOMETHING (803)"),
        (Library(init=999), "the NVIDIA driver does not start: cuInit failed with status 999"),
    ],
)
def test_why_cuda_cannot_be_used(monkeypatch: pytest.MonkeyPatch, library: Library | None, reason: str):
    monkeypatch.setattr(presence, "_open", lambda: library)
    assert driver_fault() == reason
    assert device_count() == 0
    with pytest.raises(DeviceError) as raised:
        open_device(0)
    assert str(raised.value) == (
        f"cuda:0: {reason}\n  hint: use load(plan, device='cpu'), or install an NVIDIA driver of version 580 or newer"
    )
    assert raised.value.exit_code == 5


def test_a_child_of_a_process_that_uses_cuda(monkeypatch: pytest.MonkeyPatch):
    """cuInit says so: whoever called it in the parent. It is no reason to compute on the CPU without a word."""
    monkeypatch.setattr(presence, "_open", lambda: Library(init=3))
    reason = "CUDA was in use before this process was forked, and CUDA does not survive a fork"
    assert (driver_fault(), device_count()) == (reason, 0)
    for device in ("cuda:0", "auto"):
        with pytest.raises(DeviceError) as raised:
            load_model(Graph(), device, DeviceOptions(), {})
        assert str(raised.value).startswith(f"cuda:0: {reason}\n  hint: open engines on a GPU in the child, before the parent")
    assert load_model(Graph(), "cpu", DeviceOptions(), {}).device == "cpu"


def test_a_driver_that_is_new_enough_and_gpus(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(presence, "_open", Library)
    assert driver_fault() is None
    assert device_count() == 2


def test_missing_bindings_are_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(presence, "_open", Library)
    monkeypatch.setattr(presence.importlib.util, "find_spec", lambda name: None)
    assert driver_fault() == "the package cuda-bindings is not installed"


@pytest.mark.parametrize(
    ("ordinal", "count", "message"),
    [
        (3, 1, "no such device: got cuda:3, there is 1 device\n  hint: open it on cuda:0, or on cpu"),
        (4, 4, "no such device: got cuda:4, there are 4 devices\n  hint: open it on cuda:0 to cuda:3, or on cpu"),
        (-1, 1, "no such device: got cuda:-1, there is 1 device\n  hint: open it on cuda:0, or on cpu"),
    ],
)
def test_an_unknown_device_is_told_with_what_there_is(monkeypatch: pytest.MonkeyPatch, ordinal: int, count: int, message: str):
    monkeypatch.setattr(presence, "driver_fault", lambda: None)
    monkeypatch.setattr(presence, "device_count", lambda: count)
    with pytest.raises(DeviceError) as raised:
        open_device(ordinal)
    assert str(raised.value) == message


def test_this_machine_has_either_a_reason_or_a_device():
    assert (driver_fault() is None) == (device_count() > 0)


def test_asking_loads_no_bindings():
    script = (
        "import sys; from miniinfer_cli.backends.cuda.driver.device import driver_fault; driver_fault()\n"
        "print(*(m for m in sys.modules if m.startswith('cuda.')))"
    )
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert [m for m in loaded if m != "cuda.bindings" and not m.startswith("cuda.bindings._version")] == []


@pytest.mark.parametrize(("number", "version"), [(12080, (12, 8)), (13000, (13, 0)), (13010, (13, 1))])
def test_versions_are_split(number: int, version: tuple[int, int]):
    assert split_version(number) == version

"""The machine's GPUs: what was measured of one is kept for the next look, where the folder can be trusted."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from miniinfer_cli.backends.cuda.driver import device
from miniinfer_cli.backends.cuda.models import ceilings
from miniinfer_cli.devices import inventory
from miniinfer_cli.devices.inventory import take_inventory

FIGURES = {"launch_us": 5.1, "bf16_tflops": None}


class FakeDevice:
    name, arch, multiprocessors = "A GPU / 80GB", 90, 132
    total_memory, l2_nbytes, driver_version = 1 << 36, 50 << 20, (13, 1)

    def available_memory(self) -> int:
        return 1 << 35

    def __enter__(self) -> "FakeDevice":
        return self

    def __exit__(self, *exception: object) -> None:
        pass


@pytest.fixture(autouse=True)
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory, "driver_fault", lambda: None)
    monkeypatch.setattr(inventory, "device_count", lambda: 1)
    monkeypatch.setattr(device, "open_device", lambda ordinal: FakeDevice())
    monkeypatch.setattr(ceilings, "measure_ceilings", lambda ordinal: SimpleNamespace(to_json=lambda: FIGURES))


def figures(cache: Path | None, **options: Any) -> dict[str, Any]:
    (gpu,) = take_inventory(cache, **options).gpus
    return gpu.ceilings


def test_measured_figures_are_kept(tmp_path: Path):
    assert figures(tmp_path) == {}
    assert figures(tmp_path, measure=True) == FIGURES
    assert figures(tmp_path) == FIGURES
    assert [p.name for p in (tmp_path / "devices").iterdir()] == ["A-GPU---80GB-driver-13-1-0.json"]


def test_without_a_folder_they_are_shown_once():
    assert figures(None, measure=True) == FIGURES
    assert figures(None) == {}


@pytest.mark.parametrize("contents", [b"", b"{", b"[1]", b"\xff"])
def test_a_damaged_file_is_no_figures(contents: bytes, tmp_path: Path):
    figures(tmp_path, measure=True)
    (path,) = (tmp_path / "devices").iterdir()
    path.write_bytes(contents)
    assert figures(tmp_path) == {}


def test_of_a_folder_that_everybody_may_write_nothing_is_taken(tmp_path: Path):
    figures(tmp_path, measure=True)
    (tmp_path / "devices").chmod(0o777)
    assert figures(tmp_path) == {}
    assert figures(tmp_path, measure=True) == FIGURES, "they are shown all the same"


def test_a_folder_that_cannot_be_made(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    assert figures(tmp_path / "file", measure=True) == FIGURES

"""The machine's devices: what was measured of one is kept for the next look, where the folder can be trusted."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from miniinfer_cli.backends.ceilings import Ceilings
from miniinfer_cli.backends.cpu import ceilings as cpu_ceilings
from miniinfer_cli.backends.cuda.driver import device
from miniinfer_cli.backends.cuda.models import ceilings
from miniinfer_cli.devices import inventory
from miniinfer_cli.devices.ceilings import Measurable, device_of, this_cpu
from miniinfer_cli.devices.inventory import take_inventory

FIGURES = Ceilings("", {"matrix bf16": 700.0}, memory_gbps=4000.0, launch_us=5.1)


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
    monkeypatch.setattr(ceilings, "measure_ceilings", lambda ordinal, identity, told: replace(FIGURES, device=identity))
    monkeypatch.setattr(cpu_ceilings, "measure_ceilings", lambda identity, threads, told: replace(FIGURES, device=identity))


def figures(cache: Path | None, **options: Any) -> Ceilings | None:
    (gpu,) = take_inventory(cache, **options).gpus
    return None if gpu.ceilings is None else replace(gpu.ceilings, device="")


def test_measured_figures_are_kept(tmp_path: Path):
    assert figures(tmp_path) is None
    assert figures(tmp_path, measure=True) == FIGURES
    assert figures(tmp_path) == FIGURES
    found = take_inventory(tmp_path)
    assert found.gpus[0].ceilings is not None and found.gpus[0].ceilings.device == "A GPU / 80GB, driver for CUDA 13.1"
    assert found.cpu.ceilings == replace(FIGURES, device=this_cpu(found.cpu.threads).identity)
    assert [p.name for p in (tmp_path / "devices").iterdir() if "GPU" in p.name] == ["A-GPU---80GB--driver-for-CUDA-13-1-0.json"]


def test_each_number_of_threads_has_its_figures(tmp_path: Path):
    assert this_cpu(3).measured(tmp_path) == this_cpu(3).kept(tmp_path) != this_cpu(2).kept(tmp_path) is None
    assert device_of("cpu", {"threads": 3}).kept(tmp_path) is not None
    facts = {"name": FakeDevice.name, "driver": "13.1"}
    figures(tmp_path, measure=True)
    assert device_of("cuda:0", facts).kept(tmp_path) is not None
    assert device_of("cuda:1", facts).kept(tmp_path) is None
    assert device_of("cuda:0", {**facts, "driver": "13.2"}).kept(tmp_path) is None


def test_figures_of_another_device_are_none(tmp_path: Path):
    one = this_cpu(3)
    Measurable("another", one.file, lambda told: replace(FIGURES, device="another")).measured(tmp_path)
    assert one.kept(tmp_path) is None, "under one name, as after a change of the processor's"


def test_without_a_folder_they_are_shown_once():
    assert figures(None, measure=True) == FIGURES
    assert figures(None) is None


@pytest.mark.parametrize("contents", [b"", b"{", b"[1]", b"\xff", b'{"launch_us": 5.1, "bf16_tflops": null}'])
def test_a_damaged_file_or_one_of_another_release_is_no_figures(contents: bytes, tmp_path: Path):
    figures(tmp_path, measure=True)
    for path in (tmp_path / "devices").iterdir():
        path.write_bytes(contents)
    assert figures(tmp_path) is None


def test_of_a_folder_that_everybody_may_write_nothing_is_taken(tmp_path: Path):
    figures(tmp_path, measure=True)
    (tmp_path / "devices").chmod(0o777)
    assert figures(tmp_path) is None
    assert figures(tmp_path, measure=True) == FIGURES, "they are shown all the same"


def test_a_folder_that_cannot_be_made(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    assert figures(tmp_path / "file", measure=True) == FIGURES


def test_each_figure_is_the_better_of_those_measured(tmp_path: Path):
    """A look beside other work makes nothing worse: rates are the larger ones, times the smaller ones, what is new is added."""
    one = Measurable(
        "a cpu", "a-cpu", lambda told: Ceilings("a cpu", {"matrix f32": 0.1}, memory_gbps=20.0, step_us=2.0, threads=2)
    )
    rates = {"matrix f32": 0.04, "vector f32": 0.01}
    two = replace(
        one, measure=lambda told: Ceilings("a cpu", rates, memory_gbps=30.0, step_us=5.0, cache_nbytes=1 << 20, threads=2)
    )
    both = Ceilings("a cpu", {"matrix f32": 0.1, "vector f32": 0.01}, 30.0, cache_nbytes=1 << 20, step_us=2.0, threads=2)
    one.measured(tmp_path)
    assert two.measured(tmp_path) == two.kept(tmp_path) == both
    assert replace(one, identity="another").measured(None) == one.measure(str), "nothing is kept, so nothing is better"

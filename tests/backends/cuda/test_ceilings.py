"""Ceilings of a GPU, on the emulated device: its times are made up, what is launched and copied is not."""

from typing import Any

import pytest

from miniinfer_cli.backends.cuda.contract.problems import Compute
from miniinfer_cli.backends.cuda.models import ceilings
from miniinfer_cli.backends.cuda.models.ceilings import Extents, measured
from miniinfer_cli.errors import OutOfMemoryError
from tests.emulation.device import EmulatedDevice, EmulatedFunctions
from tests.emulation.libraries import EmulatedLibraries

TINY = Extents(copy_nbytes=64, device_nbytes=128, launches=3, sums=1, copies=1, blocks=1, smaller=512)


class SmallDevice(EmulatedDevice):
    """With a small cache, and few multiprocessors to keep busy."""

    l2_nbytes = 4096
    multiprocessors = 1


def test_every_ceiling_is_measured():
    device, functions, libraries, stages = SmallDevice(), EmulatedFunctions(), EmulatedLibraries(), list[str]()
    found = measured(device, functions, libraries, "a gpu", stages.append, TINY)
    assert found.device == "a gpu" and found.cache_nbytes == 4096
    missing = [name for name, value in found.to_json().items() if value is None]
    assert missing == ["cache_gbps", "step_us", "threads"], "in made up times more of it takes no longer"
    kinds = [*(f"matrix {n}" for n in ("bf16", "f16", "tf32", "f32", "f64", "i8")), "vector f32", "vector f64"]
    assert sorted(found.tflops) == sorted(kinds) and min(found.tflops.values()) > 0
    assert found.memory_gbps == pytest.approx(2 * 128 / 1e-6 / 1e9)
    problems: list[Any] = list(libraries.asked)
    assert {(p.a.value, p.compute) for p in problems} >= {("f32", Compute.TF32), ("f32", Compute.F32), ("i8", Compute.I32)}
    assert len(stages) == 3 + 2 + 6 and device.leftovers == {}


def test_without_libraries_the_rates_of_products_are_missing():
    libraries = EmulatedLibraries(refuses=lambda problem: True)
    found = measured(SmallDevice(), EmulatedFunctions(), libraries, "a gpu", extents=TINY)
    assert sorted(found.tflops) == ["vector f32", "vector f64"]


def test_a_product_that_fails_leaves_out_its_rate(monkeypatch: pytest.MonkeyPatch):
    rate = ceilings._matrix_rate

    def failing(kind: Any, *others: Any) -> float | None:
        if kind.compute is Compute.F64:
            raise OutOfMemoryError("no room")
        return rate(kind, *others)

    monkeypatch.setattr(ceilings, "_matrix_rate", failing)
    found = measured(SmallDevice(), EmulatedFunctions(), EmulatedLibraries(), "a gpu", extents=TINY)
    assert "matrix f64" not in found.tflops and "matrix i8" in found.tflops

"""Kernels in plans: compiled with no GPU, taken on their architecture, ignored elsewhere or when that is asked for."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from engine_format import TargetSection, read_plan, write_plan
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.driver.kernel_cache import KernelCache
from miniinfer_cli.backends.cuda.loading.functions import Functions
from miniinfer_cli.backends.cuda.loading.target_sections import stored_kernels
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.builder.targets import arch_of, with_targets
from miniinfer_cli.errors import PlanFileError, UsageError
from miniinfer_cli.ir import DType, TensorType
from miniinfer_cli.planning.thaw import thaw
from tests.emulation.engine import open_emulated, plan_of
from tests.logs import Logged

TEXT = "graph main(x: f32[batch,64]) {\n  y = Softmax(x)\n  z = Exp(y)\n  return z\n}"


class FakeDevice:
    """Loads any code, and notes it."""

    def __init__(self, arch: int) -> None:
        self.arch = arch
        self.loaded: list[bytes] = []

    def load(self, cubin: bytes) -> Any:
        self.loaded.append(cubin)
        return SimpleNamespace(function=lambda name: name, close=lambda: None)


@pytest.fixture(scope="module")
def path(tmp_path_factory: Any) -> Path:
    """A plan with kernels for sm_90."""
    path = tmp_path_factory.mktemp("plans") / "softmax.plan"
    plan = plan_of(TEXT)
    write_plan(with_targets(plan, thaw(plan), [90]), path)
    return path


def kernels_of(plan: Any, batch: int) -> tuple[Any, ...]:
    return make_program(thaw(plan), [TensorType(DType.F32, (batch, 64))], Target()).kernels


@pytest.mark.parametrize("batch", [1, 64, 512])
def test_no_kernel_is_compiled_on_its_architecture(path: Path, batch: int) -> None:
    with read_plan(path) as plan:
        device, cache = FakeDevice(90), KernelCache(None)
        functions = Functions(device, cache)
        stored, notes = stored_kernels(plan.targets, 90)
        functions.use_stored(stored)
        kernels = kernels_of(plan, batch)
        assert all(map(functions.is_there, kernels))
        functions.prepare(kernels)
        assert notes == ()
        assert (functions.taken, cache.counts.compiles, len(device.loaded)) == (len(kernels), 0, len(kernels))
        assert all(code.startswith(b"\x7fELF") for code in device.loaded)
        assert [functions.get(k) for k in kernels] == [k.name for k in kernels]


def test_elsewhere_kernels_are_compiled_and_the_user_is_told(path: Path, logged: Logged) -> None:
    with read_plan(path) as plan:
        with logged.at_level(logging.INFO):
            stored, notes = stored_kernels(plan.targets, 80)
        assert stored == {}
        assert notes == ("the plan holds kernels for sm_90, and this GPU is sm_80: they are compiled here at first use",)
        assert logged.messages == [], "what is returned is not logged, too"
        cache = KernelCache(None)
        functions = Functions(FakeDevice(80), cache)
        functions.use_stored(stored)
        functions.prepare(kernels_of(plan, 1))
        assert (functions.taken, cache.counts.compiles) == (0, len(kernels_of(plan, 1)))


def test_sections_for_others_beside_ours_need_no_note(path: Path) -> None:
    with read_plan(path) as plan:
        stored, notes = stored_kernels((TargetSection("sm_75"), *plan.targets), 90)
        assert stored
        assert notes == ()


def test_a_damaged_kernel_is_told(path: Path, tmp_path: Path) -> None:
    raw = bytearray(path.read_bytes())
    at = raw.index(b"\x7fELF")
    raw[at + 100] ^= 1
    (tmp_path / "damaged.plan").write_bytes(raw)
    with read_plan(tmp_path / "damaged.plan") as plan:
        functions = Functions(FakeDevice(90), KernelCache(None))
        functions.use_stored(stored_kernels(plan.targets, 90)[0])
        wanted = [k for batch in (1, 2, 64, 512) for k in kernels_of(plan, batch)]
        with pytest.raises(PlanFileError, match="a kernel does not match its digest"):
            functions.prepare(wanted)


def test_an_engine_keeps_the_notes_unless_sections_are_ignored(tmp_path: Path) -> None:
    plan = plan_of(TEXT)
    foreign = plan.with_target(TargetSection("sm_75"))
    x = {"x": np.zeros((2, 64), np.float32)}
    with open_emulated(foreign) as engine:
        assert len(engine.notes) == 1
        engine.run(x)
    with open_emulated(foreign, options=DeviceOptions(ignore_targets=True)) as engine:
        assert engine.notes == ()
        engine.run(x)


@pytest.mark.parametrize("text", ["90", "sm_", "sm_9", "sm_75", "sm_90a", "compute_90"])
def test_what_is_no_architecture(text: str) -> None:
    with pytest.raises(UsageError, match=f"architecture '{text}'"):
        arch_of(text)


def test_architectures() -> None:
    assert [arch_of(t) for t in ("sm_80", "sm_90", "sm_100")] == [80, 90, 100]

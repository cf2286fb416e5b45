"""What goes wrong on a GPU is told in one line, leaks nothing, and leaves what was there usable."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import miniinfer_cli
from engine_format import TargetSection, write_plan
from miniinfer_cli.backends.cuda.contract.problems import Compute
from miniinfer_cli.backends.cuda.contract.steps import Kernel
from miniinfer_cli.backends.cuda.driver import library_loading
from miniinfer_cli.backends.cuda.driver.device import Device
from miniinfer_cli.backends.cuda.driver.kernel_cache import KernelCache
from miniinfer_cli.backends.cuda.driver.nvrtc import KernelCompileError
from miniinfer_cli.backends.cuda.loading.functions import Functions
from miniinfer_cli.errors import DeviceError, OutOfMemoryError, PlanFileError, UsageError
from miniinfer_cli.ir import DType
from tests.gpu.driver.operands import assert_close
from tests.gpu.plans import digits, images, sizes_of, small


def test_unknown_devices() -> None:
    with pytest.raises(DeviceError, match=r"no such device: got cuda:99, there"):
        miniinfer_cli.load(digits(), "cuda:99")


@pytest.mark.alone
def test_out_of_memory_has_both_numbers_and_leaves_the_engine_usable(device: Device) -> None:
    with miniinfer_cli.load(digits(), "cuda:0") as engine:
        want = engine.run({"image": images(4)})["logits"]
        free = device.available_memory()
        with device.allocate(free - (200 << 20)):
            left = device.available_memory()
            with pytest.raises(OutOfMemoryError, match=r"MiB needed, .* MiB free on cuda:0"):
                engine.run({"image": images(200_000)})
            assert device.available_memory() >= left - (64 << 20)
            np.testing.assert_array_equal(engine.run({"image": images(4)})["logits"], want)
        np.testing.assert_array_equal(engine.run({"image": images(4)})["logits"], want)


@pytest.mark.alone
def test_damaged_weights_are_found_while_they_are_loaded(tmp_path: Path, device: Device) -> None:
    path = tmp_path / "damaged.plan"
    write_plan(digits(), path)
    raw = bytearray(path.read_bytes())
    raw[-100] ^= 1
    path.write_bytes(raw)
    free = device.available_memory()
    for _ in range(3):
        with pytest.raises(PlanFileError, match="do not match digest"):
            miniinfer_cli.load(path, "cuda:0")
    assert device.available_memory() >= free - (4 << 20)


def test_a_kernel_that_does_not_compile_shows_the_compilers_words(device: Device) -> None:
    functions = Functions(device, KernelCache(None))
    with pytest.raises(KernelCompileError, match="undefined_name") as caught:
        functions.prepare([Kernel("broken", code='extern "C" __global__ void broken() { undefined_name(); }')])
    assert "undefined_name" in caught.value.log
    functions.close()


def test_a_foreign_target_section_is_no_obstacle(tmp_path: Path) -> None:
    plan = dataclasses.replace(digits(), targets=(TargetSection("sm_75", {"nvrtc": "12.0"}),))
    write_plan(plan, tmp_path / "foreign.plan")
    with miniinfer_cli.load(tmp_path / "foreign.plan", "cuda:0") as engine:
        engine.run({"image": images(2)})
        assert "sm_75" in " ".join(engine.notes)


def test_arrays_on_a_gpu_are_refused_by_a_cpu_engine() -> None:
    torch = pytest.importorskip("torch")
    with miniinfer_cli.load(digits(), "cpu") as engine, pytest.raises(UsageError, match="on a GPU"):
        engine.run({"image": torch.zeros(1, 1, 8, 8, device="cuda")})


@pytest.mark.parametrize("missing", [("cublasLt",), ("cudnn",), ("cublasLt", "cudnn")], ids="+".join)
@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_without_libraries_our_own_kernels_run_everything(missing: Any, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from miniinfer_cli.backends.cuda.driver import cublaslt, cudnn

    real = library_loading.load_library

    def load_library(name: str) -> Any:
        if any(name.lower().startswith(m.lower()) for m in missing):
            raise DeviceError(f"{name} is not here", hint="pip install 'miniinfer[cuda]'")
        return real(name)

    monkeypatch.setattr(cublaslt, "load_library", load_library)
    monkeypatch.setattr(cudnn, "load_library", load_library)
    for name in ("simple_cnn", "resnet50", "bert_base"):
        plan = small(name, dtype)
        with miniinfer_cli.load(plan, "cuda:0") as engine, miniinfer_cli.load(plan, "cpu") as cpu:
            feeds = {}
            for b in engine.inputs:
                random, shape = np.random.default_rng(1), sizes_of(b, 2)
                assert b.dtype is not None
                drawn = random.integers(0, 2, shape) if b.dtype.kind == "i" else random.random(shape)
                feeds[b.name] = drawn.astype(b.dtype)
            want, got = cpu.run(feeds), engine.run(feeds)
            for output, value in want.items():
                assert_close(got[output], value.astype(np.float64), DType(dtype), Compute.F32, (name, output))

"""Engines and contexts on the GPU: memory, threads, device arrays, long runs."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import miniinfer_cli
from miniinfer_cli.backends.cuda.contract.problems import Compute
from miniinfer_cli.backends.cuda.driver.device import Device
from miniinfer_cli.errors import UsageError
from miniinfer_cli.ir import Array, DType
from miniinfer_cli.runtime.engine import Engine
from tests.gpu.driver.operands import TOLERANCES, relative_error
from tests.gpu.plans import ROOT, digits, images, sizes_of, small

SOAK_S = float(os.environ.get("MINIINFER_SOAK_S", "10"))


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with miniinfer_cli.load(digits(), "cuda:0") as opened:
        yield opened


@pytest.fixture(scope="module")
def expected() -> Iterator[Callable[[Array], Array]]:
    """What the CPU gives for a batch of images."""
    with miniinfer_cli.load(digits(), "cpu") as opened:
        yield lambda x: opened.run({"image": x})["logits"]


def assert_close(got: Any, want: Any, limit: float = TOLERANCES[DType.F32, Compute.F32]) -> None:
    assert got.shape == want.shape
    assert relative_error(got, want.astype(np.float64)) <= limit


def test_the_same_accuracy_as_on_the_cpu(engine: Engine, expected: Callable[[Array], Array]) -> None:
    data = np.load(ROOT / "sample_models" / "digits_test.npz")
    x = data["image"].astype(np.float32)
    logits = engine.run({"image": x})["logits"]
    assert_close(logits, expected(x))
    labels = next(v for k, v in data.items() if k != "image")
    assert (logits.argmax(1) == labels).sum() == 356


def test_futures_in_any_order(engine: Engine, expected: Callable[[Array], Array]) -> None:
    with engine.create_context() as context:
        inputs = [images(b, i) for i, b in enumerate((1, 8, 3, 8, 1, 64, 2, 8))]
        futures = [context.enqueue({"image": x}) for x in inputs]
        for x, future in list(zip(inputs, futures, strict=True))[::-1]:
            assert_close(future.result()["logits"], expected(x))


def test_capture_small_run_large_replay_small(engine: Engine, expected: Callable[[Array], Array]) -> None:
    with engine.create_context() as context:
        for batch in (2, 2, 2, 2, 300, 300, 2, 2, 300, 2):
            x = images(batch, batch)
            assert_close(context.run({"image": x})["logits"], expected(x))


def test_no_allocation_after_warm_up(engine: Engine) -> None:
    with engine.create_context() as context:
        inputs = [images(b) for b in (1, 4, 8)]
        for _ in range(4):
            for x in inputs:
                context.run({"image": x})
        before = engine.stats()["device_allocations"]
        for turn in range(10_000):
            context.enqueue({"image": inputs[turn % 3]})
        context.run({"image": inputs[0]})
        assert engine.stats()["device_allocations"] == before


_BLOCK = 2 << 20  # bytes that the driver takes at once
_HANDLES = 16 << 10  # bytes that cuDNN 9.19 keeps of the handles of an engine and a context when they are destroyed: 10 KiB


@pytest.mark.alone
def test_contexts_leave_no_memory_behind(engine: Engine, device: Device) -> None:
    def cycle() -> None:
        with engine.create_context() as context:
            for _ in range(3):
                context.run({"image": images(8)})

    assert left_by(device, cycle, 500) == 0


@pytest.mark.alone
def test_engines_leave_no_memory_behind(device: Device) -> None:
    def cycle() -> None:
        with miniinfer_cli.load(digits(), "cuda:0") as opened, opened.create_context() as context:
            for _ in range(3):
                context.run({"image": images(8)})

    assert left_by(device, cycle, 100) <= 100 * _HANDLES + _BLOCK


def left_by(device: Device, cycle: Callable[[], None], count: int) -> int:
    """Bytes of the device's memory that are taken after ``count`` cycles and were not before."""
    for _ in range(3):
        cycle()
    before = device.available_memory()
    for _ in range(count):
        cycle()
    return max(before - device.available_memory(), 0)


def test_a_context_in_use_is_refused_to_a_second_thread(engine: Engine) -> None:
    refused: list[bool] = []
    with engine.create_context() as context:
        stop = threading.Event()

        def work() -> None:
            while not stop.is_set():
                try:
                    context.run({"image": images(64)})
                except UsageError:
                    refused.append(True)

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        until = time.monotonic() + 10
        while not refused and time.monotonic() < until:
            time.sleep(0.01)
        stop.set()
        for thread in threads:
            thread.join()
    assert refused


def test_four_streams_with_changing_shapes_give_what_one_gives(engine: Engine) -> None:
    """A soak: MINIINFER_SOAK_S seconds, 10 by default."""
    inputs = [images(b, b) for b in (1, 2, 5, 8, 16, 33)]
    alone = [engine.run({"image": x})["logits"] for x in inputs]
    wrong: list[str] = []
    started = time.monotonic()
    levels: list[tuple[int, int]] = []

    def work(number: int) -> None:
        with engine.create_context() as context:
            turn = number
            while time.monotonic() - started < SOAK_S and not wrong:
                chosen = [(turn + i) % len(inputs) for i in range(3)]
                futures = [context.enqueue({"image": inputs[c]}) for c in chosen]
                for c, future in zip(chosen, futures, strict=True):
                    if not np.array_equal(future.result()["logits"], alone[c]):
                        wrong.append(f"stream {number}, turn {turn}, batch {len(inputs[c])}")
                turn += 1

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    while any(t.is_alive() for t in threads):
        time.sleep(0.5)
        if 3 < time.monotonic() - started < SOAK_S:
            levels.append((engine.stats()["device_allocations"], resident_nbytes()))
    for thread in threads:
        thread.join()
    assert not wrong
    assert len({allocations for allocations, _ in levels}) == 1  # none after the first seconds, so device memory is flat
    assert levels[-1][1] - levels[0][1] <= 16 << 20


def resident_nbytes() -> int:
    """Host memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_inputs_and_outputs_on_the_device(engine: Engine, expected: Callable[[Array], Array]) -> None:
    torch = pytest.importorskip("torch")
    x = images(8)
    with engine.create_context() as context:
        for _ in range(4):
            x = np.ascontiguousarray(x[::-1])
            given = torch.from_numpy(x).cuda()
            future = context.enqueue({"image": given}, on_device=True)
            result = future.result()["logits"]
            assert_close(torch.as_tensor(result, device="cuda").cpu().numpy(), expected(x))
            assert_close(torch.from_dlpack(result).cpu().numpy(), expected(x))
            assert_close(context.run({"image": given})["logits"], expected(x))
        buffer = context.input_buffer("image", {"image": (8, 1, 8, 8)})
        torch.as_tensor(buffer, device="cuda").copy_(torch.from_numpy(x).cuda() * 0.5)
        torch.cuda.synchronize()
        assert_close(context.run({"image": buffer})["logits"], expected(x * 0.5))
        pinned = context.pinned_buffer("image", {"image": (8, 1, 8, 8)})
        pinned[...] = x * 0.25
        assert_close(context.run({"image": pinned})["logits"], expected(x * np.float32(0.25)))


def test_bfloat16_tensors_of_torch() -> None:
    torch = pytest.importorskip("torch")
    plan = small("simple_cnn", "bf16")
    with miniinfer_cli.load(plan, "cuda:0") as engine, miniinfer_cli.load(plan, "cpu") as cpu:
        (binding,) = engine.inputs
        shape = sizes_of(binding, 4)
        given = torch.randn(shape, device="cuda", dtype=torch.bfloat16)
        import ml_dtypes

        on_host = given.cpu().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        (want,), (got,) = cpu.run({binding.name: on_host}).values(), engine.run({binding.name: given}).values()
        assert_close(got, want, TOLERANCES[DType.BF16, Compute.F32])
        assert got.dtype == np.dtype(ml_dtypes.bfloat16)


def test_host_steps_between_device_steps() -> None:
    plan = small("detector")
    with miniinfer_cli.load(plan, "cuda:0") as engine, miniinfer_cli.load(plan, "cpu") as cpu:
        (binding,) = engine.inputs
        shape = sizes_of(binding, 2)
        for seed in range(4):
            x = 10 * np.random.default_rng(seed).standard_normal(shape, np.float32)  # so that some boxes are kept
            want, got = cpu.run({binding.name: x}), engine.run({binding.name: x})
            assert want["boxes"].size
            for name, value in want.items():
                if value.dtype.kind == "f":
                    assert_close(got[name], value, 1e-4)
                else:
                    np.testing.assert_array_equal(got[name], value)

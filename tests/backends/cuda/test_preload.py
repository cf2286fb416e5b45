"""Weights from a plan's file to the device: odd sizes, the ring of buffers, and damaged files."""

import ctypes
import threading
from pathlib import Path

import numpy as np
import pytest

from engine_format import read_plan, write_plan
from engine_format.layout import CHUNK_NBYTES
from miniinfer_cli.backends.cuda.loading import preload as module
from miniinfer_cli.backends.cuda.loading.preload import PinnedRing, buffers_for, preload
from miniinfer_cli.errors import DeviceError, OutOfMemoryError, PlanFileError
from miniinfer_cli.ir import DType, Graph, TensorType
from miniinfer_cli.ops import annotate
from miniinfer_cli.planning.freeze import freeze
from tests.emulation.device import EmulatedDevice
from tests.emulation.engine import open_emulated
from tests.emulation.stream import EmulatedStream


def stored(path, *sizes: int):
    """A plan file with constants of so many bytes."""
    graph = Graph("main")
    x = graph.add_input("x", TensorType(DType.U8, (1,)))
    period = np.random.default_rng(0).integers(0, 255, 65_521, np.uint8)  # a prime: no two chunks are alike
    y = x
    for number, size in enumerate(sizes):
        w = graph.add_constant(np.resize(np.roll(period, number), size), f"w{number}")
        y = graph.add("Concat", y, w, out=f"y{number}", axis=0)
    graph.set_outputs([y])
    annotate(graph)
    write_plan(freeze(graph), path)
    return read_plan(path)


def file_of(plan):
    return plan.tensors[0].file


def contents(plan) -> bytes:
    start, nbytes = file_of(plan).weights_range
    with Path(plan.path).open("rb") as file:
        file.seek(start)
        return file.read(nbytes)


CHUNK = CHUNK_NBYTES


@pytest.mark.parametrize(
    ("ring", "sizes"),
    [  # fewer buffers than chunks, as many, and more
        (16, (70_000,)), (1, (CHUNK - 256,)), (1, (CHUNK,)), (3, (CHUNK + 1,)), (1, (CHUNK - 1, CHUNK + 1)),
        (3, (CHUNK - 1, CHUNK + 1)), (3, (3 * CHUNK + 100, 66_000)), (1, (5 * CHUNK,)), (16, (5 * CHUNK,)),
    ],
)  # fmt: skip
def test_every_byte_arrives(emulated, tmp_path, monkeypatch, sizes: tuple[int, ...], ring: int):
    monkeypatch.setattr(module, "_RING", ring)
    with stored(tmp_path / "m.plan", *sizes) as plan:
        nbytes = file_of(plan).weights_range[1]
        with emulated.allocate(nbytes) as target:
            preload(emulated, file_of(plan), target.address)
            assert ctypes.string_at(target.address, nbytes) == contents(plan)


def test_a_ring_serves_one_preload_after_the_other(emulated, tmp_path):
    ring = PinnedRing(emulated, 2)
    for number, sizes in enumerate([(5 * CHUNK + 7,), (100_000,), (2 * CHUNK,)]):
        with stored(tmp_path / f"{number}.plan", *sizes) as plan:
            nbytes = file_of(plan).weights_range[1]
            before = emulated.allocations
            with emulated.allocate(nbytes) as target:
                preload(emulated, file_of(plan), target.address, ring)
                assert ctypes.string_at(target.address, nbytes) == contents(plan)
            assert emulated.allocations == before + 1
    for _ in range(2):
        ring.close()


@pytest.mark.parametrize(("chunks", "buffers"), [(1, 1), (4, 4), (5, 4), (13, 4), (55, 13), (96, 24), (1000, 24)])
def test_no_buffer_is_pinned_that_is_hardly_used(chunks: int, buffers: int):
    assert buffers_for(chunks) == buffers


def damage(path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize("at", [0, CHUNK - 1, CHUNK, 4 * CHUNK + 5])
def test_a_damaged_chunk_is_the_files_fault(emulated, tmp_path, at: int):
    with stored(tmp_path / "m.plan", 5 * CHUNK) as plan:
        start = file_of(plan).weights_range[0]
        damage(tmp_path / "m.plan", start + at)
        chunk = at // CHUNK
        place = rf"\(byte {start + chunk * CHUNK}\)"
        told = rf"m\.plan: the weights do not match digest {chunk}: the file is damaged {place}\n  hint: build the plan again"
        with pytest.raises(PlanFileError, match=told):
            open_emulated(plan, emulated)
        assert emulated.leftovers == {}


def test_a_file_that_was_cut_is_the_files_fault(emulated, tmp_path):
    with stored(tmp_path / "m.plan", 2 * CHUNK) as plan:
        start, nbytes = file_of(plan).weights_range
        with (tmp_path / "m.plan").open("r+b") as file:
            file.truncate(start + nbytes - 10)
        with pytest.raises(PlanFileError, match="the file is cut short"):
            open_emulated(plan, emulated)


def test_a_file_that_cannot_be_read_is_the_files_fault(emulated, tmp_path, monkeypatch):
    def broken(*arguments: object) -> int:
        raise OSError(5, "Input/output error")

    with stored(tmp_path / "m.plan", 2 * CHUNK) as plan:
        monkeypatch.setattr(module.os, "preadv", broken)
        with pytest.raises(PlanFileError, match=r"m\.plan: cannot be read: Input/output error"):
            open_emulated(plan, emulated)


@pytest.mark.parametrize("number", range(6))  # three readers with a stream and an event each
def test_a_handle_that_is_refused_leaves_nothing(tmp_path, number: int):
    device = EmulatedDevice()
    device.refuse.extend([None] * number + ["no more handles"])
    with stored(tmp_path / "m.plan", 3 * CHUNK) as plan, pytest.raises(DeviceError, match="no more handles"):
        open_emulated(plan, device)
    assert device.leftovers == {}


def test_too_little_memory_for_the_weights_or_the_ring(tmp_path):
    with stored(tmp_path / "m.plan", 3 * CHUNK) as plan:
        for limits in ({"memory_limit": CHUNK}, {"pinned_limit": CHUNK}):
            device = EmulatedDevice(**limits)
            with pytest.raises(OutOfMemoryError, match=r"12.0 MiB needed, 4.0 MiB free"):
                open_emulated(plan, device)
            assert device.leftovers == {}


def test_a_copy_that_fails_ends_all_readers(tmp_path, monkeypatch):
    device = EmulatedDevice()
    copy = EmulatedStream.copy_to_device
    copied: list[int] = []

    def failing(self, target: int, source: int, nbytes: int) -> None:
        copied.append(nbytes)
        if len(copied) == 3:
            raise DeviceError("the bus is on fire")
        copy(self, target, source, nbytes)

    with stored(tmp_path / "m.plan", 6 * CHUNK) as plan:
        monkeypatch.setattr(EmulatedStream, "copy_to_device", failing)
        with pytest.raises(DeviceError, match="the bus is on fire"):
            open_emulated(plan, device)
    assert device.leftovers == {}
    assert [t.name for t in threading.enumerate() if t.name.startswith("miniinfer-preload")] == []

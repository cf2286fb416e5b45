"""Arrays of other libraries on the device: DLPack and __cuda_array_interface__."""

import gc
import weakref

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.backends import dlpack
from miniinfer_cli.backends.cuda.arrays.device_array import DeviceArray, from_object
from miniinfer_cli.devices.opening import load
from miniinfer_cli.errors import UsageError
from tests.backends.cuda.row_programs import PAIR, contents, rows
from tests.emulation.engine import open_emulated, plan_of
from tests.emulation.stream import EmulatedEvent, EmulatedStream


class Tensor:
    """A foreign array on a GPU, as torch gives it: its memory, and what was asked of it."""

    def __init__(self, array: np.ndarray, *, ordinal: int = 0, kind: int = dlpack.CUDA, dense: bool = True) -> None:
        self.array = np.array(array, order="C")
        self.ordinal, self.kind, self.dense = ordinal, kind, dense
        self.asked: list[object] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.kind, self.ordinal

    def __dlpack__(self, *, stream: int | None = None) -> object:
        self.asked.append(stream)
        memory = self.array
        capsule = dlpack.give(memory.ctypes.data - 16, memory.shape, memory.dtype, self.ordinal, Owner(memory))
        tensor = described(capsule)
        tensor.byte_offset = 16
        if not self.dense:
            tensor.strides[0], tensor.strides[1] = 1, tensor.shape[0]
        return capsule


_ALIVE: "weakref.WeakSet[Owner]" = weakref.WeakSet()


class Owner:
    def __init__(self, memory: np.ndarray) -> None:
        self.memory = memory
        _ALIVE.add(self)


def described(capsule: object) -> "dlpack._Tensor":
    return dlpack._Managed.from_address(dlpack._pointer_of(capsule, b"dltensor")).tensor


@pytest.fixture
def engine(emulated):
    with open_emulated(plan_of(PAIR), emulated) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _everything_is_given_back():
    yield
    gc.collect()
    assert (dlpack._given, list(_ALIVE)) == ({}, [])


def test_tensors_come_by_dlpack_and_are_let_go(engine, emulated, monkeypatch):
    waits: list[int] = []
    monkeypatch.setattr(EmulatedStream, "wait_for_foreign", lambda self, handle: waits.append(handle))
    with engine.create_context() as context:
        for turn in range(5):
            a, b = Tensor(rows(2, turn)), rows(2, 1)
            del emulated.copies[:], waits[:]
            assert context.run({"a": a, "b": b})["d"].tolist() == [[turn - 1] * 3] * 2
            assert a.asked == [dlpack.LEGACY_STREAM]
            assert waits == [dlpack.LEGACY_STREAM]
            assert sorted(emulated.copies) == [("on device", 24), ("to device", 24), ("to host", 256)]


def test_a_tensor_is_kept_until_the_device_has_read_it(engine):
    with engine.create_context() as context:
        future = context.enqueue({"a": Tensor(rows(2, 5)), "b": rows(2)})
        gc.collect()
        assert len(_ALIVE) == 1
        assert future.result()["d"].tolist() == [[5] * 3] * 2
        gc.collect()
        assert len(_ALIVE) == 0


TYPES = ["float16", "float64", "int8", "int64", "uint8", "uint32", "bool", "complex64", ml_dtypes.bfloat16, ml_dtypes.float8_e5m2]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(), (0, 3), (1,), (2, 1, 3)])
def test_every_type_and_shape_goes_there_and_back(dtype, shape: tuple[int, ...]):
    array = np.ones(shape, dtype)
    taken = from_object("x", Tensor(array), 0)
    assert (taken.shape, taken.dtype, taken.ordinal) == (shape, np.dtype(dtype), 0)
    assert not array.nbytes or contents(taken).tolist() == array.tolist()
    again = from_object("x", Wrapped(taken), 0)
    assert (again.address, again.shape, again.dtype) == (taken.address, taken.shape, taken.dtype)


class Wrapped:
    """Something that passes a DeviceArray on by DLPack."""

    def __init__(self, inner: DeviceArray) -> None:
        self.inner = inner

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.inner.__dlpack_device__()

    def __dlpack__(self, *, stream: int | None = None) -> object:
        return self.inner.__dlpack__(stream=stream)


def test_managed_memory_is_taken_and_the_hosts_is_not():
    assert from_object("x", Tensor(rows(1), kind=13), 0).shape == (1, 3)
    for kind in (1, 3):  # kDLCPU, kDLCUDAHost
        assert from_object("x", Tensor(rows(1), kind=kind), 0) is None
    assert from_object("x", rows(1), 0) is None
    assert from_object("x", 1.5, 0) is None


def test_what_does_not_fit_is_refused_with_the_inputs_name(engine):
    b = rows(2)
    with pytest.raises(
        UsageError, match="input 'a': the array is on cuda:1, the engine on cuda:0\n  hint: copy it to cuda:0 first"
    ):
        engine.run({"a": Tensor(rows(2), ordinal=1), "b": b})
    with pytest.raises(UsageError, match="input 'a': the device array is not dense\n  hint: give a contiguous copy"):
        engine.run({"a": Tensor(rows(2), dense=False), "b": b})
    with pytest.raises(UsageError, match=r"input 'a': got bf16\[2,3\], expected f32\[n,3\]"):
        engine.run({"a": Tensor(rows(2).astype(ml_dtypes.bfloat16)), "b": b})
    with pytest.raises(UsageError, match=r"input 'b': axis 0 \(n\) is 2, but 1 in input 'a'"):
        engine.run({"a": Tensor(rows(1)), "b": b})


def test_what_its_owner_does_not_give_is_refused():
    class NeedsGradient(Tensor):
        def __dlpack__(self, *, stream: int | None = None) -> object:
            raise BufferError("Can't export tensors that require gradient")

    with pytest.raises(UsageError, match=r"input 'x': Can't export tensors that require gradient\n  hint: .*detach"):
        from_object("x", NeedsGradient(rows(1)), 0)


def test_a_capsule_is_taken_once_and_of_types_that_there_are():
    capsule = Tensor(rows(1)).__dlpack__()
    taken = dlpack.take(capsule)
    with pytest.raises(ValueError, match="taken before"):
        dlpack.take(capsule)
    with pytest.raises(ValueError, match="no DLPack capsule"):
        dlpack.take(object())
    del taken
    capsule = Tensor(rows(1)).__dlpack__()
    described(capsule).form.lanes = 4
    with pytest.raises(ValueError, match="DLPack type 2 with 32 bits and 4 lanes have no ONNX counterpart"):
        dlpack.take(capsule)


def test_a_capsule_that_nobody_takes_lets_go():
    capsule = Tensor(rows(1)).__dlpack__()
    assert len(_ALIVE) == 1
    del capsule
    assert len(_ALIVE) == 0


class Cupy:
    """An array by ``__cuda_array_interface__`` alone."""

    def __init__(self, array: np.ndarray, **more: object) -> None:
        self.array = array
        self.__cuda_array_interface__ = {
            "shape": array.shape, "typestr": array.dtype.str, "data": (array.ctypes.data, False), "version": 3, **more,
        }  # fmt: skip


def test_the_cuda_array_interface_is_taken_with_its_stream(engine, monkeypatch):
    waits: list[int] = []
    monkeypatch.setattr(EmulatedStream, "wait_for_foreign", lambda self, handle: waits.append(handle))
    a = Cupy(rows(2, 3), stream=77, strides=(12, 4))
    assert engine.run({"a": a, "b": rows(2)})["d"].tolist() == [[3] * 3] * 2
    assert waits == [77]
    assert from_object("x", Cupy(rows(0), strides=(7, 7)), 0).shape == (0, 3)
    with pytest.raises(UsageError, match="not dense"):
        engine.run({"a": Cupy(rows(2), strides=(4, 8)), "b": rows(2)})
    with pytest.raises(UsageError, match="has a mask"):
        engine.run({"a": Cupy(rows(2), mask=object()), "b": rows(2)})


def test_a_cpu_refuses_arrays_on_a_gpu():
    with load(plan_of(PAIR), "cpu") as engine:
        for value in (Tensor(rows(2)), Cupy(rows(2)), DeviceArray(4096, (2, 3), np.dtype(ml_dtypes.bfloat16), 0)):
            with pytest.raises(UsageError, match="input 'a': the array is on a GPU, the engine on the cpu"):
                engine.run({"a": value, "b": rows(2)})


def test_types_without_a_name_go_by_dlpack_alone():
    array = DeviceArray(4096, (2,), np.dtype(ml_dtypes.bfloat16), 0)
    assert not hasattr(array, "__cuda_array_interface__")
    plain = DeviceArray(4096, (2,), np.dtype("float32"), 1)
    assert plain.__cuda_array_interface__ == {
        "shape": (2,), "typestr": "<f4", "data": (4096, False), "version": 3, "strides": None, "stream": None,
    }  # fmt: skip
    assert plain.__dlpack_device__() == (2, 1)
    for wish in ({"copy": True}, {"dl_device": (1, 0)}):
        with pytest.raises(BufferError, match="stays where it is, on cuda:1"):
            plain.__dlpack__(**wish)
    with pytest.raises(BufferError, match="no type for int4"):
        DeviceArray(4096, (2,), np.dtype(ml_dtypes.int4), 0).__dlpack__()


def test_an_input_that_decides_shapes_may_lie_on_the_device(emulated):
    text = "graph main(x: f32[6], s: i64[2]) {\n  y = Reshape(x, s)\n  z = Exp(y)\n  return z\n}"
    with open_emulated(plan_of(text), emulated) as engine:
        for shape in ([2, 3], [3, 2], [-1, 1]):
            z = engine.run({"x": np.zeros(6, np.float32), "s": Tensor(np.array(shape))})["z"]
            assert z.tolist() == np.ones(6).reshape(shape).tolist()


def test_a_stream_of_another_library_waits_in_the_place_of_the_host(engine, monkeypatch):
    held: list[tuple[object, int]] = []
    monkeypatch.setattr(EmulatedEvent, "hold_foreign", lambda self, handle: held.append((self, handle)))
    waited: list[object] = []
    synchronize = EmulatedEvent.synchronize
    monkeypatch.setattr(EmulatedEvent, "synchronize", lambda self: (waited.append(self), synchronize(self))[1])
    inputs = {"a": Tensor(rows(2, 3)), "b": rows(2)}
    expected = engine.run(inputs)["d"]
    before = engine.stats()["inferences"]
    with engine.create_context() as context:
        waited.clear()
        futures = [context.enqueue(inputs, on_device=True) for _ in range(2)]
        handed = [f.on_stream(0x7F00)["d"] for f in futures]
        assert (len(held), {handle for _, handle in held}, waited) == (2, {0x7F00}, [])
        assert futures[0].on_stream(0x7F00)["d"] is handed[0]  # once is enough
        assert len(held) == 2
        assert engine.stats()["inferences"] == before + 2
        assert futures[1].result()["d"] is handed[1]  # which waits
        assert waited
        assert engine.stats()["inferences"] == before + 2
        assert all(np.array_equal(contents(array), expected) for array in handed)
        third = context.enqueue(inputs, on_device=True)
        assert third.on_stream(0x7F00)["d"].address == handed[0].address  # the first slot's turn again


def test_what_the_host_takes_part_in_is_waited_for(engine, monkeypatch):
    held: list[int] = []
    monkeypatch.setattr(EmulatedEvent, "hold_foreign", lambda self, handle: held.append(handle))
    inputs = {"a": rows(2, 3), "b": rows(2)}
    with engine.create_context() as context:
        assert isinstance(context.enqueue(inputs).on_stream(7)["d"], np.ndarray)
    with load(plan_of(PAIR), "cpu") as on_cpu:
        future = on_cpu.create_context().enqueue(inputs)
        assert future.on_stream(7)["d"].tolist() == future.result()["d"].tolist() == [[3] * 3] * 2
    assert held == []

"""OrtValue and IOBinding: what is shared, what is copied, and where it lies."""

import ml_dtypes
import numpy as np
import onnxruntime
import pytest

from miniinfer_cli import ort
from miniinfer_cli.devices import gpu_memory as memory_of_gpus
from miniinfer_cli.ort import binding, values
from tests.emulation.device import EmulatedDevice
from tests.ort.models import W, product

X = np.linspace(0, 1, 8, dtype=np.float32).reshape(2, 4)
InvalidArgument = ort.capi.onnxruntime_pybind11_state.InvalidArgument


@pytest.fixture
def gpu(monkeypatch):
    """The memory of an emulated GPU in the place of a real one's."""
    memory = memory_of_gpus.GpuMemory(EmulatedDevice())
    for module in (values, binding):
        monkeypatch.setattr(module, "gpu_memory", lambda ordinal: memory)
    return memory


def test_a_value_of_the_host_is_the_array_itself():
    x = X.copy()
    value = ort.OrtValue.ortvalue_from_numpy(x)
    assert value.numpy() is x or np.shares_memory(value.numpy(), x)
    assert value.data_ptr() == x.ctypes.data
    theirs = onnxruntime.OrtValue.ortvalue_from_numpy(x)
    for of in ("shape", "data_type", "element_type", "device_name", "has_value", "is_tensor", "tensor_size_in_bytes"):
        assert getattr(value, of)() == getattr(theirs, of)()
    value.update_inplace(np.zeros((2, 4), np.float32))
    assert not x.any()
    for wrong in (np.zeros((2, 5), np.float32), np.zeros((2, 4))):
        with pytest.raises(RuntimeError, match="does not fit"):
            value.update_inplace(wrong)


def test_dlpack_goes_both_ways_at_the_same_address():
    x = X.copy()
    taken = np.from_dlpack(ort.OrtValue.ortvalue_from_numpy(x))
    assert taken.ctypes.data == x.ctypes.data
    given = ort.OrtValue.from_dlpack(x)
    assert given.data_ptr() == x.ctypes.data
    again = ort.OrtValue.from_dlpack(given.to_dlpack())
    assert again.data_ptr() == x.ctypes.data
    del given, taken
    np.testing.assert_array_equal(again.numpy(), X)
    theirs = onnxruntime.OrtValue.from_dlpack(again)
    assert theirs.data_ptr() == x.ctypes.data
    truth = ort.OrtValue.from_dlpack(np.ones(3, np.uint8), is_bool_tensor=True)
    assert truth.data_type() == "tensor(bool)"
    with pytest.raises(InvalidArgument, match="capsule"):
        ort.OrtValue.from_dlpack(5)


def test_dlpack_carries_bf16():
    x = np.arange(3).astype(ml_dtypes.bfloat16)
    value = ort.OrtValue.from_dlpack(ort.OrtValue.ortvalue_from_numpy(x))
    assert value.data_type() == "tensor(bfloat16)"
    assert value.data_ptr() == x.ctypes.data


def test_values_of_a_shape_and_of_a_type_that_numpy_lacks():
    assert ort.OrtValue.ortvalue_from_shape_and_type([2, 3], np.float32).shape() == [2, 3]
    assert ort.OrtValue.ortvalue_from_shape_and_type([2], 7).data_type() == "tensor(int64)"
    bits = ort.OrtValue.ortvalue_from_numpy_with_onnx_type(np.array([0x3F80], np.uint16), 16)
    assert (bits.data_type(), float(bits.numpy()[0])) == ("tensor(bfloat16)", 1.0)
    with pytest.raises(InvalidArgument, match="wide"):
        ort.OrtValue.ortvalue_from_numpy_with_onnx_type(np.zeros(1), 16)
    with pytest.raises(TypeError, match="no number 99"):
        ort.OrtValue.ortvalue_from_shape_and_type([2], 99)


def test_lists_and_nothing_are_values():
    sequence = ort.OrtValue([X])
    assert (sequence.is_tensor_sequence(), sequence.is_tensor(), sequence.data_type()) == (True, False, "seq(tensor(float))")
    assert not ort.OrtValue(None).has_value()
    with pytest.raises(RuntimeError, match="no tensor"):
        sequence.numpy()


def test_a_session_takes_and_gives_values():
    session = ort.InferenceSession(product())
    (y,) = session.run_with_ort_values(["y"], {"x": ort.OrtValue.ortvalue_from_numpy(X)})
    np.testing.assert_allclose(y.numpy(), X @ W, rtol=1e-6)
    (again,) = session.run(["y"], {"x": ort.OrtValue.ortvalue_from_numpy(X)})
    np.testing.assert_allclose(again, X @ W, rtol=1e-6)


def test_bound_arrays_are_read_and_written():
    session = ort.InferenceSession(product())
    bound = session.io_binding()
    out = np.empty((2, 3), np.float32)
    x = X.copy()
    bound.bind_input("x", "cpu", 0, np.float32, x.shape, x.ctypes.data)
    bound.bind_output("z")
    bound.bind_output("y", "cpu", 0, np.float32, out.shape, out.ctypes.data)
    session.run_with_iobinding(bound)
    np.testing.assert_allclose(out, X @ W, rtol=1e-6)
    z, y = bound.get_outputs()
    assert y.data_ptr() == out.ctypes.data
    assert [a.shape for a in bound.copy_outputs_to_cpu()] == [(2, 1), (2, 3)]
    x[:] = 0
    session.run_with_iobinding(bound)
    assert not out.any()
    assert z.shape() == [2, 1]
    bound.bind_cpu_input("x", X)
    target = ort.OrtValue.ortvalue_from_shape_and_type([2, 3], np.float32)
    bound.bind_ortvalue_output("y", target)
    session.run_with_iobinding(bound)
    np.testing.assert_allclose(target.numpy(), X @ W, rtol=1e-6)


def test_bindings_that_do_not_fit_are_refused():
    session, other = ort.InferenceSession(product()), ort.InferenceSession(product())
    bound = session.io_binding()
    with pytest.raises(RuntimeError, match="no input 'q'"):
        bound.bind_cpu_input("q", X)
    with pytest.raises(RuntimeError, match="Invalid output name: q"):
        bound.bind_output("q")
    with pytest.raises(ValueError, match="`shape`"):
        bound.bind_output("y", buffer_ptr=1)
    bound.bind_cpu_input("x", X)
    with pytest.raises(RuntimeError, match="no output is bound"):
        session.run_with_iobinding(bound)
    small = np.empty((1, 3), np.float32)
    bound.bind_output("y", "cpu", 0, np.float32, small.shape, small.ctypes.data)
    with pytest.raises(RuntimeError, match=r"output 'y' is float32\[2, 3\], what it is bound to is float32\[1, 3\]"):
        session.run_with_iobinding(bound)
    with pytest.raises(ValueError, match="another session"):
        other.run_with_iobinding(bound)
    bound.clear_binding_outputs()
    bound.bind_output("y")
    bound.clear_binding_inputs()
    with pytest.raises(RuntimeError, match="missing 'x'"):
        session.run_with_iobinding(bound)


def test_devices():
    device = ort.OrtDevice.make("cuda", 1)
    assert (device.device_type(), device.device_id(), device.device_vendor_id()) == (1, 1, 0x10DE)
    with pytest.raises(ort.capi.onnxruntime_pybind11_state.NotImplemented, match="'dml'"):
        ort.OrtDevice.make("dml", 0)


def test_values_on_a_gpu(gpu):
    value = ort.OrtValue.ortvalue_from_numpy(X, "cuda", 0)
    assert (value.device_name(), value.shape(), value.data_type()) == ("cuda", [2, 4], "tensor(float)")
    assert value.__dlpack_device__() == (2, 0)
    np.testing.assert_array_equal(value.numpy(), X)
    value.update_inplace(X + 1)
    np.testing.assert_array_equal(value.numpy(), X + 1)
    again = ort.OrtValue.from_dlpack(value)
    assert (again.device_name(), again.data_ptr()) == ("cuda", value.data_ptr())


def test_outputs_go_to_a_gpu_and_from_it(gpu):
    session = ort.InferenceSession(product())
    bound = session.io_binding()
    bound.bind_cpu_input("x", X)
    bound.bind_output("y", "cuda", 0)
    session.run_with_iobinding(bound)
    (y,) = bound.get_outputs()
    assert y.device_name() == "cuda"
    np.testing.assert_allclose(bound.copy_outputs_to_cpu()[0], X @ W, rtol=1e-6)
    target = gpu.empty((2, 3), np.float32)
    bound.bind_output("y", "cuda", 0, np.float32, (2, 3), target.address)
    session.run_with_iobinding(bound)
    np.testing.assert_allclose(gpu.fetch(target), X @ W, rtol=1e-6)

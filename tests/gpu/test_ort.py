"""Sessions of onnxruntime's programs on a GPU: values and bindings there, read and written where they lie."""

from pathlib import Path

import numpy as np
import pytest

from miniinfer_cli import ort
from tests.ort.models import W, product

X = np.linspace(0, 1, 8, dtype=np.float32).reshape(2, 4)
CUDA = "CUDAExecutionProvider"


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ort.InferenceSession:
    monkeypatch.setenv("MINIINFER_CACHE", str(tmp_path))
    return ort.InferenceSession(product(), providers=[(CUDA, {"device_id": 0}), "CPUExecutionProvider"])


def test_a_session_runs_on_the_gpu(session: ort.InferenceSession) -> None:
    assert session.get_providers() == [CUDA, "CPUExecutionProvider"]
    assert ort.get_device() == "GPU"
    for _ in range(3):
        y, z = session.run(None, {"x": X})
        np.testing.assert_allclose(y, X @ W, rtol=1e-2, atol=1e-3)
        np.testing.assert_array_equal(z[:, 0], (X @ W).argmax(1))


def test_values_lie_on_the_gpu(session: ort.InferenceSession) -> None:
    value = ort.OrtValue.ortvalue_from_numpy(X, "cuda", 0)
    assert value.device_name() == "cuda"
    np.testing.assert_array_equal(value.numpy(), X)
    value.update_inplace(X * 2)
    (y,) = session.run_with_ort_values(["y"], {"x": value})
    np.testing.assert_allclose(y.numpy(), 2 * X @ W, rtol=1e-2, atol=1e-3)


def test_bindings_read_and_write_at_addresses(session: ort.InferenceSession) -> None:
    source = ort.OrtValue.ortvalue_from_numpy(X, "cuda", 0)
    target = ort.OrtValue.ortvalue_from_shape_and_type([2, 3], np.float32, "cuda", 0)
    bound = session.io_binding()
    bound.bind_input("x", "cuda", 0, np.float32, (2, 4), source.data_ptr())
    bound.bind_output("y", "cuda", 0, np.float32, (2, 3), target.data_ptr())
    bound.bind_output("z", "cuda", 0)
    for factor in (1, 2, 3):
        source.update_inplace(X * factor)
        session.run_with_iobinding(bound)
        np.testing.assert_allclose(target.numpy(), factor * X @ W, rtol=1e-2, atol=1e-2)
    y, z = bound.get_outputs()
    assert (y.data_ptr(), z.device_name()) == (target.data_ptr(), "cuda")
    assert bound.copy_outputs_to_cpu()[1].shape == (2, 1)


def test_tensors_of_torch_go_in_and_out_at_their_address(session: ort.InferenceSession) -> None:
    torch = pytest.importorskip("torch")
    x = torch.tensor(X, device="cuda")
    value = ort.OrtValue.from_dlpack(x)
    assert (value.data_ptr(), value.device_name()) == (x.data_ptr(), "cuda")
    bound = session.io_binding()
    bound.bind_ortvalue_input("x", value)
    bound.bind_output("y", "cuda", 0)
    session.run_with_iobinding(bound)
    (y,) = bound.get_outputs()
    taken = torch.from_dlpack(y)
    assert taken.data_ptr() == y.data_ptr()
    np.testing.assert_allclose(taken.cpu().numpy(), X @ W, rtol=1e-2, atol=1e-3)

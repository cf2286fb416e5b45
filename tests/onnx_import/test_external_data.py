"""Data beside the model: mapped from inside its folder, and refused from anywhere else."""

import errno
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from miniinfer_cli.errors import ModelError, OutOfMemoryError
from miniinfer_cli.ir.constants import MappedConstant
from miniinfer_cli.onnx_import import external_data, import_model
from miniinfer_cli.ops.interpreter import interpret
from tests.onnx_import.models import F32, fault, model

W = np.arange(6, dtype=np.float32).reshape(2, 3)


def _tensor(**entries: object) -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=W.shape, data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def _proto(tensor: TensorProto) -> onnx.ModelProto:
    return model([helper.make_node("Add", ["x", "w"], ["y"])], {"x": (F32, [2, 3])}, {"y": (F32, None)}, {"w": tensor})


def _saved(folder: Path, tensor: TensorProto, data: bytes = b"\0" * 8 + W.tobytes()) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "w.bin").write_bytes(data)
    path = folder / "m.onnx"
    path.write_bytes(_proto(tensor).SerializeToString())
    return path


@pytest.mark.parametrize("entries", [{"offset": 8, "length": 24}, {"offset": 8}, {"offset": 8, "checksum": "ab"}])
def test_data_is_found_beside_the_model(tmp_path: Path, entries: dict[str, object]) -> None:
    graph = import_model(_saved(tmp_path / "m", _tensor(location="w.bin", **entries)))
    (y,) = interpret(graph, [np.ones((2, 3), np.float32)])
    np.testing.assert_array_equal(y, W + 1)


def test_sub_folders_and_detours_inside_the_folder(tmp_path: Path) -> None:
    path = _saved(tmp_path / "m", _tensor(location="d/../d/./w.bin", offset=8))
    (tmp_path / "m" / "d").mkdir()
    (tmp_path / "m" / "w.bin").rename(tmp_path / "m" / "d" / "w.bin")
    assert len(import_model(path)) == 1


def test_large_data_stays_in_the_file(tmp_path: Path) -> None:
    tensor = _tensor(location="w.bin")
    tensor.dims[:] = [4096, 3]
    path = _saved(tmp_path / "m", tensor, np.arange(4096 * 3, dtype=np.float32).tobytes())
    proto = onnx.load(path, load_external_data=False)
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    path.write_bytes(proto.SerializeToString())
    (node,) = import_model(path)
    handle = node.inputs[1].constant
    assert isinstance(handle, MappedConstant)
    assert handle.source == "w.bin@0"
    assert not isinstance(handle.buffer, bytes)
    np.testing.assert_array_equal(handle.array()[-1], [12285, 12286, 12287])


@pytest.mark.parametrize("location", ["../w.bin", "/etc/hostname", "d/../../w.bin", "escape/w.bin", "link.bin"])
def test_data_outside_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    path = _saved(tmp_path / "m", _tensor(location=location, offset=8))
    (tmp_path / "w.bin").write_bytes(b"\0" * 32)
    (tmp_path / "m" / "escape").symlink_to(tmp_path)
    (tmp_path / "m" / "link.bin").symlink_to(tmp_path / "w.bin")
    text = fault(path)
    assert text.startswith(
        f"m.onnx: node 'y' (Add, opset 18): tensor 'w': its data is in {location!r}, outside the model's folder"
    )
    assert "hint: put the data file beside the model" in text


def test_a_link_to_the_whole_folder_is_fine(tmp_path: Path) -> None:
    _saved(tmp_path / "m", _tensor(location="w.bin", offset=8))
    (tmp_path / "link").symlink_to(tmp_path / "m")
    assert len(import_model(tmp_path / "link" / "m.onnx")) == 1


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({"location": "gone.bin"}, "cannot be opened: No such file or directory"),
        ({"location": "loop.bin"}, "cannot be opened: Too many levels of symbolic links"),
        ({"location": "x" * 300}, "cannot be opened: File name too long"),
        ({"location": "."}, "is not a regular file"),
        ({"location": ""}, "its data is in a file named ''"),
        ({}, "its data is in a file named ''"),
        ({"location": "w.bin", "offset": 9}, "its data is bytes 9 to 33 of 'w.bin', which has 32"),
        ({"location": "w.bin", "offset": -1}, "the offset of its external data is '-1', not a number of bytes"),
        ({"location": "w.bin", "offset": "two"}, "the offset of its external data is 'two', not a number of bytes"),
        ({"location": "w.bin", "length": 20}, "its data in 'w.bin' is 20 bytes long, the tensor takes 24"),
        ({"location": "w.bin", "length": 28}, "its data in 'w.bin' is 28 bytes long, the tensor takes 24"),
    ],
)
def test_faulty_entries(tmp_path: Path, entries: dict[str, object], reason: str) -> None:
    path = _saved(tmp_path / "m", _tensor(**entries))
    (tmp_path / "m" / "loop.bin").symlink_to("loop.bin")
    text = fault(path)
    assert text.startswith("m.onnx: node 'y' (Add, opset 18): tensor 'w': ")
    assert reason in text


@pytest.mark.parametrize(
    ("code", "kind"), [(errno.EACCES, ModelError), (errno.EMFILE, ModelError), (errno.ENOMEM, OutOfMemoryError)]
)
def test_data_that_the_system_does_not_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type) -> None:
    path = _saved(tmp_path / "m", _tensor(location="w.bin", offset=8))

    def refuse(file: Path) -> None:
        if file.name == "w.bin":
            raise OSError(code, os.strerror(code), str(file))

    monkeypatch.setattr(external_data, "pipe_contents", refuse)
    with pytest.raises(kind, match=r"(m\.onnx|w\.bin): "):
        import_model(path)


def test_strings_cannot_be_external(tmp_path: Path) -> None:
    tensor = _tensor(location="w.bin")
    tensor.data_type = TensorProto.STRING
    assert "tensor 'w': strings cannot be external data" in fault(_saved(tmp_path / "m", tensor))


def test_models_without_a_place_need_a_folder(tmp_path: Path) -> None:
    path = _saved(tmp_path / "m", _tensor(location="w.bin", offset=8))
    for source in (path.read_bytes(), onnx.load(path, load_external_data=False)):
        with pytest.raises(ModelError, match="a model given as bytes has no folder"):
            import_model(source)
        assert len(import_model(source, folder=tmp_path / "m")) == 1

"""What a model comes in: a file, bytes, or a ModelProto; and telling what it is when it is no ONNX model."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from engine_format.layout import MAGIC
from miniinfer_cli.errors import ModelError, UsageError, refused
from miniinfer_cli.onnx_import.external_data import ExternalFiles, map_file
from miniinfer_cli.onnx_import.names import expect_text
from miniinfer_cli.onnx_import.tensors import TensorReader
from miniinfer_cli.onnx_import.wire import strip, truncated

Model = str | os.PathLike[str] | bytes | bytearray | memoryview | onnx.ModelProto

_OTHER_FORMATS = (
    (0, MAGIC, "it is a plan, which is built already: miniinfer run PLAN, miniinfer_cli.load(plan), trtexec's --loadEngine=PLAN"),
    (0, b"version https://git-lfs", "it is a Git LFS pointer; run 'git lfs pull' to get the model"),
    (0, b"PK\x03\x04", "it is a ZIP archive, perhaps a PyTorch checkpoint; export it with torch.onnx.export"),
    (0, b"\x89HDF", "it is an HDF5 file, perhaps a Keras model; convert it with tf2onnx"),
    (0, b"GGUF", "it is a GGUF file"),
    (4, b"TFL3", "it is a TensorFlow Lite model; convert it with tf2onnx"),
    (0, b"{", "it is JSON; save the model in ONNX's binary form"),
    (0, b"<", "it is XML or HTML; was the download an error page?"),
)


@dataclass(frozen=True)
class Source:
    """A model as protobuf, without its large data; the reader that finds the data; the file name for messages."""

    model: onnx.ModelProto
    tensors: TensorReader
    label: str


def read_source(model: Model, folder: str | os.PathLike[str] | None = None) -> Source:
    """Reads ``model``; its external data is looked for in ``folder``, by default the folder of the file.

    Raises UsageError when the file cannot be opened and ModelError when it is no ONNX model. Never changes ``model``.
    """
    place = Path(folder) if folder is not None else None
    if isinstance(model, onnx.ModelProto):
        label = "model"
        source = Source(model, TensorReader(ExternalFiles(place), label=label), label)
    elif isinstance(model, (bytes, bytearray, memoryview)):
        source = _parsed(memoryview(model), ExternalFiles(place), "model")
    elif not isinstance(model, (str, os.PathLike)):
        raise UsageError(
            f"expected a path, bytes or an onnx.ModelProto, got {type(model).__name__}",
            hint="a model of a framework is exported first: torch.onnx.export, tf2onnx ...",
        )
    else:
        path = Path(model)
        data, is_file = _mapped(path)
        if place is None and is_file:  # the data of a model that comes through a pipe lies nowhere
            place = path.parent
        source = _parsed(data, ExternalFiles(place), path.name)
    _expect_complete(source)
    return source


def _mapped(path: Path) -> tuple[Any, bool]:
    """The bytes at ``path``, and whether that is a file."""
    try:
        if path.is_dir():
            raise UsageError(f"{str(path)!r} is a folder, not a model", hint="give the .onnx file inside it")
        return map_file(path), path.is_file()
    except OSError as error:
        raise refused(error, f"the model {str(path)!r} cannot be opened: {error.strerror}") from None


def _parsed(data: Any, external: ExternalFiles, label: str) -> Source:
    try:
        if not len(data):
            raise ModelError("the file is empty", hint="copy or download it again")
        for at, magic, hint in _OTHER_FORMATS:
            if data[at : at + len(magic)] == magic:
                raise ModelError("not an ONNX model", hint=hint)
        stripped = strip(data)
        try:
            model = onnx.ModelProto.FromString(stripped.model)
        except DecodeError:
            raise ModelError("not an ONNX model, or a damaged one: protobuf cannot read it") from None
    except ModelError as error:
        raise error.at(label) from None
    return Source(model, TensorReader(external, data, stripped.ranges, label), label)


def _expect_complete(source: Source) -> None:
    model, label = source.model, source.label
    if not model.HasField("graph"):
        if model.HasField("ir_version") or model.opset_import:
            raise truncated("it has no graph").at(label)
        raise ModelError("not an ONNX model: it has neither a graph nor a version", where=(label,))
    if model.ir_version > onnx.IR_VERSION:
        raise ModelError(
            f"IR version {model.ir_version} is newer than the {onnx.IR_VERSION} that onnx {onnx.__version__} knows",
            hint="upgrade the onnx package, or save the model with an older ir_version",
            where=(label,),
        )
    if not model.opset_import and model.ir_version >= 3:
        raise truncated("it has a graph but imports no operator sets").at(label)
    try:
        expect_text(model)
    except ModelError as error:
        raise error.at(label) from None

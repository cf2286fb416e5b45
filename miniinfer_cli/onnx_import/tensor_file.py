"""A TensorProto in a file of its own, as data sets for ONNX models hold them."""

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from miniinfer_cli.errors import ModelError, UsageError
from miniinfer_cli.ir import Array
from miniinfer_cli.onnx_import.external_data import ExternalFiles
from miniinfer_cli.onnx_import.tensors import TensorReader
from miniinfer_cli.pipes import pipe_contents


def read_tensor(path: Path) -> Array:
    """The contents of the TensorProto in ``path``. Raises UsageError when there is none, OSError when it cannot be read."""
    try:
        contents = pipe_contents(path)
        tensor = onnx.TensorProto.FromString(path.read_bytes() if contents is None else contents)
        return TensorReader(ExternalFiles(path.parent)).read(tensor).array()
    except (DecodeError, ModelError) as error:
        raise UsageError(
            f"does not hold a TensorProto: {str(error).splitlines()[0]}", hint="write it by TensorProto.SerializeToString"
        ).at(str(path)) from None

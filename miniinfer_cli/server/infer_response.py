"""The answer to a request, as the bytes of its body."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from miniinfer_cli.errors import UsageError
from miniinfer_cli.ir import Array
from miniinfer_cli.server.datatypes import tensor_bytes
from miniinfer_cli.server.infer_request import InferRequest
from miniinfer_cli.server.signature import Signature

_quoted = json.encoder.encode_basestring_ascii
_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


@dataclass(frozen=True, slots=True)
class Written:
    """An output that is in shared memory by now."""

    shape: tuple[int, ...]
    nbytes: int


def put(name: str, array: Array, place: memoryview) -> Written:
    """Writes an output to where it is to go. Raises UsageError where there is no room."""
    data = tensor_bytes(array)
    if len(data) > len(place):
        raise UsageError(f"output {name!r} has {len(data)} bytes, and its region {len(place)}")
    place[: len(data)] = data
    return Written(array.shape, len(data))


def write_response(
    model: str, version: str, request: InferRequest, outputs: Mapping[str, Array | Written], signature: Signature
) -> tuple[bytes, int | None]:
    """The body, and how many bytes of it are JSON where binary tensors follow; None where none do.

    What is to go to shared memory is put there. Raises UsageError for a value that JSON has not, and a place too small.
    """
    told: list[str] = []
    behind: list[Any] = []
    for wanted in request.outputs:
        array = outputs[wanted.name]
        datatype, shape = signature.outputs[wanted.name].datatype, ",".join(map(str, array.shape))
        head = f'{{"name":{_quoted(wanted.name)},"datatype":"{datatype}","shape":[{shape}],'
        if isinstance(wanted.place, memoryview) and not isinstance(array, Written):
            array = put(wanted.name, array, wanted.place)
        if isinstance(array, Written):
            where = f'"shared_memory_region":{_quoted(wanted.region)},"shared_memory_byte_size":{array.nbytes}'
            told.append(f'{head}"parameters":{{{where}}}}}')
        elif wanted.binary:
            data = tensor_bytes(array)
            told.append(f'{head}"parameters":{{"binary_data_size":{len(data)}}}}}')
            behind.append(data)
        else:
            told.append(f'{head}"data":{_encode(_to_json(wanted.name, array))}}}')
    identity = f'"id":{_quoted(request.id)},' if request.id else ""
    head = f'{{"model_name":{_quoted(model)},"model_version":{_quoted(version)},{identity}'
    text = f'{head}"outputs":[{",".join(told)}]}}'.encode()
    if not any(wanted.binary and wanted.place is None for wanted in request.outputs):
        return text, None
    return b"".join((text, *behind)), len(text)


def _to_json(name: str, array: Array) -> list[Any]:
    if array.dtype.kind not in "biufO":  # of ml_dtypes
        array = array.astype(np.float32)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise UsageError(f"output {name!r} has NaN or infinities, which JSON has not", hint="ask for it by binary_data")
    flat: list[Any] = array.reshape(-1).tolist()
    return flat


def error_body(message: str) -> bytes:
    """The protocol's form of an error."""
    return json_body({"error": message})


def json_body(document: Mapping[str, Any] | Sequence[Any]) -> bytes:
    """A document as the body of an answer."""
    return _encode(document).encode()

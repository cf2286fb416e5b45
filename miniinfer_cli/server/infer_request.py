"""A request to infer, read from the bytes of its body: JSON, and what of its tensors is binary behind it."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from miniinfer_cli.errors import UsageError
from miniinfer_cli.ir import Array
from miniinfer_cli.runtime.host_arrays import host_array
from miniinfer_cli.server.datatypes import read_texts
from miniinfer_cli.server.signature import Signature, Tensor

_SEQUENCES = ("sequence_id", "sequence_start", "sequence_end")
_MOST_RANK = 64
_MOST_ELEMENTS = 1 << 50
_KEPT = 1024  # texts of requests that are remembered
_KEPT_NBYTES = 4096  # of one at most
_NOTHING = np.empty(0, np.uint8)  # in the place of an input that comes with each request


@dataclass(frozen=True, slots=True)
class Place:
    """A part of a region of shared memory, which is another process's to look at."""

    region: str
    offset: int
    nbytes: int


class Regions(Protocol):
    """Memory that clients share with the server; see ``shared_memory.Regions``."""

    def part(self, region: str, offset: int, nbytes: int) -> "memoryview | Place":
        """See Regions."""


@dataclass(frozen=True, slots=True)
class PlacedInput:
    """An input whose bytes are in a Place."""

    place: Place
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class WantedOutput:
    """An output that is asked for. ``binary``: as bytes behind the JSON. ``place``: the shared memory where it is to go."""

    name: str
    binary: bool
    place: memoryview | Place | None = None
    region: str = ""


@dataclass(frozen=True, slots=True)
class InferRequest:
    """What a request asks for. ``priority``: 0, or from 1, the highest. ``timeout_s``: None where it sets no time."""

    id: str
    inputs: dict[str, Array | PlacedInput]
    outputs: tuple[WantedOutput, ...]
    priority: int
    timeout_s: float | None

    def deadline_s(self, most_s: float | None) -> float | None:
        """The seconds that it has, ``most_s`` at most; None where nothing sets a time."""
        return min((s for s in (self.timeout_s, most_s) if s is not None), default=None)


@dataclass(frozen=True, slots=True)
class _Read:
    """A request that was read before: clients send the same JSON over and over, with other bytes behind it, or in shared memory.

    ``binary``: name, tensor, shape and bytes of each input, in order, that has its bytes there: ``nbytes`` in all.
    """

    request: InferRequest
    binary: tuple[tuple[str, Tensor, tuple[int, ...], int], ...]
    nbytes: int

    def again(self, rest: memoryview | bytes) -> InferRequest:
        """The same with other bytes."""
        if not self.binary:
            return self.request
        inputs, at, memory = dict(self.request.inputs), 0, memoryview(rest)
        for name, tensor, shape, nbytes in self.binary:
            inputs[name] = from_bytes(name, tensor, shape, memory[at : at + nbytes])
            at += nbytes
        same = self.request
        return InferRequest(same.id, inputs, same.outputs, same.priority, same.timeout_s)


def read_request(body: memoryview, json_nbytes: int | None, signature: Signature, regions: Regions | None) -> InferRequest:
    """The request in ``body``, whose first ``json_nbytes`` are JSON; None: all of them are.

    ``regions``: shared memory that tensors may lie in, where that is allowed. Raises UsageError for what is wrong with it.
    """
    if json_nbytes is not None and json_nbytes > len(body):
        raise UsageError(f"Inference-Header-Content-Length: {json_nbytes} is more than the {len(body)} bytes of the body")
    rest = b"" if json_nbytes is None else body[json_nbytes:]
    text = bytes(body if json_nbytes is None else body[:json_nbytes])
    read: _Read | None = signature.read.get(text)
    if read is not None and read.nbytes == len(rest):
        return read.again(rest)
    document = _document(text)
    parameters = _parameters(document, "the request")
    for name in _SEQUENCES:
        if parameters.get(name):
            raise UsageError(f"parameter {name!r}: requests are independent of each other here", hint="leave it out")
    identity = document.get("id", "")
    if not isinstance(identity, str):
        raise UsageError(f"id: expected text, got {_shown(identity)}")
    reader = _Inputs(signature, regions, rest)
    timeout = _whole(parameters, "timeout", 0)
    request = InferRequest(
        identity,
        reader.read(_items(document, "inputs")),
        _outputs(document, signature, regions, parameters.get("binary_data_output") is True),
        _whole(parameters, "priority", 0),
        timeout / 1e6 if timeout else None,
    )
    if reader.is_elsewhere and len(text) <= _KEPT_NBYTES and not any(isinstance(w.place, memoryview) for w in request.outputs):
        kept: dict[str, Array | PlacedInput] = {n: v for n, v in request.inputs.items() if isinstance(v, PlacedInput)}
        in_order = dict.fromkeys(request.inputs, _NOTHING) | kept
        if len(signature.read) >= _KEPT:
            signature.read.clear()
        again = InferRequest(identity, in_order, request.outputs, request.priority, request.timeout_s)
        signature.read[text] = _Read(again, tuple(reader.binary), len(rest))
    return request


def _document(text: bytes) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        told = (
            str(error) if isinstance(error, (json.JSONDecodeError, UnicodeDecodeError)) else "a number in it has too many digits"
        )
        told = "it is nested too deeply" if isinstance(error, RecursionError) else told
        raise UsageError(f"the body is no JSON: {told}", hint="binary tensors need Inference-Header-Content-Length") from None
    if not isinstance(document, dict):
        raise UsageError(f"the body: expected a JSON object, got {_shown(document)}")
    return document


class _Inputs:
    """The tensors of a request; ``rest``: the bytes behind its JSON, which binary ones take in their order."""

    def __init__(self, signature: Signature, regions: Regions | None, rest: memoryview | bytes) -> None:
        self._signature = signature
        self._regions = regions
        self._rest = memoryview(rest)
        self._at = 0
        self.binary: list[tuple[str, Tensor, tuple[int, ...], int]] = []
        """Inputs that have their bytes behind the JSON."""
        self.is_elsewhere = True
        """Nothing of the inputs is in the JSON itself, nor memory that was looked up for this request."""

    def read(self, items: list[Any]) -> dict[str, Array | PlacedInput]:
        arrays: dict[str, Array | PlacedInput] = {}
        for item in items:
            name = _name(item, "inputs")
            tensor = self._signature.inputs.get(name)
            if tensor is None:
                known = ", ".join(str(t.binding) for t in self._signature.inputs.values())
                raise UsageError(f"there is no input {name!r}", hint=f"the inputs are {known}")
            if name in arrays:
                raise UsageError(f"input {name!r} is given twice")
            arrays[name] = self._array(name, tensor, item)
        if self._at != len(self._rest):
            raise UsageError(f"{len(self._rest) - self._at} bytes are left behind the binary inputs")
        return arrays

    def _array(self, name: str, tensor: Tensor, item: dict[str, Any]) -> Array | PlacedInput:
        if item.get("datatype") != tensor.datatype:
            raise UsageError(f"input {name!r}: datatype is {_shown(item.get('datatype'))}, expected {tensor.datatype}")
        shape = _shape(name, item.get("shape"))
        parameters = _parameters(item, f"input {name!r}")
        region, size = parameters.get("shared_memory_region"), parameters.get("binary_data_size")
        given = [word for word, there in (("data", "data" in item), ("binary_data_size", size is not None),
                                          ("shared_memory_region", region is not None)) if there]  # fmt: skip
        if len(given) != 1:
            told = f"has {' and '.join(given)}" if given else "has no data"
            raise UsageError(f"input {name!r} {told}", hint="give data, binary_data_size or shared_memory_region")
        if region is not None:
            part = _region_part(self._regions, parameters, f"input {name!r}")
            if isinstance(part, Place):
                return PlacedInput(part, shape)
            self.is_elsewhere = False
            return from_bytes(name, tensor, shape, part)
        if size is not None:
            size = _whole(parameters, "binary_data_size", 0)
            left = len(self._rest) - self._at
            if size > left:
                raise UsageError(f"input {name!r}: binary_data_size is {size}, and {left} bytes are left of the body")
            self._at += size
            self.binary.append((name, tensor, shape, size))
            return from_bytes(name, tensor, shape, self._rest[self._at - size : self._at])
        self.is_elsewhere = False
        return _from_json(name, tensor, shape, item["data"])


def from_bytes(
    name: str, tensor: Tensor, shape: tuple[int, ...], memory: memoryview, begin: int = 0, nbytes: int | None = None
) -> Array:
    """The tensor of this shape whose bytes are all of ``memory``, or ``nbytes`` from ``begin`` on, which lie in it.

    Raises UsageError where they are not. The array looks at the memory, unless it holds texts, or would not lie aligned.
    """
    if nbytes is None:
        nbytes = len(memory)
    count = math.prod(shape)
    dtype = tensor.dtype
    if dtype.hasobject:
        texts = read_texts(memory[begin : begin + nbytes], name)
        _expect_count(name, shape, count, len(texts))
        return np.array(texts, object).reshape(shape)
    if nbytes != count * dtype.itemsize:
        expected = f"{count * dtype.itemsize} for {tensor.datatype}[{','.join(map(str, shape))}]"
        raise UsageError(f"input {name!r}: {nbytes} bytes, expected {expected}")
    if not count:
        return np.empty(shape, dtype)
    array: Array = np.ndarray(shape, dtype, memory, begin)
    return array if array.flags.aligned else array.copy()


def _from_json(name: str, tensor: Tensor, shape: tuple[int, ...], data: Any) -> Array:
    if not isinstance(data, list):
        raise UsageError(f"input {name!r}: expected data as a list, got {_shown(data)}")
    array = host_array(name, tensor.kind, data)
    _expect_count(name, shape, math.prod(shape), array.size)
    return array.reshape(shape)


def _expect_count(name: str, shape: tuple[int, ...], expected: int, got: int) -> None:
    if got != expected:
        raise UsageError(f"input {name!r}: {got} elements, expected {expected} for shape [{','.join(map(str, shape))}]")


def _outputs(
    document: dict[str, Any], signature: Signature, regions: Regions | None, all_binary: bool
) -> tuple[WantedOutput, ...]:
    if "outputs" not in document:
        return tuple(WantedOutput(name, all_binary) for name in signature.outputs)
    wanted: dict[str, WantedOutput] = {}
    for item in _items(document, "outputs"):
        name = _name(item, "outputs")
        if name not in signature.outputs:
            raise UsageError(f"there is no output {name!r}", hint=f"the outputs are {', '.join(signature.outputs)}")
        if name in wanted:
            raise UsageError(f"output {name!r} is asked for twice")
        parameters = _parameters(item, f"output {name!r}")
        if parameters.get("classification"):
            raise UsageError(f"output {name!r}: classification is not computed here", hint="sort the scores where you read them")
        binary = parameters.get("binary_data", all_binary)
        if not isinstance(binary, bool):
            raise UsageError(f"output {name!r}: expected binary_data as true or false, got {_shown(binary)}")
        if parameters.get("shared_memory_region") is None:
            wanted[name] = WantedOutput(name, binary)
        else:
            place = _region_part(regions, parameters, f"output {name!r}")
            wanted[name] = WantedOutput(name, True, place, parameters["shared_memory_region"])
    return tuple(wanted.values()) or tuple(WantedOutput(name, all_binary) for name in signature.outputs)


def _region_part(regions: Regions | None, parameters: Mapping[str, Any], place: str) -> memoryview | Place:
    region = parameters.get("shared_memory_region")
    if regions is None:
        raise UsageError(f"{place}: shared memory is not taken here", hint="start the server with --shared-memory")
    if not isinstance(region, str):
        raise UsageError(f"{place}: expected the name of a region, got {_shown(region)}")
    nbytes = _whole(parameters, "shared_memory_byte_size", None)
    return regions.part(region, _whole(parameters, "shared_memory_offset", 0), nbytes)


def _items(document: Mapping[str, Any], key: str) -> list[Any]:
    items = document.get(key)
    if not isinstance(items, list):
        raise UsageError(f"{key}: expected a list, got {_shown(items)}" if key in document else f"the request has no {key}")
    return items


def _name(item: Any, key: str) -> str:
    name = item.get("name") if isinstance(item, dict) else None
    if not isinstance(name, str):
        raise UsageError(f"{key}: expected objects with a name, got {_shown(item)}")
    return name


def _parameters(item: Mapping[str, Any], place: str) -> dict[str, Any]:
    parameters = item.get("parameters", {})
    if not isinstance(parameters, dict):
        raise UsageError(f"parameters of {place}: expected an object, got {_shown(parameters)}")
    return parameters


def _shape(name: str, shape: Any) -> tuple[int, ...]:
    if not isinstance(shape, list) or len(shape) > _MOST_RANK or not all(type(n) is int and n >= 0 for n in shape):
        raise UsageError(f"input {name!r}: expected shape as a list of sizes, got {_shown(shape)}")
    if math.prod(shape) > _MOST_ELEMENTS:
        raise UsageError(f"input {name!r}: shape [{','.join(map(str, shape))}] is beyond every memory")
    return tuple(shape)


def _whole(parameters: Mapping[str, Any], name: str, default: int | None) -> int:
    value = parameters.get(name, default)
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise UsageError(f"parameter {name!r}: expected a whole number from 0 on, got {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    """A value out of a request, short enough for a line."""
    text = "nothing" if value is None else json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."

"""Requests to infer as they come, and the answers: JSON, bytes behind it, and everything that may be wrong."""

import json
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.errors import UsageError
from miniinfer_cli.ir import DType, TensorType, symbol
from miniinfer_cli.runtime.bindings import Binding
from miniinfer_cli.server.datatypes import NAMES, read_texts, tensor_bytes, write_texts
from miniinfer_cli.server.infer_request import Place, PlacedInput, read_request
from miniinfer_cli.server.infer_response import write_response
from miniinfer_cli.server.signature import signature_of


def binding(name: str, dtype: DType, *shape: Any) -> Binding:
    return Binding(name, TensorType(dtype, tuple(symbol(d) if isinstance(d, str) else d for d in shape)))


SIGNATURE = signature_of(
    [binding("x", DType.F32, "n", 2), binding("s", DType.STR, "n")],
    [binding("y", DType.F32, "n", 2), binding("t", DType.STR, "n")],
)
X = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2.5]}
S = {"name": "s", "datatype": "BYTES", "shape": [1], "data": ["ä"]}


def read(document: Any, behind: bytes = b"", signature: Any = SIGNATURE) -> Any:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    return read_request(memoryview(text + behind), len(text) if behind else None, signature, None)


def binary(item: dict[str, Any], nbytes: int) -> dict[str, Any]:
    return {**{k: v for k, v in item.items() if k != "data"}, "parameters": {"binary_data_size": nbytes}}


def test_tensors_in_json_may_be_flat_or_nested():
    for data in ([1, 2.5], [[1, 2.5]]):
        found = read({"inputs": [{**X, "data": data}, S], "id": "a", "parameters": {"priority": 2, "timeout": 1500}})
        np.testing.assert_array_equal(found.inputs["x"], np.array([[1, 2.5]], np.float32), strict=True)
        assert list(found.inputs["s"]) == ["ä"]
        assert (found.id, found.priority, found.timeout_s) == ("a", 2, 0.0015)
        assert [(o.name, o.binary) for o in found.outputs] == [("y", False), ("t", False)]


def test_tensors_behind_the_json_are_taken_in_their_order_and_lie_aligned():
    texts = write_texts(np.array(["ä"], object))
    for padding in range(8):  # the JSON's length decides where the bytes lie
        wanted = {"outputs": [{"name": "t"}, {"name": "y", "parameters": {"binary_data": False}}], "id": "i" * padding}
        document = {"inputs": [binary(S, len(texts)), binary(X, 8)], "parameters": {"binary_data_output": True}, **wanted}
        found = read(document, texts + np.array([1, 2.5], "<f4").tobytes())
        np.testing.assert_array_equal(found.inputs["x"], np.array([[1, 2.5]], np.float32), strict=True)
        assert found.inputs["x"].flags.aligned
        assert list(found.inputs["s"]) == ["ä"]
        assert [(o.name, o.binary) for o in found.outputs] == [("t", True), ("y", False)]


class _Elsewhere:
    """Regions of which another process has the memory."""

    def part(self, region: str, offset: int, nbytes: int) -> Place:
        return Place(region, offset, nbytes)


def test_the_same_json_is_read_once_and_its_bytes_each_time():
    signature = signature_of([binding("x", DType.F32, "n", 2), binding("k", DType.I64, "n")], [binding("y", DType.F32, "n", 2)])
    placed = {"shared_memory_region": "r", "shared_memory_offset": 8, "shared_memory_byte_size": 8}
    k = {"name": "k", "datatype": "INT64", "shape": [1]}
    for first in ({**k, "parameters": {"binary_data_size": 8}}, {**k, "parameters": placed}):
        document = json.dumps({"inputs": [first, binary(X, 8)], "id": "a", "parameters": {"timeout": 5}}).encode()
        behind = b"" if first["parameters"] is placed else np.array([7], "<i8").tobytes()
        whole = []
        for number in (1.0, 2.0, 3.0):
            body = document + behind + np.array([number, -number], "<f4").tobytes()
            whole.append(read_request(memoryview(body), len(document), signature, _Elsewhere()))
        for number, found in zip((1.0, 2.0, 3.0), whole, strict=True):
            np.testing.assert_array_equal(found.inputs["x"], np.array([[number, -number]], np.float32), strict=True)
            assert list(found.inputs) == ["k", "x"]
            assert (found.id, found.timeout_s, found.outputs) == ("a", 5e-6, whole[0].outputs)
            if behind:
                assert found.inputs["k"].tolist() == [7]
            else:
                assert found.inputs["k"] == PlacedInput(Place("r", 8, 8), (1,))
        for wrong, told in ((body[:-1], "binary_data_size is 8, and 7 bytes are left"), (body + b"1", "1 bytes are left behind")):
            with pytest.raises(UsageError, match=told):
                read_request(memoryview(wrong), len(document), signature, _Elsewhere())
    assert len(signature.read) == 2


def test_json_with_data_and_memory_of_this_process_are_read_each_time():
    """A region may be another one by the next request."""
    signature = signature_of([binding("x", DType.F32, "n", 2)], [binding("y", DType.F32, "n", 2)])

    class Regions:
        def __init__(self) -> None:
            self.count = 0

        def part(self, region: str, offset: int, nbytes: int) -> memoryview:
            self.count += 1
            return memoryview(np.full(2, self.count, np.float32).tobytes())

    regions = Regions()
    placed = {"shared_memory_region": "r", "shared_memory_byte_size": 8}
    for document in (
        {"inputs": [X]},
        {"inputs": [{**binary(X, 8), "parameters": placed}]},
        {"inputs": [binary(X, 8)], "outputs": [{"name": "y", "parameters": placed}]},
    ):
        text = json.dumps(document).encode()
        behind = b"" if "outputs" not in document else bytes(8)
        for _ in range(2):
            found = read_request(memoryview(text + behind), len(text), signature, regions)
    assert (regions.count, signature.read) == (4, {})
    assert found.outputs[0].place is not None


def test_what_is_remembered_of_requests_is_bounded():
    signature = signature_of([binding("x", DType.F32, "n", 2)], [binding("y", DType.F32, "n", 2)])
    for number in range(1500):
        text = json.dumps({"inputs": [binary(X, 8)], "id": str(number)}).encode()
        assert read_request(memoryview(text + bytes(8)), len(text), signature, None).id == str(number)
    assert 0 < len(signature.read) <= 1024
    long = json.dumps({"inputs": [binary(X, 8)], "id": "a" * 5000}).encode()
    read_request(memoryview(long + bytes(8)), len(long), signature, None)
    assert long not in signature.read


@pytest.mark.parametrize(
    ("document", "told"),
    [
        (b"{", "is no JSON"),
        (b"[" * 100_000, "the body is no JSON: it is nested too deeply"),
        (b"9" * 5_000, "the body is no JSON: a number in it has too many digits"),
        (b"\xff", "is no JSON"),
        ([], "expected a JSON object, got []"),
        ({}, "the request has no inputs"),
        ({"inputs": 1}, "inputs: expected a list, got 1"),
        ({"inputs": [1]}, "expected objects with a name, got 1"),
        ({"inputs": [{**X, "name": "z"}]}, "there is no input 'z'"),
        ({"inputs": [X, X]}, "input 'x' is given twice"),
        ({"inputs": [{**X, "datatype": "FP64"}]}, 'datatype is "FP64", expected FP32'),
        ({"inputs": [{**X, "datatype": None}]}, "datatype is nothing, expected FP32"),
        ({"inputs": [{**X, "shape": [1, -2]}]}, "expected shape as a list of sizes, got [1, -2]"),
        ({"inputs": [{**X, "shape": [True, 2]}]}, "expected shape as a list of sizes"),
        ({"inputs": [{**X, "shape": [1 << 40, 1 << 40]}]}, "is beyond every memory"),
        ({"inputs": [{**X, "shape": [2, 2]}]}, "2 elements, expected 4 for shape [2,2]"),
        ({"inputs": [{**X, "data": [[1], [2, 3]]}]}, "but its lists differ in length"),
        ({"inputs": [{**X, "data": "ab"}]}, 'expected data as a list, got "ab"'),
        ({"inputs": [{**X, "data": [1e39, 0]}]}, "1e+39 does not fit"),
        ({"inputs": [{k: v for k, v in X.items() if k != "data"}]}, "input 'x' has no data"),
        ({"inputs": [{**X, "parameters": {"binary_data_size": 8}}]}, "has data and binary_data_size"),
        ({"inputs": [binary(X, 8)]}, "binary_data_size is 8, and 0 bytes are left"),
        ({"inputs": [{**X, "parameters": 1}]}, "expected an object, got 1"),
        ({"inputs": [{**binary(X, 8), "parameters": {"binary_data_size": "8"}}]}, "expected a whole number from 0 on"),
        ({"inputs": [{**binary(X, 8), "parameters": {"shared_memory_region": "r"}}]}, "shared memory is not taken here"),
        ({"inputs": [X], "id": 1}, "id: expected text, got 1"),
        ({"inputs": [X], "outputs": [{"name": "q"}]}, "there is no output 'q'"),
        ({"inputs": [X], "outputs": [{"name": "y"}, {"name": "y"}]}, "asked for twice"),
        ({"inputs": [X], "outputs": [{"name": "y", "parameters": {"binary_data": 1}}]}, "expected binary_data as true or false"),
        ({"inputs": [X], "outputs": [{"name": "y", "parameters": {"classification": 3}}]}, "classification is not computed"),
        ({"inputs": [X], "parameters": {"sequence_id": 7}}, "requests are independent"),
        ({"inputs": [X], "parameters": {"timeout": -1}}, "parameter 'timeout': expected a whole number from 0 on, got -1"),
        ({"inputs": [X], "parameters": {"priority": 1.5}}, "parameter 'priority': expected a whole number"),
    ],
)
def test_what_is_wrong_is_told(document, told):
    with pytest.raises(UsageError) as raised:
        read(document)
    assert told in raised.value.message


@pytest.mark.parametrize(
    ("behind", "told"),
    [
        (b"\0" * 7, "binary_data_size is 8, and 7 bytes are left of the body"),
        (b"\0" * 9, "1 bytes are left behind the binary inputs"),
    ],
)
def test_bytes_too_few_or_too_many_are_told(behind, told):
    with pytest.raises(UsageError, match=told):
        read({"inputs": [binary(X, 8)]}, behind)


def test_bytes_that_do_not_fit_the_shape_are_told():
    with pytest.raises(UsageError, match=r"input 'x': 4 bytes, expected 8 for FP32\[1,2\]"):
        read({"inputs": [binary(X, 4)]}, b"\0" * 4)


def test_a_json_longer_than_the_body_is_told():
    with pytest.raises(UsageError, match="9 is more than the 2 bytes"):
        read_request(memoryview(b"{}"), 9, SIGNATURE, None)


@pytest.mark.parametrize(
    ("data", "told"),
    [(b"\1\0\0", "3 bytes behind element 0"), (b"\2\0\0\0a", "has 2 bytes, of which 1"), (b"\1\0\0\0\xff", "no UTF-8")],
)
def test_texts_that_are_none_are_told(data, told):
    with pytest.raises(UsageError, match=told):
        read_texts(memoryview(data), "s")


@pytest.mark.parametrize("dtype", [d for d in NAMES if d is not DType.STR])
def test_every_type_goes_there_and_back_by_bytes_and_by_json(dtype):
    signature = signature_of([binding("x", dtype, 3)], [binding("y", dtype, 3)])
    tensor = signature.inputs["x"]
    values = np.array([0, 1, 1], tensor.dtype)
    item = {"name": "x", "datatype": tensor.datatype, "shape": [3]}
    text = json.dumps({"inputs": [binary(item, values.nbytes)], "parameters": {"binary_data_output": True}}).encode()
    request = read_request(memoryview(text + values.tobytes()), len(text), signature, None)
    np.testing.assert_array_equal(request.inputs["x"], values, strict=True)
    body, json_nbytes = write_response("m", "1", request, {"y": values}, signature)
    assert body[json_nbytes:] == values.tobytes()
    told = json.loads(body[:json_nbytes])["outputs"]
    assert told == [{"name": "y", "datatype": NAMES[dtype], "shape": [3], "parameters": {"binary_data_size": values.nbytes}}]

    data = [bool(v) for v in values] if dtype is DType.BOOL else [0, 1, 1]
    request = read({"inputs": [{**item, "data": data}]}, signature=signature)
    np.testing.assert_array_equal(request.inputs["x"], values, strict=True)
    body, json_nbytes = write_response("m", "1", request, {"y": values}, signature)
    assert json_nbytes is None
    assert json.loads(body)["outputs"][0]["data"] == data


def test_results_that_lie_otherwise_are_written_row_by_row():
    assert bytes(tensor_bytes(np.arange(6, dtype=np.int16).reshape(2, 3).T)) == np.array([0, 3, 1, 4, 2, 5], np.int16).tobytes()
    assert bytes(tensor_bytes(np.array(7, np.int16))) == b"\7\0"
    assert bytes(tensor_bytes(np.zeros((0, 2), ml_dtypes.bfloat16))) == b""


def test_nan_is_told_in_json_and_written_as_bytes():
    outputs = {"y": np.array([[np.nan, 1]], np.float32), "t": np.array(["a"], object)}
    with pytest.raises(UsageError, match="output 'y' has NaN or infinities, which JSON has not"):
        write_response("m", "1", read({"inputs": [X, S]}), outputs, SIGNATURE)
    request = read({"inputs": [X, S], "parameters": {"binary_data_output": True}})
    body, json_nbytes = write_response("m", "1", request, outputs, SIGNATURE)
    assert body[json_nbytes:] == outputs["y"].tobytes() + b"\1\0\0\0a"


def test_a_type_that_the_protocol_does_not_have_cannot_be_served():
    with pytest.raises(UsageError, match=r"output z: c64.* cannot be served"):
        signature_of([], [binding("z", DType.C64, "n")])

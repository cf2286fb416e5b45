"""TensorProtos of every element type, in every form, and those that do not hold what they should."""

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import dtype_of
from miniinfer_cli.ir.constants import ArrayConstant, MappedConstant
from miniinfer_cli.onnx_import.external_data import ExternalFiles
from miniinfer_cli.onnx_import.tensors import Scattered, TensorReader
from miniinfer_cli.ops.type_codes import dtype_of_code
from tests.onnx_import.models import F32, fault, model, run

READER = TensorReader(ExternalFiles(None))
NUMERIC = [code for code in TensorProto.DataType.values() if code not in (0, TensorProto.STRING)]


def _contents(code: int) -> np.ndarray:
    """Seven values with both signs where the type has them: an odd count, so packed types end inside a byte."""
    kind = helper.tensor_dtype_to_np_dtype(code)
    if kind == np.dtype(bool):
        return np.array([True, False, True, True, False, False, True])
    unsigned = kind.name.startswith(("uint", "float8_e8m0"))
    small = [1, 0, 1, 2, 3, 1, 0] if unsigned else [1, 0, -1, -2, 1, 0, -1]
    return np.array(small, np.float32).astype(kind)


@pytest.mark.parametrize("code", NUMERIC, ids=lambda c: TensorProto.DataType.Name(c))
def test_raw_and_typed_data_hold_the_same(code: int) -> None:
    if code in (27, 28):  # the 6-bit floats of OCP, which ONNX numbers and no operator takes
        with pytest.raises(ModelError, match=f"element type number {code} is not supported"):
            READER.read(TensorProto(data_type=code, dims=[0]))
        return
    expected = _contents(code)
    for raw in (True, False):
        data = numpy_helper.from_array(expected).raw_data if raw else expected
        tensor = helper.make_tensor("t", code, [7], data, raw=raw)
        assert tensor.HasField("raw_data") == raw
        handle = READER.read(tensor)
        assert (handle.dtype, handle.shape) == (dtype_of_code(code), (7,)), raw
        assert dtype_of(handle.array()) is handle.dtype
        np.testing.assert_array_equal(handle.array().astype(np.complex128), expected.astype(np.complex128))


def test_strings_keep_bytes_that_are_not_text() -> None:
    tensor = TensorProto(name="s", data_type=TensorProto.STRING, dims=[3], string_data=[b"a", "ü".encode(), b"\xff"])
    array = READER.read(tensor).array()
    assert array.dtype == object
    assert array.tolist() == ["a", "ü", "\udcff"]


def test_large_raw_data_of_a_proto_is_a_view() -> None:
    array = np.arange(4096, dtype=np.int16)
    handle = READER.read(numpy_helper.from_array(array))
    assert isinstance(handle, MappedConstant)
    np.testing.assert_array_equal(handle.array(), array)
    assert isinstance(READER.read(numpy_helper.from_array(array[:4])), ArrayConstant)


def test_scalars_and_empty_tensors() -> None:
    assert READER.read(numpy_helper.from_array(np.array(3.5, np.float32))).array() == np.float32(3.5)
    empty = READER.read(TensorProto(data_type=TensorProto.FLOAT, dims=[0, 4]))
    assert empty.array().shape == (0, 4)
    int4 = READER.read(helper.make_tensor("t", TensorProto.INT4, [], np.array(-3, ml_dtypes.int4)))
    assert int(int4.array()) == -3


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (TensorProto(name="w", data_type=1, dims=[2], raw_data=b"1234"), "tensor 'w': it holds 4 bytes, f32[2] takes 8"),
        (TensorProto(name="w", data_type=1, dims=[3], float_data=[1]), "tensor 'w': it holds 1 items, f32[3] takes 3"),
        (TensorProto(name="w", data_type=14, dims=[1], float_data=[1]), "tensor 'w': it holds 1 items, c64[1] takes 2"),
        (TensorProto(name="w", data_type=22, dims=[3], int32_data=[1]), "tensor 'w': it holds 1 items, i4[3] takes 2"),
        (TensorProto(name="w", data_type=8, dims=[2], string_data=[b"a"]), "tensor 'w': it holds 1 items, str[2] takes 2"),
        (TensorProto(name="w", data_type=1, dims=[-1]), "tensor 'w': its shape [-1] has a negative dimension"),
        (TensorProto(name="w", data_type=1, dims=[1] * 33, raw_data=bytes(4)), "tensor 'w': its rank 33 is above 32"),
        (TensorProto(name="w", data_type=1, dims=[1] * 70, float_data=[1]), "tensor 'w': its rank 70 is above 32"),
        (TensorProto(data_type=0, dims=[1]), "element type number 0 is not supported"),
    ],
)
def test_faulty_tensors(tensor: TensorProto, reason: str) -> None:
    with pytest.raises(ModelError) as caught:
        READER.read(tensor)
    assert str(caught.value).partition("\n")[0] == reason


def _sparse(values: np.ndarray, indices: np.ndarray, dims: list[int]) -> onnx.SparseTensorProto:
    return helper.make_sparse_tensor(numpy_helper.from_array(values, "s"), numpy_helper.from_array(indices), dims)


@pytest.mark.parametrize("indices", [np.array([5, 0, 11]), np.array([[1, 1], [0, 0], [2, 3]])])
def test_sparse_tensors_are_filled_in(indices: np.ndarray) -> None:
    dense = np.zeros((3, 4), np.float32)
    dense[1, 1], dense[0, 0], dense[2, 3] = 7, 8, 9
    sparse = _sparse(np.array([7, 8, 9], np.float32), indices, [3, 4])
    np.testing.assert_array_equal(READER.read_sparse(sparse).array(), dense)


def test_a_large_sparse_tensor_takes_no_room() -> None:
    sparse = _sparse(np.array([2.0, 3.0], np.float32), np.array([10**12 - 1, 7]), [10**6, 10**6])
    handle = READER.read_sparse(sparse)
    assert isinstance(handle, Scattered)
    corner = handle.block((slice(10**6 - 2, 10**6), slice(10**6 - 3, 10**6)))
    np.testing.assert_array_equal(corner, [[0, 0, 0], [0, 0, 2]])
    np.testing.assert_array_equal(handle.block((slice(0, 1), slice(5, 9))), [[0, 0, 3, 0]])


@pytest.mark.parametrize("indices", [np.array([12]), np.array([-1]), np.array([[0, 4]]), np.array([[0]]), np.array([1, 2])])
def test_faulty_sparse_indices(indices: np.ndarray) -> None:
    with pytest.raises(ModelError, match="ind"):
        READER.read_sparse(_sparse(np.array([1.0], np.float32), indices, [3, 4]))


def test_sparse_initializers_and_constants() -> None:
    sparse = _sparse(np.array([5.0], np.float32), np.array([1]), [3])
    nodes = [
        helper.make_node("Constant", [], ["c"], sparse_value=sparse),
        helper.make_node("Add", ["x", "c"], ["y"]),
        helper.make_node("Add", ["y", "s"], ["z"]),
    ]
    proto = model(nodes, {"x": (F32, [3])}, {"z": (F32, None)})
    proto.graph.sparse_initializer.add().CopyFrom(sparse)
    (z,) = run(proto, np.ones(3, np.float32))
    assert z.tolist() == [1, 11, 1]


def test_a_faulty_initializer_is_told_once_and_only_when_it_is_read() -> None:
    broken = TensorProto(name="w", data_type=1, dims=[2], raw_data=b"1234")
    twice = [helper.make_node("Add", ["x", "w"], ["a"]), helper.make_node("Add", ["x", "w"], ["b"])]
    text = fault(model(twice, {"x": (F32, [2])}, {"a": (F32, None), "b": (F32, None)}, {"w": broken}))
    assert text.startswith("model: node 'a' (Add, opset 18): tensor 'w': it holds 4 bytes, f32[2] takes 8\n")
    unread = [helper.make_node("Relu", ["x"], ["a"])]
    (a,) = run(model(unread, {"x": (F32, [2])}, {"a": (F32, None)}, {"w": broken}), np.array([-1, 1], np.float32))
    assert a.tolist() == [0, 1]


@pytest.mark.parametrize("dims", [[0, 2**62], [2**62, 0], [2**31, 0, 2**31]])
def test_nothing_of_sizes_that_no_array_can_have_is_refused(dims: list[int]) -> None:
    with pytest.raises(ModelError, match="elements, sizes of 0 apart"):
        READER.read(TensorProto(name="w", data_type=1, dims=dims))

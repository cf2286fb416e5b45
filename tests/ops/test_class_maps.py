"""ZipMap, CastMap and CategoryMapper."""

import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, MapType, SequenceType, TensorType, symbol
from miniinfer_cli.ops import lookup
from tests.ops.checked import infer

ML = "ai.onnx.ml"
N = symbol("n")
SCORES = np.array([[0.25, 0.75], [1, 0]], np.float32)
FLOAT = TensorType(DType.F32, ())


def run(op, x, **attrs):
    (result,) = lookup(ML, op).evaluate((x,), attrs, n_outputs=1)
    return result


def test_zip_map():
    assert run("ZipMap", SCORES, classlabels_strings=["no", "yes"]) == [{"no": 0.25, "yes": 0.75}, {"no": 1.0, "yes": 0.0}]
    assert run("ZipMap", SCORES[0], classlabels_int64s=[3, 5]) == [{3: 0.25, 5: 0.75}]
    x = TensorType(DType.F32, (N, 2))
    assert infer("ZipMap", x, domain=ML, classlabels_strings=["no", "yes"]) == SequenceType(MapType(DType.STR, FLOAT))
    assert infer("ZipMap", x, domain=ML, classlabels_int64s=[3, 5]) == SequenceType(MapType(DType.I64, FLOAT))
    with pytest.raises(ModelError, match="3 class labels"):
        infer("ZipMap", x, domain=ML, classlabels_int64s=[1, 2, 3])
    with pytest.raises(ModelError, match="got neither"):
        infer("ZipMap", x, domain=ML)
    with pytest.raises(ModelError, match="got both"):
        infer("ZipMap", x, domain=ML, classlabels_int64s=[1, 2], classlabels_strings=["a", "b"])


@pytest.mark.parametrize(
    ("given", "attrs", "expected"),
    [
        ({5: 1.5, 2: 2.5}, {}, np.array([[2.5, 1.5]], np.float32)),
        ({5: 1.5, 2: 2.5}, {"cast_to": "TO_INT64"}, np.array([[2, 1]])),
        ({5: 1.5, 2: 2.5}, {"cast_to": "TO_STRING"}, np.array([["2.5", "1.5"]], object)),
        ({1: "4", 0: "7.5"}, {}, np.array([[7.5, 4]], np.float32)),
        ({3: 1.5, 1: 2.5}, {"map_form": "SPARSE", "max_map": 4}, np.array([[0, 2.5, 0, 1.5]], np.float32)),
        ({1: "x"}, {"map_form": "SPARSE", "max_map": 2, "cast_to": "TO_STRING"}, np.array([["", "x"]], object)),
        ({}, {}, np.zeros((1, 0), np.float32)),
    ],
)
def test_cast_map(given, attrs, expected):
    result = run("CastMap", given, **attrs)
    assert (result.dtype, result.shape, result.tolist()) == (expected.dtype, expected.shape, expected.tolist())


def test_cast_map_types():
    numbers = MapType(DType.I64, FLOAT)
    assert infer("CastMap", numbers, domain=ML, map_form="SPARSE", max_map=4) == TensorType(DType.F32, (1, 4))
    dense = infer("CastMap", numbers, domain=ML, cast_to="TO_STRING")
    assert (dense.dtype, dense.shape[0], isinstance(dense.shape[1], int)) == (DType.STR, 1, False)
    with pytest.raises(ModelError, match="keys go from 0 to 9, expected 0 to 3"):
        run("CastMap", {0: 1.0, 9: 1.0}, map_form="SPARSE", max_map=4)
    with pytest.raises(ModelError, match="cast_to is 'TO_BYTES'"):
        infer("CastMap", numbers, domain=ML, cast_to="TO_BYTES")
    with pytest.raises(ModelError, match="map_form is 'THIN'"):
        infer("CastMap", numbers, domain=ML, map_form="THIN")
    with pytest.raises(ModelError, match="a map with i64 keys"):
        infer("CastMap", MapType(DType.STR, FLOAT), domain=ML)


def test_category_mapper():
    attrs = {"cats_int64s": [1, 2], "cats_strings": ["one", "two"]}
    names = np.array([["two", "ten"], ["one", "one"]], object)
    np.testing.assert_array_equal(run("CategoryMapper", names, **attrs), [[2, -1], [1, 1]])
    numbers = run("CategoryMapper", np.array([2, 7]), default_string="?", **attrs)
    assert (numbers.dtype, numbers.tolist()) == (np.dtype(object), ["two", "?"])
    assert infer("CategoryMapper", TensorType(DType.STR, (N,)), domain=ML, **attrs) == TensorType(DType.I64, (N,))
    assert infer("CategoryMapper", TensorType(DType.I64, (N,)), domain=ML, **attrs) == TensorType(DType.STR, (N,))
    with pytest.raises(ModelError, match="expects strings or i64"):
        infer("CategoryMapper", TensorType(DType.F32, (N,)), domain=ML, **attrs)
    with pytest.raises(ModelError, match="1 cats_int64s and 2 cats_strings"):
        infer("CategoryMapper", TensorType(DType.I64, (N,)), domain=ML, cats_int64s=[1], cats_strings=["a", "b"])

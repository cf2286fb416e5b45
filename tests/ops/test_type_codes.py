"""ONNX's numbers for element types, held against the onnx package."""

import onnx
import pytest

from engine_format.dtypes import DType
from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import numpy_dtype
from miniinfer_cli.ops.type_codes import code_of_dtype, dtype_of_code


@pytest.mark.parametrize("dtype", list(DType))
def test_numbers_are_those_of_onnx(dtype):
    code = code_of_dtype(dtype)
    assert onnx.helper.tensor_dtype_to_np_dtype(code).name == numpy_dtype(dtype).name
    assert dtype_of_code(code) is dtype


@pytest.mark.parametrize("code", [0, -1, 99])
def test_other_numbers_are_refused(code):
    with pytest.raises(ModelError, match=f"element type number {code} is not supported"):
        dtype_of_code(code)

"""Det: the determinant of each square matrix of a batch."""

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, TensorType
from miniinfer_cli.ops.element_types import REAL
from miniinfer_cli.ops.numerics import widen_half
from miniinfer_cli.ops.registry import define
from miniinfer_cli.ops.shapes import same_dim
from miniinfer_cli.ops.work import CALL, Attrs, Inputs, Outputs, volume


def infer_det(x: TensorType) -> TensorType:
    """The batch dimensions of ``x``, whose last two are square matrices."""
    if x.shape is None:
        return TensorType(x.dtype)
    if len(x.shape) < 2:
        raise ModelError(f"Det expects matrices, got {x}")
    same_dim("Det", f"the matrices of {x} are not square", x.shape[-2], x.shape[-1])
    return TensorType(x.dtype, x.shape[:-2])


@widen_half
def det(x: Array) -> Array:
    """The determinant of each matrix. Source: ONNX Det-22."""
    return np.asarray(np.linalg.det(x), x.dtype)


def _work(inputs: Inputs, outputs: Outputs, attrs: Attrs) -> int:
    (x,) = inputs
    return 0 if x is None else x.size * x.shape[-1] + volume(x.shape[:-2]) * CALL


DET = define("Det", infer=infer_det, reference=det, takes=(REAL,), work=_work)

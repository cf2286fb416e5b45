"""ZipMap, CastMap and CategoryMapper (ai.onnx.ml): between tensors, dictionaries and category names."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, DType, MapType, SequenceType, TensorType, numpy_dtype
from miniinfer_cli.ops.inference import UNKNOWN
from miniinfer_cli.ops.registry import define
from miniinfer_cli.ops.shapes import expect_rank

ML = "ai.onnx.ml"
_CAST_TO = {"TO_FLOAT": DType.F32, "TO_STRING": DType.STR, "TO_INT64": DType.I64}


def infer_zip_map(
    x: TensorType, *, classlabels_int64s: Sequence[int] = (), classlabels_strings: Sequence[str] = ()
) -> SequenceType:
    """A sequence of maps from class label to f32, one per row of ``x`` [N, C] or one for [C]."""
    if bool(classlabels_int64s) == bool(classlabels_strings):
        raise ModelError("ZipMap takes one of classlabels_int64s and classlabels_strings, got " + _count(classlabels_int64s))
    expect_rank("ZipMap", x, 1, 2)
    labels = classlabels_strings or classlabels_int64s
    if x.shape is not None and isinstance(x.shape[-1], int) and x.shape[-1] != len(labels):
        raise ModelError(f"ZipMap has {len(labels)} class labels, expected one per column of {x}")
    key = DType.STR if classlabels_strings else DType.I64
    return SequenceType(MapType(key, TensorType(DType.F32, ())))


def zip_map(
    x: Array, *, classlabels_int64s: Sequence[int] = (), classlabels_strings: Sequence[str] = ()
) -> list[dict[Any, float]]:
    """Each row as a dictionary from class label to value. Source: ONNX ZipMap-1 of ai.onnx.ml."""
    labels = list(classlabels_strings or classlabels_int64s)
    return [dict(zip(labels, row, strict=True)) for row in np.atleast_2d(x).tolist()]


def infer_cast_map(x: MapType, *, cast_to: str = "TO_FLOAT", map_form: str = "DENSE", max_map: int = 1) -> TensorType:
    """[1, n]: n is ``max_map`` for a sparse map, else the map's size, known at run time only."""
    if not isinstance(x, MapType) or x.key is not DType.I64:
        raise ModelError(f"CastMap expects a map with i64 keys, got {x}")
    if cast_to not in _CAST_TO:
        raise ModelError(f"CastMap cast_to is {cast_to!r}, expected one of {', '.join(_CAST_TO)}")
    if map_form not in ("DENSE", "SPARSE"):
        raise ModelError(f"CastMap map_form is {map_form!r}, expected 'DENSE' or 'SPARSE'")
    return TensorType(_CAST_TO[cast_to], (1, max_map if map_form == "SPARSE" else UNKNOWN))


def cast_map(x: dict[int, Any], *, cast_to: str = "TO_FLOAT", map_form: str = "DENSE", max_map: int = 1) -> Array:
    """The values in the order of their keys, each at its key's place when sparse. Source: ONNX CastMap-1 of ai.onnx.ml."""
    dtype = _CAST_TO[cast_to]
    if map_form == "SPARSE":
        if x and not 0 <= min(x) <= max(x) < max_map:
            raise ModelError(f"CastMap keys go from {min(x)} to {max(x)}, expected 0 to {max_map - 1}")
        values = [x.get(key, "" if dtype is DType.STR else 0) for key in range(max_map)]
    else:
        values = [x[key] for key in sorted(x)]
    if dtype is DType.STR:
        return np.array([[str(v) for v in values]], object).reshape(1, -1)
    return np.array([[float(v) for v in values]]).astype(numpy_dtype(dtype))


def infer_category_mapper(
    x: TensorType,
    *,
    cats_int64s: Sequence[int] = (),
    cats_strings: Sequence[str] = (),
    default_int64: int = -1,
    default_string: str = "_Unused",
) -> TensorType:
    """The shape of ``x`` in i64 for strings, in strings for i64."""
    if x.dtype not in (DType.STR, DType.I64):
        raise ModelError(f"CategoryMapper expects strings or i64, got {x}")
    if len(cats_int64s) != len(cats_strings):
        raise ModelError(
            f"CategoryMapper has {len(cats_int64s)} cats_int64s and {len(cats_strings)} cats_strings, expected as many"
        )
    return TensorType(DType.I64 if x.dtype is DType.STR else DType.STR, x.shape)


def category_mapper(
    x: Array,
    *,
    cats_int64s: Sequence[int] = (),
    cats_strings: Sequence[str] = (),
    default_int64: int = -1,
    default_string: str = "_Unused",
) -> Array:
    """Each string's number or each number's string; the default for others. Source: ONNX CategoryMapper-1 of ai.onnx.ml."""
    if x.dtype == np.int64:
        names = dict(zip(cats_int64s, cats_strings, strict=True))
        return np.array([names.get(i, default_string) for i in x.reshape(-1).tolist()], object).reshape(x.shape)
    numbers = dict(zip(cats_strings, cats_int64s, strict=True))
    return np.array([numbers.get(s, default_int64) for s in x.reshape(-1).tolist()], np.int64).reshape(x.shape)


def _count(given: Sequence[int]) -> str:
    return "both" if given else "neither"


ZIP_MAP = define("ZipMap", domain=ML, infer=infer_zip_map, reference=zip_map)
CAST_MAP = define("CastMap", domain=ML, infer=infer_cast_map, reference=cast_map)
CATEGORY_MAPPER = define("CategoryMapper", domain=ML, infer=infer_category_mapper, reference=category_mapper)

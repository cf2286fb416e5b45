"""Variants of onnx's cases in which an axis of the inputs has no elements, with what onnx.reference gives for them."""

import copy
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from tests.conformance.cases import Case


@dataclass(frozen=True)
class EmptyCase:
    """A case of one operator with an axis of its inputs cut to nothing; ``expected`` is None where onnx.reference refuses."""

    name: str
    model: onnx.ModelProto
    inputs: dict[str, Any]
    expected: list[Any] | None


def empty_variants(case: Case, axes: range) -> Iterator[EmptyCase]:
    """``case`` with nothing along one of the ``axes``, in all inputs that are as long there as the first.

    None of a case whose inputs are not all tensors.
    """
    (inputs, _), *_ = case.runs()
    first = next(iter(inputs.values()), None)
    if not isinstance(first, np.ndarray) or not all(v.type.HasField("tensor_type") for v in case.model.graph.input):
        return
    for axis in axes:
        if axis < first.ndim and first.shape[axis]:
            size = first.shape[axis]
            cut = {
                n: np.take(x, range(0), axis=axis) if x.ndim > axis and x.shape[axis] == size else x for n, x in inputs.items()
            }
            model = _declared(case.model, cut)
            yield EmptyCase(f"{case.name}, axis {axis}", model, cut, _reference(model, cut))


def _declared(model: onnx.ModelProto, inputs: dict[str, Any]) -> onnx.ModelProto:
    """``model`` with inputs of these shapes and outputs of any."""
    changed = copy.deepcopy(model)
    for value in changed.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, inputs[value.name].shape, strict=True):
            dim.dim_value = size
    for value in changed.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    del changed.graph.value_info[:]
    return changed


def _reference(model: onnx.ModelProto, inputs: dict[str, Any]) -> list[Any] | None:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            results = ReferenceEvaluator(model).run(None, inputs)
        except Exception:  # whatever its numpy code trips over
            return None
    return [_plain(y) for y in results]


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    array = np.asarray(value)
    return array.astype(object) if array.dtype.kind in "US" else array

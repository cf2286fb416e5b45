"""Optional, OptionalGetElement, OptionalHasElement: a value or nothing. At run time nothing is None."""

from typing import Any

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, DType, OptionalType, TensorType, Type
from miniinfer_cli.ops.registry import define


def infer_optional(input: Type | None = None, *, type: Type | None = None) -> OptionalType:
    """An optional of the input's type, or of ``type`` when there is no input."""
    if input is None and type is None:
        raise ModelError("Optional has neither an input nor a type, expected one of them")
    return OptionalType(type if input is None else input)


def optional(input: Any = None, *, type: Type | None = None) -> Any:
    """The input, or nothing. Source: ONNX Optional-28."""
    return input


def infer_optional_get_element(input: Type) -> Type | None:
    """The type of the element; ``input`` itself when it is no optional."""
    return input.element if isinstance(input, OptionalType) else input


def optional_get_element(input: Any) -> Any:
    """The element. Raises ModelError when there is none. Source: ONNX OptionalGetElement-28."""
    if input is None:
        raise ModelError("OptionalGetElement got an optional without an element", hint="ask OptionalHasElement first")
    return input


def infer_optional_has_element(input: Type | None = None) -> TensorType:
    """One bool, known ahead unless ``input`` is an optional."""
    known = None if isinstance(input, OptionalType) else np.array(input is not None)
    return TensorType(DType.BOOL, (), known)


def optional_has_element(input: Any = None) -> Array:
    """Whether there is an element. Source: ONNX OptionalHasElement-28."""
    return np.array(input is not None)


OPTIONAL = define("Optional", infer=infer_optional, reference=optional)
OPTIONAL_GET_ELEMENT = define("OptionalGetElement", infer=infer_optional_get_element, reference=optional_get_element)
OPTIONAL_HAS_ELEMENT = define("OptionalHasElement", infer=infer_optional_has_element, reference=optional_has_element)

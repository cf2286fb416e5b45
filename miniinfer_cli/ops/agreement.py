"""Whether what was computed is of the type that the shape rule told.

Memory is planned, and what reads a value is lowered, by the types that shape rules tell. A rule may be wrong: that of a plugin,
that of onnx for an operation which onnx.reference runs. What was computed is then neither spread nor cut to fit.
"""

from typing import Any

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import TensorType, Type, dtype_of


def expect_told(op: str, result: Any, told: Type | None, where: tuple[str, ...] = ()) -> None:
    """Raises ModelError unless an array has the element type and the sizes, as far as they are numbers, of ``told``.

    Anything goes for what is no tensor. ``result`` may be an array of numpy's or one on a device (``shape``, ``element_type``);
    ``where`` is the place that the error names.
    """
    if not isinstance(told, TensorType):
        return
    got = _type_of(result)
    if got is None or got.dtype is not told.dtype or not _fits(got, told):
        raise ModelError(
            f"{op}: computed {got or type(result).__name__}, its shape rule says {told}",
            hint="the operation's shape rule and its reference do not go together",
            where=where,
        )


def _type_of(value: Any) -> TensorType | None:
    shape = getattr(value, "shape", None)
    if not isinstance(shape, tuple):
        return None
    on_device = getattr(value, "element_type", None)
    try:
        return TensorType(dtype_of(value) if on_device is None else on_device, shape)
    except ValueError:  # an element type that ONNX lacks
        return None


def _fits(got: TensorType, told: TensorType) -> bool:
    if told.shape is None or got.shape is None:
        return told.shape is None
    if len(got.shape) != len(told.shape):
        return False
    return all(not isinstance(want, int) or size == want for size, want in zip(got.shape, told.shape, strict=True))

"""Operators whose class in ``onnx.reference`` takes less than ONNX Runtime does, or computes it in integers; most of ai.onnx.ml.

The adapter alone imports this, when a node first runs; nothing else may load ``onnx``.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from onnx.reference.ops import load_op as load_op_of_onnx
from onnx.reference.ops.aionnxml import load_op

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array

Results = tuple[Array, ...]
_class = partial(load_op, "ai.onnx.ml", version=None)


def _in_floats(x: Array) -> Array:
    """``x`` in the type to compute in: integers as f32."""
    return x if x.dtype.kind == "f" else x.astype(np.float32)


def _for_any_batch(run: Callable[[Array], Results], x: Array) -> Results:
    """What ``run`` gives; for no rows at all, none of what it gives for one."""
    if len(x):
        return run(x)
    return tuple(result[:0] for result in run(np.zeros((1, *x.shape[1:]), x.dtype)))


class STFT(load_op_of_onnx("", "STFT", version=None)):  # type: ignore[misc]
    """With a real signal of two axes, [batch, length]; of frames that go forward and that there are."""

    def _run(
        self, x: Array, frame_step: Array, window: Array | None = None, frame_length: Array | None = None, **attributes: Any
    ) -> Results:
        if frame_step.item() < 1:
            raise ModelError(f"STFT frame_step is {frame_step.item()}, expected 1 or more")
        length = frame_length.item() if frame_length is not None else None if window is None else len(window)
        if length is not None and not 1 <= length <= x.shape[1]:
            raise ModelError(f"STFT frame_length is {length}, expected 1 to {x.shape[1]}, the length of the signal")
        signal = x[..., None] if x.ndim == 2 else x
        result: Results = super()._run(signal, frame_step, window, frame_length, **attributes)
        return result


class StringSplit(load_op_of_onnx("", "StringSplit", version=None)):  # type: ignore[misc]
    """Without white space at the end, too, where that is what separates, however often it splits."""

    def _run(self, x: Array, delimiter: str | None = None, **attributes: Any) -> Results:
        if not delimiter:
            x = np.array([text.rstrip() for text in x.flat], object).reshape(x.shape)
        result: Results = super()._run(x, delimiter=delimiter, **attributes)
        return result


class _Window:
    """Of a size that there can be."""

    def _run(self, size: Array, **attributes: Any) -> Results:
        if size.item() < 0:
            raise ModelError(f"{type(self).__name__} size is {size.item()}, expected 0 or more")
        result: Results = super()._run(size, **attributes)  # type: ignore[misc]
        return result


class BlackmanWindow(_Window, load_op_of_onnx("", "BlackmanWindow", version=None)):  # type: ignore[misc]
    """Of a size that there can be."""


class HammingWindow(_Window, load_op_of_onnx("", "HammingWindow", version=None)):  # type: ignore[misc]
    """Of a size that there can be."""


class HannWindow(_Window, load_op_of_onnx("", "HannWindow", version=None)):  # type: ignore[misc]
    """Of a size that there can be."""


class LabelEncoder(_class("LabelEncoder")):  # type: ignore[misc]
    """With the form of version 1: a list of classes, from string to index or back."""

    def _run(self, x: Array, classes_strings: Any = None, **attributes: Any) -> Results:
        if classes_strings:
            numbers, from_strings = list(range(len(classes_strings))), x.dtype.kind in "OUST"
            attributes |= (
                {"keys_strings": classes_strings, "values_int64s": numbers}
                if from_strings
                else {"keys_int64s": numbers, "values_strings": classes_strings}
            )
        result: Results = super()._run(x, **attributes)
        return result


class FeatureVectorizer(_class("FeatureVectorizer")):  # type: ignore[misc]
    """With inputs of more than two axes, whose rows are flattened."""

    def _run(self, *inputs: Array, **attributes: Any) -> Results:
        rows = [x.reshape(len(x), math.prod(x.shape[1:])) if x.ndim > 2 else x for x in inputs]
        result: Results = super()._run(*rows, **attributes)
        return result


class Scaler(_class("Scaler")):  # type: ignore[misc]
    """In floats; offset and scale may be left out."""

    def _run(self, x: Array, offset: Any = None, scale: Any = None) -> Results:
        floats = _in_floats(x)
        offsets, scales = (
            np.array(default if given is None else given, np.float32) for given, default in ((offset, 0), (scale, 1))
        )
        return (np.asarray((floats - offsets) * scales),)


class Normalizer(_class("Normalizer")):  # type: ignore[misc]
    """In floats; with a vector, which is one row, and with no rows."""

    def _run(self, x: Array, **attributes: Any) -> Results:
        if x.ndim == 1:
            (row,) = self._run(x[None], **attributes)
            return (row[0],)
        return _for_any_batch(partial(super()._run, **attributes), _in_floats(x)) if x.size else (_in_floats(x),)


class LinearRegressor(_class("LinearRegressor")):  # type: ignore[misc]
    """In floats; intercepts may be left out."""

    def _run(self, x: Array, intercepts: Any = None, targets: int = 1, **attributes: Any) -> Results:
        result: Results = super()._run(_in_floats(x), intercepts=intercepts or [0.0] * targets, targets=targets, **attributes)
        return result


class OneHotEncoder(_class("OneHotEncoder")):  # type: ignore[misc]
    """With an input of any rank."""

    def _run(self, x: Array, **attributes: Any) -> Results:
        (flat,) = super()._run(x.reshape(-1), **attributes)
        return (flat.reshape(*x.shape, flat.shape[-1]),)


class SVMClassifier(_class("SVMClassifier")):  # type: ignore[misc]
    """In floats; with no rows."""

    def _run(self, x: Array, **attributes: Any) -> Results:
        return _for_any_batch(partial(super()._run, **attributes), _in_floats(x))


class SVMRegressor(_class("SVMRegressor")):  # type: ignore[misc]
    """In floats."""

    def _run(self, x: Array, **attributes: Any) -> Results:
        result: Results = super()._run(_in_floats(x), **attributes)
        return result


class TreeEnsembleClassifier(_class("TreeEnsembleClassifier")):  # type: ignore[misc]
    """In floats; with no rows, and with numbers given as tensors."""

    def _run(self, x: Array, **attributes: Any) -> Results:
        return _for_any_batch(partial(super()._run, **_from_tensors(attributes)), _in_floats(x))


class TreeEnsembleRegressor(_class("TreeEnsembleRegressor")):  # type: ignore[misc]
    """In floats; with no rows, and with numbers given as tensors."""

    def _run(self, x: Array, **attributes: Any) -> Results:
        return _for_any_batch(partial(super()._run, **_from_tensors(attributes)), _in_floats(x))


def _from_tensors(attributes: dict[str, Any]) -> dict[str, Any]:
    """The attributes with those called ``..._as_tensor`` in the place of the lists that they stand for."""
    tensors = {name.removesuffix("_as_tensor"): a for name, a in attributes.items() if name.endswith("_as_tensor")}
    given = {name: np.asarray(a) for name, a in tensors.items() if a is not None and np.size(a)}
    return {**{name: a for name, a in attributes.items() if not name.endswith("_as_tensor")}, **given}


MENDED = (
    STFT,
    StringSplit,
    BlackmanWindow,
    HammingWindow,
    HannWindow,
    LabelEncoder,
    FeatureVectorizer,
    Scaler,
    Normalizer,
    LinearRegressor,
    OneHotEncoder,
    SVMClassifier,
    SVMRegressor,
    TreeEnsembleClassifier,
    TreeEnsembleRegressor,
)
"""The classes, which stand for those of the same names."""

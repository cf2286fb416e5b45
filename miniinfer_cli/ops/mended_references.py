"""Operators whose class in ``onnx.reference`` takes less than ONNX Runtime does, or computes it in integers; some of ai.onnx.ml.

The adapter alone imports this, when a node first runs; nothing else may load ``onnx``.
"""

import math
from functools import partial
from typing import Any

import numpy as np
from onnx.reference.ops import load_op as load_op_of_onnx

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array
from miniinfer_cli.ops.learned_references import LEARNED, Results, class_of, for_any_batch, in_floats
from miniinfer_cli.ops.tree_references import TREES


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


class LabelEncoder(class_of("LabelEncoder")):  # type: ignore[misc]
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


class FeatureVectorizer(class_of("FeatureVectorizer")):  # type: ignore[misc]
    """With inputs of more than two axes, whose rows are flattened."""

    def _run(self, *inputs: Array, **attributes: Any) -> Results:
        rows = [x.reshape(len(x), math.prod(x.shape[1:])) if x.ndim > 2 else x for x in inputs]
        result: Results = super()._run(*rows, **attributes)
        return result


class Scaler(class_of("Scaler")):  # type: ignore[misc]
    """In floats; offset and scale may be left out."""

    def _run(self, x: Array, offset: Any = None, scale: Any = None) -> Results:
        floats = in_floats(x)
        offsets, scales = (
            np.array(default if given is None else given, np.float32) for given, default in ((offset, 0), (scale, 1))
        )
        return (np.asarray((floats - offsets) * scales),)


class Normalizer(class_of("Normalizer")):  # type: ignore[misc]
    """In floats; with a vector, which is one row, and with no rows."""

    def _run(self, x: Array, **attributes: Any) -> Results:
        if x.ndim == 1:
            (row,) = self._run(x[None], **attributes)
            return (row[0],)
        return for_any_batch(partial(super()._run, **attributes), in_floats(x)) if x.size else (in_floats(x),)


class OneHotEncoder(class_of("OneHotEncoder")):  # type: ignore[misc]
    """With an input of any rank."""

    def _run(self, x: Array, **attributes: Any) -> Results:
        (flat,) = super()._run(x.reshape(-1), **attributes)
        return (flat.reshape(*x.shape, flat.shape[-1]),)


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
    OneHotEncoder,
    *LEARNED,
    *TREES,
)
"""The classes, which stand for those of the same names."""

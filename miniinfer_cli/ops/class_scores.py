"""What ai.onnx.ml's classifiers make of scores: ``post_transform``, for all rows at once."""

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array


def transformed(scores: Array, transform: str) -> Array:
    """``scores`` [rows, classes] through ``transform``, in their type. Raises ModelError for a name that ONNX does not have."""
    match transform:
        case "NONE":
            return scores
        case "LOGISTIC":
            return logistic(scores)
        case "SOFTMAX":
            return _softmax(scores, np.ones(scores.shape, bool))
        case "SOFTMAX_ZERO":
            return _softmax(scores, np.abs(scores) > 1e-7)
        case "PROBIT":
            return np.asarray(np.sqrt(2) * _inverse_erf(2 * scores.astype(np.float64) - 1), scores.dtype)
    raise ModelError(f"post_transform is {transform!r}, expected NONE, LOGISTIC, SOFTMAX, SOFTMAX_ZERO or PROBIT")


def logistic(scores: Array) -> Array:
    """1 / (1 + exp(-scores)), which overflows nowhere."""
    small = np.exp(-np.abs(scores))
    return np.asarray(np.where(scores < 0, small / (1 + small), 1 / (1 + small)), scores.dtype)


def _softmax(scores: Array, counts: Array) -> Array:
    """Softmax of each row; where ``counts`` is false a score is no exponent but a factor, so that zero stays zero."""
    largest = scores.max(axis=1, keepdims=True)
    parts = np.where(counts, np.exp(scores - largest), scores * np.exp(-largest))
    total = parts.sum(axis=1, keepdims=True)
    return np.asarray(np.where(total == 0, 0.5, parts / np.where(total == 0, 1, total)), scores.dtype)


def _inverse_erf(x: Array) -> Array:
    """Winitzki's approximation, which ONNX Runtime takes."""
    with np.errstate(all="ignore"):
        log = np.log((1 - x) * (1 + x))
        half = 2 / (np.pi * 0.147) + 0.5 * log
        return np.asarray(np.sign(x) * np.sqrt(-half + np.sqrt(half * half - log / 0.147)))

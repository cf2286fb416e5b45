"""Support vector machines of ai.onnx.ml for all rows at once: kernels are matrices, votes and probabilities columns."""

from collections.abc import Sequence

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array
from miniinfer_cli.ops.class_scores import logistic

_LEAST = 1e-7  # a probability of a pair is at least as far from 0 and 1


def kernel(x: Array, vectors: Array, kind: str, parameters: Sequence[float] | None) -> Array:
    """[rows, vectors]: what the kernel gives for each row of ``x`` with each vector. Raises ModelError for an unknown kind."""
    gamma, offset, degree = [*(parameters or ()), 0.0, 0.0, 0.0][:3]
    match kind:
        case "LINEAR":
            return np.asarray(x @ vectors.T)
        case "POLY":
            return np.asarray((x @ vectors.T * gamma + offset) ** int(degree))
        case "SIGMOID":
            return np.asarray(np.tanh(x @ vectors.T * gamma + offset))
        case "RBF":  # the squares of differences, not of sums, which would cancel
            result = np.empty((len(x), len(vectors)), x.dtype)
            for number, vector in enumerate(vectors):
                difference = x - vector
                result[:, number] = np.einsum("ij,ij->i", difference, difference)
            return np.asarray(np.exp(-gamma * result))
    raise ModelError(f"kernel_type is {kind!r}, expected LINEAR, POLY, RBF or SIGMOID")


def pair_scores(kernels: Array, coefficients: Array, counts: Sequence[int], rho: Sequence[float]) -> tuple[Array, Array]:
    """The score of each pair of classes, and the votes for each class: [rows, pairs] and [rows, classes].

    ``kernels``: [rows, vectors], those of the first class first, of which ``counts`` has how many there are; ``coefficients``:
    [classes - 1, vectors].
    """
    starts = np.concatenate([[0], np.cumsum(counts)])
    votes = np.zeros((len(kernels), len(counts)), kernels.dtype)
    scores: list[Array] = []
    for i in range(len(counts)):
        own = slice(starts[i], starts[i + 1])
        for j in range(i + 1, len(counts)):
            other = slice(starts[j], starts[j + 1])
            score = rho[len(scores)] + kernels[:, own] @ coefficients[j - 1, own] + kernels[:, other] @ coefficients[i, other]
            scores.append(score)
            votes[:, i] += score > 0
            votes[:, j] += ~(score > 0)
    return np.stack(scores, axis=1).astype(kernels.dtype), votes


def probabilities(scores: Array, classes: int, a: Sequence[float], b: Sequence[float]) -> Array:
    """[rows, classes] of the scores of pairs, by Platt's sigmoids and the coupling of Wu, Lin and Weng (2004), as in LIBSVM."""
    rows = len(scores)
    pairs = np.zeros((rows, classes, classes), scores.dtype)
    at = 0
    for i in range(classes):
        for j in range(i + 1, classes):
            value = np.clip(1 - logistic(scores[:, at] * np.float32(a[at]) + np.float32(b[at])), _LEAST, 1 - _LEAST)
            pairs[:, i, j], pairs[:, j, i] = value, 1 - value
            at += 1
    square = -pairs * pairs.swapaxes(1, 2)
    for t in range(classes):
        square[:, t, t] = (pairs[:, :, t] ** 2).sum(axis=1)
    found = np.full((rows, classes), 1 / classes, scores.dtype)
    going = np.arange(rows)
    for _ in range(max(100, classes)):
        part, chance = square[going], found[going]
        slope = np.einsum("nij,nj->ni", part, chance)
        mean = (chance * slope).sum(axis=1)
        far = np.abs(slope - mean[:, None]).max(axis=1) >= 0.005 / classes
        if not far.any():
            break
        going, part, chance, slope, mean = (v[far] for v in (going, part, chance, slope, mean))
        for t in range(classes):
            own = part[:, t, t]
            change = (mean - slope[:, t]) / own
            chance[:, t] += change
            mean = (mean + change * (change * own + 2 * slope[:, t])) / (1 + change) ** 2
            slope = (slope + change[:, None] * part[:, t]) / (1 + change)[:, None]
            chance /= (1 + change)[:, None]
        found[going] = chance
    return found

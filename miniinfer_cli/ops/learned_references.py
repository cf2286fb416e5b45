"""Linear models and support vector machines of ai.onnx.ml: in floats, and all rows at once where their form is plain.

What is no plain form is left to the class of ``onnx.reference``. The adapter alone imports this, when a node first runs.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from onnx.reference.ops.aionnxml import load_op

from miniinfer_cli.ir import Array
from miniinfer_cli.ops.class_scores import logistic, transformed
from miniinfer_cli.ops.support_vectors import kernel, pair_scores, probabilities

Results = tuple[Array, ...]
class_of = partial(load_op, "ai.onnx.ml", version=None)


def as_array(items: Any, dtype: Any) -> Array:
    """A list of an attribute, or None, as a vector."""
    return np.asarray([] if items is None else items, dtype).reshape(-1)


def as_floats(items: Any) -> Array:
    """A list of an attribute, or None, as a vector of f32."""
    return as_array(items, np.float32)


def in_floats(x: Array) -> Array:
    """``x`` in the type to compute in: integers as f32."""
    return x if x.dtype.kind == "f" else x.astype(np.float32)


def for_any_batch(run: Callable[[Array], Results], x: Array) -> Results:
    """What ``run`` gives; for no rows at all, none of what it gives for one."""
    if len(x):
        return run(x)
    return tuple(result[:0] for result in run(np.zeros((1, *x.shape[1:]), x.dtype)))


class LinearRegressor(class_of("LinearRegressor")):  # type: ignore[misc]
    """In floats; intercepts may be left out."""

    def _run(self, x: Array, intercepts: Any = None, targets: int = 1, **attributes: Any) -> Results:
        result: Results = super()._run(in_floats(x), intercepts=intercepts or [0.0] * targets, targets=targets, **attributes)
        return result


class LinearClassifier(class_of("LinearClassifier")):  # type: ignore[misc]
    """In floats, and all rows at once: of two classes and more."""

    def _run(self, x: Array, **attributes: Any) -> Results:
        labels = attributes.get("classlabels_ints") or attributes.get("classlabels_strings") or []
        transform, weights = attributes.get("post_transform") or "NONE", as_floats(attributes.get("coefficients"))
        rows = x if x.dtype == np.float64 else x.astype(np.float32)
        if rows.ndim != 2 or len(labels) < 2 or not rows.shape[1] or weights.size != len(labels) * rows.shape[1]:
            result: Results = super()._run(x, **attributes)
            return result
        scores = rows @ weights.reshape(len(labels), -1).T.astype(rows.dtype) + as_floats(attributes.get("intercepts") or [0.0])
        scores = transformed(scores.astype(rows.dtype), transform)
        return np.array(labels)[np.argmax(scores, axis=1)], scores


class SVMClassifier(class_of("SVMClassifier")):  # type: ignore[misc]
    """In floats; with no rows. All rows at once in the forms that exporters write, of two classes and more."""

    def _run(self, x: Array, **attributes: Any) -> Results:
        floats = in_floats(x)
        labels = attributes.get("classlabels_ints") or attributes.get("classlabels_strings") or []
        weights, transform = as_floats(attributes.get("coefficients")), attributes.get("post_transform") or "NONE"
        counts, has_chances = attributes.get("vectors_per_class") or [], bool(attributes.get("prob_a"))
        plain = transform in ("NONE", "LOGISTIC") or (transform.startswith("SOFTMAX") and (has_chances or len(labels) > 2))
        if not plain or floats.ndim != 2 or len(labels) < 2 or not weights.size or weights.min() >= 0:
            return for_any_batch(partial(super()._run, **attributes), floats)
        best, scores = _classified(floats, weights, len(labels), counts, attributes)
        if scores.shape[1] > 1:
            scores = transformed(scores, transform)
        elif transform == "LOGISTIC":
            scores = logistic(np.concatenate([-scores, scores], axis=1))
        else:
            scores = np.concatenate([-scores, scores], axis=1)
        return np.array(labels)[best], scores


def _classified(x: Array, weights: Array, classes: int, counts: list[int], given: dict[str, Any]) -> tuple[Array, Array]:
    """The place of each row's class, and scores: of classes, or of pairs of them where there are no probabilities."""
    kind, rho = given.get("kernel_type") or "LINEAR", as_floats(given.get("rho"))
    if not counts:
        scores = (kernel(x, weights.reshape(classes, -1), "LINEAR", None) + rho[0]).astype(x.dtype)
        return np.argmax(scores, axis=1), scores
    vectors = as_floats(given.get("support_vectors")).reshape(sum(counts), -1)
    kernels = kernel(x, vectors, kind, given.get("kernel_params"))
    pairs, votes = pair_scores(kernels, weights.reshape(-1, sum(counts)), counts, rho.tolist())
    if given.get("prob_a"):
        return np.argmax(votes, axis=1), probabilities(pairs, classes, given["prob_a"], given["prob_b"])
    return np.argmax(votes, axis=1), pairs


class SVMRegressor(class_of("SVMRegressor")):  # type: ignore[misc]
    """In floats, all rows at once."""

    def _run(self, x: Array, **attributes: Any) -> Results:
        floats, transform = in_floats(x), attributes.get("post_transform") or "NONE"
        if floats.ndim != 2 or transform != "NONE":
            result: Results = super()._run(floats, **attributes)
            return result
        weights, count = as_floats(attributes.get("coefficients")), int(attributes.get("n_supports") or 0)
        kind = attributes.get("kernel_type") or "LINEAR"
        vectors = as_floats(attributes.get("support_vectors")).reshape(count, -1) if count else weights[None]
        kernels = kernel(floats, vectors, kind if count else "LINEAR", attributes.get("kernel_params"))
        score = (kernels @ weights if count else kernels[:, 0]) + as_floats(attributes.get("rho"))[0]
        if attributes.get("one_class"):
            score = np.where(score > 0, 1, -1)
        return (score.astype(floats.dtype)[:, None],)


LEARNED = (LinearClassifier, LinearRegressor, SVMClassifier, SVMRegressor)
"""The classes, which stand for those of the same names."""

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
from miniinfer_cli.ops.class_scores import logistic, transformed
from miniinfer_cli.ops.support_vectors import as_floats, kernel, pair_scores, probabilities
from miniinfer_cli.ops.tree_ensembles import RULES, Forest, Leaves, Nodes, as_array, places_of

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


class LinearClassifier(_class("LinearClassifier")):  # type: ignore[misc]
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


class OneHotEncoder(_class("OneHotEncoder")):  # type: ignore[misc]
    """With an input of any rank."""

    def _run(self, x: Array, **attributes: Any) -> Results:
        (flat,) = super()._run(x.reshape(-1), **attributes)
        return (flat.reshape(*x.shape, flat.shape[-1]),)


class SVMClassifier(_class("SVMClassifier")):  # type: ignore[misc]
    """In floats; with no rows. All rows at once in the forms that exporters write, of two classes and more."""

    def _run(self, x: Array, **attributes: Any) -> Results:
        floats = _in_floats(x)
        labels = attributes.get("classlabels_ints") or attributes.get("classlabels_strings") or []
        weights, transform = as_floats(attributes.get("coefficients")), attributes.get("post_transform") or "NONE"
        counts, has_chances = attributes.get("vectors_per_class") or [], bool(attributes.get("prob_a"))
        plain = transform in ("NONE", "LOGISTIC") or (transform.startswith("SOFTMAX") and (has_chances or len(labels) > 2))
        if not plain or floats.ndim != 2 or len(labels) < 2 or not weights.size or weights.min() >= 0:
            return _for_any_batch(partial(super()._run, **attributes), floats)
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
    vectors = as_floats(given.get("support_vectors"), (sum(counts), -1))
    kernels = kernel(x, vectors, kind, given.get("kernel_params"))
    pairs, votes = pair_scores(kernels, weights.reshape(-1, sum(counts)), counts, rho.tolist())
    if given.get("prob_a"):
        return np.argmax(votes, axis=1), probabilities(pairs, classes, given["prob_a"], given["prob_b"])
    return np.argmax(votes, axis=1), pairs


class SVMRegressor(_class("SVMRegressor")):  # type: ignore[misc]
    """In floats, all rows at once."""

    def _run(self, x: Array, **attributes: Any) -> Results:
        floats, transform = _in_floats(x), attributes.get("post_transform") or "NONE"
        if floats.ndim != 2 or transform != "NONE":
            result: Results = super()._run(floats, **attributes)
            return result
        weights, count = as_floats(attributes.get("coefficients")), int(attributes.get("n_supports") or 0)
        kind = attributes.get("kernel_type") or "LINEAR"
        vectors = as_floats(attributes.get("support_vectors"), (count, -1)) if count else weights[None]
        kernels = kernel(floats, vectors, kind if count else "LINEAR", attributes.get("kernel_params"))
        score = (kernels @ weights if count else kernels[:, 0]) + as_floats(attributes.get("rho"))[0]
        if attributes.get("one_class"):
            score = np.where(score > 0, 1, -1)
        return (score.astype(floats.dtype)[:, None],)


class _Trees:
    """Walked as a forest (``tree_ensembles``), which is made when it is first met; what is no forest, as in onnx.reference."""

    _kind = ""
    """What the attributes of the leaves begin with."""

    def _run(self, x: Array, **attributes: Any) -> Results:
        floats = _in_floats(x)
        given = _from_tensors(attributes)
        made = self._made(given, floats.dtype)
        if made is None or floats.ndim != 2:
            return _for_any_batch(partial(super()._run, **given), floats)  # type: ignore[misc]
        forest, leaves = made
        return self._finished(forest.sums(floats, leaves), floats.dtype, given)

    def _made(self, given: dict[str, Any], dtype: Any) -> tuple[Forest, Leaves] | None:
        kept: dict[Any, tuple[Forest, Leaves] | None] = self.__dict__.setdefault("_forests", {})
        if dtype not in kept:
            kept[dtype] = self._make(given, dtype)
        return kept[dtype]

    def _make(self, given: dict[str, Any], dtype: Any) -> tuple[Forest, Leaves] | None:
        trees, ids = (given.get(f"nodes_{name}") for name in ("treeids", "nodeids"))
        modes = given.get("nodes_modes") or ()
        numbers = {f"BRANCH_{name}": number for name, number in RULES.items()} | {"LEAF": -1}
        if not trees or not ids or not len(trees) == len(ids) == len(modes) or not {*modes} <= numbers.keys():
            return None
        rules = np.array([numbers[mode] for mode in modes])
        values = np.asarray(given["nodes_values"])
        values = values.astype(np.float32) if isinstance(given["nodes_values"], list) else values
        leaf = rules < 0
        true, false = (
            np.where(leaf, -1, places_of(trees, ids, trees, as_array(given.get(f"nodes_{side}nodeids"), np.int64)))
            for side in ("true", "false")
        )
        targets = {name: given.get(f"{self._kind}_{name}") for name in ("treeids", "nodeids", "ids", "weights")}
        at = places_of(trees, ids, as_array(targets["treeids"], np.int64), as_array(targets["nodeids"], np.int64))
        if (np.minimum(true, false)[~leaf] < 0).any() or (at < 0).any() or not leaf[at].all():
            return None  # a child, or a leaf of a target, that is not there
        missing = given.get("nodes_missing_value_tracks_true") or [0] * len(rules)
        _, roots = np.unique(np.asarray(trees), return_index=True)
        nodes = Nodes(
            roots, rules, as_array(given["nodes_featureids"], np.int64),
            values.astype(np.result_type(values.dtype, dtype)), true, false, as_array(missing, np.int64),
        )  # fmt: skip
        forest = Forest.of(nodes)
        if forest is None:
            return None
        weights = as_array(targets["weights"], np.float64)
        return forest, Leaves(forest, at, as_array(targets["ids"], np.int64), weights, self._count(given))

    def _count(self, given: dict[str, Any]) -> int:
        raise NotImplementedError

    def _finished(self, sums: Array, dtype: Any, given: dict[str, Any]) -> Results:
        raise NotImplementedError


class TreeEnsembleClassifier(_Trees, _class("TreeEnsembleClassifier")):  # type: ignore[misc]
    """In floats; with no rows, and with numbers given as tensors."""

    _kind = "class"

    def _make(self, given: dict[str, Any], dtype: Any) -> tuple[Forest, Leaves] | None:
        ids = given.get("class_ids") or [-1]
        labels = given.get("classlabels_int64s") or given.get("classlabels_strings") or []
        # One label, and one number for two labels that is not the first's, are onnx.reference's to interpret.
        if len(labels) < 2 or min(ids) < 0 or max(ids) >= len(labels) or (len(set(ids)) == 1 and set(ids) != {0}):
            return None
        return super()._make(given, dtype)

    def _count(self, given: dict[str, Any]) -> int:
        return len(given.get("classlabels_int64s") or given.get("classlabels_strings") or [])

    def _finished(self, sums: Array, dtype: Any, given: dict[str, Any]) -> Results:
        base, transform = given.get("base_values"), given.get("post_transform") or "NONE"
        if base is not None and np.size(base):
            sums = sums + np.reshape(base, (1, -1))
        scores = sums.astype(np.float32)
        if len(set(given["class_ids"])) == 1:
            scores[:, 1] = scores[:, 0]
            scores[:, 0] = 1 - scores[:, 1] if transform in ("NONE", "PROBIT") else -scores[:, 1]
        scores = transformed(scores, transform)
        labels = given.get("classlabels_int64s") or given.get("classlabels_strings")
        return np.array(labels)[np.argmax(scores, axis=1)], scores


class TreeEnsembleRegressor(_Trees, _class("TreeEnsembleRegressor")):  # type: ignore[misc]
    """In floats; with no rows, and with numbers given as tensors."""

    _kind = "target"

    def _make(self, given: dict[str, Any], dtype: Any) -> tuple[Forest, Leaves] | None:
        sums = given.get("aggregate_function") in (None, "SUM", "AVERAGE")
        ids = given.get("target_ids") or [-1]
        plain = (given.get("post_transform") or "NONE") == "NONE" and min(ids) >= 0 and max(ids) < self._count(given)
        return super()._make(given, dtype) if sums and plain else None

    def _count(self, given: dict[str, Any]) -> int:
        return int(given.get("n_targets") or 1)

    def _finished(self, sums: Array, dtype: Any, given: dict[str, Any]) -> Results:
        if given.get("aggregate_function") == "AVERAGE":
            sums = sums / len(set(given["nodes_treeids"]))
        base = given.get("base_values")
        if base is not None and np.size(base):
            sums = sums + np.reshape(base, (1, -1))
        return (sums.astype(dtype),)


def _from_tensors(attributes: dict[str, Any]) -> dict[str, Any]:
    """The attributes with those called ``..._as_tensor`` in the place of the lists that they stand for."""
    tensors = {name.removesuffix("_as_tensor"): a for name, a in attributes.items() if name.endswith("_as_tensor")}
    given = {name: np.asarray(a) for name, a in tensors.items() if a is not None and np.size(a)}
    return {**{name: a for name, a in attributes.items() if not name.endswith("_as_tensor")}, **given}


MENDED = (
    LinearClassifier,
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

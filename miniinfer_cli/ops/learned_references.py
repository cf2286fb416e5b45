"""Linear models, support vector machines and trees of ai.onnx.ml: in floats, and all rows at once where their form is plain.

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
from miniinfer_cli.ops.tree_ensembles import RULES, Forest, Leaves, Nodes, places_of

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


class _Trees:
    """Walked as a forest (``tree_ensembles``), which is made when it is first met; what is no forest, as in onnx.reference."""

    _kind = ""
    """What the attributes of the leaves begin with."""

    def _run(self, x: Array, **attributes: Any) -> Results:
        floats = in_floats(x)
        given: dict[str, Any] | None = self.__dict__.get("_given")
        if given is None:  # they are the node's own, and do not change
            given = self.__dict__["_given"] = _from_tensors(attributes)
        made = self._made(given, floats.dtype)
        if made is None or floats.ndim != 2:
            return for_any_batch(partial(super()._run, **given), floats)  # type: ignore[misc]
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
        """How many targets, or classes, leaves add to."""
        return int(given.get("n_targets") or 1)

    def _finished(self, sums: Array, dtype: Any, given: dict[str, Any]) -> Results:
        raise NotImplementedError


class TreeEnsembleClassifier(_Trees, class_of("TreeEnsembleClassifier")):  # type: ignore[misc]
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
        transform = given.get("post_transform") or "NONE"
        scores = _with_base(sums, given).astype(np.float32)
        if "_of_class" not in self.__dict__:
            labels = np.array(given.get("classlabels_int64s") or given.get("classlabels_strings"))
            self.__dict__["_of_class"] = labels, len(set(given["class_ids"])) == 1
        labels, alone = self.__dict__["_of_class"]
        if alone:
            scores[:, 1] = scores[:, 0]
            scores[:, 0] = 1 - scores[:, 1] if transform in ("NONE", "PROBIT") else -scores[:, 1]
        scores = transformed(scores, transform)
        return labels[scores.argmax(axis=1)], scores


class TreeEnsembleRegressor(_Trees, class_of("TreeEnsembleRegressor")):  # type: ignore[misc]
    """In floats; with no rows, and with numbers given as tensors."""

    _kind = "target"

    def _make(self, given: dict[str, Any], dtype: Any) -> tuple[Forest, Leaves] | None:
        sums = given.get("aggregate_function") in (None, "SUM", "AVERAGE")
        ids = given.get("target_ids") or [-1]
        plain = (given.get("post_transform") or "NONE") == "NONE" and min(ids) >= 0 and max(ids) < self._count(given)
        return super()._make(given, dtype) if sums and plain else None

    def _finished(self, sums: Array, dtype: Any, given: dict[str, Any]) -> Results:
        if given.get("aggregate_function") == "AVERAGE":
            sums = sums / len(set(given["nodes_treeids"]))
        return (_with_base(sums, given).astype(dtype),)


class TreeEnsemble(_Trees, class_of("TreeEnsemble")):  # type: ignore[misc]
    """Of every kind since version 5 of ai.onnx.ml: inner nodes and leaves apart, sums and averages without a transform."""

    def _make(self, given: dict[str, Any], dtype: Any) -> tuple[Forest, Leaves] | None:
        rules = as_array(given.get("nodes_modes"), np.int64)
        inner = len(rules)
        plain = int(given.get("post_transform") or 0) == 0 and int(given.get("aggregate_function", 1)) in (0, 1)
        if not plain or not inner or rules.min() < 0 or rules.max() >= len(RULES):
            return None
        weights, targets = np.asarray(given["leaf_weights"]), as_array(given["leaf_targetids"], np.int64)
        true, false = (
            as_array(given[f"nodes_{side}nodeids"], np.int64) + inner * (as_array(given[f"nodes_{side}leafs"], np.int64) != 0)
            for side in ("true", "false")
        )
        roots, total = as_array(given["tree_roots"], np.int64), inner + len(weights)
        places, count = np.concatenate([roots, true, false]), self._count(given)
        if places.min() < 0 or places.max() >= total or targets.min(initial=0) < 0 or targets.max(initial=-1) >= count:
            return None
        none = np.full(len(weights), -1)
        splits = np.asarray(given["nodes_splits"])
        values = np.concatenate([splits, np.zeros(len(weights), splits.dtype)])
        missing = given.get("nodes_missing_value_tracks_true") or [0] * inner
        columns = (rules, as_array(given["nodes_featureids"], np.int64), true, false, as_array(missing, np.int64))
        rule, feature, true, false, tracked = (np.concatenate([column, none]) for column in columns)
        forest = Forest.of(
            Nodes(roots, rule, feature, values.astype(np.result_type(values.dtype, dtype)), true, false, tracked > 0)
        )
        return None if forest is None else (forest, Leaves(forest, np.arange(inner, total), targets, weights, count))

    def _finished(self, sums: Array, dtype: Any, given: dict[str, Any]) -> Results:
        average = int(given.get("aggregate_function", 1)) == 0
        return ((sums / len(given["tree_roots"]) if average else sums).astype(dtype),)


def _with_base(sums: Array, given: dict[str, Any]) -> Array:
    base = given.get("base_values")
    return sums + np.reshape(base, (1, -1)) if base is not None and np.size(base) else sums


def _from_tensors(attributes: dict[str, Any]) -> dict[str, Any]:
    """The attributes with those called ``..._as_tensor`` in the place of the lists that they stand for."""
    tensors = {name.removesuffix("_as_tensor"): a for name, a in attributes.items() if name.endswith("_as_tensor")}
    given = {name: np.asarray(a) for name, a in tensors.items() if a is not None and np.size(a)}
    return {**{name: a for name, a in attributes.items() if not name.endswith("_as_tensor")}, **given}


LEARNED = (
    LinearClassifier,
    LinearRegressor,
    SVMClassifier,
    SVMRegressor,
    TreeEnsemble,
    TreeEnsembleClassifier,
    TreeEnsembleRegressor,
)
"""The classes, which stand for those of the same names."""

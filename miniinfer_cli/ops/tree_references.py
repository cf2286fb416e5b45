"""Trees of ai.onnx.ml: walked as forests (``tree_ensembles``), in floats, all rows at once.

What is no forest is left to the class of ``onnx.reference``. The adapter alone imports this, when a node first runs.
"""

from functools import partial
from typing import Any

import numpy as np

from miniinfer_cli.ir import Array
from miniinfer_cli.ops.class_scores import transformed
from miniinfer_cli.ops.learned_references import Results, as_array, class_of, for_any_batch, in_floats
from miniinfer_cli.ops.tree_ensembles import RULES, Forest, Leaves, Nodes, places_of


class _Trees:
    """Walked as a forest, which is made when it is first met; what is no forest, as in onnx.reference."""

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


TREES = (TreeEnsemble, TreeEnsembleClassifier, TreeEnsembleRegressor)
"""The classes, which stand for those of the same names."""

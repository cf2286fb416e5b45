"""Forest: an ensemble of decision trees as tables, walked by all rows and many trees at once, a level at a time.

Siblings lie beside each other, so a step is three look-ups (what a node compares, the value of the feature, the threshold), one
comparison, and an addition; 5 ns for a row and a tree on a Xeon. Leaves lead to themselves.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array

_ROWS = 512  # of a block: their features stay in the cache
_ELEMENTS = 1 << 15  # rows times trees that are walked at once: what passes between two steps stays in the cache
_MOST_DENSE = 1 << 26  # numbers of a table of leaves by targets
_FEATURE_BITS = 32
_MOST_LEAVES = 64  # of a tree whose leaves are bits of one number
_MOST_COMPARED = 1 << 14  # rows times inner nodes that are compared at once: below that, walking is many calls for little


@dataclass(frozen=True)
class Nodes:
    """The nodes of all trees, in any order. ``rule``: numbers of ``RULES``; -1 for leaves. ``true`` and ``false``: the places of
    their children. ``missing_is_true``: where NaN goes. ``roots``: places.
    """

    roots: Array
    rule: Array
    feature: Array
    value: Array
    true: Array
    false: Array
    missing_is_true: Array


RULES = {"LEQ": 0, "LT": 1, "GTE": 2, "GT": 3, "EQ": 4, "NEQ": 5}
"""How an inner node compares the feature with its value, by the end of the mode's name, and the number that stands for it."""
# By number: whether what is true goes right, the value itself does not count as less, and only equality is asked.
_TURNED, _SHORT, _EQUAL = (np.array(flags, bool) for flags in ((0, 0, 1, 1, 0, 1), (0, 1, 1, 0, 0, 0), (0, 0, 0, 0, 1, 1)))


class Forest:
    """Trees ready to be walked. ``depths``: the levels of each; ``leaf_of``: by place of a node, its number among the tables."""

    def __init__(self, nodes: Nodes, order: Array, trees: Array, levels: Array, is_inner: Array) -> None:
        number = np.full(len(nodes.rule), -1, np.int64)
        number[order] = np.arange(len(order))
        rule, value = nodes.rule[order], nodes.value[order]
        inner = is_inner[order]
        turned = _TURNED[rule]
        left = np.where(turned, nodes.false[order], nodes.true[order])
        base = np.where(inner, number[np.where(inner, left, 0)], np.arange(len(order)))
        # x < v is x <= the number before v, and x >= v is x > the number before v.
        short = inner & _SHORT[rule]
        limits = np.where(short, np.nextafter(value, -np.inf, dtype=value.dtype), value)
        self.leaf_of = number
        self.features = int(nodes.feature[order][inner].max(initial=-1)) + 1
        self._step = np.where(inner, nodes.feature[order], 0) | (base << _FEATURE_BITS)
        self._limit = np.where(inner, limits, np.array(np.inf, value.dtype))
        self._equal = inner & _EQUAL[rule]
        self._any_equal = bool(self._equal.any())
        tracked = nodes.missing_is_true[order].astype(bool) | (rule == RULES["NEQ"])  # NaN is unequal to any value
        self._missing_right = inner & (tracked == turned)
        depths = np.zeros(len(nodes.roots), np.int64)
        np.maximum.at(depths, trees, levels)
        self._base, self._inner = base, inner
        self._bits: _Bits | None = None
        self._may_be_bits = not self._any_equal and len(order) <= _MOST_COMPARED and len(nodes.roots) > 0
        by_depth = np.argsort(depths, kind="stable")  # a block is walked as far as its deepest tree
        self._roots, self._depths = number[nodes.roots][by_depth], depths[by_depth]

    @classmethod
    def of(cls, nodes: Nodes) -> "Forest | None":
        """The forest of ``nodes``; None where they are no trees: a node has two parents, or is its own; or a threshold is NaN."""
        is_inner = nodes.rule >= 0
        if np.isnan(nodes.value[is_inner]).any() or (nodes.feature[is_inner] < 0).any():
            return None
        current, tree = nodes.roots, np.arange(len(nodes.roots))
        found: list[tuple[Array, Array]] = []
        visited = 0
        while len(current):
            visited += len(current)
            if visited > len(nodes.rule):
                return None
            found.append((current, tree))
            inner = is_inner[current]
            parents = current[inner]
            turned = _TURNED[nodes.rule[parents]]
            left, right = (np.where(turned, *pair) for pair in _sides(nodes, parents))
            current, tree = np.stack([left, right], axis=1).reshape(-1), np.repeat(tree[inner], 2)
        places, trees = (np.concatenate(parts) for parts in zip(*found, strict=True))
        if len(np.unique(places)) < len(places):
            return None
        levels = np.repeat(np.arange(len(found)), [len(p) for p, _ in found])
        apart = np.argsort(trees, kind="stable")
        return cls(nodes, places[apart], trees[apart], levels[apart], is_inner)

    def sums(self, x: Array, leaves: "Leaves") -> Array:
        """[rows, targets] in f64: what the leaves that each row of ``x`` ([rows, features], floats) comes to add up to.

        Raises ModelError where ``x`` has too few features.
        """
        rows, features = x.shape
        if features < self.features:
            raise ModelError(f"the trees read {self.features} features, the input has {features}")
        if self._may_be_bits and 0 < rows * len(self._base) <= _MOST_COMPARED:
            self._bits = self._bits or _Bits.of(self._base, self._inner, self._step, self._limit, self._missing_right)
            self._may_be_bits = self._bits is not None
            if self._bits is not None:
                return leaves.total(self._bits.reached(x))
        result = np.zeros((rows, leaves.targets))
        trees = max(1, _ELEMENTS // max(min(rows, _ROWS), 1))
        for first in range(0, rows, _ROWS):
            part = np.ascontiguousarray(x[first : first + _ROWS])
            missing = bool(np.isnan(part).any())
            starts = np.arange(len(part)) * features
            for at in range(0, len(self._roots), trees):
                block = slice(at, at + trees)
                reached = self._walk(part.reshape(-1), starts, self._roots[block], int(self._depths[block].max()), missing)
                result[first : first + len(part)] += leaves.total(reached)
        return result

    def _walk(self, flat: Array, starts: Array, roots: Array, depth: int, missing: bool) -> Array:
        """[trees, rows]: the numbers of the leaves."""
        shape = (len(roots), len(starts))
        node = np.repeat(roots, len(starts))
        step, at = np.empty(node.shape, np.int64), np.empty(node.shape, np.int64)
        value, limit = np.empty(node.shape, flat.dtype), np.empty(node.shape, self._limit.dtype)
        right = np.empty(node.shape, bool)
        for _ in range(depth):
            self._step.take(node, out=step, mode="clip")
            self._limit.take(node, out=limit, mode="clip")
            np.bitwise_and(step, (1 << _FEATURE_BITS) - 1, out=at)
            at.reshape(shape)[...] += starts
            flat.take(at, out=value, mode="clip")
            np.greater(value, limit, out=right)
            if self._any_equal:
                np.copyto(right, value != limit, where=self._equal[node])
            if missing:
                np.copyto(right, self._missing_right[node], where=np.isnan(value))
            np.right_shift(step, _FEATURE_BITS, out=node)
            node += right
        return node.reshape(shape)


@dataclass(frozen=True)
class _Bits:
    """Small trees for few rows: every inner node is compared at once, and says which leaves no row can come to that goes right.

    A leaf is a bit, counted from the left: a row comes to the lowest one that is left. By Lucchese et al., "QuickScorer", 2015.
    ``keeps``: by inner node, all leaves but those below its left child. ``first``: the first inner node of each tree. ``leaves``
    [trees, 64]: the numbers of the leaves; ``row``: where each tree's begin.
    """

    feature: Array
    limit: Array
    missing_right: Array
    keeps: Array
    first: Array
    leaves: Array
    row: Array

    @classmethod
    def of(cls, base: Array, inner: Array, step: Array, limit: Array, missing_right: Array) -> "_Bits | None":
        """None for trees of more leaves than there are bits, and of one leaf. Parents stand in front of their children."""
        count, begin = len(base), np.zeros(len(base), np.int64)
        below = np.where(inner, 0, 1)
        children, is_inner = base.tolist(), inner.tolist()
        is_root = np.ones(count, bool)
        for node in range(count - 1, -1, -1):
            if is_inner[node]:
                left = children[node]
                below[node] = below[left] + below[left + 1]
                is_root[[left, left + 1]] = False
        roots = np.flatnonzero(is_root)
        if below.max() > _MOST_LEAVES or not inner[roots].all():
            return None
        leaves = np.zeros((len(roots), _MOST_LEAVES), np.int64)
        tree = np.cumsum(is_root) - 1
        keeps: list[int] = []
        for node in range(count):
            if is_inner[node]:
                left = children[node]
                begin[left], begin[left + 1] = begin[node], begin[node] + below[left]
                keeps.append((1 << _MOST_LEAVES) - 1 - (((1 << int(below[left])) - 1) << int(begin[left])))
            else:
                leaves[tree[node], begin[node]] = node
        at = np.flatnonzero(inner)
        first = np.searchsorted(at, roots)
        row = np.arange(len(roots))[:, None] * _MOST_LEAVES
        feature = step[at] & ((1 << _FEATURE_BITS) - 1)
        return cls(feature, limit[at], missing_right[at], np.array(keeps, np.uint64), first, leaves, row)

    def reached(self, x: Array) -> Array:
        """[trees, rows]: the numbers of the leaves."""
        values = x.T.take(self.feature, axis=0)
        right = values > self.limit[:, None]
        if np.isnan(x).any():
            np.copyto(right, self.missing_right[:, None], where=np.isnan(values))
        keeps = np.where(right, self.keeps[:, None], _ALL)
        left = np.bitwise_and.reduceat(keeps, self.first, axis=0)
        lowest = left & (~left + _ONE)
        bits = np.log2(lowest.astype(np.float64)).astype(np.int64)  # powers of two, exactly
        bits += self.row
        found: Array = self.leaves.take(bits)
        return found


_ONE, _ALL = np.uint64(1), np.uint64((1 << _MOST_LEAVES) - 1)


def _sides(nodes: Nodes, parents: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """The left and the right children: where a rule is turned, and where it is not."""
    true, false = nodes.true[parents], nodes.false[parents]
    return (false, true), (true, false)


class Leaves:
    """What leaves add to targets, by their numbers in a forest: one number each, or one for every target."""

    def __init__(self, forest: Forest, places: Array, targets: Array, weights: Array, count: int) -> None:
        numbers = forest.leaf_of[places]
        there = numbers >= 0  # others belong to nodes that no row comes to
        numbers, targets, weights = numbers[there], targets[there], weights[there].astype(np.float64)
        total = int(forest.leaf_of.max(initial=-1)) + 1
        self.targets = count
        self._target: Array | None = None
        self._weight: Array
        if count == 1:
            self._weight = np.bincount(numbers, weights, minlength=total)
        elif len(np.unique(numbers)) == len(numbers):
            self._weight, self._target = np.zeros(total), np.zeros(total, np.int64)
            self._weight[numbers], self._target[numbers] = weights, targets
        else:
            if total * count > _MOST_DENSE:
                raise MemoryError(f"{total} leaves of {count} targets")
            self._weight = np.bincount(numbers * count + targets, weights, minlength=total * count).reshape(total, count)

    def total(self, reached: Array) -> Array:
        """[rows, targets] of leaves [trees, rows]."""
        weights = self._weight[reached]
        if self._weight.ndim == 2:
            return np.asarray(weights.sum(axis=0))
        if self._target is None:
            return np.asarray(weights.sum(axis=0))[:, None]
        rows = reached.shape[1]
        places = self._target[reached] + np.arange(rows) * self.targets
        return np.bincount(places.reshape(-1), weights.reshape(-1), minlength=rows * self.targets).reshape(rows, self.targets)


def places_of(trees: Any, ids: Any, wanted_trees: Any, wanted_ids: Any) -> Array:
    """The places among the nodes (``trees``, ``ids``) of those that are wanted; -1 for one that is not there."""
    have, want = (np.array([t, i], np.int64).reshape(2, -1) for t, i in ((trees, ids), (wanted_trees, wanted_ids)))
    if not have.size:
        return np.full(want.shape[1], -1)
    low = min(int(have[1].min()), int(want[1].min(initial=0)))
    width = max(int(have[1].max()), int(want[1].max(initial=0))) - low + 1
    keys, sought = (pair[0] * width + (pair[1] - low) for pair in (have, want))
    order = np.argsort(keys, kind="stable")
    at = np.minimum(np.searchsorted(keys[order], sought), len(keys) - 1)
    return np.where(keys[order][at] == sought, order[at], -1)

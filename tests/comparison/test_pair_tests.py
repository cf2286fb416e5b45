"""What pairs of workers say, by simulation: false alarms, power, equality, and the bounds of each figure."""

import itertools
import math
import statistics
from collections import Counter

import numpy as np
import pytest

from miniinfer_cli.comparison.pair_tests import (
    Relation,
    bootstrap_interval,
    judge,
    least_pairs,
    pairs_needed,
    permutation_p,
)

SLOWER = math.log(1.05)


def findings(count, spread, change, repeats, *, heavy=False, alpha=0.01):
    rng = np.random.default_rng(7)
    found: Counter = Counter()
    for seed in range(repeats):
        noise = rng.standard_t(3, count) / math.sqrt(3) if heavy else rng.normal(size=count)
        found[judge(spread * noise + change, 0.02, alpha, seed).relation] += 1
    return found


def test_permutations_are_counted_exactly():
    values = [0.03, -0.01, 0.02, 0.05, 0.01]
    sums = [abs(sum(s * v for s, v in zip(signs, values, strict=True))) for signs in itertools.product((1, -1), repeat=5)]
    assert permutation_p(values) == pytest.approx(sum(s >= sum(values) - 1e-12 for s in sums) / 32)
    assert permutation_p([0.01] * 8) == 2 / 2**8
    assert permutation_p([0.0] * 8) == 1.0
    many = [0.01 * (-1) ** n + 0.002 for n in range(40)]
    assert permutation_p(many) == permutation_p(many) == pytest.approx(0.26, abs=0.03)


def test_least_pairs():
    assert [least_pairs(alpha) for alpha in (0.5, 0.01, 0.008, 0.002, 0.005)] == [2, 8, 8, 10, 9]
    assert permutation_p([0.1] * least_pairs(0.01)) <= 0.01 < permutation_p([0.1] * (least_pairs(0.01) - 1))


@pytest.mark.parametrize(("count", "heavy"), [(8, False), (8, True), (16, False), (16, True)])
def test_sides_that_are_the_same_are_rarely_called_different(count, heavy):
    found = findings(count, 0.05, 0.0, 120, heavy=heavy)
    assert found[Relation.SLOWER] + found[Relation.FASTER] <= 5  # 1.2 are expected


def test_five_per_cent_are_found_where_workers_spread_by_two():
    found = findings(12, 0.02 * math.sqrt(2), SLOWER, 60)
    assert found[Relation.SLOWER] >= 54
    assert found[Relation.FASTER] == found[Relation.EQUAL] == 0
    mirrored = findings(12, 0.02 * math.sqrt(2), -SLOWER, 60)
    assert mirrored[Relation.FASTER] >= 54


def test_where_pairs_spread_widely_nobody_can_tell():
    found = findings(12, 0.3, SLOWER, 60)
    assert found[Relation.CANNOT_TELL] >= 57
    verdict = judge(list(np.random.default_rng(1).normal(0, 0.3, 12)), 0.02)
    assert (verdict.relation, verdict.why) == (Relation.CANNOT_TELL, "pairs of workers differ too much among themselves")
    assert verdict.needed is not None and 500 < verdict.needed < 700


def test_equal_is_what_lies_within_the_margin():
    assert findings(12, 0.01, 0.0, 60)[Relation.EQUAL] >= 54
    assert judge([0.004, 0.006] * 6, 0.02).relation is Relation.EQUAL  # a difference that does not matter
    assert judge([0.004, 0.006] * 6, 0.001).relation is Relation.SLOWER
    assert findings(12, 0.01, math.log(1.02), 100)[Relation.EQUAL] <= 3


def test_bounds_hold_what_they_should():
    rng = np.random.default_rng(3)
    missed = 0
    for seed in range(200):
        low, high = bootstrap_interval(rng.normal(0.0, 1.0, 8), 0.05, seed)
        missed += not low < 0 < high
    assert missed <= 20  # 10 are expected
    low, high = bootstrap_interval([0.01] * 8, 0.01)
    assert low == high == pytest.approx(0.01)


def test_too_few_pairs():
    for few in ([], [0.1], [0.1] * 7):
        verdict = judge(few, 0.02)
        assert (verdict.relation, verdict.pairs) == (Relation.CANNOT_TELL, len(few))
        assert verdict.why == f"{len(few)} pairs of workers; 8 are the least that tell anything"
    assert (judge([], 0.02).change, judge([0.1], 0.02).p) == (None, None)
    assert judge([0.1] * 8, 0.02).relation is Relation.SLOWER


def test_the_pairs_that_would_be_needed():
    needed = pairs_needed(0.03, 0.02, 0.01)
    assert needed is not None
    assert 2.8 * 0.03 / math.sqrt(needed) < 0.021  # Student's quantile is near 2.8 for so many
    assert pairs_needed(0.0, 0.02, 0.01) == 8
    assert pairs_needed(10.0, 0.001, 0.01) is None


def test_the_figures_of_a_verdict():
    differences = [math.log(1.1) + d for d in (0.01, -0.01, 0.02, -0.02, 0.0, 0.005, -0.005, 0.0)]
    verdict = judge(differences, 0.02)
    assert verdict.change == pytest.approx(0.1, abs=1e-6)
    assert verdict.spread == pytest.approx(math.expm1(statistics.stdev(differences)))
    assert verdict.low is not None and verdict.high is not None
    assert 0.08 < verdict.low < 0.1 < verdict.high < 0.12
    assert (verdict.relation, verdict.p) == (Relation.SLOWER, 2 / 256)

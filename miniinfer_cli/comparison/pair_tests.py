"""What pairs of workers say: whether B takes longer than A, by how much, and how many pairs it would take to know.

The unit is a pair of processes, never an iteration: iterations of one process are alike, and processes differ among themselves
(where memory lies, how clocks stand) by more than all iterations of one show. A pair's figure is the logarithm of the ratio of
its two times.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from miniinfer_cli.comparison.intervals import t_quantile

FALSE_ALARMS = 0.01
"""How often two sides that are the same are called different, at most."""
EARLY = 0.2
"""The part of that which a look before the end may use up; the look at the end has the rest."""
_EXACT_PAIRS = 12  # with up to so many pairs every choice of signs is looked at
_FLIPS = 10_000  # with more, so many at random
_RESAMPLES = 4_000
_FEW = 60  # pairs up to which Student's distribution is another than the normal one
MOST_PAIRS = 10_000
"""Nobody is told to measure more."""


class Relation(StrEnum):
    """What the times say of B, beside A."""

    FASTER = "faster"
    SLOWER = "slower"
    EQUAL = "equal"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What pairs say. Changes are of B's time as parts of A's: 0.05 is 5 % slower.

    ``low`` and ``high`` bound the change by a bootstrap over pairs, ``p`` is that of the permutation test. ``spread``: the
    standard deviation of a pair's change. ``needed``: pairs that it would take to tell ``margin`` with such a spread; None with
    too few to know. All but the counts are None where there is no pair, or only one.
    """

    relation: Relation
    pairs: int
    margin: float
    change: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    spread: float | None = None
    needed: int | None = None
    why: str = ""
    too_few: bool = False
    """There are fewer pairs than tell anything, whatever they say."""


def least_pairs(alpha: float) -> int:
    """Pairs with which a permutation test can have a p of ``alpha``: there are two signs to each, and two tails."""
    return math.ceil(math.log2(2 / alpha) - 1e-9)


def permutation_p(differences: Sequence[float], seed: int = 0) -> float:
    """How often the mean is as far from 0 when each pair's sides are exchanged by chance: the two-sided sign-flip test.

    Exact up to 12 pairs, by random flips of ``seed`` beyond. At least one difference.
    """
    values = np.asarray(differences, np.float64)
    count = len(values)
    if count <= _EXACT_PAIRS:
        bits = np.arange(1 << count)[:, None] >> np.arange(count) & 1
        sums = np.abs((1 - 2 * bits) @ values)
        return float(np.mean(sums >= abs(values.sum()) * (1 - 1e-12)))
    signs = np.random.default_rng(seed).integers(0, 2, (_FLIPS, count)) * 2 - 1
    extreme = int(np.sum(np.abs(signs @ values) >= abs(values.sum()) * (1 - 1e-12)))
    return (extreme + 1) / (_FLIPS + 1)


def bootstrap_interval(differences: Sequence[float], alpha: float, seed: int = 0) -> tuple[float, float]:
    """Bounds of the mean with an error of ``alpha`` in both tails: percentiles of means of resampled pairs.

    For few pairs these are too narrow: a resample has their spread with 1/n in the place of 1/(n-1), and its tails are those of
    the normal distribution where Student's should be. Both are mended by a factor on the distance from the mean, which leaves
    the skew as it is. At least two differences.
    """
    values = np.asarray(differences, np.float64)
    count = len(values)
    mean = float(values.mean())
    chosen = np.random.default_rng(seed).integers(0, count, (_RESAMPLES, count))
    low, high = np.quantile(values[chosen].mean(axis=1), [alpha / 2, 1 - alpha / 2])
    normal = statistics.NormalDist().inv_cdf(1 - alpha / 2)
    factor = t_quantile(1 - alpha / 2, count - 1) / normal * math.sqrt(count / (count - 1))
    return mean + (float(low) - mean) * factor, mean + (float(high) - mean) * factor


def pairs_needed(spread: float, distance: float, alpha: float) -> int | None:
    """Pairs of this ``spread`` whose interval is no wider than ``distance`` on either side; None for more than ten thousand."""
    wanted = max((statistics.NormalDist().inv_cdf(1 - alpha / 2) * spread / distance) ** 2, least_pairs(alpha))
    if wanted > MOST_PAIRS:
        return None
    count = math.ceil(wanted)
    while count < _FEW and t_quantile(1 - alpha / 2, count - 1) * spread / math.sqrt(count) > distance:  # Student's is wider
        count += 1
    return count


def judge(differences: Sequence[float], margin: float, alpha: float = FALSE_ALARMS, seed: int = 0) -> Verdict:
    """What the ``differences`` (logarithms of ratios, B to A) of pairs say.

    Equal is what lies within ``margin`` (a part) on either side, whatever its sign; faster or slower what the permutation test
    and the interval both tell from 0, each with an error of ``alpha``.
    """
    count = len(differences)
    least = least_pairs(alpha)
    if count < 2:
        return Verdict(
            Relation.CANNOT_TELL, count, margin, why=f"{count} pairs of workers; {least} are the least that tell anything"
        )
    mean, spread = statistics.fmean(differences), statistics.stdev(differences)
    low, high = bootstrap_interval(differences, alpha, seed)
    p = permutation_p(differences, seed)
    distance = math.log1p(margin)
    needed = pairs_needed(spread, distance, alpha)
    why = ""
    if count < least:
        relation, why = Relation.CANNOT_TELL, f"{count} pairs of workers; {least} are the least that tell anything"
    elif -distance < low and high < distance:
        relation = Relation.EQUAL
    elif p <= alpha and (low > 0 or high < 0):
        relation = Relation.SLOWER if mean > 0 else Relation.FASTER
    else:
        relation, why = Relation.CANNOT_TELL, "pairs of workers differ too much among themselves"
    change, low, high, spread = (math.expm1(v) for v in (mean, low, high, spread))
    return Verdict(relation, count, margin, change, low, high, p, spread, needed, why, count < least)

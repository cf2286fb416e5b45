"""Student's distribution: how far off the mean of a few figures may be."""

import functools
import math


@functools.lru_cache(256)
def t_quantile(part: float, degrees: int) -> float:
    """The value below which ``part`` (above 0.5) of Student's distribution of so many ``degrees`` of freedom lies.

    Raises ValueError where there is none.
    """
    if degrees < 1 or not 0.5 < part < 1:
        raise ValueError(f"no quantile {part:g} of {degrees} degrees of freedom")
    low, high = 0.0, 1.0
    while t_below(high, degrees) < part:
        low, high = high, 2 * high
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if t_below(middle, degrees) < part else (low, middle)
    return high


def t_below(value: float, degrees: int) -> float:
    """How much of Student's distribution lies below ``value``, 0 or more, by the series of Abramowitz and Stegun, 26.7.3-4."""
    angle = math.atan(value / math.sqrt(degrees))
    odd = degrees % 2
    term, total = math.cos(angle) if odd else 1.0, 0.0
    for k in range(1, (degrees - 1) // 2 + 1 if odd else degrees // 2 + 1):
        total += term
        term *= math.cos(angle) ** 2 * ((2 * k) / (2 * k + 1) if odd else (2 * k - 1) / (2 * k))
    between = 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
    return 0.5 + between / 2

"""Pieces of SVG that the charts share: ticks of axes, lines, words."""

import math
from collections.abc import Sequence

from miniinfer_cli.report.markup import Html, tag


def ticks(most: float, count: int = 6) -> list[float]:
    """Round numbers from 0 to ``most``, about so many of them."""
    if most <= 0:
        return [0.0]
    rough = most / count
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * n for n in (1, 2, 5, 10) if power * n >= rough * 0.999)
    return [step * n for n in range(int(most / step * 1.0001) + 1)]


def decades(least: float, most: float) -> range:
    """The exponents of the powers of ten around what lies between two positive numbers."""
    return range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1)


def words(x: float, y: float, content: str, *, class_: str | None = None, anchor: str | None = None) -> Html:
    """Text at a point."""
    return tag("text", content, x=f"{x:.1f}", y=f"{y:.1f}", class_=class_, text_anchor=anchor)


def line(x0: float, y0: float, x1: float, y1: float, class_: str) -> Html:
    """A straight line."""
    return tag("line", x1=f"{x0:.1f}", y1=f"{y0:.1f}", x2=f"{x1:.1f}", y2=f"{y1:.1f}", class_=class_)


def path(points: Sequence[tuple[float, float]], class_: str | None = None) -> Html:
    """Straight lines through points."""
    way = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return tag("path", d=f"M{way}", class_=class_)

"""The pairs of a comparison as a picture: the times of both workers of each, and by how much they differ."""

from collections.abc import Callable, Sequence

from miniinfer_cli.report.comparison import Times
from miniinfer_cli.report.figures import time_of
from miniinfer_cli.report.markup import Html, tag
from miniinfer_cli.report.svg import line, ticks, words

_LEFT, _RIGHT, _WIDTH = 80.0, 16.0, 1000.0
_TOP, _HEIGHT, _BETWEEN, _BOTTOM = 20.0, 130.0, 34.0, 30.0
_MOST = 400  # pairs that are drawn, evenly chosen
_ROOM = 0.12  # beyond the least and the most, as a part of what lies between


def race_chart(times: Times) -> Html | None:
    """Times above, changes below, a place for each pair; None where no pair counted."""
    if times.a is None or times.b is None:
        return None
    pairs = list(zip(times.a.workers_ms, times.b.workers_ms, strict=False))
    pairs = [pair for pair in pairs if min(pair) > 0][:: -(-len(pairs) // _MOST) or 1]
    if not pairs:
        return None

    def across(number: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (number + 0.5) / len(pairs)

    low = _TOP + _HEIGHT + _BETWEEN
    parts = [*_times_panel(pairs, across), *_changes_panel(pairs, times, across, low)]
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(words(middle, low + _HEIGHT + 20, "pairs of workers, in their order", class_="tick", anchor="middle"))
    picture = tag(
        "svg",
        *parts,
        viewBox=f"0 0 {_WIDTH:g} {low + _HEIGHT + _BOTTOM:g}",
        class_="race",
        role="img",
        aria_label="Pairs of workers",
    )
    sides = [tag("span", tag("i", class_=f"swatch side-{s.lower()}"), s) for s in "AB"]
    told = " Above: the time of an inference in both workers of each pair. Below: how much longer B took; the band is what counts"
    bounds = "" if times.low is None else ", the dashed lines bound the change"
    return tag(
        "div",
        tag("div", picture, class_="wide"),
        tag("p", tag("span", *sides, class_="legend"), f"{told} as equal{bounds}.", class_="muted"),
    )


def _scale(least: float, most: float, top: float) -> Callable[[float], float]:
    """Where a value stands, of a panel that begins at ``top``, with some room beyond ``least`` and ``most``."""
    room = _ROOM * (most - least) or abs(most) * _ROOM or 1.0
    low, high = least - room, most + room
    return lambda value: top + _HEIGHT * (high - value) / (high - low)


def _axis(values: Sequence[float], up: Callable[[float], float], told: Callable[[float], str]) -> list[Html]:
    """A line and a text at each of the ``values``."""
    found: list[Html] = []
    for value in values:
        y = up(value)
        found += [line(_LEFT, y, _WIDTH - _RIGHT, y, "grid"), words(_LEFT - 8, y + 4, told(value), class_="tick", anchor="end")]
    return found


def _times_panel(pairs: Sequence[tuple[float, float]], across: Callable[[float], float]) -> list[Html]:
    flat = [t for pair in pairs for t in pair]
    up = _scale(min(flat), max(flat), _TOP)
    parts = _axis(_steps(min(flat), max(flat)), up, time_of)
    for number, (a, b) in enumerate(pairs):
        x = across(number)
        parts.append(line(x, up(a), x, up(b), "link"))
        parts += [_dot(x, up(t), f"side-{s}", f"pair {number + 1}, {s.upper()}: {time_of(t)}") for s, t in (("a", a), ("b", b))]
    return parts


def _changes_panel(
    pairs: Sequence[tuple[float, float]], times: Times, across: Callable[[float], float], top: float
) -> list[Html]:
    changes = [100 * (b / a - 1) for a, b in pairs]
    bounds = [100 * v for v in (times.low, times.change, times.high) if v is not None]
    margin = 100 * times.margin
    every = [*changes, *bounds, margin, -margin]
    up = _scale(min(every), max(every), top)
    tall = up(-margin) - up(margin)
    place = {"x": f"{_LEFT:g}", "y": f"{up(margin):.1f}", "width": f"{_WIDTH - _LEFT - _RIGHT:g}", "height": f"{tall:.1f}"}
    band = tag("rect", **place, class_="margin")
    parts = [band, *_axis(_steps(min(every), max(every)), up, lambda v: f"{v:+g} %" if v else "0 %")]
    for value, kind in zip((times.low, times.change, times.high), ("bound", "mean", "bound"), strict=True):
        if value is not None:
            y = up(100 * value)
            parts.append(line(_LEFT, y, _WIDTH - _RIGHT, y, kind))
    parts += [_dot(across(n), up(c), "pair", f"pair {n + 1}: {c:+.2f} %") for n, c in enumerate(changes)]
    return parts


def _steps(least: float, most: float) -> list[float]:
    """Round values from ``least`` to ``most``."""
    step = (ticks(most - least, 4) + [0.0, 0.0])[1] or abs(most) or 1.0
    first = -(-least // step)
    return [round((first + n) * step, 12) for n in range(int((most - least) / step) + 1) if (first + n) * step <= most]


def _dot(x: float, y: float, kind: str, told: str) -> Html:
    return tag("circle", tag("title", told), cx=f"{x:.1f}", cy=f"{y:.1f}", r="4", class_=kind)

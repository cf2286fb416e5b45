"""The roofline: what each node achieves beside how much it computes on each byte, under the ceilings of the device."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from miniinfer_cli.report.document import Node, Result
from miniinfer_cli.report.figures import rate_of, time_of
from miniinfer_cli.report.markup import Html, joined, tag
from miniinfer_cli.report.svg import decades, line, path, words

_LEFT, _RIGHT, _TOP, _BOTTOM, _WIDTH, _HEIGHT = 64.0, 16.0, 12.0, 42.0, 1000.0, 420.0


@dataclass(frozen=True, slots=True)
class _Dot:
    node: Node
    intensity: float
    gflops: float


@dataclass(frozen=True, slots=True)
class _Frame:
    """Two logarithmic axes: exponents of ten from ``x0`` to ``x1`` and from ``y0`` to ``y1``."""

    x0: int
    x1: int
    y0: int
    y1: int

    def at(self, intensity: float, gflops: float) -> tuple[float, float]:
        """A point on the page, inside the frame or not."""
        across = (math.log10(intensity) - self.x0) / (self.x1 - self.x0)
        up = (math.log10(gflops) - self.y0) / (self.y1 - self.y0)
        return _LEFT + across * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM)


def roofline_chart(result: Result) -> Html | None:
    """A dot for each node whose operations and bytes are known; None where there are none."""
    dots = [
        _Dot(n, n.flops / n.nbytes, n.flops / n.median_ms / 1e6) for n in result.nodes if n.flops and n.nbytes and n.median_ms
    ]
    if not dots:
        return None
    bandwidth, peaks = _ceilings(result)
    frame = _frame(dots, bandwidth, peaks)
    total = sum(n.median_ms for n in result.nodes)
    drawn = [_dot(d, frame, total) for d in sorted(dots, key=lambda d: -d.node.median_ms)]
    picture = tag(
        "svg", *_axes(frame), *_roofs(frame, bandwidth, peaks), *drawn,
        viewBox=f"0 0 {_WIDTH:g} {_HEIGHT:g}", class_="roofline", role="img", aria_label="Roofline",
    )  # fmt: skip
    left_out = len(result.nodes) - len(dots)
    told = "A dot is a node, as large as its part of the time; each leads to its row in the table."
    bounds = [b for b in ("compute", "memory") if any(d.node.bound_by == b for d in dots)]
    legend = tag("span", *(tag("span", tag("i", class_=f"swatch by-{b}"), f"nearer to {b}") for b in bounds), class_="legend")
    if left_out:
        told += f" {left_out} nodes that compute nothing, or of which that is not known, are not shown."
    if not peaks:
        told += " The ceilings of the device are not known."
    return tag("div", tag("div", picture, class_="wide"), tag("p", legend, " " if bounds else "", told, class_="muted"))


def _ceilings(result: Result) -> tuple[float | None, list[tuple[str, float]]]:
    """GB/s of memory, and GFLOP/s of the rates that nodes compute at, by name."""
    if result.ceilings is None:
        return None, []
    used = {n.rate for n in result.nodes}
    return result.ceilings.memory_gbps, [(k, v) for k, v in result.ceilings.gflops.items() if k in used]


def _frame(dots: Sequence[_Dot], bandwidth: float | None, peaks: Sequence[tuple[str, float]]) -> _Frame:
    ridges = [peak / bandwidth for _, peak in peaks] if bandwidth else []
    xs = [d.intensity for d in dots] + ridges
    ys = [d.gflops for d in dots] + [peak for _, peak in peaks]
    x, y = decades(min(xs), max(xs)), decades(min(ys), max(ys))
    return _Frame(x[0], x[-1] if len(x) > 1 else x[0] + 1, y[0], y[-1] if len(y) > 1 else y[0] + 1)


def _axes(frame: _Frame) -> list[Html]:
    parts: list[Html] = []
    for power in range(frame.x0, frame.x1 + 1):
        x, bottom = frame.at(10.0**power, 10.0**frame.y0)
        parts += [line(x, _TOP, x, bottom, "grid"), words(x, bottom + 16, _power(power), class_="tick", anchor="middle")]
    for power in range(frame.y0, frame.y1 + 1):
        _, y = frame.at(1.0, 10.0**power)
        parts += [line(_LEFT, y, _WIDTH - _RIGHT, y, "grid"), words(_LEFT - 8, y + 4, _power(power), class_="tick", anchor="end")]
    parts.append(words((_LEFT + _WIDTH) / 2, _HEIGHT - 6, "operations on each byte", class_="tick", anchor="middle"))
    parts.append(words(_LEFT + 6, _TOP + 10, "GFLOP/s", class_="tick"))
    return parts


def _power(power: int) -> str:
    return rate_of(10.0**power) if power < 4 else f"10{str(power).translate(_RAISED)}"


_RAISED = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def _roofs(frame: _Frame, bandwidth: float | None, peaks: Sequence[tuple[str, float]]) -> list[Html]:
    """The slope of the memory up to the highest ceiling of computing, and each of these from the slope on."""
    if not bandwidth or not peaks:
        return []
    top = max(peak for _, peak in peaks)
    least = max(10.0**frame.x0, 10.0**frame.y0 / bandwidth)
    parts = [path([frame.at(least, least * bandwidth), frame.at(top / bandwidth, top)], "roof")]
    x, y = frame.at(least, least * bandwidth)
    parts.append(words(x + 10, y - 10, f"{rate_of(bandwidth)} GB/s", class_="roofname"))
    for name, peak in peaks:
        x, y = frame.at(10.0**frame.x1, peak)
        parts.append(path([frame.at(peak / bandwidth, peak), (x, y)], "roof"))
        parts.append(words(x - 4, y - 5, f"{name} {rate_of(peak)} GFLOP/s", class_="roofname", anchor="end"))
    return parts


def _dot(dot: _Dot, frame: _Frame, total_ms: float) -> Html:
    node = dot.node
    part = node.median_ms / total_ms if total_ms else 0.0
    x, y = frame.at(dot.intensity, dot.gflops)
    told = f"{node.label}: {time_of(node.median_ms)}, {rate_of(dot.gflops)} GFLOP/s, {dot.intensity:.3g} operations on each byte"
    if node.fraction is not None:
        told += f", {100 * node.fraction:.0f} % of the roofline"
    circle = tag("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=f"{3 + 14 * math.sqrt(part):.1f}")
    return tag("a", joined((tag("title", told), circle)), href=f"#n{node.number}", class_=f"by-{node.bound_by or 'unknown'}")

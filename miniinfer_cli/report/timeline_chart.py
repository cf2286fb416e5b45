"""What a few inferences did when, as bars on a line for each track."""

from collections.abc import Sequence

from miniinfer_cli.report.document import Result, Span
from miniinfer_cli.report.figures import shortened, time_of
from miniinfer_cli.report.markup import Html, joined, tag
from miniinfer_cli.report.svg import line, ticks, words

_INFERENCES = 4  # shown of each stream
_STREAMS = 4
_SHADES = 4  # by which inferences differ
_LEFT, _WIDTH, _ROW, _TOP = 96.0, 1000.0, 26.0, 22.0
_LETTER = 6.0  # of a label, about so wide
_NAMED = 48.0  # a bar as wide as that has its name in it
_NODES = "nodes"
_ORDER = ("host", "H2D", "compute", "D2H")


def timeline_chart(result: Result) -> Html | None:
    """The first inferences of the first streams, and the one that was timed node by node; None where none were recorded."""
    nodes = [s for s in result.spans if s.track == _NODES]
    spans = [s for s in result.spans if s.inference < _INFERENCES and s.stream < _STREAMS and s.track != _NODES]
    parts = [_picture(spans, "Timeline"), tag("p", _legend(result, spans), class_="muted")] if spans else []
    parts += [tag("h3", "Node by node"), _picture(nodes, "Nodes of an inference")] if nodes else []
    return tag("div", *parts) if parts else None


def _picture(spans: Sequence[Span], name: str) -> Html:
    """A line for each track of each stream, over one axis of time."""
    lanes = sorted({(s.stream, s.track) for s in spans}, key=lambda at: (at[0], _rank(at[1])))
    begin = min(s.begin_us for s in spans)
    length = max(s.begin_us + s.length_us for s in spans) - begin or 1.0
    scale = (_WIDTH - _LEFT - 12) / length
    several = len({stream for stream, _ in lanes}) > 1
    bottom = _TOP + _ROW * len(lanes)
    parts: list[Html] = []
    for tick in ticks(length):
        x = _LEFT + tick * scale
        parts += [line(x, _TOP, x, bottom, "grid"), words(x, _TOP - 7, time_of(tick / 1e3), class_="tick", anchor="middle")]
    for row, (stream, track) in enumerate(lanes):
        y = _TOP + row * _ROW
        told = f"{track} {stream}" if several else track
        parts.append(words(_LEFT - 8, y + _ROW / 2 + 4, told, class_="lane", anchor="end"))
        found = [s for s in spans if (s.stream, s.track) == (stream, track)]
        parts += [_bar(s, _LEFT + (s.begin_us - begin) * scale, y, s.length_us * scale) for s in found]
    view = f"0 0 {_WIDTH:g} {bottom + 6:g}"
    return tag("div", tag("svg", *parts, viewBox=view, class_="timeline", role="img", aria_label=name), class_="wide")


def _rank(track: str) -> tuple[int, str]:
    return (_ORDER.index(track) if track in _ORDER else len(_ORDER), track)


def _bar(span: Span, x: float, y: float, width: float) -> Html:
    parts = [
        tag("title", f"{span.name}: {time_of(span.length_us / 1e3)}, inference {span.inference}"),
        tag("rect", x=f"{x:.2f}", y=f"{y + 3:.1f}", width=f"{max(width, 0.4):.2f}", height=f"{_ROW - 6:g}", rx=2),
    ]
    if width >= _NAMED:
        parts.append(words(x + 5, y + _ROW / 2 + 4, shortened(span.name, int((width - 8) / _LETTER))))
    shade = f"i{span.inference % _SHADES}" + (" odd" if span.node is not None and span.node % 2 else "")
    return tag("g", joined(parts), class_=shade)


def _legend(result: Result, spans: Sequence[Span]) -> str:
    count = max(s.inference for s in spans) + 1
    told = f"The first {count} inferences of those that were recorded behind the measured ones; each has its colour."
    if result.clock_error_us:
        told += f" The device's tracks may be off by {result.clock_error_us:.3g} µs beside the host's."
    return told

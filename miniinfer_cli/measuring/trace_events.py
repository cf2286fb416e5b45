"""A timeline in the trace event format, which Perfetto (ui.perfetto.dev) and chrome://tracing show.

The format: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU. A stream is a process there, a
track one of its threads; what belongs to one inference is tied by arrows from track to track.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

from miniinfer_cli.measuring.timeline import Span, Timeline, Track

_THREADS = {track: number for number, track in enumerate(Track)}


def trace_events(timeline: Timeline, device: str, about: Mapping[str, Any]) -> dict[str, Any]:
    """The document: complete events in microseconds, names of processes and threads, and arrows.

    ``about``: what was run, how and where; it stands under ``otherData``.
    """
    events = [*_names(timeline.spans, device), *map(_complete, timeline.spans), *_arrows(timeline.spans)]
    more = {**about, "clock_error_us": timeline.clock_error_us}
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": more}


def _names(spans: Iterable[Span], device: str) -> Iterator[dict[str, Any]]:
    """Metadata events: what processes and threads are called, and their order."""
    for stream, track in sorted({(s.stream, s.track) for s in spans}, key=lambda at: (at[0], _THREADS[at[1]])):
        place = {"ph": "M", "pid": stream, "tid": _THREADS[track]}
        if track is Track.HOST:
            yield {**place, "name": "process_name", "args": {"name": f"stream {stream} on {device}"}}
            yield {**place, "name": "process_sort_index", "args": {"sort_index": stream}}
        yield {**place, "name": "thread_name", "args": {"name": str(track)}}
        yield {**place, "name": "thread_sort_index", "args": {"sort_index": _THREADS[track]}}


def _place(span: Span) -> dict[str, Any]:
    return {"pid": span.stream, "tid": _THREADS[span.track], "cat": str(span.track)}


def _complete(span: Span) -> dict[str, Any]:
    args = {"inference": span.inference, **({} if span.node is None else {"node": span.node})}
    return {"ph": "X", "name": span.name, **_place(span), "ts": span.begin_us, "dur": span.length_us, "args": args}


def _arrows(spans: Iterable[Span]) -> Iterator[dict[str, Any]]:
    """From the call that enqueues an inference through copies and computation; none where nothing is enqueued."""
    parts = sorted((s for s in spans if s.node is None and s.name != "wait"), key=lambda s: (s.stream, s.inference))
    for (stream, inference), found in groupby(parts, key=lambda s: (s.stream, s.inference)):
        way = sorted(found, key=lambda s: _THREADS[s.track])
        for number, span in enumerate(way if len(way) > 1 else ()):
            phase = "s" if number == 0 else "f" if number == len(way) - 1 else "t"
            arrow = {"ph": phase, "name": "inference", **_place(span), "ts": span.begin_us, "id": f"{stream}.{inference}"}
            yield {**arrow, "cat": "inference", **({"bp": "e"} if phase == "f" else {})}

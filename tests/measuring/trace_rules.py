"""What a document in the trace event format must hold, so that Perfetto and chrome://tracing take all of it."""

import json
import math
from collections import defaultdict
from typing import Any

_NAMES = {"process_name": "name", "thread_name": "name", "process_sort_index": "sort_index", "thread_sort_index": "sort_index"}


def check_trace(document: Any, *, one_clock: bool = True) -> dict[tuple[int, int], list[dict[str, Any]]]:
    """The complete events by process and thread, in order. Raises AssertionError where a rule is broken.

    ``one_clock``: arrows must not lead back in time, which only holds where host and device tell the same time.
    """
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert set(document) <= {"traceEvents", "displayTimeUnit", "otherData"} and document["displayTimeUnit"] in ("ms", "ns")
    tracks: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    named: set[tuple[int, int]] = set()
    arrows: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for event in document["traceEvents"]:
        place = (event["pid"], event["tid"])
        assert all(type(n) is int for n in place) and isinstance(event["name"], str)
        match event["ph"]:
            case "M":
                assert list(event["args"]) == [_NAMES[event["name"]]]
                if event["name"] == "thread_name":
                    assert place not in named, "a track is named twice"
                    named.add(place)
            case "X":
                assert all(math.isfinite(event[k]) and event[k] >= 0 for k in ("ts", "dur"))
                tracks[place].append(event)
            case "s" | "t" | "f":
                arrows[event["cat"], event["name"], event["id"]].append(event)
            case other:
                raise AssertionError(f"an event of phase {other!r}")
    assert set(tracks) == named, "a track without a name, or a name without a track"
    for events in tracks.values():
        _check_nesting(events)
    for arrow in arrows.values():
        phases = "".join(e["ph"] for e in arrow)
        assert phases[0] + phases[-1] == "sf" and set(phases[1:-1]) <= {"t"}, phases
        assert not one_clock or [e["ts"] for e in arrow] == sorted(e["ts"] for e in arrow), "an arrow back in time"
        for end in arrow:
            around = tracks[end["pid"], end["tid"]]
            assert any(e["ts"] <= end["ts"] <= e["ts"] + e["dur"] for e in around), "an arrow that hangs in the air"
    return dict(tracks)


def _check_nesting(events: list[dict[str, Any]]) -> None:
    """Of two events of one track the later one lies within the earlier, or behind it."""
    events.sort(key=lambda e: (e["ts"], -e["dur"]))
    around: list[int] = []
    for event in events:
        begin, end = (round(1000 * t) for t in (event["ts"], event["ts"] + event["dur"]))
        while around and around[-1] <= begin:
            around.pop()
        assert not around or end <= around[-1], f"{event['name']} overlaps what it does not lie in"
        around.append(end)

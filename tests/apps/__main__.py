"""Each program three times: over onnxruntime, over miniinfer for the first time, and again with the plans that it left.

    python -m tests.apps [NAME ...] [--json FILE]

Results must be the same: texts and labels as they are, boxes to a pixel, scores to 0.01. All on one processor; times are the
processor's. What the times should be (docs/onnxruntime.md) is printed, and judged with ``--judge``.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.apps.program import PROGRAMS

PROGRAM = Path(__file__).parent / "program.py"
MOST, FIRST_S, LATER_S = 1.5, 5.0, 0.5


def run(name: str, cache: str, *, shim: bool) -> dict[str, Any]:
    """What a program prints, on one processor."""
    line = [sys.executable, str(PROGRAM), name]
    if shim:
        line = [sys.executable, "-m", "miniinfer_cli", "ort-shim", "--", *line]
    environment = {
        **os.environ,
        "PYTHONDONTWRITEBYTECODE": "",
        "MINIINFER_CACHE": cache,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    one = {min(os.sched_getaffinity(0))}
    ended = subprocess.run(
        line, capture_output=True, text=True, env=environment, check=False, preexec_fn=lambda: os.sched_setaffinity(0, one)
    )
    if ended.returncode:
        raise SystemExit(f"{name}: exit code {ended.returncode}\n{ended.stderr[-3000:]}")
    told: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    assert told["over"] == ("miniinfer_cli.ort" if shim else "onnxruntime"), told["over"]
    return told


def same(one: Any, other: Any) -> bool:
    """Equal, but for boxes (to a pixel) and scores (to 0.01)."""
    if isinstance(one, dict) and isinstance(other, dict) and set(one) == set(other):
        close = {"box": 1.0, "near": 0.01}
        return all(_close(one[k], other[k], close[k]) if k in close else same(one[k], other[k]) for k in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def _close(one: Any, other: Any, by: float) -> bool:
    if isinstance(one, list):
        return len(one) == len(other) and all(_close(a, b, by) for a, b in zip(one, other, strict=True))
    return math.isclose(one, other, abs_tol=by)


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=[])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--judge", action="store_true")
    options = parser.parse_args()
    failed, figures = [], {}
    for name in options.names or PROGRAMS:
        with tempfile.TemporaryDirectory() as cache:
            theirs = run(name, cache, shim=False)
            first, later = run(name, cache, shim=True), run(name, cache, shim=True)
        wrong = [i for i, (a, b, c) in enumerate(zip(theirs["results"], first["results"], later["results"], strict=True))
                 if not (same(a, b) and same(b, c))]  # fmt: skip
        found = sum(bool(r) for r in theirs["results"])
        ratio = median(later["seconds"]) / median(theirs["seconds"])
        more_first, more_later = (run["first_s"] - theirs["first_s"] for run in (first, later))
        figures[name] = {
            "inputs": len(theirs["results"]), "with results": found, "different": len(wrong), "ratio": round(ratio, 2),
            "onnxruntime_ms": round(median(theirs["seconds"]) * 1e3, 2), "miniinfer_ms": round(median(later["seconds"]) * 1e3, 2),
            "first_s": round(more_first, 2), "later_s": round(more_later, 2),
        }  # fmt: skip
        print(f"{name}: {figures[name]}", flush=True)
        for i in wrong[:3]:
            print(f"  input {i}: onnxruntime {theirs['results'][i]}\n           miniinfer   {first['results'][i]}")
        slow = ratio > MOST or more_first > FIRST_S or more_later > LATER_S
        failed += [name] if wrong or not found or (slow and options.judge) else []
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1))
    if failed:
        raise SystemExit(f"not as with onnxruntime: {', '.join(failed)}")


if __name__ == "__main__":
    main()

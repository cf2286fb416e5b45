"""What ``enable_profiling`` writes: a file of trace events, of sessions, runs and their nodes, as onnxruntime's is read."""

import json
import os
import threading
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from miniinfer_cli.backends.interface import Step


class Profile:
    """Events since it was made, in microseconds; ``end`` writes them."""

    def __init__(self, prefix: str) -> None:
        self.started_ns = time.perf_counter_ns()
        now = datetime.now()
        self.path = f"{prefix}_{now:%Y-%m-%d_%H-%M-%S}_{now.microsecond // 1000:03}.json"
        self._events: list[dict[str, Any]] = []
        self._lock = threading.Lock()

    def add_session(self, name: str, since_ns: int) -> None:
        """Something of the session that began at ``since_ns`` and ends now."""
        self._add("Session", name, since_ns, time.perf_counter_ns() - since_ns, {})

    def add_run(self, provider: str, since_ns: int, steps: Sequence[Step], times_ns: Sequence[int]) -> None:
        """A run that began at ``since_ns`` and ends now, with what each of its steps took."""
        until = time.perf_counter_ns()
        at = until - sum(times_ns)
        for number, (step, took) in enumerate(zip(steps, times_ns, strict=True)):
            described = {"op_name": step.kind, "provider": provider, "node_index": str(number), "tactic": step.tactic}
            self._add("Node", f"{step.label}_kernel_time", at, took, described)
            at += took
        self._add("Session", "model_run", since_ns, until - since_ns, {})

    def end(self) -> str:
        """Writes the file, in the current folder where the prefix names none, and gives its path."""
        with self._lock:
            Path(self.path).write_text(json.dumps(self._events))
        return self.path

    def _add(self, category: str, name: str, since_ns: int, took_ns: int, described: dict[str, Any]) -> None:
        event = {
            "cat": category, "pid": os.getpid(), "tid": threading.get_native_id(), "dur": took_ns // 1000,
            "ts": (since_ns - self.started_ns) // 1000, "ph": "X", "name": name, "args": described,
        }  # fmt: skip
        with self._lock:
            self._events.append(event)

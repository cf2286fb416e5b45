"""What a program asks of onnxruntime: the inputs of each call, by the digest of the model that it calls."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

KEPT = 2
"""Calls that are kept of a model: the last ones. Some programs begin with one of zeros, to warm up."""

TYPES = {"tensor(int32)": np.int32, "tensor(int64)": np.int64, "tensor(float)": np.float32}
"""Of numpy, by onnxruntime's names: it takes lists, and makes them what the model wants."""

Calls = dict[str, list[dict[str, Any]]]
"""Inputs by name, of the calls of each model."""


@contextmanager
def recorded() -> Iterator[Calls]:
    """Inside, every session of onnxruntime's computes with one thread and leaves a copy of what it was given.

    A program has to be imported inside: most take the class of sessions when they are imported.
    """
    calls: Calls = {}
    original = onnxruntime.InferenceSession

    class Session(original):
        def __init__(self, model: Any, sess_options: Any = None, *more: Any, **named: Any) -> None:
            options = sess_options if sess_options is not None else onnxruntime.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = 1
            named["providers"] = ["CPUExecutionProvider"]
            super().__init__(model if isinstance(model, bytes) else str(model), options, **named)
            contents = model if isinstance(model, bytes) else Path(model).read_bytes()
            self._calls = calls.setdefault(hashlib.sha256(contents).hexdigest(), [])
            self._types = {i.name: TYPES.get(i.type) for i in self.get_inputs()}

        def run(self, output_names: Any, input_feed: Any, run_options: Any = None) -> Any:
            self._calls.append({name: np.array(value, self._types[name]) for name, value in input_feed.items()})
            del self._calls[:-KEPT]
            return super().run(output_names, input_feed, run_options)

    onnxruntime.InferenceSession = Session
    try:
        yield calls
    finally:
        onnxruntime.InferenceSession = original


def calls_of(program: Callable[[], None]) -> Calls:
    """What ``program`` asks of each model."""
    with recorded() as calls:
        program()
    return calls

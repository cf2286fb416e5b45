"""One model: its plan's numbers beside ONNX Runtime's on recorded inputs, and the processor's time of both with one thread."""

import contextlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

import miniinfer_cli
from engine_format import Plan
from miniinfer_cli.errors import MiniinferError
from miniinfer_cli.verification import OutputError, verify_plan
from tests.wild.double import in_double
from tests.wild.models import Model

SECONDS, LEAST_RUNS, MOST_RUNS = 2.0, 5, 300
Feeds = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """``error``: the worst output's, relative; ``tolerance``: what that one may have; ``wrong``: why it is no equal, or empty.

    ``note``: what a third opinion says of an error beyond the tolerance, or empty. Times are milliseconds of the processor,
    medians; 0 where it is wrong.
    """

    model: Model
    shapes: str
    oracle: str = ""
    error: float = 0.0
    tolerance: float = 0.0
    wrong: str = ""
    note: str = ""
    build_s: float = 0.0
    ours_ms: float = 0.0
    theirs_ms: float = 0.0

    @property
    def ratio(self) -> float:
        """Our time over ONNX Runtime's."""
        return self.ours_ms / self.theirs_ms if self.theirs_ms else 0.0


def measured(model: Model, path: Path, calls: Sequence[Feeds], *, seconds: float = SECONDS) -> Row:
    """Compares on all ``calls``, and times the last."""
    shapes = ", ".join("x".join(map(str, a.shape)) or "scalar" for a in calls[-1].values())
    started = time.perf_counter()
    try:
        plan = miniinfer_cli.build(path)
    except MiniinferError as error:
        return Row(model, shapes, wrong=f"refused: {_line(error)}")
    build_s = time.perf_counter() - started
    found = [verify_plan(str(path), plan, feeds) for feeds in calls]
    outputs = [(o, feeds) for verification, feeds in zip(found, calls, strict=True) for o in verification.outputs]
    wrong = [size.failure or size.passed_over for v in found for size in v.sizes if not size.outputs]
    note = ""
    for output, feeds in outputs:
        if not output.ok or output.says_nothing or output.relative > output.tolerance > 0:
            reason, note = judged(path, plan, output, feeds)
            wrong += [reason] if reason else []
    worst = max((o for o, _ in outputs), key=lambda o: o.relative / (o.tolerance or 1e-9), default=None)
    if worst is None or wrong:
        error, tolerance = (worst.relative, worst.tolerance) if worst else (0.0, 0.0)
        return Row(model, shapes, found[0].oracle, error, tolerance, (wrong or ["nothing was compared"])[0])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    with miniinfer_cli.load(plan, "cpu", threads=1) as engine:
        feeds = dict(calls[-1])
        ours, theirs = in_turns((lambda: engine.run(feeds), lambda: session.run(None, feeds)), seconds)
    return Row(model, shapes, found[0].oracle, worst.relative, worst.tolerance, "", note, build_s, ours * 1e3, theirs * 1e3)


def judged(path: Path, plan: Plan, output: OutputError, feeds: Feeds) -> tuple[str, str]:
    """Of an output that is further from ONNX Runtime's than its tolerance: why it is wrong, and what the table is to say.

    It is right where it is within the tolerance of the model in float64, or where ONNX Runtime's own leaps as far.
    """
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    theirs = session.run([output.name], dict(feeds))[0]
    with miniinfer_cli.load(plan, "cpu", threads=1) as engine:
        ours = engine.run(dict(feeds))[output.name]
    with contextlib.suppress(Exception):  # operators that ONNX's evaluator does not know, and all that it stumbles over
        exact = in_double(onnx.load(path), feeds)[output.name]
        off, of_theirs = apart(ours, exact), apart(theirs, exact)
        if off <= output.tolerance:
            return "", f"in float64 ours is off by {off:.0e}, ONNX Runtime's by {of_theirs:.0e}"
    own = leap(path, output.name, feeds)
    if output.relative <= 2 * own:
        return "", f"ONNX Runtime's own leaps by {own:.0e} when inputs change in their last bits"
    return (
        f"{output.name}: off by {output.relative:.1e} (allowed {output.tolerance:.0e}; ONNX Runtime's own leaps by {own:.0e})",
        "",
    )


def apart(one: Any, other: Any) -> float:
    """The norm of the difference, relative."""
    wide = np.asarray(other, np.float64)
    return float(np.linalg.norm(np.asarray(one, np.float64) - wide) / (np.linalg.norm(wide) or 1.0))


def leap(path: Path, name: str, feeds: Feeds) -> float:
    """By how much ONNX Runtime's own output leaps when its inputs change in the last bit, or its optimizations are left out.

    The greatest of nine tries, relative. Where numbers are rounded to 8 bits layer after layer, or logarithms taken of what is
    nearly nothing, that is far more than a rounding; nobody can tell then which of two answers is the better.
    """
    results = []
    rng = np.random.default_rng(0)
    for level in (onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL, onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = level
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        results.append(session.run([name], dict(feeds))[0].astype(np.float64))
    for _ in range(8):
        nudged = {k: np.nextafter(a, rng.choice([-np.inf, np.inf], a.shape).astype(a.dtype)) if a.dtype.kind == "f" else a
                  for k, a in feeds.items()}  # fmt: skip
        results.append(session.run([name], nudged)[0].astype(np.float64))
    plain = results.pop(1)
    return max(apart(other, plain) for other in results)


def in_turns(works: Sequence[Callable[[], Any]], seconds: float) -> list[float]:
    """Seconds of the processor that each takes, medians of runs in turns, after two that warm up."""
    for work in works:
        work()
        work()
    times: list[list[float]] = [[] for _ in works]
    until = time.perf_counter() + seconds
    while len(times[0]) < LEAST_RUNS or (time.perf_counter() < until and len(times[0]) < MOST_RUNS):
        for work, spent in zip(works, times, strict=True):
            started = time.process_time()
            work()
            spent.append(time.process_time() - started)
    return [statistics.median(spent) for spent in times]


def _line(error: BaseException) -> str:
    return str(error).partition("\n")[0]

"""What ONNX Runtime says of a model that was accepted: in a forked child, as it may crash or never end."""

import os
import pickle
import resource
import select
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import miniinfer_cli
from miniinfer_cli.errors import MiniinferError
from miniinfer_cli.runtime.random_inputs import random_inputs
from miniinfer_cli.verification.comparison import compare

_LIMIT_S = 20.0
_ROOM = 2 << 30
_TOLERANCE = 1e-3  # the widest type of a model's own arithmetic is not looked for here: --verify does that
_NATIVE = "biufcO"


def difference(model: Path, plan: Path, seed: int) -> str:
    """How the plan's outputs differ from ONNX Runtime's on the same inputs; "" where they do not, or one of them refuses."""
    try:
        with miniinfer_cli.load(plan, device="cpu") as engine:
            feeds = random_inputs(engine.inputs, engine.ranges, {}, {}, seed)
            names = [b.name for b in engine.outputs]
            got = engine.run(feeds)
    except MiniinferError:
        return ""
    if any(np.asarray(v).dtype.kind not in _NATIVE for v in feeds.values()):
        return ""
    expected = _ask(model, feeds, names)
    if isinstance(expected, str):
        return expected if expected.startswith("!") else ""
    for name, want in zip(names, expected, strict=True):
        compared = compare(name, got[name], want, _TOLERANCE)
        if not compared.ok:
            return f"output {name!r}: {compared.reason or f'off by {compared.relative:.2g}'}"
    return ""


def _ask(model: Path, feeds: Mapping[str, Any], names: list[str]) -> Any:
    """Its outputs, or a text: why it gives none."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + _ROOM,) * 2)
        try:
            answer = _run(model, feeds, names)
        except BaseException as error:  # its errors have no base class of their own
            answer = f"{type(error).__name__}: {error}"
        try:
            with os.fdopen(write, "wb") as pipe:
                pickle.dump(answer, pipe)
        finally:
            os._exit(0)
    os.close(write)
    chunks, ends = [], time.monotonic() + _LIMIT_S
    while select.select([read], [], [], max(0.0, ends - time.monotonic()))[0]:
        chunk = os.read(read, 1 << 20)
        if not chunk:
            break
        chunks.append(chunk)
    else:
        os.kill(child, signal.SIGKILL)
    os.close(read)
    os.waitpid(child, 0)
    try:
        return pickle.loads(b"".join(chunks))
    except (EOFError, pickle.UnpicklingError):
        return "it crashed, or took too long"


def _run(model: Path, feeds: Mapping[str, Any], names: list[str]) -> list[Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    wanted = {i.name for i in session.get_inputs()}
    return list(session.run(names, {k: v for k, v in feeds.items() if k in wanted}))

"""What the benchmarks beside PyTorch share: exports, a network on the GPU with its exact outputs, and wall time per inference."""

import multiprocessing
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from miniinfer_cli.runtime.context import Context
from tests.benchmarks import torch_models


def export_all(names: list[str], dtypes: list[str], folder: Path) -> set[tuple[str, str]]:
    """Every export in a process of its own, several at a time: exporting takes seconds of one processor.

    Gives those that this release of PyTorch cannot export, which are told and left out.
    """
    jobs = sorted({(name, torch_models.EXPORTED[dtype]) for name in names for dtype in dtypes})
    with multiprocessing.get_context("spawn").Pool(min(len(jobs), 8)) as pool:
        done = pool.starmap(_export, [(name, dtype, str(folder / f"{name}_{dtype}.onnx")) for name, dtype in jobs])
    return {job for job, made in zip(jobs, done, strict=True) if not made}


def _export(name: str, dtype: str, path: str) -> bool:
    if not Path(path).exists():
        command = [sys.executable, "-m", "tests.benchmarks.torch_models", name, dtype, path]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{' '.join(command)}: {done.stderr[-500:]}", flush=True)
    return Path(path).exists()


def on_the_gpu(name: str, batch: int, dtype: str) -> tuple[Any, dict[str, Any], Any]:
    """The network and its inputs on the GPU in the type that is exported for ``dtype``, and its outputs in f32 without TF32.

    Leaves PyTorch with TF32 as ``dtype`` asks.
    """
    import torch

    model, feeds = torch_models.make(name, batch)
    model, feeds = model.cuda(), {k: v.cuda() for k, v in feeds.items()}
    _allow_tf32(torch, False)
    with torch.inference_mode():
        reference = torch_models.first(model(**feeds)).double().cpu().numpy()
    _allow_tf32(torch, dtype == "tf32")
    return *torch_models.in_dtype(model, feeds, torch_models.EXPORTED[dtype]), reference


def _allow_tf32(torch: Any, allowed: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def captured(torch: Any, model: Any, feeds: dict[str, Any]) -> Callable[[], None]:
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            model(**feeds)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        model(**feeds)
    replay: Callable[[], None] = graph.replay
    return replay


def wall(work: Callable[[], Any], wait: Callable[[], Any]) -> float:
    """Median over a few rounds of K calls and one wait, divided by K, in ms; K fills about 50 ms."""
    for _ in range(3):
        work()
    wait()
    started = time.perf_counter()
    work()
    wait()
    count = max(3, min(500, int(0.05 / max(time.perf_counter() - started, 1e-6))))
    rounds = []
    for _ in range(7):
        started = time.perf_counter()
        for _ in range(count):
            work()
        wait()
        rounds.append((time.perf_counter() - started) / count * 1e3)
    return statistics.median(rounds)


class Replays:
    """Inferences on what is on the device, one behind the other."""

    def __init__(self, context: Context, arrays: list[Any]) -> None:
        self._context = context
        self._arrays = arrays
        self._last: Any = None

    def start(self) -> None:
        self._last = self._context.start(self._arrays, transfers=False)

    def wait(self) -> None:
        self._last.wait()

    def start_and_wait(self) -> None:
        self.start()
        self.wait()


def error_of(got: Any, want: Any) -> float:
    import numpy as np

    return float(np.linalg.norm(got.reshape(-1) - want.reshape(-1)) / np.linalg.norm(want))

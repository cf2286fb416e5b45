"""miniinfer beside its peers on a GPU: the same network in one process, outputs compared, several processes a cell.

    python -m tests.benchmarks.peers [--model NAME ...] [--dtype f16 tf32] [--batch 1 8 64] [--part K/N] [--processes 3]
                                     [--workers 1] [--max-autotune] [--skip PEER ...] [--out FOLDER]
    python -m tests.benchmarks.peers --join FOLDER ...

Peers: PyTorch eager, PyTorch in a CUDA graph, torch.compile (reduce-overhead; max-autotune where asked for), and ONNX Runtime on
its CUDA provider with a graph where it is installed. "Wall per inference" as in gpu.py: calls back to back and one wait, inputs
and outputs on the device. A cell is measured in ``--processes`` processes, in turns with the other cells, and its figures are the
medians of these. With ``--workers`` so many make everything ready together; then each is timed while no other uses the GPU.
What has been measured is in the folder after each process. ``--part K/N`` takes each N-th network; ``--join`` makes one table of
the folders of several parts.

Beside the best peer stands the floor: the longer of all operations at the device's peak and all bytes at its bandwidth, by the
estimates of the program's own tactics. A peer that was the best one on an H200 before and is not in the run is told: without it
nobody knows who is ahead. Exit code 1 where outputs differ by more than they may, or a cell has no peer at all.
"""

import argparse
import datetime
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from miniinfer_cli.runtime.engine import Engine
from tests.benchmarks import torch_models
from tests.benchmarks.beside_torch import Replays, captured, error_of, export_all, on_the_gpu, wall
from tests.benchmarks.peers_table import faults_of, floor_ms, line_of, merged, table_of

NETWORKS = ("bert_base", "vit_b_16", "gpt2", "bert_base_s384", "resnet50", "mobilenet_v2", "efficientnet_b0")
_RATES = {"f16": "matrix f16", "bf16": "matrix bf16", "tf32": "matrix tf32", "f32": "vector f32"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=list(NETWORKS), help="of these, unet, yolo, or of torchvision's")
    parser.add_argument("--dtype", nargs="+", choices=tuple(_RATES), default=["f16", "tf32"])
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8, 64])
    parser.add_argument("--part", default="1/1", help="K/N: each N-th network from the K-th on")
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1, help="processes side by side, of which one at a time is timed")
    parser.add_argument("--max-autotune", action="store_true", help="torch.compile that way as well: minutes a cell")
    parser.add_argument("--skip", nargs="+", default=[], choices=("eager", "graph", "compile"), help="peers that are left out")
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks"))
    parser.add_argument("--one", nargs=3, metavar=("MODEL", "DTYPE", "BATCH"), help=argparse.SUPPRESS)
    parser.add_argument("--join", nargs="+", type=Path, help="folders of parts, whose rows become one table")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.one:
        name, dtype, batch = options.one
        print(json.dumps(measure(name, dtype, int(batch), options.out, autotune=options.max_autotune, skip=options.skip)))
        return 0
    if options.join:
        rows = [row for folder in options.join for row in json.loads((folder / "peers.json").read_text())]
    else:
        rows = run_all(options)
    _keep(options.out, rows)
    print(table_of(rows))
    for fault in (faults := faults_of(rows)):
        print(fault)
    return 1 if faults else 0


def run_all(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The cells of this part, each a row of medians over processes."""
    networks = part_of(options.model, options.part)
    folder = options.out / "exports"
    folder.mkdir(exist_ok=True)
    missing = export_all(networks, options.dtype, folder)
    cells = [
        (n, d, b) for n in networks for d in options.dtype if (n, torch_models.EXPORTED[d]) not in missing for b in options.batch
    ]
    found: dict[tuple[str, str, int], list[dict[str, Any]]] = {cell: [] for cell in cells}
    turns = cells * options.processes
    with ThreadPoolExecutor(options.workers) as pool:
        for begin in range(0, len(turns), options.workers):  # who came in between would keep the others waiting
            together = turns[begin : begin + options.workers]
            for cell, done in zip(together, pool.map(lambda cell: _of_one(options, cell), together), strict=True):
                if done.returncode:
                    print(f"{cell}: {done.stderr.strip().splitlines()[-1:]}", flush=True)
                    continue
                found[cell].append(json.loads(done.stdout.splitlines()[-1]))
                print(line_of(found[cell][-1]), flush=True)
                _keep(options.out, [merged(rows) for rows in found.values() if rows])
    return [merged(rows) for rows in found.values() if rows]


def _keep(out: Path, rows: list[dict[str, Any]]) -> None:
    (out / "peers.json").write_text(json.dumps(rows, indent=2) + "\n")
    (out / "peers.md").write_text(table_of(rows))


def _of_one(options: argparse.Namespace, cell: tuple[str, str, int]) -> subprocess.CompletedProcess[str]:
    """A process for one cell, ended."""
    command = [sys.executable, "-m", "tests.benchmarks.peers", "--out", str(options.out), "--one", *map(str, cell)]
    threads = str(max(1, len(os.sched_getaffinity(0)) // options.workers))
    return subprocess.run(
        [*command, *["--max-autotune"] * options.max_autotune, *(["--skip", *options.skip] if options.skip else [])],
        capture_output=True, text=True, check=False, env=os.environ | {"TORCHINDUCTOR_COMPILE_THREADS": threads},
    )  # fmt: skip


@contextmanager
def _on_gpu(out: Path, *, alone: bool) -> Iterator[None]:
    """Uses the GPU beside others who measure into this folder, or alone, while they wait."""
    with (out / "gpu.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield


def part_of(names: Sequence[str], part: str) -> list[str]:
    """The K-th of N parts of the names, by ``K/N``. Raises ValueError for anything else."""
    k, _, n = part.partition("/")
    if not (k.isdecimal() and n.isdecimal() and 1 <= int(k) <= int(n)):
        raise ValueError(f"part: expected K/N with K from 1 to N, got {part!r}")
    return list(names[int(k) - 1 :: int(n)])


@dataclass(frozen=True, slots=True)
class _Ready:
    """What is to be timed: one inference is enqueued by ``call``, and all are done after ``wait``."""

    call: Callable[[], Any]
    wait: Callable[[], Any]


def measure(
    name: str, dtype: str, batch: int, out: Path, *, autotune: bool = False, skip: Collection[str] = ()
) -> dict[str, Any]:
    """A cell in this process, its exports in ``out``: errors, and ms for each peer that runs; why another does not."""
    import torch

    path = out / "exports" / f"{name}_{torch_models.EXPORTED[dtype]}.onnx"
    with ExitStack() as stack, torch.inference_mode():
        with _on_gpu(out, alone=False):
            model, feeds, reference = on_the_gpu(name, batch, dtype)
            arrays = {k: torch_models.to_numpy(v) for k, v in feeds.items()}
            row: dict[str, Any] = {
                "model": name, "dtype": dtype, "batch": batch, "device": torch.cuda.get_device_name(),
                "date": datetime.datetime.now(datetime.UTC).date().isoformat(), "versions": _versions(),
                "ms": {}, "error": {}, "failed": {},
            }  # fmt: skip
            ready: dict[str, _Ready] = {}
            for peer, work in _torch_peers(torch, model, feeds, autotune):
                with _told(row, peer):
                    if peer in skip:
                        raise RuntimeError("left out")
                    call = work()
                    row["error"][peer] = error_of(torch_models.first(call()).double().cpu().numpy(), reference)
                    ready[peer] = _Ready(call, torch.cuda.synchronize)
            for peer, in_graph in (("ort", False), ("ort graph", True)):
                with _told(row, peer):
                    session = _OnnxRuntime(path, arrays, in_graph)
                    row["error"][peer] = error_of(np.asarray(session(), np.float64), reference)
                    ready[peer] = _Ready(session.again, session.wait)
            ours = _plan(row, path, arrays, reference, stack)
            ready["miniinfer"] = _Ready(ours.replay.start, ours.replay.wait)
            torch.cuda.synchronize()
        with _on_gpu(out, alone=True):
            for peer, one in ready.items():
                with _told(row, peer):
                    row["ms"][peer] = wall(one.call, one.wait)
            row["waiting_ms"] = wall(ours.replay.start_and_wait, ours.replay.wait)
            row["floor_ms"] = _floor_ms(ours.engine, ours.program, dtype)
    return row


@dataclass(frozen=True, slots=True)
class _Ours:
    engine: Engine
    program: Any
    replay: Replays


def _plan(row: dict[str, Any], path: Path, arrays: Mapping[str, Any], reference: Any, stack: ExitStack) -> _Ours:
    """Ours, captured; what it makes of the inputs is compared."""
    import miniinfer_cli

    plan = miniinfer_cli.build(path, tf32=row["dtype"] != "f32")
    engine = stack.enter_context(miniinfer_cli.load(plan, "cuda:0"))
    outputs = engine.run(arrays)
    row["error"]["miniinfer"] = error_of(next(iter(outputs.values())).astype(np.float64), reference)
    checked = engine.check(arrays)
    program = engine.program(checked)
    row["steps"], row["host_steps"] = len(program.steps), len(program.host_steps)
    context = stack.enter_context(engine.create_context())
    for _ in range(4):
        context.start(list(checked), transfers=False).result()
    return _Ours(engine, program, Replays(context, checked))


def _torch_peers(torch: Any, model: Any, feeds: dict[str, Any], autotune: bool) -> list[tuple[str, Callable[[], Any]]]:
    """Each peer, and what makes its call, which gives the outputs."""
    result: dict[str, Any] = {}

    def graph() -> Callable[[], Any]:
        def kept(**given: Any) -> None:
            result["y"] = model(**given)

        replay = captured(torch, kept, feeds)

        def call() -> Any:
            replay()
            return result["y"]

        return call

    def compiled(mode: str) -> Callable[[], Any]:
        torch.compiler.reset()
        call = partial(torch.compile(model, mode=mode), **feeds)
        for _ in range(5):
            call()
        return call

    peers: list[tuple[str, Callable[[], Any]]] = [
        ("eager", lambda: partial(model, **feeds)),
        ("graph", graph),
        ("compile", partial(compiled, "reduce-overhead")),
    ]
    return [*peers, ("max-autotune", partial(compiled, "max-autotune"))] if autotune else peers


class _OnnxRuntime:
    """Runs a model on ONNX Runtime's CUDA provider with inputs and outputs that stay on the GPU. Raises where it has none."""

    def __init__(self, path: Path, arrays: Mapping[str, Any], in_graph: bool) -> None:
        import onnxruntime

        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise RuntimeError("this ONNX Runtime has no CUDA provider")
        options = {"enable_cuda_graph": "1" if in_graph else "0", "tunable_op_enable": "0"}
        self._session = onnxruntime.InferenceSession(str(path), providers=[("CUDAExecutionProvider", options)])
        self._binding = self._session.io_binding()
        for name, value in arrays.items():
            self._binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(value, "cuda", 0))
        for output in self._session.get_outputs():
            self._binding.bind_output(output.name, "cuda")
        self._options = onnxruntime.RunOptions()
        self._session.run_with_iobinding(self._binding)
        if in_graph:  # outputs keep their places
            for name, value in zip([o.name for o in self._session.get_outputs()], self._binding.get_outputs(), strict=True):
                self._binding.bind_ortvalue_output(name, value)
            for _ in range(3):
                self._session.run_with_iobinding(self._binding)
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def __call__(self) -> Any:
        self.again()
        self.wait()
        return self._binding.copy_outputs_to_cpu()[0]

    def again(self) -> None:
        self._session.run_with_iobinding(self._binding, self._options)

    def wait(self) -> None:
        self._binding.synchronize_outputs()


@contextmanager
def _told(row: dict[str, Any], peer: str) -> Iterator[None]:
    """What fails within is told in the row, and no reason to end."""
    try:
        yield
    except Exception as error:
        row["failed"][peer] = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"
        row["ms"].pop(peer, None)


def _floor_ms(engine: Engine, program: Any, dtype: str) -> float | None:
    """The longer of all operations at the peak, and all bytes at memory's bandwidth; None where a step has no estimate."""
    from miniinfer_cli.devices.ceilings import device_of
    from miniinfer_cli.runtime.cache_folder import default_cache

    device, cache = device_of(engine.device, engine.model.facts()), default_cache()
    best = device.kept(cache) or device.measured(cache)
    estimates = [step.estimate for step in program.steps if step.estimate is not None]
    return floor_ms(
        sum(e.flops for e in estimates), sum(e.nbytes for e in estimates), best.tflops.get(_RATES[dtype]), best.memory_gbps
    )


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("torch", "onnxruntime-gpu", "onnxruntime", "nvidia-cudnn-cu13", "nvidia-cublas", "miniinfer"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    sys.exit(main())

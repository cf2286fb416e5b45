"""How throughput grows with the GPUs of one host: whole batches on each, and a Batcher over them.

    python -m tests.benchmarks.several_gpus [--seconds S] [--batch N] [--switch-ms 5 0.5] [--devices cuda:all]
    python -m tests.benchmarks.several_gpus --processes 1 2 4 [--network resnet50] [--small]

With ``--processes`` so many processes, each with an engine and a Batcher of its own, on one GPU after the other, take in
requests of one image at the same time: what one interpreter does not allow, they do together or not at all. Outputs are compared
with the engine's own first.
"""

import argparse
import contextlib
import gc
import multiprocessing
import sys
import tempfile
import threading
import time
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import miniinfer_cli
from miniinfer_cli import Batcher
from miniinfer_cli.devices.several import device_names, open_beside
from miniinfer_cli.measuring.benchmark import Schedule, measure_together
from miniinfer_cli.measuring.metrics import summarize
from miniinfer_cli.runtime.engine import Engine
from sample_models.catalogue import generate
from sample_models.request import Request
from tests.benchmarks.batching import requests_of

_UNDER_WAY = 512  # rows of each sender


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument(
        "--switch-ms", type=float, nargs="+", default=[5.0], help="sys.setswitchinterval, while a Batcher is measured"
    )
    parser.add_argument("--devices", default="cuda:all")
    parser.add_argument("--network", default="resnet50")
    parser.add_argument("--small", action="store_true", help="the same structure, a few layers and channels")
    parser.add_argument("--processes", type=int, nargs="+", default=[], help="measure so many processes, and nothing else")
    options = parser.parse_args()
    names = device_names(options.devices)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.plan"
        request = Request("dynamic", "dynamic", small=options.small)
        miniinfer_cli.build(generate(options.network, request, dtype="f16", seed=0), path)
        if options.processes:
            for count in options.processes:
                _processes(path, names, count, options)
            return
        with miniinfer_cli.load(path, "cuda:0") as engine:
            _opening(engine, names)
            alone: dict[str, float] = {}
            for count in range(1, len(names) + 1):
                _whole_batches(engine, names[:count], options, alone)
                for switch_ms in options.switch_ms:
                    sys.setswitchinterval(switch_ms / 1e3)
                    print(f"threads give way after {switch_ms:g} ms:")
                    for rows, senders in ((1, 1), (1, 2), (8, 2)):
                        _batched(engine, names[:count], options, alone, rows, senders)
                sys.setswitchinterval(0.005)


def _opening(engine: Engine, names: tuple[str, ...]) -> None:
    with contextlib.ExitStack() as stack:
        begun = time.perf_counter()
        others = open_beside(engine, names, stack)
        took = time.perf_counter() - begun
        for one in (engine, *others.values()):
            w = one.stats()["weights"]
            source = w["copied_from"] or "the file"
            rate = w["nbytes"] / w["preload_s"] / 1e9
            size, took_ms = w["nbytes"] / 1e6, w["preload_s"] * 1e3
            print(f"{one.device}: {size:.0f} MB of weights from {source} in {took_ms:.1f} ms, {rate:.1f} GB/s")
        print(f"the others were opened in {took:.2f} s")


def _whole_batches(engine: Engine, names: tuple[str, ...], options: argparse.Namespace, alone: dict[str, float]) -> None:
    (binding,) = engine.inputs
    assert binding.shape is not None
    images = np.random.default_rng(0).standard_normal((options.batch, *map(int, binding.shape[1:]))).astype(binding.dtype)
    with contextlib.ExitStack() as stack:
        others = open_beside(engine, names, stack)
        engines = [others.get(name, engine) for name in names]
        for streams in (1, 2):
            schedule = Schedule(iterations=10, warmup_ms=200, duration_s=options.seconds)
            together, each = measure_together(engines, engine.check({binding.name: images}), schedule, streams=streams)
            rates = [summarize(s, options.batch).throughput_qps * options.batch for s in each]
            rate = summarize(together, options.batch).throughput_qps * options.batch
            shown = ", ".join(f"{r:.0f}" for r in rates)
            what = f"{len(names)} GPUs, batch {options.batch}, {streams} streams each"
            print(f"{what}: {rate:.0f} images/s ({shown}){_beside(alone, streams, rate)}")


def _batched(
    engine: Engine, names: tuple[str, ...], options: argparse.Namespace, alone: dict[str, float], rows: int, senders: int
) -> None:
    (binding,) = engine.inputs
    assert binding.shape is not None
    images = np.random.default_rng(0).standard_normal((rows, *map(int, binding.shape[1:]))).astype(binding.dtype)
    request = {binding.name: images}
    with Batcher(engine, options.batch, 2.0, 1 << 16, devices=list(names), batch_sizes=[options.batch]) as batcher:
        batcher.warm_up(request)
        until = time.perf_counter() + options.seconds
        done: list[int] = []

        def send() -> None:
            count, under_way = 0, deque(batcher.submit(request) for _ in range(_UNDER_WAY // rows))
            while time.perf_counter() < until:
                under_way.popleft().result()
                under_way.append(batcher.submit(request))
                count += 1
            for future in under_way:
                future.result()
            done.append(count + len(under_way))

        begun = time.perf_counter()
        threads = [threading.Thread(target=send) for _ in range(senders)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rate = rows * sum(done) / (time.perf_counter() - begun)
        stats = batcher.stats()
        shares = ", ".join(str(d["rows"]) for d in stats["devices"].values())
        what = f"{len(names)} GPUs, Batcher, requests of {rows} from {senders} threads"
        shown = f"rows {shares}, mean batch {stats['mean_batch']:.1f}"
        print(
            f"{what}: {rate:.0f} images/s ({shown}){_beside(alone, f'batcher {rows} {senders} {sys.getswitchinterval()}', rate)}"
        )


def _processes(path: Path, names: tuple[str, ...], count: int, options: argparse.Namespace) -> None:
    """The rates of ``count`` processes at the same time."""
    spawning = multiprocessing.get_context("spawn")
    go = spawning.Event()
    with ProcessPoolExecutor(count, spawning, _take_event, (go,)) as pool:
        begun = [
            pool.submit(_one_process, str(path), names[n % len(names)], options.batch, options.seconds) for n in range(count)
        ]
        time.sleep(_START_S)
        go.set()
        rates = [one.result() for one in begun]
    shown = ", ".join(f"{rate:.0f}" for rate in rates)
    print(f"{count} processes on {min(count, len(names))} devices, requests of one image: {sum(rates):.0f} images/s ({shown})")


_START_S = 12.0  # in which a process has opened its plan and warmed it up
_began: list[Any] = []
"""In a process that is measured: the event by which all begin."""


def _take_event(event: Any) -> None:
    _began.append(event)


def _one_process(path: str, device: str, batch: int, seconds: float) -> float:
    """Images a second that one process takes in and computes, once it is told to begin. Raises where it was not ready then."""
    with miniinfer_cli.load(path, device) as engine:
        (request,) = requests_of(engine, 1, 1)
        with Batcher(engine, batch, 2.0, 1 << 16, batch_sizes=[batch]) as batcher:
            batcher.warm_up(request)
            for name, array in engine.run(request).items():
                np.testing.assert_allclose(batcher.submit(request).result()[name], array, rtol=2e-2, atol=2e-2)
            gc.collect()
            gc.freeze()
            if _began[0].is_set():
                raise SystemExit(f"a process was not ready within {_START_S} s")
            _began[0].wait()
            under_way = deque(batcher.submit(request) for _ in range(_UNDER_WAY))
            count, started = 0, time.perf_counter()
            while time.perf_counter() - started < seconds:
                under_way.popleft().result()
                under_way.append(batcher.submit(request))
                count += 1
            elapsed = time.perf_counter() - started
            for future in under_way:
                future.result()
            return count / elapsed


def _beside(alone: dict[str, float], key: object, rate: float) -> str:
    """The rate beside that of the first with this key, which is remembered; nothing for the first itself."""
    first = alone.setdefault(str(key), rate)
    return "" if first == rate else f", {rate / first:.2f} times one"


if __name__ == "__main__":
    main()

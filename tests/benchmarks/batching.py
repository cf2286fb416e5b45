"""What a Batcher does under load: throughput at saturation beside static batches, and latencies when requests come by chance.

    python -m tests.benchmarks.batching [--device cpu] [--plan FILE] [--qps 8000] [--seconds 5] [--delay-ms 1] [--sizes 1,8,64]
                                        [--contexts N] [--json FILE]

Without a plan: a perceptron 256-512-10 with random weights. Open loop: requests come at times drawn beforehand (Poisson), whether
or not others have ended, and latency counts from the time drawn; so a stall shows in all whom it delayed.
"""

import argparse
import gc
import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

import miniinfer_cli
from miniinfer_cli.ir import DType, Graph, TensorType, symbol
from miniinfer_cli.measuring.metrics import distribution
from miniinfer_cli.planning.freeze import freeze
from miniinfer_cli.runtime.random_inputs import random_inputs

_REQUESTS = 64  # different ones, sent in turn
_IN_FLIGHT = 4  # batches' worth, at saturation


def perceptron() -> Any:
    """The plan of a network of two products, for any batch."""
    random = np.random.default_rng(0)
    graph = Graph()
    batch = symbol("batch")

    def weights(*shape: int) -> Any:
        return graph.add_constant(random.standard_normal(shape, np.float32) / np.float32(shape[0] ** 0.5), f"w{shape[0]}")

    x = graph.add_input("x", TensorType(DType.F32, (batch, 256)))
    hidden = graph.add("MatMul", x, weights(256, 512), type=TensorType(DType.F32, (batch, 512)))
    hidden = graph.add("Relu", hidden, type=hidden.tensor)
    y = graph.add("MatMul", hidden, weights(512, 10), type=TensorType(DType.F32, (batch, 10)))
    graph.set_outputs([y], ["y"])
    return freeze(graph)


def static_rates(engine: Any, sizes: list[int], seconds: float) -> dict[int, float]:
    """Rows a second of batches of each size, back to back in one context, two under way where the device has it so."""
    rates = {}
    with engine.create_context() as context:
        for size in sizes:
            inputs = requests_of(engine, size, 1)[0]
            for _ in range(3):
                context.run(inputs)
            under_way: list[Any] = []
            count, started = 0, time.perf_counter()
            while time.perf_counter() - started < seconds:
                under_way.append(context.enqueue(inputs))
                if len(under_way) >= context.depth:
                    under_way.pop(0).result()
                    count += 1
            rates[size] = count * size / (time.perf_counter() - started)
    return rates


def requests_of(engine: Any, rows: int, count: int) -> list[dict[str, Any]]:
    """So many requests, of random contents, other dimensions at their optimum."""
    shapes = {}
    for b in engine.inputs:
        sizes = [d if isinstance(d, int) else engine.ranges[d].optimum if d in engine.ranges else 1 for d in b.shape]
        shapes[b.name] = (rows, *sizes[1:])
    return [random_inputs(engine.inputs, engine.ranges, shapes, {}, seed) for seed in range(count)]


def warm_up(engine: Any, batcher: Any) -> None:
    """Every size of a batch, in every context that may meet it."""
    for size in batcher.batch_sizes:
        inputs = requests_of(engine, size, 1)[0]
        for future in [batcher.submit(inputs) for _ in range(4)]:
            future.result()


def saturated(batcher: Any, requests: list[dict[str, Any]], seconds: float) -> float:
    """Requests a second when there are always more than can be computed."""
    most = _IN_FLIGHT * batcher.batch_sizes[-1]
    under_way: list[Any] = []
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        while len(under_way) < most:
            under_way.append(batcher.submit(requests[len(under_way) % _REQUESTS]))
        half = most // 2
        for future in under_way[:half]:
            future.result()
        count += half
        del under_way[:half]
    elapsed = time.perf_counter() - started
    for future in under_way:
        future.result()
    return count / elapsed


def open_loop(batcher: Any, requests: list[dict[str, Any]], qps: float, seconds: float) -> dict[str, Any]:
    """Latencies in ms from the drawn time of each request to its end, and how late they were sent."""
    due = np.cumsum(np.random.default_rng(1).exponential(1 / qps, int(qps * seconds)))
    ended = np.zeros(len(due))
    sent = np.zeros(len(due))
    left = threading.Semaphore(0)
    clock = time.perf_counter
    started = clock() + 0.05
    failures: list[BaseException] = []

    def note(number: int, future: Any) -> None:
        ended[number] = clock() - started
        if future.exception(0) is not None:
            failures.append(future.exception(0))
        left.release()

    for number, at in enumerate(due.tolist()):
        while (wait := started + at - clock()) > 0:
            if wait > 2e-4:
                time.sleep(wait - 1e-4)
        sent[number] = clock() - started
        future = batcher.submit(requests[number % _REQUESTS])
        future.add_done_callback(lambda f, number=number: note(number, f))
    for _ in due:
        left.acquire()
    if failures:
        raise failures[0]
    late = distribution(((sent - due) * 1e3).tolist(), (50.0, 99.0))
    return {
        "qps": len(due) / float(ended.max()),
        "latency_ms": distribution(((ended - due) * 1e3).tolist(), (50.0, 90.0, 99.0, 99.9)).to_json(),
        "sent_late_ms": late.to_json(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--qps", type=float, default=8000)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--delay-ms", type=float, default=1)
    parser.add_argument("--sizes", type=lambda text: [int(size) for size in text.split(",")])
    parser.add_argument("--contexts", type=int)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with miniinfer_cli.load(given.plan or perceptron(), given.device, threads=given.threads) as engine:
        options = {"max_queue": 1 << 16, "contexts": given.contexts, "batch_sizes": given.sizes}
        with miniinfer_cli.Batcher(engine, max_delay_ms=given.delay_ms, **options) as batcher:
            sizes = given.sizes or sorted({1, batcher.batch_sizes[-1] // 4, batcher.batch_sizes[-1]} - {0})
            static = static_rates(engine, sizes, given.seconds / 3)
            for size, rate in static.items():
                print(f"static batches of {size:3}: {rate:9.0f} rows/s")
            requests = requests_of(engine, 1, _REQUESTS)
            warm_up(engine, batcher)
            gc.collect()
            gc.freeze()  # as a server does that minds its slowest percent
            rate = saturated(batcher, requests, given.seconds)
            print(f"at saturation:         {rate:9.0f} requests/s, {rate / max(static.values()):.2f} of the best static batch")
            found = open_loop(batcher, requests, given.qps, given.seconds)
            ms = found["latency_ms"]
            figures = ", ".join(f"{p} {ms[p]:.2f}" for p in ("p50", "p90", "p99", "p99.9"))
            print(f"open loop at {given.qps:g}/s: {found['qps']:.0f}/s, latency in ms: {figures}, max {ms['max']:.2f}")
            print(f"  sent late by {found['sent_late_ms']['median']:.3f} ms, p99 {found['sent_late_ms']['p99']:.2f}")
            stats = batcher.stats()
    print(f"  {stats['batches']} batches, {stats['mean_batch']:.1f} rows on average")
    if given.json:
        figures_of = {"static": static, "saturated_qps": rate, "open_loop": found, "stats": stats}
        given.json.write_text(json.dumps(figures_of, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""What a Batcher does under load: throughput at saturation beside static batches, and latencies when requests come by chance.

    python -m tests.benchmarks.batching [--device cpu] [--plan FILE] [--qps 8000] [--seconds 5] [--delay-ms 1] [--sizes 1,8,64]
                                        [--contexts N] [--batches 8] [--json FILE]

Without a plan: a perceptron 256-512-10 with random weights. First what a request takes of the interpreter, from `submit` to
`result` with nothing computed, in one thread, so that neither the device nor other threads are in it. Open loop: requests come at
times drawn beforehand (Poisson), whether or not others have ended, and latency counts from the time drawn; so a stall shows in
all whom it delayed.
"""

import argparse
import json
import time
import timeit
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

import miniinfer_cli
from miniinfer_cli import Batcher
from miniinfer_cli.ir import DType, Graph, TensorType, symbol
from miniinfer_cli.measuring.benchmark import unwatched
from miniinfer_cli.measuring.load import Load, Scenario, run_load
from miniinfer_cli.measuring.load_summary import LoadSummary, summarize_load
from miniinfer_cli.measuring.load_systems import Batched, WallClock, frozen_collector
from miniinfer_cli.planning.freeze import freeze
from miniinfer_cli.runtime.engine import Engine
from miniinfer_cli.runtime.random_inputs import random_inputs
from miniinfer_cli.serving.assembling import Assembler
from miniinfer_cli.serving.batch_sizes import BatchSizes
from miniinfer_cli.serving.copying import Copiers
from miniinfer_cli.serving.desk import Desk, WaitingWorker
from miniinfer_cli.serving.device_tally import DeviceTally
from miniinfer_cli.serving.layout import find_layout
from miniinfer_cli.serving.request import BatchedFuture
from miniinfer_cli.serving.waiting import Waiting

_REQUESTS = 64  # different ones, sent in turn
_PASSES = 512  # requests that one measurement of their host time passes through


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


def static_rates(engine: Engine, sizes: list[int], seconds: float) -> dict[int, float]:
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


def requests_of(engine: Engine, rows: int, count: int) -> list[dict[str, Any]]:
    """So many requests, of random contents, other dimensions at their optimum."""
    shapes = {}
    for b in engine.inputs:
        assert b.shape is not None
        sizes = [d if isinstance(d, int) else engine.ranges[d].optimum if d in engine.ranges else 1 for d in b.shape]
        shapes[b.name] = (rows, *sizes[1:])
    return [random_inputs(engine.inputs, engine.ranges, shapes, {}, seed) for seed in range(count)]


def saturated(batcher: Batcher, requests: list[dict[str, Any]], seconds: float, batches: int) -> dict[str, Any]:
    """Requests a second, and the figures of their batches, when so many batches' worth are always under way."""
    most = batches * batcher.batch_sizes[-1]
    before = batcher.stats()
    under_way: deque[Any] = deque()
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        while len(under_way) < most:
            under_way.append(batcher.submit(requests[count % _REQUESTS]))
            count += 1
        for _ in range(batcher.batch_sizes[-1]):
            under_way.popleft().result()
    for future in under_way:
        future.result()
    elapsed = time.perf_counter() - started
    after = batcher.stats()
    made = {key: after[key] - before[key] for key in ("batches", "rows", "rows_of_padding", "execution_s")}
    return {"qps": count / elapsed, **made, "mean_batch": made["rows"] / made["batches"]}


def interpreter_us(engine: Engine, request: dict[str, Any], together: int) -> float:
    """Microseconds of one thread for a request of which ``together`` make a batch; the least of several tries."""
    layout = find_layout(engine, None, {})
    sizes = BatchSizes(sorted({1, together}))
    desk = Desk(Waiting(sizes, 1, 0.0, 0.1), 1 << 16)
    tally = DeviceTally(engine.device)
    worker, assembler = WaitingWorker(tally), Assembler(engine, layout, together, {}, Copiers(0))
    with engine.create_context() as context:
        many = {name: np.concatenate([array] * together) for name, array in request.items()}
        results = tuple(context.run(many).values())

        def pass_through() -> None:
            made = []
            for _ in range(together):
                arrays, form = layout.read(engine, request, together)
                now = desk.clock()
                made.append(BatchedFuture(desk, arrays, form, 0, now, now, None))
                desk.enter(made[-1], block=False)
            batch = desk.next_batch(worker)
            assembler.inputs(context, batch, [r.arrays for r in batch], together)
            desk.give(batch, assembler.outputs(results, batch, together), together, 1e-3, tally)
            desk.ended(tally)
            for future in made:
                future.result()

        count = _PASSES // together
        return min(timeit.repeat(pass_through, number=count, repeat=20)) / count / together * 1e6


def open_loop(batcher: Batcher, requests: list[dict[str, Any]], qps: float, seconds: float) -> LoadSummary:
    """What becomes of requests that come by chance, as `miniinfer profile --qps` has it."""
    load = Load(Scenario.SERVER, 1, seconds, qps)
    log = run_load(load, Batched(batcher, requests), WallClock(), unwatched)
    return summarize_load(load, log, 1, percentiles=(50.0, 90.0, 99.0, 99.9))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--qps", type=float, default=8000)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--delay-ms", type=float, default=1)
    parser.add_argument("--sizes", type=lambda text: [int(size) for size in text.split(",")])
    parser.add_argument("--contexts", type=int)
    parser.add_argument("--batches", type=int, default=8, help="so many batches' worth of requests are under way at saturation")
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
            alone, full_us = (interpreter_us(engine, requests[0], n) for n in (1, sizes[-1]))
            print(f"host time of a request: {alone:.1f} us alone, {full_us:.1f} us in batches of {sizes[-1]}")
            batcher.warm_up(requests[0])
            with frozen_collector():
                full = saturated(batcher, requests, given.seconds, given.batches)
                part = full["qps"] / max(static.values())
                print(f"at saturation:         {full['qps']:9.0f} requests/s, {part:.2f} of the best static batch")
                print(f"  {full['batches']} batches of {full['mean_batch']:.1f} rows on average")
                found = open_loop(batcher, requests, given.qps, given.seconds)
    assert found.latency is not None and found.sent_late is not None
    figures = ", ".join(f"p{p:g} {ms:.2f}" for p, ms in found.latency.percentiles)
    print(
        f"open loop at {given.qps:g}/s: {found.throughput_qps:.0f}/s, latency in ms: {figures}, max {found.latency.maximum:.2f}"
    )
    print(f"  sent late by {found.sent_late.median:.3f} ms, p99 {dict(found.sent_late.percentiles)[99.0]:.2f}")
    print(f"  {found.dropped} dropped; the longest queue was {found.most_waiting}")
    if given.json:
        figures_of = {"static": static, "saturated": full, "open_loop": found.to_json()}
        given.json.write_text(json.dumps(figures_of, indent=2) + "\n")


if __name__ == "__main__":
    main()

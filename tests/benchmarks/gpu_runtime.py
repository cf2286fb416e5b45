"""What the runtime costs on a GPU besides computing: loading, first results, new shapes, enqueuing, and what overlap gains.

    python -m tests.benchmarks.gpu_runtime [--out FILE]

Models are generated; plans lie in the page cache; kernels and cuDNN's plans in the cache folder, as in every process but
the first. "Above the libraries": beyond a fresh process that initialises CUDA and loads the same libraries.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import miniinfer_cli
from engine_format import read_plan, write_plan
from miniinfer_cli.backends.cuda.driver.device import open_device
from miniinfer_cli.backends.cuda.loading.preload import PinnedRing, preload
from miniinfer_cli.ir import DType, Graph, TensorType
from miniinfer_cli.measuring.benchmark import Schedule, measure
from miniinfer_cli.planning.freeze import freeze
from miniinfer_cli.runtime.engine import Engine
from sample_models.catalogue import generate
from sample_models.request import Request
from tests.gpu.plans import sizes_of

_BASE = """
import time; t = time.perf_counter()
import numpy
from miniinfer_cli.backends.cuda.driver.device import open_device
from miniinfer_cli.backends.cuda.driver.cudnn import Cudnn
from miniinfer_cli.backends.cuda.driver.cublaslt import CublasLt
d = open_device(0); d.make_current(); c = Cudnn(d); l = CublasLt(d); s = d.create_stream(); c.bind(s.handle)
print(time.perf_counter() - t)
"""
_FIRST = """
import time; t = [time.perf_counter()]
import numpy, miniinfer_cli
e = miniinfer_cli.load({plan!r}, "cuda:0"); t.append(time.perf_counter())
x = {{b.name: numpy.zeros([d if isinstance(d, int) else 1 for d in b.shape], b.dtype) for b in e.inputs}}
e.program(e.check(x)); t.append(time.perf_counter())
e.run(x); t.append(time.perf_counter())
print(t[-1] - t[0], *(b - a for a, b in zip(t, t[1:])))
"""
PHASES = ("opening", "program", "running")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures["preload_gbps"] = preload_rate(folder)
        for model, dtype in (("resnet50", "f16"), ("bert_base", "f16")):
            plan = folder / f"{model}.plan"
            miniinfer_cli.build(generate(model, Request("batch", 128, False), dtype=dtype, seed=1), plan)
            figures[f"{model}_first_result_s"] = first_result(plan)
            figures[f"{model}_new_shape_s"] = new_shapes(plan)
            figures[f"{model}_enqueue"] = enqueue_times(plan)
        figures["overlap"] = overlap(folder)
    text = json.dumps(figures, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


def preload_rate(folder: Path) -> list[float]:
    """GB/s of a plan of 1 GiB in the page cache, first read to last copy, with the ring allocated before."""
    graph = Graph()
    x = graph.add_input("x", TensorType(DType.F32, (1, 16384)))
    shape = (16384, 1024)
    outputs = []
    for i in range(16):
        noise = np.random.default_rng(i).integers(0, 255, (shape[0] * shape[1] * 4,), np.uint8).view(np.float32).reshape(shape)
        w = graph.add_constant(noise, f"w{i}")
        outputs.append(graph.add("MatMul", x, w, type=TensorType(DType.F32, (1, 1024))))
    graph.set_outputs(outputs, [f"y{i}" for i in range(16)])
    write_plan(freeze(graph), folder / "big.plan")
    rates = []
    with open_device(0) as device, read_plan(folder / "big.plan") as plan:
        assert plan.file is not None
        nbytes = plan.weights_range()[1]
        device.make_current()
        with device.allocate(nbytes) as memory:
            ring = PinnedRing(device)
            for _ in range(6):
                started = time.perf_counter()
                preload(device, plan.file, memory.address, ring)
                rates.append(round(nbytes / (time.perf_counter() - started) / 1e9, 1))
            ring.close()
    (folder / "big.plan").unlink()
    return rates


def first_result(plan: Path) -> dict[str, float]:
    """Seconds in fresh processes, medians of five: with the caches cold, with them warm, and the libraries alone.

    And what of the warm one goes where: opening (imports, the device, the weights), making the program (with the libraries, their
    plans, our kernels), and running it once.
    """
    first = _FIRST.format(plan=str(plan))
    cold = _fresh(first)[0]
    base = statistics.median(_fresh(_BASE)[0] for _ in range(5))
    warm, *phases = map(statistics.median, zip(*(_fresh(first) for _ in range(5)), strict=True))
    total = {"cold": cold, "warm": warm, "libraries": base, "above_the_libraries": warm - base}
    return total | dict(zip(PHASES, phases, strict=True))


def _fresh(code: str) -> list[float]:
    # An installed package has its bytecode.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return [float(word) for word in done.stdout.split()]


def new_shapes(plan: Path) -> list[float]:
    """Seconds to the first result at batch sizes that the process, and the caches on disk, have not seen."""
    times = []
    with miniinfer_cli.load(plan, "cuda:0", cache=None) as engine:
        for number, batch in enumerate((1, 2, 3, 5, 8)):
            if number == 1:
                time.sleep(5)  # the kernels of other sizes are compiled in the background
            feeds = _feeds(engine, batch)
            started = time.perf_counter()
            engine.run(feeds)
            times.append(round(time.perf_counter() - started, 4))
    return times


def enqueue_times(plan: Path) -> dict[str, list[float]]:
    """Medians as ``run`` prints them, in microseconds: host time to enqueue one captured inference, without copies and with.

    Five of each, in turn: on a machine that others share, the processor's speed changes from one second to the next.
    """
    with miniinfer_cli.load(plan, "cuda:0") as engine:
        checked = engine.check(_feeds(engine, 1))
        result: dict[str, list[float]] = {"without_transfers_us": [], "with_transfers_us": []}
        for _ in range(5):
            for name, transfers in (("without_transfers_us", False), ("with_transfers_us", True)):
                samples = measure(engine, checked, Schedule(iterations=2000, duration_s=0.5, transfers=transfers))
                result[name].append(round(statistics.median(samples.enqueue_ms) * 1e3, 2))
        return result


def overlap(folder: Path) -> dict[str, float]:
    """Throughput with overlap and without, for a chain of products whose computing takes about as long as its copies."""
    rows, size, layers = 8192, 2048, 8
    graph = Graph()
    kind = TensorType(DType.F16, (rows, size))
    value = graph.add_input("x", kind)
    random = np.random.default_rng(0)
    for i in range(layers):
        weight = graph.add_constant((random.standard_normal((size, size)) / 45).astype(np.float16), f"w{i}")
        value = graph.add("MatMul", value, weight, type=kind)
    graph.set_outputs([value], ["y"])
    write_plan(freeze(graph), folder / "chain.plan")
    result: dict[str, float] = {}
    for name, choice in (("overlap", True), ("no_overlap", False)):
        with miniinfer_cli.load(folder / "chain.plan", "cuda:0", overlap=choice) as engine:
            checked = engine.check({"x": random.standard_normal((rows, size)).astype(np.float16)})
            # The caller fills pinned memory, and takes results where they lie: what is left are the copies themselves.
            samples = measure(engine, checked, Schedule(iterations=100, duration_s=1.0))
            result[f"{name}_qps"] = len(samples.latency_ms) / samples.walltime_s
            for row in ("copies_in_ms", "compute_ms", "copies_out_ms", "enqueue_ms"):
                result[f"{name}_{row}"] = statistics.median(getattr(samples, row))
    result["gain"] = result["overlap_qps"] / result["no_overlap_qps"]
    return result


def _feeds(engine: Engine, batch: int) -> dict[str, Any]:
    random = np.random.default_rng(batch)
    feeds = {}
    for b in engine.inputs:
        shape = sizes_of(b, batch)
        assert b.dtype is not None
        feeds[b.name] = (random.integers(0, 2, shape) if b.dtype.kind in "iu" else random.random(shape)).astype(b.dtype)
    return feeds


if __name__ == "__main__":
    main()

"""What this processor can do at best with a number of threads, measured in the ways in which programs compute."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from miniinfer_cli.backends.ceilings import Ceilings, Rate, Unit
from miniinfer_cli.backends.cpu.blas import blas_threads
from miniinfer_cli.backends.cpu.device import CpuModel
from miniinfer_cli.backends.cpu.threads import Threads
from miniinfer_cli.ir import Array, DType, Graph, TensorType
from miniinfer_cli.ops.products import multiply

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_DEFAULT_CACHE = 8 << 20  # where the system tells of none
_STEPS = 200

Told = Callable[[str], None]
"""Told of what is measured next."""


@dataclass(frozen=True, slots=True)
class Extents:
    """How much is done to measure: rows and columns of a product, bytes of a copy at least, and seconds for each figure."""

    matrix: int = 1024
    copy_nbytes: int = 128 << 20
    seconds: float = 0.05


def measure_ceilings(
    processor: str, threads: int, told: Told = lambda stage: None, extents: Extents = Extents(), cache_nbytes: int | None = None
) -> Ceilings:
    """Measures this machine with ``threads`` threads; takes about half a second.

    ``processor``: its name. ``cache_nbytes``: of its last cache, else as the system tells.
    """
    share = Threads(threads)
    cache = last_cache_nbytes() if cache_nbytes is None else cache_nbytes
    rates: dict[str, float] = {}
    with blas_threads():
        for numbers, dtype in (("f32", np.float32), ("f64", np.float64)):
            told(f"products, {numbers}")
            rates[str(Rate(Unit.MATRIX, numbers))] = _product_tflops(share, np.dtype(dtype), extents)
            told(f"sums, {numbers}")
            rates[str(Rate(Unit.VECTOR, numbers))] = _pointwise_tflops(share, np.dtype(dtype), extents)
        told("memory and its cache")
        memory = _copy_gbps(share, max(extents.copy_nbytes, 4 * cache), extents)
        cached = _copy_gbps(share, cache // 4, extents) if cache else None
    told("steps")
    step_us = _step_us(threads)
    return Ceilings(
        processor,
        rates,
        memory_gbps=memory,
        cache_nbytes=cache,
        cache_gbps=None if cached is None else max(cached, memory),
        step_us=step_us,
        threads=threads,
    )


def last_cache_nbytes(folder: Path = _CACHES) -> int:
    """Bytes of the largest cache of the first processor, as Linux tells; a guess where it does not."""
    sizes = []
    for told in folder.glob("index*/size"):
        text = told.read_text().strip()
        unit = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1:], 1)
        number = text.rstrip("KMG")
        sizes.append(int(number) * unit if number.isdecimal() else 0)
    return max(sizes, default=0) or _DEFAULT_CACHE


def _product_tflops(share: Threads, dtype: "np.dtype[Any]", extents: Extents) -> float:
    n = extents.matrix
    a, b, out = _noise((n, n), dtype), _noise((n, n), dtype), np.empty((n, n), dtype)
    return 2 * n**3 / _least_seconds(lambda: multiply(a, b, out, share), extents) / 1e12


def _pointwise_tflops(share: Threads, dtype: "np.dtype[Any]", extents: Extents) -> float:
    """An addition for each element of blocks that stay in the nearest caches, as stages of pointwise operations do."""
    count, rounds = (1 << 16) // dtype.itemsize, 16
    blocks = [_noise((3, count), dtype) for _ in range(share.count)]

    def part(number: int) -> None:
        x, y, out = blocks[number]
        for _ in range(rounds):
            np.add(x, y, out)

    return share.count * rounds * count / _least_seconds(lambda: share(share.count, part), extents) / 1e12


def _copy_gbps(share: Threads, nbytes: int, extents: Extents) -> float:
    """GB/s, read and written, of a copy between two buffers that take ``nbytes`` together, each thread its part."""
    each = max(nbytes // 2 // share.count // 8 * 8, 64)
    buffers = [(np.ones(each // 8), np.zeros(each // 8)) for _ in range(share.count)]
    rounds = max((1 << 20) // each, 1)  # a job of a few microseconds would measure how threads are woken

    def part(number: int) -> None:
        source, target = buffers[number]
        for _ in range(rounds):
            np.copyto(target, source)

    moved = 2 * each * share.count * rounds
    return moved / _least_seconds(lambda: share(share.count, part), extents) / 1e9


def _step_us(threads: int) -> float:
    """What the runtime takes for a step that has next to nothing to do: one of a long program of small sums."""
    kind = TensorType(DType.F32, (1,))
    graph = Graph()
    value = graph.add_input("x", kind)
    for _ in range(_STEPS):
        value = graph.add("Relu", value, type=kind)
    graph.set_outputs([value])
    model = CpuModel(graph, threads)
    program, context = model.make_program([kind]), model.make_context()
    inputs: list[Array] = [np.ones(1, np.float32)]
    spent = _least_seconds(lambda: context.execute(program, inputs), Extents(seconds=0.02))
    context.close()
    model.close()
    return spent / len(program.steps) * 1e6


def _noise(shape: tuple[int, ...], dtype: "np.dtype[Any]") -> Array:
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def _least_seconds(work: Callable[[], Any], extents: Extents) -> float:
    """The least of the times that fit into the extents: a ceiling is what is done when nothing comes between."""
    work()
    times: list[float] = []
    until = time.perf_counter() + extents.seconds
    while len(times) < 3 or time.perf_counter() < until:
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return max(min(times), 1e-9)

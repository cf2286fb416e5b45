"""The product of few tokens against cuBLASLt, in graphs of 40 copies with rotated weights and warm activations, bias included.

    python -m tests.benchmarks.gate [--shape MxNxK ...] [--dtype f16] [--forms N] [--only FORM ...] [--rounds N] [--out FILE]

Microseconds a copy, with plain edges and as programmatic launches, of the forms that the estimate of ``forms_of`` likes best;
cuBLASLt's first candidate and the best of 24 beside them, in the same run under plain edges. Results are compared with f64 first.
"""

import argparse
import json
import math
import statistics
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from miniinfer_cli.backends.cuda.contract.parameters import Parameters, pack_parameters
from miniinfer_cli.backends.cuda.contract.problems import Compute, MatmulProblem
from miniinfer_cli.backends.cuda.contract.steps import Launch, Operand
from miniinfer_cli.backends.cuda.contract.tensor_map import TensorMap
from miniinfer_cli.backends.cuda.driver.cublaslt import WORKSPACE_LIMIT, CublasLt
from miniinfer_cli.backends.cuda.driver.device import Device, open_device
from miniinfer_cli.backends.cuda.driver.kernel_cache import KernelCache
from miniinfer_cli.backends.cuda.driver.module import Function
from miniinfer_cli.backends.cuda.driver.stream import Stream, raw_attributes
from miniinfer_cli.backends.cuda.loading.target_sections import sources_of
from miniinfer_cli.backends.cuda.tactics.products.product_sm90 import bias_finish, product_launch
from miniinfer_cli.backends.cuda.tactics.products.token_forms import Form, TokenProduct, blocks_of, forms_of
from miniinfer_cli.ir import DType
from tests.sm90_cases.packing import packed as packed_weights

SHAPES = tuple(f"{m}x{n}x{k}" for m in (128, 197) for n, k in ((2304, 768), (768, 768), (3072, 768), (768, 3072)))
COPIES = 40
DTYPES: dict[str, tuple[DType, Any]] = {
    "f16": (DType.F16, np.float16),
    "bf16": (DType.BF16, ml_dtypes.bfloat16),
    "f32": (DType.F32, np.float32),
}
TOLERANCE = {"f16": 1e-3, "bf16": 5e-3, "f32": 1e-3}
X, W, B, Y = Operand.input(0), Operand.input(1), Operand.input(2), Operand.output(0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", nargs="+", default=list(SHAPES), help="tokens x features x k")
    parser.add_argument("--dtype", choices=list(DTYPES), default="f16")
    parser.add_argument("--forms", type=int, default=10, help="forms that are timed for each shape")
    parser.add_argument("--only", nargs="+", help="forms to time: tokens,split,groups,stages[,rows,sharing]")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, help="where all rows go as JSON")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with open_device(0) as device:
        for shape in options.shape:
            m, n, k = map(int, shape.split("x"))
            p = product_of(m, n, k, DTYPES[options.dtype][0])
            forms = (
                [Form(*map(int, o.split(","))) for o in options.only]
                if options.only
                else forms_of(p, device.multiprocessors)[: options.forms]
            )
            rows += measure(device, p, options.dtype, forms, options.rounds)
            print(line_of(rows, shape), flush=True)
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1))
    return int(any(not row.get("right", True) for row in rows))


def product_of(m: int, n: int, k: int, dtype: DType) -> TokenProduct:
    """Dense operands."""
    return TokenProduct(m, n, k, dtype, dtype, k, n)


@dataclass(slots=True)
class Buffers:
    """Operands on the device: one of tokens and of the bias, many of weights, two results."""

    x: int
    b: int
    weights: list[int]
    results: tuple[int, int]
    workspace: int

    def addresses(self, copy: int) -> dict[Operand, int]:
        """Those of a copy."""
        return {X: self.x, B: self.b, W: self.weights[copy % len(self.weights)], Y: self.results[copy % 2]}

    def fill(self, stream: Stream, weights: "np.ndarray[Any, Any]") -> None:
        """All copies of the weights."""
        for address in self.weights:
            stream.copy_to_device(address, weights.ctypes.data, weights.nbytes)
        stream.synchronize()


def measure(device: Device, p: TokenProduct, name: str, forms: Sequence[Form], rounds: int) -> list[dict[str, Any]]:
    """A row for each form, and one for the library."""
    rng = np.random.default_rng(p.count + p.features + p.k)
    dtype = DTYPES[name][1]
    x, b = (rng.standard_normal(shape).astype(dtype) for shape in ((p.count, p.k), (p.features,)))
    w = (rng.standard_normal((p.features, p.k)) / math.sqrt(p.k)).astype(dtype)
    pieces = packed_weights(w)
    exact = x.astype(np.float64) @ w.astype(np.float64).T + b.astype(np.float64)
    sets = max(COPIES, -(-2 * device.l2_nbytes // w.nbytes // COPIES) * COPIES)
    rows = []
    with ExitStack() as closing:
        stream = closing.enter_context(device.create_stream())

        def room(nbytes: int) -> int:
            return closing.enter_context(device.allocate(nbytes)).address

        buffers = Buffers(
            room(x.nbytes), room(b.nbytes), [room(pieces.nbytes) for _ in range(sets)], (room(exact.size * x.itemsize),) * 2, 0
        )
        buffers.results = buffers.results[0], room(exact.size * x.itemsize)
        buffers.workspace = room(WORKSPACE_LIMIT)
        buffers.fill(stream, pieces)
        stream.copy_to_device(buffers.x, x.ctypes.data, x.nbytes)
        stream.copy_to_device(buffers.b, b.ctypes.data, b.nbytes)
        stream.synchronize()

        def error(enqueue: Callable[[int], None]) -> float:
            found = np.empty(exact.shape, dtype)
            stream.fill(buffers.results[0], 0xFF, found.nbytes)
            enqueue(0)
            stream.copy_to_host(found.ctypes.data, buffers.results[0], found.nbytes)
            stream.synchronize()
            return float(np.linalg.norm(found.astype(np.float64) - exact) / np.linalg.norm(exact))

        launches = [product_launch(p, form, bias_finish(p.dtype), X, W, Y, [B]) for form in forms]
        cache = KernelCache(None)
        codes = cache.compile_many(sources_of([launch.kernel for launch in launches], device.arch))
        for form, launch, code in zip(forms, launches, codes, strict=True):
            function = closing.enter_context(device.load(code)).function("product_sm90")
            function.allow_shared(launch.shared_nbytes)
            parameters = [packed(device, launch, buffers.addresses(copy)) for copy in range(sets)]

            def enqueue(
                copy: int,
                *,
                early: bool = False,
                launch: Launch[Operand] = launch,
                function: Function = function,
                parameters: list[Parameters] = parameters,
            ) -> None:
                attributes = replace(launch.attributes, programmatic=early)
                stream.launch(function, launch.grid, launch.block, launch.shared_nbytes, parameters[copy], attributes)

            def linked(copy: int, enqueue: Callable[..., None] = enqueue) -> None:
                enqueue(copy, early=copy % COPIES > 0)

            wrong = error(enqueue)
            plain = time_us(device, stream, enqueue, sets, rounds)
            early = time_us(device, stream, linked, sets, rounds)
            rows.append(
                {
                    "shape": shape_of(p), "dtype": name, "form": asdict(form), "error": wrong, "right": wrong < TOLERANCE[name],
                    "plain_us": plain, "early_us": early, "blocks": blocks_of(p, form), "shared_nbytes": launch.shared_nbytes,
                    "registers": function.resources.registers, "spilled": function.resources.local_nbytes,
                    "residents": residents(device, function, launch), "clusters": clusters(device, function, launch),
                }
            )  # fmt: skip
        buffers.fill(stream, w)
        rows.append(library_row(device, stream, p, name, buffers, error, rounds, closing))
    return rows


def packed(device: Device, launch: Launch[Operand], addresses: dict[Operand, int]) -> Parameters:
    """The launch's parameters at these addresses."""
    values: list[Any] = []
    for argument in launch.arguments:
        if isinstance(argument, TensorMap):
            values.append(device.encode(argument, addresses[argument.operand]))
        else:
            values.append(np.uint64(addresses[argument]) if isinstance(argument, Operand) else argument)
    return pack_parameters(values)


def time_us(device: Device, stream: Stream, enqueue: Callable[[int], None], sets: int, rounds: int) -> float:
    """The median of the rounds, for one copy."""
    with ExitStack() as closing:
        graphs = []
        for first in range(0, sets, COPIES):
            stream.begin_capture()
            for copy in range(first, first + COPIES):
                enqueue(copy)
            graphs.append(closing.enter_context(stream.end_capture()))
        begin, end = (closing.enter_context(device.create_event(timing=True)) for _ in range(2))
        repeats = max(1, 10 // len(graphs))
        times = []
        for _ in range(rounds + 1):
            stream.record(begin)
            for _ in range(repeats):
                for graph in graphs:
                    stream.launch_graph(graph)
            stream.record(end)
            end.synchronize()
            times.append(end.elapsed_ms(begin) * 1e3 / (repeats * sets))
    return statistics.median(times[1:])


def residents(device: Device, function: Function, launch: Launch[Operand]) -> int:
    """Blocks of the kernel that fit on a multiprocessor together."""
    threads = math.prod(launch.block)
    driver = device.driver
    return int(device.call(driver.cuOccupancyMaxActiveBlocksPerMultiprocessor, function.raw, threads, launch.shared_nbytes))


def clusters(device: Device, function: Function, launch: Launch[Operand]) -> int:
    """Clusters of the launch that the whole GPU runs at one time; 0 where it has none."""
    if math.prod(launch.attributes.cluster) == 1:
        return 0
    driver = device.driver
    config = driver.CUlaunchConfig()
    config.gridDimX, config.gridDimY, config.gridDimZ = launch.grid
    config.blockDimX, config.blockDimY, config.blockDimZ = launch.block[0], 1, 1
    config.sharedMemBytes = launch.shared_nbytes
    attributes = raw_attributes(driver, launch.attributes)
    config.attrs, config.numAttrs = attributes, len(attributes)
    return int(device.call(driver.cuOccupancyMaxActiveClusters, function.raw, config))


def library_row(
    device: Device,
    stream: Stream,
    p: TokenProduct,
    name: str,
    buffers: Buffers,
    error: Callable[[Callable[[int], None]], float],
    rounds: int,
    closing: ExitStack,
) -> dict[str, Any]:
    """cuBLASLt under plain edges: its first candidate, and the best of 24."""
    compute = Compute.TF32 if p.dtype is DType.F32 else Compute.F32
    problem = MatmulProblem(
        *(p.count, p.features, p.k, p.dtype, p.dtype, p.dtype, compute, False, True, p.k, p.k, p.features),
        bias=True,
        alignment=16,
    )
    library = closing.enter_context(CublasLt(device))
    times: list[float] = []
    for candidate in library.candidates(problem, 24):

        def enqueue(copy: int, candidate: Any = candidate) -> None:
            at = buffers.addresses(copy)
            candidate.enqueue(stream.handle, [at[X], at[W], at[Y], at[B]], buffers.workspace)

        if error(enqueue) < TOLERANCE[name]:
            times.append(time_us(device, stream, enqueue, len(buffers.weights), 3 if times else rounds))
    return {"shape": shape_of(p), "dtype": name, "library": library.version, "first_us": times[0], "best_us": min(times)}


def shape_of(p: TokenProduct) -> str:
    return f"{p.count}x{p.features}x{p.k}"


def line_of(rows: Sequence[dict[str, Any]], shape: str) -> str:
    """The best of each way."""
    ours = [r for r in rows if r["shape"] == shape and "form" in r]
    (library,) = (r for r in rows if r["shape"] == shape and "library" in r)
    words = [shape]
    for kind in ("plain_us", "early_us"):
        best = min(ours, key=lambda r: float(r[kind]))
        words.append(f"{kind} {best[kind]:.2f} ({','.join(map(str, best['form'].values()))})")
    words.append(f"cublaslt {library['first_us']:.2f} best {library['best_us']:.2f}")
    wrong = [r for r in ours if not r["right"]]
    return ", ".join(words) + (f", WRONG: {[(r['form'], r['error']) for r in wrong]}" if wrong else "")


if __name__ == "__main__":
    sys.exit(main())

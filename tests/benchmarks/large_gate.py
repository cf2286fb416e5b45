"""The product of many tokens against cuBLASLt, in graphs of copies with rotated weights and warm activations, bias included.

    python -m tests.benchmarks.large_gate [--shape MxNxK ...] [--dtype f16] [--only FORM ...]
        [--follows none gelu residual statistics normalized] [--rounds N] [--candidates N] [--copies N] [--out FILE]

Microseconds a copy under plain edges, of each form with what follows; "statistics": a residual, and statistics of the results;
"normalized": of the tokens, then a Gelu; beside it cuBLASLt's first candidate and the best of
``--candidates``, with a Gelu as a pass of its own behind it. Results are compared with f64 first.
"""

import argparse
import json
import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from miniinfer_cli.backends.cuda.contract.parameters import Parameters, pack_parameters
from miniinfer_cli.backends.cuda.contract.problems import Compute, MatmulProblem
from miniinfer_cli.backends.cuda.contract.program import DeviceStep, Place
from miniinfer_cli.backends.cuda.contract.steps import Launch, Operand
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.tensor_map import TensorMap
from miniinfer_cli.backends.cuda.driver.cublaslt import WORKSPACE_LIMIT, CublasLt
from miniinfer_cli.backends.cuda.driver.device import Device, open_device
from miniinfer_cli.backends.cuda.driver.kernel_cache import KernelCache
from miniinfer_cli.backends.cuda.driver.module import Function
from miniinfer_cli.backends.cuda.driver.stream import Stream
from miniinfer_cli.backends.cuda.loading.target_sections import sources_of
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.backends.cuda.tactics.products.large_product_sm90 import (
    LargeForm,
    LargeProduct,
    LargeRows,
    adding_finish,
    large_launch,
    plain_finish,
)
from miniinfer_cli.backends.cuda.tactics.products.product_sm90 import PIECE, Finish
from miniinfer_cli.ir import DType, Graph, TensorType
from miniinfer_cli.ops import insert
from miniinfer_cli.ops.activation import gelu
from tests.benchmarks.gate import DTYPES, TOLERANCE, B, W, X, Y
from tests.sm90_cases.large import with_residual
from tests.sm90_cases.normalized_rows import EPSILON, statistics_of

SHAPES = tuple(f"8192x{n}x{k}" for n, k in ((2304, 768), (768, 768), (3072, 768), (768, 3072)))
FORMS = ("2,256,3,2", "2,192,4,2", "2,256,3,1", "2,192,4,1", "2,128,5,2")
FOLLOWS = ("none", "gelu", "residual", "statistics", "normalized")
R, T = Operand.input(3), Operand.output(1)
PIECES, SHIFTS, SUMMARY = Operand.input(4), Operand.input(5), Operand.output(2)
_GELU = "MI_DEVICE void body(float s, MI_D& y) { y = narrow<MI_D>(math::gelu(s)); }"
_ROUND_US = 8000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", nargs="+", default=list(SHAPES), help="tokens x features x k")
    parser.add_argument("--dtype", choices=list(DTYPES), default="f16")
    parser.add_argument("--only", nargs="+", default=list(FORMS), help="forms: groups,features,stages,sharing[,band]")
    parser.add_argument("--follows", nargs="+", choices=FOLLOWS, default=list(FOLLOWS[:2]))
    parser.add_argument("--links", action="store_true", help="as programmatic launches, too")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--candidates", type=int, default=24)
    parser.add_argument("--copies", type=int, default=20)
    parser.add_argument("--out", type=Path, help="where all rows go as JSON")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with ExitStack() as closing:
        bench = Bench(closing, options)
        for shape in options.shape:
            found = bench.measure(shape)
            rows += found
            for line in lines_of(shape, found):
                print(line, flush=True)
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1))
    return int(any(not row["right"] for row in rows))


@dataclass(frozen=True, slots=True)
class Way:
    """A form, and how high a band is."""

    form: LargeForm
    band: int


def way_of(text: str) -> Way:
    """``groups,features,stages,sharing[,band]``."""
    numbers = [*map(int, text.split(",")), 8]
    return Way(LargeForm(*numbers[:4]), numbers[4])


class Bench:
    """A device, compiled kernels by their launches, and the library."""

    def __init__(self, closing: ExitStack, options: argparse.Namespace) -> None:
        self.options = options
        self.closing = closing
        self.device: Device = closing.enter_context(open_device(0))
        self.stream: Stream = closing.enter_context(self.device.create_stream())
        self.library = closing.enter_context(CublasLt(self.device)) if options.candidates else None
        self._cache = KernelCache(None)
        self._functions: dict[Any, Function] = {}

    def functions(self, launches: Sequence[Launch[Any]]) -> list[Function]:
        """Those of the launches; the missing ones are compiled by several threads."""
        missing = list({launch.kernel: None for launch in launches if launch.kernel not in self._functions})
        codes = self._cache.compile_many(sources_of(missing, self.device.arch))
        for kernel, code in zip(missing, codes, strict=True):
            self._functions[kernel] = self.closing.enter_context(self.device.load(code)).function(kernel.name)
        for launch in launches:
            self._functions[launch.kernel].allow_shared(launch.shared_nbytes)
        return [self._functions[launch.kernel] for launch in launches]

    def measure(self, shape: str) -> list[dict[str, Any]]:
        """A row for each form and what follows, and one for the library."""
        with ExitStack() as closing:
            return _Shape(self, closing, *map(int, shape.split("x"))).rows()


class _Shape:
    """Operands of one product on the device: one of tokens, bias and residual, many of weights, two results."""

    def __init__(self, bench: Bench, closing: ExitStack, m: int, n: int, k: int) -> None:
        self.bench, self.m, self.n, self.k = bench, m, n, k
        self.name = bench.options.dtype
        self.kind, self.dtype = DTYPES[self.name]
        rng = np.random.default_rng(m + n + k)
        x, b, r = (rng.standard_normal(s, np.float32).astype(self.dtype) for s in ((m, k), (n,), (m, n)))
        w = (rng.standard_normal((n, k), np.float32) / math.sqrt(k)).astype(self.dtype)
        self.looked_at = np.unique([*range(0, m, 7), m - 1])  # rows: some of every tile
        x64, r64 = (a[self.looked_at].astype(np.float64) for a in (x, r))
        sums = x64 @ w.astype(np.float64).T + b.astype(np.float64)
        added = np.maximum(sums + r64, 0)
        self.exact = {"none": sums, "gelu": gelu(sums), "residual": added, "statistics": sums + r64}
        if k % PIECE == 0:
            centred = x64 - x64.mean(-1, keepdims=True)
            inverse = 1 / np.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON)
            self.exact["normalized"] = gelu(x64 * inverse @ w.astype(np.float64).T + 2 * b.astype(np.float64))
        pieces = statistics_of(x).astype(np.float32) if k % PIECE == 0 else np.zeros(2, np.float32)
        shown = ((PIECES, pieces), (SHIFTS, b.astype(np.float32)))
        copies = bench.options.copies
        sets = max(copies, -(-2 * bench.device.l2_nbytes // w.nbytes // copies) * copies)
        stream, allocate = bench.stream, lambda nbytes: closing.enter_context(bench.device.allocate(nbytes)).address
        given = ((X, x), (B, b), (R, r), *shown)
        self.fixed = {operand: allocate(a.nbytes) for operand, a in given}
        self.fixed[SUMMARY] = allocate(m * n // 8)
        self.weights = [allocate(w.nbytes) for _ in range(sets)]
        self.results = [allocate(r.nbytes) for _ in range(3)]
        self.workspace = allocate(WORKSPACE_LIMIT)
        for operand, a in given:
            stream.copy_to_device(self.fixed[operand], a.ctypes.data, a.nbytes)
        for address in self.weights:
            stream.copy_to_device(address, w.ctypes.data, w.nbytes)
        stream.synchronize()

    def addresses(self, copy: int) -> dict[Operand, int]:
        return {**self.fixed, W: self.weights[copy % len(self.weights)], Y: self.results[copy % 2], T: self.results[2]}

    def rows(self) -> list[dict[str, Any]]:
        p = LargeProduct(self.m, self.n, self.k, self.kind, self.kind, self.kind, self.k, self.k, self.n, biased=self.kind)
        finishes: dict[str, tuple[Finish, list[Operand]]] = {
            "none": (plain_finish(self.kind), []),
            "gelu": (Finish(_GELU, "body(s, y)"), []),
            "residual": (with_residual(p), [R]),
            "statistics": (adding_finish(self.kind, self.n), [R]),
            "normalized": (Finish(_GELU, "body(s, y)"), []),
        }
        besides: dict[str, dict[str, Any]] = {
            "statistics": {"summary": SUMMARY},
            "normalized": {"rows": LargeRows(PIECES, EPSILON, centred=True, shift=SHIFTS)},
        }
        listed = [(way_of(text), follows) for text in self.bench.options.only for follows in self.bench.options.follows]
        fitted = [(replace(way, form=_fitting(way.form, self.kind, f == "normalized")), f) for way, f in listed]
        many = self.bench.device.multiprocessors
        wanted = [(way, f) for way, f in fitted if not way.form.fault(self.kind, scales=f == "normalized")]
        launches = [large_launch(p, way.form, *_arranged(finishes[f]), many, way.band, **besides.get(f, {})) for way, f in wanted]
        found = []
        for (way, follows), launch, function in zip(wanted, launches, self.bench.functions(launches), strict=True):
            enqueue = self.launching(launch, function)
            wrong = self.error(enqueue, follows)
            form = ",".join(map(str, (*asdict(way.form).values(), way.band)))
            row = {"form": form, "follows": follows, "us": self.time_us(enqueue), **self._told(wrong)}
            if self.bench.options.links:
                row["links_us"] = self.time_us(self.launching(launch, function, early=True))
            resources = {"registers": function.resources.registers, "spilled": function.resources.local_nbytes}
            found.append({**row, **resources, "shared_nbytes": launch.shared_nbytes})
        return [*found, *self.library_rows()]

    def _told(self, error: float) -> dict[str, Any]:
        return {"shape": f"{self.m}x{self.n}x{self.k}", "dtype": self.name, "error": error, "right": error < TOLERANCE[self.name]}

    def launching(self, launch: Launch[Operand], function: Function, *, early: bool = False) -> Callable[[int], None]:
        packed = [self.parameters(launch, self.addresses(copy)) for copy in range(len(self.weights))]
        stream = self.bench.stream

        def enqueue(copy: int) -> None:
            attributes = replace(launch.attributes, programmatic=early and copy % self.bench.options.copies > 0)
            stream.launch(function, launch.grid, launch.block, launch.shared_nbytes, packed[copy], attributes)

        return enqueue

    def parameters(self, launch: Launch[Any], addresses: Mapping[Any, int]) -> Parameters:
        values: list[Any] = []
        for argument in launch.arguments:
            if isinstance(argument, TensorMap):
                values.append(self.bench.device.encode(argument, addresses[argument.operand]))
            else:
                values.append(np.uint64(addresses[argument]) if isinstance(argument, Operand | Place) else argument)
        return pack_parameters(values)

    def error(self, enqueue: Callable[[int], None], follows: str) -> float:
        """Of the first result, relative to that in f64."""
        exact, stream = self.exact[follows], self.bench.stream
        found = np.empty((self.m, self.n), self.dtype)
        stream.fill(self.results[0], 0xFF, found.nbytes)
        enqueue(0)
        stream.copy_to_host(found.ctypes.data, self.results[0], found.nbytes)
        stream.synchronize()
        return float(np.linalg.norm(found[self.looked_at].astype(np.float64) - exact) / np.linalg.norm(exact))

    def time_us(self, enqueue: Callable[[int], None], rounds: int | None = None) -> float:
        """The median of the rounds, for one copy."""
        stream, copies = self.bench.stream, self.bench.options.copies
        with ExitStack() as closing:
            graphs = []
            for first in range(0, len(self.weights), copies):
                stream.begin_capture()
                for copy in range(first, first + copies):
                    enqueue(copy)
                graphs.append(closing.enter_context(stream.end_capture()))
            begin, end = (closing.enter_context(self.bench.device.create_event(timing=True)) for _ in range(2))
            times: list[float] = []
            repeats = 1
            for _ in range((rounds or self.bench.options.rounds) + 1):
                stream.record(begin)
                for _ in range(repeats):
                    for graph in graphs:
                        stream.launch_graph(graph)
                stream.record(end)
                end.synchronize()
                took = end.elapsed_ms(begin) * 1e3
                times.append(took / (repeats * len(self.weights)))
                repeats = max(1, int(_ROUND_US / times[0] / len(self.weights)))
        return statistics.median(times[1:])

    def library_rows(self) -> list[dict[str, Any]]:
        """Its first candidate, the best one, and that with a Gelu behind it."""
        if self.bench.library is None:
            return []
        compute = Compute.TF32 if self.kind is DType.F32 else Compute.F32
        sizes = (self.m, self.n, self.k, self.kind, self.kind, self.kind, compute, False, True, self.k, self.k, self.n)
        problem = MatmulProblem(*sizes, bias=True, alignment=16)
        handle, times = self.bench.stream.handle, []

        def enqueueing(candidate: Any, to: Operand = Y) -> Callable[[int], None]:
            def enqueue(copy: int) -> None:
                at = self.addresses(copy)
                candidate.enqueue(handle, [at[X], at[W], at[to], at[B]], self.workspace)

            return enqueue

        candidates = self.bench.library.candidates(problem, self.bench.options.candidates)
        error = self.error(enqueueing(candidates[0]), "none")
        for candidate in candidates:
            times.append(self.time_us(enqueueing(candidate), 2))
        best = enqueueing(candidates[times.index(min(times))], T)
        behind = self._gelu()

        def both(copy: int) -> None:
            best(copy)
            behind(copy)

        apart = {
            "first_us": times[0],
            "best_us": self.time_us(enqueueing(candidates[times.index(min(times))])),
            "apart_us": self.time_us(both),
        }
        return [{**self._told(error), "library": self.bench.library.version, **apart, "gelu_us": self.time_us(behind)}]

    def _gelu(self) -> Callable[[int], None]:
        """A pass of its own, from T to Y."""
        graph = Graph("gelu")
        graph.set_outputs(
            [insert(graph, "Gelu", graph.add_input("x", TensorType(self.kind, (self.m, self.n))), approximate="none")]
        )
        target = Target(arch=self.bench.device.arch, multiprocessors=self.bench.device.multiprocessors)
        program = make_program(graph, [v.type for v in graph.inputs], target)
        (step,) = program.steps
        assert isinstance(step, DeviceStep)
        (launch,) = step.actions
        assert isinstance(launch, Launch)
        (function,) = self.bench.functions([launch])
        (x,), (y,) = program.input_slots, program.output_slots

        def at(place: Place, copy: int) -> int:
            root = program.behind_root(place)
            return {x: self.results[2], y: self.results[copy % 2]}[root.number] + root.offset

        places = [a for a in launch.arguments if isinstance(a, Place)]
        packed = [self.parameters(launch, {place: at(place, copy) for place in places}) for copy in range(2)]
        stream = self.bench.stream
        return lambda copy: stream.launch(function, launch.grid, launch.block, launch.shared_nbytes, packed[copy % 2])


def _fitting(form: LargeForm, waiting: DType, scales: bool) -> LargeForm:
    """With as long a ring as there is room for."""
    while form.fault(waiting, scales=scales) and form.stages > 2:
        form = replace(form, stages=form.stages - 1)
    return form


def _arranged(finish: tuple[Finish, list[Operand]]) -> tuple[Finish, Operand, Operand, Operand, Operand, list[Operand]]:
    return finish[0], X, W, Y, B, finish[1]


def lines_of(shape: str, rows: Sequence[dict[str, Any]]) -> list[str]:
    """A line for what each form takes, and one of the library's."""
    forms: dict[str, list[str]] = {}
    for row in rows:
        if "form" in row:
            wrong = "" if row["right"] else f" WRONG {row['error']:.1e}"
            links = f"/{row['links_us']:.2f}" if "links_us" in row else ""
            forms.setdefault(row["form"], []).append(f"{row['follows']} {row['us']:.2f}{links}{wrong}")
    lines = [f"{shape} {form}: {', '.join(told)}" for form, told in forms.items()]
    for row in rows:
        if "library" in row:
            told = (
                f"first {row['first_us']:.2f} best {row['best_us']:.2f} with gelu {row['apart_us']:.2f} gelu {row['gelu_us']:.2f}"
            )
            lines.append(f"{shape} cublaslt: {told}{'' if row['right'] else ' WRONG'}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
